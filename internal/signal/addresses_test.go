package signal

import (
	"testing"
	"time"

	"gateway/internal/config"
)

func TestAddressesAreLimited(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.SocketsPerAddress, c.Limits.JoinsPerAddress = 3, 2 })
	var open []*conversation
	for range 3 {
		c := g.dial(t)
		c.say(map[string]any{"type": "ping"})
		c.hear("pong")
		open = append(open, c)
	}
	more := g.dial(t)
	if e := more.hear("error"); e["code"] != "too-many-viewers" {
		t.Errorf("a fourth socket: %v", e)
	}
	more.closed()
	open[0].cut()
	eventually(t, "its place is free", func() bool {
		c := g.dial(t)
		c.try(map[string]any{"type": "ping"})
		m, ok := <-c.got
		c.cut()
		return ok && m["type"] == "pong"
	})
	for i := range 4 * joinBurst { // a burst of joins, and one too many
		c := open[1]
		if i > 0 {
			c.try(map[string]any{"type": "leave"})
			c.closed()
			eventually(t, "a place is free", func() bool { return g.count(t, "gateway_sockets") < 3 })
			c = g.dial(t)
			open[1] = c
		}
		c.say(map[string]any{"type": "join", "roomId": "test", "version": 1})
		select {
		case m := <-c.got:
			if m["code"] == "rate-limited" {
				if i < 2*joinBurst {
					t.Errorf("join %d is refused", i)
				}
				return
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	t.Error("an address joins at any rate")
}

// Sessions that wait for clients count as their sockets did.
func TestWaitingSessionsAreLimitedByAddress(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.SocketsPerAddress = 2 })
	var secrets []string
	for range 2 {
		c := g.dial(t)
		secret, _ := c.join("test")["session"].(string)
		secrets = append(secrets, secret)
		if len(secrets) == 1 {
			c.cut()
			g.parked(t, secret)
		}
	}
	c := g.dial(t)
	if e := c.hear("error"); e["code"] != "too-many-viewers" {
		t.Errorf("a third: %v", e)
	}
	c.closed()
	g.session(secrets[0]).end(leaves)
	eventually(t, "its place is free", func() bool {
		c := g.dial(t)
		c.try(map[string]any{"type": "ping"})
		m, ok := <-c.got
		c.cut()
		return ok && m["type"] == "pong"
	})
}

func TestAddressIsWhatOneMachineHas(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1000": "192.0.2.7/32", "[::ffff:192.0.2.7]:1000": "192.0.2.7/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "@": "invalid Prefix", "": "invalid Prefix",
	} {
		if got := prefixOf(remote).String(); got != want {
			t.Errorf("%q counts as %s, want %s", remote, got, want)
		}
	}
	a := newAddresses(1)
	p := prefixOf("192.0.2.7:1")
	a.enter(p, 0)
	a.leave(p)
	a.known[p].seen = time.Now().Add(-2 * addressAfter)
	a.swept = time.Time{}
	a.enter(prefixOf("192.0.2.8:1"), 0)
	if len(a.known) != 1 {
		t.Errorf("%d addresses are remembered", len(a.known))
	}
}
