package signal

import (
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
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
	decisions := first["decisions"].([]any)
	if len(decisions) != 1 {
		t.Fatalf("decisions %v", decisions)
	}
	d := decisions[0].(map[string]any)
	if d["what"] != "rendition" || d["from"] != "high" || d["to"] != "low" || d["reason"] != "shown at 160×90" {
		t.Errorf("decision %v", d)
	}
	second := c.hear("quality")
	if again := second["decisions"].([]any); len(again) != 0 {
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
