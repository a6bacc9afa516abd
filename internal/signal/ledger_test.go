package signal

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/rtc"
)

const ms = time.Millisecond

// frameSent is a frame that took 3, 4, 1 and 2 ms inside the gateway.
func frameSent(at time.Duration) rtc.FrameTimes {
	return rtc.FrameTimes{Capture: at, Encoding: at + 3*ms, Encoded: at + 7*ms, Packetized: at + 8*ms, First: at + 9*ms, Sent: at + 10*ms}
}

func TestLedgerAddsUp(t *testing.T) {
	var l ledger
	if l.latency(0) != nil {
		t.Error("an empty ledger tells something")
	}
	const clock = 77 * time.Hour // of the page, apart from ours
	at := time.Hour
	for i := range 100 {
		at += 100 * ms
		onTheWay := 20 * ms
		if i%20 == 19 {
			onTheWay += 50 * ms // lost and sent again
		}
		sent := frameSent(at)
		told := frameReport{received: sent.Sent + onTheWay + clock, jitterBuffer: 5 * ms, decode: 6 * ms, render: 7 * ms}
		spent := l.add(at, sent, told, 40*ms)
		var sum time.Duration
		for _, d := range spent[:total] {
			sum += d
		}
		if want := 10*ms + onTheWay + 18*ms; spent[total] != want || sum != want {
			t.Fatalf("frame %d: total %v, the stages' sum is %v, want %v: %v", i, spent[total], sum, want, spent)
		}
	}
	got := l.latency(at)
	for name, c := range map[string]struct {
		got  *Quantiles
		want Quantiles
	}{
		"capture":      {got.Capture, Quantiles{3, 3, 3}},
		"encode":       {got.Encode, Quantiles{4, 4, 4}},
		"packetize":    {got.Packetize, Quantiles{1, 1, 1}},
		"queue":        {got.Queue, Quantiles{2, 2, 2}},
		"network":      {got.Network, Quantiles{20, 20, 70}},
		"jitterBuffer": {got.JitterBuffer, Quantiles{5, 5, 5}},
		"decode":       {got.Decode, Quantiles{6, 6, 6}},
		"render":       {got.Render, Quantiles{7, 7, 7}},
		"total":        {got.Total, Quantiles{48, 48, 98}},
	} {
		if c.got == nil || *c.got != c.want {
			t.Errorf("%s: %+v, want %+v", name, c.got, c.want)
		}
	}
	if n := len(l.recent(at + ledgerWindow - time.Second)); n != 11 {
		t.Errorf("%d frames of the last second are left after 29 s", n)
	}
	if l.latency(at+2*ledgerWindow) != nil {
		t.Error("old frames are still told of")
	}
}

