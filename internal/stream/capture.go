package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	backoffMin   = 250 * time.Millisecond
	backoffMax   = 8 * time.Second
	backoffBlind = 3 * time.Second / 2 // the longest where nobody tells that the source is there again: it plays within 2 s then
	backoffReset = 10 * time.Second    // of which frames came for so long starts the backoff anew
)

// errUnwanted ends a pipeline that nobody watches any more.
var errUnwanted = errors.New("nobody watches")

// capture runs one feed: rest while nobody watches, play while somebody does,
// back off when that fails. Its goroutine, live, ends with ctx.
type capture struct {
	stream   *Stream
	feed     config.Feed // of a whole feed with its Branches; otherwise encodings have those
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{}
	stir     chan struct{} // who wants what may have changed
	keyframe chan struct{} // a ring wants a keyframe
	hurry    chan struct{} // a device has come: no more waiting

	// guarded by Stream.mu
	encodings []*encoding
	state     State
	reason    string
	away      time.Duration // since when its source is away, on the clock of media.Now; 0: it isn't, or nobody is kept waiting
	parked    bool          // may not play: another capture has its device
	retired   bool          // ends with its last encoding
	retry     retry         // while it is absent
	gaveUp    time.Duration // when it ended last for an encoder that hung, while others yielded; 0: never
	spare     time.Duration // how long it doesn't after that
	playing   bool          // has, or may have, its device open
	pipeline  Pipeline      // while it plays and has started
	began     time.Time     // when it had

	flowed time.Time // when the first frame came of the last pipeline; zero: none has. live's goroutine's
}

