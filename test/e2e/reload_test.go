package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/strip"
)

// edition is what the test writes into a pipeline file.
type edition struct {
	source, codec, encoder string
	width, height, fps     int
	kbps                   int
}

func (e edition) String() string {
	text := fmt.Sprintf("title: Edited\nsource: %s\nlinger: 2s\nvideo:\n  codec: %s\n  width: %d\n  height: %d\n  framerate: %d\n  bitrate: %dk\n",
		e.source, e.codec, e.width, e.height, e.fps, e.kbps)
	if e.encoder != "" {
		text += "  encoder: " + e.encoder + "\n"
	}
	return text
}

const testSource = "videotestsrc is-live=true pattern=smpte horizontal-speed=2"

// first is what the edits begin with.
var first = edition{source: testSource, codec: "h264", width: 640, height: 360, fps: 30, kbps: 800}

// watchPage opens a stream's page in Chromium with all scripts of the tests.
func watchPage(ctx context.Context, t *testing.T, g *rig.Gateway, path string) rig.Page {
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + gap.Script})
	rig.Check(t, err)
	rig.End(t, "chromium", b.Close)
	page, err := b.Open(ctx, g.URL(path))
	rig.Check(t, err)
	rig.Check(t, strip.WaitVideo(ctx, page))
	return page
}

// waitTrue waits until an expression is true in a page, for as long as a person
// would.
func waitTrue(ctx context.Context, t *testing.T, page rig.Page, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	rig.Check(t, rig.WaitTrue(ctx, page, expression))
}

const (
	thePlayer = "document.querySelector('gateway-player')"
	refusal   = "document.querySelector('[slot=remark] .refused')"
)

// TestViewerStaysThroughEdits edits a file under a viewer in every way that an
// editor or a ConfigMap writes: the same connection and video element go on, the
// picture follows, and nothing stands still for long.
func TestViewerStaysThroughEdits(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"edited": first.String()}})
	path := filepath.Join(g.Dir, "pipelines", "edited.yaml")
	page := watchPage(ctx, t, g, "/watch/edited")

	rename := func(text string) error { return g.WritePipeline("edited", text) }
	inPlace := func(text string) error { return os.WriteFile(path, []byte(text), 0o644) }
	mapped := configMap(path)
	e := first
	for _, c := range []struct {
		name  string
		write func(string) error
		edit  func(*edition)
	}{
		{"bitrate", rename, func(e *edition) { e.kbps = 1600 }},
		{"size", inPlace, func(e *edition) { e.width, e.height = 960, 540 }},
		{"frame rate", rename, func(e *edition) { e.fps = 15 }},
		{"frame rate back", inPlace, func(e *edition) { e.fps = 30 }},
		{"encoder", rename, func(e *edition) { e.encoder = "openh264enc" }},
		{"encoder back", inPlace, func(e *edition) { e.encoder = "" }},
		{"source", rename, func(e *edition) { e.source = "ximagesrc use-damage=false display-name=" + display }},
		{"the file becomes a symlink", mapped, func(e *edition) { e.kbps = 1700 }},
		{"codec, by symlink", mapped, func(e *edition) { e.codec = "vp8" }},
		{"codec back, by symlink", mapped, func(e *edition) { e.codec = "h264" }},
		{"source back", mapped, func(e *edition) { e.source = testSource }},
	} {
		c.edit(&e)
		rig.Check(t, gap.Mark(ctx, page))
		r, err := g.Edit(ctx, "edited", func() error { return c.write(e.String()) })
		rig.Check(t, err)
		if !r.OK {
			t.Fatalf("%s: refused: %s %q", c.name, r.Message, r.Findings)
		}
		waitTrue(ctx, t, page, fmt.Sprintf("%[1]s.video.videoWidth === %[2]d && %[1]s.stats?.codec.replace('.', '').toLowerCase() === %[3]q",
			thePlayer, e.width, e.codec))
		seen, err := gap.Since(ctx, page, 1500)
		rig.Check(t, err)
		t.Logf("%-28s %s (%s)", c.name, seen, r.Message)
		if !seen.Same || seen.Joins != 1 {
			t.Errorf("%s: the connection was made anew: %+v", c.name, seen)
		}
		if seen.Gap() > 1000 {
			t.Errorf("%s: no frame for %.0f ms", c.name, seen.Gap())
		}
		s, err := g.Stream(ctx, "edited")
		rig.Check(t, err)
		if v := s.Track("video"); v.Codec != e.codec || v.Width != e.width || int(v.FPS) != e.fps || v.Bitrate != e.kbps*1000 ||
			(e.encoder != "" && v.Encoder != e.encoder) || !v.Running {
			t.Errorf("%s: the stream's track is %+v, want %+v", c.name, v, e)
		}
		if s.Restarts != 0 {
			t.Errorf("%s: %d restarts", c.name, s.Restarts)
		}
		waitTrue(ctx, t, page, "!"+refusal+".checkVisibility()")
	}
}

