package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
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
	plan     config.Plan
	refuse   error // of launches
	launched chan *line
	blamed   []string

	drawn        [][][]byte                    // what placeholders are; nil: none can be made
	placeholders []config.Placeholder          // those that were asked for
	slow         map[media.Codec]chan struct{} // placeholders in it aren't made before that is closed
}

// line is one launched pipeline.
type line struct {
	feed      config.Feed
	sink      Sink
	refuse    error       // of starts
	fixed     error       // of bitrates
	starting  chan func() // if any: starts wait for what they send to be called
	keyframes chan string
	started   chan *encoder
	last      func()        // what it yields while it is closed
	hangs     chan struct{} // if any: its end waits for that
	closed    chan struct{}
	once      sync.Once
	looked    atomic.Int64 // how often its memory was asked for
	leaks     atomic.Bool  // after ten times

	mu       sync.Mutex
	encoders map[string]*encoder
}

// encoder is one branch of a line.
type encoder struct {
	line    *line
	id      string
	branch  config.Branch
	bps     chan int
	stopped chan struct{}
}

func vp8(name string) config.Branch { return branch(name, media.VP8, "vp8enc name=encoder") }

func branch(name string, codec media.Codec, text string) config.Branch {
	return config.Branch{
		Track:  media.Track{Name: name, Kind: codec.Kind(), Codec: codec, Bps: 1_000_000},
		Launch: text + " target-bitrate=1000000", Encoder: "row", Element: "encoder",
		Bitrate: config.BitrateProperty{Property: "target-bitrate", Unit: 1, Live: true},
	}
}

func one(capture string, branches ...config.Branch) config.Plan {
	return config.Plan{Feeds: []config.Feed{{Name: "video", Capture: capture, Branches: branches}}}
}

func newBench() *bench { return &bench{launched: make(chan *line, 16), plan: one("x", vp8("video"))} }

func (b *bench) set(plan config.Plan, refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan, b.refuse = plan, refuse
}

func absent(err error) config.Plan {
	return config.Plan{Feeds: []config.Feed{{Name: "video", Absent: err}}}
}

func (b *bench) Compile(context.Context, *config.Stream) (*config.Plan, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := config.Plan{Feeds: slices.Clone(b.plan.Feeds)}
	for i := range p.Feeds {
		p.Feeds[i].Branches = slices.Clone(p.Feeds[i].Branches)
	}
	return &p, nil
}

func (b *bench) Launch(_ context.Context, _ string, feed *config.Feed, sink Sink) (Pipeline, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	l := &line{
		feed: *feed, sink: sink, keyframes: make(chan string, 16), started: make(chan *encoder, 16),
		closed: make(chan struct{}), encoders: make(map[string]*encoder),
	}
	b.launched <- l
	return l, nil
}

func (b *bench) Blame(branch *config.Branch, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blamed = append(b.blamed, branch.Track.Name)
}

func (b *bench) Placeholder(_ context.Context, p *config.Placeholder) ([][][]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.placeholders = append(b.placeholders, *p)
	if made := b.slow[p.Codec]; made != nil {
		b.mu.Unlock()
		<-made
		b.mu.Lock()
	}
	if b.drawn == nil {
		return nil, errors.New("no encoder")
	}
	return b.drawn, nil
}

func (l *line) Start(_ context.Context, id string, branch *config.Branch) error {
	l.mu.Lock()
	starting := l.starting
	l.mu.Unlock()
	if starting != nil {
		ctx, cancel := context.WithCancel(context.Background())
		starting <- func() { cancel() }
		<-ctx.Done()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	e := &encoder{line: l, id: id, branch: *branch, bps: make(chan int, 4), stopped: make(chan struct{})}
	l.encoders[id] = e
	l.started <- e
	return nil
}

func (l *line) Usage() (rss uint64, ok bool) {
	if l.looked.Add(1) > 10 && l.leaks.Load() {
		return 700 << 20, true
	}
	return 100 << 20, true
}

func (l *line) Stop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.encoders[id].stopped)
	delete(l.encoders, id)
}

func (l *line) SetBitrate(id string, bps int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fixed != nil {
		return l.fixed
	}
	l.encoders[id].bps <- bps
	return nil
}

func (l *line) RequestKeyframe(id string) {
	select {
	case l.keyframes <- id:
	default: // the test doesn't look
	}
}

