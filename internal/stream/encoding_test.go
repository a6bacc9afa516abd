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
