package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
)

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
