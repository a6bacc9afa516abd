package auth

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The types of the gateway's own tokens (typ, RFC 7515 §4.1.9): what is made for
// one purpose is refused for another (RFC 8725 §3.11).
const (
	typeToken = "gateway+jwt"
	typeLink  = "gateway-link+jwt"
)

// ownIssuer is iss of the gateway's own tokens.
const ownIssuer = "gateway"

// claims are what a token says (RFC 7519 §4), own or of others.
type claims struct {
	jwt.RegisteredClaims
	Name    string           `json:"name,omitempty"`
	Role    Role             `json:"role,omitempty"`
	Can     []Action         `json:"can,omitzero"` // none is not the same as not said
	Rooms   jwt.ClaimStrings `json:"rooms,omitempty"`
	Streams jwt.ClaimStrings `json:"streams,omitempty"`
	Create  bool             `json:"create,omitempty"`

	// below: in the gateway's own tokens only
	User     string `json:"user,omitempty"`    // of the configuration, who may what it says
	Password string `json:"pw,omitempty"`      // fingerprint of the user's password
	Lasting  int64  `json:"lasting,omitempty"` // of a link: seconds that what it gives lasts
	Until    int64  `json:"until,omitempty"`   // of a link: the end of that in any case, Unix seconds

	From []origin `json:"from,omitempty"` // the tokens that it was made with
}

func claimsOf(g *Grant) *claims {
	c := &claims{Name: g.Name, Role: g.Role, Can: g.Can, Rooms: g.Rooms, Streams: g.Streams, Create: g.Create}
	c.Subject, c.From = g.Subject, g.origins
	return c
}

// grant is what the claims allow, checked.
func (c *claims) grant() (*Grant, error) {
	g := &Grant{
		Subject: c.Subject, Name: shown(c.Name), Role: c.Role, Can: c.Can, Rooms: c.Rooms, Streams: c.Streams, Create: c.Create, Expires: c.expires(), origins: c.origins(),
	}
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("%w: the token grants nothing: %w", ErrUnauthorized, err)
	}
	return g, nil
}

// origins are the token itself and those that it was made with.
func (c *claims) origins() []origin {
	return append([]origin{{c.ID, c.Subject, c.IssuedAt}}, c.From...)
}

func (c *claims) expires() time.Time {
	if c.ExpiresAt == nil {
		return time.Time{}
	}
	return c.ExpiresAt.Time
}

// signer is the gateway's own key.
type signer struct {
	private ed25519.PrivateKey
	kid     string // RFC 7638 has a longer way to the same end
}

func newSigner(private ed25519.PrivateKey) signer {
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	return signer{private, "gateway-" + base64.RawURLEncoding.EncodeToString(sum[:9])}
}

// sign makes a token that ends at expires. It names it, too.
func (s signer) sign(kind string, c *claims, now, expires time.Time) (string, error) {
	c.Issuer, c.ID = ownIssuer, newID()
	c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(expires)
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["typ"], t.Header["kid"] = kind, s.kid
	token, err := t.SignedString(s.private)
	if err == nil && len(token) > maxToken {
		err = fmt.Errorf("a token of %d bytes, at most %d are allowed", len(token), maxToken)
	}
	return token, err
}

// parse checks a token of this gateway.
func (s signer) parse(token, kind string, now func() time.Time) (*claims, error) {
	if len(s.private) == 0 || len(token) > maxToken {
		return nil, fmt.Errorf("%w: the token is not this gateway's", ErrUnauthorized)
	}
	c := new(claims)
	t, err := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithStrictDecoding(), jwt.WithExpirationRequired(),
		jwt.WithIssuer(ownIssuer), jwt.WithTimeFunc(now)).ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != s.kid {
			return nil, errors.New("signed by another key")
		}
		return s.private.Public(), noCritical(t)
	})
	if err != nil {
		return nil, refused(err)
	}
	if t.Header["typ"] != kind {
		if kind == typeLink {
			return nil, fmt.Errorf("%w: the token is not a link's", ErrUnauthorized)
		}
		return nil, fmt.Errorf("%w: a link's token is redeemed first", ErrUnauthorized)
	}
	return c, nil
}

// isOwn tells whether a token says that this gateway has signed it.
func (s signer) isOwn(token string) bool { return s.kid != "" && header(token).KeyID == s.kid }

func (s signer) isType(token, kind string) bool { return header(token).Type == kind }

// head is the part of a token's header that says how to take it.
type head struct {
	KeyID string `json:"kid"`
	Type  string `json:"typ"`
}

// header reads a token's header, unchecked; a zero one of what isn't a token.
func header(token string) head {
	var h head
	first, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil || json.Unmarshal(data, &h) != nil {
		return head{}
	}
	return h
}

// noCritical refuses extensions that have to be understood and aren't (RFC 7515
// §4.1.11).
func noCritical(t *jwt.Token) error {
	if _, ok := t.Header["crit"]; ok {
		return errors.New("it has extensions that aren't known here")
	}
	return nil
}

// refused turns an error of the library into one of ours, with its words.
func refused(err error) error {
	switch {
	case errors.Is(err, ErrUnauthorized):
		return err
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpired
	case errors.Is(err, jwt.ErrTokenMalformed):
		return fmt.Errorf("%w: this is not a token", ErrUnauthorized)
	}
	return fmt.Errorf("%w: %w", ErrUnauthorized, err)
}
