// Package stream is a named live thing that can be watched: it owns the life of
// the pipelines that feed it, keeps each track's recent packets in a ring, and
// lets any number of subscriptions read them.
//
// It hides when what runs: a capture starts for the first viewer, an encoding
// for the first viewer of its rendition; both stop a while after the last, are
// restarted with backoff when they fail, and are exchanged under the viewers when
// the configuration changes. None of that ends a subscription: packet numbers and
// capture times go on.
//
// Goroutines: one a stream decides what its captures and encodings are
// (keeper.go, apply.go), one shows placeholders while a source is away
// (placeholder.go), one a capture runs its pipeline (capture.go), one an
// encoding that runs (encoding.go). Packets don't pass through them: a pipeline's
// goroutine puts them into the ring, a reader's goroutine takes them out.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// ErrClosed says that the stream was removed or the gateway stops.
var ErrClosed = errors.New("stream is closed")

// Launcher makes pipelines out of a stream's configuration.
type Launcher interface {
	// Compile finds out what to launch on this machine now. It may ask devices,
	// try encoders and block for seconds, but asks nothing more when ctx is done. A
	// source that isn't there is its feed's Absent; an error is a fault of the file or
	// of the machine.
	Compile(context.Context, *config.Stream) (*config.Plan, error)

	// Launch starts a feed's capture, and returns when it plays; it blocks no
	// longer than ctx allows. The sink may be called before Launch returns, and is
	// not called after Close has returned.
	Launch(ctx context.Context, name string, feed *config.Feed, sink Sink) (Pipeline, error)

	// Blame notes that a branch failed while it ran, so that Compile may choose
	// another encoder. It doesn't block.
	Blame(branch *config.Branch, err error)

	// Placeholder makes a picture for viewers whose source is away: keyframes of it as
	// RTP payloads, to be sent by turns. It blocks no longer than ctx allows.
	Placeholder(ctx context.Context, p *config.Placeholder) (keyframes [][][]byte, err error)
}

// Pipeline is a running capture.
type Pipeline interface {
	// Start begins to encode a branch, known by id from then on; it blocks no
	// longer than ctx allows. A whole feed's branches run already, under their
	// tracks' names.
	Start(ctx context.Context, id string, branch *config.Branch) error
	// Stop ends a branch in bounded time; nothing of it is delivered afterwards.
	Stop(id string)
	// RequestKeyframe asks a branch's encoder for a keyframe. It doesn't block.
	RequestKeyframe(id string)
	// SetBitrate changes the bitrate of a running encoder, in bit/s; scarce is as in
	// config.Branch.
	SetBitrate(id string, bps int, scarce bool) error
	// Close stops everything and waits for its end, in bounded time.
	Close() error
}

// Sink takes what a pipeline yields. Its methods are called on the pipeline's
// goroutines and never block.
type Sink interface {
	// Deliver hands over a buffer of a branch, with its reference.
	Deliver(id string, b *media.Buffer)
	// Describe says what a branch's bitstream really is, when it differs from the plan.
	Describe(id string, track media.Track)
	// Dropped says that a branch was too slow for that many captured buffers more.
	Dropped(id string, n int)
	// Ended says that a branch ended by itself, and why; the capture goes on. A
	// media.ErrUnplayable has its viewers moved to another rendition.
	Ended(id string, err error)
	// Fail says that the capture ended by itself, and why: media.ErrEnded at its
	// source's end. Only the first call counts.
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
	Ended      State = "ended"      // the source came to its end, and isn't played in a loop
	Closed     State = "closed"
)

// Info is a stream as people and programs see it from outside.
type Info struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"`

	// Placeholder: viewers see a picture in place of what the source would show.
	Placeholder bool `json:"placeholder,omitempty"`

	Sync      string      `json:"sync,omitempty"` // how sound and picture are kept in step, as the configuration says
	Tracks    []TrackInfo `json:"tracks"`         // video first; the renditions best first
	Viewers   int         `json:"viewers"`
	Restarts  int         `json:"restarts"`
	LastError string      `json:"lastError,omitempty"`
	Reload    *Reload     `json:"reload,omitempty"` // the last change of the configuration
	Notes     []string    `json:"notes,omitempty"`
}

