package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	keySetFresh   = 10 * time.Minute // a key that was taken out of the set works for so long
	keySetStale   = 24 * time.Hour   // that old keys are used while the set can't be fetched
	keySetPause   = 30 * time.Second // between fetches, whatever kids tokens have
	keySetTimeout = 5 * time.Second
	maxKeySet     = 256 << 10 // bytes
	maxKeys       = 100
)

// keySet is a set of keys behind a URL (RFC 7517 §5), fetched when it is needed.
type keySet struct {
	url    string
	client *http.Client
	log    *slog.Logger
	now    func() time.Time

	turn chan struct{} // holds one while somebody fetches

	mu      sync.Mutex // guards below; never held across a fetch
	keys    []key
	fetched time.Time // the last that succeeded
	tried   time.Time
}

func newKeySet(url string, log *slog.Logger, now func() time.Time) *keySet {
	return &keySet{url: url, log: log, now: now, turn: make(chan struct{}, 1), client: &http.Client{
		Timeout: keySetTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) || len(via) > 3 {
				return errors.New("redirected away from HTTPS, or too often")
			}
			return nil
		},
	}}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// get returns the keys of the set, fetched anew where they are old or don't have
// the kid, but not more often than every keySetPause. It blocks while they are
// fetched.
func (s *keySet) get(ctx context.Context, kid string) ([]key, error) {
	if keys, due := s.known(kid); !due {
		return keys, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if _, due := s.known(kid); due && s.try() {
		keys, err := s.fetch(context.WithoutCancel(ctx)) // for all who wait; the client has its timeout
		if err != nil {
			s.log.Warn("key set not fetched: what was fetched before is used for a day", "url", s.url, "err", err)
		} else {
			s.mu.Lock()
			s.keys, s.fetched = keys, s.now()
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetched.IsZero() || s.now().Sub(s.fetched) > keySetStale {
		return nil, errors.New("the keys can't be fetched just now")
	}
	return s.keys, nil
}

// known returns the keys that are there, and whether they should be fetched anew.
func (s *keySet) known(kid string) (keys []key, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	has := kid == "" || slices.ContainsFunc(s.keys, func(k key) bool { return k.id == kid })
	fresh := !s.fetched.IsZero() && s.now().Sub(s.fetched) < keySetFresh
	return s.keys, !has || !fresh
}

// try tells whether a fetch may be tried now, and counts it.
func (s *keySet) try() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.tried.IsZero() || now.Sub(s.tried) >= keySetPause {
		s.tried = now
		return true
	}
	return false
}

func (s *keySet) fetch(ctx context.Context) ([]key, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxKeySet+1))
	if err != nil {
		return nil, err
	}
	return parseKeySet(body)
}

// jwk is a JSON Web Key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
	N   string `json:"n"`
	E   string `json:"e"`
}

// parseKeySet reads a set. Keys that aren't for signatures, or that aren't known
// here, are passed over, and so are symmetric ones: what everybody can fetch is
// no secret.
func parseKeySet(body []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if len(body) > maxKeySet {
		return nil, fmt.Errorf("the set has more than %d bytes", maxKeySet)
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	var keys []key
	for _, data := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var j jwk
		if json.Unmarshal(data, &j) != nil || j.Use != "" && j.Use != "sig" {
			continue
		}
		public, err := j.public()
		if err != nil {
			continue
		}
		k, err := newKey(j.Kid, public)
		if err != nil {
			continue
		}
		if j.Alg != "" {
			if !slices.Contains(k.algs, j.Alg) {
				continue
			}
			k.algs = []string{j.Alg}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("the set has no key that is known here")
	}
	return keys, nil
}

func (j jwk) public() (crypto.PublicKey, error) {
	number := func(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }
	switch {
	case j.Kty == "OKP" && j.Crv == "Ed25519":
		x, err := number(j.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("not an Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	case j.Kty == "EC" && (j.Crv == "P-256" || j.Crv == "P-384"):
		curve := elliptic.P256()
		if j.Crv == "P-384" {
			curve = elliptic.P384()
		}
		size := curve.Params().BitSize / 8
		x, err1 := number(j.X)
		y, err2 := number(j.Y)
		if err1 != nil || err2 != nil || len(x) != size || len(y) != size {
			return nil, errors.New("not a point")
		}
		return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	case j.Kty == "RSA":
		n, err1 := number(j.N)
		e, err2 := number(j.E)
		if err1 != nil || err2 != nil || len(e) == 0 || len(e) > 4 {
			return nil, errors.New("not an RSA key")
		}
		exponent := new(big.Int).SetBytes(e).Int64()
		if exponent < 3 || exponent%2 == 0 || exponent > 1<<31-1 {
			return nil, errors.New("not an RSA exponent")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent)}, nil
	}
	return nil, fmt.Errorf("keys of type %q aren't known here", j.Kty)
}
