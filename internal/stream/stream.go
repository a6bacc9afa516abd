// Package stream is a named live thing that can be watched: it owns the life of
// the pipeline that feeds it, keeps each track's recent packets in a ring, and
// lets any number of subscriptions read them.
//
// It hides when a pipeline runs: started for the first viewer, stopped a while
// after the last, restarted with backoff when it fails, waited for while its
// source is absent. None of that ends a subscription: packet numbers and capture
// times go on across pipelines.
//
// One goroutine a stream owns all control state (see life.go). Packets don't
// pass through it: a pipeline's goroutine puts them into the ring, a reader's
// goroutine takes them out.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"gateway/internal/config"
	"gateway/internal/media"
)

// ErrClosed says that the stream was removed or the gateway stops.
var ErrClosed = errors.New("stream is closed")

// Launcher makes pipelines out of a stream's configuration.
type Launcher interface {
	// Compile finds out what to launch on this machine now. It may ask devices
	// and block for seconds. An error that wraps media.ErrAbsent says that the
	// source isn't there.
	Compile(*config.Stream) (*config.Plan, error)

	// Launch starts a pipeline that delivers to the sink, and returns when it
	// plays; it blocks no longer than ctx allows. The sink may be called before
	// Launch returns, and is not called after Close has returned.
	Launch(ctx context.Context, name string, plan *config.Plan, sink Sink) (Pipeline, error)
}

// Pipeline is a running pipeline. Commands are queued: they don't block.
type Pipeline interface {
	// RequestKeyframe asks the encoder of a track for a keyframe.
	RequestKeyframe(track string)
	// Close stops the pipeline and waits for its end, in bounded time.
	Close() error
}

// Sink takes what a pipeline yields. Its methods are called on the pipeline's
// goroutines and never block.
type Sink interface {
	// Deliver hands over a buffer of a track, with its reference.
	Deliver(track string, b *media.Buffer)
	// Describe says what a track's bitstream really is, when it differs from the plan.
	Describe(track media.Track)
	// Fail says that the pipeline ended by itself, and why; only the first call counts.
	Fail(err error)
}

// State is where a stream is in its life, as docs/protocol.md names it.
type State string

// The states of a stream.
const (
	Idle       State = "idle"       // nobody watches, capture is off
	Starting   State = "starting"   // the pipeline is being started
	Live       State = "live"       // frames come
	Restarting State = "restarting" // the pipeline failed and will be started again
	Absent     State = "absent"     // the source isn't there
	Closed     State = "closed"
)

// Info is a stream as people and programs see it from outside.
type Info struct {
	Name      string      `json:"name"`
	Title     string      `json:"title"`
	State     State       `json:"state"`
	Reason    string      `json:"reason,omitempty"`
	Tracks    []TrackInfo `json:"tracks"`
	Viewers   int         `json:"viewers"`
	Restarts  int         `json:"restarts"`
	LastError string      `json:"lastError,omitempty"`
	Launch    string      `json:"launch,omitempty"`
	Notes     []string    `json:"notes,omitempty"`
}

// TrackInfo is a track in an Info.
type TrackInfo struct {
	Name    string      `json:"name"`
	Kind    media.Kind  `json:"kind"`
	Codec   media.Codec `json:"codec"`
	Width   int         `json:"width,omitempty"`   // pixels
	Height  int         `json:"height,omitempty"`  // pixels
	FPS     float64     `json:"fps,omitempty"`     // frames a second
	Bitrate int         `json:"bitrate,omitempty"` // bit/s, as configured
}

// Stream is one stream. Its methods may be called from any goroutine.
type Stream struct {
	conf     *config.Stream
	launcher Launcher
	log      *slog.Logger

	cancel   context.CancelFunc
	done     chan struct{}
	demand   chan struct{} // the number of subscriptions changed
	keyframe chan struct{} // a ring wants a keyframe

	mu          sync.Mutex // guards below; held to read or set, never across a call outward
	state       State
	reason      string
	lastErr     string
	restarts    int
	plan        *config.Plan
	rings       map[string]*ring
	order       []string // track names in the plan's order
	subscribers int
	watchers    map[int]func(Info)
	watcherID   int
	changed     chan struct{} // closed and replaced at every change
}

// New makes a stream and starts its life. Close ends it.
func New(conf *config.Stream, launcher Launcher, log *slog.Logger) *Stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stream{
		conf:     conf,
		launcher: launcher,
		log:      log.With("stream", conf.Name),
		cancel:   cancel,
		done:     make(chan struct{}),
		demand:   make(chan struct{}, 1),
		keyframe: make(chan struct{}, 1),
		state:    Idle,
		rings:    make(map[string]*ring),
		watchers: make(map[int]func(Info)),
		changed:  make(chan struct{}),
	}
	go s.live(ctx)
	return s
}

// Name is the stream's name, which is its file's.
func (s *Stream) Name() string { return s.conf.Name }

// Info describes the stream now.
func (s *Stream) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info()
}

