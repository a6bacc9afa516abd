package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gateway/internal/config"
)

const (
	idlePoll   = 10 * time.Second // how often captures that rest are looked at: what is there, and what it can deliver
	absentPoll = 2 * time.Second  // the same while one is absent
)

// keep is the stream's own goroutine. It alone decides what captures and encodings
// there are, one change after the other, and ends with ctx.
func (s *Stream) keep() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			s.end()
			return
		case do := <-s.jobs:
			do()
		case <-s.reshapes:
			s.reshape()
		case <-s.looks:
			s.look(nil)
		case <-timer.C:
			s.look(nil)
		}
		timer.Reset(s.nextLook())
	}
}

// do has f done on the keeper's goroutine and waits for it, until ctx is done.
func (s *Stream) do(ctx context.Context, f func()) error {
	if ctx.Err() != nil { // a select would take either
		return ctx.Err()
	}
	done := make(chan struct{})
	select {
	case s.jobs <- func() { defer close(done); f() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return ErrClosed
	}
}

// failure is the end of a pipeline, or of an encoder, by itself.
type failure struct {
	capture  *capture
	encoding *encoding      // nil: the capture failed as a whole
	conf     *config.Stream // that was in force
	err      error
}

// failure notes what ends by itself now: an encoding, or with nil all.
func (c *capture) failure(e *encoding, err error) *failure {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return &failure{c, e, c.stream.conf, err}
}

// replan looks what can be launched now, after a failure: the source may have
// gone, another encoder may be chosen. It waits for what comes of it.
func (s *Stream) replan(ctx context.Context, f *failure) {
	s.do(ctx, func() { s.look(f) }) // an error means that the asker is at its end
}

// look compiles the configuration in force anew, and brings captures that rest
// and the one that has failed (if any) up to date.
func (s *Stream) look(f *failure) {
	var failed *capture
	if f != nil {
		failed = f.capture
	}
	s.mu.Lock()
	conf := s.conf
	busy := failed == nil && len(s.captures) > 0 && !slices.ContainsFunc(s.captures, func(c *capture) bool { return !c.playing })
	s.mu.Unlock()
	if busy {
		return
	}
	plan, err := s.launcher.Compile(s.ctx, conf)
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.setTrouble(Restarting, err.Error())
		return
	}
	s.setTrouble("", "")
	if f != nil && s.goBack(plan, f) {
		return
	}
	for _, feed := range plan.Feeds { // each for itself: one that doesn't work holds up no other
		s.mu.Lock()
		if c := s.captureOf(feed.Name); c != nil && feed.Absent != nil {
			c.retry = retry{}
		}
		s.mu.Unlock()
		d := s.draft(conf, plan, func(c *capture) bool {
			return c.feed.Name != feed.Name || c != failed && c.playing || !c.retry.due()
		})
		if err := s.carryOut(s.ctx, d); err != nil {
			s.log.Warn("new plan doesn't work", "feed", feed.Name, "err", config.Redact(err.Error()))
			s.backOff(feed, err)
		}
	}
}

// retry is when an absent source is tried again that came back otherwise than it was,
// and doesn't work so.
type retry struct {
	after time.Duration // 0: at once
	at    time.Time
}

func (r retry) due() bool { return r.after == 0 || !time.Now().Before(r.at) }

// backOff notes that an absent source is there again, but doesn't work. What isn't
// absent backs off by itself: see capture.live.
func (s *Stream) backOff(feed config.Feed, err error) {
	s.update(func() {
		c := s.captureOf(feed.Name)
		if c == nil || c.state != Absent || feed.Absent != nil {
			return
		}
		c.retry.after = min(max(2*c.retry.after, absentPoll), backoffMax)
		c.retry.at = time.Now().Add(c.retry.after)
		c.reason = config.Redact(err.Error())
	})
}

// goBack puts the previous configuration in force when what has failed was never
// seen to work since, although its source is there.
func (s *Stream) goBack(plan *config.Plan, f *failure) bool {
	gone := slices.ContainsFunc(plan.Feeds, func(p config.Feed) bool { return p.Name == f.capture.feed.Name && p.Absent != nil })
	s.mu.Lock()
	previous := s.previous
	if previous == nil || gone || f.conf != s.conf || !s.unproven(f) {
		s.mu.Unlock()
		return false
	}
	s.previous, s.untried = nil, nil
	s.mu.Unlock()
	old, err := s.launcher.Compile(s.ctx, previous)
	if err != nil {
		return false
	}
	d := s.draft(previous, old, func(*capture) bool { return false })
	if err := s.carryOut(s.ctx, d); err != nil {
		return false
	}
	s.mu.Lock()
	s.previous, s.untried = nil, nil
	s.mu.Unlock()
	s.noteReload("", f.err)
	return true
}

// unproven tells whether nothing has come yet of what failed. The caller holds mu.
func (s *Stream) unproven(f *failure) bool {
	if f.encoding != nil {
		return slices.Contains(s.untried, f.encoding)
	}
	proven := func(e *encoding) bool { return e.capture == f.capture && !slices.Contains(s.untried, e) }
	return !slices.ContainsFunc(s.tracks, proven) &&
		slices.ContainsFunc(s.untried, func(e *encoding) bool { return e.capture == f.capture })
}

// setTrouble notes why there is no plan.
func (s *Stream) setTrouble(state State, reason string) {
	reason = config.Redact(reason)
	s.mu.Lock()
	known := len(s.captures) > 0
	same := s.trouble == state && s.reason == reason || known && reason != "" && s.lastErr == reason // told already
	s.mu.Unlock()
	if same {
		return
	}
	if state != "" {
		s.log.Warn("plan", "err", reason)
	}
	s.update(func() {
		if reason != "" {
			s.lastErr = reason
		}
		if known { // what there was goes on being tried
			state, reason = "", ""
		}
		s.trouble, s.reason = state, reason
	})
}

