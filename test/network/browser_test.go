package network

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

const player = "document.querySelector('gateway-player')"

// ladder has two renditions with a gap between them.
const ladder = `title: Ladder
source: videotestsrc is-live=true pattern=smpte horizontal-speed=2
video:
  codec: h264
  framerate: 30
  keyframe_interval: 10s
  renditions:
    - {name: high, width: 640, height: 360, bitrate: {min: 900k, start: 1200k, max: 1200k}}
    - {name: low, width: 320, height: 180, bitrate: {min: 150k, start: 300k, max: 300k}}
`

// TestBrowserMovesDownAndUp has Chromium watch a ladder over a link that becomes
// narrower than the high rendition's least bitrate, and wide again. GATEWAY_SCREENSHOTS
// names a folder for a picture of what its panel tells of that.
func TestBrowserMovesDownAndUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	g, client := serve(ctx, t, ladder)
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Namespace: client.Namespace, Preload: strip.Script})
	rig.Check(t, err)
	rig.End(t, "chromium", b.Close)
	page, err := b.Open(ctx, g.URL("/watch/test"))
	rig.Check(t, err)
	rig.Check(t, strip.WaitVideo(ctx, page))
	rig.Check(t, page.Eval(ctx, "("+player+".setAttribute('stats', ''), "+player+".style.height = '720px', window.told = [], 0)", nil))

	shows := func(width int, what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		begun := time.Now()
		err := rig.WaitTrue(ctx, page, fmt.Sprintf("%s.video.videoWidth === %d", player, width))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: after %s", what, time.Since(begun).Round(100*time.Millisecond))
	}
	shows(640, "the high rendition")
	rig.Check(t, rig.WaitTrue(ctx, page, player+".stats?.framesDecoded > 90"))
	setLink(client, narrow)
	shows(320, "the low one on a narrow link")
	setLink(client, wide)
	shows(640, "the high one again")

	// The page says what became of it, and why.
	text := "[...function* w(n) { yield n; for (const c of [...(n.shadowRoot?.childNodes ?? []), ...n.childNodes]) yield* w(c); }(" + player +
		")].filter((n) => n.nodeType === 3).map((n) => n.data).join(' ')"
	rig.Check(t, rig.WaitTrue(ctx, page, "((t) => t.includes('the network carries') && t.includes('the network has carried'))("+text+")"))

	status, body, err := g.Get(ctx, "/api/streams/test/viewers")
	rig.Check(t, err)
	var list struct {
		Viewers []struct {
			Decisions []struct{ What, From, To, Reason string }
		}
	}
	rig.Check(t, json.Unmarshal(body, &list))
	if status != 200 || len(list.Viewers) != 1 { // another one had joined anew
		t.Fatalf("status %d: %s", status, body)
	}
	var moves []string
	for _, d := range list.Viewers[0].Decisions {
		if d.What == "rendition" {
			moves = append(moves, d.To)
			t.Logf("%s to %s: %s", d.From, d.To, d.Reason)
		}
	}
	if got := strings.Join(moves, " "); !strings.HasPrefix(got, "low") || !strings.HasSuffix(got, "high") || len(moves) > 4 {
		t.Errorf("moves %q", got)
	}
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	if n := m[`gateway_joins_total{kind="ws"}`]; n != 1 {
		t.Errorf("%v joins", n)
	}
	if dir := os.Getenv("GATEWAY_SCREENSHOTS"); dir != "" {
		shot, err := page.Screenshot(ctx)
		rig.Check(t, err)
		rig.Check(t, os.WriteFile(filepath.Join(dir, "adaptation.png"), shot, 0o644))
	}
}
