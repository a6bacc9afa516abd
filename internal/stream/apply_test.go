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

// live starts a stream with a viewer who sees its first frame.
func live(t *testing.T, b *bench, plan config.Plan) (*Stream, *Subscription, *line, *encoder) {
	t.Helper()
	b.set(plan, nil)
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	expect(t, read(sub), 0, 1)
	return s, sub, l, e
}

// apply changes the configuration in the background, so that the test can play
// the pipelines meanwhile.
func apply(t *testing.T, s *Stream, b *bench, plan config.Plan) <-chan error {
	t.Helper()
	b.set(plan, nil)
	result := make(chan error, 1)
	conf := *s.Config()
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		result <- s.Apply(ctx, &conf)
	}()
	return result
}

func applied(t *testing.T, result <-chan error, s *Stream) {
	t.Helper()
	if err := receive(t, result, "outcome"); err != nil {
		t.Fatal(err)
	}
	if r := s.Info().Reload; r == nil || !r.OK {
		t.Fatalf("reload %+v", r)
	}
}

func waitTracks(t *testing.T, s *Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := s.Tracks(ctx); err != nil {
		t.Fatal(err)
	}
}

func never[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
		t.Fatal(what)
	default:
	}
}

func TestEncoderRunsOnlyWhileItsRenditionIsWatched(t *testing.T) {
	b := newBench()
	s, high, l, first := live(t, b, one("x", vp8("video"), vp8("low")))
	never(t, l.started, "the low rendition is encoded though nobody watches it")
	low := subscribeTo(t, s, "low")
	second := receive(t, l.started, "second encoder")
	if second.branch.Track.Name != "low" {
		t.Fatalf("encoder of %q", second.branch.Track.Name)
	}
	second.frame(true)
	expect(t, read(low), 0, 1)
	low.Close()
	receive(t, second.stopped, "end of the low rendition's encoder")
	never(t, first.stopped, "the other encoder was stopped")
	first.frame(false)
	expect(t, read(high), 1, 1)
}

func TestEncoderThatFailsIsStartedAgainAloneAndBlamed(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", vp8("video"), vp8("low")))
	low := subscribeTo(t, s, "low")
	other := receive(t, l.started, "second encoder")
	other.frame(true)
	expect(t, read(low), 0, 1)

	l.sink.Ended(other.id, errors.New("out of surfaces"))
	receive(t, other.stopped, "end of the failed encoder")
	again := receive(t, l.started, "encoder, anew")
	again.frame(false)
	again.frame(true)
	expect(t, read(low), 2, 1)
	e.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, l.closed, "the capture was stopped")
	b.mu.Lock()
	defer b.mu.Unlock()
	if fmt.Sprint(b.blamed) != "[low]" {
		t.Errorf("blamed: %v", b.blamed)
	}
}

func TestStreamWhoseOnlyEncoderFailsSaysWhy(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	for range 2 {
		l.sink.Ended(e.id, errors.New("it has B-frames"))
		if i := waitState(t, s, Restarting); i.Reason != "it has B-frames" {
			t.Errorf("reason %q", i.Reason)
		}
		e = receive(t, l.started, "encoder, anew")
		e.frame(true)
		waitState(t, s, Live)
	}
}

func TestEncoderThatFailedIsReplacedByWhatThePlanHasThen(t *testing.T) {
	b := newBench()
	_, sub, l, e := live(t, b, one("x", branch("video", media.H264, "hardware name=encoder")))
	b.set(one("x", branch("video", media.H264, "software name=encoder")), nil)
	l.sink.Ended(e.id, errors.New("device lost"))
	soft := receive(t, l.started, "another encoder")
	for !strings.HasPrefix(soft.branch.Launch, "software") {
		soft = receive(t, l.started, "another encoder")
	}
	for begun := time.Now(); len(read(sub)) == 0; { // what it makes before it is taken on is lost
		if time.Since(begun) > 10*time.Second {
			t.Fatal("nothing of the other encoder is read")
		}
		soft.frame(true)
		time.Sleep(time.Millisecond)
	}
}

