package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/config"
)

// key verifies tokens of others.
type key struct {
	id     string   // kid; "": it has none
	algs   []string // that it may be used with, and no others: a public key is no HMAC secret (RFC 8725 §3.1)
	verify crypto.PublicKey
}

// others are those whose tokens are taken beside the gateway's own.
type others struct {
	files  []string
	keys   atomic.Pointer[[]key] // of files
	set    *keySet               // nil: none
	parser *jwt.Parser
	now    func() time.Time
}

// methods are the algorithms that any key of others may have.
var methods = []string{"EdDSA", "ES256", "ES384", "RS256", "PS256", "HS256"}

func newOthers(c *config.Auth, log *slog.Logger, now func() time.Time) (*others, error) {
	o := &others{files: c.Keys, now: now}
	if err := o.read(); err != nil {
		return nil, err
	}
	if c.JWKS != "" {
		o.set = newKeySet(c.JWKS, log, now)
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(now),
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	o.parser = jwt.NewParser(options...)
	return o, nil
}

// read reads the key files. With an error the keys that were read before hold.
func (o *others) read() error {
	var keys []key
	for _, path := range o.files {
		k, err := readKey(path)
		if err != nil {
			return fmt.Errorf("auth.keys: %w", err)
		}
		keys = append(keys, k)
	}
	o.keys.Store(&keys)
	return nil
}

// authenticate checks a token that others have signed.
func (o *others) authenticate(ctx context.Context, token string) (*Grant, error) {
	c := new(claims)
	_, err := o.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		if err := noCritical(t); err != nil {
			return nil, err
		}
		kid, _ := t.Header["kid"].(string)
		return o.find(ctx, kid, t.Method.Alg())
	})
	if err != nil {
		return nil, refused(err)
	}
	c.User, c.Password, c.From = "", "", nil // ours alone
	g, err := c.grant()
	if err == nil && g.Expired(o.now()) { // the leeway is for clocks that are ahead
		return nil, ErrExpired
	}
	return g, err
}

// find returns the keys that a token of this kid and algorithm may be signed by.
func (o *others) find(ctx context.Context, kid, alg string) (jwt.VerificationKeySet, error) {
	var set jwt.VerificationKeySet
	pick := func(keys []key) {
		for _, k := range keys {
			if (kid == "" || kid == k.id) && slices.Contains(k.algs, alg) {
				set.Keys = append(set.Keys, k.verify)
			}
		}
	}
	pick(*o.keys.Load())
	if o.set != nil && len(set.Keys) == 0 {
		keys, err := o.set.get(ctx, kid)
		if err != nil {
			return set, err
		}
		pick(keys)
	}
	if len(set.Keys) == 0 {
		return set, fmt.Errorf("no key with kid %.64q for %s is known here", kid, alg)
	}
	return set, nil
}

const minSecret = 32 // bytes, RFC 7518 §3.2

// readKey reads a key file: PEM with a public key, a private one or a
// certificate, or else a secret. The file's name without its ending is the kid.
func readKey(path string) (key, error) {
	f, err := os.Open(path)
	if err != nil {
		return key{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return key{}, err
	}
	id := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	block, _ := pem.Decode(data)
	if block == nil {
		secret := bytes.TrimRight(data, "\r\n")
		if len(secret) < minSecret || bytes.Contains(secret, []byte("-----BEGIN")) {
			return key{}, fmt.Errorf("%s: neither PEM nor a secret of %d bytes or more", path, minSecret)
		}
		return key{id, []string{"HS256"}, secret}, nil
	}
	public, err := publicKey(block)
	if err != nil {
		return key{}, fmt.Errorf("%s: %w", path, err)
	}
	k, err := newKey(id, public)
	if err != nil {
		return key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func publicKey(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "PRIVATE KEY":
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		if s, ok := private.(crypto.Signer); ok {
			return s.Public(), nil
		}
	}
	return nil, fmt.Errorf("PEM of type %q holds no key for tokens", block.Type)
}

// newKey tells with which algorithms a public key may be used.
func newKey(id string, public crypto.PublicKey) (key, error) {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return key{id, []string{"EdDSA"}, p}, nil
	case *ecdsa.PublicKey:
		switch p.Params().BitSize {
		case 256:
			return key{id, []string{"ES256"}, p}, nil
		case 384:
			return key{id, []string{"ES384"}, p}, nil
		}
		return key{}, errors.New("of elliptic curves P-256, P-384 and Ed25519 are known here")
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < 2048 || n > 8192 {
			return key{}, fmt.Errorf("an RSA key of %d bits, 2048 to 8192 are allowed", n)
		}
		return key{id, []string{"RS256", "PS256"}, p}, nil
	}
	return key{}, fmt.Errorf("a key of type %T isn't known here", public)
}
