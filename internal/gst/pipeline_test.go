package gst

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-gst/go-gst/gst"
	"go.uber.org/goleak"

	"gateway/internal/config"
	"gateway/internal/media"
)

func TestMain(m *testing.M) {
	if os.Getenv("GATEWAY_TEST_LEAKS") != "" {
		playAndLeave()
		return
	}
	goleak.VerifyTestMain(m)
}

// catch is a sink that keeps what it is given for the test.
type catch struct {
	buffers chan *media.Buffer
	tracks  chan media.Track
	ended   chan string // ids of branches
	failure chan error
}

func newCatch() *catch {
	return &catch{buffers: make(chan *media.Buffer, 10000), tracks: make(chan media.Track, 100), ended: make(chan string, 100), failure: make(chan error, 10)}
}

func (c *catch) Deliver(_ string, b *media.Buffer) {
	select {
	case c.buffers <- b:
	default:
		b.Release()
	}
}
func (c *catch) Describe(_ string, t media.Track) { c.tracks <- t }
func (c *catch) Dropped(string, int)              {}
func (c *catch) Ended(id string, err error)       { c.ended <- id + ": " + err.Error() }
func (c *catch) Fail(err error)                   { c.failure <- err }

const deadline = 20 * time.Second

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// whole is a feed in the launch form, with one track named "video".
func whole(launch string, codec media.Codec) *config.Feed {
	track := media.Track{Name: "video", Kind: codec.Kind(), Codec: codec}
	return &config.Feed{Capture: launch, Whole: true, Branches: []config.Branch{{Track: track}}}
}

func launch(t *testing.T, text string, codec media.Codec) (*Pipeline, *catch) {
	t.Helper()
	before := media.LiveBuffers()
	c := newCatch()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	p, err := Launch(ctx, "test", whole(text, codec), c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for len(c.buffers) > 0 {
			(<-c.buffers).Release()
		}
		if now := media.LiveBuffers(); now != before {
			t.Errorf("%d buffers in use, %d before the test", now, before)
		}
	})
	return p, c
}

func next(t *testing.T, c *catch) *media.Buffer {
	t.Helper()
	select {
	case b := <-c.buffers:
		return b
	case err := <-c.failure:
		t.Fatal("pipeline failed:", err)
	case <-time.After(deadline):
		t.Fatal("no buffer")
	}
	panic("unreachable")
}

const (
	camera = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! "
	sink   = " ! appsink name=video sync=false buffer-list=true max-buffers=200 drop=true"
	x264   = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=1000 ! h264parse config-interval=-1 ! rtph264pay aggregate-mode=zero-latency mtu=1200"
)

var encoders = map[media.Codec]string{
	media.H264: x264,
	media.VP8:  "vp8enc deadline=1 cpu-used=16 keyframe-max-dist=1000 ! rtpvp8pay mtu=1200",
	media.VP9:  "vp9enc deadline=1 cpu-used=16 keyframe-max-dist=1000 ! rtpvp9pay mtu=1200",
	media.AV1:  "av1enc usage-profile=realtime cpu-used=10 lag-in-frames=0 keyframe-max-dist=1000 ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
	media.Opus: "",
}

func TestFramesComeWholeAndStampedInEveryCodec(t *testing.T) {
	for codec, encoder := range encoders {
		t.Run(string(codec), func(t *testing.T) {
			text := camera + encoder + sink
			if codec == media.Opus {
				text = "audiotestsrc is-live=true samplesperbuffer=480 ! opusenc ! rtpopuspay" + sink
			}
			_, c := launch(t, text, codec)
			var last time.Duration
			inside, frames := false, 0
			for frames < 30 {
				b := next(t, c)
				switch {
				case b.Start == inside:
					t.Fatalf("frame %d: start=%v although a frame is open=%v", frames, b.Start, inside)
				case frames == 0 && b.Start && !b.Keyframe && codec != media.H264: // H.264 may begin with an access unit delimiter
					t.Fatal("the first frame is no keyframe")
				case frames > 1 && b.Keyframe && codec != media.Opus:
					t.Fatalf("frame %d is a keyframe", frames)
				case b.Gap:
					t.Fatalf("frame %d: a gap", frames)
				case b.Start && b.Capture <= last:
					t.Fatalf("frame %d: captured at %v, the one before at %v", frames, b.Capture, last)
				}
				if age := b.Arrived - b.Capture; age < 0 || age > 5*time.Second {
					t.Fatalf("frame %d is %v old", frames, age)
				}
				if codec == media.Opus {
					if b.Encoding != 0 || b.Encoded != 0 {
						t.Fatalf("sound has an encoder's stamps: %v, %v", b.Encoding, b.Encoded)
					}
				} else if b.Encoding < b.Capture || b.Encoded <= b.Encoding || b.Arrived < b.Encoded {
					t.Fatalf("frame %d: captured at %v, encoded from %v to %v, arrived at %v", frames, b.Capture, b.Encoding, b.Encoded, b.Arrived)
				}
				for i := range b.Len() {
					if n := len(b.Payload(i)); n == 0 || n > 1200 {
						t.Fatalf("payload of %d bytes", n)
					}
				}
				last, inside = b.Capture, !b.End
				if b.End {
					frames++
				}
				b.Release()
			}
		})
	}
}

