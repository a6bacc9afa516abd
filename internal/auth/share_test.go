package auth

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gateway/internal/config"
)

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