// TrackInfo is a track in an Info.
type TrackInfo struct {
	Name    string      `json:"name"`
	Kind    media.Kind  `json:"kind"`
	Codec   media.Codec `json:"codec"`
	Width   int         `json:"width,omitempty"`   // pixels, as it is encoded now
	Height  int         `json:"height,omitempty"`  // pixels, likewise
	FPS     float64     `json:"fps,omitempty"`     // frames a second, likewise
	Bitrate int         `json:"bitrate,omitempty"` // bit/s, as configured
	Viewers int         `json:"viewers,omitempty"`
	Running bool        `json:"running,omitempty"` // its encoder exists
	Encoder string      `json:"encoder,omitempty"` // row of the encoder table
	Launch  string      `json:"launch,omitempty"`  // what is launched for it, from the source on
	Dropped uint64      `json:"dropped,omitempty"` // captured frames that its encoder was too slow for
	Refused string      `json:"refused,omitempty"` // why viewers aren't given it: browsers don't play what its source encodes

	Adaptation *Adaptation `json:"adaptation,omitempty"` // of video that is encoded here
}

// Stream is one stream. Its methods may be called from any goroutine.
type Stream struct {
	name     string
	launcher Launcher
	log      *slog.Logger

	ctx      context.Context // ends with Close; a field because goroutines outlive the calls that start them
	cancel   context.CancelFunc
	done     chan struct{}
	jobs     chan func()    // for the keeper's goroutine
	reshapes chan struct{}  // a picture is to be made larger or smaller
	looks    chan struct{}  // devices have come or gone
	watched  chan struct{}  // somebody watches
	stood    chan struct{}  // closed when placeholders aren't shown any more
	ending   sync.WaitGroup // captures that aren't in force any more
	settles  time.Duration  // memorySettles; a test has less
	lasts    time.Duration  // backoffReset; likewise

	notice // its mu guards below

	conf     *config.Stream
	plan     *config.Plan // nil: not known yet
	captures []*capture   // in the plan's order; retired ones last
	tracks   []*encoding  // what the plan's tracks are made by now, in its order
	trouble  State        // why there is no plan: Absent or Restarting
	reason   string       // of trouble
	lastErr  string
	restarts int
	reload   *Reload
	previous *config.Stream // what to go back to when what is untried of conf doesn't work; nil: all does
	untried  []*encoding    // of tracks, those that are new since previous and have yielded nothing yet
	closed   bool
	ids      int // of encodings, so far
	totals   map[string]Counts
}

// New makes a stream and starts its life. Close ends it.
func New(conf *config.Stream, launcher Launcher, log *slog.Logger) *Stream {
	s := &Stream{
		name:     conf.Name,
		conf:     conf,
		launcher: launcher,
		log:      log.With("stream", conf.Name),
		done:     make(chan struct{}),
		jobs:     make(chan func()),
		reshapes: make(chan struct{}, 1),
		looks:    make(chan struct{}, 1),
		watched:  make(chan struct{}, 1),
		stood:    make(chan struct{}),
		totals:   make(map[string]Counts),
		settles:  memorySettles,
		lasts:    backoffReset,
		notice:   newNotice(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.keep()
	go s.stand()
	return s
}

// Name is the stream's name, which is its file's.
func (s *Stream) Name() string { return s.name }

// Config is the configuration that is in force.
func (s *Stream) Config() *config.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conf
}

// Info describes the stream now.
func (s *Stream) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info()
}

// info is Info for a caller that holds mu.
func (s *Stream) info() Info {
	i := Info{
		Name: s.name, Title: s.conf.Title, Sync: string(s.conf.Sync), Restarts: s.restarts, LastError: s.lastErr,
		Tracks: []TrackInfo{}, Reload: s.reload,
	}
	i.State, i.Reason = s.state()
	for _, e := range s.tracks {
		t := e.ring.described()
		n := e.ring.readers()
		i.Viewers = max(i.Viewers, n) // each viewer has one video and one audio track
		i.Placeholder = i.Placeholder || n > 0 && e.ring.stands()
		i.Tracks = append(i.Tracks, TrackInfo{
			Name: t.Name, Kind: t.Kind, Codec: t.Codec,
			Width: t.Width, Height: t.Height, FPS: t.FPS, Bitrate: t.Bps,
			Viewers: n, Running: e.running, Encoder: e.branch.Encoder,
			Launch: e.launch, Refused: e.refused, Adaptation: e.adaptation(),
			Dropped: s.totals[t.Name].DroppedFrames + e.ring.counts().DroppedFrames,
		})
	}
	video, audio := 0, 0
	for _, t := range i.Tracks {
		if t.Kind == media.Video {
			video += t.Viewers
		} else {
			audio += t.Viewers
		}
	}
	i.Viewers = max(video, audio)
	if s.plan != nil {
		i.Notes = s.plan.Notes
	}
	return i
}