func (l *line) Close() error {
	l.once.Do(func() {
		if l.last != nil {
			l.last()
		}
		close(l.closed)
		if l.hangs != nil {
			<-l.hangs
		}
	})
	return nil
}

func (e *encoder) frame(key bool) {
	e.line.sink.Deliver(e.id, buffer(1, func(b *media.Buffer) { b.Start, b.End, b.Keyframe = true, true, key }))
}

// begun waits for the next pipeline and its first encoder.
func begun(t *testing.T, b *bench) (*line, *encoder) {
	t.Helper()
	l := receive(t, b.launched, "pipeline")
	return l, receive(t, l.started, "encoder")
}

func start(t *testing.T, b *bench, change func(*config.Stream)) *Stream {
	t.Helper()
	baseline(t)
	conf := &config.Stream{Name: "desk", OnDemand: true, Linger: 50 * time.Millisecond}
	conf.Watchdog.Frames = time.Minute // what a test yields comes when it comes
	if change != nil {
		change(conf)
	}
	s := New(conf, b, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() { s.Close() })
	return s
}

// deadline is how long a test waits for what should come at once.
const deadline = 30 * time.Second

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
	return waitInfo(t, s, fmt.Sprintf("state %q", want), func(i Info) bool { return i.State == want })
}

// waitInfo waits until the stream is as a test wants it.
func waitInfo(t *testing.T, s *Stream, what string, good func(Info) bool) Info {
	t.Helper()
	infos := make(chan Info, 64)
	cancel := s.Watch(func(i Info) {
		select {
		case infos <- i:
		default:
		}
	})
	defer cancel()
	i := s.Info()
	for !good(i) {
		i = receive(t, infos, fmt.Sprintf("%s (now %+v)", what, i))
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
	return subscribeTo(t, s, "video")
}

func subscribeTo(t *testing.T, s *Stream, track string) *Subscription {
	t.Helper()
	sub, err := s.Subscribe(track)
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
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	sub.Close()
	receive(t, l.closed, "end of the pipeline")
	waitState(t, s, Idle)

	again := subscribe(t, s)
	_, e = begun(t, b)
	e.frame(true)
	expect(t, read(again), 1, 1) // numbers go on
}

func TestCaptureStaysForAViewerWhoComesWithinTheLingerTime(t *testing.T) {
	b := newBench()
	s := start(t, b, func(c *config.Stream) { c.Linger = time.Hour })
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
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
	first, e := begun(t, b)
	e.frame(true)
	expect(t, read(sub), 0, 1)
	waitState(t, s, Live)

	first.sink.Fail(errors.New("cable cut"))
	if i := waitState(t, s, Restarting); i.Reason != "cable cut" {
		t.Errorf("reason %q", i.Reason)
	}
	receive(t, first.closed, "end of the failed pipeline")
	_, again := begun(t, b)
	e.frame(true) // a late one of the dead pipeline is not for viewers
	again.frame(false)
	if got := read(sub); len(got) != 0 {
		t.Fatalf("read %v, which follows nothing", got)
	}
	again.frame(true)
	expect(t, read(sub), 2, 1)
	if i := waitState(t, s, Live); i.Restarts != 1 || i.LastError != "cable cut" {
		t.Errorf("restarts %d, last error %q", i.Restarts, i.LastError)
	}
}

func TestPipelineThatHangsIsToldOfBeforeItHasEnded(t *testing.T) {
	b := newBench()
	b.draws(drawing)
	s := start(t, b, nil)
	viewer := listen(t, s)
	l, e := begun(t, b)
	l.hangs = make(chan struct{})
	e.frame(true)
	viewer.next(t, 1)
	waitState(t, s, Live)
	l.sink.Fail(errors.New("stuck"))
	receive(t, l.closed, "end of the failed pipeline")
	if i := waitState(t, s, Restarting); i.Reason != "stuck" || i.Restarts != 0 {
		t.Errorf("while it hangs: %+v", i)
	}
	if p := viewer.next(t, 1)[0]; !p.placeholder {
		t.Errorf("while it hangs the viewer sees %+v", p)
	}
	close(l.hangs)
	_, again := begun(t, b)
	again.frame(true)
	if i := waitState(t, s, Live); i.Restarts != 1 {
		t.Errorf("afterwards: %+v", i)
	}
}

func TestPipelineThatDoesNotStartIsTriedAgain(t *testing.T) {
	b := newBench()
	b.set(b.plan, errors.New("busy"))
	s := start(t, b, nil)
	subscribe(t, s)
	if i := waitState(t, s, Restarting); i.Reason != "launch: busy" {
		t.Errorf("reason %q", i.Reason)
	}
	b.set(b.plan, nil)
	receive(t, b.launched, "pipeline")
}

func TestAbsentSourceAppears(t *testing.T) {
	b := newBench()
	b.set(absent(fmt.Errorf("no camera: %w", media.ErrAbsent)), nil)
	s := start(t, b, nil)
	if i := waitState(t, s, Absent); i.Reason == "" {
		t.Error("no reason")
	}
	b.set(one("x", vp8("video")), nil)
	waitState(t, s, Idle)
	subscribe(t, s)
	receive(t, b.launched, "pipeline")
}

func TestKeyframeRequestReachesThePipelineOnce(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	for range 50 {
		sub.RequestKeyframe()
	}
	if id := receive(t, l.keyframes, "keyframe request"); id != e.id {
		t.Errorf("asked for %q", id)
	}
	e.frame(true)
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
	first, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	read(sub)
	first.sink.Fail(errors.New("cable cut"))
	waitState(t, s, Restarting)
	sub.RequestKeyframe()
	second, again := begun(t, b)
	again.frame(false)
	receive(t, second.keyframes, "keyframe request")
}

func TestDescribedTrackIsTold(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	subscribe(t, s)
	l, e := begun(t, b)
	l.sink.Describe(e.id, media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 640, Height: 480})
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
	l, e := begun(t, b)
	l.sink.Deliver(e.id, buffer(3, func(b *media.Buffer) { b.Start, b.Keyframe = true, true }))
	l.sink.Deliver(e.id, buffer(2, func(b *media.Buffer) { b.End = true }))
	if payloads := receive(t, got, "keyframe"); len(payloads) != 5 {
		t.Errorf("%d payloads, want 5", len(payloads))
	}
}