func TestLedgerLeavesOutWhatItDoesNotKnow(t *testing.T) {
	at := time.Hour
	whole := frameReport{received: unknown, jitterBuffer: 1 * ms, decode: 1 * ms, render: 1 * ms}
	copied := rtc.FrameTimes{Capture: at, Packetized: at + 8*ms, First: at + 9*ms, Sent: at + 10*ms}
	part := whole
	part.render = unknown
	early := frameSent(at)
	early.Capture += 5 * ms // ring: no two frames have one time
	for name, c := range map[string]struct {
		sent rtc.FrameTimes
		told frameReport
		rtt  time.Duration
		want [stages]time.Duration
	}{
		"no clock of the page":   {frameSent(at), whole, 20 * ms, [stages]time.Duration{3 * ms, 4 * ms, 1 * ms, 2 * ms, 10 * ms, ms, ms, ms, 23 * ms}},
		"nothing is encoded":     {copied, whole, 20 * ms, [stages]time.Duration{unknown, unknown, 8 * ms, 2 * ms, 10 * ms, ms, ms, ms, 23 * ms}},
		"no round trip yet":      {frameSent(at), whole, 0, [stages]time.Duration{3 * ms, 4 * ms, 1 * ms, 2 * ms, unknown, ms, ms, ms, unknown}},
		"no rendering":           {frameSent(at), part, 20 * ms, [stages]time.Duration{3 * ms, 4 * ms, 1 * ms, 2 * ms, 10 * ms, ms, ms, unknown, unknown}},
		"a capture that was put": {early, whole, 20 * ms, [stages]time.Duration{0, 4 * ms, 1 * ms, 2 * ms, 10 * ms, ms, ms, ms, 20 * ms}},
	} {
		if got := new(ledger).add(at, c.sent, c.told, c.rtt); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A client's numbers are its own affair: they stay within bounds and hurt nobody.
func TestLedgerBearsAnyReport(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	var l ledger
	at := time.Hour
	for range 5000 {
		at += time.Duration(dice.IntN(500)) * ms
		any := func(most time.Duration) time.Duration {
			if dice.IntN(4) == 0 {
				return unknown
			}
			return time.Duration(dice.Int64N(int64(most) + 1))
		}
		told := frameReport{received: any(transitZero), jitterBuffer: any(maxStage), decode: any(maxStage), render: any(maxStage)}
		spent := l.add(at, frameSent(at), told, time.Duration(dice.IntN(2))*10*time.Second)
		for s, d := range spent {
			if d != unknown && (d < 0 || d > 5*maxStage) {
				t.Fatalf("%s took %v", stageNames[s], d)
			}
		}
		l.latency(at)
	}
	if len(l.ring) != ledgerFrames || len(l.recent(at)) > ledgerFrames {
		t.Errorf("%d frames are remembered", len(l.ring))
	}
}

func TestReportsOfFramesAreReadStrictly(t *testing.T) {
	for text, good := range map[string]bool{
		`[]`:          true,
		`[{"rtp":0}]`: true,
		`[{"rtp":4294967295,"received":1234.5,"jitterBuffer":0,"decode":1.25,"render":60000}]`: true,
		`null`:                              false,
		`{}`:                                false,
		`[null]`:                            false,
		`[1]`:                               false,
		`[{}]`:                              false,
		`[{"rtp":-1}]`:                      false,
		`[{"rtp":4294967296}]`:              false,
		`[{"rtp":1.5}]`:                     false,
		`[{"rtp":"1"}]`:                     false,
		`[{"rtp":1,"rtp":1}]`:               false,
		`[{"rtp":1,"decode":-1}]`:           false,
		`[{"rtp":1,"decode":60001}]`:        false,
		`[{"rtp":1,"decode":null}]`:         false,
		`[{"rtp":1,"decode":1e999}]`:        false,
		`[{"rtp":1,"received":1e18}]`:       false,
		`[{"rtp":1,"jitterbuffer":1}]`:      false,
		`[{"rtp":1,"total":1}]`:             false,
		`[{"rtp":1,"decode":{"ms":[[1]]}}]`: false,
	} {
		if _, err := decode([]byte(`{"type":"report","frames":` + text + `}`)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	many := `{"rtp":1}`
	for range maxFrames {
		many += `,{"rtp":1}`
	}
	if _, err := readFrames([]byte("[" + many + "]")); err == nil {
		t.Error("too many frames are taken")
	}
}

// A real peer reports what it received; the rest is the gateway's.
func TestLatencyIsToldOfObservedViewers(t *testing.T) {
	g := newGateway(t)
	reports := new(interceptor.Registry)
	if err := webrtc.ConfigureRTCPReports(reports); err != nil {
		t.Fatal(err)
	}
	c, p := g.dial(t), newPeer(t, webrtc.WithInterceptorRegistry(reports))
	frames := make(chan *rtp.Packet, 1000)
	p.reads = func(kind webrtc.RTPCodecType, packet *rtp.Packet) {
		if kind == webrtc.RTPCodecTypeVideo {
			select {
			case frames <- packet:
			default:
			}
		}
	}
	c.join("test")
	p.negotiate(c, c.hear("offer"))
	p.sees(webrtc.RTPCodecTypeVideo)
	report := func() {
		t.Helper()
		var list []any
		for range 20 { // no more than there are, or the limit of messages is felt
			list = append(list, map[string]any{"rtp": (<-frames).Timestamp, "received": 1000.5, "jitterBuffer": 1, "decode": 2, "render": 3})
		}
		c.say(map[string]any{"type": "report", "frames": list})
	}
	report() // of no use: nobody observes
	c.say(map[string]any{"type": "ping"})
	c.hear("pong")
	if n := g.count(t, "gateway_latency_seconds"); n != 0 {
		t.Errorf("%v stages of frames that nobody observes", n)
	}
	c.say(map[string]any{"type": "observe", "on": true})
	deadline := time.Now().Add(patience)
	var list []Viewer
	for len(list) == 0 || list[0].Latency == nil || list[0].Latency.Total == nil {
		if time.Now().After(deadline) {
			t.Fatalf("no latency in %+v", list)
		}
		report()
		c.say(map[string]any{"type": "ping"})
		c.hear("pong") // the report is done with
		list = g.Viewers(context.Background(), "test")
	}
	v, l := list[0], list[0].Latency
	if len(list) != 1 || v.Kind != "ws" || v.State != "connected" || v.Rendition != "video" || v.Selected != "auto" || v.RoundTrip == 0 {
		t.Errorf("viewers %+v", list)
	}
	if l.Capture != nil || l.Encode != nil || l.Packetize == nil || l.Queue == nil || l.Network == nil || *l.Decode != (Quantiles{2, 2, 2}) {
		t.Errorf("latency %+v", l)
	}
	if n := g.count(t, "gateway_latency_seconds", "test", "total"); n == 0 {
		t.Error("no histogram of the total")
	}
	if len(g.Viewers(context.Background(), "h264")) != 0 {
		t.Error("another stream has the viewer too")
	}

	delete(g.streams, "test") // as when its file is gone
	if n := g.count(t, "gateway_latency_seconds"); n != 0 {
		t.Errorf("histograms of a stream that is gone: %v frames", n)
	}
}
