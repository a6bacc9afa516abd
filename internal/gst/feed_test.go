package gst

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// split is a sink that keeps each branch's buffers apart.
type split struct {
	mu      sync.Mutex // guards below
	ids     map[string]chan *media.Buffer
	dropped map[string]int
	tracks  chan media.Track
	ended   chan error
	failure chan error
}

func newSplit() *split {
	return &split{ids: make(map[string]chan *media.Buffer), dropped: make(map[string]int), tracks: make(chan media.Track, 100), ended: make(chan error, 100), failure: make(chan error, 10)}
}

func (s *split) of(id string) chan *media.Buffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids[id] == nil {
		s.ids[id] = make(chan *media.Buffer, 10000)
	}
	return s.ids[id]
}

func (s *split) Dropped(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped[id] += n
}

// drops is how many captured buffers a branch was too slow for.
func (s *split) drops(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped[id]
}

func (s *split) Deliver(id string, b *media.Buffer) { s.of(id) <- b }
func (s *split) Ended(id string, err error)         { s.ended <- fmt.Errorf("%s: %w", id, err) }
func (s *split) Fail(err error)                     { s.failure <- err }
func (s *split) Describe(_ string, track media.Track) {
	select {
	case s.tracks <- track:
	default: // only one test reads them
	}
}

// next waits for a buffer of a branch.
func (s *split) next(t *testing.T, id string) *media.Buffer {
	t.Helper()
	select {
	case b := <-s.of(id):
		return b
	case err := <-s.failure:
		t.Fatal("capture failed:", err)
	case err := <-s.ended:
		t.Fatal("branch ended:", err)
	case <-time.After(deadline):
		t.Fatalf("no buffer of %q", id)
	}
	panic("unreachable")
}

// frame waits for the end of a branch's next frame, and returns when it was
// captured, when it arrived, and whether it is a keyframe.
func (s *split) frame(t *testing.T, id string) (captured, arrived time.Duration, key bool) {
	t.Helper()
	for {
		b := s.next(t, id)
		captured, arrived, key = b.Capture, b.Arrived, key || b.Keyframe
		end := b.End
		b.Release()
		if end {
			return captured, arrived, key
		}
	}
}

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

const coded = picture + " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse config-interval=-1"

func copyOf(launch string) *config.Branch {
	b := branchOf(launch, media.H264)
	b.Copy = true
	return b
}

// A viewer that comes between two keyframes of a camera's own stream is given the
// last one, and what followed it.
func TestCopyBeginsWithTheLastKeyframe(t *testing.T) {
	p, s := capture(t, feed(strings.Replace(coded, "key-int-max=10", "key-int-max=1000", 1)))
	start(t, p, "first", copyOf("rtph264pay aggregate-mode=zero-latency"))
	for range 10 {
		s.frame(t, "first")
	}
	b := s.next(t, "first")
	if b.Encoding != 0 || b.Encoded != 0 {
		t.Errorf("a copy was encoded from %v to %v", b.Encoding, b.Encoded)
	}
	b.Release()
	start(t, p, "second", copyOf("rtph264pay aggregate-mode=zero-latency"))
	first, _, key := s.frame(t, "second")
	if !key {
		t.Error("it begins with no keyframe")
	}
	for range 20 {
		next, _, _ := s.frame(t, "second")
		if next-first > 50*time.Millisecond || next <= first {
			t.Errorf("%v after %v", next, first)
		}
		first = next
	}
	p.RequestKeyframe("second") // goes up to the source
	for range 20 {
		if _, _, key := s.frame(t, "second"); key {
			return
		}
	}
	t.Error("no keyframe after the request")
}

// Where frames depend on those before, a loss reaches up to the next keyframe, which
// is marked.
func TestCopyThatWasHeldUpGoesOnAtAKeyframe(t *testing.T) {
	p, s := capture(t, feed(strings.Replace(coded, "framerate=30/1", "framerate=100/1", 1)))
	start(t, p, "video", copyOf("identity name=hold ! rtph264pay aggregate-mode=zero-latency"))
	s.frame(t, "video")
	p.mu.Lock()
	hold, err := p.branches["video"].graph.pipeline.GetElementByName("hold")
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	defer dispose(hold.Object.InitiallyUnowned.Object)
	if err := setText(hold, "sleep-time", "50000"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(deadline); s.drops("video") == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nothing was dropped")
		}
	}
	setText(hold, "sleep-time", "0")
	var last time.Duration
	for {
		b := s.next(t, "video")
		gap, key, captured := b.Gap, b.Keyframe, b.Capture
		if !b.End {
			_, _, more := s.frame(t, "video")
			key = key || more
		}
		b.Release()
		if last > 0 && captured-last > 15*time.Millisecond && !gap {
			t.Fatalf("%v are missing, and it isn't said", captured-last)
		}
		if gap {
			if !key || captured-last < 15*time.Millisecond {
				t.Errorf("after a gap of %v: key=%v", captured-last, key)
			}
			return
		}
		last = captured
	}
}

