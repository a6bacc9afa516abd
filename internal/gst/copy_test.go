package gst

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const coded = picture + " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse config-interval=-1"

func copyOf(launch string) *config.Branch {
	b := branchOf(launch, media.H264)
	b.Copy = true
	return b
}

// A viewer that comes between two keyframes of a camera's own stream is given the
// last one, and what followed it.
func TestCopyBeginsWithTheLastKeyframe(t *testing.T) {
	p, s := capture(t, feed(strings.Replace(coded, "key-int-max=10", "key-int-max=1000", 1)))
	start(t, p, "first", copyOf("rtph264pay aggregate-mode=zero-latency"))
	for range 10 {
		s.frame(t, "first")
	}
	b := s.next(t, "first")
	if b.Encoding != 0 || b.Encoded != 0 {
		t.Errorf("a copy was encoded from %v to %v", b.Encoding, b.Encoded)
	}
	b.Release()
	start(t, p, "second", copyOf("rtph264pay aggregate-mode=zero-latency"))
	first, _, key := s.frame(t, "second")
	if !key {
		t.Error("it begins with no keyframe")
	}
	for range 20 {
		next, _, _ := s.frame(t, "second")
		if next-first > 50*time.Millisecond || next <= first {
			t.Errorf("%v after %v", next, first)
		}
		first = next
	}
	p.RequestKeyframe("second") // goes up to the source
	for range 20 {
		if _, _, key := s.frame(t, "second"); key {
			return
		}
	}
	t.Error("no keyframe after the request")
}

// Where frames depend on those before, a loss reaches up to the next keyframe, which
// is marked.
func TestCopyThatWasHeldUpGoesOnAtAKeyframe(t *testing.T) {
	p, s := capture(t, feed(strings.Replace(coded, "framerate=30/1", "framerate=100/1", 1)))
	start(t, p, "video", copyOf("identity name=hold ! rtph264pay aggregate-mode=zero-latency"))
	s.frame(t, "video")
	p.mu.Lock()
	hold, err := p.branches["video"].graph.pipeline.GetElementByName("hold")
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	defer dispose(hold.Object.InitiallyUnowned.Object)
	if err := setText(hold, "sleep-time", "50000"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(deadline); s.drops("video") == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nothing was dropped")
		}
	}
	setText(hold, "sleep-time", "0")
	var last time.Duration
	for {
		b := s.next(t, "video")
		gap, key, captured := b.Gap, b.Keyframe, b.Capture
		if !b.End {
			_, _, more := s.frame(t, "video")
			key = key || more
		}
		b.Release()
		if last > 0 && captured-last > 15*time.Millisecond && !gap {
			t.Fatalf("%v are missing, and it isn't said", captured-last)
		}
		if gap {
			if !key || captured-last < 15*time.Millisecond {
				t.Errorf("after a gap of %v: key=%v", captured-last, key)
			}
			return
		}
		last = captured
	}
}

// Browsers show B-frames out of order, or nothing: what a source has encoded with
// them is refused, whether its SPS tells of them (x264 does) or not.
func TestCopyThatBrowsersDoNotPlayIsRefused(t *testing.T) {
	for _, c := range []struct{ name, encode, want string }{
		{"declared", "x264enc speed-preset=ultrafast bframes=2 b-adapt=false rc-lookahead=2 key-int-max=30 ! video/x-h264,profile=main", "B-frames"},
		{"4:4:4", "x264enc tune=zerolatency speed-preset=ultrafast ! video/x-h264,profile=high-4:4:4", "High 4:4:4"},
		{"main", "x264enc tune=zerolatency speed-preset=superfast bframes=0 ! video/x-h264,profile=main", ""},
		{"high", "x264enc tune=zerolatency speed-preset=superfast bframes=0 ! video/x-h264,profile=high", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := strings.Replace(picture, "format=I420", "format="+map[bool]string{true: "Y444", false: "I420"}[c.name == "4:4:4"], 1)
			p, s := capture(t, feed(source+" ! "+c.encode+" ! h264parse config-interval=-1"))
			start(t, p, "video", copyOf("rtph264pay aggregate-mode=zero-latency"))
			if c.want == "" {
				for range 40 {
					s.frame(t, "video")
				}
				return
			}
			select {
			case err := <-s.ended:
				if !errors.Is(err, media.ErrUnplayable) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "encoder: auto") {
					t.Errorf("refused with: %v", err)
				}
			case err := <-s.failure:
				t.Error("the capture failed:", err)
			case <-time.After(deadline):
				t.Error("it isn't refused")
			}
		})
	}
}

// A camera that doesn't tell of its B-frames is known by its timestamps.
func TestFramesOutOfOrderAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		times   []time.Duration
		refused bool
	}{
		{"I P P", []time.Duration{0, 40, 80, 120, 160, 200}, false},
		{"I P B B", []time.Duration{0, 120, 40, 80, 240, 160, 200}, true},
		{"a clock that is set once", []time.Duration{0, 40, 80, 60, 100, 140}, false},
	} {
		tap := &tap{copied: true, track: media.Track{Kind: media.Video, Codec: media.H264}}
		var err error
		for i, at := range c.times {
			if e := tap.unplayable(&media.Buffer{Start: true, Keyframe: i == 0}, at); e != nil {
				err = e
			}
		}
		if (err != nil) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