func (s *Stream) newCapture(feed config.Feed) *capture {
	c := &capture{
		stream: s, feed: feed, done: make(chan struct{}), state: Idle,
		stir: make(chan struct{}, 1), keyframe: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
	if !feed.Whole {
		c.feed.Branches = nil
	}
	if feed.Absent != nil {
		c.enter(Absent, feed.Absent.Error())
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	return c
}

// close ends the capture and waits for its pipeline's end.
func (c *capture) close() {
	c.cancel()
	<-c.done
}

// enter notes a state. The caller holds Stream.mu.
func (c *capture) enter(state State, reason string) {
	c.state, c.reason = state, config.Redact(reason)
	switch {
	case state == Restarting || state == Absent:
		if c.away == 0 {
			c.away = media.Now()
		}
	case state != Starting && !(state == Idle && c.watched()): // what comes back isn't there yet
		c.away = 0
	}
}

func (c *capture) setState(state State, reason string) {
	s := c.stream
	reason = config.Redact(reason)
	s.mu.Lock()
	same := c.state == state && c.reason == reason
	s.mu.Unlock()
	if same {
		return
	}
	s.update(func() { c.enter(state, reason) })
	log := s.log.With("feed", c.feed.Name, "state", state)
	if reason != "" {
		log = log.With("reason", reason)
	}
	log.Info("stream state")
}

// now reads the state.
func (c *capture) now() State {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return c.state
}

// wanted tells whether somebody needs the capture.
func (c *capture) wanted() bool {
	s := c.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.parked || c.state == Absent || c.state == Ended {
		return false
	}
	for _, e := range c.encodings {
		if wanted, _ := e.wanted(media.Now()); wanted {
			return true
		}
	}
	return false
}

// watched tells whether anybody reads what the capture yields. The caller holds
// Stream.mu.
func (c *capture) watched() bool {
	return slices.ContainsFunc(c.encodings, func(e *encoding) bool { return e.ring.readers() > 0 })
}

// rewind lets a capture play again whose source has ended.
func (c *capture) rewind() {
	c.stream.update(func() {
		if c.state == Ended {
			c.enter(Idle, "")
		}
	})
}

// plays tells whether the capture may open its device.
func (c *capture) plays() bool {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return c.playing
}

// waits tells whether the capture is parked, and says so to those who watch.
func (c *capture) waits() bool {
	c.stream.mu.Lock()
	parked := c.parked
	c.stream.mu.Unlock()
	if parked {
		c.setState(Restarting, "the configuration changes")
	}
	return parked
}

// live is the capture's life.
func (c *capture) live() {
	defer close(c.done)
	defer c.cancel()
	backoff := backoffMin
	for c.rest() {
		c.flowed = time.Time{}
		c.stream.update(func() { c.playing = !c.parked })
		if !c.plays() {
			continue
		}
		err := c.play()
		c.stream.update(func() { c.playing = false })
		if errors.Is(err, errUnwanted) {
			c.clear()
			if !c.waits() {
				c.setState(Idle, "")
			}
			backoff = backoffMin
			continue
		}
		if c.ctx.Err() != nil {
			break
		}
		for _, e := range c.current() {
			e.settle(err)
		}
		if c.feed.Once && errors.Is(err, media.ErrEnded) {
			c.setState(Ended, "the file has ended")
			backoff = backoffMin
			continue
		}
		if !c.flowed.IsZero() && time.Since(c.flowed) > c.stream.proof() {
			backoff = 0 // at once: it is no fault that lasts
		}
		c.failed(err, backoff)
		failure := c.failure(nil, err)
		select {
		case <-c.ctx.Done():
		case <-c.hurry: // what it was told of while it played may have been what ended it
			backoff = 0
		case <-time.After(backoff):
		}
		backoff = min(max(backoff*2, backoffMin), c.longest())
		c.stream.replan(c.ctx, failure) // what failed may have gone: look again
	}
	c.clear()
}

// rest waits until somebody wants the capture; false: it ends.
func (c *capture) rest() bool {
	for !c.wanted() {
		if c.over() {
			return false
		}
		if !c.waits() && (c.now() == Restarting || c.now() == Starting) { // nobody waits for it any more
			c.setState(Idle, "")
		}
		select {
		case <-c.ctx.Done():
			return false
		case <-c.keyframe: // nothing to ask: what starts begins with one
		case <-c.stir:
		}
	}
	return c.ctx.Err() == nil
}

// over tells whether a capture that nobody wants is retired, and if so takes it out
// of its stream. Otherwise it forgets its retired encodings.
func (c *capture) over() bool {
	s := c.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.retired {
		c.encodings = slices.DeleteFunc(slices.Clone(c.encodings), func(e *encoding) bool { return e.retired != 0 })
		return false
	}
	s.captures = slices.DeleteFunc(slices.Clone(s.captures), func(o *capture) bool { return o == c })
	return true
}

// proved notes what of the configuration in force has yielded pictures, or sound.
func (s *Stream) proved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.previous == nil {
		return
	}
	now := media.Now()
	s.untried = slices.DeleteFunc(s.untried, func(e *encoding) bool { return e.yields(now) })
	if len(s.untried) == 0 {
		s.previous = nil
	}
}

// failed notes that the pipeline ended by itself. One that isn't in force yet is no
// fault of the stream's: the change that it belongs to says what came of it.
func (c *capture) failed(err error, backoff time.Duration) {
	s := c.stream
	text := config.Redact(err.Error())
	s.mu.Lock()
	if slices.Contains(s.captures, c) {
		s.restarts++
		s.lastErr = text
	}
	s.mu.Unlock()
	s.log.Warn("pipeline failed", "feed", c.feed.Name, "err", text, "retry_in", backoff)
	c.setState(Restarting, text)
}

// encodingFailed notes that one encoder ended by itself, like failed.
func (s *Stream) encodingFailed(e *encoding, err error, backoff time.Duration) {
	text := config.Redact(err.Error())
	s.mu.Lock()
	branch, reshaped := e.branch, e.needed && e.level > 0
	row, _ := s.conf.Encoders().Find(branch.Encoder)
	s.mu.Unlock()
	busy := errors.Is(err, errSlow) && !row.Hardware // the CPU is, for another encoder too
	if !reshaped && !busy {                          // what it makes of a smaller picture beside another encoder says nothing about the rest
		s.launcher.Blame(&branch, err)
	}
	s.update(func() {
		if e.failedAt == 0 {
			e.failedAt = media.Now()
		}
		if !e.needed {
			s.restarts++
			s.lastErr = text
		}
	})
	s.log.Warn("encoder failed", "track", branch.Track.Name, "encoder", branch.Encoder, "err", text, "retry_in", backoff)
}

// falter tells that nothing comes of the capture any more, because its only
// running encoding failed. The next frame makes it live again.
func (c *capture) falter(r *run, reason error) {
	s := c.stream
	s.mu.Lock()
	others := slices.ContainsFunc(c.encodings, func(e *encoding) bool { return e.running })
	s.mu.Unlock()
	if !others {
		c.setState(Restarting, reason.Error())
		r.quiet.Store(true)
	}
}

// current lists the capture's encodings.
func (c *capture) current() []*encoding {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return append([]*encoding(nil), c.encodings...)
}

// clear gives back the memory of rings that nobody fills.
func (c *capture) clear() {
	for _, e := range c.current() {
		e.ring.clear(e)
	}
}

// play launches the feed and stays with the pipeline until it fails, isn't wanted
// any more (errUnwanted) or the capture ends.
func (c *capture) play() error {
	if c.now() != Restarting { // a restart stays one until frames come
		c.setState(Starting, "")
	}
	run := &run{capture: c, failure: make(chan error, 1), flows: make(chan struct{}, 1)}
	run.quiet.Store(true)
	launching, cancel := context.WithTimeout(c.ctx, c.stream.patience())
	pipeline, err := c.stream.launcher.Launch(launching, c.stream.name, &c.feed, run)
	cancel()
	if err != nil {
		run.stop()
		return fmt.Errorf("launch: %w", err)
	}
	c.stream.update(func() {
		c.pipeline, c.began = pipeline, time.Now()
		c.readmit(func(e *encoding) bool { return time.Since(e.refusedAt) > refusedFor })
	})
	ended := func() {}
	err = c.attend(run, pipeline, func(err error) { ended = c.failing(err) })
	if own, is := pipeline.(process); is && errors.Is(err, media.ErrStuck) { // it wouldn't end, and who sees another encoding needn't wait for that
		own.Kill("something in it hangs")
	}
	if err := pipeline.Close(); err != nil {
		c.stream.log.Error("pipeline close", "err", err)
	}
	ended()
	run.stop()
	c.stream.update(func() { c.pipeline = nil })
	return err
}

// activity is an encoding that runs, or is coming to its end.
type activity struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// attend serves a running pipeline: encoders as they are wanted, keyframe
// requests, stalls. It calls failing first when the pipeline has failed, and then
// waits for its encoders.
func (c *capture) attend(run *run, pipeline Pipeline, failing func(error)) (err error) {
	active := make(map[*encoding]activity)
	defer func() {
		if !errors.Is(err, errUnwanted) && c.ctx.Err() == nil && !(c.feed.Once && errors.Is(err, media.ErrEnded)) {
			failing(err)
		}
		for _, a := range active {
			a.cancel()
		}
		for _, a := range active {
			<-a.done
		}
	}()
	var (
		tick     = time.NewTicker(time.Second / 2)
		due      = time.NewTimer(time.Hour) // an encoder, or all, may not be wanted any more
		keyframe = time.NewTimer(time.Hour)
		leaving  time.Duration // since when nothing is wanted; 0: something is
		memory   = memory{settle: c.stream.settles}
	)
	defer tick.Stop()
	defer due.Stop()
	defer keyframe.Stop()
	for {
		wanted, next := c.encode(active, run, pipeline)
		now := media.Now()
		s := c.stream
		s.mu.Lock()
		linger, parked := s.conf.Linger, c.parked
		if c.retired {
			linger = 0
		}
		s.mu.Unlock()
		switch {
		case parked:
			return errUnwanted
		case wanted:
			leaving = 0
		default:
			if leaving == 0 {
				leaving = now
			}
			if next = leaving + linger - now; next <= 0 {
				return errUnwanted
			}
		}
		if next > 0 {
			due.Reset(next)
		}
		c.askKeyframes(pipeline, keyframe)

		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case err := <-run.failure:
			return err
		case <-run.flows:
			if c.flowed.IsZero() {
				c.flowed = time.Now()
			}
			c.setState(Live, "")
			c.stream.proved()
		case <-c.stir:
		case <-due.C:
		case <-c.keyframe:
		case <-keyframe.C:
		case <-tick.C:
			c.stream.proved()
			c.slow(active)
			if err := errors.Join(c.stalled(active), memory.check(pipeline, len(active))); err != nil {
				return err
			}
		}
	}
}

