package gst

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// capture launches a feed for the test.
func capture(t *testing.T, feed *config.Feed) (*Pipeline, *split) {
	t.Helper()
	before := media.LiveBuffers()
	s := newSplit()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	p, err := Launch(ctx, "test", feed, s, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range s.ids {
			for len(c) > 0 {
				(<-c).Release()
			}
		}
		if now := media.LiveBuffers(); now != before {
			t.Errorf("%d buffers in use, %d before the test", now, before)
		}
	})
	return p, s
}

func branchOf(launch string, codec media.Codec) *config.Branch {
	return &config.Branch{
		Launch: launch, Track: media.Track{Name: "video", Kind: codec.Kind(), Codec: codec},
		Bitrate: config.BitrateProperty{Property: "bitrate", Unit: 1000, Live: true},
	}
}

func start(t *testing.T, p *Pipeline, id string, b *config.Branch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := p.Start(ctx, id, b); err != nil {
		t.Fatal(err)
	}
}

const picture = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1"

func feed(text string) *config.Feed { return &config.Feed{Name: "video", Capture: text} }

func TestBranchBeginsWithAKeyframeAtOnce(t *testing.T) {
	p, s := capture(t, feed(picture))
	var took []time.Duration
	for i := range 10 {
		id := fmt.Sprintf("video#%d", i)
		began := media.Now()
		start(t, p, id, branchOf(x264, media.H264))
		_, arrived, key := s.frame(t, id)
		if !key {
			t.Error("the first frame is no keyframe")
		}
		took = append(took, arrived-began)
		p.Stop(id)
	}
	t.Log("from Start to the first packet:", took)
	for _, d := range took {
		if d > 300*time.Millisecond {
			t.Errorf("the first packet took %v", d)
		}
	}
}

// A clock that shows one picture in an hour gives a new viewer a picture all the same.
func TestBranchOfASlowCaptureBeginsWithItsLastPicture(t *testing.T) {
	p, s := capture(t, feed("videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=1/3600"))
	start(t, p, "first", branchOf(x264, media.H264))
	captured, _, _ := s.frame(t, "first")
	start(t, p, "second", branchOf(x264, media.H264))
	again, _, key := s.frame(t, "second")
	if !key || again != captured {
		t.Errorf("key=%v, captured at %v and at %v", key, captured, again)
	}
}

func TestBranchesGoOnWhileOthersComeAndGo(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "high", branchOf(x264, media.H264))
	s.frame(t, "high")
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if err := p.Start(context.Background(), "low", branchOf("vp8enc deadline=1 cpu-used=16 ! rtpvp8pay", media.VP8)); err != nil {
				t.Error(err)
			}
			select {
			case b := <-s.of("low"):
				b.Release()
			case err := <-s.ended:
				t.Error(err)
			case <-time.After(deadline):
				t.Error("no buffer of the other")
			}
			p.Stop("low")
			for len(s.of("low")) > 0 {
				(<-s.of("low")).Release()
			}
		}
	}()
	var last, widest time.Duration
	frames := 0
	for ; frames < 90; frames++ {
		captured, _, key := s.frame(t, "high")
		if key {
			t.Errorf("frame %d is a keyframe", frames)
		}
		if last > 0 {
			widest = max(widest, captured-last)
		}
		last = captured
	}
	close(stop)
	if n := <-done; n < 10 {
		t.Errorf("the other was started %d times", n)
	} else {
		t.Logf("the other was started %d times; widest gap between captures %v", n, widest)
	}
	if n := s.drops("high"); n > 3 { // a busy machine may cost one
		t.Errorf("%d frames dropped", n)
	}
}

func TestStoppedBranchIsSilent(t *testing.T) {
	p, s := capture(t, feed(picture))
	for range 20 {
		start(t, p, "video", branchOf(x264, media.H264))
		s.next(t, "video").Release()
		p.Stop("video")
		for len(s.of("video")) > 0 {
			(<-s.of("video")).Release()
		}
		runtime.Gosched()
		if n := len(s.of("video")); n > 0 {
			t.Fatalf("%d buffers after Stop", n)
		}
	}
	p.Stop("video")
	p.Stop("nobody")
	p.RequestKeyframe("nobody")
	if err := p.SetBitrate("nobody", 1000000, false); err == nil {
		t.Error("the bitrate of nobody was set")
	}
}