func TestKeyframeRequestReachesTheEncoder(t *testing.T) {
	p, c := launch(t, camera+x264+sink, media.H264)
	for frames := 0; frames < 5; { // past the first keyframe
		b := next(t, c)
		if b.End {
			frames++
		}
		b.Release()
	}
	p.RequestKeyframe("video")
	for frames := 0; frames < 10; {
		b := next(t, c)
		key := b.Keyframe
		if b.End {
			frames++
		}
		b.Release()
		if key {
			return
		}
	}
	t.Fatal("no keyframe among ten frames after the request")
}

func TestRealSizeAndLevelAreTold(t *testing.T) {
	_, c := launch(t, camera+x264+sink, media.H264)
	select {
	case track := <-c.tracks:
		if track.Width != 320 || track.Height != 240 || track.FPS != 30 {
			t.Errorf("%dx%d at %g", track.Width, track.Height, track.FPS)
		}
		if !strings.Contains(track.Fmtp, "profile-level-id=") {
			t.Errorf("fmtp %q", track.Fmtp)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was told")
	}
}

// One fault makes several elements complain; the first is the cause.
func TestFirstFaultOnTheBusIsReported(t *testing.T) {
	_, c := launch(t, camera+"identity error-after=5 ! "+x264+sink, media.H264)
	select {
	case err := <-c.failure:
		var fault *Error
		if !errors.As(err, &fault) || fault.Factory != "identity" {
			t.Fatalf("reported %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was reported")
	}
	select {
	case err := <-c.failure:
		t.Fatal("reported twice:", err)
	default:
	}
}

func TestEndOfTheSourceIsReported(t *testing.T) {
	_, c := launch(t, strings.Replace(camera, "is-live", "num-buffers=10 is-live", 1)+x264+sink, media.H264)
	select {
	case err := <-c.failure:
		if !errors.Is(err, media.ErrEnded) {
			t.Fatalf("reported %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was reported")
	}
}

func TestPipelineThatCannotStartSaysWhy(t *testing.T) {
	for text, want := range map[string]string{
		"v4l2src device=/dev/video99 ! " + x264 + sink:                  "/dev/video99",
		"filesrc location=/nonexistent ! h264parse ! fakesink":          `"video"`,
		"nosuchelement ! fakesink":                                      "nosuchelement",
		"videotestsrc ! fakesink name=video":                            "appsink",
		camera + "x264enc nosuchproperty=1" + sink:                      "nosuchproperty",
		"audiotestsrc ! x264enc" + sink:                                 "",
		"videotestsrc":                                                  "",
		"filesrc location=/nonexistent ! h264parse ! rtph264pay" + sink: "nonexistent",
	} {
		_, err := Launch(t.Context(), "test", whole(text, media.H264), newCatch(), quiet)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tsaid %v, want %q", text, err, want)
		}
	}
}

// A filesrc on a FIFO without a writer hangs in open(2), as drivers do.
func TestStuckStateChangeIsGivenUp(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Launch(ctx, "test", whole("filesrc location="+fifo+" ! h264parse ! rtph264pay"+sink, media.H264), newCatch(), quiet)
	if !errors.Is(err, ErrStuck) {
		t.Errorf("said %v", err)
	}
	if took := time.Since(began); took > stopTimeout+2*time.Second {
		t.Errorf("took %v", took)
	}
	_, err = Launch(t.Context(), "test", whole("filesrc location="+fifo+" ! h264parse ! rtph264pay"+sink, media.H264), newCatch(), quiet)
	if !errors.Is(err, ErrStuck) {
		t.Errorf("the second time it said %v", err)
	}
	for end := time.Now().Add(deadline); ; runtime.Gosched() {
		w, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0) // lets the threads go, each time one opens it
		if err == nil {
			w.Close()
		}
		hung.mu.Lock()
		n := len(hung.calls)
		hung.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it hangs although the FIFO has a writer")
		}
	}
}

