package gst

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sync"

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
