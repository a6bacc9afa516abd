package camera

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestGuestCameraIsEditedUnderAViewer edits the file of a camera that only one
// pipeline can have: each edit must close it and open it anew, and one that doesn't
// work must give it back. The viewer has one PeerConnection all along.
func TestGuestCameraIsEditedUnderAViewer(t *testing.T) {
	ctx := guest(t)
	const other = "v4l2src device=/dev/video9"
	shell(ctx, t, `ln -sfn "$(ls /dev/video[0-8])" /dev/webcam && v4l2-ctl -d /dev/webcam -c horizontal_movement=5`)
	shell(ctx, t, "camera_loop YUYV 320 240")
	feed(t, "video/x-raw,format=YUY2,width=320,height=240,framerate=15/1")
	e := edition{"v4l2src device=/dev/webcam", "h264", 640, 360, 15}
	g := startFile(ctx, t, "webcam", e.String())
	w := join(ctx, t, g)
	w.wait(ctx, t, 5)
	w.longest()
	w.wait(ctx, t, 10)
	t.Logf("%-24s %4d ms from frame to frame at most", "no edit", w.longest().Milliseconds())

	edit := func(what, text string) *rig.Reload {
		t.Helper()
		w.longest()
		begun := time.Now()
		r, err := g.Edit(ctx, "webcam", func() error { return g.WritePipeline("webcam", text) })
		rig.Check(t, err)
		decided := time.Since(begun)
		rig.Check(t, g.WaitState(ctx, "webcam", "live"))
		w.wait(ctx, t, 5)
		t.Logf("%-24s %4d ms from frame to frame at most, decided after %d ms: %s", what, w.longest().Milliseconds(), decided.Milliseconds(), r.Message)
		return r
	}
	for _, c := range []struct {
		what string
		edit func(*edition)
	}{
		{"size", func(e *edition) { e.width, e.height = 320, 180 }},
		{"frame rate", func(e *edition) { e.fps = 10 }},
		{"codec", func(e *edition) { e.codec = "vp8" }},
		{"codec back", func(e *edition) { e.codec = "h264" }},
		{"device", func(e *edition) { e.source = other; e.height = 240 }},
		{"device and size back", func(e *edition) { e.source = "v4l2src device=/dev/webcam"; e.height = 180 }},
	} {
		c.edit(&e)
		if r := edit(c.what, e.String()); !r.OK {
			t.Fatalf("%s: refused: %s %q", c.what, r.Message, r.Findings)
		}
		s, err := g.Stream(ctx, "webcam")
		rig.Check(t, err)
		if v := s.Track("video"); v.Codec != e.codec || v.Width != e.width || v.Height != e.height || int(v.FPS) != e.fps ||
			!strings.Contains(v.Launch, e.source) || s.Restarts != 0 || s.Viewers != 1 {
			t.Errorf("%s: the stream is %+v, want %+v", c.what, s, e)
		}
		if codec := string(w.Seen().Codec); codec != e.codec {
			t.Errorf("%s: the viewer receives %s", c.what, codec)
		}
	}
	for what, source := range map[string]string{
		"a size that it hasn't":   "v4l2src device=/dev/webcam ! video/x-raw,width=334,height=222,framerate=15/1",
		"an element that fails":   "v4l2src device=/dev/webcam ! identity error-after=1",
		"a camera that isn't":     "v4l2src device=/dev/video7",
		"an element that is none": "v4l2src device=/dev/webcam ! videobalanse",
	} {
		broken := e
		broken.source = source
		if r := edit(what, broken.String()); r.OK {
			t.Errorf("%s was taken: %s", what, r.Message)
		}
	}
	s, err := g.Stream(ctx, "webcam")
	rig.Check(t, err)
	if v := s.Track("video"); !strings.Contains(v.Launch, e.source) || v.Width != e.width || s.Viewers != 1 {
		t.Errorf("after the broken edits the stream is %+v", s)
	}

	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		rig.Check(t, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(e.String()), 0o644))
	}
	if said := string(run(ctx, t, nil, nil, "check", dir)); !strings.Contains(said, `can be opened only once, and the stream "one" uses it too`) {
		t.Errorf("of two streams on one camera check says:\n%s", said)
	}
}
