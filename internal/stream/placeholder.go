package stream

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
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
	placeholderRetry   = time.Second            // before one is tried again that couldn't be made; doubles each time
	placeholderRest    = time.Minute            // at most
)

// placeholder is what the readers of a ring are shown while its source is away. It
// belongs to the goroutine that shows them.
type placeholder struct {
	words     string        // that it was made with
	last      [][]byte      // the keyframe before the source went; nil: there was none
	keyframes [][][]byte    // nil: it hasn't been made yet
	turn      int           // of keyframes
	shown     time.Duration // 0: not yet
	again     time.Duration // when it may be tried to make another; 0: at once
	wait      time.Duration // before again, the last time; 0: none has failed
}

// Painter makes a picture for viewers whose source is away: keyframes of it as RTP
// payloads, to be sent by turns. It blocks no longer than ctx allows.
type Painter func(ctx context.Context, p *config.Placeholder) (keyframes [][][]byte, err error)

// stage is where a stream's placeholders are shown. They are made one at a time, on a
// goroutine of its own, while those that there are go on being shown.
type stage struct {
	paint   Painter
	gone    func(now time.Duration) (all []gone, watched bool) // whose source is away; watched: somebody watches at all
	changed func()                                             // viewers begin to see one, or don't see it any more
	log     *slog.Logger

	showing map[*ring]*placeholder
	made    chan made
	making  bool // something will come by made
}

// gone is a ring with viewers, whose source is away for long enough.
type gone struct {
	ring         *ring
	track        media.Track
	encoders     *config.Encoders
	title, words string
	card         bool // not the last picture: a stranger has encoded it, and it isn't decoded here
}

// made is what came of making one.
type made struct {
	placeholder *placeholder
	words       string
	keyframes   [][][]byte
	err         error
}

// run shows placeholders to those who watch, as long as ctx lasts. Nobody watches
// most streams most of the time: it then rests, until watched says that somebody comes.
func (on *stage) run(ctx context.Context, watched <-chan struct{}) {
	on.showing, on.made = make(map[*ring]*placeholder), make(chan made)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if on.making { // it ends with ctx
				<-on.made
			}
			return
		case m := <-on.made:
			on.making = false
			m.placeholder.take(m, media.Now())
		case <-watched:
		case <-timer.C:
		}
		if on.look(ctx) {
			timer.Reset(placeholderLook)
		}
	}
}

// look shows what is due, begins to make what there isn't, and tells whether anybody
// watches.
func (on *stage) look(ctx context.Context) (watched bool) {
	all, watched := on.gone(media.Now())
	changed := len(on.showing)
	for r := range on.showing {
		if !r.stands() && !slices.ContainsFunc(all, func(g gone) bool { return g.ring == r }) {
			delete(on.showing, r)
		}
	}
	news := len(on.showing) < changed
	for _, g := range all {
		p := on.showing[g.ring]
		if p == nil {
			p = new(placeholder)
			if !g.card {
				p.last = g.ring.lastKeyframe()
			}
			on.showing[g.ring] = p
		}
		now := media.Now()
		if p.words != g.words && now >= p.again && !on.making {
			on.making = true
			go func() { on.made <- on.draw(ctx, p, g) }()
		}
		news = p.show(g.ring, now) || news
	}
	if news {
		on.changed()
	}
	return watched
}

// draw makes one. What can't be made is tried again while the source is away: the
// process that is asked begins anew when a device goes, and may take its time.
func (on *stage) draw(ctx context.Context, p *placeholder, g gone) made {
	want := g.encoders.Placeholder(g.track)
	want.Last, want.Title, want.Text = p.last, g.title, g.words
	making, cancel := context.WithTimeout(ctx, placeholderTimeout)
	defer cancel()
	keyframes, err := on.paint(making, &want)
	if err != nil && ctx.Err() == nil {
		level := slog.LevelWarn
		if p.wait > 0 { // told
			level = slog.LevelDebug
		}
		on.log.Log(ctx, level, "placeholder", "track", g.track.Name, "codec", g.track.Codec, "err", config.Redact(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return made{p, g.words, keyframes, err}
}

// take takes what was made.
func (p *placeholder) take(m made, now time.Duration) {
	if m.err != nil {
		p.wait = min(max(2*p.wait, placeholderRetry), placeholderRest)
		p.again = now + p.wait
		return
	}
	*p = placeholder{words: m.words, last: p.last, keyframes: m.keyframes}
}

// stand shows placeholders to those who watch the stream, as long as its ctx lasts.
func (s *Stream) stand() {
	defer close(s.stood)
	on := stage{paint: s.launcher.Placeholder, gone: s.gone, changed: func() { s.update(func() {}) }, log: s.log}
	on.run(s.ctx, s.watched)
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
			all = append(all, gone{ring: e.ring, track: e.ring.described(), encoders: s.conf.Encoders(), title: s.conf.Title, words: words})
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
