package signal

import (
	"slices"
	"testing"
	"time"
)

// people is who is there, by all that a client has been told.
type people map[string]bool

func (p people) take(m map[string]any) {
	id := func(v any) string { return v.(map[string]any)["userId"].(string) }
	switch m["type"] {
	case "joined":
		clear(p)
		for _, f := range m["participants"].([]any) {
			p[id(f)] = true
		}
	case "participant-joined":
		p[id(m["participant"])] = true
	case "participant-left":
		delete(p, id(m["participant"]))
	case "presence":
		for _, f := range m["here"].([]any) {
			p[id(f)] = true
		}
		for _, gone := range m["gone"].([]any) {
			delete(p, gone.(string))
		}
	}
}

// In a crowd, who comes and goes is told in lots; and who was away for a moment misses none.
func TestACrowdIsToldInLots(t *testing.T) {
	g := newRoomGateway(t)
	first, joined := g.as(t, "publisher", "hall")
	known, seq := people{}, 0
	known.take(joined)
	lots := 0
	until := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			var m map[string]any
			select {
			case m = <-first.got:
			case <-time.After(patience):
			}
			if m == nil {
				t.Fatalf("%s: nothing more comes, %d are known", what, len(known))
			}
			known.take(m)
			seq = max(seq, seqOf(m))
			if m["type"] == "presence" {
				lots++
			}
		}
	}
	var crowd []*conversation
	var ids []string
	come := func(n int) {
		for range n {
			c, joined := g.as(t, "publisher", "hall")
			crowd, ids = append(crowd, c), append(ids, joined["userId"].(string))
		}
	}
	come(60)
	until("all have come", func() bool { return len(known) == 61 })
	if lots == 0 {
		t.Error("each is told of alone")
	}
	first.cut()
	for range first.got { // until the socket has ended
	}
	g.parked(t, joined["session"].(string))
	for _, c := range crowd[:20] {
		c.say(map[string]any{"type": "leave"})
		c.hear("left")
	}
	come(1)
	first = g.dial(t)
	first.say(map[string]any{"type": "join", "roomId": "hall", "version": 1, "resume": joined["session"], "seq": seq})
	known.take(first.hear("joined"))
	until("it is as it is", func() bool {
		return len(known) == 42 && !slices.ContainsFunc(ids[:20], func(id string) bool { return known[id] })
	})
	// what was missed came as it was, in its place, whoever shared its bytes
	crowd[30].say(map[string]any{"type": "message", "data": "hello"})
	for heard := ""; heard != "message"; {
		select {
		case m := <-first.got:
			if n := seqOf(m); n != seq+1 {
				t.Fatalf("after message %d came %d: %v", seq, n, m)
			}
			seq++
			heard = m["type"].(string)
		case <-time.After(patience):
			t.Fatal("no message")
		}
	}
}
