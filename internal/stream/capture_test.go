package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

func TestCaptureRunsWhileSomebodyWatches(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	sub.Close()
	receive(t, l.closed, "end of the pipeline")
	waitState(t, s, Idle)

	again := subscribe(t, s)
	_, e = begun(t, b)
	e.frame(true)
	expect(t, read(again), 1, 1) // numbers go on
}

func TestCaptureStaysForAViewerWhoComesWithinTheLingerTime(t *testing.T) {
	b := newBench()
	s := start(t, b, func(c *config.Stream) { c.Linger = time.Hour })
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	sub.Close()
	subscribe(t, s)
	select {
	case <-l.closed:
		t.Fatal("the pipeline was stopped")
	case <-b.launched:
		t.Fatal("another pipeline was launched")
	default:
	}
}

func TestStreamThatIsNotOnDemandCapturesAlways(t *testing.T) {
	b := newBench()
	start(t, b, func(c *config.Stream) { c.OnDemand = false })
	receive(t, b.launched, "pipeline")
}

func TestViewerStaysWhenThePipelineFails(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	first, e := begun(t, b)
	e.frame(true)
	expect(t, read(sub), 0, 1)
	waitState(t, s, Live)

	first.sink.Fail(errors.New("cable cut"))
	if i := waitState(t, s, Restarting); i.Reason != "cable cut" {
		t.Errorf("reason %q", i.Reason)
	}
	receive(t, first.closed, "end of the failed pipeline")
	_, again := begun(t, b)
	e.frame(true) // a late one of the dead pipeline is not for viewers
	again.frame(false)
	if got := read(sub); len(got) != 0 {
		t.Fatalf("read %v, which follows nothing", got)
	}
	again.frame(true)
	expect(t, read(sub), 2, 1)
	if i := waitState(t, s, Live); i.Restarts != 1 || i.LastError != "cable cut" {
		t.Errorf("restarts %d, last error %q", i.Restarts, i.LastError)
	}
}

func TestPipelineThatHangsIsToldOfBeforeItHasEnded(t *testing.T) {
	b := newBench()
	b.draws(drawing)
	s := start(t, b, nil)
	viewer := listen(t, s)
	l, e := begun(t, b)
	l.hangs = make(chan struct{})
	e.frame(true)
	viewer.next(t, 1)
	waitState(t, s, Live)
	l.sink.Fail(errors.New("stuck"))
	receive(t, l.closed, "end of the failed pipeline")
	if i := waitState(t, s, Restarting); i.Reason != "stuck" || i.Restarts != 0 {
		t.Errorf("while it hangs: %+v", i)
	}
	if p := viewer.next(t, 1)[0]; !p.placeholder {
		t.Errorf("while it hangs the viewer sees %+v", p)
	}
	close(l.hangs)
	_, again := begun(t, b)
	again.frame(true)
	if i := waitState(t, s, Live); i.Restarts != 1 {
		t.Errorf("afterwards: %+v", i)
	}
}

func TestPipelineThatDoesNotStartIsTriedAgain(t *testing.T) {
	b := newBench()
	b.set(b.plan, errors.New("busy"))
	s := start(t, b, nil)
	subscribe(t, s)
	if i := waitState(t, s, Restarting); i.Reason != "launch: busy" {
		t.Errorf("reason %q", i.Reason)
	}
	b.set(b.plan, nil)
	receive(t, b.launched, "pipeline")
}

func TestAbsentSourceAppears(t *testing.T) {
	b := newBench()
	b.set(absent(fmt.Errorf("no camera: %w", media.ErrAbsent)), nil)
	s := start(t, b, nil)
	if i := waitState(t, s, Absent); i.Reason == "" {
		t.Error("no reason")
	}
	b.set(one("x", vp8("video")), nil)
	waitState(t, s, Idle)
	subscribe(t, s)
	receive(t, b.launched, "pipeline")
}

func TestKeyframeRequestReachesThePipelineOnce(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	for range 50 {
		sub.RequestKeyframe()
	}
	if id := receive(t, l.keyframes, "keyframe request"); id != e.id {
		t.Errorf("asked for %q", id)
	}
	e.frame(true)
	sub.RequestKeyframe()
	receive(t, l.keyframes, "second keyframe request")
	if n := s.Counts()["video"].KeyframeRequests; n != 2 {
		t.Errorf("%d requests counted, want 2", n)
	}
}