func TestBitrateAloneIsSetOnTheRunningEncoder(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", vp8("video")))
	plan := one("x", vp8("video").WithBitrate(400_000))
	applied(t, apply(t, s, b, plan), s)
	if bps := receive(t, e.bps, "bitrate"); bps != 400_000 {
		t.Errorf("bitrate %d", bps)
	}
	never(t, l.started, "another encoder was started")
	if i := s.Info(); i.Tracks[0].Bitrate != 400_000 {
		t.Errorf("bitrate is told as %d", i.Tracks[0].Bitrate)
	}
	e.frame(false)
	expect(t, read(sub), 1, 1)
}

// What isn't launched is told all the same, because viewers see it.
func TestChangeOfWhatIsNotLaunchedIsTold(t *testing.T) {
	s, _, _, _ := live(t, newBench(), one("x", vp8("video")))
	conf := *s.Config()
	conf.Sync, conf.Linger = config.SyncVideoFirst, time.Minute
	if err := s.Apply(t.Context(), &conf); err != nil {
		t.Fatal(err)
	}
	if r := s.Info().Reload; r == nil || r.Message != "linger: 1m0s, sync: video-first" {
		t.Errorf("reload %+v", r)
	}
}

func TestNewEncoderTakesOverAtItsKeyframe(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	result := apply(t, s, b, one("x", branch("video", media.VP8, "vp8enc name=encoder cpu-used=4")))
	e := receive(t, l.started, "new encoder")
	old.frame(false)
	expect(t, read(sub), 1, 1)
	e.frame(false) // nothing to begin with
	old.frame(false)
	expect(t, read(sub), 2, 1)
	e.frame(true)
	applied(t, result, s)
	e.frame(false)
	expect(t, read(sub), 3, 2)
	receive(t, old.stopped, "end of the old encoder")
	never(t, l.closed, "the capture was stopped")
}

func TestNewEncoderThatDoesNotStartLeavesTheOldOne(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	l.mu.Lock()
	l.refuse = errors.New("no such property")
	l.mu.Unlock()
	err := receive(t, apply(t, s, b, one("x", branch("video", media.VP8, "vp8enc name=encoder bad=4"))), "outcome")
	if err == nil || !strings.Contains(err.Error(), "no such property") {
		t.Fatalf("outcome %v", err)
	}
	if r := s.Info().Reload; r.OK || !strings.Contains(r.Message, "no such property") {
		t.Errorf("reload %+v", r)
	}
	old.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, old.stopped, "the old encoder was stopped")
}

func TestNewEncoderWithoutAKeyframeLeavesTheOldOne(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	result := apply(t, s, b, one("x", branch("video", media.VP8, "vp8enc name=encoder cpu-used=4")))
	e := receive(t, l.started, "new encoder")
	frames := time.NewTicker(10 * time.Millisecond)
	defer frames.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-result:
			waiting = false
		case <-frames.C:
			e.frame(false)
			old.frame(false)
			if n := len(read(sub)); n != 1 {
				t.Fatalf("read %d packets", n)
			}
		}
	}
	if err == nil || !strings.Contains(err.Error(), "no keyframe") {
		t.Fatalf("outcome %v", err)
	}
	receive(t, e.stopped, "end of the new encoder")
	old.frame(false)
	if n := len(read(sub)); n != 1 {
		t.Fatalf("read %d packets", n)
	}
}

func TestViewersKeepTheOldCodecUntilTheyHaveMoved(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	result := apply(t, s, b, one("x", branch("video", media.H264, "x264enc name=encoder")))
	e := receive(t, l.started, "new encoder")
	e.frame(true)
	applied(t, result, s)
	if i := s.Info(); i.Tracks[0].Codec != media.H264 || len(i.Tracks) != 1 {
		t.Fatalf("tracks %+v", i.Tracks)
	}
	old.frame(false)
	expect(t, read(sub), 1, 1)
	moved := subscribeTo(t, s, "video")
	e.frame(false)
	expect(t, read(moved), 0, 2)
	sub.Close()
	receive(t, old.stopped, "end of the old encoder")
	e.frame(false)
	expect(t, read(moved), 2, 1)
}

