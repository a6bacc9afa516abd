package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	trialTime  = 5 * time.Second  // for a new encoding to make a keyframe, once its capture plays
	trialPoll  = time.Second / 4  // how often that is looked at after trialTime, for captures that take long to start
	retireTime = 10 * time.Second // for viewers to move from a track's old codec to its new one
	moveTime   = 2 * time.Second  // that a new encoding waits for them
)

// Reload is how the last change of a stream's configuration came out.
type Reload struct {
	At       int64    `json:"at"` // Unix milliseconds
	OK       bool     `json:"ok"`
	Message  string   `json:"message"`            // what was changed, or why it was not
	Findings []string `json:"findings,omitempty"` // what is wrong with the file
}

// Apply puts another configuration in force: what is the same goes on, what
// differs is made beside the old and takes over at its first keyframe. A device
// that only one pipeline can hold is released first. When the new one can't be
// compiled, doesn't start or makes no keyframe within 5 s, the old one goes on,
// and the error tells why. What nobody watches is tried when somebody does, and
// then taken back if it fails.
//
// A track that keeps its codec keeps its subscriptions. One that gets another
// is known as that from then on; its subscriptions deliver the old codec for up
// to 10 s, so that viewers can be moved. Apply blocks until all is decided.
func (s *Stream) Apply(ctx context.Context, conf *config.Stream) error {
	var err error
	if e := s.do(ctx, func() { err = s.apply(conf) }); e != nil {
		return e
	}
	return err
}

// Refuse notes that a change of the configuration can't be applied, because of
// what is wrong with its file.
func (s *Stream) Refuse(err error) { s.noteReload("", err) }

func (s *Stream) noteReload(changed string, err error) {
	r := &Reload{At: time.Now().UnixMilli(), OK: err == nil, Message: changed}
	var findings config.Errors
	switch {
	case errors.As(err, &findings):
		r.Message = "the file has faults; what was before goes on"
		for _, f := range findings {
			r.Findings = append(r.Findings, config.Redact(f.Error()))
		}
	case err != nil:
		r.Message = config.Redact(err.Error()) + "; what was before goes on"
	}
	if err == nil {
		s.log.Info("configuration changed", "changed", changed)
	} else {
		s.log.Warn("configuration not changed", "err", config.Redact(err.Error()))
	}
	s.update(func() { s.reload = r })
}

// apply is Apply on the keeper's goroutine.
func (s *Stream) apply(conf *config.Stream) error {
	plan, err := s.launcher.Compile(s.ctx, conf)
	var parked []*capture
	if err == nil {
		if plan, parked, err = s.makeWay(conf, plan); err == nil {
			d := s.draft(conf, plan, func(*capture) bool { return false })
			changed := d.words(s)
			if err = s.carryOut(s.ctx, d); err == nil {
				s.unpark(parked) // those that are still in force
				s.setTrouble("", "")
				s.noteReload(changed, nil)
				return nil
			}
		}
	}
	s.unpark(parked)
	s.noteReload("", err)
	return err
}

