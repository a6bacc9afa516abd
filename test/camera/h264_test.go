package camera

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gateway/test/rig"
)

// codecElements are elements that encode or decode pictures.
var codecElements = regexp.MustCompile(`\b(\w+enc|\w+dec|decodebin3?|avdec_\w+|encodebin|videoconvert)\b`)

// TestGuestH264CameraStraightThrough watches a camera that encodes by itself with
// the file that `gateway devices` writes for it: its pictures are sent as they are.
// Its keyframes come every 3 s, when it likes; who comes between two of them begins
// at one all the same.
func TestGuestH264CameraStraightThrough(t *testing.T) {
	ctx := guest(t)
	shell(ctx, t, "camera_loop H264 160 120")
	feed(t, "video/x-raw,format=I420,width=160,height=120,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=200 key-int-max=45 "+
		"! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au")

	// what the camera is, before somebody has it
	file := run(ctx, t, nil, nil, "devices", "-yaml", "camera:platform:v4l2loopback-000")
	if !strings.Contains(string(file), "encoder: copy") {
		t.Errorf("the file doesn't copy:\n%s", file)
	}
	path := filepath.Join(t.TempDir(), "camera.yaml")
	rig.Check(t, os.WriteFile(path, file, 0o644))
	explained := string(run(ctx, t, nil, nil, "explain", path))
	if found := codecElements.FindString(explained); found != "" || !strings.Contains(explained, "width=160, height=120") ||
		strings.Contains(explained, "test picture") || strings.Contains(explained, "not run") {
		t.Errorf("it decodes or encodes (%q), or didn't run:\n%s", found, explained)
	}

	g := startFile(ctx, t, "webcam", string(file))
	first := begin(ctx, t, g)
	first.wait(ctx, t, 10)
	s, err := g.Stream(ctx, "webcam")
	rig.Check(t, err)
	track := s.Track("video")
	if track.Encoder != "" || codecElements.MatchString(track.Launch) || track.Codec != "h264" || track.Width != 160 || track.Height != 120 {
		t.Errorf("the track is told as %+v", track)
	}

	// some frames after a keyframe the next one is 2 s away
	keyframes := first.Seen().Keyframes
	rig.Check(t, rig.Until(ctx, "a keyframe", func() (bool, error) { return first.Seen().Keyframes > keyframes, nil }))
	frames := first.Seen().Frames
	rig.Check(t, rig.Until(ctx, "frames after it", func() (bool, error) { return first.Seen().Frames >= frames+10, nil }))
	late := begin(ctx, t, g)
	late.wait(ctx, t, 10)
	first.wait(ctx, t, 10)
	for _, w := range []*watcher{first, late} {
		seen := w.Seen()
		if !w.began() || seen.Lost > 0 {
			t.Errorf("a viewer's first packet isn't a keyframe's, or packets are lost: %+v", seen)
		}
		t.Logf("from the answer to the first keyframe: %s", seen.FirstKeyframe.Sub(w.Answered))
	}
}