// A pipeline that passes a camera's own H.264 through doesn't begin with a keyframe.
func TestKeyframeWishOutlivesThePipeline(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	first, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	read(sub)
	first.sink.Fail(errors.New("cable cut"))
	waitState(t, s, Restarting)
	sub.RequestKeyframe()
	second, again := begun(t, b)
	again.frame(false)
	receive(t, second.keyframes, "keyframe request")
}

func TestDescribedTrackIsTold(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	subscribe(t, s)
	l, e := begun(t, b)
	l.sink.Describe(e.id, media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 640, Height: 480})
	tracks, err := s.Tracks(t.Context())
	if err != nil || tracks[0].Width != 640 {
		t.Fatalf("tracks %+v, %v", tracks, err)
	}
}

func TestSnapshotTakesAKeyframeOfTheRunningPipeline(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	got := make(chan [][]byte, 1)
	go func() {
		_, payloads, err := s.Keyframe(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- payloads
	}()
	l, e := begun(t, b)
	l.sink.Deliver(e.id, buffer(3, func(b *media.Buffer) { b.Start, b.Keyframe = true, true }))
	l.sink.Deliver(e.id, buffer(2, func(b *media.Buffer) { b.End = true }))
	if payloads := receive(t, got, "keyframe"); len(payloads) != 5 {
		t.Errorf("%d payloads, want 5", len(payloads))
	}
}

func TestClosedStreamRefuses(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	sub := subscribe(t, s)
	_, e := begun(t, b)
	e.frame(true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal("second close:", err)
	}
	if got := read(sub); len(got) != 0 {
		t.Errorf("read %v", got)
	}
	if _, err := s.Subscribe("video"); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribe: %v", err)
	}
	if _, err := s.Tracks(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("tracks: %v", err)
	}
}

// A file that isn't played in a loop was started again with backoff, for ever.
func TestFileThatEndsIsPlayedAgainForTheNextViewer(t *testing.T) {
	b := newBench()
	plan := one("x", vp8("video"))
	plan.Feeds[0].Once = true
	for _, onDemand := range []bool{true, false} {
		b.set(plan, nil)
		s := start(t, b, func(c *config.Stream) { c.OnDemand = onDemand })
		sub := subscribe(t, s)
		l, e := begun(t, b)
		e.frame(true)
		waitState(t, s, Live)
		l.sink.Fail(fmt.Errorf("filesrc: %w", media.ErrEnded))
		receive(t, l.closed, "end of the pipeline")
		if i := waitState(t, s, Ended); i.Reason != "the file has ended" || i.Restarts != 0 || i.LastError != "" {
			t.Errorf("%+v", i)
		}
		second := subscribe(t, s)
		sub.Close()
		second.Close()
		if err := s.do(t.Context(), func() { s.look(nil) }); err != nil {
			t.Fatal(err)
		}
		if i := s.Info(); i.State != Ended {
			t.Errorf("state %q", i.State)
		}
		never(t, b.launched, "the file was played again for those who had seen its end")

		subscribe(t, s)
		l, e = begun(t, b)
		e.frame(true)
		waitState(t, s, Live)
		l.sink.Fail(media.ErrEnded)
		waitState(t, s, Ended)
		applied(t, apply(t, s, b, plan), s)
		l, _ = begun(t, b)
		s.Close()
		receive(t, l.closed, "end of the pipeline")
	}
}

// The end of a connection is no end of the stream.
func TestSourceThatEndsBeforeItsTimeIsStartedAgain(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	subscribe(t, s)
	l, _ := begun(t, b)
	l.sink.Fail(media.ErrEnded)
	begun(t, b)
	if i := s.Info(); i.Restarts != 1 || i.LastError == "" {
		t.Errorf("%+v", i)
	}
}

func TestFramesThatTheEncoderIsTooSlowForAreCounted(t *testing.T) {
	b := newBench()
	s, _, l, e := live(t, b, one("x", vp8("video")))
	l.sink.Dropped(e.id, 2)
	l.sink.Dropped(e.id, 1)
	l.sink.Dropped("nobody", 7)
	if n, told := s.Counts()["video"].DroppedFrames, s.Info().Tracks[0].Dropped; n != 3 || told != 3 {
		t.Errorf("%d counted, %d told", n, told)
	}
}
