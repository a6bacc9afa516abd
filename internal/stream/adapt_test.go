package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// adaptive is a branch whose bitrate follows, of 640x360 at 30 with two smaller
// pictures.
func adaptive(name string) config.Branch {
	b := vp8(name)
	b.Track.MinBps, b.Track.MaxBps = 200_000, 2_000_000
	b.Track.Width, b.Track.Height, b.Track.FPS = 640, 360, 30
	b.Reduced = [config.Reductions]config.Reduced{
		{Launch: "half-rate ! " + b.Launch, Width: 640, Height: 360, FPS: 15},
		{Launch: "half-size ! " + b.Launch, Width: 320, Height: 180, FPS: 15},
	}
	return b
}

// told waits until the encoder was told a bitrate.
func told(t *testing.T, e *encoder, bps int) {
	t.Helper()
	for last := 0; last != bps; {
		last = receive(t, e.bps, "bitrate")
	}
}

func TestEncoderFollowsWhatItsViewersNetworksCarry(t *testing.T) {
	b := newBench()
	b.set(one("x", adaptive("video")), nil)
	s := start(t, b, nil)
	first := subscribe(t, s)
	_, e := begun(t, b)
	e.frame(true)
	if got := first.Carry(1_500_000); got != 1_410_000 {
		t.Errorf("with 1.5 Mbit/s it would run at %d", got)
	}
	told(t, e, 1_410_000)
	first.Carry(500_000)
	told(t, e, 470_000) // at once, in one step
	if !e.scarce.Load() {
		t.Error("the encoder isn't told that its viewers' networks carry less than is configured")
	}
	first.Carry(100_000_000)
	told(t, e, 2_000_000)
	if e.scarce.Load() {
		t.Error("the encoder isn't told that its viewers' networks carry what is configured")
	}

	// of six the second slowest counts, and those of whom nothing is known don't
	subscribe(t, s)
	others := []int{900_000, 800_000, 1_000_000, 1_000_000, 300_000}
	for _, bps := range others {
		subscribe(t, s).Carry(bps)
	}
	told(t, e, 752_000)
	i := waitInfo(t, s, "a remembered decision", func(i Info) bool {
		d := i.Tracks[0].Adaptation.Decisions
		return len(d) > 0 && d[len(d)-1].To == "752 kbit/s"
	})
	a := i.Tracks[0].Adaptation
	if a.Target != 752_000 || a.Level != 0 || !strings.Contains(a.Reason, "6 viewers") || i.Tracks[0].Bitrate != 1_000_000 {
		t.Errorf("told: %+v of %+v", a, i.Tracks[0])
	}
	if got := s.Target("video", 100_000); got != 752_000 { // it would drag the others to 282k
		t.Errorf("a seventh must carry %d", got)
	}
	if got := first.Carry(200_000); got != 282_000 { // what the slowest of the others has without it
		t.Errorf("a viewer slower than the others must carry %d", got)
	}
	if got := s.Target("nothing", 100_000); got != 0 {
		t.Errorf("target %d of no track", got)
	}
}

func TestEncoderStartsAtWhatItsFirstViewerCarries(t *testing.T) {
	b := newBench()
	b.set(one("x", adaptive("video")), nil)
	b.refuse = errors.New("busy")
	s := start(t, b, nil)
	waitTracks(t, s)
	if got := s.Target("video", 150_000); got != 141_000 {
		t.Errorf("it would start at %d", got)
	}
	sub := subscribe(t, s)
	waitState(t, s, Restarting)
	sub.Carry(150_000)
	b.set(b.plan, nil)
	_, e := begun(t, b)
	if !strings.HasPrefix(e.branch.Launch, "half-rate") || !strings.Contains(e.branch.Launch, "target-bitrate=141000") {
		t.Errorf("starts with %q", e.branch.Launch)
	}
	if e.branch.Track.Bps != 1_000_000 {
		t.Errorf("configured: %d", e.branch.Track.Bps)
	}
}

