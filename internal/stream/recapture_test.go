package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

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
