package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/config"
)

func claimsUntil(exp time.Time) jwt.MapClaims {
	return jwt.MapClaims{
		"iss": "https://login.example.org", "aud": []string{"other", "gateway"}, "sub": "anna", "role": "host", "rooms": "lobby", "exp": exp.Unix(),
	}
}

func ed25519Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// keyFiles writes a file for each kind of key, with the signer that belongs to it.
func keyFiles(t *testing.T) (paths []string, signers map[string]struct {
	method jwt.SigningMethod
	key    any
}) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	public := func(key crypto.Signer) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key.Public()))})
	}
	ed, ec, rs := ed25519Key(t), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(rsa.GenerateKey(rand.Reader, 2048))
	secret := []byte(strings.Repeat("secret", 6))
	write("ed.pem", public(ed))
	write("ec.pem", public(ec))
	write("rs.pem", public(rs))
	write("hs.key", append(secret, '\n'))
	private := ed25519Key(t)
	write("private.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))}))
	return paths, map[string]struct {
		method jwt.SigningMethod
		key    any
	}{
		"ed": {jwt.SigningMethodEdDSA, ed}, "ec": {jwt.SigningMethodES256, ec}, "rs": {jwt.SigningMethodRS256, rs}, "hs": {jwt.SigningMethodHS256, secret},
		"private": {jwt.SigningMethodEdDSA, private},
	}
}

func TestTokensOfOthersAreTakenByTheirKeys(t *testing.T) {
	c := newClock()
	paths, signers := keyFiles(t)
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, Keys: paths, Issuer: "https://login.example.org", Audience: "gateway"})
	exp := c.now().Add(time.Hour)
	for kid, s := range signers {
		for _, header := range []map[string]any{{"kid": kid}, {}} {
			g, err := a.Authenticate(t.Context(), forge(t, s.method, s.key, header, claimsUntil(exp)))
			if err != nil || g.Subject != "anna" || !g.May(Moderate, "lobby", "") || g.May(Watch, "hall", "") || !g.Expires.Equal(exp) {
				t.Errorf("%s %v: %+v, %v", kid, header, g, err)
			}
		}
	}
	if _, err := a.Authenticate(t.Context(), issue(t, a, lobby, time.Hour)); err != nil {
		t.Errorf("the gateway's own tokens are refused: %v", err)
	}
	if _, err := authority(t, c, config.Auth{}).Authenticate(t.Context(), forge(t, signers["ed"].method, signers["ed"].key, nil, claimsUntil(exp))); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("mode token takes tokens of others: %v", err)
	}
}

func TestTokensOfOthersThatAreWrongAreRefused(t *testing.T) {
	c := newClock()
	paths, signers := keyFiles(t)
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, Keys: paths, Issuer: "https://login.example.org", Audience: "gateway"})
	with := func(name string, v any) jwt.MapClaims {
		m := claimsUntil(c.now().Add(time.Hour))
		if m[name] = v; v == nil {
			delete(m, name)
		}
		return m
	}
	ed, rs := signers["ed"], signers["rs"]
	good := with("sub", "anna")
	kid := func(id string) map[string]any { return map[string]any{"kid": id} }
	edPEM, rsPEM := must(os.ReadFile(paths[0])), must(os.ReadFile(paths[2]))
	for name, token := range map[string]string{
		"ended":                       forge(t, ed.method, ed.key, nil, with("exp", c.now().Unix())),
		"no end":                      forge(t, ed.method, ed.key, nil, with("exp", nil)),
		"not begun":                   forge(t, ed.method, ed.key, nil, with("nbf", c.now().Add(time.Minute).Unix())),
		"another issuer":              forge(t, ed.method, ed.key, nil, with("iss", "https://evil.example.org")),
		"the issuer and more":         forge(t, ed.method, ed.key, nil, with("iss", "https://login.example.org/")),
		"no issuer":                   forge(t, ed.method, ed.key, nil, with("iss", nil)),
		"another audience":            forge(t, ed.method, ed.key, nil, with("aud", "other")),
		"no audience":                 forge(t, ed.method, ed.key, nil, with("aud", nil)),
		"no role":                     forge(t, ed.method, ed.key, nil, with("role", nil)),
		"no rooms":                    forge(t, ed.method, ed.key, nil, with("rooms", nil)),
		"another kid":                 forge(t, ed.method, ed.key, kid("rs"), good),
		"unknown kid":                 forge(t, ed.method, ed.key, kid("gone"), good),
		"a key of the same kind":      forge(t, ed.method, signers["private"].key, kid("ed"), good),
		"RSA key's PEM as a secret":   forge(t, jwt.SigningMethodHS256, rsPEM, kid("rs"), good),
		"Ed25519 PEM as a secret":     forge(t, jwt.SigningMethodHS256, edPEM, kid("ed"), good),
		"PEM as a secret without kid": forge(t, jwt.SigningMethodHS256, rsPEM, nil, good),
		"RS512":                       forge(t, jwt.SigningMethodRS512, rs.key, kid("rs"), good),
		"HS512":                       forge(t, jwt.SigningMethodHS512, signers["hs"].key, kid("hs"), good),
		"none":                        forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, good),
		"critical extension":          forge(t, ed.method, ed.key, map[string]any{"crit": []string{"b64"}, "b64": false}, good),
		"as one of ours":              forge(t, ed.method, ed.key, map[string]any{"kid": a.own.kid, "typ": typeToken}, good),
	} {
		if g, err := a.Authenticate(t.Context(), token); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	// users are ours: another's token can't name one
	users := map[string]config.User{"anna": {Role: "admin", Rooms: []string{"*"}}}
	b := authority(t, c, config.Auth{Mode: config.AuthJWT, Keys: paths, Users: users})
	m := with("user", "anna")
	m["pw"] = fingerprint(config.Password{})
	if g, err := b.Authenticate(t.Context(), forge(t, ed.method, ed.key, nil, m)); err != nil || g.Role != Host {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestKeyFilesAreReadAgain(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "portal.key")
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one)
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, Keys: []string{path}})
	good := func(secret string) bool {
		_, err := a.Authenticate(t.Context(), forge(t, jwt.SigningMethodHS256, []byte(secret), nil, claimsUntil(c.now().Add(time.Hour))))
		return err == nil
	}
	for _, step := range []struct {
		text     string
		one, two bool
	}{{one, true, false}, {two, false, true}, {"bad", false, true}} {
		write(step.text)
		if a.Reload(); good(one) != step.one || good(two) != step.two {
			t.Errorf("with %q: %v %v", step.text, good(one), good(two))
		}
	}
	authority(t, c, config.Auth{}).Reload() // nothing to read
}

