package stream

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/media"
)

// maxLag is how far a viewer may fall behind. One whose network carries less than
// the stream would otherwise see it later and later.
const maxLag = time.Second

// A jump that doesn't last jumpLasts has failed: the keyframe was too much for the
// viewer's network. Encoders follow what networks carry, so the next one may do, but
// keyframes are made for all: after the second in a row that failed the viewer asks
// for another one after jumpWait only, then after twice as long each time. One that
// others have asked for, or that is due by itself, serves it meanwhile.
const (
	jumpLasts   = 5 * time.Second
	jumpWait    = time.Second
	jumpDoubles = 4 // times at most
)

// Subscription is one viewer's place in a track: a cursor into the ring of
// recent packets, behind a gate that opens at a keyframe. One that falls behind
// by more than a second, or meets a loss within the pipeline, jumps to the next
// keyframe, which it is given to its end however long that takes; what it skipped is
// counted.
//
// Next is for one goroutine; the other methods may be called from any.
type Subscription struct {
	ring   *ring
	leave  func()
	once   sync.Once
	notify atomic.Pointer[func()]
	carry  atomic.Int64 // bit/s that the viewer's network carries for the track; 0: unknown

	// below: guarded by ring.mu
	begun   bool          // Next was called
	open    bool          // the gate: past a keyframe
	next    uint64        // packet to read next, while open
	oldest  uint64        // keyframes before this packet don't open the gate
	since   time.Duration // waiting for a keyframe since
	dropped uint64        // packets skipped
	opened  time.Duration // when the gate opened last; 0: never
	first   bool          // next is of the keyframe at which that was
	entry   uint64        // where that begins
	failed  int           // jumps in a row
	askAt   time.Duration // no keyframe is asked for before
	owed    bool          // it wanted one meanwhile
}

// Next appends the packets that are due to dst, up to its capacity, each with a
// reference that the caller releases. It never blocks. The first call is the
// moment from which the viewer wants media: it begins with a keyframe that is at
// most half a second old, or asks for one.
func (s *Subscription) Next(dst []media.Packet) []media.Packet {
	dst, poke := s.read(dst)
	if poke {
		s.ring.poke()
	}
	return dst
}

// read is Next, and tells whether a keyframe is to be asked for. Even if it panics, which
// is contained (package contain), the ring isn't left locked: its pipeline would stand.
func (s *Subscription) read(dst []media.Packet) (_ []media.Packet, poke bool) {
	r := s.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	now := media.Now()
	if !s.begun {
		s.begun, s.since = true, now
	}
	for len(dst) < cap(dst) {
		if !s.open && !s.enter() {
			break
		}
		if s.next < r.tail { // fell behind
			s.fail(now)
			s.shut(r.tail)
			continue
		}
		if s.next == r.head {
			break
		}
		if s.lags(now) {
			s.fail(now)
			s.shut(s.next + 1)
			continue
		}
		if r.slots[s.next%ringPackets].gap && !(r.hasKey && r.key == s.next) {
			s.shut(s.next)
			continue
		}
		if r.hasKey && s.next == r.key {
			s.owed = false // others have asked for one
		}
		dst = append(dst, r.at(s.next))
		s.next++
	}
	poke = (s.begun && !s.open || s.owed) && now >= s.askAt && !r.wanted
	if poke {
		r.wanted, s.owed = true, false
	}
	return dst, poke
}

// enter opens the gate if the newest keyframe serves. The caller holds ring.mu.
func (s *Subscription) enter() bool {
	r := s.ring
	if !r.hasKey || r.key < s.oldest || r.key < r.gap {
		return false
	}
	if r.keyAt < s.since-keyframeSpacing && !r.rare {
		return false // too old: showing it would mean to catch up for long
	}
	if s.next != 0 && r.key > s.next {
		s.dropped += r.key - s.next
		r.count.Dropped += r.key - s.next
	}
	s.open, s.next = true, r.key
	s.opened, s.first, s.entry, s.owed = media.Now(), true, r.key, false
	return true
}

