package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/config"
	"gateway/internal/media"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the far side of the seam: a launcher whose pipelines the test plays.
type bench struct {
	mu       sync.Mutex
	absent   error
	refuse   error
	launched chan *line
}

// line is one launched pipeline.
type line struct {
	sink      Sink
	keyframes chan string
	closed    chan struct{}
	once      sync.Once
}

func newBench() *bench { return &bench{launched: make(chan *line, 16)} }

func (b *bench) set(absent, refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.absent, b.refuse = absent, refuse
}

func (b *bench) Compile(*config.Stream) (*config.Plan, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.absent != nil {
		return nil, b.absent
	}
	return &config.Plan{Launch: "x", Tracks: []media.Track{{Name: "video", Kind: media.Video, Codec: media.VP8}}}, nil
}

func (b *bench) Launch(_ context.Context, _ string, _ *config.Plan, sink Sink) (Pipeline, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	l := &line{sink: sink, keyframes: make(chan string, 16), closed: make(chan struct{})}
	b.launched <- l
	return l, nil
}

func (l *line) RequestKeyframe(track string) { l.keyframes <- track }
func (l *line) Close() error                 { l.once.Do(func() { close(l.closed) }); return nil }

func (l *line) frame(key bool) {
	l.sink.Deliver("video", buffer(1, func(b *media.Buffer) { b.Start, b.End, b.Keyframe = true, true, key }))
}

func start(t *testing.T, b *bench, change func(*config.Stream)) *Stream {
	t.Helper()
	baseline(t)
	conf := &config.Stream{Name: "desk", OnDemand: true, Linger: 50 * time.Millisecond}
	if change != nil {
		change(conf)
	}
	s := New(conf, b, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() { s.Close() })
	return s
}

// deadline is how long a test waits for what should come at once.
const deadline = 10 * time.Second

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatalf("no %s within %v", what, deadline)
		panic("unreachable")
	}
}

// waitState waits until the stream is in a state.
func waitState(t *testing.T, s *Stream, want State) Info {
	t.Helper()
	states := make(chan Info, 64)
	cancel := s.Watch(func(i Info) {
		select {
		case states <- i:
		default:
		}
	})
	defer cancel()
	i := s.Info()
	for i.State != want {
		i = receive(t, states, fmt.Sprintf("state %q (now %q)", want, i.State))
	}
	return i
}

func subscribe(t *testing.T, s *Stream) *Subscription {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := s.Tracks(ctx); err != nil {
		t.Fatal(err)
	}
	sub, err := s.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	return sub
}

func TestCaptureRunsWhileSomebodyWatches(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l := receive(t, b.launched, "pipeline")
	l.frame(true)
	waitState(t, s, Live)
	sub.Close()
	receive(t, l.closed, "end of the pipeline")
	waitState(t, s, Idle)

	again := subscribe(t, s)
	l = receive(t, b.launched, "second pipeline")
	l.frame(true)
	expect(t, read(again), 1, 1) // numbers go on
}

func TestCaptureStaysForAViewerWhoComesWithinTheLingerTime(t *testing.T) {
	b := newBench()
	s := start(t, b, func(c *config.Stream) { c.Linger = time.Hour })
	sub := subscribe(t, s)
	l := receive(t, b.launched, "pipeline")
	l.frame(true)
	waitState(t, s, Live)
	sub.Close()
	subscribe(t, s)
	select {
	case <-l.closed:
		t.Fatal("the pipeline was stopped")
	case <-b.launched:
		t.Fatal("another pipeline was launched")
	default:
	}
}

func TestStreamThatIsNotOnDemandCapturesAlways(t *testing.T) {
	b := newBench()
	start(t, b, func(c *config.Stream) { c.OnDemand = false })
	receive(t, b.launched, "pipeline")
}

