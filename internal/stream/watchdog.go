package stream

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"gateway/internal/media"
)

// What a watchdog's times are where neither the file nor the source's row in
// config's table says otherwise.
const (
	startWithin   = 10 * time.Second // from launching to playing, and from that to the first frame
	pictureWithin = 3 * time.Second  // without a picture a running pipeline counts as stuck
	soundWithin   = 10 * time.Second // likewise without sound, which may be sent only while there is some
	fewFrames     = 10               // frame intervals that it has in any case

	endsSoon = 500 * time.Millisecond // what has failed has ended after this time, unless it hangs

	lately = 2500 * time.Millisecond // who has yielded a frame so long ago does, unless its frames are rarer
)

var (
	errNoFrame = errors.New("no first frame")
	errStalled = errors.New("no frame")
)

// patience is how long a launch may take, and then the first frame.
func (s *Stream) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.conf.Watchdog.Start, startWithin)
}

// proof is how long a pipeline must have yielded for its next failure to be another one's:
// longer than it takes to find its pictures at fault.
func (s *Stream) proof() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.lasts, 2*s.conf.Watchdog.Frozen, 2*s.conf.Watchdog.Black)
}

// silence is how long a running encoding may yield nothing.
func (e *encoding) silence() time.Duration {
	s := e.capture.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	usual := pictureWithin
	if e.base.Track.Kind == media.Audio {
		usual = soundWithin
	}
	return cmp.Or(s.conf.Watchdog.Frames, e.capture.feed.Silence, usual)
}

// frames is how long an encoding takes for some frames, if that is known. The caller
// holds ring.mu.
func (e *encoding) frames(n float64) time.Duration {
	if e.track.FPS <= 0 {
		return 0
	}
	return time.Duration(n * float64(time.Second) / e.track.FPS)
}

// stale tells for how long nothing came of a running encoding, if that is too long: a
// pipeline that neither yields nor fails. The error is an errNoFrame or an errStalled.
func (e *encoding) stale(now time.Duration) error {
	patience, silence := e.capture.stream.patience(), e.silence()
	r := e.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.started == 0:
		return nil
	case e.last == 0:
		if now-e.started > patience {
			return fmt.Errorf("%w within %v of the start", errNoFrame, patience)
		}
		return nil
	}
	if limit := max(silence, e.frames(fewFrames)); now-e.last > limit {
		return fmt.Errorf("%w for %v", errStalled, limit)
	}
	return nil
}

// stalled looks for encodings that should yield frames and don't. Where no other
// yields any either, it is the capture's fault.
func (c *capture) stalled(active map[*encoding]activity) error {
	now := media.Now()
	for e := range active {
		err := e.stale(now)
		if err == nil {
			continue
		}
		others := false
		for o := range active {
			others = others || o != e && o.yields(now)
		}
		if !others {
			return fmt.Errorf("track %q: %w", e.ring.described().Name, err)
		}
		e.end(err)
	}
	return nil
}

// failing says why a pipeline has failed should it take long to end: one that hangs is
// given seconds. The caller calls what it returns when the pipeline has ended.
func (c *capture) failing(err error) (ended func()) {
	told := make(chan struct{})
	late := time.AfterFunc(endsSoon, func() {
		defer close(told)
		c.setState(Restarting, err.Error())
	})
	return func() {
		if !late.Stop() {
			<-told
		}
	}
}

// yields tells whether frames come of the encoding.
func (e *encoding) yields(now time.Duration) bool {
	r := e.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.started != 0 && e.last != 0 && now-e.last < max(lately, e.frames(2))
}

const (
	slowAfter = 30 * time.Second // that an encoder must be too slow for half of the frames to be started again
	slowMost  = 10 * time.Minute // the same, after it was again and again
	slowPart  = 0.5
	slowLook  = 5 * time.Second // over which frames are counted
	slowFew   = 10              // frames in that time, of which fewer tell nothing

	memorySettles = 10 * time.Second // that a pipeline takes to have its memory, once its encoders run
	memoryGrowth  = 512 << 20        // bytes that it may have more, later
)

// errSlow says that an encoder keeps up with less than half of the frames, although
// less and less was made of the picture.
var errSlow = errors.New("the encoder is too slow")

// slowness is how an encoding keeps up. It belongs to its capture's goroutine.
type slowness struct {
	begun    bool
	at       time.Duration // when counting began
	counts   Counts        // by then
	since    time.Duration // too slow since; 0: it isn't
	patience time.Duration // how long it may be so
}

// step tells whether an encoding with such counts has been too slow for too long. last:
// nothing less can be made of its picture, so that it can't be helped otherwise.
func (s *slowness) step(now time.Duration, c Counts, last bool) error {
	if s.patience == 0 {
		s.patience = slowAfter
	}
	if !s.begun || c.Frames < s.counts.Frames || c.DroppedFrames < s.counts.DroppedFrames {
		s.begun, s.at, s.counts = true, now, c
		return nil
	}
	if now-s.at < slowLook {
		return nil
	}
	dropped := float64(c.DroppedFrames - s.counts.DroppedFrames)
	captured := float64(c.Frames-s.counts.Frames) + dropped
	began := s.at
	s.at, s.counts = now, c
	switch {
	case !last || captured < slowFew || dropped/captured < slowPart:
		s.since = 0
	case s.since == 0:
		s.since = began
	}
	if s.since == 0 || now-s.since < s.patience {
		return nil
	}
	err := fmt.Errorf("%w: it left out %.0f %% of the captured frames for %v", errSlow, 100*dropped/captured, (now - s.since).Round(time.Second))
	s.since, s.patience = 0, min(2*s.patience, slowMost)
	return err
}

// slow ends encodings that are too slow, whatever is made of their pictures: what has
// got stuck in a driver is well after a new start, and another encoder may be chosen.
func (c *capture) slow(active map[*encoding]activity) {
	now := media.Now()
	s := c.stream
	for e := range active {
		s.mu.Lock()
		fills := e.running && !e.needed && e.retired == 0
		last := c.feed.Whole || e.level >= e.base.Levels()-1
		s.mu.Unlock()
		if !fills || e.base.Track.Kind != media.Video {
			continue
		}
		if err := e.slowness.step(now, e.ring.counts(), last); err != nil {
			if c.feed.Whole { // its encoder isn't ours to stop
				s.log.Warn("encoder", "track", e.base.Track.Name, "err", err)
				continue
			}
			e.end(err)
		}
	}
}

// memory watches how much a pipeline's process occupies. It belongs to one goroutine.
type memory struct {
	settle  time.Duration // memorySettles
	running int           // encodings
	since   time.Duration // these run
	least   uint64        // bytes, since it has settled; 0: it hasn't
}

// step tells whether a process that has rss bytes, and runs so many encodings, has grown
// by too much.
func (m *memory) step(now time.Duration, rss uint64, running int) error {
	switch {
	case running != m.running || m.since == 0:
		m.running, m.since, m.least = running, now, 0
		return nil
	case now-m.since < m.settle:
		return nil
	case m.least == 0 || rss < m.least:
		m.least = rss
	}
	if rss < m.least+memoryGrowth {
		return nil
	}
	return fmt.Errorf("the pipeline's memory has grown from %d to %d MB", m.least>>20, rss>>20)
}

// check is step for a pipeline, if it tells what it has.
func (m *memory) check(pipeline Pipeline, running int) error {
	own, is := pipeline.(process)
	if !is {
		return nil
	}
	rss, ok := own.Usage()
	if !ok {
		return nil
	}
	return m.step(media.Now(), rss, running)
}
