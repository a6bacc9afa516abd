package signal

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/room"
)

// resume says that a client comes back, with the last message that it had.
func (g *gateway) resume(t *testing.T, secret string, seq int) *conversation {
	t.Helper()
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": "test", "version": 1, "resume": secret, "seq": seq, "requestId": "back"})
	return c
}

// cut ends a socket without a word, as a network does.
func (c *conversation) cut() { c.conn.NetConn().Close() }

// rest is what a socket had until it was cut.
func (c *conversation) rest() (messages []map[string]any) {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-c.got:
			if !ok {
				return messages
			}
			messages = append(messages, m)
		case <-deadline:
			c.t.Fatal("socket stays open")
		}
	}
}

// parked waits until a session knows that its socket is gone.
func (g *gateway) parked(t *testing.T, secret string) {
	t.Helper()
	eventually(t, "the session waits for its client", func() bool {
		x := g.session(secret)
		if x == nil {
			t.Fatal("there is no such session")
		}
		waits, err := call(context.Background(), x, func(context.Context) (bool, error) { return x.parked, nil })
		return err == nil && waits
	})
}

func seqOf(m map[string]any) int {
	n, _ := m["seq"].(float64)
	return int(n)
}

// The media goes on while the socket is away, packet by packet, and so does the
// session when it is back.
func TestMediaGoesOnWhileTheSocketIsAway(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	var mu sync.Mutex
	seen := map[uint16]bool{} // sequence numbers; some come twice, as probes
	ssrcs := map[uint32]bool{}
	var first, last uint16
	p.reads = func(kind webrtc.RTPCodecType, packet *rtp.Packet) {
		mu.Lock()
		defer mu.Unlock()
		if kind != video {
			return
		}
		if n := packet.SequenceNumber; len(seen) == 0 {
			first, last = n, n
		} else if int16(n-last) > 0 {
			last = n
		}
		seen[packet.SequenceNumber], ssrcs[packet.SSRC] = true, true
	}
	joined := c.join("test")
	secret, _ := joined["session"].(string)
	if joined["resumeWithin"] != 30.0 || joined["resumed"] != nil || joined["seq"] != nil {
		t.Errorf("joined %v", joined)
	}
	p.negotiate(c, c.hear("offer"))
	p.sees(video)
	seq := 0
	for range 3 { // more than once
		c.cut()
		for _, m := range c.rest() {
			seq = max(seq, seqOf(m))
		}
		g.parked(t, secret)
		p.sees(video)
		c = g.resume(t, secret, seq)
		back := c.hear("joined")
		if back["resumed"] != true || back["userId"] != joined["userId"] || back["session"] != secret || back["requestId"] != "back" {
			t.Fatalf("joined %v", back)
		}
		p.sees(video)
	}
	c.say(map[string]any{"type": "select", "rendition": "video", "requestId": "s"})
	if m := c.hear("rendition"); seqOf(m) <= seq {
		t.Errorf("after message %d came %v", seq, m)
	}
	// the network has changed, too: ICE restarts in the session that was taken up
	c.say(map[string]any{"type": "restart-ice"})
	p.negotiate(c, c.hear("offer"))
	p.sees(video)
	if n, m := g.count(t, "gateway_joins_total"), g.count(t, "gateway_resumes_total", "taken"); n != 1 || m != 3 {
		t.Errorf("%v joins, %v resumes", n, m)
	}
	mu.Lock()
	defer mu.Unlock()
	for n := first; n != last; n++ {
		if !seen[n] {
			t.Errorf("packet %d of %d to %d is missing", n, first, last)
		}
	}
	if len(seen) < 5 || len(ssrcs) != 1 {
		t.Errorf("%d packets came, of %d SSRCs", len(seen), len(ssrcs))
	}
}

// An offer that was lost with the socket comes again; an answer that came twice is
// taken once.
func TestOfferThatWasLostComesAgain(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	secret, _ := c.join("test")["session"].(string)
	offered := c.hear("offer")
	c.cut()
	g.parked(t, secret)
	c = g.resume(t, secret, seqOf(offered)-1) // as if it hadn't come
	if back := c.hear("joined"); back["received"] != 0.0 {
		t.Errorf("joined %v", back)
	}
	again := c.hear("offer")
	if again["sdp"] != offered["sdp"] || again["seq"] != offered["seq"] {
		t.Fatalf("another offer: %v", again)
	}
	answer := p.answer(again["sdp"].(string))
	c.say(map[string]any{"type": "answer", "sdp": answer})
	c.say(map[string]any{"type": "ping"})
	c.hear("pong") // it has the answer
	c.cut()
	g.parked(t, secret)
	c = g.resume(t, secret, seqOf(again))
	if back := c.hear("joined"); back["received"] != 1.0 {
		t.Errorf("joined %v", back)
	}
	c.say(map[string]any{"type": "answer", "sdp": answer, "requestId": "again"})
	gathered := webrtc.GatheringCompletePromise(p.pc)
	p.await(gathered, "candidates")
	for line := range lines(p.pc.LocalDescription().SDP) {
		if strings.HasPrefix(line, "a=candidate:") {
			c.say(map[string]any{"type": "ice-candidate", "candidate": map[string]any{"candidate": line[2:], "sdpMid": "0"}})
		}
	}
	p.candidates(c)
	p.sees(video)
	c.say(map[string]any{"type": "ping", "requestId": "end"})
	for m := range c.got {
		if m["type"] == "pong" {
			break
		}
		if m["type"] == "error" {
			t.Errorf("answered by %v", m)
		}
	}
}

