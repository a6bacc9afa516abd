package signal

import (
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/auth"
)

// The clock is set while a viewer watches: a token is good or not by the new time, and
// nothing else notices.
func TestClockThatIsSetEndsTokensAndNothingElse(t *testing.T) {
	var ahead atomic.Int64 // of this machine's clock
	g := newRoomGateway(t)
	g.timing.clock = 20 * time.Millisecond
	g.now = func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
	end := time.Now().Add(time.Hour)
	g.auth.(tokens)["hour"] = &auth.Grant{Subject: "hanna", Role: auth.Viewer, Rooms: []string{"*"}, Expires: end}
	hanna, _ := g.as(t, "hour", "hall")
	host, _ := g.as(t, "host", "hall") // whose token has no end

	ahead.Store(int64(-24 * time.Hour))
	hanna.say(map[string]any{"type": "ping"})
	hanna.hear("pong")
	ahead.Store(int64(59*time.Minute + 30*time.Second))
	if m := hanna.hear("token-expiring"); m["expires"] != float64(end.UnixMilli()) {
		t.Errorf("got %v", m)
	}
	ahead.Store(int64(2 * time.Hour))
	if m := hanna.hear("error"); m["code"] != "token-expired" || m["fatal"] != true {
		t.Errorf("got %v", m)
	}
	if code := g.refusedAs(t, "hour", "hall"); code != "unauthorized" {
		t.Errorf("who comes with it is told %s", code)
	}
	host.say(map[string]any{"type": "ping"})
	host.hear("pong")
}
