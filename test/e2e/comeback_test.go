package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"gateway/test/rig"
)

// frameClock notes in window.frames when the player of a page showed frames, as Unix
// milliseconds: at most one each 20 ms.
const frameClock = `(() => {
	window.frames_ = [];
	let last = -1;
	setInterval(() => {
		const video = document.querySelector('gateway-player')?.shadowRoot?.querySelector('video');
		const n = video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
		if (n !== last) frames_.push(Date.now());
		last = n;
	}, 20);
	return 0;
})()`

// backAfter is when a page has shown five frames in a row after a moment: the first of
// them, counted from the moment.
func backAfter(ctx context.Context, t *testing.T, page rig.Page, since time.Time) (took time.Duration) {
	t.Helper()
	var at float64
	rig.Check(t, rig.Until(ctx, "frames on the page", func() (bool, error) {
		err := page.Eval(ctx, fmt.Sprintf("(() => { const f = frames_.filter((t) => t > %d); return f.length > 5 ? f[0] : 0; })()", since.UnixMilli()), &at)
		return err == nil && at > 0, err
	}))
	return time.UnixMilli(int64(at)).Sub(since)
}

// TestPageIsBackAfterTheGatewayWasKilled kills the gateway's process, as the kernel does
// when memory runs out, and starts it again soon and after a while: the page plays by
// itself.
func TestPageIsBackAfterTheGatewayWasKilled(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	pipelines := map[string]string{"test": testPipeline}
	start := func(port int) *rig.Gateway {
		g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines, Port: port})
		rig.Check(t, err)
		return g
	}
	g := start(0)
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/test"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, page.Eval(ctx, frameClock, nil))
	backAfter(ctx, t, page, time.Now())
	for _, down := range []time.Duration{0, 25 * time.Second} {
		rig.Check(t, g.Signal(syscall.SIGKILL))
		g.Wait(ctx)
		timer := time.NewTimer(down) // the page dials meanwhile
		<-timer.C
		g.Close() // its folder; how it ended is known
		g = start(g.Port)
		took := backAfter(ctx, t, page, time.Now())
		t.Logf("down for %v: the picture was back %v after the gateway's return", down, took.Round(10*time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("down for %v: it took %v", down, took)
		}
	}
	rig.Check(t, g.Close())
}
