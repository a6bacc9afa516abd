package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/strip"
	"gateway/test/viewer"
)

// ladderPipeline has a rendition for each browser, and a smaller one. Each keeps its
// size on a machine that is too slow for it.
const ladderPipeline = `title: Ladder
source: videotestsrc is-live=true pattern=smpte horizontal-speed=2
linger: 1s
video:
  framerate: 30
  degrade: false
  renditions:
    - {name: high, codec: h264, width: 960, height: 540, bitrate: 1500k}
    - {name: low, codec: h264, width: 320, height: 180, bitrate: 300k}
    - {name: firefox, codec: vp8, width: 640, height: 360, bitrate: 800k}
`

// waitRunning waits until exactly these encoders exist.
func waitRunning(ctx context.Context, t *testing.T, g *rig.Gateway, stream string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	rig.Check(t, rig.Until(ctx, fmt.Sprintf("the encoders of %q alone", want), func() (bool, error) {
		s, err := g.Stream(ctx, stream)
		if err != nil {
			return false, err
		}
		var running []string
		for _, track := range s.Tracks {
			if track.Running {
				running = append(running, track.Name)
			}
		}
		if strings.Join(running, " ") != strings.Join(want, " ") {
			err = fmt.Errorf("%q run", running)
		}
		return err == nil, err
	}))
}

// encoded is how many frames an encoder of a stream has made.
func encoded(ctx context.Context, t *testing.T, g *rig.Gateway, stream, track string) float64 {
	t.Helper()
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	return m[fmt.Sprintf("gateway_track_frames_total{stream=%q,track=%q}", stream, track)]
}

// TestEachBrowserGetsWhatItDecodes has Chromium and Debian's Firefox, which knows
// no H.264, watch one stream: the VP8 encoder exists only while Firefox is there.
// Chromium's rendition is chosen: a busy machine's would be given the low one.
func TestEachBrowserGetsWhatItDecodes(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	fox, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script}) // it takes all cores for a while
	rig.Check(t, err)
	rig.End(t, "firefox", fox.Close)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"ladder": ladderPipeline}})
	page := watchPage(ctx, t, g, "/watch/ladder?rendition=high")
	waitTrue(ctx, t, page, thePlayer+".video.videoWidth === 960 && "+thePlayer+".stats?.codec === 'H.264'")
	waitRunning(ctx, t, g, "ladder", "high")

	rig.Check(t, gap.Mark(ctx, page))
	foxPage, err := fox.Open(ctx, g.URL("/watch/ladder"))
	rig.Check(t, err)
	rig.Check(t, strip.WaitVideo(ctx, foxPage))
	waitTrue(ctx, t, foxPage, thePlayer+".video.videoWidth === 640 && "+thePlayer+".stats?.codec === 'VP8'")
	waitRunning(ctx, t, g, "ladder", "high", "firefox")
	waitTrue(ctx, t, foxPage, "!"+thePlayer+".shadowRoot.querySelector('select').checkVisibility()") // it has no choice

	rig.Check(t, foxPage.Close())
	waitRunning(ctx, t, g, "ladder", "high")
	high, vp8 := encoded(ctx, t, g, "ladder", "high"), encoded(ctx, t, g, "ladder", "firefox")
	rig.Check(t, rig.Until(ctx, "more frames of H.264", func() (bool, error) { return encoded(ctx, t, g, "ladder", "high") > high+30, nil }))
	if n := encoded(ctx, t, g, "ladder", "firefox"); n != vp8 || vp8 == 0 {
		t.Errorf("%v frames of VP8, %v when Firefox had gone", n, vp8)
	}
	seen, err := gap.Since(ctx, page, 0)
	rig.Check(t, err)
	t.Logf("Chromium while Firefox came and went: %s", seen)
	if !seen.Same || seen.Joins != 1 {
		t.Errorf("Chromium's picture was disturbed: %+v", seen)
	}
	if seen.Gap() > 3000 { // a page of another browser was opened on its cores
		t.Errorf("Chromium's picture stood still: %+v", seen)
	}
}

