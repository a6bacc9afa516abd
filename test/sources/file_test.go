package sources

import (
	"path/filepath"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
)

// clip makes a file of one second, picture and sound.
func clip(t *testing.T) string {
	t.Helper()
	needElement(t, "gstreamer1.0-plugins-ugly", "x264enc", "mp4mux")
	path := filepath.Join(t.TempDir(), "clip.mp4")
	p := launch(t, "videotestsrc pattern=ball num-buffers=15 ! video/x-raw,format=I420,width=320,height=180,framerate=15/1"+
		h264("main")+"! mp4mux name=mux ! filesink location="+path+
		" audiotestsrc freq=440 num-buffers=47 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! mux.")
	rig.Check(t, p.Wait(bounded(t, 20*time.Second)))
	return path
}

// A file is played at its own pace, and over and over.
func TestFileInALoop(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	path := clip(t)
	g := startGateway(ctx, t, map[string]string{
		"copy":  "source: filesrc location=" + path + "\nvideo: {encoder: copy}\n",
		"again": "source: filesrc location=" + path + "\nvideo: {codec: vp8, width: 320, height: 180}\naudio: {source: filesrc location=" + path + "}\n",
	})
	const frames = 40 // of 15 in the file
	for _, c := range []struct {
		name  string
		codec media.Codec
	}{{"copy", media.H264}, {"again", media.VP8}} {
		t.Run(c.name, func(t *testing.T) {
			w := watch(ctx, t, g, c.name, c.codec)
			w.picture(ctx, t)
			begun := time.Now()
			w.moves(ctx, t, frames)
			if took := time.Since(begun); took < frames*time.Second/15*2/3 {
				t.Errorf("%d frames of 15 a second came in %s", frames, took)
			}
			if c.name == "copy" {
				straightThrough(ctx, t, g, c.name)
				return
			}
			s, err := g.Stream(ctx, c.name)
			rig.Check(t, err)
			if s.State != "live" || s.Restarts != 0 {
				t.Errorf("it is %s after %d restarts: %s", s.State, s.Restarts, s.LastError)
			}
		})
	}
	hears(ctx, t, g, "again", media.Opus, 440)
}

// A file that isn't to be repeated comes to its end, and says so.
func TestFileThatEnds(t *testing.T) {
	ctx := bounded(t, time.Minute)
	g := startGateway(ctx, t, map[string]string{"once": "loop: false\nsource: filesrc location=" + clip(t) + "\nvideo: {encoder: copy}\n"})
	w := watch(ctx, t, g, "once", media.H264)
	w.moves(ctx, t, 8)
	rig.Check(t, rig.Until(ctx, "the end of the file", func() (bool, error) {
		s, err := g.Stream(ctx, "once")
		return err == nil && s.State == "ended" && s.Reason == "the file has ended" && s.Restarts == 0, err
	}))
}

// A frame in two seconds: the first is there at once, and the next ones come.
func TestTimeLapse(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	g := startGateway(ctx, t, map[string]string{"lapse": "on_demand: false\n" +
		"source: videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 ! videorate ! video/x-raw,framerate=1/2\n" +
		"video: {codec: vp8, bitrate: 300k}\n"})
	rig.Check(t, g.WaitState(ctx, "lapse", "live"))
	w := watch(ctx, t, g, "lapse", media.VP8)
	begun := time.Now()
	rig.Check(t, w.WaitKeyframe(ctx))
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the first picture came after %s", took)
	}
	w.moves(ctx, t, 2)
}
