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
	tries    int // launches, refused ones too

	drawn        [][][]byte                    // what placeholders are; nil: none can be made
	placeholders []config.Placeholder          // those that were asked for
	another      chan struct{}                 // has a value when one was asked for
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
	killed    atomic.Bool
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
	scarce  atomic.Bool // as last told
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

func newBench() *bench {
	return &bench{launched: make(chan *line, 16), another: make(chan struct{}, 1), plan: one("x", vp8("video"))}
}

func (b *bench) set(plan config.Plan, refuse error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan, b.refuse = plan, refuse
}

func (b *bench) launches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries
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

func (b *bench) Launch(ctx context.Context, _ string, feed *config.Feed, sink Sink) (Pipeline, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	if b.refuse != nil {
		return nil, b.refuse
	}
	l := &line{
		feed: *feed, sink: sink, keyframes: make(chan string, 16), started: make(chan *encoder, 16),
		closed: make(chan struct{}), encoders: make(map[string]*encoder),
	}
	select {
	case b.launched <- l:
		return l, nil
	case <-ctx.Done(): // the test has enough of them
		return nil, ctx.Err()
	}
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
	signal(b.another)
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

func (l *line) Kill(string) { l.killed.Store(true) }

func (l *line) Stop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.encoders[id].stopped)
	delete(l.encoders, id)
}

func (l *line) SetBitrate(id string, bps int, scarce bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fixed != nil {
		return l.fixed
	}
	e := l.encoders[id]
	e.scarce.Store(scarce)
	e.bps <- bps
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

// live starts a stream with a viewer who sees its first frame.
func live(t *testing.T, b *bench, plan config.Plan) (*Stream, *Subscription, *line, *encoder) {
	t.Helper()
	b.set(plan, nil)
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	expect(t, read(sub), 0, 1)
	return s, sub, l, e
}

func never[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
		t.Fatal(what)
	default:
	}
}
