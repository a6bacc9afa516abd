package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// An encoder that hung was refused to everybody for as long as its process lived, which
// was for as long as another one had viewers.
func TestEncoderThatHangsHasItsProcessReplaced(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	viewer := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	expect(t, read(viewer), 0, 1)
	l.hang(e, "stalled")
	receive(t, l.closed, "end of the process")
	if !l.killed.Load() {
		t.Error("it was asked to end, and those who see another encoding waited for it")
	}
	_, e = begun(t, b)
	e.frame(true)
	if i := waitState(t, s, Live); !strings.Contains(i.LastError, media.ErrStuck.Error()) {
		t.Errorf("%+v", i)
	}
	expect(t, read(viewer), 1, 1)
}

// hang ends an encoder, which can't be started again.
func (l *line) hang(e *encoder, why string) {
	l.mu.Lock()
	l.refuse = fmt.Errorf("branch %q: %w", e.id, media.ErrStuck)
	l.mu.Unlock()
	l.sink.Ended(e.id, errors.New(why))
}

// sharing is a bench whose pipelines have no process of their own.
type sharing struct{ *bench }

func (b sharing) Launch(ctx context.Context, name string, feed *config.Feed, sink Sink) (Pipeline, error) {
	p, err := b.bench.Launch(ctx, name, feed, sink)
	return struct{ Pipeline }{p}, err
}

func TestEncoderThatHangsInTheGatewaysProcessEndsNothingElse(t *testing.T) {
	baseline(t)
	b := newBench()
	s := New(&config.Stream{Name: "desk"}, sharing{b}, slog.New(slog.DiscardHandler))
	defer s.Close()
	subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	l.hang(e, "stalled")
	waitInfo(t, s, "three failures", func(i Info) bool { return i.Restarts >= 3 })
	never(t, l.closed, "the pipeline was given up")
}

func TestOthersAreSparedByAnEncoderThatHangs(t *testing.T) {
	now := media.Now()
	c := &capture{stream: &Stream{conf: &config.Stream{}}}
	hangs := &encoding{capture: c, ring: newRing(media.Track{})}
	other := &encoding{capture: c, ring: newRing(media.Track{}), started: now - time.Minute}
	c.encodings = []*encoding{hangs, other}
	for _, step := range []struct {
		at            time.Duration
		yields, trial bool
		want          bool
	}{
		{0, false, false, true},
		{time.Second, false, false, true},
		{2 * time.Second, true, true, false},
		{3 * time.Second, true, false, true},
		{30 * time.Second, true, false, false},
		{31 * time.Second, false, false, true},
		{33 * time.Second, true, false, true}, // 30 s after the last time
		{90 * time.Second, true, false, false},
		{93 * time.Second, true, false, true}, // 60 s
	} {
		other.last = 0
		if step.yields {
			other.last = now + step.at
		}
		hangs.needed = step.trial
		if got := c.givesUp(hangs, &line{}, now+step.at); got != step.want {
			t.Errorf("%+v: %t", step, got)
		}
	}
}

// retries is a log that keeps what was waited before each new try.
type retries struct {
	mu    sync.Mutex
	waits []string
}

func (r *retries) Write(line []byte) (int, error) {
	if _, after, is := bytes.Cut(line, []byte("retry_in=")); is {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waits = append(r.waits, string(bytes.Fields(after)[0]))
	}
	return len(line), nil
}

// content is a stream for which frames for any time are enough.
func content(t *testing.T, b *bench) (s *Stream, waits func() []string) {
	baseline(t)
	log := new(retries)
	conf := &config.Stream{Name: "desk", OnDemand: true, Watchdog: config.Watchdog{Start: time.Minute, Frames: time.Minute}}
	s = New(conf, b, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { s.Close() })
	s.mu.Lock()
	s.lasts = 1
	s.mu.Unlock()
	return s, func() []string {
		log.mu.Lock()
		defer log.mu.Unlock()
		return slices.Clone(log.waits)
	}
}

// A source that never yields was started again at once, for ever: waiting for its first
// frame took as long as what had run well.
func TestBackoffGrowsUntilFramesCome(t *testing.T) {
	b := newBench()
	s, waits := content(t, b)
	within := func(start time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conf.Watchdog.Start = start
	}
	within(time.Millisecond)
	subscribe(t, s)
	for range 2 {
		l, _ := begun(t, b)
		receive(t, l.closed, "end of the pipeline without a frame")
	}
	within(time.Minute)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	l.sink.Fail(errors.New("cable cut"))
	begun(t, b)
	if got := fmt.Sprint(waits()); got != "[250ms 500ms 0s]" {
		t.Errorf("waited %s", got)
	}
}

