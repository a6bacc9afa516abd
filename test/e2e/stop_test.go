package e2e

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/strip"
	"gateway/test/viewer"
)

// TestStopIsCleanAndPageComesBack ends the gateway under its viewers by SIGTERM.
// It ends by itself, soon and with status 0, tells the sockets, frees the port at
// once; and the page plays again by itself when the gateway is back.
func TestStopIsCleanAndPageComesBack(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	display := paintedScreen(ctx, t)
	pipelines := map[string]string{"desktop": desktopPipeline(display, "h264")}
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines})
	rig.Check(t, err)
	defer g.Close()
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, strip.WaitVideo(ctx, page))
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/desktop"), Codecs: []media.Codec{media.H264}})
	rig.Check(t, err)
	rig.Check(t, v.WaitKeyframe(ctx))
	c := dial(ctx, t, g)
	c.send(`{"type":"join","roomId":"desktop","version":1}`)
	c.until("offer")

	begun := time.Now()
	rig.Check(t, g.Signal(syscall.SIGTERM))
	if m := c.until("left", "error"); m.Type == "error" && m.Code != "shutting-down" {
		t.Errorf("the socket was told %+v", m)
	}
	err = g.Wait(ctx)
	took := time.Since(begun)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("the gateway ended with %v\n%s", exit, g.Log())
	}
	rig.Check(t, err)
	t.Logf("stopped in %s", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	v.Close() // its gateway is gone: whatever it says

	startGateway(ctx, t, rig.GatewayOptions{Pipelines: pipelines, Port: g.Port})
	live(ctx, t, page)
}

// TestSecondSignalEndsAtOnce is for who can't wait.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	ctx := bounded(t, time.Minute)
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}})
	rig.Check(t, err)
	defer g.Close()
	rig.Check(t, g.Signal(os.Interrupt))
	g.Signal(os.Interrupt) // it may be gone already
	begun := time.Now()
	g.Wait(ctx)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}
