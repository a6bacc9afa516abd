package signal

import (
	"context"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// A thumbnail gets the low rendition, a hidden page nothing, and both find back.
func TestViewerGetsWhatItsPageHasUseFor(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	c.plays("high", "auto")
	p.sees(video)
	c.say(map[string]any{"type": "view", "width": 160, "height": 90, "visible": true})
	c.plays("low", "auto")
	p.sees(video)
	c.say(map[string]any{"type": "view", "width": 160, "height": 90, "visible": false})
	c.plays("", "auto")
	for deadline := time.Now().Add(patience); g.watched(t, "ladder"); { // its encoder may stop
		if time.Now().After(deadline) {
			t.Fatal("a hidden page still reads the stream")
		}
		time.Sleep(time.Millisecond)
	}
	c.say(map[string]any{"type": "view", "width": 160, "height": 90, "visible": true})
	c.plays("low", "auto")
	p.sees(video)
	c.say(map[string]any{"type": "view", "width": 1280.4, "height": 720, "visible": true})
	c.plays("high", "auto")
	c.say(map[string]any{"type": "view", "width": 0, "height": 0, "visible": false})
	c.plays("", "auto")
	c.say(map[string]any{"type": "select", "rendition": "low"}) // is asked for while nothing is seen
	c.say(map[string]any{"type": "view", "width": 0, "height": 0, "visible": true})
	c.plays("low", "low")
	p.sees(video)
}

// watched tells whether anybody reads a stream's picture.
func (g *gateway) watched(t *testing.T, name string) bool {
	t.Helper()
	st, _ := g.Stream(name)
	for _, track := range st.Info().Tracks {
		if track.Kind.String() == "video" && track.Viewers > 0 {
			return true
		}
	}
	return false
}

// Sound goes on behind a hidden page that plays it, and ends with one that doesn't.
func TestHiddenPageHearsWhatItPlays(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	p.sees(webrtc.RTPCodecTypeAudio)
	hears := func() bool {
		st, _ := g.Stream("test")
		for _, track := range st.Info().Tracks {
			if track.Kind.String() == "audio" {
				return track.Viewers > 0
			}
		}
		return false
	}
	c.say(map[string]any{"type": "view", "width": 10, "height": 10, "visible": false, "audible": true})
	c.plays("", "auto")
	p.sees(webrtc.RTPCodecTypeAudio)
	if !hears() {
		t.Error("a hidden page that is listened to hears nothing")
	}
	c.say(map[string]any{"type": "view", "width": 10, "height": 10, "visible": false, "audible": false})
	for deadline := time.Now().Add(patience); hears(); {
		if time.Now().After(deadline) {
			t.Fatal("a hidden and muted page still reads the sound")
		}
		time.Sleep(time.Millisecond)
	}
	c.say(map[string]any{"type": "view", "width": 10, "height": 10, "visible": true, "audible": false})
	p.sees(webrtc.RTPCodecTypeAudio)
	p.sees(video)
}

func TestWhoObservesIsToldWhatAndWhy(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	c.plays("high", "auto")
	c.say(map[string]any{"type": "view", "width": 160, "height": 90, "visible": true})
	c.plays("low", "auto")
	c.say(map[string]any{"type": "observe", "on": true})
	first := c.hear("quality")
	decisions := made(first, "rendition")
	if len(decisions) != 1 {
		t.Fatalf("decisions %v", first["decisions"])
	}
	d := decisions[0]
	if d["what"] != "rendition" || d["from"] != "high" || d["to"] != "low" || d["reason"] != "shown at 160×90" {
		t.Errorf("decision %v", d)
	}
	second := c.hear("quality")
	if again := made(second, "rendition"); len(again) != 0 {
		t.Errorf("told again: %v", again)
	}
	for _, key := range []string{"at", "sent", "loss", "rendition"} {
		if _, ok := second[key]; !ok {
			t.Errorf("no %s in %v", key, second)
		}
	}
	for deadline := time.Now().Add(patience); ; { // the peer's feedback takes a moment
		q := c.hear("quality")
		if q["estimate"] != nil && q["sent"].(float64) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("quality %v", q)
		}
	}
	c.say(map[string]any{"type": "observe", "on": false})
	c.say(map[string]any{"type": "observe", "on": false})
	if got := g.count(t, "gateway_adaptations_total", "rendition"); got != 1 {
		t.Errorf("%v decisions are counted", got)
	}
}

