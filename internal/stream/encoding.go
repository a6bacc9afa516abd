package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	startTimeout    = 10 * time.Second // for an encoder to start
	refusedFor      = 10 * time.Minute // how long a source that browsers don't play isn't tried again: somebody may set it differently
	renditionLinger = 2 * time.Second  // how long an encoder goes on after its last viewer, if the stream lingers so long
	heldBuffers     = 1024             // of an encoding on trial
	heldBytes       = 64 << 20         // likewise: more than a keyframe of any picture has

	spareMin  = 30 * time.Second // after an encoder that hangs took its capture along, until one may again while others yield
	spareMost = 10 * time.Minute // the same, after it did again and again
)

// encoding is one branch of a capture: what fills a track's ring. A changed
// configuration is a new encoding, which is tried beside the old one and takes
// its ring over at a keyframe.
type encoding struct {
	id      string
	capture *capture
	ring    *ring
	ended   chan error    // it ended by itself; holds one
	outcome chan error    // of its trial: nil when it could take over; holds one
	carried chan struct{} // what its viewers' networks carry has changed
	bps     atomic.Int64  // that its encoder was told

	slowness slowness // touched by its capture's goroutine only

	// guarded by Stream.mu
	base      config.Branch // as compiled
	level     int           // of its picture: see config.Branch.At
	branch    config.Branch // base at that level
	launch    string        // all of its launch text, for people
	running   bool
	failedAt  time.Duration // when it failed while its capture goes on; 0: frames have come since
	needed    bool          // on trial: runs without viewers
	lowest    bool          // viewers have no lower rendition of its codec to go to
	until     time.Duration // runs without viewers until then
	retired   time.Duration // no track's encoding any more: ends when its viewers have moved, at the latest then; 0: in use
	refused   string        // why browsers don't play it, where there is another rendition; "": they do, as far as is known
	refusedAt time.Time
	unwatched time.Duration // when the last viewer left; 0: watched, or never was

	// guarded by ring.mu
	track   media.Track // what it makes
	trial   bool        // its buffers are held, from the newest keyframe on
	held    []*media.Buffer
	size    int           // of held, bytes
	frame   int           // of held: where the newest frame begins
	begins  bool          // held begins with a keyframe
	started time.Duration // 0: isn't running
	first   time.Duration // when something came of it first, since it was started
	last    time.Duration // when something came of it last; 0: nothing has, since
}

// wanted tells whether the encoding should run, and if not yet or not any more,
// when to look again; 0: when somebody comes. The caller holds Stream.mu.
func (e *encoding) wanted(now time.Duration) (wanted bool, again time.Duration) {
	switch {
	case e.retired != 0 && now >= e.retired:
		return false, 0
	case e.passedOver():
		return false, 0
	case e.needed, e.always():
		return true, 0
	case e.ring.readers() > 0:
		e.unwatched = 0
		if e.retired != 0 {
			return true, e.retired - now
		}
		return true, 0
	case now < e.until && e.retired == 0:
		return true, e.until - now
	case !e.running || e.retired != 0:
		return false, 0
	}
	if e.unwatched == 0 {
		e.unwatched = now
	}
	left := e.unwatched + min(renditionLinger, e.capture.stream.conf.Linger) - now
	return left > 0, max(left, 0)
}

// always tells whether the encoding runs without viewers: the first of each capture
// of a stream that isn't on demand. The caller holds Stream.mu.
func (e *encoding) always() bool {
	s := e.capture.stream
	if s.conf.OnDemand {
		return false
	}
	for _, o := range s.tracks {
		if o.capture == e.capture && !o.passedOver() {
			return o == e
		}
	}
	return false
}

// run encodes until ctx is done: started, and started again with backoff when it
// fails.
func (e *encoding) run(ctx context.Context, r *run, pipeline Pipeline) {
	s := e.capture.stream
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		ran, err := e.once(ctx, pipeline)
		if ctx.Err() != nil {
			return
		}
		e.settle(err)
		if ran > s.lasts {
			backoff = backoffMin
		}
		s.encodingFailed(e, err, backoff)
		e.capture.falter(r, err)
		if errors.Is(err, media.ErrStuck) && e.capture.givesUp(e, pipeline, media.Now()) {
			r.Fail(fmt.Errorf("track %q: %w", e.ring.described().Name, err))
		}
		failure := e.capture.failure(e, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		s.replan(ctx, failure)
		if errors.Is(err, media.ErrUnplayable) && s.refuse(e, err) {
			return
		}
	}
}