// An X server that accepts and never answers hangs the client library. It is asked
// once, not again and again: each time would cost a thread.
func TestHungSourceIsAskedOnce(t *testing.T) {
	x, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan net.Conn, 10)
	go func() {
		defer close(held)
		for {
			c, err := x.Accept()
			if err != nil {
				return
			}
			held <- c
		}
	}()
	port := x.Addr().(*net.TCPAddr).Port
	source := fmt.Sprintf("ximagesrc display-name=127.0.0.1:%d", port-6000)
	began := time.Now()
	if _, err := NewRegistry().Formats(source); !errors.Is(err, ErrStuck) {
		t.Errorf("said %v", err)
	}
	if took := time.Since(began); took > probeTimeout+2*time.Second {
		t.Errorf("took %v", took)
	}
	began = time.Now()
	if _, err := NewRegistry().Formats(source); !errors.Is(err, ErrStuck) || time.Since(began) > time.Second {
		t.Errorf("the second time it took %v and said %v", time.Since(began), err)
	}
	x.Close()
	for c := range held {
		c.Close()
	}
	for end := time.Now().Add(deadline); ; {
		_, err := NewRegistry().Formats(source)
		if err != nil && !errors.Is(err, ErrStuck) {
			return // it is asked again
		}
		if time.Now().After(end) {
			t.Fatal("it is not asked again:", err)
		}
		runtime.Gosched()
	}
}

func TestSourceThatIsNotLiveKeepsItsOwnPace(t *testing.T) {
	_, c := launch(t, strings.Replace(camera, "is-live=true", "", 1)+
		"x264enc tune=zerolatency speed-preset=ultrafast threads=2 bitrate=8000 ! h264parse ! rtph264pay mtu=1200"+sink, media.H264)
	began := time.Now()
	var last time.Duration
	for frames := 0; frames < 31; {
		b := next(t, c)
		if !b.Start && b.Capture != last {
			t.Fatalf("frame %d: captured at %v and at %v", frames, last, b.Capture)
		}
		last = b.Capture
		if b.End {
			frames++
		}
		b.Release()
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("a second of it took %v", took)
	}
}