func TestEncodersBackoffGrowsUntilFramesCome(t *testing.T) {
	b := newBench()
	s, waits := content(t, b)
	subscribe(t, s)
	l, e := begun(t, b)
	for range 2 {
		l.sink.Ended(e.id, errors.New("no licence"))
		e = receive(t, l.started, "encoder")
	}
	waitInfo(t, s, "the encoder to run", func(i Info) bool { return i.Tracks[0].Running }) // what came before doesn't count
	e.frame(true)
	waitState(t, s, Live)
	for began := media.Now(); media.Now() == began; { // until the clock has moved
	}
	e.frame(false)
	l.sink.Ended(e.id, errors.New("no licence"))
	receive(t, l.started, "encoder")
	if got := fmt.Sprint(waits()); got != "[250ms 500ms 250ms]" {
		t.Errorf("waited %s", got)
	}
}

// What a process sends for an encoding on trial is as large as it likes.
func TestHeldBytesAreBounded(t *testing.T) {
	baseline(t)
	e := &encoding{outcome: make(chan error, 1)}
	payload := make([]byte, 5<<20)
	for i := range 40 {
		b := media.NewBuffer(len(payload))
		b.Append(payload)
		b.Start, b.End, b.Keyframe = true, true, i%20 == 0
		e.hold(b)
		sum := 0
		for _, b := range e.held {
			sum += b.Size()
		}
		if sum != e.size || sum > heldBytes {
			t.Fatalf("%d bytes are held, %d counted", sum, e.size)
		}
	}
	e.drop()
	if e.size != 0 {
		t.Errorf("%d bytes are counted, none is held", e.size)
	}
}

// Everybody who watches is told of a change: a process could have had the gateway do
// nothing else.
func TestTrackThatIsDescribedAgainIsNoChange(t *testing.T) {
	s := &Stream{conf: &config.Stream{}, notice: newNotice()}
	e := &encoding{ring: newRing(media.Track{}), track: media.Track{Name: "video", Bps: 7}}
	r := &run{capture: &capture{stream: s}, byID: map[string]*encoding{"1": e}}
	changes := 0
	s.Watch(func(Info) { changes++ })
	for width := range 2 {
		for range 5 {
			r.Describe("1", media.Track{Name: "x", Width: 320 + width})
		}
	}
	if changes != 2 || e.track.Width != 321 || e.track.Bps != 7 || e.track.Name != "video" {
		t.Errorf("%d changes, %+v", changes, e.track)
	}
}

func TestEncoderRunsOnlyWhileItsRenditionIsWatched(t *testing.T) {
	b := newBench()
	s, high, l, first := live(t, b, one("x", vp8("video"), vp8("low")))
	never(t, l.started, "the low rendition is encoded though nobody watches it")
	low := subscribeTo(t, s, "low")
	second := receive(t, l.started, "second encoder")
	if second.branch.Track.Name != "low" {
		t.Fatalf("encoder of %q", second.branch.Track.Name)
	}
	second.frame(true)
	expect(t, read(low), 0, 1)
	low.Close()
	receive(t, second.stopped, "end of the low rendition's encoder")
	never(t, first.stopped, "the other encoder was stopped")
	first.frame(false)
	expect(t, read(high), 1, 1)
}

func TestEncoderThatFailsIsStartedAgainAloneAndBlamed(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", vp8("video"), vp8("low")))
	low := subscribeTo(t, s, "low")
	other := receive(t, l.started, "second encoder")
	other.frame(true)
	expect(t, read(low), 0, 1)

	l.sink.Ended(other.id, errors.New("out of surfaces"))
	receive(t, other.stopped, "end of the failed encoder")
	again := receive(t, l.started, "encoder, anew")
	again.frame(false)
	again.frame(true)
	expect(t, read(low), 2, 1)
	e.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, l.closed, "the capture was stopped")
	b.mu.Lock()
	defer b.mu.Unlock()
	if fmt.Sprint(b.blamed) != "[low]" {
		t.Errorf("blamed: %v", b.blamed)
	}
}

func TestStreamWhoseOnlyEncoderFailsSaysWhy(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	for range 2 {
		l.sink.Ended(e.id, errors.New("it has B-frames"))
		if i := waitState(t, s, Restarting); i.Reason != "it has B-frames" {
			t.Errorf("reason %q", i.Reason)
		}
		e = receive(t, l.started, "encoder, anew")
		e.frame(true)
		waitState(t, s, Live)
	}
}