func TestNewCaptureTakesOverAtItsKeyframe(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	result := apply(t, s, b, one("y", vp8("video")))
	second, e := begun(t, b)
	if second.feed.Capture != "y" {
		t.Fatalf("captures %q", second.feed.Capture)
	}
	old.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, l.closed, "the old capture was stopped")
	e.frame(true)
	applied(t, result, s)
	receive(t, l.closed, "end of the old capture")
	e.frame(false)
	expect(t, read(sub), 2, 2)
	if i := waitState(t, s, Live); i.Restarts != 0 {
		t.Errorf("%d restarts", i.Restarts)
	}
}

func TestNewCaptureThatDoesNotStartLeavesTheOldOne(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	b.set(one("y", vp8("video")), errors.New("no such element"))
	conf := *s.Config()
	if err := s.Apply(t.Context(), &conf); err == nil || !strings.Contains(err.Error(), "no such element") {
		t.Fatalf("outcome %v", err)
	}
	old.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, l.closed, "the old capture was stopped")
}

func holding(device, capture string) config.Plan {
	p := one(capture, vp8("video"))
	p.Feeds[0].Devices = []string{device}
	return p
}

func TestDeviceIsReleasedBeforeTheNewCaptureOpensIt(t *testing.T) {
	b := newBench()
	s, sub, l, _ := live(t, b, holding("camera", "x"))
	result := apply(t, s, b, holding("camera", "y"))
	receive(t, l.closed, "end of the old capture")
	_, e := begun(t, b)
	e.frame(true)
	applied(t, result, s)
	expect(t, read(sub), 1, 1)
	waitState(t, s, Live)
}

func TestDeviceGoesBackToTheOldCaptureWhenTheNewOneFails(t *testing.T) {
	b := newBench()
	s, sub, l, _ := live(t, b, holding("camera", "x"))
	result := apply(t, s, b, holding("camera", "y"))
	receive(t, l.closed, "end of the old capture")
	second, _ := begun(t, b)
	second.sink.Fail(errors.New("not negotiated"))
	if err := receive(t, result, "outcome"); err == nil || !strings.Contains(err.Error(), "not negotiated") {
		t.Fatalf("outcome %v", err)
	}
	third, e := begun(t, b)
	for third.feed.Capture != "x" { // the new one is given up while it backs off
		third, e = begun(t, b)
	}
	e.frame(true)
	waitState(t, s, Live)
	expect(t, read(sub), 1, 1)
}

func TestAbsentSourceDoesNotReplaceOneThatRuns(t *testing.T) {
	b := newBench()
	s, sub, _, old := live(t, b, one("x", vp8("video")))
	err := receive(t, apply(t, s, b, absent(fmt.Errorf("no camera: %w", media.ErrAbsent))), "outcome")
	if !errors.Is(err, media.ErrAbsent) {
		t.Fatalf("outcome %v", err)
	}
	old.frame(false)
	expect(t, read(sub), 1, 1)
}

func TestSoundComesAndGoesWithoutTouchingThePicture(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", vp8("video")))
	both := one("x", vp8("video"))
	both.Feeds = append(both.Feeds, config.Feed{Name: "audio", Absent: fmt.Errorf("no microphone: %w", media.ErrAbsent)})
	applied(t, apply(t, s, b, both), s)
	if i := s.Info(); len(i.Tracks) != 1 || i.State != Live {
		t.Fatalf("%+v", i)
	}
	both.Feeds[1] = config.Feed{Name: "audio", Capture: "pulsesrc", Branches: []config.Branch{branch("audio", media.Opus, "opusenc name=encoder")}}
	result := apply(t, s, b, both)
	second, opus := begun(t, b)
	if second.feed.Capture != "pulsesrc" {
		t.Fatalf("captures %q", second.feed.Capture)
	}
	opus.frame(true)
	applied(t, result, s)
	sound := subscribeTo(t, s, "audio")
	expect(t, read(sound), 0, 1)
	applied(t, apply(t, s, b, one("x", vp8("video"))), s)
	sound.Close()
	receive(t, second.closed, "end of the sound's capture")
	e.frame(false)
	expect(t, read(sub), 1, 1)
	never(t, l.closed, "the picture's capture was stopped")
}