// makeWay stops the captures that hold a device which a plan's other feeds need,
// and compiles again where a source seemed absent because of that. A source that
// is really absent is an error if there is a picture, or sound, in its place.
func (s *Stream) makeWay(conf *config.Stream, plan *config.Plan) (*config.Plan, []*capture, error) {
	s.mu.Lock()
	var holders []*capture
	live := make(map[*capture]bool)
	for _, c := range s.captures {
		live[c] = c.state == Live
	}
	again := false
	for _, f := range plan.Feeds {
		for _, c := range s.captures {
			if !c.playing || s.fits(c, f) || !slices.ContainsFunc(f.Devices, func(d string) bool { return slices.Contains(c.feed.Devices, d) }) {
				continue
			}
			again = again || f.Absent != nil
			if !slices.Contains(holders, c) {
				holders = append(holders, c)
			}
		}
	}
	s.mu.Unlock()
	s.park(holders)
	if again {
		p, err := s.launcher.Compile(s.ctx, conf)
		if err != nil {
			return nil, holders, err
		}
		plan = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range plan.Feeds {
		if c := s.captureOf(f.Name); f.Absent != nil && c != nil && live[c] {
			return nil, holders, f.Absent
		}
	}
	return plan, holders, nil
}

// park stops captures, until unpark, and waits until they have stopped.
func (s *Stream) park(captures []*capture) {
	for _, c := range captures {
		s.mu.Lock()
		c.parked = true
		s.mu.Unlock()
		signal(c.stir)
	}
	for _, c := range captures {
		for {
			s.mu.Lock()
			stopped, changed := !c.playing, s.changed
			s.mu.Unlock()
			if stopped {
				break
			}
			select {
			case <-changed:
			case <-c.done:
			}
		}
	}
}

func (s *Stream) unpark(captures []*capture) {
	for _, c := range captures {
		s.mu.Lock()
		c.parked = false
		s.mu.Unlock()
		signal(c.stir)
	}
}

// carryOut puts a draft in force: what is watched is tried first. After an error
// everything is as it was.
func (s *Stream) carryOut(ctx context.Context, d *draft) error {
	trials := s.begin(d)
	err := s.await(ctx, trials)
	if err == nil {
		err = s.setRates(d.rates)
	}
	if err != nil {
		s.undo(d)
		return err
	}
	s.commit(d)
	return nil
}

// begin starts what must be tried: the new encodings of tracks that have viewers,
// or run always, and tracks that such a stream has not had before.
func (s *Stream) begin(d *draft) (trials []*encoding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	watched := make(map[*encoding]bool)
	for _, e := range s.tracks {
		if e.ring.readers() > 0 || e.always() {
			watched[d.heir(e)] = true
		}
	}
	for _, e := range d.added {
		if len(watched) > 0 && s.find(e.branch.Track.Name) == nil {
			watched[e] = true
		}
	}
	for _, e := range d.added {
		// a capture that backs off waits for the keeper: what fails already isn't the judge of a change
		runs := e.capture.playing || slices.Contains(d.fresh, e.capture)
		if watched[e] && e.capture.state != Absent && runs {
			e.needed, e.trial = true, true
			trials = append(trials, e)
		}
	}
	for _, e := range d.added {
		if e.needed || slices.Contains(d.fresh, e.capture) {
			e.capture.encodings = append(e.capture.encodings, e)
			signal(e.capture.stir)
		}
	}
	for _, c := range d.fresh {
		go c.live()
	}
	return trials
}

// heir is who the viewers of an encoding go to: the track of its name, else the
// first of its kind; nil if there is none.
func (d *draft) heir(e *encoding) *encoding {
	for _, same := range []func(a, b media.Track) bool{
		func(a, b media.Track) bool { return a.Name == b.Name },
		func(a, b media.Track) bool { return a.Kind == b.Kind },
	} {
		for _, n := range d.tracks {
			if same(n.branch.Track, e.branch.Track) {
				return n
			}
		}
	}
	return nil
}

// await waits until all trials have come out well, or one hasn't.
func (s *Stream) await(ctx context.Context, trials []*encoding) error {
	if len(trials) == 0 {
		return nil
	}
	timer := time.NewTimer(trialTime)
	defer timer.Stop()
	began, patience := time.Now(), s.patience()
	for i := 0; i < len(trials); {
		e := trials[i]
		select {
		case err := <-e.outcome:
			if err != nil {
				return fmt.Errorf("track %q: %w", e.branch.Track.Name, err)
			}
			i++
		case <-ctx.Done():
			return ErrClosed
		case <-timer.C:
			s.mu.Lock()
			launching := e.capture.pipeline == nil && time.Since(began) < patience+trialTime
			late := time.Since(e.capture.began) >= trialTime
			s.mu.Unlock()
			if !launching && late {
				return fmt.Errorf("track %q: no keyframe within %v", e.branch.Track.Name, trialTime)
			}
			timer.Reset(trialPoll)
		}
	}
	return nil
}

// setRates sets bitrates on running encoders, all or none.
func (s *Stream) setRates(rates []rate) error {
	set := func(e *encoding, b config.Branch) error {
		s.mu.Lock()
		pipeline, running := e.capture.pipeline, e.running
		s.mu.Unlock()
		if !running || pipeline == nil {
			return nil
		}
		bps := e.ring.adapt.under(limits(b, e.lowest), e.ring.carries())
		e.bps.Store(int64(bps))
		return pipeline.SetBitrate(e.id, bps, bps < b.Track.Bps)
	}
	for i, r := range rates {
		if err := set(r.encoding, r.new); err != nil {
			for _, done := range rates[:i] {
				set(done.encoding, done.old) // it could be set before
			}
			return fmt.Errorf("track %q: bitrate: %w", r.new.Track.Name, err)
		}
	}
	return nil
}

// undo takes back what begin has begun.
func (s *Stream) undo(d *draft) {
	s.mu.Lock()
	for _, e := range d.added {
		e.capture.drop(e)
	}
	s.mu.Unlock()
	for _, c := range d.fresh {
		s.ending.Go(c.close)
	}
}

// commit puts the draft in force.
func (s *Stream) commit(d *draft) {
	var gone []*capture
	s.update(func() {
		now := media.Now()
		for _, r := range d.rates {
			r.encoding.base = r.new
			r.encoding.shape(r.encoding.level)
			r.encoding.ring.rated(r.encoding, r.new.Track)
		}
		for _, c := range d.captures {
			if d.conf == s.conf {
				break
			}
			c.readmit(func(*encoding) bool { return true })
			if c.state == Ended { // whoever edits it wants to see it
				c.enter(Idle, "")
			}
		}
		for c, absent := range d.absent {
			switch {
			case absent != nil && !c.playing:
				c.enter(Absent, absent.Error())
			case absent == nil && c.state == Absent:
				c.enter(Idle, "")
			}
		}
		for _, e := range d.added {
			if !slices.Contains(e.capture.encodings, e) {
				e.capture.encodings = append(e.capture.encodings, e)
			}
			e.ring.take(e)
			e.ring.adapt.renewed()
			if e.needed {
				e.until, e.needed = now+moveTime, false
			}
		}
		for _, e := range s.tracks {
			if slices.Contains(d.tracks, e) {
				continue
			}
			if i := slices.IndexFunc(d.tracks, func(n *encoding) bool { return n.ring == e.ring }); i < 0 {
				name := e.branch.Track.Name
				s.totals[name] = s.totals[name].plus(e.ring.counts())
				if e.ring.readers() > 0 {
					e.retired = now + retireTime
					continue
				}
			}
			e.capture.drop(e)
		}
		old := s.captures
		s.captures = d.captures
		for _, c := range old {
			if slices.Contains(d.captures, c) {
				continue
			}
			c.retired = true
			if len(c.encodings) == 0 || c.parked {
				gone = append(gone, c)
			} else {
				s.captures = append(s.captures, c)
			}
		}
		s.untried = slices.DeleteFunc(slices.Clone(s.untried), func(e *encoding) bool { return !slices.Contains(d.tracks, e) })
		if d.conf != s.conf || s.previous != nil {
			for _, e := range d.added {
				if e.until == 0 {
					s.untried = append(s.untried, e)
				}
			}
			if s.previous == nil { // otherwise nobody has seen the present one either
				s.previous = s.conf
			}
			if len(s.untried) == 0 || len(s.tracks) == 0 {
				s.previous, s.untried = nil, nil
			}
		}
		s.conf, s.plan, s.tracks = d.conf, d.plan, d.tracks
		s.limit()
	})
	for _, c := range gone {
		c.cancel() // now: what was parked may not play again
		s.ending.Go(c.close)
	}
	s.stir()
}

// drop removes an encoding, which then stops. The caller holds Stream.mu.
func (c *capture) drop(e *encoding) {
	if i := slices.Index(c.encodings, e); i >= 0 {
		c.encodings = slices.Delete(slices.Clone(c.encodings), i, i+1)
	}
	signal(c.stir)
}

// words says what a draft changes, for people.
func (d *draft) words(s *Stream) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for _, c := range d.fresh {
		words = append(words, "new "+c.feed.Name+" capture")
	}
	for _, r := range d.rates {
		words = append(words, fmt.Sprintf("%s: bitrate %s", r.new.Track.Name, config.FormatBitrate(r.new.Track.Bps)))
	}
	for _, e := range d.added {
		old := s.find(e.branch.Track.Name)
		b := e.branch
		switch {
		case old == nil:
			words = append(words, "new track "+b.Track.Name)
		case old.branch.Track.Codec != b.Track.Codec:
			words = append(words, fmt.Sprintf("%s: %s to %s", b.Track.Name, old.branch.Track.Codec, b.Track.Codec))
		default:
			words = append(words, b.Track.Name+": new encoder settings")
		}
	}
	for _, e := range s.tracks {
		if !slices.ContainsFunc(d.tracks, func(n *encoding) bool { return n.branch.Track.Name == e.branch.Track.Name }) {
			words = append(words, "no track "+e.branch.Track.Name+" any more")
		}
	}
	for _, k := range []struct {
		words   string
		differs bool
	}{
		{"title", s.conf.Title != d.conf.Title},
		{fmt.Sprintf("on_demand: %t", d.conf.OnDemand), s.conf.OnDemand != d.conf.OnDemand},
		{fmt.Sprintf("linger: %v", d.conf.Linger), s.conf.Linger != d.conf.Linger},
		{"sync: " + d.conf.Sync, s.conf.Sync != d.conf.Sync},
	} {
		if k.differs {
			words = append(words, k.words)
		}
	}
	if len(words) == 0 {
		return "nothing that is launched"
	}
	return strings.Join(words, ", ")
}
