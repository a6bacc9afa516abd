package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/config"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var quiet = slog.New(slog.DiscardHandler)

// authority makes one in a folder of its own.
func authority(t *testing.T, c *clock, conf config.Auth) *Authority {
	t.Helper()
	return authorityIn(t, t.TempDir(), c, conf)
}

func authorityIn(t *testing.T, dir string, c *clock, conf config.Auth) *Authority {
	t.Helper()
	if conf.Mode == "" {
		conf.Mode = config.AuthToken
	}
	a, err := New(Options{Config: &conf, State: dir, Logger: quiet, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var lobby = &Grant{Subject: "anna", Name: "Anna", Role: Host, Rooms: []string{"lobby"}, Streams: []string{"cam*"}}

func issue(t *testing.T, a *Authority, g *Grant, ttl time.Duration) string {
	t.Helper()
	token, err := a.Issue(g, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenGrantsWhatWasIssuedUntilItEnds(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{})
	token := issue(t, a, lobby, time.Hour)
	got, err := a.Authenticate(t.Context(), token)
	want := *lobby
	want.Expires = c.now().Add(time.Hour)
	if err == nil {
		got.origins = nil // see revoke_test.go
	}
	if err != nil || !reflect.DeepEqual(got, &want) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
	}
	c.advance(time.Hour - time.Second)
	if _, err := a.Authenticate(t.Context(), token); err != nil {
		t.Errorf("before its end: %v", err)
	}
	c.advance(time.Second)
	if _, err := a.Authenticate(t.Context(), token); !errors.Is(err, ErrExpired) || !errors.Is(err, ErrUnauthorized) {
		t.Errorf("at its end: %v", err)
	}
}

// A role without actions was once issued as the role with all of them.
func TestNoActionsAreNotAllActions(t *testing.T) {
	a := authority(t, newClock(), config.Auth{})
	token := issue(t, a, &Grant{Role: Host, Can: []Action{}, Rooms: []string{"*"}}, time.Hour)
	if g, err := a.Authenticate(t.Context(), token); err != nil || len(g.Actions()) != 0 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestNothingIsIssuedBeyondItsSource(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{})
	g := *lobby
	g.Expires = c.now().Add(time.Minute)
	got, err := a.Authenticate(t.Context(), issue(t, a, &g, time.Hour))
	if err != nil || !got.Expires.Equal(g.Expires) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, ttl := range []time.Duration{0, -time.Hour, 20 * 366 * 24 * time.Hour} {
		if _, err := a.Issue(lobby, ttl); err == nil {
			t.Errorf("issued for %v", ttl)
		}
	}
	if _, err := a.Issue(&Grant{Role: "root", Rooms: []string{"*"}}, time.Hour); err == nil {
		t.Error("issued a role that isn't there")
	}
	if _, err := a.Issue(&Grant{Role: Admin}, time.Hour); err == nil {
		t.Error("issued without rooms")
	}
}

// forge signs what it is told to.
func forge(t *testing.T, method jwt.SigningMethod, key any, header map[string]any, c jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	for k, v := range header {
		token.Header[k] = v
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokensThatWereTamperedWithAreRefused(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{})
	good := issue(t, a, lobby, time.Hour)
	parts := strings.Split(good, ".")
	part := func(v map[string]any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	all := jwt.MapClaims{"iss": ownIssuer, "role": "admin", "rooms": []string{"*"}, "exp": c.now().Add(time.Hour).Unix()}
	with := func(changes map[string]any) jwt.MapClaims {
		m := jwt.MapClaims{}
		for k, v := range all {
			m[k] = v
		}
		for k, v := range changes {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		return m
	}
	own := map[string]any{"kid": a.own.kid, "typ": typeToken}
	private := a.own.private
	public := private.Public().(ed25519.PublicKey)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	eddsa := jwt.SigningMethodEdDSA

	if _, err := a.Authenticate(t.Context(), forge(t, eddsa, private, own, all)); err != nil {
		t.Fatalf("the forger's own tokens aren't right: %v", err)
	}
	for name, token := range map[string]string{
		"nothing":                       "",
		"words":                         "let me in",
		"dots":                          "..",
		"four parts":                    good + ".x",
		"too long":                      good + strings.Repeat("A", maxToken),
		"another signature":             parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"other claims":                  parts[0] + "." + part(all) + "." + parts[2],
		"padding":                       good + "==",
		"alg none":                      part(map[string]any{"alg": "none", "typ": typeToken, "kid": a.own.kid}) + "." + part(all) + ".",
		"alg None":                      part(map[string]any{"alg": "None", "typ": typeToken, "kid": a.own.kid}) + "." + part(all) + ".",
		"no alg":                        part(map[string]any{"typ": typeToken, "kid": a.own.kid}) + "." + part(all) + "." + parts[2],
		"public key as a secret":        forge(t, jwt.SigningMethodHS256, []byte(public), own, all),
		"public key's text as a secret": forge(t, jwt.SigningMethodHS256, publicPEM, own, all),
		"empty secret":                  forge(t, jwt.SigningMethodHS256, []byte{}, own, all),
		"a stranger's key":              forge(t, eddsa, stranger, own, all),
		"a stranger's kid":              forge(t, eddsa, private, map[string]any{"kid": "gateway-other", "typ": typeToken}, all),
		"no kid":                        forge(t, eddsa, private, map[string]any{"typ": typeToken}, all),
		"kid is a number":               forge(t, eddsa, private, map[string]any{"kid": 1, "typ": typeToken}, all),
		"kid is a path":                 forge(t, eddsa, private, map[string]any{"kid": "../../../dev/null", "typ": typeToken}, all),
		"no type":                       forge(t, eddsa, private, map[string]any{"kid": a.own.kid, "typ": "JWT"}, all),
		"a link's type":                 forge(t, eddsa, private, map[string]any{"kid": a.own.kid, "typ": typeLink}, all),
		"critical extension":            forge(t, eddsa, private, map[string]any{"kid": a.own.kid, "typ": typeToken, "crit": []string{"x"}, "x": 1}, all),
		"another issuer":                forge(t, eddsa, private, own, with(map[string]any{"iss": "evil"})),
		"no issuer":                     forge(t, eddsa, private, own, with(map[string]any{"iss": nil})),
		"no end":                        forge(t, eddsa, private, own, with(map[string]any{"exp": nil})),
		"the end is a text":             forge(t, eddsa, private, own, with(map[string]any{"exp": "never"})),
		"ended":                         forge(t, eddsa, private, own, with(map[string]any{"exp": c.now().Add(-time.Second).Unix()})),
		"not begun":                     forge(t, eddsa, private, own, with(map[string]any{"nbf": c.now().Add(time.Hour).Unix()})),
		"no role":                       forge(t, eddsa, private, own, with(map[string]any{"role": nil})),
		"unknown role":                  forge(t, eddsa, private, own, with(map[string]any{"role": "root"})),
		"unknown action":                forge(t, eddsa, private, own, with(map[string]any{"can": []string{"fly"}})),
		"no rooms":                      forge(t, eddsa, private, own, with(map[string]any{"rooms": nil})),
		"empty room":                    forge(t, eddsa, private, own, with(map[string]any{"rooms": []string{""}})),
		"broken pattern":                forge(t, eddsa, private, own, with(map[string]any{"rooms": []string{"["}})),
		"rooms are an object":           forge(t, eddsa, private, own, with(map[string]any{"rooms": map[string]any{"*": true}})),
		"a user who isn't there":        forge(t, eddsa, private, own, with(map[string]any{"user": "eve"})),
		"almost the admin's":            a.AdminToken()[:len(a.AdminToken())-1],
		"the admin's and more":          a.AdminToken() + "A",
	} {
		if g, err := a.Authenticate(t.Context(), token); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%s: %+v, %v", name, g, err)
		} else if token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error repeats the token", name)
		}
	}
	// base64 has spare bits at the end: a token has one spelling (RFC 4648 §3.5)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	if spare := good[:len(good)-1] + string(alphabet[last^1]); spare != good {
		if _, err := a.Authenticate(t.Context(), spare); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("another spelling: %v", err)
		}
	}
}

func TestEveryByteOfATokenCounts(t *testing.T) {
	a := authority(t, newClock(), config.Auth{})
	good := issue(t, a, lobby, time.Hour)
	for i := range good {
		changed := []byte(good)
		if changed[i]++; good[i] == '.' {
			changed[i] = 'A'
		}
		if _, err := a.Authenticate(t.Context(), string(changed)); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
}

func TestAnotherGatewaysTokensAreRefused(t *testing.T) {
	c := newClock()
	a, b := authority(t, c, config.Auth{}), authority(t, c, config.Auth{})
	if _, err := b.Authenticate(t.Context(), issue(t, a, lobby, time.Hour)); !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
	if _, err := b.Authenticate(t.Context(), a.AdminToken()); !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
}

func TestSecretsOutlastARestartAndAreTheirOwners(t *testing.T) {
	c, dir := newClock(), filepath.Join(t.TempDir(), "a", "state")
	a := authorityIn(t, dir, c, config.Auth{})
	token := issue(t, a, lobby, time.Hour)
	b := authorityIn(t, dir, c, config.Auth{})
	if _, err := b.Authenticate(t.Context(), token); err != nil {
		t.Error(err)
	}
	if g, err := b.Authenticate(t.Context(), a.AdminToken()); err != nil || !g.May(Administer, "", "") || !g.Expires.IsZero() {
		t.Errorf("%+v, %v", g, err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := os.Remove(a.AdminTokenFile()); err != nil {
		t.Fatal(err)
	}
	d := authorityIn(t, dir, c, config.Auth{})
	if _, err := d.Authenticate(t.Context(), a.AdminToken()); !errors.Is(err, ErrUnauthorized) || d.AdminToken() == a.AdminToken() {
		t.Errorf("the admin's token outlived its file: %v", err)
	}
}

func TestGatewaysThatBeginTogetherHaveOneKey(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	made := make([]*Authority, 8)
	var wait sync.WaitGroup
	for i := range made {
		wait.Go(func() {
			a, err := New(Options{Config: &config.Auth{Mode: config.AuthToken}, State: dir, Logger: quiet, Now: c.now})
			if err != nil {
				t.Error(err)
			}
			made[i] = a
		})
	}
	wait.Wait()
	for _, a := range made {
		if a != nil && (a.AdminToken() != made[0].AdminToken() || a.own.kid != made[0].own.kid) {
			t.Error("they have different secrets")
		}
	}
}

func TestStateThatCannotBeIsExplained(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir    string
		before func(dir string) error
		want   string
	}{
		"nowhere":           {"", nil, "set state"},
		"in a file":         {filepath.Join(file, "state"), nil, "set state to a folder that this user may write"},
		"key for all":       {filepath.Join(dir, "a"), func(d string) error { return os.WriteFile(filepath.Join(d, keyFile), []byte("x"), 0o644) }, "others may read it"},
		"token for all":     {filepath.Join(dir, "b"), func(d string) error { return os.WriteFile(filepath.Join(d, adminFile), []byte("x"), 0o640) }, "others may read it"},
		"no key":            {filepath.Join(dir, "c"), func(d string) error { return os.WriteFile(filepath.Join(d, keyFile), []byte("x"), 0o600) }, "not an Ed25519 key; remove it"},
		"a guessable token": {filepath.Join(dir, "d"), func(d string) error { return os.WriteFile(filepath.Join(d, adminFile), []byte("admin"), 0o600) }, "remove it for a new one"},
		"an empty token":    {filepath.Join(dir, "e"), func(d string) error { return os.WriteFile(filepath.Join(d, adminFile), nil, 0o600) }, "remove it for a new one"},
		"a folder as token": {filepath.Join(dir, "f"), func(d string) error { return os.Mkdir(filepath.Join(d, adminFile), 0o700) }, "not a regular file"},
	} {
		if c.before != nil {
			if err := errors.Join(os.MkdirAll(c.dir, 0o700), c.before(c.dir)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := New(Options{Config: &config.Auth{Mode: config.AuthToken}, State: c.dir, Logger: quiet})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEverybodyIsAdmittedByNameOnly(t *testing.T) {
	open, err := New(Options{Config: &config.Auth{Mode: config.AuthNone}})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "x"} {
		if g, err := open.Authenticate(t.Context(), token); err != nil || !g.May(Administer, "", "") {
			t.Errorf("%+v, %v", g, err)
		}
	}
	if _, err := open.Issue(lobby, time.Hour); err == nil {
		t.Error("a token that nobody needs was issued")
	}
	var zero Authority
	if _, err := zero.Authenticate(t.Context(), ""); !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
	if _, err := zero.Authenticate(t.Context(), "x"); !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
}

func TestRequestsBringTheirTokenInOneWay(t *testing.T) {
	a := authority(t, newClock(), config.Auth{})
	anna, bob := issue(t, a, lobby, time.Hour), issue(t, a, &Grant{Subject: "bob", Role: Viewer, Rooms: []string{"*"}}, time.Hour)
	for _, c := range []struct {
		name   string
		header [][2]string
		want   string // subject
	}{
		{"nothing", nil, ""},
		{"bearer", [][2]string{{"Authorization", "Bearer " + anna}}, "anna"},
		{"lower case", [][2]string{{"Authorization", "bearer " + anna}}, "anna"},
		{"cookie", [][2]string{{"Cookie", Cookie + "=" + anna}}, "anna"},
		{"bearer before cookie", [][2]string{{"Authorization", "Bearer " + bob}, {"Cookie", Cookie + "=" + anna}}, "bob"},
		{"a bad bearer isn't saved by a cookie", [][2]string{{"Authorization", "Bearer x"}, {"Cookie", Cookie + "=" + anna}}, ""},
		{"basic", [][2]string{{"Authorization", "Basic " + anna}}, ""},
		{"no scheme", [][2]string{{"Authorization", anna}}, ""},
		{"no token", [][2]string{{"Authorization", "Bearer "}}, ""},
		{"two headers", [][2]string{{"Authorization", "Bearer " + anna}, {"Authorization", "Bearer " + bob}}, ""},
		{"another cookie", [][2]string{{"Cookie", "session=" + anna}}, ""},
	} {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8080/?token="+anna+"&access_token="+anna, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "127.0.0.1:1" // loopback is no exception
		for _, h := range c.header {
			r.Header.Add(h[0], h[1])
		}
		g, err := a.FromRequest(r)
		if c.want == "" && !errors.Is(err, ErrUnauthorized) || c.want != "" && (err != nil || g.Subject != c.want) {
			t.Errorf("%s: %+v, %v", c.name, g, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	c := newClock()
	dir := f.TempDir()
	a, err := New(Options{Config: &config.Auth{Mode: config.AuthToken}, State: dir, Logger: quiet, Now: c.now})
	if err != nil {
		f.Fatal(err)
	}
	good, err := a.Issue(lobby, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	link, _, err := a.Share(Open(), &Grant{Role: Viewer, Rooms: []string{"lobby"}}, time.Hour, 0)
	if err != nil {
		f.Fatal(err)
	}
	secret := filepath.Join(dir, "portal.key")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		f.Fatal(err)
	}
	both, err := New(Options{Config: &config.Auth{Mode: config.AuthJWT, Keys: []string{secret}}, State: dir, Logger: quiet, Now: c.now})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, link, "", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", strings.Repeat(".", 9000), "eyJhbGciOiJIUzI1NiJ9.bnVsbA.x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, one := range []*Authority{a, both} {
			g, err := one.Authenticate(t.Context(), token)
			if token != good && err == nil {
				t.Errorf("%q grants %+v", token, g)
			}
			if err != nil && !errors.Is(err, ErrUnauthorized) {
				t.Errorf("%q: %v", token, err)
			}
			one.IsLink(token)
		}
	})
}