func TestRenditionsReplaceASingleTrack(t *testing.T) {
	b := newBench()
	s, sub, l, old := live(t, b, one("x", vp8("video")))
	result := apply(t, s, b, one("x", vp8("high"), vp8("low")))
	made := make(map[string]*encoder)
	for range 2 {
		e := receive(t, l.started, "encoder of a rendition")
		made[e.branch.Track.Name] = e
		e.frame(true)
	}
	applied(t, result, s)
	if made["high"] == nil || made["low"] == nil {
		t.Fatalf("tried %v", made)
	}
	if _, err := s.Subscribe("video"); err == nil {
		t.Error("the old track is still there")
	}
	moved := subscribeTo(t, s, "high")
	old.frame(false)
	expect(t, read(sub), 1, 1)
	sub.Close()
	receive(t, old.stopped, "end of the old encoder")
	expect(t, read(moved), 0, 1)
}

func TestChangeThatNobodySawIsTakenBackWhenItFails(t *testing.T) {
	b := newBench()
	b.set(one("x", vp8("video")), nil)
	s := start(t, b, nil)
	waitTracks(t, s)
	applied(t, apply(t, s, b, one("y", vp8("video"))), s)
	never(t, b.launched, "an idle stream was started")
	s.mu.Lock()
	s.previous = &config.Stream{Name: "desk", Title: "before", OnDemand: true}
	s.mu.Unlock()

	sub := subscribe(t, s)
	l, _ := begun(t, b)
	b.set(one("x", vp8("video")), nil)
	l.sink.Fail(errors.New("not negotiated"))
	second, e := begun(t, b)
	if second.feed.Capture != "x" {
		t.Fatalf("captures %q", second.feed.Capture)
	}
	e.frame(true)
	waitInfo(t, s, "the outcome, which is noted after the new pipeline plays", func(i Info) bool {
		return !i.Reload.OK && i.Title == "before" && strings.Contains(i.Reload.Message, "not negotiated")
	})
	expect(t, read(sub), 0, 1)
	waitState(t, s, Live)
}

func TestManyChangesLeaveNothingBehind(t *testing.T) {
	b := newBench()
	s, sub, _, e := live(t, b, one("x", vp8("video")))
	for i := range 50 {
		codec := media.VP8
		if i%3 == 1 {
			codec = media.H264
		}
		result := apply(t, s, b, one(fmt.Sprint("capture", i/2), branch("video", codec, fmt.Sprint("enc name=encoder x=", i))))
		for done := false; !done; {
			select {
			case err := <-result:
				if err != nil {
					t.Fatal(err)
				}
				done = true
			case l := <-b.launched:
				e = receive(t, l.started, "encoder")
				e.frame(true)
			case e = <-e.line.started:
				e.frame(true)
			}
		}
		sub.Close()
		sub = subscribeTo(t, s, "video")
		e.frame(true)
		read(sub)
	}
	if n := len(s.Info().Tracks); n != 1 {
		t.Errorf("%d tracks", n)
	}
	s.mu.Lock()
	captures := len(s.captures)
	s.mu.Unlock()
	if captures > 2 { // one may still be retiring
		t.Errorf("%d captures", captures)
	}
}

func TestCaptureThatFailedGoesOnWithAnotherEncoder(t *testing.T) {
	b := newBench()
	_, _, l, _ := live(t, b, one("x", branch("video", media.H264, "software name=encoder")))
	b.set(one("x", branch("video", media.H264, "hardware name=encoder")), nil)
	l.sink.Fail(errors.New("cable cut"))
	if _, e := begun(t, b); !strings.HasPrefix(e.branch.Launch, "hardware") {
		t.Errorf("encodes by %q", e.branch.Launch)
	}
}

func TestChangeIsTakenWhileTheCaptureBacksOff(t *testing.T) {
	b := newBench()
	s, _, l, _ := live(t, b, one("x", vp8("video")))
	b.set(one("x", vp8("video")), errors.New("busy"))
	l.sink.Fail(errors.New("cable cut"))
	waitState(t, s, Restarting)
	plan := one("x", branch("video", media.VP8, "vp8enc name=encoder cpu-used=4"))
	b.set(plan, errors.New("busy"))
	conf := *s.Config()
	if err := s.Apply(t.Context(), &conf); err != nil {
		t.Fatal(err)
	}
	b.set(plan, nil)
	if _, e := begun(t, b); !strings.Contains(e.branch.Launch, "cpu-used=4") {
		t.Errorf("encodes by %q", e.branch.Launch)
	}
}