// lags tells whether the next packet, which is there, is too old to be worth
// sending. Where keyframes are rare, or one of any age serves, what is old must be
// caught up with; and of the keyframe that opened the gate the rest is, or a viewer
// whose network takes longer than that for one would never see any. The caller holds
// ring.mu.
func (s *Subscription) lags(now time.Duration) bool {
	next := &s.ring.slots[s.next%ringPackets]
	s.first = s.first && (s.next == s.entry || !next.start)
	arrived := next.buf.Arrived
	return arrived != 0 && now-arrived > maxLag && !s.first && !s.ring.rare && s.since != 0
}

// fail notes that the viewer must jump to another keyframe because it is too slow. The
// caller holds ring.mu.
func (s *Subscription) fail(now time.Duration) {
	if s.opened == 0 || now-s.opened > jumpLasts {
		s.failed = 0
	} else if s.failed++; s.failed > 1 {
		s.askAt = now + jumpWait<<min(s.failed-2, jumpDoubles)
	}
}

// shut closes the gate: only a keyframe at or after packet oldest opens it. The
// caller holds ring.mu.
func (s *Subscription) shut(oldest uint64) {
	s.open, s.oldest, s.since = false, oldest, media.Now()
}

// Find returns packet index of the track for a retransmission, with a reference
// that the caller releases, or false when it has left the ring.
func (s *Subscription) Find(index uint64) (media.Packet, bool) { return s.ring.find(index) }

// Notify sets the function that is called whenever packets may be due, from the
// pipeline's goroutine: it must not block. It is called once at once. Nil ends it.
func (s *Subscription) Notify(wake func()) {
	if wake == nil {
		s.notify.Store(nil)
		return
	}
	s.notify.Store(&wake)
	wake()
}

func (s *Subscription) wake() {
	if f := s.notify.Load(); f != nil {
		(*f)()
	}
}

// RequestKeyframe asks for a keyframe, for a viewer that lost its picture. All
// who ask while one is due are served by that one; at most two a second are
// asked of an encoder, and few for a viewer whose network is too slow for them. It
// doesn't block.
func (s *Subscription) RequestKeyframe() {
	if s.mayAsk() {
		s.ring.want()
	}
}

// mayAsk tells whether a keyframe may be asked for now. If not it will be, in time.
func (s *Subscription) mayAsk() bool {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	s.owed = media.Now() < s.askAt
	return !s.owed
}

// Skip leaves out all packets until a keyframe that hasn't begun yet, and asks for it:
// for a viewer who has lost so much that what follows is of no use. It doesn't block.
func (s *Subscription) Skip() {
	r := s.ring
	r.mu.Lock()
	if s.open {
		s.dropped += r.head - s.next
		r.count.Dropped += r.head - s.next
		s.next = r.head
		s.fail(media.Now())
		s.shut(r.head)
	}
	r.mu.Unlock()
	if s.mayAsk() {
		r.want()
	}
}

// Track describes what the subscription reads.
func (s *Subscription) Track() media.Track { return s.ring.described() }

// Dropped is the number of packets that the subscription skipped.
func (s *Subscription) Dropped() uint64 {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	return s.dropped
}

// Close ends the subscription; the last one of a stream lets its capture end
// after the linger time. Idempotent; doesn't block.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.notify.Store(nil)
		s.ring.detach(s)
		s.ring.nudge()
		s.leave()
	})
}

// keyframe reads on until a whole keyframe of the source has come and returns its
// payloads, copied.
func (s *Subscription) keyframe(ctx context.Context) ([][]byte, error) {
	due := make(chan struct{}, 1)
	s.settle()
	s.Notify(func() { signal(due) })
	defer s.Notify(nil)
	var frame [][]byte
	batch := make([]media.Packet, 0, 64)
	for {
		batch = s.Next(batch[:0])
		whole := false
		for _, p := range batch {
			if p.Start && !whole {
				frame = frame[:0]
			}
			if !whole && !p.Buffer.Placeholder {
				frame = append(frame, bytes.Clone(p.Payload()))
				whole = p.Marker()
			}
			p.Release()
		}
		if whole {
			return frame, nil
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-due:
		case <-ctx.Done():
			return nil, fmt.Errorf("no keyframe: %w", ctx.Err())
		}
	}
}

// settle makes the subscription content with any keyframe that is in the ring.
func (s *Subscription) settle() {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	s.begun = true
}