// Below what the picture needs, a smaller one takes over at a keyframe, and viewers
// lose nothing.
func TestSmallerPictureTakesOverForASlowNetwork(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", adaptive("video")))
	sub.Carry(60_000)
	small := receive(t, l.started, "encoder of a smaller picture")
	if !strings.HasPrefix(small.branch.Launch, "half-size") || !strings.Contains(small.branch.Launch, "target-bitrate=56400") {
		t.Errorf("launched %q", small.branch.Launch)
	}
	e.frame(false)
	expect(t, read(sub), 1, 1) // the old one goes on
	small.frame(true)
	receive(t, e.stopped, "end of the old encoder")
	e.frame(false)
	expect(t, read(sub), 2, 1)
	i := waitInfo(t, s, "level and decisions", func(i Info) bool {
		a := i.Tracks[0].Adaptation
		return a.Level == 2 && len(a.Decisions) == 3
	})
	track := i.Tracks[0]
	if track.Width != 320 || track.Height != 180 || track.FPS != 15 || track.Bitrate != 1_000_000 {
		t.Errorf("track %+v", track)
	}
	var what []string
	for _, d := range track.Adaptation.Decisions {
		what = append(what, d.What+" "+d.From+" "+d.To)
	}
	for _, w := range []string{"bitrate 1.0 Mbit/s 56 kbit/s", "framerate 30 15", "size 640x360 320x180"} {
		if !slices.Contains(what, w) {
			t.Errorf("no decision %q among %q", w, what)
		}
	}
	if i.Restarts != 0 || !s.Current(sub) {
		t.Errorf("%d restarts, current: %t", i.Restarts, s.Current(sub))
	}
}

func TestEncoderThatIsTooSlowIsGivenLess(t *testing.T) {
	b := newBench()
	fixed := adaptive("video")
	fixed.Track.MinBps, fixed.Track.MaxBps = 1_000_000, 1_000_000 // not for the network's sake
	b.set(one("x", fixed, vp8("low")), nil)
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	sub.Carry(60_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; {
			select {
			case <-tick.C:
				e.frame(false)
				l.sink.Dropped(e.id, 1)
			case <-ctx.Done():
				tick.Stop()
			}
		}
	}()
	small := receive(t, l.started, "encoder of fewer frames")
	cancel()
	<-fed
	if !strings.HasPrefix(small.branch.Launch, "half-rate") {
		t.Errorf("launched %q", small.branch.Launch)
	}
	small.frame(true)
	i := waitInfo(t, s, "level", func(i Info) bool { return i.Tracks[0].Adaptation.Level == 1 })
	if a := i.Tracks[0].Adaptation; !strings.Contains(a.Reason, "50 % of the captured frames") || a.Counts["framerate"] != 1 {
		t.Errorf("told: %+v", a)
	}
}

func TestSmallerPictureThatCannotBeMadeLeavesTheOldOne(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", adaptive("video")))
	l.mu.Lock()
	l.refuse = errors.New("one session at a time")
	l.mu.Unlock()
	sub.Carry(60_000)
	i := waitInfo(t, s, "refusal", func(i Info) bool {
		d := i.Tracks[0].Adaptation.Decisions
		return len(d) > 0 && strings.Contains(d[len(d)-1].Reason, "one session at a time")
	})
	if a := i.Tracks[0].Adaptation; a.Level != 0 || i.Restarts != 0 {
		t.Errorf("level %d, %d restarts", a.Level, i.Restarts)
	}
	e.frame(false)
	expect(t, read(sub), 1, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.blamed) != 0 {
		t.Errorf("blamed: %v", b.blamed)
	}
}

