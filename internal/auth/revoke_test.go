package auth

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/config"
)

// taken checks whether a token is taken.
func taken(t *testing.T, a *Authority, what, token string, want bool) {
	t.Helper()
	_, err := a.Authenticate(t.Context(), token)
	if want && err != nil || !want && !(errors.Is(err, ErrRevoked) && errors.Is(err, ErrUnauthorized)) {
		t.Errorf("%s: taken %t, want %t: %v", what, err == nil, want, err)
	}
}

func revoke(t *testing.T, a *Authority, r Revocation) {
	t.Helper()
	if _, err := a.Revoke(r); err != nil {
		t.Fatal(err)
	}
}

func TestOneTokenIsRevokedWithWhatWasMadeOfIt(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	a := authorityIn(t, dir, c, config.Auth{})
	host := issue(t, a, &Grant{Subject: "anna", Role: Host, Rooms: []string{"lobby"}}, time.Hour)
	same := issue(t, a, &Grant{Subject: "anna", Role: Host, Rooms: []string{"lobby"}}, time.Hour)
	maker, err := a.Authenticate(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	share := func(by *Grant) string {
		t.Helper()
		link, _, err := a.Share(by, &Grant{Role: Host, Rooms: []string{"lobby"}}, time.Hour, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	redeem := func(link string) string {
		t.Helper()
		token, err := a.Redeem(link)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	unused := share(maker)
	guest := redeem(share(maker))
	g, err := a.Authenticate(t.Context(), guest)
	if err != nil {
		t.Fatal(err)
	}
	guests := redeem(share(g)) // of a link that the guest has made
	taken(t, a, "the guest's guest", guests, true)

	id, err := TokenID(host)
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, a, Revocation{ID: id})
	for range 2 {
		taken(t, a, "the token", host, false)
		taken(t, a, "what a link of it gave", guest, false)
		taken(t, a, "and a link of that", guests, false)
		taken(t, a, "another of the same subject", same, true)
		taken(t, a, "the admin's", a.AdminToken(), true)
		if _, err := a.Redeem(unused); !errors.Is(err, ErrRevoked) {
			t.Errorf("a link of it: %v", err)
		}
		if !a.Revoked(maker) || a.Revoked(Open()) || a.Revoked(nil) {
			t.Error("those who are in are not told apart")
		}
		a = authorityIn(t, dir, c, config.Auth{}) // a restart forgets nothing
	}
}

func TestASubjectIsRevokedUntilNow(t *testing.T) {
	c := newClock()
	users := map[string]config.User{"anna": {Password: password(t, "correct horse"), Role: "host", Rooms: []string{"lobby"}}}
	secret := filepath.Join(t.TempDir(), "portal")
	if err := os.WriteFile(secret, []byte(strings.Repeat("x", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	a := authority(t, c, config.Auth{Users: users, Mode: config.AuthJWT, Keys: []string{secret}})
	login := func() string {
		t.Helper()
		token, err := a.Login(t.Context(), "192.0.2.1", "anna", "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	portal := func(subject string, issued time.Time) string {
		claims := jwt.MapClaims{"sub": subject, "role": "viewer", "rooms": "lobby", "exp": c.now().Add(time.Hour).Unix(), "from": []map[string]string{{"sub": "x"}}}
		if !issued.IsZero() {
			claims["iat"] = issued.Unix()
		}
		return forge(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), map[string]any{"kid": "portal"}, claims)
	}
	old, another := login(), issue(t, a, &Grant{Subject: "bob", Role: Viewer, Rooms: []string{"*"}}, time.Hour)
	revoke(t, a, Revocation{Subject: "anna"})
	taken(t, a, "the user's", old, false)
	taken(t, a, "another's", another, true)
	taken(t, a, "a portal's, of before", portal("anna", c.now().Add(-time.Minute)), false)
	taken(t, a, "a portal's that doesn't say when", portal("anna", time.Time{}), false)
	taken(t, a, "a portal's of another", portal("bob", time.Time{}), true)
	c.advance(time.Second)
	taken(t, a, "a new login's", login(), true)
	taken(t, a, "a portal's of after", portal("anna", c.now()), true)
	revoke(t, a, Revocation{Subject: "anna"}) // once more, until later
	c.advance(time.Second)
	taken(t, a, "a new login's", login(), true)
	if list := a.Revocations(); len(list) != 1 || list[0].Subject != "anna" || !list[0].At.Equal(c.now().Add(-time.Second)) {
		t.Errorf("listed are %+v", list)
	}
}

func TestRevocationsAreTheirOwnersAndRead(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	a, b := authorityIn(t, dir, c, config.Auth{}), authorityIn(t, dir, c, config.Auth{})
	token := issue(t, a, lobby, time.Hour)
	revoke(t, b, Revocation{Subject: strings.Repeat("\u00e9", 64)}) // whatever it is made of
	revoke(t, b, Revocation{Subject: "../../anna"})
	revoke(t, b, Revocation{Subject: "anna"})
	taken(t, a, "not heard yet", token, true)
	if err := a.ReadRevoked(); err != nil {
		t.Fatal(err)
	}
	taken(t, a, "heard", token, false)
	files, err := os.ReadDir(a.RevokedFolder())
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	for _, bad := range []Revocation{{}, {ID: "a", Subject: "b"}, {ID: strings.Repeat("x", maxID+1)}, {Subject: strings.Repeat("x", maxName+1)}} {
		if _, err := a.Revoke(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	for _, text := range []string{"", "x", a.AdminToken(), forge(t, jwt.SigningMethodHS256, []byte("x"), nil, jwt.MapClaims{"sub": "anna"})} {
		if id, err := TokenID(text); err == nil {
			t.Errorf("%q has the id %q", text, id)
		}
	}
	// what can't be read isn't passed over
	broken := filepath.Join(a.RevokedFolder(), "id-broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.ReadRevoked(); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("a broken file: %v", err)
	}
	taken(t, a, "those from before", token, false)
	if _, err := New(Options{Config: &config.Auth{Mode: config.AuthToken}, State: dir, Logger: quiet}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("it starts with a broken file: %v", err)
	}
}