func TestEncoderThatFailedIsReplacedByWhatThePlanHasThen(t *testing.T) {
	b := newBench()
	_, sub, l, e := live(t, b, one("x", branch("video", media.H264, "hardware name=encoder")))
	b.set(one("x", branch("video", media.H264, "software name=encoder")), nil)
	l.sink.Ended(e.id, errors.New("device lost"))
	soft := receive(t, l.started, "another encoder")
	for !strings.HasPrefix(soft.branch.Launch, "software") {
		soft = receive(t, l.started, "another encoder")
	}
	for begun := time.Now(); len(read(sub)) == 0; { // what it makes before it is taken on is lost
		if time.Since(begun) > 10*time.Second {
			t.Fatal("nothing of the other encoder is read")
		}
		soft.frame(true)
		time.Sleep(time.Millisecond)
	}
}

// A camera's own H.264 that turns out to have B-frames was started again and again,
// and its viewers saw nothing though there was another rendition.
func TestRenditionThatBrowsersDoNotPlayIsPassedOver(t *testing.T) {
	b := newBench()
	camera := config.Branch{Track: media.Track{Name: "camera", Kind: media.Video, Codec: media.H264}, Launch: "rtph264pay", Copy: true}
	plan := one("x", camera, vp8("low"))
	b.set(plan, nil)
	s := start(t, b, nil)
	waitTracks(t, s)
	sub := subscribeTo(t, s, "camera")
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)

	names := func() (names []string) {
		tracks, err := s.Tracks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, track := range tracks {
			names = append(names, track.Name)
		}
		return names
	}
	l.sink.Ended(e.id, fmt.Errorf("%w: it has B-frames", media.ErrUnplayable))
	i := waitInfo(t, s, "the refusal", func(i Info) bool { return i.Tracks[0].Refused != "" })
	if !strings.Contains(i.Tracks[0].Refused, "B-frames") || i.Tracks[1].Refused != "" {
		t.Errorf("tracks %+v", i.Tracks)
	}
	if s.Current(sub) || !slices.Equal(names(), []string{"low"}) {
		t.Errorf("viewers aren't moved: tracks %q", names())
	}
	if _, err := s.Subscribe("camera"); err == nil {
		t.Error("the refused rendition is given away")
	}
	low := subscribeTo(t, s, "low")
	sub.Close()
	other := receive(t, l.started, "encoder of the other rendition")
	if other.branch.Track.Name != "low" {
		t.Fatalf("encoder of %q", other.branch.Track.Name)
	}
	other.frame(true)
	expect(t, read(low), 0, 1)
	waitState(t, s, Live)

	applied(t, apply(t, s, b, plan), s)
	if !slices.Equal(names(), []string{"camera", "low"}) {
		t.Error("an edit doesn't give it another chance")
	}
}

// The only rendition is tried again: there is nothing better for its viewers.
func TestOnlyRenditionIsNotPassedOver(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	l.sink.Ended(e.id, fmt.Errorf("%w: it has B-frames", media.ErrUnplayable))
	again := receive(t, l.started, "encoder, anew")
	again.frame(true)
	if i := waitState(t, s, Live); i.Tracks[0].Refused != "" {
		t.Errorf("%+v", i.Tracks)
	}
}

// The first encoding in the order of their making was taken for the first rendition:
// after an edit that one was stopped at once, or the wrong one ran.
func TestFirstRenditionRunsAlwaysWhateverWasEdited(t *testing.T) {
	b := newBench()
	b.set(one("x", vp8("video")), nil)
	s := start(t, b, func(c *config.Stream) { c.OnDemand, c.Linger = false, 0 })
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	sub := subscribe(t, s)
	sub.Close()

	result := apply(t, s, b, one("x", vp8("high"), vp8("video")))
	high := receive(t, l.started, "encoder of the new first rendition")
	high.frame(true)
	applied(t, result, s)
	receive(t, e.stopped, "end of the encoder that isn't the first any more")

	result = apply(t, s, b, one("x", branch("high", media.H264, "x264enc name=encoder"), vp8("video")))
	h264 := receive(t, l.started, "encoder of the first rendition's new codec")
	old := subscribeTo(t, s, "high") // a viewer who can't be moved
	h264.frame(true)
	applied(t, result, s)
	s.mu.Lock()
	h := s.find("high")
	h.until = 0 // viewers had time to move
	wanted, again := h.wanted(media.Now())
	s.mu.Unlock()
	if !wanted || again != 0 {
		t.Error("the first rendition is to be stopped")
	}
	old.Close()
	receive(t, high.stopped, "end of the old codec's encoder")
	never(t, h264.stopped, "the first rendition was stopped")
	never(t, l.closed, "the capture was stopped")
}