func TestBranchFailsAlone(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "good", branchOf(x264, media.H264))
	for _, text := range []string{
		"identity error-after=5 ! " + x264,
		"video/x-raw,format=RGB ! fakesink sync=false t. ! identity name=t", // cannot be linked
		"x264enc nosuchproperty=1",
		"video/x-raw,width=10 ! " + x264, // caps that don't fit, which shows only when buffers come
	} {
		err := p.Start(t.Context(), "bad", branchOf(text, media.H264))
		if err == nil {
			select {
			case err = <-s.ended:
			case <-time.After(deadline):
				t.Fatalf("%s\n\tdoesn't end", text)
			}
		}
		if !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s\n\tsaid %v", text, err)
		}
		t.Log(err)
		for p.running("bad") { // it is put away by itself
			runtime.Gosched()
		}
		for len(s.of("bad")) > 0 {
			(<-s.of("bad")).Release()
		}
	}
	for range 30 {
		s.frame(t, "good")
	}
}

// An encoder that failed was started again while the failed one still held the device.
func TestStopWaitsForABranchThatEndedByItself(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "video", branchOf("identity error-after=30 ! "+x264, media.H264))
	entered, hold, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.mu.Lock()
	g := p.branches["video"].graph
	free := g.free
	g.free = func() {
		close(entered)
		<-hold
		free()
	}
	p.mu.Unlock()
	select {
	case <-s.ended:
	case <-time.After(deadline):
		t.Fatal("it doesn't end")
	}
	<-entered
	go func() {
		p.Stop("video")
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Error("it isn't stopped yet")
	case <-time.After(100 * time.Millisecond): // that long it may not be seen
	}
	close(hold)
	<-stopped
	start(t, p, "video", branchOf(x264, media.H264))
	for len(s.of("video")) > 0 {
		(<-s.of("video")).Release()
	}
	s.next(t, "video").Release()
}

func (p *Pipeline) running(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.branches[id] != nil
}

func TestKeyframeRequestReachesOneBranch(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "a", branchOf(x264, media.H264))
	start(t, p, "b", branchOf(x264, media.H264))
	s.frame(t, "a")
	s.frame(t, "b")
	p.RequestKeyframe("a")
	for i := 0; ; i++ {
		if _, _, key := s.frame(t, "a"); key {
			break
		}
		if i == 10 {
			t.Fatal("no keyframe among ten frames after the request")
		}
	}
	for range 10 {
		if _, _, key := s.frame(t, "b"); key {
			t.Error("the other branch made one too")
		}
	}
}

func TestTimesOfBranchesAgree(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "a", branchOf(x264, media.H264))
	for range 10 {
		s.frame(t, "a")
	}
	start(t, p, "b", branchOf("vp8enc deadline=1 cpu-used=16 ! rtpvp8pay", media.VP8))
	at := map[time.Duration]bool{}
	for range 20 {
		captured, arrived, _ := s.frame(t, "a")
		at[captured] = true
		if age := arrived - captured; age < 0 || age > time.Second {
			t.Errorf("a frame of a is %v old", age)
		}
	}
	same := 0
	for range 10 {
		captured, _, _ := s.frame(t, "b")
		if at[captured] {
			same++
		}
	}
	if same < 5 {
		t.Errorf("%d of 10 frames of b have the time of one of a", same)
	}
}

func TestChangeOfSizeGoesAlong(t *testing.T) {
	p, s := capture(t, feed("videotestsrc is-live=true ! capsfilter name=size caps=video/x-raw,format=I420,width=320,height=240,framerate=30/1"))
	start(t, p, "video", branchOf(x264, media.H264))
	size := func(width int) {
		t.Helper()
		for {
			select {
			case track := <-s.tracks:
				if track.Width == width {
					return
				}
			case b := <-s.of("video"):
				b.Release()
			case err := <-s.ended:
				t.Fatal(err)
			case <-time.After(deadline):
				t.Fatalf("no picture %d wide", width)
			}
		}
	}
	size(320)
	filter, err := p.capture.pipeline.GetElementByName("size")
	if err != nil {
		t.Fatal(err)
	}
	defer dispose(filter.Object.InitiallyUnowned.Object)
	if err := setText(filter, "caps", "video/x-raw,format=I420,width=160,height=120,framerate=30/1"); err != nil {
		t.Fatal(err)
	}
	size(160)
}

