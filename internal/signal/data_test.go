package signal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/room"
	"gateway/internal/rtc"
)

// wired is a client with data channels.
type wired struct {
	*conversation
	id       string
	channels map[string]*webrtc.DataChannel
	got      chan webrtc.DataChannelMessage
}

// wire opens the data channels of a client who is in a room.
func wire(t *testing.T, c *conversation, p *peer, id string) *wired {
	t.Helper()
	w := &wired{conversation: c, id: id, channels: map[string]*webrtc.DataChannel{}, got: make(chan webrtc.DataChannelMessage, 100)}
	open := make(chan *webrtc.DataChannel, 2)
	p.pc.OnDataChannel(func(ch *webrtc.DataChannel) {
		ch.OnMessage(func(m webrtc.DataChannelMessage) { w.got <- m })
		ch.OnOpen(func() { open <- ch })
	})
	c.say(map[string]any{"type": "open-data", "requestId": "d"})
	offer := c.hear("offer")
	p.negotiate(c, offer)
	for offer["requestId"] != "d" { // it was the stream's own
		offer = c.hear("offer")
		c.say(map[string]any{"type": "answer", "sdp": p.answer(offer["sdp"].(string))})
	}
	for range 2 {
		select {
		case ch := <-open:
			w.channels[ch.Label()] = ch
		case <-time.After(patience):
			t.Fatal("no data channel")
		}
	}
	return w
}

func (w *wired) next(t *testing.T) webrtc.DataChannelMessage {
	t.Helper()
	select {
	case m := <-w.got:
		return m
	case <-time.After(patience):
		t.Fatal("no data message")
		panic("unreachable")
	}
}

func (w *wired) text(t *testing.T, text string) {
	t.Helper()
	if err := w.channels["reliable"].SendText(text); err != nil {
		t.Fatal(err)
	}
}

func TestDataReachesOthersOfTheRoom(t *testing.T) {
	g := newGateway(t)
	var all []*wired
	for i := range 3 {
		c, p := g.dial(t), newPeer(t)
		joined := c.join("test")
		if i > 0 { // the first one watches nothing before
			p.negotiate(c, c.hear("offer"))
		}
		all = append(all, wire(t, c, p, joined["userId"].(string)))
	}
	a, b, c := all[0], all[1], all[2]

	a.text(t, `{"data": {"speed": 3}}`)
	for _, w := range []*wired{b, c} {
		var e envelope
		if m := w.next(t); !m.IsString || json.Unmarshal(m.Data, &e) != nil || e.UserID != a.id || string(e.Data) != `{"speed":3}` {
			t.Errorf("%s", m.Data)
		}
	}
	a.text(t, fmt.Sprintf(`{"target": %q, "data": 1}`, c.id))
	if m := c.next(t); !strings.Contains(string(m.Data), `"data":1`) {
		t.Errorf("%s", m.Data)
	}
	message := append([]byte{byte(len(a.id))}, a.id...)
	if err := b.channels["lossy"].Send(append(message, 0, 255)); err != nil {
		t.Fatal(err)
	}
	if m := a.next(t); m.IsString || string(m.Data) != string(rune(len(b.id)))+b.id+"\x00\xff" {
		t.Errorf("%q", m.Data)
	}
	if len(b.got)+len(c.got)+len(a.got) != 0 {
		t.Error("somebody got what was for another")
	}

	for text, code := range map[string]string{
		`{"data": 1, "target": "nobody"}`: "unknown-target",
		`{"target": "x"}`:                 "bad-message",
		`{"data": 1} {"data": 2}`:         "bad-message",
		`{"data": 1, "userId": "me"}`:     "bad-message",
		`no`:                              "bad-message",
	} {
		a.text(t, text)
		if e := a.hear("error"); e["code"] != code || e["fatal"] != false {
			t.Errorf("%s: %v", text, e)
		}
	}
	a.say(map[string]any{"type": "open-data"})
	if e := a.hear("error"); e["code"] != "bad-state" {
		t.Errorf("asked twice: %v", e)
	}
	for range dataStrike {
		a.text(t, "no")
	}
	for e := a.hear("error"); e["code"] != "rate-limited"; e = a.hear("error") {
	}
	b.text(t, `{"data": "still here"}`)
	c.next(t)
}