// What happens meanwhile is told afterwards, each message once and in order.
func TestMessagesAreNeitherLostNorDoubled(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	secret, _ := c.join("ladder")["session"].(string)
	x := g.session(secret)
	c.hear("offer")
	next := 0 // messages that were seen, in order
	hear := func(messages []map[string]any) {
		t.Helper()
		for _, m := range messages {
			if m["type"] == "joined" || m["type"] == "pong" {
				continue
			}
			if next != 0 && seqOf(m) != next+1 {
				t.Errorf("message %d comes after %d: %v", seqOf(m), next, m)
			}
			next = seqOf(m)
		}
	}
	for round := range 5 {
		for i := range 10 { // some of the answers are lost
			c.say(map[string]any{"type": "select", "rendition": "low", "requestId": fmt.Sprint(round, ".", i)})
		}
		for len(c.got) < round { // until some have come
			time.Sleep(time.Millisecond)
		}
		c.cut()
		hear(c.rest())
		g.parked(t, secret)
		for i := range 5 {
			g.streams["ladder"].Refuse(fmt.Errorf("edit %d", i)) // a message each, perhaps
		}
		if _, err := call(context.Background(), x, func(context.Context) (none, error) {
			x.watches[0].tell(fmt.Sprint("away ", round))
			return none{}, nil
		}); err != nil {
			t.Fatal(err)
		}
		c = g.resume(t, secret, next)
		c.hear("joined")
	}
	c.say(map[string]any{"type": "ping", "requestId": "end"})
	var messages []map[string]any
	for m := range c.got {
		if m["type"] == "pong" {
			break
		}
		messages = append(messages, m)
	}
	hear(messages)
	if last, err := call(context.Background(), x, func(context.Context) (uint64, error) {
		x.out.mu.Lock()
		defer x.out.mu.Unlock()
		return x.out.seq, nil
	}); err != nil || int(last) < next || next < 15 {
		t.Errorf("%d messages were heard of %d, %v", next, last, err)
	}
}

// A secret that isn't one, or isn't any more, opens nothing.
func TestResumeIsRefused(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Room.DepartureTimeout = 200 * time.Millisecond })
	c := g.dial(t)
	secret, _ := c.join("test")["session"].(string)
	refused := func(secret string, seq int, what string) {
		t.Helper()
		c := g.resume(t, secret, seq)
		if e := c.hear("error"); e["code"] != "resume-failed" || e["fatal"] != true || e["requestId"] != "back" {
			t.Errorf("%s: %v", what, e)
		}
		c.closed()
	}
	refused(secret[:len(secret)-1]+"!", 0, "a wrong secret")
	refused(secret, 1000, "a message from the future")
	x := g.session(secret)
	c.cut()
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatal("a session waits for ever")
	}
	refused(secret, 0, "too late")
	if n := g.count(t, "gateway_session_ends_total", "gone"); n != 1 {
		t.Errorf("%v sessions are gone", n)
	}
	p := newPeer(t)
	resp := g.do(t, "POST", "/whep/test", sdpBody(), p.offer(video))
	refused(resp.header.Get("Location")[len("/whep/test/"):], 0, "a WHEP session")

	for range resumeBurst { // guessing is slow
		c := g.resume(t, "guess", 0)
		if e := c.hear("error"); e["code"] == "rate-limited" {
			return
		}
	}
	t.Error("a secret can be guessed at any rate")
}

// Who closes the socket has left.
func TestCloseFrameEndsTheSession(t *testing.T) {
	g := newGateway(t)
	for _, code := range []int{websocket.CloseNormalClosure, websocket.CloseGoingAway} {
		c := g.dial(t)
		secret, _ := c.join("test")["session"].(string)
		x := g.session(secret)
		c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(patience))
		select {
		case <-x.done:
		case <-time.After(patience):
			t.Fatalf("the session goes on after a close frame with %d", code)
		}
	}
	c := g.dial(t) // a page that gives its socket up, but not the session
	secret, _ := c.join("test")["session"].(string)
	c.conn.WriteControl(websocket.CloseMessage, nil, time.Now().Add(patience))
	g.parked(t, secret)
}