func TestKeyFilesThatAreWrongAreExplained(t *testing.T) {
	dir := t.TempDir()
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	for name, c := range map[string]struct{ text, want string }{
		"short.key": {"secret", "neither PEM nor a secret of 32 bytes or more"},
		"empty.key": {"", "neither PEM nor a secret"},
		"half.pem":  {"-----BEGIN PUBLIC KEY-----\nAAAA" + strings.Repeat("A", 40), "neither PEM nor a secret"},
		"other.pem": {string(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{1}})), `PEM of type "EC PARAMETERS" holds no key`},
		"bad.pem":   {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})), "bad.pem: "},
		"small.pem": {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(small.Public()))})), "1024 bits"},
		"none.pem":  {"", "no such file"},
	} {
		path := filepath.Join(dir, name)
		if name != "none.pem" {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := New(Options{Config: &config.Auth{Mode: config.AuthJWT, Keys: []string{path}}, State: t.TempDir(), Logger: quiet})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// keyServer serves a key set that tests change.
type keyServer struct {
	*httptest.Server
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
}

func newKeyServer(t *testing.T) *keyServer {
	s := new(keyServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) does(f http.HandlerFunc) { s.answer.Store(&f) }

func (s *keyServer) serves(keys ...map[string]any) {
	body, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	s.does(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })
}

func edJWK(kid string, key ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}
}

func TestKeySetIsFollowedThroughARotation(t *testing.T) {
	c := newClock()
	s := newKeyServer(t)
	one, two := ed25519Key(t), ed25519Key(t)
	s.serves(edJWK("1", one))
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, JWKS: s.URL, Audience: "gateway"})
	if s.asked.Load() != 0 {
		t.Error("asked before it was needed")
	}
	try := func(kid string, key ed25519.PrivateKey) error {
		_, err := a.Authenticate(t.Context(), forge(t, jwt.SigningMethodEdDSA, key, map[string]any{"kid": kid}, claimsUntil(c.now().Add(time.Hour))))
		return err
	}
	asked := func(n int32) {
		t.Helper()
		if got := s.asked.Load(); got != n {
			t.Errorf("the set was fetched %d times, want %d", got, n)
		}
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if err := try("1", one); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	asked(1)

	s.serves(edJWK("1", one), edJWK("2", two))
	if err := try("2", two); !errors.Is(err, ErrUnauthorized) { // too soon after the last
		t.Error(err)
	}
	asked(1)
	c.advance(keySetPause)
	if err := try("2", two); err != nil { // an unknown kid has it fetched
		t.Error(err)
	}
	asked(2)
	for range 50 {
		if err := try("made-up", two); !errors.Is(err, ErrUnauthorized) {
			t.Error(err)
		}
	}
	asked(2)

	s.serves(edJWK("2", two)) // 1 is gone
	if err := try("1", one); err != nil {
		t.Error(err)
	}
	c.advance(keySetFresh)
	if err := try("1", one); !errors.Is(err, ErrUnauthorized) {
		t.Error("a key that was taken back works on")
	}
	asked(3)

	s.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) })
	c.advance(keySetFresh)
	if err := try("2", two); err != nil {
		t.Errorf("the issuer is down for a moment: %v", err)
	}
	asked(4)
	c.advance(keySetStale)
	if err := try("2", two); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("the issuer is down for a day: %v", err)
	}
}

