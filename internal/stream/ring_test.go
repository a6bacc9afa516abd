package stream

import (
	"testing"
	"time"

	"gateway/internal/media"
)

// feed is a ring with one subscription's view of it.
type feed struct {
	*ring
	pokes int
}

func newFeed() *feed {
	f := &feed{ring: &ring{track: media.Track{Name: "video", Kind: media.Video, Codec: media.H264}}}
	f.poke = func() { f.pokes++ }
	return f
}

func (f *feed) subscribe() *Subscription {
	s := &Subscription{ring: f.ring, leave: func() {}}
	f.attach(s)
	return s
}

// frame pushes a frame of n packets in one buffer.
func (f *feed) frame(n int, key bool) {
	f.push(buffer(n, func(b *media.Buffer) { b.Start, b.End, b.Keyframe = true, true, key }))
}

func buffer(n int, set func(*media.Buffer)) *media.Buffer {
	b := media.NewBuffer(n)
	for i := range n {
		b.Append([]byte{byte(i)})
	}
	b.Capture = media.Now()
	b.Arrived = b.Capture + 7*time.Millisecond
	set(b)
	return b
}

// read takes all that is due and returns the packets' indexes.
func read(s *Subscription) []uint64 {
	var all []uint64
	for {
		batch := s.Next(make([]media.Packet, 0, 7))
		if len(batch) == 0 {
			return all
		}
		for _, p := range batch {
			all = append(all, p.Index)
			p.Release()
		}
	}
}

func expect(t *testing.T, got []uint64, first, n uint64) {
	t.Helper()
	if uint64(len(got)) != n {
		t.Fatalf("read %d packets %v, want %d", len(got), got, n)
	}
	for i, index := range got {
		if index != first+uint64(i) {
			t.Fatalf("packet %d is number %d, want %d", i, index, first+uint64(i))
		}
	}
}

// baseline checks that a test gives back every buffer.
func baseline(t *testing.T) {
	before := media.LiveBuffers()
	t.Cleanup(func() {
		if now := media.LiveBuffers(); now != before {
			t.Errorf("%d buffers in use, %d before the test", now, before)
		}
	})
}

func TestViewerStartsOnKeyframe(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.frame(3, false)
	if got := read(s); len(got) != 0 {
		t.Fatalf("read %v before a keyframe", got)
	}
	f.frame(4, true)
	f.frame(2, false)
	expect(t, read(s), 3, 6)
	if f.count.Frames != 3 || f.count.PipelineTime != 21*time.Millisecond {
		t.Errorf("%d frames took %v in the pipeline", f.count.Frames, f.count.PipelineTime)
	}
}

func TestViewerWhoComesJustAfterAKeyframeStartsFromIt(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	f.frame(4, true)
	f.frame(2, false)
	s := f.subscribe()
	expect(t, read(s), 0, 6)
	if f.pokes != 0 {
		t.Errorf("a keyframe was asked for")
	}
}

func TestViewerDoesNotStartFromAnOldKeyframe(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	f.frame(4, true)
	f.keyAt -= keyframeSpacing + time.Millisecond
	s := f.subscribe()
	if got := read(s); len(got) != 0 {
		t.Fatalf("read %v", got)
	}
	if f.pokes != 1 {
		t.Errorf("asked %d times for a keyframe, want once", f.pokes)
	}
	f.frame(1, false)
	f.frame(2, true)
	expect(t, read(s), 5, 2)
}

func TestAFrameIsReadBeforeItIsComplete(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.push(buffer(2, func(b *media.Buffer) { b.Start, b.Keyframe = true, true }))
	expect(t, read(s), 0, 2)
	f.push(buffer(3, func(b *media.Buffer) { b.End = true }))
	expect(t, read(s), 2, 3)
}

// A keyframe may begin with packets that don't tell yet that it is one: an access
// unit delimiter sent alone, say. The viewer needs those too.
func TestKeyframeIsReadFromItsFirstPacket(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.push(buffer(1, func(b *media.Buffer) { b.Start = true }))
	f.push(buffer(3, func(b *media.Buffer) { b.Keyframe, b.End = true, true }))
	expect(t, read(s), 0, 4)
}

