// Package e2e tests the whole product as its users meet it: the gateway as a
// process, a real X screen, real browsers and clients of other makes.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

func TestMain(m *testing.M) {
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const screenWidth, screenHeight = 1280, 720

// paintedScreen is an X screen on which the strip is painted 60 times a second.
func paintedScreen(ctx context.Context, t *testing.T) (display string) {
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: screenWidth, Height: screenHeight})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	paint(ctx, t, x.Display)
	return x.Display
}

// paint paints the strip on a display until the test ends or ctx is done.
func paint(ctx context.Context, t *testing.T, display string) {
	p, err := strip.NewPainter(display)
	rig.Check(t, err)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, 60) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.Close()
	})
}

// startGateway starts a gateway that ends with the test, and prints its log when
// the test has failed.
func startGateway(ctx context.Context, t *testing.T, o rig.GatewayOptions) *rig.Gateway {
	g, err := rig.StartGateway(ctx, o)
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.Log())
		}
	})
	return g
}

func startChromium(ctx context.Context, t *testing.T, o rig.ChromiumOptions) *rig.Chromium {
	o.Preload = strip.Script
	b, err := rig.StartChromium(ctx, o)
	rig.Check(t, err)
	rig.End(t, "chromium", b.Close)
	return b
}

// desktopPipeline is a pipeline file that captures a display.
func desktopPipeline(display, codec string) string {
	return fmt.Sprintf("title: Desktop\nsource: ximagesrc display-name=%s use-damage=false\nvideo:\n  codec: %s\n  framerate: 30\n", display, codec)
}

// keep writes a picture into the folder that `go test -artifacts` names.
func keep(t *testing.T, name string, png []byte) {
	path := filepath.Join(t.ArtifactDir(), name)
	rig.Check(t, os.WriteFile(path, png, 0o644))
	t.Logf("screenshot %s", path)
}