// The reduced picture survives a look at the plan, a failure, and an edit of
// something else; an edit of the picture makes the new one at the same level.
func TestReducedPictureStays(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", adaptive("video")))
	sub.Carry(60_000)
	small := receive(t, l.started, "encoder of a smaller picture")
	small.frame(true)
	receive(t, e.stopped, "end of the old encoder")

	conf := *s.Config()
	conf.Title = "Another"
	if err := s.Apply(t.Context(), &conf); err != nil {
		t.Fatal(err)
	}
	if r := s.Info().Reload; r.Message != "title" {
		t.Errorf("changed: %q", r.Message)
	}
	l.sink.Ended(small.id, errors.New("driver reset"))
	receive(t, small.stopped, "end of the failed encoder")
	again := receive(t, l.started, "encoder after the failure")
	if !strings.HasPrefix(again.branch.Launch, "half-size") {
		t.Errorf("after a failure: %q", again.branch.Launch)
	}
	again.frame(true)

	other := adaptive("video")
	other.Launch = "other ! " + other.Launch
	other.Reduced[1].Launch = "other ! " + other.Reduced[1].Launch
	result := apply(t, s, b, one("x", other))
	edited := receive(t, l.started, "encoder after the edit")
	if !strings.HasPrefix(edited.branch.Launch, "other ! half-size") {
		t.Errorf("after an edit: %q", edited.branch.Launch)
	}
	edited.frame(true)
	applied(t, result, s)
	if i := s.Info(); i.Tracks[0].Adaptation.Level != 2 || i.Tracks[0].Width != 320 {
		t.Errorf("track %+v", i.Tracks[0])
	}
}

// Only who has nowhere lower to go is given a smaller picture for the network's sake.
func TestOnlyTheLowestRenditionOfACodecIsReducedForNetworks(t *testing.T) {
	b := newBench()
	high, low, other := adaptive("high"), adaptive("low"), adaptive("other")
	other.Track.Codec = media.H264
	b.set(one("x", high, other, low), nil)
	s := start(t, b, nil)
	waitTracks(t, s)
	for track, want := range map[string]int{"high": 200_000, "other": 56_400, "low": 56_400} {
		if got := s.Target(track, 60_000); got != want {
			t.Errorf("%s would run at %d, want %d", track, got, want)
		}
	}
}

func TestAudioAndCopiesAreNotAdapted(t *testing.T) {
	b := newBench()
	b.set(one("x", config.Branch{Track: media.Track{Name: "video", Kind: media.Video, Codec: media.H264, Bps: 3_000_000}, Copy: true}), nil)
	s := start(t, b, nil)
	sub := subscribe(t, s)
	_, e := begun(t, b)
	e.frame(true)
	if got := sub.Carry(60_000); got != 3_000_000 {
		t.Errorf("a copy would run at %d", got)
	}
	if a := s.Info().Tracks[0].Adaptation; a != nil {
		t.Errorf("told: %+v", a)
	}
}

// Fifty viewers who lose packets all the time cause two keyframes a second at most.
func TestLossyViewersCauseNoKeyframeStorm(t *testing.T) {
	r := newRing(media.Track{})
	r.poke = func() {}
	var subs []*Subscription
	for range 50 {
		s := &Subscription{ring: r, leave: func() {}}
		r.attach(s)
		subs = append(subs, s)
	}
	asked := 0
	at := media.Now()
	for ms := range 10_000 {
		subs[ms%50].RequestKeyframe() // each twenty times a second
		if ask, _ := r.ask(nil, at+time.Duration(ms)*time.Millisecond); ask {
			asked++
			r.push(buffer(1, func(b *media.Buffer) { b.Start, b.End, b.Keyframe = true, true, true }))
		}
	}
	if asked < 19 || asked > 20 {
		t.Errorf("%d keyframes asked for within 10 s", asked)
	}
	for _, s := range subs {
		s.Close()
	}
	r.clear(nil)
}

func BenchmarkCarry(b *testing.B) {
	for _, n := range []int{1, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRing(media.Track{})
			r.adapt.limit(limits(adaptive("video"), true))
			var subs []*Subscription
			for range n {
				s := &Subscription{ring: r, leave: func() {}}
				r.attach(s)
				subs = append(subs, s)
			}
			for i := range b.N {
				subs[i%n].Carry(1_000_000 + i*7919%500_000)
			}
		})
	}
}
