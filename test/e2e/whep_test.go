package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestIndependentClientWatchesByWHEP lets aiortc, which shares no code with pion
// or libwebrtc, watch both codecs and read the strip from its own pictures.
func TestIndependentClientWatchesByWHEP(t *testing.T) {
	if exec.Command(python, "-c", "import aiortc").Run() != nil {
		rig.Check(t, &rig.Missing{What: "aiortc", Remedy: "apt-get install python3-aiortc"})
	}
	ctx := bounded(t, 3*time.Minute)
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{
		"h264": desktopPipeline(display, "h264"),
		"vp8":  desktopPipeline(display, "vp8"),
	}})
	for _, codec := range []string{"h264", "vp8"} {
		t.Run(codec, func(t *testing.T) {
			p, err := rig.Start(rig.Command{Path: python, Args: []string{"whep_aiortc.py", g.URL("/whep/" + codec), "60", "1280"}})
			rig.Check(t, err)
			defer p.Close()
			if err := p.Wait(ctx); err != nil {
				t.Fatalf("aiortc: %v\n%s", err, p.Log())
			}
			times, left := make(map[int]bool), 0
			for lines := bufio.NewScanner(strings.NewReader(p.Log())); lines.Scan(); {
				var line struct {
					Width, Height, Left int
					Painted             *int
				}
				if json.Unmarshal(lines.Bytes(), &line) != nil {
					continue // a warning of the library
				}
				if line.Painted != nil {
					times[*line.Painted] = true
				}
				if line.Left != 0 {
					left = line.Left
				} else if line.Width != screenWidth || line.Height != screenHeight {
					t.Errorf("a frame of %dx%d", line.Width, line.Height)
				}
			}
			if len(times) < 45 {
				t.Errorf("%d different strips in 60 frames: not live\n%s", len(times), p.Log())
			}
			if left != 200 {
				t.Errorf("DELETE says %d, want 200", left)
			}
		})
	}
}

// python is Debian's, where the packages are.
const python = "/usr/bin/python3"

// otherMake runs a client that isn't ours, a Python script that needs a module, and
// expects words of it.
func otherMake(ctx context.Context, t *testing.T, name, needs, remedy, want string, args []string) {
	t.Helper()
	if exec.Command(python, "-c", needs).Run() != nil {
		rig.Check(t, &rig.Missing{What: name, Remedy: remedy})
	}
	p, err := rig.Start(rig.Command{Path: python, Args: args})
	rig.Check(t, err)
	defer p.Close()
	if err := p.Wait(ctx); err != nil || !strings.Contains(p.Log(), want) {
		t.Errorf("%v\n%s", err, p.Log())
	}
}