func TestMissingPayloaderIsSaid(t *testing.T) {
	_, c := launch(t, camera+"x264enc tune=zerolatency ! h264parse"+sink, media.H264)
	select {
	case err := <-c.failure:
		if !errors.Is(err, errNotPackets) {
			t.Fatalf("reported %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was reported")
	}
}

func TestFormatsOfSources(t *testing.T) {
	formats, err := NewRegistry().Formats("videotestsrc")
	if err != nil || len(formats) == 0 || formats[0].MediaType != "video/x-raw" {
		t.Errorf("videotestsrc: %+v, %v", formats, err)
	}
	if _, err := NewRegistry().Formats("v4l2src device=/dev/video99"); err == nil {
		t.Error("a camera that isn't there can be opened")
	}
	if _, err := NewRegistry().Formats("ximagesrc display-name=:987"); err == nil {
		t.Error("a display that isn't there can be opened")
	}
	if !NewRegistry().Installed("x264enc") || NewRegistry().Installed("nosuchelement") {
		t.Error("wrong about what is installed")
	}
}

// A display is looked for every few seconds while a stream is idle.
func TestLookingForADisplayLeavesNoDescriptors(t *testing.T) {
	display, _ := startXvfb(t)
	descriptors := func() int {
		runtime.GC()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	var before int
	for i := range 20 {
		formats, err := NewRegistry().Formats("ximagesrc display-name=" + display)
		if err != nil || len(formats) == 0 || formats[0].MaxWidth != 640 || formats[0].MinHeight != 480 {
			t.Fatalf("%+v, %v", formats, err)
		}
		if i == 0 {
			before = descriptors()
		}
	}
	if now := descriptors(); now != before {
		t.Errorf("%d descriptors, %d after the first time", now, before)
	}
}

// Xlib would end the whole process.
func TestXServerThatDiesEndsItsPipelineOnly(t *testing.T) {
	display, kill := startXvfb(t)
	_, c := launch(t, "ximagesrc use-damage=false display-name="+display+
		" ! video/x-raw,framerate=30/1 ! videoconvert ! "+x264+sink, media.H264)
	next(t, c).Release()
	kill()
	select {
	case err := <-c.failure:
		if !strings.Contains(err.Error(), "X server") {
			t.Errorf("reported %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was reported")
	}
}

// One ximagesrc grabs the X server for a frame and wants a lock of Xlib's; another
// one that opens its display holds the lock, and waits for the server: xserver.c.
func TestDesktopsStartSideBySide(t *testing.T) {
	display, _ := startXvfb(t)
	source := "ximagesrc use-damage=false display-name=" + display
	text := source + " ! video/x-raw,framerate=30/1 ! videoconvert ! " + x264 + sink
	end := time.Now().Add(4 * time.Second)
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			for time.Now().Before(end) {
				if _, err := NewRegistry().Formats(source); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wait.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				p, err := Launch(ctx, "test", whole(text, media.H264), counting{(*media.Buffer).Release}, quiet)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Close(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// startXvfb runs an X server of 640x480 for the test and returns its display and
// what kills it.
func startXvfb(t *testing.T, args ...string) (display string, kill func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	args = append([]string{"-displayfd", "3", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"}, args...)
	cmd := exec.Command("Xvfb", args...)
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal("Xvfb (package xvfb): ", err)
	}
	w.Close()
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(kill)
	var number int
	if _, err := fmt.Fscan(r, &number); err != nil {
		t.Fatal("Xvfb: ", err)
	}
	return fmt.Sprintf(":%d", number), kill
}

func TestSnapshotIsAPictureOfTheKeyframe(t *testing.T) {
	for codec, encoder := range encoders {
		if codec == media.Opus {
			continue
		}
		t.Run(string(codec), func(t *testing.T) {
			_, c := launch(t, strings.Replace(camera, "is-live", "pattern=red is-live", 1)+encoder+sink, codec)
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			data, err := Snapshot(ctx, codec, keyframe(t, c), 640)
			if err != nil {
				t.Fatal(err)
			}
			picture, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if size := picture.Bounds().Size(); size.X != 320 || size.Y != 240 {
				t.Errorf("size %v", size)
			}
			if r, g, b, _ := picture.At(160, 120).RGBA(); r>>8 < 240 || g>>8 > 16 || b>>8 > 16 {
				t.Errorf("colour %d %d %d, want red", r>>8, g>>8, b>>8)
			}
		})
	}
}

// With two encoder threads a frame has two slices, and some payloaders repeat the
// parameter sets between them: a decoder then saw two frames, one of them half grey.
func TestSnapshotHasAllSlices(t *testing.T) {
	_, c := launch(t, strings.Replace(camera, "is-live", "pattern=checkers-8 is-live", 1)+
		"x264enc tune=zerolatency speed-preset=ultrafast threads=2 bitrate=8000 ! h264parse config-interval=-1"+
		" ! rtph264pay config-interval=-1 aggregate-mode=zero-latency mtu=1200"+sink, media.H264)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	data, err := Snapshot(ctx, media.H264, keyframe(t, c), 640)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range []int{20, 212} { // rows of squares alternate: none must be smeared
		_, above, _, _ := picture.At(100, y).RGBA()
		_, below, _, _ := picture.At(100, y+8).RGBA()
		if diff := int(above>>8) - int(below>>8); diff > -80 && diff < 80 {
			t.Errorf("at %d the picture is smeared: %d and %d", y, above>>8, below>>8)
		}
	}
}

// keyframe collects the payloads of the first frame.
func keyframe(t *testing.T, c *catch) [][]byte {
	t.Helper()
	var payloads [][]byte
	for whole := false; !whole; {
		b := next(t, c)
		for i := range b.Len() {
			payloads = append(payloads, bytes.Clone(b.Payload(i)))
		}
		whole = b.End
		b.Release()
	}
	return payloads
}

func TestSnapshotOfGarbageFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := Snapshot(ctx, media.H264, [][]byte{{0x65, 1, 2, 3}}, 640); err == nil {
		t.Error("made a picture")
	}
	if _, err := Snapshot(ctx, media.H264, nil, 640); err == nil {
		t.Error("made a picture of nothing")
	}
}

// playAndLeave runs pipelines and ends GStreamer, whose leaks tracer then says
// what is still alive.
func playAndLeave() {
	for range 3 {
		c := newCatch()
		p, err := Launch(context.Background(), "test", whole(camera+x264+sink, media.H264), c, quiet)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var payloads [][]byte
		for range 30 {
			b := <-c.buffers
			if len(payloads) == 0 || !b.Start {
				for i := range b.Len() {
					payloads = append(payloads, bytes.Clone(b.Payload(i)))
				}
			}
			b.Release()
		}
		p.RequestKeyframe("video")
		p.Close()
		branches()
		NewRegistry().Try(row("x264enc"), x264, 320, 240, 30)
		NewRegistry().Try(row("x264enc"), "x264enc nosuchproperty=1", 320, 240, 30)
		NewRegistry().Formats("videotestsrc")
		NewRegistry().Installed("x264enc")
		Snapshot(context.Background(), media.H264, payloads, 640)
		away := (*config.Encoders)(nil).Placeholder(media.Track{Codec: media.H264, Width: 320, Height: 240})
		away.Last, away.Title = payloads, "leaks"
		Placeholder(context.Background(), &away)
		Launch(context.Background(), "test", whole("v4l2src device=/dev/video99 ! "+x264+sink, media.H264), c, quiet)
	}
	runtime.GC()
	gst.Deinit()
}

// branches runs some, of pictures and of a coded stream, among them such that fail.
func branches() {
	for _, text := range []string{picture, coded} {
		c := newCatch()
		f := feed(strings.Replace(text, "is-live=true", "", 1))
		f.Loop = true
		p, err := Launch(context.Background(), "test", f, c, quiet)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		encoder := x264
		if text == coded {
			encoder = "rtph264pay"
		}
		for range 3 {
			p.Start(context.Background(), "a", branchOf(encoder, media.H264))
			p.Start(context.Background(), "b", branchOf("identity error-after=2 ! "+encoder, media.H264))
			p.Start(context.Background(), "c", branchOf("x264enc nosuchproperty=1", media.H264))
			<-c.ended
			for range 10 {
				(<-c.buffers).Release()
			}
			p.RequestKeyframe("a")
			p.Stop("a")
		}
		p.Close()
	}
}

func TestNothingOfGStreamerLeaks(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "GATEWAY_TEST_LEAKS=1", "GST_TRACERS=leaks", "GST_DEBUG=GST_TRACER:7", "GST_DEBUG_NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "object-alive, type-name=(string)G") {
			t.Error(line)
		}
	}
}

// resident is the process's resident memory in bytes.
func resident(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, rss int
	fmt.Sscan(string(data), &size, &rss)
	return rss * os.Getpagesize()
}

// Native memory goes back at once, not when Go's collector runs.
func TestMemoryStaysFlatOver10000Frames(t *testing.T) {
	var frames int
	var mu sync.Mutex
	done, half := make(chan struct{}), make(chan struct{})
	c := counting{func(b *media.Buffer) {
		mu.Lock()
		defer mu.Unlock()
		if b.End {
			if frames++; frames == 5000 {
				close(half)
			} else if frames == 10000 {
				close(done)
			}
		}
		b.Release()
	}}
	text := "videotestsrc ! video/x-raw,format=I420,width=160,height=120,framerate=1000/1 ! " + x264 + " ! appsink name=video sync=false buffer-list=true max-buffers=20"
	p, err := Launch(t.Context(), "test", whole(text, media.H264), c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	wait := func(c chan struct{}) int {
		select {
		case <-c:
		case <-time.After(2 * time.Minute):
			t.Fatal("frames come too slowly")
		}
		return resident(t)
	}
	middle := wait(half)
	if grown := wait(done) - middle; grown > 16<<20 { // the raw pictures of that half are 140 MiB; Go's heap has its own ups and downs
		t.Errorf("resident memory grew by %d KiB in the second half", grown>>10)
	}
}

type counting struct{ deliver func(*media.Buffer) }

func (c counting) Deliver(_ string, b *media.Buffer) { c.deliver(b) }
func (c counting) Describe(string, media.Track)      {}
func (c counting) Dropped(string, int)               {}
func (c counting) Ended(string, error)               {}
func (c counting) Fail(error)                        {}