func FuzzUnpackData(f *testing.F) {
	f.Add(true, []byte(`{"target": "x", "data": [1]}`))
	f.Add(false, []byte("\x01xabc"))
	f.Add(false, []byte{})
	f.Fuzz(func(t *testing.T, text bool, payload []byte) {
		target, body, err := unpackData(rtc.Data{Text: text, Payload: payload})
		if err != nil {
			return
		}
		if len(target) > maxUserID || text && !json.Valid(body) {
			t.Fatalf("%q, %q", target, body)
		}
		packed := packData(target, &room.Data{JSON: text, Payload: body})
		if text {
			var e envelope
			if err := json.Unmarshal(packed.Payload, &e); err != nil {
				t.Fatal(err)
			}
			return
		}
		again, same, err := unpackData(packed)
		if err != nil || again != target || string(same) != string(body) {
			t.Fatalf("%q, %q, %v", again, same, err)
		}
	})
}

// A refusal doesn't wait for the session, which may be waiting for the channel.
func TestDataIsRefusedWithoutTheSession(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	w := wire(t, c, p, c.join("test")["userId"].(string))
	release := g.hold(t)
	defer release()
	w.text(t, "no")
	if e := c.hear("error"); e["code"] != "bad-message" || e["fatal"] != false {
		t.Errorf("refused by %v", e)
	}
}

// Once the sender was named, a message of nearly 64 KiB, and one of 11 KiB of what JSON writes
// as \u003c for HTML's sake, fitted no data channel any more: nobody got them, nobody was told.
func TestDataUpToTheLimitArrives(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	a := wire(t, c, p, c.join("test")["userId"].(string))
	c, p = g.dial(t), newPeer(t)
	joined := c.join("test")
	p.negotiate(c, c.hear("offer"))
	b := wire(t, c, p, joined["userId"].(string))

	full := strings.Repeat("<", room.MaxPayload-2)
	a.text(t, fmt.Sprintf(`{"data":"%s"}`, full))
	var e envelope
	if m := b.next(t); json.Unmarshal(m.Data, &e) != nil || string(e.Data) != `"`+full+`"` || e.UserID != a.id {
		t.Errorf("%d bytes arrived: %.100s", len(m.Data), m.Data)
	}
	whole := bytes.Repeat([]byte{7}, room.MaxPayload)
	if err := a.channels["reliable"].Send(append([]byte{0}, whole...)); err != nil {
		t.Fatal(err)
	}
	if m := b.next(t); !bytes.HasSuffix(m.Data, whole) || len(m.Data) > rtc.MaxData {
		t.Errorf("%d bytes arrived", len(m.Data))
	}
	a.text(t, fmt.Sprintf(`{"data":"%s<"}`, full))
	if e := a.hear("error"); e["code"] != "message-too-large" || e["fatal"] != false {
		t.Errorf("a text over the limit: %v", e)
	}
	if err := a.channels["lossy"].Send(append([]byte{0, 7}, whole...)); err != nil {
		t.Fatal(err)
	}
	if e := a.hear("error"); e["code"] != "message-too-large" || e["fatal"] != false {
		t.Errorf("bytes over the limit: %v", e)
	}
}

func TestDataIsWrittenOnceForAll(t *testing.T) {
	for _, d := range []*room.Data{{JSON: true, Payload: []byte(`{"a": "<"}`)}, {Payload: []byte{1, 2}}} {
		one, other := packData("ann", d), packData("ann", d)
		if &one.Payload[0] != &other.Payload[0] {
			t.Errorf("%s is written for each who gets it", one.Payload)
		}
	}
}

// One token with a hundred sockets had a hundred times what one user may send.
func TestDataIsLimitedWhateverSocketsAUserHas(t *testing.T) {
	g := newRoomGateway(t)
	var all []*wired
	for range 2 {
		c, joined := g.as(t, "publisher", "hall")
		all = append(all, wire(t, c, newPeer(t), joined["userId"].(string)))
	}
	g.users.mu.Lock()
	g.users.byName["publisher"].data.SetBurst(0) // as if the other had just sent so many
	g.users.mu.Unlock()
	for _, w := range all {
		w.text(t, `{"data": 1}`)
		if e := w.hear("error"); e["code"] != "rate-limited" || e["fatal"] != false {
			t.Errorf("got %v", e)
		}
	}
}

func BenchmarkDataToAHundred(b *testing.B) {
	payload := []byte(`"` + strings.Repeat("x", 5<<10) + `"`)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		d := &room.Data{JSON: true, Payload: payload}
		for range 100 {
			packData("m5k3x7w2aq3p", d)
		}
	}
}
