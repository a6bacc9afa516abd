package stream

import (
	"bytes"
	"context"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	placeholderAfter   = time.Second            // that a source must be away, and nothing of it have come
	placeholderEvery   = time.Second            // how often it is shown again
	placeholderSoon    = keyframeSpacing        // the same when somebody waits for a keyframe
	placeholderLook    = 250 * time.Millisecond // how often is looked who needs one, while somebody watches
	placeholderTimeout = 5 * time.Second        // to make one
)

// placeholder is what the readers of a ring are shown while its source is away. It
// belongs to the goroutine that shows them.
type placeholder struct {
	words     string        // that it was made with
	last      [][]byte      // the keyframe before the source went; nil: there was none
	keyframes [][][]byte    // nil: it couldn't be made
	turn      int           // of keyframes
	shown     time.Duration // 0: not yet
}

// stand shows placeholders to those who watch, as long as ctx lasts. Nobody watches
// most streams most of the time: it then rests.
func (s *Stream) stand() {
	defer close(s.stood)
	showing := make(map[*ring]*placeholder)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.watched:
		case <-timer.C:
		}
		if s.showPlaceholders(showing) {
			timer.Reset(placeholderLook)
		}
	}
}

// gone is a ring whose source is away.
type gone struct {
	ring  *ring
	track media.Track
	conf  *config.Stream
	words string
}

// showPlaceholders makes and shows what is due, and tells whether anybody watches.
func (s *Stream) showPlaceholders(showing map[*ring]*placeholder) (watched bool) {
	all, watched := s.gone(media.Now())
	changed := len(showing)
	for r := range showing {
		if !r.stands() && !containsRing(all, r) {
			delete(showing, r)
		}
	}
	ended := len(showing) < changed
	for _, g := range all {
		p := showing[g.ring]
		if p == nil {
			p = &placeholder{last: g.ring.lastKeyframe()}
			showing[g.ring] = p
		}
		if p.words != g.words {
			s.makePlaceholder(p, g)
		}
		if p.show(g.ring, media.Now()) {
			s.update(func() {})
		}
	}
	if ended {
		s.update(func() {})
	}
	return watched
}

// gone lists the rings with viewers whose source is away for long enough, and tells
// whether anybody watches at all.
func (s *Stream) gone(now time.Duration) (all []gone, watched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.tracks {
		if e.base.Track.Kind != media.Video || e.ring.readers() == 0 {
			continue
		}
		watched = true
		if e.failedAt != 0 && e.ring.heardSince(e.failedAt) {
			e.failedAt = 0
		}
		if since, words := e.away(); since != 0 && e.ring.silent(now, since) {
			all = append(all, gone{e.ring, e.ring.described(), s.conf, words})
		}
	}
	return all, watched
}

// away tells since when nothing can come of an encoding, and why in few words that
// don't change from try to try; 0: it can. The caller holds Stream.mu.
func (e *encoding) away() (since time.Duration, words string) {
	c := e.capture
	what := c.feed.What
	switch {
	case c.state == Absent && what == "camera":
		return c.away, "The camera is unplugged. Back soon"
	case c.state == Absent && what != "":
		return c.away, "The " + what + " isn’t there. Back soon"
	case c.state == Absent:
		return c.away, "The source isn’t there. Back soon"
	case c.away != 0: // it is being started again
		return c.away, "Interrupted. Back soon"
	case e.failedAt != 0:
		return e.failedAt, "Interrupted. Back soon"
	}
	return 0, ""
}

// makePlaceholder makes one with words. What can't be made isn't tried again before
// the words change or the source has come back.
func (s *Stream) makePlaceholder(p *placeholder, g gone) {
	p.words = g.words
	want := g.conf.Encoders().Placeholder(g.track)
	want.Last, want.Title, want.Text = p.last, g.conf.Title, g.words
	ctx, cancel := context.WithTimeout(s.ctx, placeholderTimeout)
	defer cancel()
	keyframes, err := s.launcher.Placeholder(ctx, &want)
	if err != nil {
		if s.ctx.Err() == nil {
			s.log.Warn("placeholder", "track", g.track.Name, "codec", g.track.Codec, "err", config.Redact(strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
		return
	}
	p.keyframes, p.turn, p.shown = keyframes, 0, 0
}

// show puts the placeholder into its ring if it is due there, and tells if that is the
// first time.
func (p *placeholder) show(r *ring, now time.Duration) (first bool) {
	wait := placeholderEvery
	if r.wanting() {
		wait = placeholderSoon
	}
	if len(p.keyframes) == 0 || p.shown != 0 && now-p.shown < wait {
		return false
	}
	payloads := p.keyframes[p.turn%len(p.keyframes)]
	size := 0
	for _, payload := range payloads {
		size += len(payload)
	}
	b := media.NewBuffer(size)
	for _, payload := range payloads {
		b.Append(payload)
	}
	b.Capture, b.Arrived = now, now
	b.Start, b.End, b.Keyframe, b.Placeholder = true, true, true, true
	first = p.shown == 0
	p.shown, p.turn = now, p.turn+1
	r.stand(b, now)
	return first
}

// containsRing tells whether one of those that are gone is a ring's.
func containsRing(all []gone, r *ring) bool {
	for _, g := range all {
		if g.ring == r {
			return true
		}
	}
	return false
}

// stand puts a placeholder into the ring. What comes of the source later follows
// neither it nor what came before: readers wait for a keyframe then. It is called by one
// goroutine, and doesn't block.
func (r *ring) stand(b *media.Buffer, now time.Duration) {
	r.mu.Lock()
	if r.heard != 0 && now-r.heard < placeholderAfter { // something has just come
		r.mu.Unlock()
		b.Release()
		return
	}
	r.breakOff()
	r.put(b)
	r.standing, r.broken = true, true
	r.mu.Unlock()
	r.wake()
}

// stands tells whether the newest picture in the ring is a placeholder.
func (r *ring) stands() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standing
}

// wanting tells whether somebody waits for a keyframe.
func (r *ring) wanting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted
}

// heardSince tells whether something of the source has come since then.
func (r *ring) heardSince(then time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard > then
}

// silent tells whether nothing of the source has come for a while, that is away since.
func (r *ring) silent(now, since time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now-max(since, r.heard) >= placeholderAfter
}

// lastKeyframe copies the payloads of the newest keyframe of the source; nil: it isn't
// in the ring any more, or not wholly.
func (r *ring) lastKeyframe() (payloads [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.hasKey {
		return nil
	}
	for i := r.key; i < r.head; i++ {
		s := r.slots[i%ringPackets]
		if s.buf.Placeholder || i != r.key && (s.gap || s.start) {
			return nil
		}
		payloads = append(payloads, bytes.Clone(s.buf.Payload(s.i)))
		if s.buf.Marker(s.i) {
			return payloads
		}
	}
	return nil
}