// bounds has the peer say that so many bit/s are all that comes through, as often as
// browsers do, until the test ends.
func (p *peer) bounds(bps float32) {
	remb := &rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: bps}
	for _, r := range p.pc.GetReceivers() {
		remb.SSRCs = append(remb.SSRCs, uint32(r.Track().SSRC()))
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = p.pc.WriteRTCP([]rtcp.Packet{remb})
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
}

// While a viewer waits for the first keyframe of the rendition that it moves to, it is
// sent the old one still: that one's encoder mustn't rise on the link that forced the move.
func TestEncoderKeepsToAViewerWhoIsAboutToMove(t *testing.T) {
	g := newGateway(t)
	g.add(t, "slow",
		media.Track{Name: "high", Kind: media.Video, Codec: media.VP8, Width: 1280, Height: 720, FPS: 50, Bps: 600_000, MinBps: 300_000, MaxBps: 600_000},
		media.Track{Name: "low", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180, FPS: 50, Bps: 50_000})
	g.sources["slow"].mute = "low"
	c, p := g.watch(t, "slow")
	p.sees(video)
	c.say(map[string]any{"type": "observe", "on": true})
	p.bounds(100_000)
	for deadline := time.Now().Add(patience); ; {
		if d := made(c.hear("quality"), "rendition"); len(d) > 0 && d[0]["to"] == "low" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it doesn't move")
		}
	}
	for range 2 { // the decision was told before it was carried out
		q := c.hear("quality")
		if q["rendition"] != "high" {
			t.Fatalf("quality %v", q)
		}
	}
	if got := g.streams["slow"].Target("high", 0); got != 300_000 {
		t.Errorf("the encoder that it is sent from is to make %d bit/s on a link of 100000", got)
	}
}

// made are the decisions about something that a quality message tells of.
func made(quality map[string]any, what string) (all []map[string]any) {
	for _, d := range quality["decisions"].([]any) {
		if d := d.(map[string]any); d["what"] == what {
			all = append(all, d)
		}
	}
	return all
}

// What the network is found to carry is told with its reason, in the panel's messages,
// in the log and in a metric: when it is known first, and when the receiver says that it
// is far less.
func TestChangesOfTheEstimateAreTold(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	p.sees(video)
	c.say(map[string]any{"type": "observe", "on": true})
	told := func(what string, is func(reason string) bool) map[string]any {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			q := c.hear("quality")
			for _, d := range made(q, "estimate") {
				if is(d["reason"].(string)) {
					return d
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s isn't told, but %v", what, q)
			}
		}
	}
	first := told("the first estimate", func(string) bool { return true })
	if first["from"] != "" || first["to"] == "" || first["at"].(float64) == 0 {
		t.Errorf("first %v", first)
	}
	const receiver = "receiver's estimate"
	p.bounds(60_000)
	if cut := told("the receiver's", func(reason string) bool { return reason == receiver }); cut["from"] == "" || cut["to"] != "60 kbit/s" {
		t.Errorf("cut %v", cut)
	}
	if got := g.count(t, "gateway_viewer_estimate_changes_total", receiver); got != 1 {
		t.Errorf("%v changes are counted", got)
	}
}

func TestBadViewIsRefused(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	p.sees(video)
	for _, m := range []map[string]any{
		{"type": "view", "width": 10, "height": 10},
		{"type": "view", "width": -1, "height": 10, "visible": true},
		{"type": "view", "width": 10, "height": 16385, "visible": true},
		{"type": "view", "width": "10", "height": 10, "visible": true},
		{"type": "view", "width": 10, "height": 10, "visible": 1},
		{"type": "view", "width": 10, "height": 10, "visible": true, "audible": nil},
		{"type": "observe"},
		{"type": "observe", "on": nil},
	} {
		c.say(m)
		if e := c.hear("error"); e["code"] != "bad-message" || e["fatal"] != false {
			t.Errorf("%v: %v", m, e)
		}
	}
}
