package auth

import (
	"context"
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

func TestLinkIsUsedOnce(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	a := authorityIn(t, dir, c, config.Auth{})
	maker := &Grant{Subject: "anna", Role: Host, Rooms: []string{"lobby"}}
	link, expires, err := a.Share(maker, &Grant{Role: Viewer, Rooms: []string{"lobby"}}, time.Hour, 10*time.Minute)
	if err != nil || !expires.Equal(c.now().Add(time.Hour)) {
		t.Fatal(expires, err)
	}
	if _, err := a.Authenticate(t.Context(), link); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("a link's token was taken as it is: %v", err)
	}
	if !a.IsLink(link) || a.IsLink(issue(t, a, lobby, time.Hour)) || a.IsLink(a.AdminToken()) {
		t.Error("links aren't told from tokens")
	}
	tokens := make(chan string, 16)
	var wait sync.WaitGroup
	for range cap(tokens) {
		wait.Go(func() {
			token, err := a.Redeem(link)
			if err == nil {
				tokens <- token
			} else if !errors.Is(err, ErrUsed) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if close(tokens); len(tokens) != 1 {
		t.Fatalf("%d of %d had the link", len(tokens), cap(tokens))
	}
	g, err := a.Authenticate(t.Context(), <-tokens)
	if err != nil || g.Role != Viewer || !g.May(Watch, "lobby", "") || g.May(Publish, "lobby", "") || !g.Expires.Equal(c.now().Add(10*time.Minute)) {
		t.Errorf("%+v, %v", g, err)
	}
	b := authorityIn(t, dir, c, config.Auth{}) // a restart revives nothing
	if _, err := b.Redeem(link); !errors.Is(err, ErrUsed) {
		t.Errorf("after a restart: %v", err)
	}
	c.advance(time.Hour)
	if _, err := b.Redeem(link); !errors.Is(err, ErrExpired) {
		t.Errorf("after its end: %v", err)
	}
	c.advance(time.Hour)
	up := time.Duration(0)
	b.state.links.up = func() time.Duration { return up }
	marks := func(when string, want int) {
		t.Helper()
		next, _, err := b.Share(maker, &Grant{Role: Viewer, Rooms: []string{"lobby"}}, 30*24*time.Hour, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Redeem(next); err != nil {
			t.Error(err)
		}
		if marks, err := os.ReadDir(filepath.Join(dir, linksDir)); err != nil || len(marks) != want {
			t.Errorf("%s: %d marks of used links, %v, want %d", when, len(marks), err, want)
		}
	}
	marks("an hour later", 2)
	up += markKept - time.Second
	marks("nearly a day later", 3)
	up += time.Second
	marks("a day later", 3) // one more, and one less
}

// A clock that was set forward had the marks of used links removed, and when it was right
// again the links were as new.
func TestClockThatGoesBackRevivesNoLink(t *testing.T) {
	c := newClock()
	a := authorityIn(t, t.TempDir(), c, config.Auth{})
	up := time.Duration(0)
	a.state.links.up = func() time.Duration { return up }
	redeem := func(link string) (string, error) {
		t.Helper()
		if link == "" {
			var err error
			if link, _, err = a.Share(Open(), &Grant{Role: Viewer, Rooms: []string{"lobby"}}, time.Hour, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, err := a.Redeem(link)
		return link, err
	}
	link, err := redeem("")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // for less than a day each, with right hours between
		c.advance(365 * 24 * time.Hour)
		for range 2 {
			if _, err := redeem(""); err != nil {
				t.Fatal(err)
			}
			up += markKept / 2
		}
		c.advance(-365 * 24 * time.Hour)
		if _, err := redeem(link); !errors.Is(err, ErrUsed) {
			t.Fatalf("a second time: %v", err)
		}
	}
}

func TestLinkIsNotGivenWhereItsUseCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	a := authorityIn(t, dir, newClock(), config.Auth{})
	link, _, err := a.Share(Open(), &Grant{Role: Viewer, Rooms: []string{"lobby"}}, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, linksDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Redeem(link); err == nil {
		t.Error("redeemed without a mark")
	}
}

func TestNobodySharesMoreThanTheyHave(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{})
	host := func(change func(*Grant)) *Grant {
		g := &Grant{Role: Host, Rooms: []string{"hall-*"}, Streams: []string{"cam*"}, Expires: c.now().Add(time.Minute)}
		change(g)
		return g
	}
	as := func(change func(*Grant)) *Grant {
		g := &Grant{Role: Viewer, Rooms: []string{"hall-1"}, Streams: []string{"cam1"}}
		change(g)
		return g
	}
	same := func(*Grant) {}
	for _, x := range []struct {
		name  string
		maker *Grant
		made  *Grant
		ok    bool
	}{
		{"less", host(same), as(same), true},
		{"its own patterns", host(same), as(func(g *Grant) { g.Rooms, g.Streams, g.Role = []string{"hall-*"}, []string{"cam*"}, Host }), true},
		{"another room", host(same), as(func(g *Grant) { g.Rooms = []string{"lobby"} }), false},
		{"another room among its own", host(same), as(func(g *Grant) { g.Rooms = []string{"hall-1", "lobby"} }), false},
		{"a wider pattern", host(same), as(func(g *Grant) { g.Rooms = []string{"hall*"} }), false},
		{"a pattern that looks like a name of its own", host(same), as(func(g *Grant) { g.Rooms = []string{"hall-[*]"} }), false},
		{"all rooms", host(same), as(func(g *Grant) { g.Rooms = []string{"*"} }), false},
		{"no rooms", host(same), as(func(g *Grant) { g.Rooms = nil }), false},
		{"another stream", host(same), as(func(g *Grant) { g.Streams = []string{"screen"} }), false},
		{"all streams", host(same), as(func(g *Grant) { g.Streams = nil }), false},
		{"a higher role", host(same), as(func(g *Grant) { g.Role = Admin }), false},
		{"an action more", host(same), as(func(g *Grant) { g.Can = []Action{Watch, Administer} }), false},
		{"making rooms", host(same), as(func(g *Grant) { g.Create = true }), false},
		{"who doesn't moderate", host(func(g *Grant) { g.Role = Publisher }), as(same), false},
		{"a host without the action", host(func(g *Grant) { g.Can = []Action{Moderate, Watch} }), as(func(g *Grant) { g.Role = Publisher }), false},
		{"the admin", &Grant{Role: Admin, Rooms: []string{"*"}, Create: true}, as(func(g *Grant) { g.Role, g.Rooms, g.Streams, g.Create = Admin, []string{"*"}, nil, true }), true},
	} {
		link, expires, err := a.Share(x.maker, x.made, time.Hour, time.Hour)
		if x.ok != (err == nil) {
			t.Errorf("%s: %v", x.name, err)
		}
		if err != nil || x.maker.Expires.IsZero() {
			continue
		}
		if expires.After(x.maker.Expires) {
			t.Errorf("%s: the link outlives its maker's grant", x.name)
		}
		token, err := a.Redeem(link)
		if err != nil {
			t.Fatal(err)
		}
		if g, err := a.Authenticate(t.Context(), token); err != nil || g.Expires.After(x.maker.Expires) {
			t.Errorf("%s: what the link gives outlives its maker's grant: %+v, %v", x.name, g, err)
		}
	}
}

func TestLiteralPatternsMatchThemselvesAlone(t *testing.T) {
	for _, name := range []string{"lobby", "*", "a?b", "[x]", `\`, "a-b_c"} {
		g := &Grant{Role: Viewer, Rooms: []string{Literal(name)}}
		if !g.May(Watch, name, "") || g.May(Watch, "other", "") || g.May(Watch, "", "") {
			t.Errorf("%q as %q", name, g.Rooms)
		}
	}
}

func password(t *testing.T, text string) config.Password {
	t.Helper()
	phc, err := HashPassword(text)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := config.ParsePassword(phc)
	if !ok {
		t.Fatalf("%q isn't taken", phc)
	}
	return p
}

func TestUsersLogInByPassword(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	users := map[string]config.User{"anna": {Password: password(t, "correct horse"), Role: "host", Rooms: []string{"lobby"}}}
	a := authorityIn(t, dir, c, config.Auth{Users: users})
	for _, x := range []struct{ user, password string }{
		{"anna", "wrong horse"}, {"anna", ""}, {"anna", "correct horse "}, {"Anna", "correct horse"}, {"eve", "correct horse"}, {"eve", ""},
		{"", "correct horse"}, {"anna", strings.Repeat("x", 5000)},
	} {
		if _, err := a.Login(t.Context(), x.user+x.password, x.user, x.password); !errors.Is(err, ErrPassword) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	token, err := a.Login(t.Context(), "192.0.2.1", "anna", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Authenticate(t.Context(), token)
	if err != nil || g.Subject != "anna" || g.Role != Host || !g.May(Moderate, "lobby", "") || g.May(Watch, "hall", "") || !g.Expires.Equal(c.now().Add(sessionTTL)) {
		t.Errorf("%+v, %v", g, err)
	}
	// what a user may is what the configuration says now
	for name, later := range map[string]struct {
		user config.User
		ok   bool
	}{
		"the same":         {users["anna"], true},
		"another role":     {config.User{Password: users["anna"].Password, Role: "viewer", Rooms: []string{"hall"}}, true},
		"another password": {config.User{Password: config.Password{Memory: 8 << 10, Time: 1, Threads: 1, Salt: []byte("saltsalt"), Hash: make([]byte, 16)}, Role: "host", Rooms: []string{"lobby"}}, false},
	} {
		b := authorityIn(t, dir, c, config.Auth{Users: map[string]config.User{"anna": later.user}})
		g, err := b.Authenticate(t.Context(), token)
		if later.ok != (err == nil) || err == nil && string(g.Role) != later.user.Role {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	if _, err := authorityIn(t, dir, c, config.Auth{}).Authenticate(t.Context(), token); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("a user who was removed is still in: %v", err)
	}
	for _, short := range []string{"", "1234567", strings.Repeat("x", 1025)} {
		if _, err := HashPassword(short); err == nil {
			t.Errorf("a password of %d bytes was taken", len(short))
		}
	}
}

func TestLoginsAreThrottled(t *testing.T) {
	c := newClock()
	cheap := config.Password{Memory: 8 << 10, Time: 1, Threads: 1, Salt: []byte("saltsalt"), Hash: make([]byte, 16)}
	users := map[string]config.User{"anna": {Password: cheap, Role: "viewer", Rooms: []string{"*"}}}
	for i := range addressRate.burst {
		users["user"+string(rune('a'+i))] = users["anna"]
	}
	a := authority(t, c, config.Auth{Users: users})
	try := func(address, user string) error {
		_, err := a.Login(t.Context(), address, user, "x")
		return err
	}
	for i := range addressRate.burst {
		if err := try("192.0.2.1", "user"+string(rune('a'+i))); !errors.Is(err, ErrPassword) {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	if err := try("192.0.2.1", "anna"); !errors.Is(err, ErrThrottled) {
		t.Errorf("one address, many users: %v", err)
	}
	if err := try("192.0.2.2", "anna"); !errors.Is(err, ErrPassword) {
		t.Errorf("another address: %v", err)
	}
	for i := range userRate.burst - 1 {
		if err := try("198.51.100."+string(rune('a'+i)), "anna"); !errors.Is(err, ErrPassword) {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	if err := try("203.0.113.1", "anna"); !errors.Is(err, ErrThrottled) {
		t.Errorf("one user, many addresses: %v", err)
	}
	c.advance(addressRate.every)
	if err := try("192.0.2.1", "anna"); !errors.Is(err, ErrPassword) {
		t.Errorf("after a while: %v", err)
	}
}

// Who may try names from many addresses doesn't decide what is kept of them.
func TestThrottleRemembersShortNames(t *testing.T) {
	a := authority(t, newClock(), config.Auth{})
	if _, err := a.Login(t.Context(), "192.0.2.1", strings.Repeat("x", 16<<10), "x"); !errors.Is(err, ErrPassword) {
		t.Error(err)
	}
	for who := range a.logins.by {
		if len(who) > 2*maxName {
			t.Errorf("%d bytes are remembered", len(who))
		}
	}
}

func TestThrottleRemembersABoundedNumber(t *testing.T) {
	c := newClock()
	x := newThrottle(c.now)
	for i := range maxThrottled {
		x.allow(string(rune(i))+"a", addressRate)
	}
	for i := range addressRate.burst {
		if !x.allow("new one "+string(rune('a'+i)), addressRate) {
			t.Fatalf("the %d. of the others", i)
		}
	}
	if x.allow("one more", addressRate) {
		t.Error("those who aren't remembered aren't throttled")
	}
	if len(x.by) > maxThrottled+1 {
		t.Errorf("%d are remembered", len(x.by))
	}
	c.advance(time.Hour)
	if !x.allow("one more", addressRate) || len(x.by) > 2 {
		t.Errorf("%d are remembered after an hour", len(x.by))
	}
}

func TestAddressesAreCountedBySubscriber(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64", "@": "@",
	} {
		if got := AddressOf(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

func TestLoginWaitsNoLongerThanItsCaller(t *testing.T) {
	a := authority(t, newClock(), config.Auth{})
	for range hashesAtATime {
		a.hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Login(ctx, "192.0.2.1", "anna", "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for range loginsAtATime {
		a.waiting <- struct{}{}
	}
	if _, err := a.Login(t.Context(), "192.0.2.1", "anna", "x"); !errors.Is(err, ErrThrottled) {
		t.Error(err)
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