// A rendition that an edit adds was tried by its first viewer, and taken back with
// all of the edit.
func TestNewTrackOfAWatchedStreamIsTried(t *testing.T) {
	b := newBench()
	s, sub, l, e := live(t, b, one("x", vp8("video")))
	before := s.Config()
	for _, plan := range []config.Plan{
		one("x", vp8("video"), vp8("low")),
		{Feeds: []config.Feed{one("x", vp8("video")).Feeds[0], {Name: "audio", Capture: "y", Branches: []config.Branch{branch("audio", media.Opus, "opusenc name=encoder")}}}},
	} {
		result := apply(t, s, b, plan)
		if len(plan.Feeds) == 1 {
			added := receive(t, l.started, "encoder of the new rendition")
			l.sink.Ended(added.id, errors.New("no such size"))
		} else {
			sound, _ := begun(t, b)
			sound.sink.Fail(errors.New("no such size"))
		}
		if err := receive(t, result, "outcome"); err == nil || !strings.Contains(err.Error(), "no such size") {
			t.Fatalf("outcome %v", err)
		}
		if i := s.Info(); len(i.Tracks) != 1 || s.Config() != before || i.Restarts != 0 || i.LastError != "" {
			t.Errorf("%+v", i)
		}
	}
	e.frame(false)
	expect(t, read(sub), 1, 1)
	result := apply(t, s, b, one("x", vp8("video"), vp8("low")))
	for done := false; !done; {
		select {
		case added := <-l.started: // the one that was tried may come to its end, and go on
			added.frame(true)
		case err := <-result:
			if done = true; err != nil {
				t.Fatal(err)
			}
		}
	}
	never(t, l.closed, "the capture was stopped")
}

// Only what is new since a change can be a reason to take it back.
func TestChangeStaysWhenWhatWasBeforeFails(t *testing.T) {
	b := newBench()
	b.set(one("x", vp8("video")), nil)
	s := start(t, b, nil)
	waitTracks(t, s)
	applied(t, apply(t, s, b, one("x", vp8("video"), vp8("low"))), s)
	changed := s.Config()
	subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	l.sink.Fail(errors.New("cable cut"))
	l, e = begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	if s.Config() != changed {
		t.Fatalf("the change was taken back: %+v", s.Info().Reload)
	}

	subscribeTo(t, s, "low")
	low := receive(t, l.started, "encoder of the new rendition")
	l.sink.Ended(low.id, errors.New("no such size"))
	waitInfo(t, s, "a rendition that doesn't work is taken back", func(i Info) bool { return i.Reload != nil && !i.Reload.OK })
	if s.Config() == changed {
		t.Error("a rendition that doesn't work stays")
	}
}

// An old codec's capture whose source is gone has no way to play until its viewers
// have moved.
func TestRetiredCaptureOfAnAbsentSourceEnds(t *testing.T) {
	b := newBench()
	s, sub, l, _ := live(t, b, one("x", vp8("video")))
	b.set(absent(fmt.Errorf("no camera: %w", media.ErrAbsent)), nil)
	l.sink.Fail(errors.New("unplugged"))
	waitState(t, s, Absent)
	s.mu.Lock()
	old := s.captures[0]
	s.mu.Unlock()
	result := apply(t, s, b, one("y", branch("video", media.H264, "x264enc name=encoder")))
	_, e := begun(t, b)
	e.frame(true)
	applied(t, result, s)
	sub.Close()
	receive(t, old.done, "end of the old capture")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.captures) != 1 {
		t.Errorf("%d captures", len(s.captures))
	}
}

func TestBitratesAreSetAllOrNone(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	sound := branch("audio", media.Opus, "opusenc name=encoder")
	plan.Feeds = append(plan.Feeds, config.Feed{Name: "audio", Capture: "y", Branches: []config.Branch{sound}})
	s, _, _, e := live(t, b, plan)
	subscribeTo(t, s, "audio")
	l, opus := begun(t, b)
	opus.frame(true)
	waitInfo(t, s, "sound", func(i Info) bool { return i.Tracks[1].Running })
	l.mu.Lock()
	l.fixed = errors.New("not while it runs")
	l.mu.Unlock()
	next := one("x", vp8("video").WithBitrate(400_000))
	next.Feeds = append(next.Feeds, config.Feed{Name: "audio", Capture: "y", Branches: []config.Branch{sound.WithBitrate(64_000)}})
	if err := receive(t, apply(t, s, b, next), "outcome"); err == nil || !strings.Contains(err.Error(), "not while it runs") {
		t.Fatalf("outcome %v", err)
	}
	for _, want := range []int{400_000, 1_000_000} {
		if bps := receive(t, e.bps, "bitrate"); bps != want {
			t.Errorf("bitrate %d, want %d", bps, want)
		}
	}
}

