package stream

import (
	"errors"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// What freezes is the camera when no rendition gets a frame, though they notice it
// at different times, and one of them may be starting again.
func TestFrozenCaptureIsToldFromAFrozenEncoder(t *testing.T) {
	now := media.Now()
	c := &capture{stream: &Stream{conf: &config.Stream{}}}
	encodes := func(fps float64, started, last time.Duration) *encoding {
		return &encoding{
			capture: c, ring: newRing(media.Track{}), track: media.Track{FPS: fps}, ended: make(chan error, 1), started: started, last: last,
		}
	}
	stale := encodes(30, now-time.Minute, now-6*time.Second)
	slow := encodes(1, now-time.Minute, now-6*time.Second) // may take ten seconds
	fresh := encodes(30, now-time.Second, 0)
	backsOff := encodes(30, 0, now-time.Minute)
	well := encodes(1, now-time.Minute, now-time.Second)
	for _, tt := range []struct {
		name   string
		with   []*encoding
		frozen bool
	}{
		{"alone", nil, true},
		{"a slower one that hasn't noticed", []*encoding{slow}, true},
		{"one that has just started", []*encoding{fresh}, true},
		{"one that backs off", []*encoding{backsOff}, true},
		{"one that goes on", []*encoding{well, fresh}, false},
	} {
		active := map[*encoding]activity{stale: {}}
		for _, e := range tt.with {
			active[e] = activity{}
		}
		err := c.stalled(active)
		if frozen := errors.Is(err, errStalled); frozen != tt.frozen {
			t.Errorf("%s: %v", tt.name, err)
		}
		select {
		case <-stale.ended:
			if tt.frozen {
				t.Errorf("%s: the encoder is blamed", tt.name)
			}
		default:
			if !tt.frozen {
				t.Errorf("%s: the encoder goes on", tt.name)
			}
		}
	}
}

// A pipeline that neither yields nor fails is ended and started again.
func TestWatchdogTimesAreTheFiles(t *testing.T) {
	b := newBench()
	s := start(t, b, func(c *config.Stream) {
		c.Watchdog = config.Watchdog{Start: time.Second, Frames: 500 * time.Millisecond}
	})
	subscribe(t, s)
	silent, _ := begun(t, b)
	receive(t, silent.closed, "end of the pipeline without a frame")
	if i := waitInfo(t, s, "a restart", func(i Info) bool { return i.Restarts == 1 }); i.LastError != `track "video": no first frame within 1s of the start` {
		t.Error(i.LastError)
	}
	stuck, e := begun(t, b)
	e.frame(true)
	receive(t, stuck.closed, "end of the pipeline that got stuck")
	if i := waitInfo(t, s, "a restart", func(i Info) bool { return i.Restarts == 2 }); i.LastError != `track "video": no frame for 500ms` {
		t.Error(i.LastError)
	}
}

func TestSilenceIsAsLongAsTheSourceNeeds(t *testing.T) {
	for _, tt := range []struct {
		file, source, want time.Duration
		kind               media.Kind
	}{
		{0, 0, pictureWithin, media.Video},
		{0, 0, soundWithin, media.Audio},
		{0, time.Minute, time.Minute, media.Video},
		{time.Second, time.Minute, time.Second, media.Video},
	} {
		s := &Stream{conf: &config.Stream{Watchdog: config.Watchdog{Frames: tt.file}}}
		e := &encoding{capture: &capture{stream: s, feed: config.Feed{Silence: tt.source}}}
		e.base.Track.Kind = tt.kind
		if got := e.silence(); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