// Browsers show B-frames out of order, or nothing: what a source has encoded with
// them is refused, whether its SPS tells of them (x264 does) or not.
func TestCopyThatBrowsersDoNotPlayIsRefused(t *testing.T) {
	for _, c := range []struct{ name, encode, want string }{
		{"declared", "x264enc speed-preset=ultrafast bframes=2 b-adapt=false rc-lookahead=2 key-int-max=30 ! video/x-h264,profile=main", "B-frames"},
		{"4:4:4", "x264enc tune=zerolatency speed-preset=ultrafast ! video/x-h264,profile=high-4:4:4", "High 4:4:4"},
		{"main", "x264enc tune=zerolatency speed-preset=superfast bframes=0 ! video/x-h264,profile=main", ""},
		{"high", "x264enc tune=zerolatency speed-preset=superfast bframes=0 ! video/x-h264,profile=high", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := strings.Replace(picture, "format=I420", "format="+map[bool]string{true: "Y444", false: "I420"}[c.name == "4:4:4"], 1)
			p, s := capture(t, feed(source+" ! "+c.encode+" ! h264parse config-interval=-1"))
			start(t, p, "video", copyOf("rtph264pay aggregate-mode=zero-latency"))
			if c.want == "" {
				for range 40 {
					s.frame(t, "video")
				}
				return
			}
			select {
			case err := <-s.ended:
				if !errors.Is(err, media.ErrUnplayable) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "encoder: auto") {
					t.Errorf("refused with: %v", err)
				}
			case err := <-s.failure:
				t.Error("the capture failed:", err)
			case <-time.After(deadline):
				t.Error("it isn't refused")
			}
		})
	}
}

// A camera that doesn't tell of its B-frames is known by its timestamps.
func TestFramesOutOfOrderAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		times   []time.Duration
		refused bool
	}{
		{"I P P", []time.Duration{0, 40, 80, 120, 160, 200}, false},
		{"I P B B", []time.Duration{0, 120, 40, 80, 240, 160, 200}, true},
		{"a clock that is set once", []time.Duration{0, 40, 80, 60, 100, 140}, false},
	} {
		tap := &tap{copied: true, track: media.Track{Kind: media.Video, Codec: media.H264}}
		var err error
		for i, at := range c.times {
			if e := tap.unplayable(&media.Buffer{Start: true, Keyframe: i == 0}, at); e != nil {
				err = e
			}
		}
		if (err != nil) != c.refused {
			t.Errorf("%s: %v", c.name, err)
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

// recording makes a file of a second's pictures at 30 a second.
func recording(t *testing.T, muxer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recording")
	text := "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=160,height=120,framerate=30/1" +
		" ! x264enc speed-preset=ultrafast bframes=2 key-int-max=15 ! h264parse ! " + muxer + " ! filesink location=" + path
	if out, err := exec.CommandContext(t.Context(), "gst-launch-1.0", append([]string{"-q"}, strings.Fields(text)...)...).CombinedOutput(); err != nil {
		t.Fatalf("gst-launch-1.0 (package gstreamer1.0-tools): %v\n%s", err, out)
	}
	return path
}

func TestFileIsPlayedInALoop(t *testing.T) {
	const frames = 80 // of 30 a round
	for _, muxer := range []string{"mp4mux", "matroskamux", "matroskamux streamable=true", "mpegtsmux"} {
		t.Run(muxer, func(t *testing.T) {
			f := feed("filesrc location=" + recording(t, muxer) + " ! decodebin ! videoconvert ! video/x-raw,format=I420")
			f.Loop = true
			p, s := capture(t, f)
			start(t, p, "video", branchOf(x264, media.H264))
			first, _, _ := s.frame(t, "video")
			last := first
			for i := range frames {
				captured, arrived, _ := s.frame(t, "video")
				if gap := captured - last; gap < 30*time.Millisecond {
					t.Errorf("frame %d comes %v after the one before", i, gap)
				}
				if age := arrived - captured; age < 0 || age > time.Second {
					t.Errorf("frame %d is %v old", i, age)
				}
				last = captured
			}
			span := time.Duration(frames+s.drops("video")) * time.Second / 30
			if off := last - first - span; off < -100*time.Millisecond || off > 100*time.Millisecond {
				t.Errorf("%d frames and %d dropped ones lasted %v", frames, s.drops("video"), last-first)
			}
		})
	}
}

func TestWhatCannotSeekEnds(t *testing.T) {
	path := recording(t, "mp4mux faststart=true")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		w.Write(data)
	}()
	f := feed(fmt.Sprintf("fdsrc fd=%d ! qtdemux ! h264parse", r.Fd()))
	f.Loop = true
	_, s := capture(t, f)
	select {
	case err := <-s.failure:
		if !errors.Is(err, media.ErrEnded) {
			t.Errorf("said %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was said")
	}
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

// threads and descriptors of this process
func counts(t *testing.T) (threads, descriptors int) {
	t.Helper()
	for dir, n := range map[string]*int{"/proc/self/task": &threads, "/proc/self/fd": &descriptors} {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		*n = len(all)
	}
	return threads, descriptors
}

func TestNothingIsLeftOf200Branches(t *testing.T) {
	p, s := capture(t, feed(picture))
	cycle := func() {
		start(t, p, "video", branchOf(x264, media.H264))
		s.next(t, "video").Release()
		p.Stop("video")
		for len(s.of("video")) > 0 {
			(<-s.of("video")).Release()
		}
	}
	for range 20 {
		cycle()
	}
	threads, descriptors := counts(t)
	memory := resident(t)
	for range 200 {
		cycle()
	}
	threadsNow, descriptorsNow := counts(t)
	if threadsNow > threads+3 || descriptorsNow != descriptors {
		t.Errorf("%d threads, %d before; %d descriptors, %d before", threadsNow, threads, descriptorsNow, descriptors)
	}
	if grown := resident(t) - memory; grown > 16<<20 { // 1000 took 4 MiB, 500 of them; an encoder has several
		t.Errorf("resident memory grew by %d KiB", grown>>10)
	}
}
