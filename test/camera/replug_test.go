package camera

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// node is the one node of vivid now.
func node(t *testing.T) string {
	t.Helper()
	nodes, err := filepath.Glob("/dev/video[0-8]")
	rig.Check(t, err)
	if len(nodes) != 1 {
		t.Fatalf("the cameras are %v", nodes)
	}
	return nodes[0]
}

// replug takes the camera away under its viewer, and gives it back, under another
// number if other. It returns when it is live again.
func replug(ctx context.Context, t *testing.T, g *rig.Gateway, w *watcher, other bool) {
	t.Helper()
	before := node(t)
	if other { // a number is free only once nobody has it open
		held, err := os.Open(before)
		rig.Check(t, err)
		defer held.Close()
	}
	shell(ctx, t, "camera_yank")
	rig.Check(t, g.WaitState(ctx, "webcam", "absent"))
	shell(ctx, t, "camera_back && v4l2-ctl -d $(ls /dev/video[0-8]) -c horizontal_movement=5")
	back := time.Now()
	w.wait(ctx, t, 1)
	took := time.Since(back)
	if after := node(t); other && before == after {
		t.Errorf("it is %s as before", after)
	} else {
		t.Logf("%s came back as %s: seen after %d ms", before, after, took.Milliseconds())
	}
	rig.Check(t, g.WaitState(ctx, "webcam", "live"))
	w.wait(ctx, t, 5)
}

// TestGuestCameraIsFoundAgain replugs cameras that are named in every way that
// holds without udev, of which there is none here: by port, by the driver's name and
// by a number that is another afterwards. The viewer stays.
func TestGuestCameraIsFoundAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		other bool
	}{
		{"platform-vivid.0-video-index0", true},
		{"platform-vivid.0", false},
		{"vivid-000-vid-cap", true},
		{"/dev/v4l/by-path/platform-vivid.0-video-index0", true},
		{"", true}, // its number
	} {
		t.Run(strings.ReplaceAll(cmp.Or(c.name, "number"), "/", "_"), func(t *testing.T) {
			ctx := guest(t)
			if c.name == "" {
				c.name = node(t)
			}
			shell(ctx, t, "v4l2-ctl -d $(ls /dev/video[0-8]) -c horizontal_movement=5")
			g := start(ctx, t, c.name, 320, 180)
			w := begin(ctx, t, g)
			w.wait(ctx, t, 5)
			for range 2 {
				replug(ctx, t, g, w, c.other)
			}
			if s, err := g.Stream(ctx, "webcam"); err != nil || s.Viewers != 1 {
				t.Errorf("the stream is %+v, %v", s, err)
			}
		})
	}
}

// TestGuestCameraReturnsToItsProcess replugs a camera that is captured by a process of
// its own, confined to that camera, as the gateway does unless it is told otherwise.
// Most of the time until it is seen again is the start of two processes, which the
// emulated machine takes seconds for.
func TestGuestCameraReturnsToItsProcess(t *testing.T) {
	ctx := guest(t)
	shell(ctx, t, "v4l2-ctl -d $(ls /dev/video[0-8]) -c horizontal_movement=5")
	text := edition{"v4l2src device=platform-vivid.0-video-index0", "h264", 320, 180, 15}.String() + "watchdog: {start: 60s}\n"
	g := startWith(ctx, t, "webcam", text, "isolation: process\n")
	w := begin(ctx, t, g)
	w.wait(ctx, t, 5)
	replug(ctx, t, g, w, true)
	if s, err := g.Stream(ctx, "webcam"); err != nil || s.Viewers != 1 {
		t.Errorf("the stream is %+v, %v", s, err)
	}
}

// TestGuestBusyCameraNamesItsHolder has another program capture from the camera
// that is asked for.
func TestGuestBusyCameraNamesItsHolder(t *testing.T) {
	ctx := guest(t)
	busy, err := rig.Start(rig.Command{Path: "gst-launch-1.0", Args: strings.Fields(
		"v4l2src device=" + node(t) + " ! video/x-raw,width=320,height=180 ! identity silent=false ! fakesink silent=true -v")})
	rig.Check(t, err)
	rig.End(t, "capture", busy.Close)
	_, err = busy.WaitLog(ctx, regexp.MustCompile("chain"))
	rig.Check(t, err)
	g := start(ctx, t, node(t), 320, 180)
	w := begin(ctx, t, g)
	rig.Check(t, rig.Until(ctx, "the holder's name", func() (bool, error) {
		s, err := g.Stream(ctx, "webcam")
		return err == nil && strings.Contains(s.Reason, "is held by gst-launch-1.0 (pid "), err
	}))
	s, err := g.Stream(ctx, "webcam")
	rig.Check(t, err)
	t.Log(s.Reason)
	rig.Check(t, busy.Close())
	rig.Check(t, g.WaitState(ctx, "webcam", "live"))
	w.wait(ctx, t, 1)
}

// TestGuestCameraComesBackAsAnother puts a camera of other formats in the place of
// the one that was there: what it delivers is asked anew.
func TestGuestCameraComesBackAsAnother(t *testing.T) {
	ctx := guest(t)
	const link = "/dev/v4l/by-id/usb-Changing-video-index0"
	shell(ctx, t, "mkdir -p /dev/v4l/by-id && ln -sfn $(ls /dev/video[0-8]) "+link+" && v4l2-ctl -d "+link+" -c horizontal_movement=5")
	g := start(ctx, t, link, 320, 180)
	w := begin(ctx, t, g)
	w.wait(ctx, t, 5)
	shell(ctx, t, "rm "+link+" && camera_yank")
	defer shell(ctx, t, "camera_back")
	rig.Check(t, g.WaitState(ctx, "webcam", "absent"))
	shell(ctx, t, "camera_loop MJPG 320 240")
	feed(t, "video/x-raw,width=320,height=240,framerate=15/1 ! jpegenc")
	shell(ctx, t, "ln -sfn /dev/video9 "+link)
	rig.Check(t, g.WaitState(ctx, "webcam", "live"))
	w.wait(ctx, t, 5)
	s, err := g.Stream(ctx, "webcam")
	rig.Check(t, err)
	if !strings.Contains(s.Track("video").Launch, "jpegdec") {
		t.Errorf("the launch text decodes no JPEG: %s", s.Track("video").Launch)
	}
}