// An encoder that is too slow loses pictures; it doesn't hold up the capture, and
// what it makes isn't old.
func TestSlowBranchDropsItsOwnPictures(t *testing.T) {
	p, s := capture(t, feed(picture))
	start(t, p, "slow", branchOf("identity sleep-time=200000 ! "+x264, media.H264))
	start(t, p, "quick", branchOf(x264, media.H264))
	for range 60 {
		s.frame(t, "quick")
	}
	if n := s.drops("quick"); n > 0 {
		t.Errorf("the quick one lost %d", n)
	}
	if n := s.drops("slow"); n < 20 {
		t.Errorf("the slow one lost %d", n)
	}
	for range 5 {
		captured, arrived, _ := s.frame(t, "slow")
		if age := arrived - captured; age > time.Second {
			t.Errorf("a frame is %v old", age)
		}
	}
}

func TestSoundIsHandedOver(t *testing.T) {
	p, s := capture(t, feed("audiotestsrc is-live=true samplesperbuffer=480 ! audio/x-raw,rate=48000,channels=2"))
	start(t, p, "audio", branchOf("opusenc frame-size=20 ! rtpopuspay", media.Opus))
	var last time.Duration
	for i := range 50 {
		captured, _, _ := s.frame(t, "audio")
		if gap := captured - last; i > 1 && (gap < 19*time.Millisecond || gap > 21*time.Millisecond) {
			t.Errorf("packet %d comes %v after the one before", i, gap)
		}
		last = captured
	}
}

func TestEndOfTheCaptureIsTold(t *testing.T) {
	p, s := capture(t, feed(strings.Replace(picture, "is-live", "num-buffers=10 is-live", 1)))
	start(t, p, "video", branchOf(x264, media.H264))
	select {
	case err := <-s.failure:
		if !errors.Is(err, media.ErrEnded) {
			t.Errorf("said %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was said")
	}
	p.Stop("video")
}

func TestWholeFeedHasItsBranches(t *testing.T) {
	f := whole(camera+strings.Replace(x264, "x264enc", "x264enc name=encoder bitrate=2000", 1)+sink, media.H264)
	f.Branches[0].Element = "encoder"
	f.Branches[0].Bitrate = config.BitrateProperty{Property: "bitrate", Unit: 1000, Live: true}
	p, s := capture(t, f)
	s.frame(t, "video")
	start(t, p, "video", &f.Branches[0])
	if err := p.Start(t.Context(), "nobody", &f.Branches[0]); err == nil {
		t.Error("a track that isn't there was started")
	}
	if err := p.SetBitrate("video", 700_000, true); err != nil {
		t.Error(err)
	}
	if v, err := p.branches["video"].encoder.GetProperty("bitrate"); err != nil || fmt.Sprint(v) != "700" {
		t.Errorf("bitrate %v, %v", v, err)
	}
	p.Stop("video")
	s.frame(t, "video")
}

// What may be called at any time is called at any time.
func TestStartsStopsAndCloseMayRace(t *testing.T) {
	for range 5 {
		p, s := capture(t, feed(picture))
		var wait sync.WaitGroup
		for i := range 4 {
			id := fmt.Sprint(i)
			wait.Go(func() {
				for range 10 {
					if p.Start(context.Background(), id, branchOf(x264, media.H264)) != nil {
						return
					}
					p.RequestKeyframe(id)
					p.SetBitrate(id, 500_000, true)
					p.Stop(id)
				}
			})
		}
		start(t, p, "video", branchOf(x264, media.H264))
		s.next(t, "video").Release()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wait.Wait()
		if err := p.Start(t.Context(), "late", branchOf(x264, media.H264)); err == nil {
			t.Error("a closed pipeline started a branch")
		}
	}
}
