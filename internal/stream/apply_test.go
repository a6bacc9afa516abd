package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

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
