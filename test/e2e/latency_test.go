package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
)

// stages are those of the ledger that a total is the sum of.
var stages = []string{"capture", "encode", "packetize", "queue", "network", "jitterBuffer", "decode", "render"}

type watching struct {
	Kind, State, Rendition string
	RoundTrip              float64
	Latency                map[string]struct{ P50, P95, Max float64 }
}

func TestLatencyIsAccountedFor(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{
		"h264": desktopPipeline(display, "h264"), "vp8": desktopPipeline(display, "vp8"),
	}})
	t.Run("chromium", func(t *testing.T) {
		accounts(ctx, t, startChromium(ctx, t, rig.ChromiumOptions{}), g, "h264", true)
	})
	t.Run("firefox", func(t *testing.T) {
		b, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script})
		rig.Check(t, err)
		rig.End(t, "firefox", b.Close)
		accounts(ctx, t, b, g, "vp8", false)
	})
}

// accounts watches a stream with the panel open. captured: the browser takes capture
// times along with the picture.
func accounts(ctx context.Context, t *testing.T, b browser, g *rig.Gateway, name string, captured bool) {
	page, err := b.Open(ctx, g.URL("/watch/"+name))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, strip.WaitVideo(ctx, page))
	rig.Check(t, page.Eval(ctx, "document.querySelector('gateway-player').toggleAttribute('stats', true)", new(bool)))

	// the round trip is known a second later, and the total with it
	var before map[string]float64
	rig.Check(t, rig.Until(ctx, "the first total", func() (bool, error) {
		before, err = g.Metrics(ctx)
		return before[series("count", name, "total")] > 0, err
	}))
	frames, err := strip.Watch(ctx, page, strip.ReadOptions{ScreenWidth: screenWidth, For: 5 * time.Second})
	rig.Check(t, err)
	v := viewers(ctx, t, g, name)
	if len(v) != 1 || v[0].Kind != "ws" || v[0].State != "connected" || v[0].Rendition == "" || v[0].RoundTrip <= 0 {
		t.Fatalf("viewers %+v", v)
	}
	for _, s := range append(stages, "total") {
		q, ok := v[0].Latency[s]
		t.Logf("%-12s %6.1f %6.1f %6.1f ms", s, q.P50, q.P95, q.Max)
		if !ok || q.P50 < 0 || q.P95 < q.P50 || q.Max < q.P95 {
			t.Errorf("%s: %+v", s, q)
		}
	}

	// frames may come between the readings of two series
	rig.Check(t, rig.Until(ctx, "metrics of the same frames in all stages", func() (bool, error) {
		after, err := g.Metrics(ctx)
		since := func(of, stage string) float64 {
			return after[series(of, name, stage)] - before[series(of, name, stage)]
		}
		n, sum := since("count", "total"), 0.0
		for _, s := range stages {
			if since("count", s) != n {
				return false, err
			}
			sum += since("sum", s)
		}
		return n >= 10 && math.Abs(sum-since("sum", "total")) < 1e-5*n, err
	}))

	var measured []float64
	frames = strip.Reported(frames)
	for _, f := range frames {
		if f.Captured != nil {
			measured = append(measured, f.Shown-*f.Captured)
		}
	}
	if !captured {
		return
	}
	if len(measured) < len(frames)/2 {
		t.Fatalf("%d of %d frames tell when they were captured", len(measured), len(frames))
	}
	// make bench-latency says how near they are on a quiet machine
	total, glass := v[0].Latency["total"].P50, stat.Quantile(measured, 0.5)
	t.Logf("total p50 %.1f ms, measured %.1f ms", total, glass)
	if math.Abs(total-glass) > 150 {
		t.Errorf("the total is %.1f ms, measured were %.1f ms", total, glass)
	}
}

func series(of, stream, stage string) string {
	return fmt.Sprintf("gateway_latency_seconds_%s{stage=%q,stream=%q}", of, stage, stream)
}

func viewers(ctx context.Context, t *testing.T, g *rig.Gateway, name string) []watching {
	t.Helper()
	var answer struct{ Viewers []watching }
	status, body, err := g.Get(ctx, "/api/streams/"+name+"/viewers")
	rig.Check(t, err)
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	return answer.Viewers
}
