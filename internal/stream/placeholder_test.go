package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// drawing is what a bench draws as placeholders: two keyframes of two packets.
var drawing = [][][]byte{{{'a'}, {'b'}}, {{'c'}, {'d'}}}

func (b *bench) draws(keyframes [][][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drawn = keyframes
}

// asked are the placeholders that were asked for.
func (b *bench) asked() []config.Placeholder {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.placeholders)
}

// awaitAsked waits until that many were asked for.
func (b *bench) awaitAsked(t *testing.T, n int) {
	t.Helper()
	late := time.After(deadline)
	for len(b.asked()) < n {
		select {
		case <-b.another:
		case <-late:
			t.Fatalf("%d of %d placeholders were asked for", len(b.asked()), n)
		}
	}
}

// audience reads a subscription whenever something is due.
type audience struct {
	*Subscription
	due chan struct{}
}

func listen(t *testing.T, s *Stream) *audience {
	t.Helper()
	return listenTo(t, s, "video")
}

func listenTo(t *testing.T, s *Stream, track string) *audience {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := s.Tracks(ctx); err != nil {
		t.Fatal(err)
	}
	a := &audience{subscribeTo(t, s, track), make(chan struct{}, 1)}
	a.Notify(func() { signal(a.due) })
	return a
}

// packet is what a test looks at of one.
type packet struct {
	index       uint64
	payload     string
	capture     time.Duration
	placeholder bool
}

// next waits for n packets.
func (a *audience) next(t *testing.T, n int) (all []packet) {
	t.Helper()
	for len(all) < n {
		for _, p := range a.Next(make([]media.Packet, 0, n-len(all))) {
			all = append(all, packet{p.Index, string(p.Payload()), p.Buffer.Capture, p.Buffer.Placeholder})
			p.Release()
		}
		if len(all) < n {
			receive(t, a.due, fmt.Sprintf("packet %d of %d", len(all)+1, n))
		}
	}
	return all
}

func TestViewersSeeAPlaceholderWhileTheSourceIsAway(t *testing.T) {
	b := newBench()
	b.plan.Feeds[0].What = "camera"
	b.draws(drawing)
	s := start(t, b, func(c *config.Stream) { c.Title = "Front door" })
	early := listen(t, s)
	l, e := begun(t, b)
	e.frame(true)
	live := early.next(t, 1)
	waitState(t, s, Live)
	gone := absent(fmt.Errorf("no camera: %w", media.ErrAbsent))
	gone.Feeds[0].What = "camera"
	b.set(gone, errors.New("no such device"))
	l.sink.Fail(errors.New("no such device"))

	got := early.next(t, 6) // it comes again and again, by turns
	var seen string
	last := live[0]
	for _, p := range got {
		seen += p.payload
		if !p.placeholder || p.index != last.index+1 || p.capture < last.capture {
			t.Fatalf("after %+v comes %+v", last, p)
		}
		last = p
	}
	if seen != "abcdab" {
		t.Errorf("seen %q", seen)
	}
	i := waitInfo(t, s, "a placeholder", func(i Info) bool { return i.Placeholder })
	if i.State != Absent && i.State != Restarting {
		t.Errorf("%+v", i)
	}
	late := listen(t, s)
	if p := late.next(t, 2); !p[0].placeholder {
		t.Errorf("who comes meanwhile sees %+v", p)
	}
	asked := b.asked()
	if n := len(asked); n == 0 || n > 2 {
		t.Fatalf("%d were made", n) // one more where the words have changed
	}
	if p := asked[0]; p.Title != "Front door" || p.Text == "" || p.Codec != media.VP8 || len(p.Last) != 1 || string(p.Last[0]) != "\x00" {
		t.Errorf("%+v", p)
	}

	b.set(one("x", vp8("video")), nil)
	l, e = begun(t, b)
	e.frame(false) // follows nothing that is seen
	for receive(t, l.keyframes, "keyframe request") != e.id {
	}
	e.frame(true)
	for _, a := range []*audience{early, late} {
		for p := a.next(t, 1)[0]; p.placeholder; p = a.next(t, 1)[0] {
			last = p
		}
	}
	i = waitState(t, s, Live)
	if i.Placeholder {
		t.Error("it still says that viewers see a placeholder")
	}
	c := s.Counts()["video"]
	if c.Placeholders < 3 || c.Frames != 3 || c.Keyframes != 2 || c.PipelineTime != 3*7*time.Millisecond {
		t.Errorf("%+v", c)
	}
}

// A stream whose source isn't there from the start.
func TestViewerOfAnAbsentSourceSeesACard(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	plan.Feeds[0].Absent = fmt.Errorf("no screen: %w", media.ErrAbsent)
	b.set(plan, nil)
	b.draws(drawing)
	s := start(t, b, nil)
	a := listen(t, s)
	if p := a.next(t, 1)[0]; !p.placeholder {
		t.Errorf("seen %+v", p)
	}
	if p := b.asked()[0]; p.Last != nil || p.Text != "The source isn’t there. Back soon" {
		t.Errorf("%+v", p)
	}
}