// Senders give all packets of a keyframe other headers than the rest.
func TestAllBuffersOfAKeyframeAreMarked(t *testing.T) {
	f := newFeed()
	f.push(buffer(1, func(b *media.Buffer) { b.Start, b.Keyframe = true, true })) // SPS
	f.push(buffer(1, func(b *media.Buffer) {}))                                   // PPS
	f.push(buffer(2, func(b *media.Buffer) { b.End, b.Keyframe = true, true }))
	f.push(buffer(1, func(b *media.Buffer) { b.Start = true }))
	f.push(buffer(1, func(b *media.Buffer) { b.End = true }))
	for i := range uint64(6) {
		p, ok := f.find(i)
		if !ok || p.Buffer.Keyframe != (i < 4) {
			t.Errorf("packet %d: found %v, keyframe %v", i, ok, p.Buffer.Keyframe)
		}
		p.Release()
	}
}

func TestLaggingViewerJumpsToTheNextKeyframeAndIsCounted(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.frame(1, true)
	expect(t, read(s), 0, 1)
	for range ringPackets + 100 {
		f.frame(1, false)
	}
	if got := read(s); len(got) != 0 {
		t.Fatalf("read %d packets that nothing precedes", len(got))
	}
	if f.pokes != 1 {
		t.Errorf("asked %d times for a keyframe, want once", f.pokes)
	}
	f.frame(2, true)
	expect(t, read(s), ringPackets+101, 2)
	if s.Dropped() != ringPackets+100 {
		t.Errorf("%d packets counted as dropped, want %d", s.Dropped(), ringPackets+100)
	}
}

// A network that carries less than the stream must not make it later and later.
func TestViewerThatIsTooLateJumpsToTheNextKeyframe(t *testing.T) {
	f := newFeed()
	at := func(age time.Duration, n int, key bool) {
		f.push(buffer(n, func(b *media.Buffer) {
			b.Start, b.End, b.Keyframe = true, true, key
			b.Arrived = media.Now() - age
		}))
	}
	s := f.subscribe()
	at(0, 1, true)
	expect(t, read(s), 0, 1)
	at(maxLag-200*time.Millisecond, 3, false)
	expect(t, read(s), 1, 3)
	at(maxLag+time.Millisecond, 3, false)
	at(0, 2, false)
	expect(t, read(s), 0, 0)
	if f.pokes != 1 {
		t.Errorf("%d keyframes were asked for, want one", f.pokes)
	}
	at(0, 2, true)
	expect(t, read(s), 9, 2)
	if s.Dropped() != 5 {
		t.Errorf("%d packets are counted as dropped, want 5", s.Dropped())
	}
	old := f.subscribe()
	old.settle() // any keyframe will do
	for i := range f.slots {
		if b := f.slots[i].buf; b != nil {
			b.Arrived -= time.Hour
		}
	}
	expect(t, read(old), 9, 2)
}

func TestLossInThePipelineClosesTheGate(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	f.frame(2, true)
	expect(t, read(s), 0, 2)
	f.frame(1, false)
	f.push(buffer(2, func(b *media.Buffer) { b.Start, b.End, b.Gap = true, true, true }))
	f.frame(1, false)
	expect(t, read(s), 2, 1)
	if f.pokes == 0 {
		t.Error("no keyframe was asked for")
	}
	f.frame(3, true)
	expect(t, read(s), 6, 3)
	f.push(buffer(2, func(b *media.Buffer) { b.Start, b.End, b.Gap, b.Keyframe = true, true, true, true }))
	expect(t, read(s), 9, 2) // a keyframe needs nothing that was lost
}

