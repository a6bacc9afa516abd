package gst

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
	"gateway/internal/media"
)

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
