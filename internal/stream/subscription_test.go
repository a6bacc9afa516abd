package stream

import (
	"testing"
	"time"

	"gateway/internal/media"
)

// aged pushes a frame of n packets that came so long ago.
func (f *feed) aged(age time.Duration, n int, key bool) {
	f.push(buffer(n, func(b *media.Buffer) {
		b.Start, b.End, b.Keyframe = true, true, key
		b.Arrived = media.Now() - age
	}))
}

// asks lets a subscription look, and tells whether it wants a keyframe asked for.
func (f *feed) asks(s *Subscription) bool {
	read(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.wanted
	f.wanted = false
	return asked
}

// passed lets time pass, as far as the subscription's next keyframe is concerned.
func (s *Subscription) passed(d time.Duration) {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	s.askAt -= d
}

// left is how long no keyframe is asked for.
func (s *Subscription) left() time.Duration {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	return s.askAt - media.Now()
}

// One viewer who is slower than its last rendition had a keyframe made for everybody
// each time that it was a second late, which the next one made it again.
func TestViewerTooSlowForKeyframesAsksForFew(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.asks(s)
	f.frame(9, true)
	read(s)
	for i, wait := range []time.Duration{0, jumpWait, 2 * jumpWait, 4 * jumpWait, 8 * jumpWait, 16 * jumpWait, 16 * jumpWait} {
		f.aged(2*maxLag, 1, false)
		if wait > 0 {
			if f.asks(s) {
				t.Fatalf("jump %d: a keyframe is asked for at once", i)
			}
			if s.RequestKeyframe(); f.asks(s) { // its decoder has no picture
				t.Fatalf("jump %d: a keyframe is asked for on request", i)
			}
			if s.Skip(); f.asks(s) {
				t.Fatalf("jump %d: a keyframe is asked for after a skip", i)
			}
			if left := s.left(); left > wait || left < wait/2 {
				t.Fatalf("jump %d: the next one may be asked for in %v, want %v", i, left, wait)
			}
			s.passed(wait)
		}
		if !f.asks(s) {
			t.Fatalf("jump %d: no keyframe is asked for after %v", i, wait)
		}
		at := f.head
		f.frame(9, true)
		expect(t, read(s), at, 9)
	}
	// one that lasts makes it as good as new
	s.ring.mu.Lock()
	s.opened -= 2 * jumpLasts
	s.ring.mu.Unlock()
	f.aged(2*maxLag, 1, false)
	if !f.asks(s) {
		t.Error("after a good time no keyframe is asked for at once")
	}
}

// Others' keyframes, and those that come by themselves, serve a viewer that waits.
func TestViewerTooSlowForKeyframesTakesThoseThatCome(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.asks(s)
	f.frame(3, true)
	read(s)
	for range 5 {
		f.aged(2*maxLag, 1, false)
		read(s)
		f.frame(3, true)
		if got := read(s); len(got) != 3 {
			t.Fatalf("read %v of a keyframe", got)
		}
	}
	other := f.subscribe()
	f.asks(other)
	if other.RequestKeyframe(); !f.asks(other) {
		t.Error("another viewer's request counts for nothing")
	}
}

// What takes a second to send is old before it is over; a viewer who is given the
// beginning of each keyframe only sees nothing at all.
func TestKeyframeOfAJumpIsSentToItsEnd(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.asks(s)
	f.frame(30, true)
	first := s.Next(make([]media.Packet, 0, 10))
	for _, p := range first {
		p.Release()
	}
	f.mu.Lock()
	for i := range f.slots {
		if b := f.slots[i].buf; b != nil && i%30 == 0 {
			b.Arrived -= 5 * maxLag
		}
	}
	f.mu.Unlock()
	f.aged(3*maxLag, 5, false)
	expect(t, read(s), 10, 20)
	f.frame(30, true)
	expect(t, read(s), 35, 30)
	if s.Dropped() != 5 {
		t.Errorf("%d packets are counted as dropped, want 5", s.Dropped())
	}
}