// givesUp tells whether the capture is to end, and its process with it, for an encoder
// that hangs: what that holds is free then, and it can be started again, which it isn't
// before (gst/bounded.go). Others that yield frames are spared that for 30 s after the
// last time, then for twice as long each time. A process that the gateway shares
// doesn't end; of a trial it is told that it has failed.
func (c *capture) givesUp(e *encoding, pipeline Pipeline, now time.Duration) bool {
	if _, own := pipeline.(process); !own {
		return false
	}
	s := c.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	others := slices.ContainsFunc(c.encodings, func(o *encoding) bool { return o != e && o.yields(now) })
	switch {
	case e.needed:
		return false
	case others && c.gaveUp != 0 && now-c.gaveUp < c.spare:
		return false
	case others:
		c.gaveUp, c.spare = now, min(max(2*c.spare, spareMin), spareMost)
	}
	return true
}

// process is what a pipeline is that has a process of its own.
type process interface {
	// Usage is the memory that the process occupies, in bytes; ok: that is known.
	Usage() (rss uint64, ok bool)
	// Kill ends the process without asking: something in it hangs.
	Kill(reason string)
}

// refuse passes an encoding over from now on that browsers don't play, if there is
// another for its viewers.
func (s *Stream) refuse(e *encoding, err error) bool {
	refused := false
	s.update(func() {
		e.refused, e.refusedAt = config.Redact(err.Error()), time.Now()
		if refused = e.passedOver(); !refused {
			e.refused = ""
		}
	})
	return refused
}

// passedOver tells whether an encoding is refused. Where all of its kind are, the
// last one isn't: it is tried again and again. The caller holds Stream.mu.
func (e *encoding) passedOver() bool {
	return e.refused != "" && slices.ContainsFunc(e.capture.stream.tracks, func(o *encoding) bool {
		return o.refused == "" && o.branch.Track.Kind == e.branch.Track.Kind
	})
}

// readmit gives encodings that are refused another chance, if f says so. The caller
// holds Stream.mu.
func (c *capture) readmit(f func(*encoding) bool) {
	for _, e := range c.encodings {
		if f(e) {
			e.refused = ""
		}
	}
}

// once encodes until it fails or ctx is done. ran is for how long frames came.
func (e *encoding) once(ctx context.Context, pipeline Pipeline) (ran time.Duration, err error) {
	s := e.capture.stream
	select {
	case <-e.ended: // of the last time
	default:
	}
	branch := e.opening()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	err = pipeline.Start(starting, e.id, &branch)
	cancel()
	if err != nil {
		return 0, err
	}
	e.ring.started(e)
	s.update(func() { e.running = true })
	if branch.Copy {
		pipeline.RequestKeyframe(e.id) // what the source encodes by itself doesn't begin with one
	}
	signal(e.capture.stir) // there may be wishes for a keyframe
	err = e.follow(ctx, pipeline)
	pipeline.Stop(e.id)
	ran = e.ring.stopped(e)
	s.update(func() { e.running = false })
	return ran, err
}

// end has the encoding stop and start again, for a reason. It doesn't block.
func (e *encoding) end(err error) {
	select {
	case e.ended <- err:
	default:
	}
}

// settle tells how the encoding's trial came out; only the first counts.
func (e *encoding) settle(err error) {
	select {
	case e.outcome <- err:
	default:
	}
}

// hold keeps a buffer of an encoding on trial, from its newest keyframe on. The
// caller holds ring.mu.
func (e *encoding) hold(b *media.Buffer) {
	if b.Gap {
		e.drop()
	}
	if b.Start {
		if !e.begins {
			e.drop()
		}
		e.frame = len(e.held)
	}
	if len(e.held) == heldBuffers || e.size+b.Size() > heldBytes { // nobody takes it; the next keyframe will do as well
		e.drop()
	}
	if !b.Start && len(e.held) == 0 {
		b.Release()
		return
	}
	e.held = append(e.held, b)
	e.size += b.Size()
	if b.Keyframe {
		for _, old := range e.held[:e.frame] {
			e.size -= old.Size()
			old.Release()
		}
		e.held = append(e.held[:0], e.held[e.frame:]...)
		e.frame, e.begins = 0, true
		e.settle(nil)
	}
}

// drop releases what is held. The caller holds ring.mu.
func (e *encoding) drop() {
	for _, b := range e.held {
		b.Release()
	}
	e.held, e.size, e.frame, e.begins = e.held[:0], 0, 0, false
}