func TestHostileKeySetsAreBorne(t *testing.T) {
	key := ed25519Key(t)
	secret := []byte(strings.Repeat("s", 32))
	good, _ := json.Marshal(map[string]any{"keys": []any{edJWK("1", key)}})
	other := newKeyServer(t)
	other.does(func(w http.ResponseWriter, _ *http.Request) { w.Write(good) })
	for name, answer := range map[string]http.HandlerFunc{
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"no keys":  func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys": []}`)) },
		"null":     func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`null`)) },
		"a secret": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys": [{"kty": "oct", "kid": "1", "k": "` + base64.RawURLEncoding.EncodeToString(secret) + `"}]}`))
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) { w.Write(append(good, make([]byte, maxKeySet)...)) },
		"for encryption": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.Replace(string(good), `"sig"`, `"enc"`, 1)))
		},
		"another algorithm": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.Replace(string(good), `"use":"sig"`, `"alg":"HS256"`, 1)))
		},
		"no point": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": "` + strings.Repeat("A", 43) + `", "y": "` + strings.Repeat("A", 43) + `"}]}`))
		},
		"RSA exponent 1": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"keys": [{"kty": "RSA", "kid": "1", "n": "` + strings.Repeat("A", 400) + `", "e": "AQ"}]}`))
		},
		"loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
		"away from HTTPS": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://keys.invalid/", http.StatusFound)
		},
	} {
		s := newKeyServer(t)
		s.does(answer)
		a := authority(t, newClock(), config.Auth{Mode: config.AuthJWT, JWKS: s.URL, Audience: "gateway"})
		exp := newClock().now().Add(time.Hour)
		for _, token := range []string{
			forge(t, jwt.SigningMethodEdDSA, key, map[string]any{"kid": "1"}, claimsUntil(exp)),
			forge(t, jwt.SigningMethodHS256, secret, map[string]any{"kid": "1"}, claimsUntil(exp)),
		} {
			if _, err := a.Authenticate(t.Context(), token); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestKeySetsHoldEachKindOfKey(t *testing.T) {
	ec, rs, ed := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), must(rsa.GenerateKey(rand.Reader, 2048)), ed25519Key(t)
	b64 := base64.RawURLEncoding.EncodeToString
	point := must(ec.PublicKey.Bytes())[1:]
	s := newKeyServer(t)
	s.serves(
		map[string]any{"kty": "oct", "k": "c2VjcmV0"}, map[string]any{"kty": 7}, // passed over
		map[string]any{"kty": "EC", "crv": "P-384", "kid": "ec", "x": b64(point[:48]), "y": b64(point[48:])},
		map[string]any{"kty": "RSA", "kid": "rs", "alg": "PS256", "n": b64(rs.N.Bytes()), "e": "AQAB"},
		edJWK("ed", ed),
	)
	c := newClock()
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, JWKS: s.URL, Audience: "gateway"})
	for _, x := range []struct {
		kid    string
		method jwt.SigningMethod
		key    any
		ok     bool
	}{
		{"ec", jwt.SigningMethodES384, ec, true}, {"rs", jwt.SigningMethodPS256, rs, true}, {"ed", jwt.SigningMethodEdDSA, ed, true},
		{"rs", jwt.SigningMethodRS256, rs, false}, // the set says PS256
	} {
		_, err := a.Authenticate(t.Context(), forge(t, x.method, x.key, map[string]any{"kid": x.kid}, claimsUntil(c.now().Add(time.Hour))))
		if x.ok != (err == nil) {
			t.Errorf("%s %s: %v", x.kid, x.method.Alg(), err)
		}
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"` + strings.Repeat("A", 43) + `"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseKeySet(body)
		if err == nil && len(keys) == 0 {
			t.Error("neither keys nor an error")
		}
		for _, k := range keys {
			for _, alg := range k.algs {
				if alg == "HS256" {
					t.Error("a secret came out of a public set")
				}
			}
		}
	})
}