func TestBitrateThatChangesWhileTheEncoderStartsIsSet(t *testing.T) {
	b := newBench()
	s, _, l, _ := live(t, b, one("x", vp8("video"), vp8("low")))
	l.mu.Lock()
	l.starting = make(chan func())
	l.mu.Unlock()
	subscribeTo(t, s, "low")
	start := receive(t, (<-chan func())(l.starting), "start of the second encoder")
	applied(t, apply(t, s, b, one("x", vp8("video"), vp8("low").WithBitrate(400_000))), s)
	start()
	low := receive(t, l.started, "second encoder")
	if bps := receive(t, low.bps, "bitrate"); bps != 400_000 {
		t.Errorf("bitrate %d", bps)
	}
}

func TestDevicesOwnerIsNotAbsentWhileItPlays(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video"), vp8("low")))
	busy := one("x ! guessed", vp8("video"), vp8("low"))
	busy.Feeds[0].Absent = fmt.Errorf("device is busy: %w", media.ErrAbsent)
	b.set(busy, nil)
	l.sink.Ended(e.id, errors.New("out of surfaces"))
	e = receive(t, l.started, "encoder, anew")
	e.frame(true)
	waitState(t, s, Live)
	never(t, l.closed, "the capture was stopped")
}

// The branches of a whole feed go on yielding until it is closed.
func TestTrialThatFailsGivesItsBuffersBack(t *testing.T) {
	b := newBench()
	s, _, _, _ := live(t, b, one("x", vp8("video")))
	plan := one("y", vp8("video"))
	plan.Feeds[0].Whole = true
	result := apply(t, s, b, plan)
	l, e := begun(t, b)
	e.frame(false)
	l.last = func() { e.frame(false) }
	l.sink.Fail(errors.New("not negotiated"))
	if err := receive(t, result, "outcome"); err == nil {
		t.Fatal("the trial came out well")
	}
}

// A camera's own H.264 that turns out to have B-frames was started again and again,
// and its viewers saw nothing though there was another rendition.
func TestRenditionThatBrowsersDoNotPlayIsPassedOver(t *testing.T) {
	b := newBench()
	camera := config.Branch{Track: media.Track{Name: "camera", Kind: media.Video, Codec: media.H264}, Launch: "rtph264pay", Copy: true}
	plan := one("x", camera, vp8("low"))
	b.set(plan, nil)
	s := start(t, b, nil)
	waitTracks(t, s)
	sub := subscribeTo(t, s, "camera")
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)

	names := func() (names []string) {
		tracks, err := s.Tracks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, track := range tracks {
			names = append(names, track.Name)
		}
		return names
	}
	l.sink.Ended(e.id, fmt.Errorf("%w: it has B-frames", media.ErrUnplayable))
	i := waitInfo(t, s, "the refusal", func(i Info) bool { return i.Tracks[0].Refused != "" })
	if !strings.Contains(i.Tracks[0].Refused, "B-frames") || i.Tracks[1].Refused != "" {
		t.Errorf("tracks %+v", i.Tracks)
	}
	if s.Current(sub) || !slices.Equal(names(), []string{"low"}) {
		t.Errorf("viewers aren't moved: tracks %q", names())
	}
	if _, err := s.Subscribe("camera"); err == nil {
		t.Error("the refused rendition is given away")
	}
	low := subscribeTo(t, s, "low")
	sub.Close()
	other := receive(t, l.started, "encoder of the other rendition")
	if other.branch.Track.Name != "low" {
		t.Fatalf("encoder of %q", other.branch.Track.Name)
	}
	other.frame(true)
	expect(t, read(low), 0, 1)
	waitState(t, s, Live)

	applied(t, apply(t, s, b, plan), s)
	if !slices.Equal(names(), []string{"camera", "low"}) {
		t.Error("an edit doesn't give it another chance")
	}
}