// What is left of a keyframe after a loss within it starts nobody.
func TestHalfAKeyframeDoesNotOpenTheGate(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	read(s)
	f.push(buffer(2, func(b *media.Buffer) { b.Gap, b.Keyframe, b.End = true, true, true }))
	if got := read(s); len(got) != 0 {
		t.Fatalf("read %v", got)
	}
	if ask, _ := f.ask(nil, media.Now()); !ask {
		t.Error("the wish for a keyframe was taken as fulfilled")
	}
	f.frame(2, true)
	expect(t, read(s), 2, 2)
}

func TestKeyframeRequestsAreSharedAndSpaced(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	a, b := f.subscribe(), f.subscribe()
	a.RequestKeyframe()
	b.RequestKeyframe()
	if f.pokes != 1 {
		t.Fatalf("poked %d times, want once", f.pokes)
	}
	now := media.Now()
	if ask, _ := f.ask(nil, now); !ask {
		t.Fatal("the first request isn't passed on")
	}
	if ask, again := f.ask(nil, now+100*time.Millisecond); ask || again != 400*time.Millisecond {
		t.Fatalf("asked again too early (%v), look again in %v", ask, again)
	}
	f.frame(1, true)
	if ask, again := f.ask(nil, now+keyframeSpacing); ask || again != 0 {
		t.Fatal("asked although the keyframe came")
	}
	a.RequestKeyframe()
	if ask, _ := f.ask(nil, now+keyframeSpacing-1); ask {
		t.Fatal("more than two requests a second")
	}
	if ask, _ := f.ask(nil, now+keyframeSpacing); !ask {
		t.Fatal("the request was forgotten")
	}
}

func TestSkipGoesOnAtANewKeyframe(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s, other := f.subscribe(), f.subscribe()
	f.frame(3, true)
	expect(t, read(s), 0, 3)
	f.frame(2, false)
	s.Skip()
	if ask, _ := f.ask(nil, media.Now()); !ask {
		t.Error("no keyframe is asked for")
	}
	f.frame(2, false)
	if got := read(s); len(got) != 0 {
		t.Fatalf("read %v although the keyframe hasn't come", got)
	}
	f.frame(3, true)
	expect(t, read(s), 7, 3)
	if s.Dropped() != 4 {
		t.Errorf("%d packets were skipped, want 4", s.Dropped())
	}
	expect(t, read(other), 7, 3) // it begins there
}

// A panic is contained at the viewer that it happened to; the pipeline must not wait
// for it ever after.
func TestRingIsNotLeftLockedByAPanic(t *testing.T) {
	f := newFeed()
	f.frame(3, true)
	s := f.subscribe()
	slot := &f.slots[1]
	was := *slot
	slot.buf = nil
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a packet that isn't there was read")
			}
		}()
		read(s)
	}()
	*slot = was
	if !f.mu.TryLock() {
		t.Fatal("the ring is locked")
	}
	f.mu.Unlock()
	expect(t, read(f.subscribe()), 0, 3)
}

func TestFindServesWhatIsInTheRing(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	s := f.subscribe()
	for range ringPackets {
		f.frame(2, true)
	}
	if _, ok := s.Find(ringPackets - 1); ok {
		t.Error("found a packet that has left the ring")
	}
	if _, ok := s.Find(2 * ringPackets); ok {
		t.Error("found a packet that hasn't come")
	}
	p, ok := s.Find(2*ringPackets - 1)
	if !ok || p.Index != 2*ringPackets-1 || !p.Marker() || p.Start {
		t.Fatalf("found %+v, %v", p, ok)
	}
	p.Release()
}

func TestAudioStartsWithTheNewestPacket(t *testing.T) {
	baseline(t)
	f := newFeed()
	defer f.clear(nil)
	for range 5 {
		f.frame(1, true)
	}
	expect(t, read(f.subscribe()), 4, 1)
}

func BenchmarkPush(b *testing.B) {
	f := newFeed()
	defer f.clear(nil)
	payload := make([]byte, 1188)
	b.ReportAllocs()
	for b.Loop() {
		buf := media.NewBuffer(10 * len(payload))
		for range 10 {
			buf.Append(payload)
		}
		buf.Start, buf.End = true, true
		f.push(buf)
	}
}