// nextLook is when to look again.
func (s *Stream) nextLook() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble != "" {
		return backoffMax
	}
	next := idlePoll
	for _, c := range s.captures {
		switch {
		case c.state == Absent && c.retry.due():
			next = min(next, absentPoll)
		case c.state == Absent:
			next = min(next, time.Until(c.retry.at))
		}
	}
	return next
}

// end stops everything for good.
func (s *Stream) end() {
	s.mu.Lock()
	captures := s.captures
	s.mu.Unlock()
	var wait sync.WaitGroup
	for _, c := range captures {
		wait.Go(c.close)
	}
	wait.Wait()
	s.ending.Wait()
	<-s.stood
	s.update(func() { s.closed = true })
	s.log.Info("stream state", "state", Closed)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.tracks {
		e.ring.clear(e)
	}
}

// draft is a plan's captures and encodings, partly those that there are, partly
// new ones that aren't in force yet.
type draft struct {
	conf     *config.Stream
	plan     *config.Plan
	captures []*capture
	tracks   []*encoding
	fresh    []*capture  // of captures, those that are new
	added    []*encoding // of tracks, those that are new
	rates    []rate
	absent   map[*capture]error // of captures that there were: why they can't play now; nil: they can
}

// rate is another bitrate for an encoding that goes on.
type rate struct {
	encoding *encoding
	old, new config.Branch
}

// draft compares a plan with what there is. Captures for which keep says so are
// left as they are.
func (s *Stream) draft(conf *config.Stream, plan *config.Plan, keep func(*capture) bool) *draft {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &draft{conf: conf, plan: plan, absent: make(map[*capture]error)}
	for _, feed := range plan.Feeds {
		c := s.captureOf(feed.Name)
		switch {
		case c != nil && keep(c), c != nil && feed.Absent != nil && (c.playing || len(feed.Branches) == 0): // what plays may be in its own way
			if !keep(c) {
				d.absent[c] = feed.Absent
			}
			d.captures = append(d.captures, c)
			for _, e := range s.tracks {
				if e.capture == c {
					d.tracks = append(d.tracks, e)
				}
			}
			continue
		case c != nil && s.fits(c, feed):
			d.absent[c] = feed.Absent
		default:
			c = s.newCapture(feed)
			d.fresh = append(d.fresh, c)
		}
		d.captures = append(d.captures, c)
		for _, b := range feed.Branches {
			d.track(s, c, b)
		}
	}
	return d
}

// captureOf finds the capture in force of a feed's name. The caller holds mu.
func (s *Stream) captureOf(feed string) *capture {
	for _, c := range s.captures {
		if c.feed.Name == feed && !c.retired {
			return c
		}
	}
	return nil
}

// fits tells whether a capture can go on as a feed's, whatever encodings that has.
// A whole feed's encodings are part of it. The caller holds mu.
func (s *Stream) fits(c *capture, feed config.Feed) bool {
	if !c.feed.SameProcess(&feed) || c.feed.Capture != feed.Capture || c.feed.Whole != feed.Whole || c.feed.Loop != feed.Loop || c.feed.Pictures != feed.Pictures || feed.Capture == "" {
		return false
	}
	if !feed.Whole {
		return true
	}
	for _, b := range feed.Branches {
		if e := s.find(b.Track.Name); e == nil || e.capture != c || e.base != b {
			return false
		}
	}
	return true
}

// track adds a branch of capture c. The caller holds Stream.mu.
func (d *draft) track(s *Stream, c *capture, b config.Branch) {
	old := s.find(b.Track.Name)
	switch {
	case old != nil && old.capture == c && old.base == b:
		d.tracks = append(d.tracks, old)
		return
	case old != nil && old.capture == c && onlyBitrate(old.base, b):
		d.rates = append(d.rates, rate{old, old.base, b})
		d.tracks = append(d.tracks, old)
		return
	}
	var r *ring
	if old != nil && old.branch.Track.Codec == b.Track.Codec {
		r = old.ring
	}
	e := s.newEncoding(c, r, b)
	d.added = append(d.added, e)
	d.tracks = append(d.tracks, e)
}

// newEncoding makes an encoding that fills a ring, a new one for nil. The caller
// holds mu.
func (s *Stream) newEncoding(c *capture, r *ring, b config.Branch) *encoding {
	e := &encoding{
		capture: c, ring: r, base: b, ended: make(chan error, 1), outcome: make(chan error, 1), carried: make(chan struct{}, 1),
	}
	if r == nil {
		e.ring = newRing(b.Track)
		e.ring.adapt.limit(limits(b, false))
	}
	e.shape(e.ring.adapt.level())
	e.id = b.Track.Name
	if !c.feed.Whole {
		s.ids++
		e.id = fmt.Sprintf("%s#%d", b.Track.Name, s.ids)
	}
	return e
}

// onlyBitrate tells whether two branches differ in a bitrate that can be set while
// encoding, and in nothing else.
func onlyBitrate(a, b config.Branch) bool {
	if b.Element == "" || !b.Bitrate.Live {
		return false
	}
	for _, x := range []*config.Branch{&a, &b} {
		*x = x.WithBitrate(1)
		x.Track.MinBps, x.Track.MaxBps, x.Track.Fmtp = 0, 0, ""
	}
	return a == b
}