// One rendition's encoder fails while the others go on.
func TestPlaceholderOfOneRendition(t *testing.T) {
	b := newBench()
	b.set(one("x", vp8("high"), vp8("low")), nil)
	b.draws(drawing)
	s := start(t, b, nil)
	high := listenTo(t, s, "high")
	runs := func(track int) { // what an encoder yields before doesn't count
		t.Helper()
		waitInfo(t, s, "the encoder to run", func(i Info) bool { return i.Tracks[track].Running })
	}
	l, e := begun(t, b)
	runs(0)
	e.frame(true)
	high.next(t, 1)
	subscribeTo(t, s, "low")
	o := receive(t, l.started, "the other encoder")
	runs(1)
	o.frame(true)
	l.mu.Lock()
	l.refuse = errors.New("out of sessions")
	l.mu.Unlock()
	l.sink.Ended(e.id, errors.New("driver fault"))
	if p := high.next(t, 1)[0]; !p.placeholder {
		t.Errorf("seen %+v", p)
	}
	if i := s.Info(); i.State != Live || !i.Placeholder {
		t.Errorf("%+v", i)
	}
	l.mu.Lock()
	l.refuse = nil
	l.mu.Unlock()
	e = receive(t, l.started, "the encoder again")
	runs(0)
	e.frame(true)
	for high.next(t, 1)[0].placeholder {
	}
	waitInfo(t, s, "no placeholder", func(i Info) bool { return !i.Placeholder })
}

// The process that makes them begins anew when a device goes: one that came too late was
// never tried again, and viewers saw nothing until the device was back.
func TestPlaceholderThatCouldNotBeMadeIsTriedAgain(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	plan.Feeds[0].Absent = fmt.Errorf("no screen: %w", media.ErrAbsent)
	b.set(plan, nil)
	s := start(t, b, nil)
	a := listen(t, s)
	b.awaitAsked(t, 1)
	if s.Info().Placeholder {
		t.Error("it says that there is one")
	}
	b.draws(drawing)
	if p := a.next(t, 1)[0]; !p.placeholder {
		t.Errorf("seen %+v", p)
	}
	if n := len(b.asked()); n < 2 {
		t.Errorf("tried %d times", n)
	}
}

// What can't be made at all is tried ever more seldom.
func TestPlaceholderThatCannotBeMade(t *testing.T) {
	p, now, tries := new(placeholder), time.Duration(0), 0
	for now < 10*time.Minute {
		p.take(made{err: errors.New("no encoder")}, now)
		if p.again-now < placeholderRetry || p.again-now > placeholderRest {
			t.Fatalf("after %v it is tried again in %v", now, p.again-now)
		}
		now, tries = p.again, tries+1
	}
	if tries > 16 {
		t.Errorf("%d tries in ten minutes", tries)
	}
	p.take(made{keyframes: drawing, words: "w"}, now)
	if p.again != 0 || p.wait != 0 || p.words != "w" {
		t.Errorf("%+v", p)
	}
}

// One rendition's picture takes long to make: the other's is shown all the same.
func TestPlaceholderIsShownWhileAnotherIsMade(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("high"), branch("low", media.H264, "x264enc name=encoder"))
	plan.Feeds[0].Absent = fmt.Errorf("no screen: %w", media.ErrAbsent)
	b.set(plan, nil)
	b.draws(drawing)
	slow := make(chan struct{})
	b.slow = map[media.Codec]chan struct{}{media.H264: slow}
	s := start(t, b, nil)
	high := listenTo(t, s, "high")
	high.next(t, 2)
	low := listenTo(t, s, "low")
	b.awaitAsked(t, 2)
	high.next(t, 4)
	close(slow)
	if p := low.next(t, 1)[0]; !p.placeholder {
		t.Errorf("seen %+v", p)
	}
}

// A picture for a page is one of the source.
func TestSnapshotIsNoPlaceholder(t *testing.T) {
	f := newFeed()
	defer f.clear(nil)
	show := func() {
		p := placeholder{keyframes: drawing}
		p.show(f.ring, media.Now())
	}
	show()
	got := make(chan [][]byte, 1)
	s := f.subscribe()
	go func() {
		payloads, err := s.keyframe(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- payloads
	}()
	f.frame(3, true)
	if payloads := receive(t, got, "keyframe"); len(payloads) != 3 || payloads[0][0] != 0 {
		t.Errorf("%q", payloads)
	}
	if last := f.lastKeyframe(); len(last) != 3 {
		t.Errorf("the last keyframe is %q", last)
	}
	f.push(buffer(2, func(b *media.Buffer) { b.Start, b.Keyframe = true, true })) // its end never came
	f.frame(1, false)
	if last := f.lastKeyframe(); last != nil {
		t.Errorf("half a keyframe is %q", last)
	}
}
