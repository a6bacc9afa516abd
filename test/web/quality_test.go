package web_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// quality is a message of that type; what is nil isn't known.
type quality struct {
	At        int64            `json:"at"` // Unix milliseconds
	Estimate  *int             `json:"estimate,omitempty"`
	Target    *int             `json:"target,omitempty"`
	Sent      int              `json:"sent"`
	Rendition string           `json:"rendition"`
	Width     int              `json:"width,omitempty"`
	Height    int              `json:"height,omitempty"`
	FPS       float64          `json:"fps,omitempty"`
	Loss      float64          `json:"loss"`
	RoundTrip *float64         `json:"roundTrip,omitempty"`
	Queue     *float64         `json:"queue,omitempty"`
	Decisions []decision       `json:"decisions"`
	Latency   map[string]stage `json:"latency,omitempty"`
}

type decision struct {
	At     int64  `json:"at"`
	What   string `json:"what"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

type stage struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

func (v *session) tellQuality(q quality) {
	text, err := json.Marshal(q)
	if err != nil {
		panic(err)
	}
	m := map[string]any{"type": "quality", "session": v.id, "roomId": v.room, "userId": "u", "unheardOf": []any{nil}}
	if err := json.Unmarshal(text, &m); err != nil {
		panic(err)
	}
	v.send(m)
}

// tellQuality tells everybody who observes.
func (s *script) tellQuality(q quality) {
	s.mu.Lock()
	var all []*session
	for v := range s.sessions {
		v.mu.Lock()
		if v.observed {
			all = append(all, v)
		}
		v.mu.Unlock()
	}
	s.mu.Unlock()
	for _, v := range all {
		v.tellQuality(q)
	}
}

// story is three minutes of a network that carries 2.6 Mbit/s, 0.6 for a minute,
// and 2.6 again, as they are told up to now.
func story(now time.Time) []quality {
	const mega = 1e6
	noise := rand.New(rand.NewPCG(1, 2))
	happened := map[int][]decision{
		-120: {
			{What: "estimate", From: "2.6 Mbit/s", To: "0.9 Mbit/s", Reason: "the queueing delay grows"},
			{What: "rendition", From: "high", To: "low", Reason: "the network carries 0.6 Mbit/s"},
		},
		-104: {{What: "framerate", From: "30 fps", To: "15 fps", Reason: "the encoder is slower than the source"}},
		-88:  {{What: "pause", Reason: "the page is hidden"}},
		-78:  {{What: "resume", Reason: "the page is seen again"}},
		-56:  {{What: "estimate", From: "0.6 Mbit/s", To: "2.4 Mbit/s", Reason: "a probe of 2.4 Mbit/s came through"}},
		-50:  {{What: "rendition", From: "low", To: "high", Reason: "the estimate has held 2.4 Mbit/s for 5 s"}},
		-20:  {{What: "bitrate", From: "2.4 Mbit/s", To: "2.5 Mbit/s", Reason: "every viewer of high carries it"}},
	}
	var told []quality
	for t := -180; t <= 0; t++ {
		at := now.Add(time.Duration(t) * time.Second).UnixMilli()
		jitter := func(part float64) float64 { return 1 + (noise.Float64()-.5)*part }
		estimate, target, queue, loss := 2.6*mega, 2.5*mega, 3*jitter(1), 0.0
		q := quality{At: at, Rendition: "high", Width: 1280, Height: 720, FPS: 30, Decisions: []decision{}}
		switch {
		case t >= -120 && t < -56:
			estimate, target = .62*mega, .55*mega
			queue = 12*jitter(.8) + 420*max(0, 1-float64(t+120)/4)
			loss = max(0, .09-float64(t+120)*.02)
		case t >= -56 && t < -50:
			estimate = (.62 + .3*float64(t+56)) * mega
			target = .55 * mega
		}
		if t >= -120 && t < -50 {
			q.Rendition, q.Width, q.Height, q.FPS = "low", 640, 360, 15
		}
		q.Sent = int(target * .95 * jitter(.16))
		if t >= -88 && t < -78 {
			q.Rendition, q.Sent = "", 0
		}
		if t%37 == 0 {
			loss = .004
		}
		e, g, r := int(estimate*jitter(.04)), int(target), 24*jitter(.3)+queue
		q.Estimate, q.Target, q.RoundTrip, q.Queue, q.Loss = &e, &g, &r, &queue, loss
		for _, d := range happened[t] {
			d.At = at
			q.Decisions = append(q.Decisions, d)
		}
		told = append(told, q)
	}
	told[len(told)-1].Latency = map[string]stage{
		"capture": {8.2, 15.9, 21}, "encode": {6.4, 9.8, 24.1}, "packetize": {.1, .2, .9}, "queue": {2.2, 9.1, 31}, "network": {12.4, 18, 44},
		"jitterBuffer": {14.8, 27.4, 61}, "decode": {2.1, 4, 9.6}, "render": {9.4, 16.2, 19.8}, "total": {56.1, 88.7, 163},
	}
	return told
}

var wide = stream{Name: "front-door", Title: "Front door", State: "live", Viewers: 3, Tracks: []track{
	{Name: "high", Kind: "video", Codec: "vp8", Width: 1280, Height: 720, FPS: 30, Bitrate: 2_500_000},
	{Name: "low", Kind: "video", Codec: "vp8", Width: 640, Height: 360, FPS: 30, Bitrate: 600_000},
	audio,
}}

const graph = shadow + ".querySelector('.graph')"

func TestPanelShowsWhatTheGatewayDecides(t *testing.T) {
	s := start(t)
	s.set(wide)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	s.mu.Lock()
	asked := slices.Contains(s.seen, "observe")
	s.quality = story(time.Now())
	s.mu.Unlock()
	if asked {
		t.Error("the page observes before anybody looks")
	}
	w.press(t, "s")
	for _, text := range []string{"Rendition high → low: the network carries 0.6 Mbit/s", "Paused: the page is hidden", "2.6 Mbit/s", "Jitter buffer"} {
		w.until(t, fmt.Sprintf("%s.querySelector('.panel').innerText.includes(%q)", shadow, text))
	}
	var first string
	w.eval(t, shadow+".querySelector('.decisions li').innerText.replace(/\\s+/g, ' ')", &first)
	if !strings.HasSuffix(first, "Bitrate 2.4 Mbit/s → 2.5 Mbit/s: every viewer of high carries it") {
		t.Errorf("the newest decision reads %q", first)
	}
	var stages []string
	w.eval(t, "[..."+shadow+".querySelectorAll('tbody th')].map((th) => th.innerText)", &stages)
	if want := []string{"Capture", "Encoding", "Packetizing", "Sending", "Network", "Jitter buffer", "Decoding", "Rendering", "In all"}; !slices.Equal(stages, want) {
		t.Errorf("the stages are %q, want %q", stages, want)
	}
	var trends []string
	w.eval(t, "[..."+graph+".querySelectorAll('.mark-of')].map((e) => e.getAttribute('class').split(' ')[1])", &trends)
	if want := []string{"up", "up", "up", "resume", "pause", "down", "down", "down"}; !slices.Equal(trends, want) {
		t.Errorf("the marks are %q, want %q", trends, want)
	}

	// keys go through time, and what they find is text
	w.eval(t, graph+".focus()", nil)
	w.eval(t, "("+graph+".dispatchEvent(new KeyboardEvent('keydown', { key: 'Home', bubbles: true })), [...Array(6)].forEach(() => "+graph+".dispatchEvent(new KeyboardEvent('keydown', { key: 'PageUp', bubbles: true }))))", nil)
	w.until(t, graph+".getAttribute('aria-valuenow') === '-120' && "+graph+".getAttribute('aria-valuetext').includes('Rendition high → low: the network carries 0.6 Mbit/s')")
	w.until(t, shadow+".querySelectorAll('.decisions li.near').length === 2")
	w.eval(t, graph+".blur()", nil)
	w.until(t, graph+".getAttribute('aria-valuetext').startsWith('Now')")

	// it goes on while the panel is closed, and over a lost connection, whose end is told nothing twice
	w.press(t, "s")
	later := story(time.Now())
	last := later[len(later)-1]
	last.At += 1000
	last.Decisions = []decision{{At: last.At, What: "size", From: "1280 × 720", To: "640 × 360", Reason: "<b>the encoder</b> is too slow"}}
	s.tellQuality(last)
	w.until(t, player+".quality.decisions[0]?.what === 'size'")
	s.mu.Lock()
	again := last
	for _, q := range s.quality {
		again.Decisions = append(slices.Clone(q.Decisions), again.Decisions...)
	}
	again.At += 1000
	s.quality = []quality{again}
	s.mu.Unlock()
	s.drop()
	w.until(t, player+".quality.decisions.length === 9")
	w.press(t, "s")
	w.until(t, shadow+".querySelectorAll('.decisions li').length === 9 && "+shadow+".querySelector('.decisions li').innerText.includes('<b>the encoder</b> is too slow')")
	w.until(t, graph+".querySelectorAll('.rendition').length >= 3")
}

// What isn't known makes a hole and no fault: a gateway may tell less.
func TestPanelTakesQualityWithHoles(t *testing.T) {
	s := start(t)
	s.set(door)
	now := time.Now().UnixMilli()
	e := 900_000
	s.quality = []quality{{At: now - 9000}, {At: now - 8000, Estimate: &e, Sent: 1}, {At: now - 1000, Sent: 500_000}, {At: now - 60_000, Sent: 400_000}, {At: now - 59_000, Sent: 410_000}}
	w := browse(t, s, "/watch/front-door?stats", false)
	w.until(t, player+".state === 'playing' && "+shadow+".querySelector('.legend').innerText.includes('410 kbit/s')")
	w.until(t, graph+".querySelectorAll('path').length > 5 && !"+graph+".innerHTML.includes('NaN') && !"+graph+".innerHTML.includes('undefined')")
	w.until(t, shadow+".querySelector('.none').checkVisibility()")
}

func TestPanelWorksInFirefox(t *testing.T) {
	s := start(t)
	s.set(wide)
	s.quality = story(time.Now())
	w := browseFirefox(t, s, "/watch/front-door?stats")
	w.until(t, player+".state === 'playing' && "+graph+".querySelectorAll('.mark-of').length === 8")
	w.until(t, graph+".querySelector('.line.sent').getBBox().width > 200")
	w.until(t, shadow+".querySelector('.panel').innerText.includes('Rendition low → high: the estimate has held 2.4 Mbit/s for 5 s')")
	if dir := os.Getenv("GATEWAY_SCREENSHOTS"); dir != "" {
		png, err := w.page.Screenshot(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		rig.Check(t, os.WriteFile(filepath.Join(dir, "quality-firefox.png"), png, 0o600))
	}
}

func browseFirefox(t *testing.T, s *script, path string) *world {
	t.Helper()
	w := open(t, firefox(t), s.url(path))
	w.script = s
	return w
}