// encode starts the encoders that are wanted and ends the others. It tells
// whether any is wanted, and when to look again; it doesn't wait for them.
func (c *capture) encode(active map[*encoding]activity, run *run, pipeline Pipeline) (any bool, again time.Duration) {
	now := media.Now()
	wants := make(map[*encoding]bool)
	c.stream.mu.Lock()
	c.encodings = slices.DeleteFunc(slices.Clone(c.encodings), func(e *encoding) bool {
		wanted, next := e.wanted(now)
		if next > 0 && (again == 0 || next < again) {
			again = next
		}
		wants[e], any = wanted, any || wanted
		return !wanted && e.retired != 0
	})
	run.admit(c.encodings)
	c.stream.mu.Unlock()

	for e, a := range active {
		select {
		case <-a.done:
			delete(active, e)
		default:
			if !wants[e] {
				a.cancel()
			}
		}
	}
	for e, wanted := range wants {
		if _, runs := active[e]; runs || !wanted { // one that is ending stirs when it has
			continue
		}
		ctx, cancel := context.WithCancel(c.ctx)
		a := activity{cancel, make(chan struct{})}
		active[e] = a
		go func() {
			defer signal(c.stir)
			defer close(a.done)
			e.run(ctx, run, pipeline)
		}()
	}
	return any, again
}

// askKeyframes passes on what the rings want, and sets the timer to look again.
func (c *capture) askKeyframes(pipeline Pipeline, timer *time.Timer) {
	var next time.Duration
	for _, e := range c.current() {
		ask, again := e.ring.ask(e, media.Now())
		if ask {
			pipeline.RequestKeyframe(e.id)
		}
		if again > 0 && (next == 0 || again < next) {
			next = again
		}
	}
	if next > 0 {
		timer.Reset(next)
	}
}
