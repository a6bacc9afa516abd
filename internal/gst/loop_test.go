package gst

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
)

// recording makes a file of a second's pictures at 30 a second.
func recording(t *testing.T, muxer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recording")
	text := "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=160,height=120,framerate=30/1" +
		" ! x264enc speed-preset=ultrafast bframes=2 key-int-max=15 ! h264parse ! " + muxer + " ! filesink location=" + path
	if out, err := exec.CommandContext(t.Context(), "gst-launch-1.0", append([]string{"-q"}, strings.Fields(text)...)...).CombinedOutput(); err != nil {
		t.Fatalf("gst-launch-1.0 (package gstreamer1.0-tools): %v\n%s", err, out)
	}
	return path
}

func TestFileIsPlayedInALoop(t *testing.T) {
	const frames = 80 // of 30 a round
	for _, muxer := range []string{"mp4mux", "matroskamux", "matroskamux streamable=true", "mpegtsmux"} {
		t.Run(muxer, func(t *testing.T) {
			f := feed("filesrc location=" + recording(t, muxer) + " ! decodebin ! videoconvert ! video/x-raw,format=I420")
			f.Loop = true
			p, s := capture(t, f)
			start(t, p, "video", branchOf(x264, media.H264))
			first, _, _ := s.frame(t, "video")
			last := first
			for i := range frames {
				captured, arrived, _ := s.frame(t, "video")
				if gap := captured - last; gap < 30*time.Millisecond {
					t.Errorf("frame %d comes %v after the one before", i, gap)
				}
				if age := arrived - captured; age < 0 || age > time.Second {
					t.Errorf("frame %d is %v old", i, age)
				}
				last = captured
			}
			span := time.Duration(frames+s.drops("video")) * time.Second / 30
			if off := last - first - span; off < -100*time.Millisecond || off > 100*time.Millisecond {
				t.Errorf("%d frames and %d dropped ones lasted %v", frames, s.drops("video"), last-first)
			}
		})
	}
}

func TestWhatCannotSeekEnds(t *testing.T) {
	path := recording(t, "mp4mux faststart=true")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		w.Write(data)
	}()
	f := feed(fmt.Sprintf("fdsrc fd=%d ! qtdemux ! h264parse", r.Fd()))
	f.Loop = true
	_, s := capture(t, f)
	select {
	case err := <-s.failure:
		if !errors.Is(err, media.ErrEnded) {
			t.Errorf("said %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was said")
	}
}