// configMap writes a file as Kubernetes does it for a ConfigMap: the file is a
// symlink through the symlink ..data, which is exchanged.
func configMap(path string) func(text string) error {
	dir, name := filepath.Split(path)
	version := 0
	link := func(target, at string) error {
		if err := os.Symlink(target, at+".tmp"); err != nil {
			return err
		}
		return os.Rename(at+".tmp", at)
	}
	return func(text string) error {
		version++
		folder := fmt.Sprintf("..%d", version)
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, folder, name), []byte(text), 0o644); err != nil {
			return err
		}
		if err := link(folder, filepath.Join(dir, "..data")); err != nil {
			return err
		}
		if version > 1 {
			return os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..%d", version-1)))
		}
		return link(filepath.Join("..data", name), path)
	}
}

// broken are edits that must not be taken, each in another way.
var broken = map[string]string{
	"empty":              "",
	"not YAML":           "source: [unclosed\nvideo:\n  codec: h264\n",
	"unknown key":        first.String() + "sourcee: x\n",
	"unknown codec":      strings.Replace(first.String(), "codec: h264", "codec: h263", 1),
	"unknown element":    strings.Replace(first.String(), "videotestsrc", "videotestsrk", 1),
	"unknown property":   strings.Replace(first.String(), "pattern=", "patern=", 1),
	"no such encoder":    first.String() + "  encoder: nosuchenc\n",
	"pads can't link":    strings.Replace(first.String(), testSource, testSource+" ! audio/x-raw,rate=48000", 1),
	"source isn't there": strings.Replace(first.String(), testSource, "v4l2src device=/dev/video99", 1),
	"no frame comes":     strings.Replace(first.String(), testSource, testSource+" ! valve drop=true", 1),
}

// TestBrokenEditsLeaveTheOldRunning makes ten broken edits in a row: the page says
// each, and plays on as if nothing were.
func TestBrokenEditsLeaveTheOldRunning(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"edited": first.String()}})
	page := watchPage(ctx, t, g, "/watch/edited")
	for _, name := range slices.Sorted(maps.Keys(broken)) {
		rig.Check(t, gap.Mark(ctx, page))
		r, err := g.Edit(ctx, "edited", func() error { return g.WritePipeline("edited", broken[name]) })
		rig.Check(t, err)
		if r.OK || r.Message == "" {
			t.Errorf("%s: taken: %+v", name, r)
			continue
		}
		said := r.Message
		if len(r.Findings) > 0 {
			said = r.Findings[0]
		}
		waitTrue(ctx, t, page, refusal+".checkVisibility() && "+refusal+".innerText.includes("+quote(said)+")")
		seen, err := gap.Since(ctx, page, 500)
		rig.Check(t, err)
		t.Logf("%-18s %s: %s %q", name, seen, r.Message, r.Findings)
		if !seen.Same || seen.Joins != 1 || seen.Gap() > 500 {
			t.Errorf("%s: the viewer noticed: %+v", name, seen)
		}
	}
	shot, err := page.Screenshot(ctx)
	rig.Check(t, err)
	keep(t, "refused.png", shot)
	good := first
	good.kbps = 900
	r, err := g.Edit(ctx, "edited", func() error { return g.WritePipeline("edited", good.String()) })
	rig.Check(t, err)
	if !r.OK {
		t.Errorf("the good edit after them is refused: %+v", r)
	}
	waitTrue(ctx, t, page, "!"+refusal+".checkVisibility()")
}

// TestStreamsComeAndGoWithTheirFiles follows a file from nothing to a stream and
// back, seen from its page.
func TestStreamsComeAndGoWithTheirFiles(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"other": first.String()}})
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/late"))
	rig.Check(t, err)
	waitTrue(ctx, t, page, pageText+`.includes("No such stream")`)
	rig.Check(t, g.WritePipeline("late", first.String()))
	rig.Check(t, strip.WaitVideo(ctx, page)) // by itself
	rig.Check(t, os.Remove(filepath.Join(g.Dir, "pipelines", "late.yaml")))
	waitTrue(ctx, t, page, pageText+`.includes("No such stream") || `+pageText+`.includes("The stream has ended")`)
	rig.Check(t, rig.Until(ctx, "the stream to be gone", func() (bool, error) {
		status, _, err := g.Get(ctx, "/api/streams/late")
		return status == 404, err
	}))
}