// The only rendition is tried again: there is nothing better for its viewers.
func TestOnlyRenditionIsNotPassedOver(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	l.sink.Ended(e.id, fmt.Errorf("%w: it has B-frames", media.ErrUnplayable))
	again := receive(t, l.started, "encoder, anew")
	again.frame(true)
	if i := waitState(t, s, Live); i.Tracks[0].Refused != "" {
		t.Errorf("%+v", i.Tracks)
	}
}

// A camera that came back with other formats but didn't start was tried every two
// seconds, and the microphone, back as well, stayed absent meanwhile.
func TestSourceThatComesBackOtherwiseBacksOffAlone(t *testing.T) {
	b := newBench()
	feeds := func(camera string, gone error) config.Plan {
		plan := one(camera, vp8("video"))
		plan.Feeds = append(plan.Feeds, config.Feed{
			Name: "audio", Capture: "microphone", Branches: []config.Branch{branch("audio", media.Opus, "opusenc name=encoder")},
		})
		for i := range plan.Feeds {
			plan.Feeds[i].Absent = gone
		}
		return plan
	}
	gone := fmt.Errorf("unplugged: %w", media.ErrAbsent)
	s, _, camera, _ := live(t, b, feeds("camera", nil))
	state := func(feed string) State {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.captureOf(feed).state
	}
	look := func() { s.do(t.Context(), func() { s.look(nil) }) }
	b.set(feeds("camera", gone), nil)
	camera.sink.Fail(errors.New("unplugged"))
	waitState(t, s, Absent)
	if look(); state("audio") != Absent {
		t.Error("the microphone isn't absent")
	}

	b.set(feeds("camera, other caps", nil), nil)
	for want := absentPoll; ; want = min(2*want, backoffMax) {
		go look()
		l := receive(t, b.launched, "trial of the camera")
		l.sink.Fail(errors.New("not negotiated"))
		waitInfo(t, s, "the reason", func(i Info) bool { return i.State == Absent && strings.Contains(i.Reason, "not negotiated") })
		s.mu.Lock()
		c := s.captureOf("video")
		after := c.retry.after
		c.retry.at = c.retry.at.Add(time.Hour) // however slow this machine is
		s.mu.Unlock()
		look()
		never(t, b.launched, "the camera is tried again at once")
		if state("audio") != Idle {
			t.Error("the microphone is still absent")
		}
		s.mu.Lock()
		c.reason, c.retry.at = "", time.Now()
		s.mu.Unlock()
		if after != want {
			t.Errorf("a trial is followed by %v, want %v", after, want)
		}
		if want == backoffMax {
			break
		}
	}
}

// The first encoding in the order of their making was taken for the first rendition:
// after an edit that one was stopped at once, or the wrong one ran.
func TestFirstRenditionRunsAlwaysWhateverWasEdited(t *testing.T) {
	b := newBench()
	b.set(one("x", vp8("video")), nil)
	s := start(t, b, func(c *config.Stream) { c.OnDemand, c.Linger = false, 0 })
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	sub := subscribe(t, s)
	sub.Close()

	result := apply(t, s, b, one("x", vp8("high"), vp8("video")))
	high := receive(t, l.started, "encoder of the new first rendition")
	high.frame(true)
	applied(t, result, s)
	receive(t, e.stopped, "end of the encoder that isn't the first any more")

	result = apply(t, s, b, one("x", branch("high", media.H264, "x264enc name=encoder"), vp8("video")))
	h264 := receive(t, l.started, "encoder of the first rendition's new codec")
	old := subscribeTo(t, s, "high") // a viewer who can't be moved
	h264.frame(true)
	applied(t, result, s)
	s.mu.Lock()
	h := s.find("high")
	h.until = 0 // viewers had time to move
	wanted, again := h.wanted(media.Now())
	s.mu.Unlock()
	if !wanted || again != 0 {
		t.Error("the first rendition is to be stopped")
	}
	old.Close()
	receive(t, high.stopped, "end of the old codec's encoder")
	never(t, h264.stopped, "the first rendition was stopped")
	never(t, l.closed, "the capture was stopped")
}