func TestViewerStaysWhenThePipelineFails(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	first := receive(t, b.launched, "pipeline")
	first.frame(true)
	expect(t, read(sub), 0, 1)
	waitState(t, s, Live)

	first.sink.Fail(errors.New("cable cut"))
	if i := waitState(t, s, Restarting); i.Reason != "cable cut" {
		t.Errorf("reason %q", i.Reason)
	}
	receive(t, first.closed, "end of the failed pipeline")
	second := receive(t, b.launched, "second pipeline")
	first.frame(true) // a late one of the dead pipeline is not for viewers
	second.frame(false)
	if got := read(sub); len(got) != 0 {
		t.Fatalf("read %v, which follows nothing", got)
	}
	second.frame(true)
	expect(t, read(sub), 2, 1)
	if i := waitState(t, s, Live); i.Restarts != 1 || i.LastError != "cable cut" {
		t.Errorf("restarts %d, last error %q", i.Restarts, i.LastError)
	}
}

func TestPipelineThatDoesNotStartIsTriedAgain(t *testing.T) {
	b := newBench()
	b.set(nil, errors.New("busy"))
	s := start(t, b, nil)
	subscribe(t, s)
	if i := waitState(t, s, Restarting); i.Reason != "launch: busy" {
		t.Errorf("reason %q", i.Reason)
	}
	b.set(nil, nil)
	receive(t, b.launched, "pipeline")
}

func TestAbsentSourceAppears(t *testing.T) {
	b := newBench()
	b.set(fmt.Errorf("no camera: %w", media.ErrAbsent), nil)
	s := start(t, b, nil)
	if i := waitState(t, s, Absent); i.Reason == "" {
		t.Error("no reason")
	}
	b.set(nil, nil)
	waitState(t, s, Idle)
	subscribe(t, s)
	receive(t, b.launched, "pipeline")
}

func TestKeyframeRequestReachesThePipelineOnce(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l := receive(t, b.launched, "pipeline")
	l.frame(true)
	waitState(t, s, Live)
	for range 50 {
		sub.RequestKeyframe()
	}
	if track := receive(t, l.keyframes, "keyframe request"); track != "video" {
		t.Errorf("asked for track %q", track)
	}
	l.frame(true)
	sub.RequestKeyframe()
	receive(t, l.keyframes, "second keyframe request")
	if n := s.Counts()["video"].KeyframeRequests; n != 2 {
		t.Errorf("%d requests counted, want 2", n)
	}
}

// A pipeline that passes a camera's own H.264 through doesn't begin with a keyframe.
func TestKeyframeWishOutlivesThePipeline(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	first := receive(t, b.launched, "pipeline")
	first.frame(true)
	waitState(t, s, Live)
	read(sub)
	first.sink.Fail(errors.New("cable cut"))
	waitState(t, s, Restarting)
	sub.RequestKeyframe()
	second := receive(t, b.launched, "second pipeline")
	second.frame(false)
	receive(t, second.keyframes, "keyframe request")
}

func TestDescribedTrackIsTold(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	subscribe(t, s)
	l := receive(t, b.launched, "pipeline")
	l.sink.Describe(media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 640, Height: 480})
	tracks, err := s.Tracks(t.Context())
	if err != nil || tracks[0].Width != 640 {
		t.Fatalf("tracks %+v, %v", tracks, err)
	}
}

func TestSnapshotTakesAKeyframeOfTheRunningPipeline(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	got := make(chan [][]byte, 1)
	go func() {
		_, payloads, err := s.Keyframe(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- payloads
	}()
	l := receive(t, b.launched, "pipeline")
	l.sink.Deliver("video", buffer(3, func(b *media.Buffer) { b.Start, b.Keyframe = true, true }))
	l.sink.Deliver("video", buffer(2, func(b *media.Buffer) { b.End = true }))
	if payloads := receive(t, got, "keyframe"); len(payloads) != 5 {
		t.Errorf("%d payloads, want 5", len(payloads))
	}
}

func TestClosedStreamRefuses(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	receive(t, b.launched, "pipeline").frame(true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal("second close:", err)
	}
	if got := read(sub); len(got) != 0 {
		t.Errorf("read %v", got)
	}
	if _, err := s.Subscribe("video"); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribe: %v", err)
	}
	if _, err := s.Tracks(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("tracks: %v", err)
	}
}
