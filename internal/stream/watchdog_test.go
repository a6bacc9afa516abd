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

func TestLeakingPipelineIsStartedAgain(t *testing.T) {
	b := newBench()
	s := start(t, b, func(c *config.Stream) { c.Watchdog.Frames = time.Minute })
	s.mu.Lock()
	s.settles = time.Millisecond
	s.mu.Unlock()
	subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	l.leaks.Store(true)
	receive(t, l.closed, "end of the pipeline that leaks")
	if i := waitInfo(t, s, "a restart", func(i Info) bool { return i.Restarts == 1 }); i.LastError != "the pipeline's memory has grown from 100 to 700 MB" {
		t.Error(i.LastError)
	}
	begun(t, b)
}

func TestMemoryMayGrowWithWhatRuns(t *testing.T) {
	m := memory{settle: memorySettles}
	for _, step := range []struct {
		at      time.Duration
		mb      uint64
		running int
		leaks   bool
	}{
		{1, 50, 0, false},
		{2, 900, 1, false}, // an encoder begins
		{8, 2000, 1, false},
		{13, 1000, 1, false},
		{20, 1400, 1, false},
		{21, 3000, 2, false}, // another one
		{32, 3000, 2, false},
		{40, 2800, 2, false},
		{50, 3311, 2, false},
		{60, 3312, 2, true},
	} {
		if err := m.step(step.at*time.Second, step.mb<<20, step.running); (err != nil) != step.leaks {
			t.Errorf("%+v: %v", step, err)
		}
	}
}

// The first answer to a CPU that is too slow is a smaller picture.
func TestEncoderThatIsTooSlowIsStartedAgain(t *testing.T) {
	var s slowness
	var c Counts
	second := 0
	run := func(seconds int, dropped uint64, last bool) (errs int) {
		for range seconds {
			second++
			c.Frames, c.DroppedFrames = c.Frames+30-dropped, c.DroppedFrames+dropped
			if err := s.step(time.Duration(second)*time.Second, c, last); err != nil {
				if !errors.Is(err, errSlow) {
					t.Error(err)
				}
				errs++
			}
		}
		return errs
	}
	for _, step := range []struct {
		what    string
		seconds int
		dropped uint64
		last    bool
		ends    int
	}{
		{"it keeps up", 60, 5, true, 0},
		{"it can be given less", 60, 25, false, 0},
		{"too slow for a moment", 20, 25, true, 0},
		{"well again", 10, 0, true, 0},
		{"too slow", 36, 25, true, 1},
		{"still so: half a minute isn't enough any more", 40, 25, true, 0},
		{"and in the end", 30, 25, true, 1},
	} {
		if n := run(step.seconds, step.dropped, step.last); n != step.ends {
			t.Errorf("%s: ended %d times", step.what, n)
		}
	}
}

// Blaming the encoder for a busy CPU would only have another one chosen for it.
func TestSlowEncoderIsEndedAndNotBlamed(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	plan.Feeds[0].Branches[0].Encoder = "x264enc"
	b.set(plan, nil)
	s := start(t, b, nil)
	subscribe(t, s)
	_, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	s.mu.Lock()
	one := s.tracks[0]
	s.mu.Unlock()
	one.end(errSlow)
	receive(t, e.stopped, "end of the encoder")
	receive(t, e.line.started, "the encoder again")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.blamed) != 0 {
		t.Errorf("blamed %v", b.blamed)
	}
}