// The gateway may not have noticed that a socket is lost. One of those that come back
// has the session in the end, and it is whole.
func TestLastSocketHasTheSession(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	secret, _ := c.join("test")["session"].(string)
	p.negotiate(c, c.hear("offer"))
	p.sees(video)

	second := g.resume(t, secret, 1)
	second.hear("joined")
	c.rest() // it is cut

	const racers = 8
	sockets := make([]*conversation, racers)
	for i := range sockets {
		sockets[i] = g.dial(t)
	}
	var start sync.WaitGroup
	for _, s := range sockets {
		start.Go(func() {
			s.say(map[string]any{"type": "join", "roomId": "test", "version": 1, "resume": secret, "seq": 1})
		})
	}
	start.Wait()
	second.rest()
	x := g.session(secret)
	alive := func() (alive []*conversation) {
		for _, s := range sockets {
			if s.try(map[string]any{"type": "ping"}) != nil {
				continue
			}
			for {
				select {
				case m, ok := <-s.got:
					if ok && m["type"] != "pong" {
						continue
					}
					if ok {
						alive = append(alive, s)
					}
				case <-time.After(patience):
					t.Error("a socket is neither open nor cut")
				}
				break
			}
		}
		return alive
	}
	eventually(t, "one socket has the session", func() bool { return len(alive()) == 1 })
	winner := alive()[0]
	winner.say(map[string]any{"type": "select", "rendition": "auto", "requestId": "mine"})
	for winner.hear("rendition")["requestId"] != "mine" {
	}
	p.sees(video)
	if waits, err := call(context.Background(), x, func(context.Context) (bool, error) { return x.parked, nil }); err != nil || waits {
		t.Errorf("the session waits: %v %v", waits, err)
	}
	winner.say(map[string]any{"type": "leave"})
	winner.hear("left")
}

// What is kept for a client that may come back is bounded, and goes when the client
// is known to have it.
func TestHistoryIsBounded(t *testing.T) {
	o := &outbox{log: testLogger(t)}
	for range keptMessages + 10 {
		o.send(&renditionMessage{header: header{Type: "rendition"}})
	}
	if len(o.kept) != keptMessages || o.missed != 10 {
		t.Errorf("%d messages are kept, from %d on", len(o.kept), o.missed+1)
	}
	for range 10 {
		o.send(&offerMessage{header: header{Type: "offer"}, SDP: strings.Repeat("x", keptBytes/4)})
	}
	if o.bytes > keptBytes || len(o.kept) > 4 {
		t.Errorf("%d messages of %d bytes are kept", len(o.kept), o.bytes)
	}
	sum := 0
	for _, k := range o.kept {
		sum += len(k.data)
	}
	if sum != o.bytes {
		t.Errorf("%d bytes are counted of %d", o.bytes, sum)
	}
	for seq, want := range map[uint64]bool{0: false, o.missed - 1: false, o.seq + 1: false} {
		if got := o.attach(nil, seq, new(joinedMessage)); got != want {
			t.Errorf("back with message %d: %v", seq, got)
		}
	}

	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.ping = 20 * time.Millisecond })
	c, p := g.watch(t, "test")
	x := g.onlySession(t)
	for i := range 5 {
		g.streams["test"].Refuse(fmt.Errorf("edit %d", i))
	}
	eventually(t, "pongs have confirmed all", func() bool {
		x.out.mu.Lock()
		defer x.out.mu.Unlock()
		return len(x.out.kept) == 0 && x.out.bytes == 0 && x.out.seq > 3
	})
	p.sees(video)
	c.say(map[string]any{"type": "leave"})
	c.hear("left")
}

// Clients that vanish leave nothing behind.
func TestSessionsThatNobodyComesBackToEnd(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Room.DepartureTimeout = 50 * time.Millisecond })
	for range 20 {
		c := g.dial(t)
		c.join("test")
		c.cut()
	}
	eventually(t, "all have ended", func() bool {
		return g.count(t, "gateway_sessions") == 0 && g.count(t, "gateway_sockets") == 0
	})
	eventually(t, "nobody watches", func() bool { return !g.watched(t, "test") })
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.sessions) != 0 || len(g.sockets) != 0 {
		t.Errorf("%d sessions and %d sockets stay", len(g.sessions), len(g.sockets))
	}
}

// Who comes back in the moment in which his place goes is told that it is too late.
func TestComingBackAsThePlaceGoes(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	secret := c.join("test")["session"].(string)
	c.cut()
	g.parked(t, secret)
	x := g.session(secret)
	_, err := call(context.Background(), x, func(ctx context.Context) (none, error) {
		x.place.Leave() // as the room's timer does
		if x.resume(ctx, request{}, nil) {
			t.Error("a session without a place is taken up")
		}
		x.hear(room.Left{Reason: room.Absent})
		return none{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-x.done
}

// Each resume repeats what was missed: who takes his session up all the time is told to
// wait, and it waits for him.
func TestResumesOfASessionAreLimited(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	joined := c.join("test")
	secret := joined["session"].(string)
	refused := 0
	for range resumesBurst + 3 {
		c = g.resume(t, secret, 0)
		m := <-c.got
		switch {
		case m["type"] == "joined" && m["resumed"] == true && refused == 0:
		case m["type"] == "error" && m["code"] == "rate-limited" && m["fatal"] == true:
			refused++
		default:
			t.Fatalf("%v", m)
		}
	}
	if refused < 1 || g.session(secret) == nil {
		t.Errorf("%d resumes were refused; the session is %v", refused, g.session(secret))
	}
	until(t, "it is taken up after a while", func() bool {
		m := <-g.resume(t, secret, 0).got
		return m["type"] == "joined" && m["resumed"] == true
	})
}