// state is that of the stream's picture, or of its sound where it has only that.
// The caller holds mu.
func (s *Stream) state() (State, string) {
	switch {
	case s.closed:
		return Closed, ""
	case s.trouble != "":
		return s.trouble, s.reason
	case len(s.captures) == 0:
		return Idle, ""
	}
	return s.captures[0].state, s.captures[0].reason
}

// Tracks waits until the stream's tracks are known, which takes a source that
// was there once; those that are refused aren't among them. It returns ctx's
// error, or ErrClosed.
func (s *Stream) Tracks(ctx context.Context) ([]media.Track, error) {
	return s.awaitTracks(ctx, func() (tracks []media.Track, closed bool) {
		for _, e := range s.tracks {
			if !e.passedOver() {
				tracks = append(tracks, e.ring.described())
			}
		}
		return tracks, s.closed
	})
}

// Subscribe reads a track as it is encoded now. The first subscription of a
// track starts its encoder, the stream's first one its capture. When a change of
// the configuration gives the track another codec, the subscription goes on with
// the old one for a while (see Apply). A source that has ended begins anew for a
// subscription that nobody was there before. The caller closes the subscription.
func (s *Stream) Subscribe(track string) (*Subscription, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	e := s.find(track)
	if e == nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("stream %q has no track %q", s.name, track)
	}
	if e.passedOver() {
		s.mu.Unlock()
		return nil, fmt.Errorf("stream %q: track %q is refused: %s", s.name, track, e.refused)
	}
	anew := e.capture.state == Ended && !e.capture.watched()
	sub := &Subscription{ring: e.ring, leave: s.stir}
	e.ring.attach(sub)
	s.mu.Unlock()
	if anew {
		e.capture.rewind()
	}
	signal(e.capture.stir)
	signal(s.watched)
	return sub, nil
}

// Current tells whether a subscription reads a track as it is encoded now. One
// that doesn't is soon silent: its track is gone, refused, or has another codec.
func (s *Stream) Current(sub *Subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.tracks, func(e *encoding) bool { return e.ring == sub.ring && !e.passedOver() })
}

// find is the encoding of a present track, or nil. The caller holds mu.
func (s *Stream) find(track string) *encoding {
	for _, e := range s.tracks {
		if e.branch.Track.Name == track {
			return e
		}
	}
	return nil
}

// stir has every capture look who wants what.
func (s *Stream) stir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.captures {
		signal(c.stir)
	}
}

// Counts are the totals of each track by its name.
func (s *Stream) Counts() map[string]Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]Counts)
	for _, e := range s.tracks {
		name := e.branch.Track.Name
		all[name] = s.totals[name].plus(e.ring.counts())
	}
	return all
}

// Keyframe returns the payloads of a recent keyframe of a video track that is
// being encoded, else of the last rendition, which costs least: one that is in the
// ring, or one that is asked for, for which the capture is started if need be. It
// blocks until it has one or ctx is done.
func (s *Stream) Keyframe(ctx context.Context) (media.Track, [][]byte, error) {
	if _, err := s.Tracks(ctx); err != nil {
		return media.Track{}, nil, err
	}
	s.mu.Lock()
	name := ""
	for _, e := range s.tracks {
		if e.branch.Track.Kind != media.Video || e.passedOver() {
			continue
		}
		name = e.branch.Track.Name
		if e.running {
			break
		}
	}
	s.mu.Unlock()
	if name == "" {
		return media.Track{}, nil, fmt.Errorf("stream %q has no video", s.name)
	}
	sub, err := s.Subscribe(name)
	if err != nil {
		return media.Track{}, nil, err
	}
	defer sub.Close()
	payloads, err := sub.keyframe(ctx)
	return sub.ring.described(), payloads, err
}

// Close stops all pipelines and ends the stream. Subscriptions stay readable and
// silent. It waits, as long as the pipelines take to stop. Idempotent.
func (s *Stream) Close() error {
	s.cancel()
	<-s.done
	return nil
}

// update changes what is guarded by mu, then tells the watchers.
func (s *Stream) update(f func()) { s.announce(f, s.info) }

// signal sets an event that is taken up once, however often it was set.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