func TestClosedStreamRefuses(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	_, e := begun(t, b)
	e.frame(true)
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

// A file that isn't played in a loop was started again with backoff, for ever.
func TestFileThatEndsIsPlayedAgainForTheNextViewer(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	plan.Feeds[0].Once = true
	for _, onDemand := range []bool{true, false} {
		b.set(plan, nil)
		s := start(t, b, func(c *config.Stream) { c.OnDemand = onDemand })
		sub := subscribe(t, s)
		l, e := begun(t, b)
		e.frame(true)
		waitState(t, s, Live)
		l.sink.Fail(fmt.Errorf("filesrc: %w", media.ErrEnded))
		receive(t, l.closed, "end of the pipeline")
		if i := waitState(t, s, Ended); i.Reason != "the file has ended" || i.Restarts != 0 || i.LastError != "" {
			t.Errorf("%+v", i)
		}
		second := subscribe(t, s)
		sub.Close()
		second.Close()
		if err := s.do(t.Context(), func() { s.look(nil) }); err != nil {
			t.Fatal(err)
		}
		if i := s.Info(); i.State != Ended {
			t.Errorf("state %q", i.State)
		}
		never(t, b.launched, "the file was played again for those who had seen its end")

		subscribe(t, s)
		l, e = begun(t, b)
		e.frame(true)
		waitState(t, s, Live)
		l.sink.Fail(media.ErrEnded)
		waitState(t, s, Ended)
		applied(t, apply(t, s, b, plan), s)
		l, _ = begun(t, b)
		s.Close()
		receive(t, l.closed, "end of the pipeline")
	}
}

// The end of a connection is no end of the stream.
func TestSourceThatEndsBeforeItsTimeIsStartedAgain(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	subscribe(t, s)
	l, _ := begun(t, b)
	l.sink.Fail(media.ErrEnded)
	begun(t, b)
	if i := s.Info(); i.Restarts != 1 || i.LastError == "" {
		t.Errorf("%+v", i)
	}
}

func TestFramesThatTheEncoderIsTooSlowForAreCounted(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	l.sink.Dropped(e.id, 2)
	l.sink.Dropped(e.id, 1)
	l.sink.Dropped("nobody", 7)
	if n, told := s.Counts()["video"].DroppedFrames, s.Info().Tracks[0].Dropped; n != 3 || told != 3 {
		t.Errorf("%d counted, %d told", n, told)
	}
}
