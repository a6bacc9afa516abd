package soak

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/strip"
)

var reloads = flag.Int("reloads", 100, "edits of a pipeline file")

// edition is the n-th text of a file that is edited all the time: bitrate, source,
// size and codec change in turn, and every tenth is broken.
func edition(n int) (text string, good bool) {
	if n%10 == 9 {
		return fmt.Sprintf("source: videotestsrc is-live=true\nvideo:\n  codec: h26%d\n", 6+n/10%4), false
	}
	codec, pattern, width := "h264", "smpte", 320
	if n/2%2 == 1 {
		codec = "vp8"
	}
	if n/3%2 == 1 {
		pattern = "ball"
	}
	if n/5%2 == 1 {
		width = 480
	}
	return fmt.Sprintf("source: videotestsrc is-live=true pattern=%s\nlinger: 0s\nvideo:\n  codec: %s\n  width: %d\n  height: %d\n  framerate: 15\n  bitrate: %dk\naudio:\n  source: audiotestsrc is-live=true\n",
		pattern, codec, width, width*9/16, 300+n%200), true
}

// TestReloadsGiveEverythingBack edits a file under a viewer again and again, who
// plays on over one connection.
func TestReloadsGiveEverythingBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	text, _ := edition(0)
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{"edited": text}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.Log())
		}
	})
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + gap.Script})
	rig.Check(t, err)
	rig.End(t, "chromium", b.Close)
	next := 1
	edit := func(n int, baseline *usage) usage {
		page, err := b.Open(ctx, g.URL("/watch/edited"))
		rig.Check(t, err)
		rig.Check(t, strip.WaitVideo(ctx, page))
		rig.Check(t, gap.Mark(ctx, page))
		for range n {
			text, good := edition(next)
			next++
			r, err := g.Edit(ctx, "edited", func() error { return g.WritePipeline("edited", text) })
			rig.Check(t, err)
			if r.OK != good {
				t.Fatalf("edit %d: %+v\n%s", next-1, r, text)
			}
		}
		seen, err := gap.Since(ctx, page, 1500)
		rig.Check(t, err)
		t.Logf("%d edits: %s", n, seen)
		if !seen.Same || seen.Joins != 1 || seen.Gap() > 2000 {
			t.Errorf("the viewer did not play on: %+v", seen)
		}
		rig.Check(t, page.Close())
		return settle(ctx, t, g, baseline, "edited")
	}

	// what is made once for each codec is made before the baseline
	baseline := edit(max(20, *reloads/5), nil)
	t.Log("baseline:  ", baseline)
	half := edit(*reloads/2, &baseline)
	t.Log("first half:", half)
	end := edit(*reloads-*reloads/2, &baseline)
	t.Log("at the end:", end)
	compare(t, baseline, half, end)
}