// TestMenuMovesOneViewer chooses renditions by the page's menu: this viewer's
// picture changes in its connection, and another viewer's doesn't.
func TestMenuMovesOneViewer(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"ladder": ladderPipeline}})
	mover, other := watchPage(ctx, t, g, "/watch/ladder"), watchPage(ctx, t, g, "/watch/ladder")
	waitTrue(ctx, t, mover, thePlayer+".shadowRoot.querySelector('select').checkVisibility()")
	rig.Check(t, gap.Mark(ctx, other))
	for _, c := range []struct {
		rendition string
		width     int
		codec     string
		encoders  []string
	}{
		{"low", 320, "H.264", []string{"high", "low"}},
		{"firefox", 640, "VP8", []string{"high", "firefox"}}, // Chromium decodes it too
		{"high", 960, "H.264", []string{"high"}},
		{"low", 320, "H.264", []string{"high", "low"}},
		{"auto", 960, "H.264", []string{"high"}},
	} {
		rig.Check(t, gap.Mark(ctx, mover))
		rig.Check(t, mover.Eval(ctx, fmt.Sprintf(`((menu) => { menu.value = %q; menu.dispatchEvent(new Event('change', {bubbles: true})) })(%s.shadowRoot.querySelector('select'))`,
			c.rendition, thePlayer), nil))
		waitTrue(ctx, t, mover, fmt.Sprintf("%[1]s.video.videoWidth === %[2]d && %[1]s.stats?.codec === %[3]q && %[1]s.rendition === %[4]q && %[1]s.renditions.some((r) => r.playing && r.width === %[2]d)",
			thePlayer, c.width, c.codec, c.rendition))
		seen, err := gap.Since(ctx, mover, 1000)
		rig.Check(t, err)
		t.Logf("to %-8s %s", c.rendition, seen)
		if !seen.Same || seen.Joins != 1 || seen.Gap() > 500 {
			t.Errorf("to %s: the picture didn't go on: %+v", c.rendition, seen)
		}
		waitRunning(ctx, t, g, "ladder", c.encoders...)
	}
	var lost float64
	rig.Check(t, mover.Eval(ctx, "videoStats().then((s) => s.packetsLost)", &lost))
	if lost != 0 {
		t.Errorf("%v packets are missing to the viewer that moved: its numbers have holes", lost)
	}
	seen, err := gap.Since(ctx, other, 0)
	rig.Check(t, err)
	t.Logf("the other one: %s", seen)
	if !seen.Same || seen.Width != 960 || seen.Gap() > 500 {
		t.Errorf("the other viewer was disturbed: %+v", seen)
	}
}

// TestAddressChoosesARendition opens the page and WHEP with a rendition in the
// address.
func TestAddressChoosesARendition(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"ladder": ladderPipeline}})
	page := watchPage(ctx, t, g, "/watch/ladder?rendition=low")
	waitTrue(ctx, t, page, thePlayer+".video.videoWidth === 320 && "+thePlayer+".shadowRoot.querySelector('select').value === 'low'")
	waitRunning(ctx, t, g, "ladder", "low")
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/ladder?rendition=firefox")})
	rig.Check(t, err)
	rig.End(t, "viewer", v.Close)
	rig.Check(t, v.WaitKeyframe(ctx))
	waitRunning(ctx, t, g, "ladder", "low", "firefox")
}

// TestNoRenditionFits is a client that decodes none of the codecs: it is told what
// was offered and what it said.
func TestNoRenditionFits(t *testing.T) {
	ctx := bounded(t, time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"ladder": ladderPipeline}})
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(g.URL("/ws"), "http", "ws", 1), nil)
	rig.Check(t, err)
	defer conn.Close()
	rig.Check(t, conn.WriteJSON(map[string]any{"type": "join", "roomId": "ladder", "version": 1, "codecs": map[string]any{"video": []string{"video/AV1"}}}))
	deadline, _ := ctx.Deadline()
	conn.SetReadDeadline(deadline)
	for {
		var m struct {
			Type, Code, Message string
			Fatal               bool
		}
		if err := conn.ReadJSON(&m); err != nil {
			t.Fatal(errors.Join(errors.New("no refusal came"), err))
		}
		if m.Type != "error" {
			continue
		}
		if m.Code != "codec-unsupported" || !m.Fatal || !strings.Contains(m.Message, "AV1") || !strings.Contains(m.Message, "H264") || !strings.Contains(m.Message, "VP8") {
			t.Errorf("refused by %+v", m)
		}
		break
	}
	waitRunning(ctx, t, g, "ladder")
}