// info is Info for a caller that holds mu.
func (s *Stream) info() Info {
	i := Info{
		Name: s.conf.Name, Title: s.conf.Title, State: s.state, Reason: s.reason,
		Viewers: s.subscribers, Restarts: s.restarts, LastError: s.lastErr,
		Tracks: []TrackInfo{},
	}
	viewers := 0
	for _, name := range s.order {
		t, _, _ := s.rings[name].snapshot()
		i.Tracks = append(i.Tracks, TrackInfo{
			Name: t.Name, Kind: t.Kind, Codec: t.Codec,
			Width: t.Width, Height: t.Height, FPS: t.FPS, Bitrate: t.Bps,
		})
		if subs := s.rings[name].subs.Load(); subs != nil {
			viewers = max(viewers, len(*subs)) // a viewer subscribes to each track
		}
	}
	i.Viewers = viewers
	if s.plan != nil {
		i.Launch, i.Notes = config.Redact(s.plan.Launch), s.plan.Notes
	}
	return i
}

// Tracks waits until the stream's tracks are known, which takes a source that
// was there once. It returns ctx's error, or ErrClosed.
func (s *Stream) Tracks(ctx context.Context) ([]media.Track, error) {
	for {
		s.mu.Lock()
		var tracks []media.Track
		for _, name := range s.order {
			t, _, _ := s.rings[name].snapshot()
			tracks = append(tracks, t)
		}
		state, changed := s.state, s.changed
		s.mu.Unlock()
		switch {
		case state == Closed:
			return nil, ErrClosed
		case len(tracks) > 0:
			return tracks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Subscribe reads a track. The stream's first subscription starts its capture.
// The caller closes the subscription.
func (s *Stream) Subscribe(track string) (*Subscription, error) {
	s.mu.Lock()
	if s.state == Closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	r := s.rings[track]
	if r == nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("stream %q has no track %q", s.conf.Name, track)
	}
	s.subscribers++
	s.mu.Unlock()

	sub := &Subscription{ring: r, leave: s.unsubscribe}
	r.attach(sub)
	signal(s.demand)
	return sub, nil
}

func (s *Stream) unsubscribe() {
	s.mu.Lock()
	s.subscribers--
	s.mu.Unlock()
	signal(s.demand)
}

// Counts are the totals of each track by its name.
func (s *Stream) Counts() map[string]Counts {
	all := make(map[string]Counts)
	for _, r := range s.ringsNow() {
		t, c, _ := r.snapshot()
		all[t.Name] = c
	}
	return all
}

// Keyframe returns the payloads of a recent keyframe of the first video track:
// one that is in the ring, or one that is asked for, for which the capture is
// started if need be. It blocks until it has one or ctx is done.
func (s *Stream) Keyframe(ctx context.Context) (media.Track, [][]byte, error) {
	tracks, err := s.Tracks(ctx)
	if err != nil {
		return media.Track{}, nil, err
	}
	for _, t := range tracks {
		if t.Kind != media.Video {
			continue
		}
		sub, err := s.Subscribe(t.Name)
		if err != nil {
			return media.Track{}, nil, err
		}
		defer sub.Close()
		payloads, err := sub.keyframe(ctx)
		return t, payloads, err
	}
	return media.Track{}, nil, fmt.Errorf("stream %q has no video", s.conf.Name)
}

// Watch has f called at every change of the stream's state or tracks, until
// cancel. f runs on the stream's goroutines and must not block or call the
// stream.
func (s *Stream) Watch(f func(Info)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watcherID++
	id := s.watcherID
	s.watchers[id] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, id)
	}
}

// Close stops the pipeline and ends the stream. Subscriptions stay readable and
// silent. It waits, as long as the pipeline takes to stop. Idempotent.
func (s *Stream) Close() error {
	s.cancel()
	<-s.done
	return nil
}

// update changes what is guarded by mu, then tells the watchers.
func (s *Stream) update(f func()) {
	s.mu.Lock()
	f()
	info := s.info()
	watchers := make([]func(Info), 0, len(s.watchers))
	for _, w := range s.watchers {
		watchers = append(watchers, w)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	for _, w := range watchers {
		w(info)
	}
}

// setState changes the state and logs it.
func (s *Stream) setState(state State, reason string) {
	reason = config.Redact(reason)
	s.mu.Lock()
	same := s.state == state && s.reason == reason
	s.mu.Unlock()
	if same {
		return
	}
	s.update(func() { s.state, s.reason = state, reason })
	if reason != "" {
		s.log.Info("stream state", "state", state, "reason", reason)
	} else {
		s.log.Info("stream state", "state", state)
	}
}

// install makes the plan's tracks known. Rings of tracks that stay go on.
func (s *Stream) install(plan *config.Plan) {
	s.update(func() {
		s.plan = plan
		s.order = nil
		for _, t := range plan.Tracks {
			r := s.rings[t.Name]
			if r == nil {
				r = &ring{poke: func() { signal(s.keyframe) }}
				s.rings[t.Name] = r
			}
			r.mu.Lock()
			r.track = t
			r.mu.Unlock()
			s.order = append(s.order, t.Name)
		}
	})
}

// describe corrects a track by what its bitstream says.
func (s *Stream) describe(t media.Track) {
	s.mu.Lock()
	r := s.rings[t.Name]
	s.mu.Unlock()
	if r == nil {
		return
	}
	s.update(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.track = t
	})
}

// ringsNow lists the rings of the present tracks.
func (s *Stream) ringsNow() []*ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	rings := make([]*ring, 0, len(s.order))
	for _, name := range s.order {
		rings = append(rings, s.rings[name])
	}
	return rings
}

func (s *Stream) ring(track string) *ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rings[track]
}

// wanted tells whether the pipeline should run.
func (s *Stream) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.conf.OnDemand || s.subscribers > 0
}

// signal sets an event that is taken up once, however often it was set.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
