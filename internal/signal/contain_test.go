package signal

import (
	"context"
	"errors"
	"testing"

	"gateway/internal/contain"
)

// A panic on a session's goroutine ends the session: its client is told, who waits
// for the session hears of it, others go on.
func TestPanicEndsItsSessionAndNoOther(t *testing.T) {
	g := newGateway(t)
	other := g.dial(t)
	other.join("test")
	c := g.dial(t)
	x := g.session(c.join("test")["session"].(string))
	before := contain.Counts()["session"]

	_, err := call(t.Context(), x, func(context.Context) (none, error) { panic("injected") })
	var broken *contain.Error
	if !errors.As(err, &broken) || broken.Value != "injected" {
		t.Errorf("who waited was told %v", err)
	}
	if m := c.hear("error"); m["code"] != "internal" || m["fatal"] != true {
		t.Errorf("the client was told %v", m)
	}
	<-x.done
	if n := contain.Counts()["session"] - before; n != 1 {
		t.Errorf("%d panics were counted", n)
	}
	other.say(map[string]any{"type": "ping", "requestId": "1"})
	other.hear("pong")
}

// A panic while a message is read ends the socket that it came by.
func TestPanicEndsItsSocketAndNoOther(t *testing.T) {
	g := newGateway(t)
	other := g.dial(t)
	other.join("test")
	before := contain.Counts()["socket"]
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": panics, "version": 1})
	for range c.got { // to its end
	}
	if n := contain.Counts()["socket"] - before; n != 1 {
		t.Errorf("%d panics were counted", n)
	}
	other.say(map[string]any{"type": "ping", "requestId": "1"})
	other.hear("pong")
	g.dial(t).join("test") // no lock was left locked
}
