package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/worker"
)

// A filesrc on a FIFO without a writer, beside an encoder: what hangs there is told as
// such, again and again, and the other encoder goes on.
func TestEncoderThatHangsIsToldAsStuck(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSink()
	log := &lines{}
	l := worker.NewLauncher(slog.New(slog.NewTextHandler(log, nil)), nil, nil) // a confined one may not open it
	p := run(t, l, picture, config.Worker{}, s)
	start(t, p, "1", vp8)
	s.until(t, "packets", func() bool { return s.packets["1"] > 0 })
	hangs := vp8
	hangs.Launch += " name=pay filesrc location=" + fifo + " ! fakesink pay."
	for _, want := range []string{"doesn't answer", "it is not tried again before that has ended"} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := p.Start(ctx, "2", &hangs)
		cancel()
		if !errors.Is(err, media.ErrStuck) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	s.mu.Lock()
	n := s.packets["1"]
	s.mu.Unlock()
	s.until(t, "more packets", func() bool { return s.packets["1"] > n+5 })
	p.Kill("something in it hangs")
	if err := p.Close(); err != nil || !strings.Contains(log.String(), "was killed: something in it hangs") {
		t.Errorf("closed with %v; the log:\n%s", err, log)
	}
}

// A driver that doesn't let go of a process is played by this one: of a process one of
// whose threads is traced nothing is seen to end before the tracer lets that go.
func TestProcessesThatCannotBeEndedAreFew(t *testing.T) {
	l, log := newLauncher()
	letGo := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const most = 2
	ended := make(chan error, most)
	for range most {
		p, err := l.Launch(ctx, "door", &picture, config.Worker{}, newSink())
		if err != nil {
			t.Fatal(err)
		}
		tid := threadOf(t, p.PID(), "videotestsrc")
		traced := make(chan error)
		go func() {
			runtime.LockOSThread() // the tracer is a thread
			defer runtime.UnlockOSThread()
			err := unix.PtraceSeize(tid)
			traced <- err
			<-letGo
			if err == nil {
				unix.Wait4(tid, nil, unix.WALL, nil)
			}
		}()
		if err := <-traced; err != nil { // the first one
			p.Close()
			close(letGo)
			t.Skipf("processes can't be traced here: %v", err)
		}
		go func() { ended <- p.Close() }()
	}
	for range most {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	held := l.Processes()
	if len(held) != most || !held[0].Held || !held[1].Held || held[0].Stream != "door" || held[0].Feed != "video" {
		t.Errorf("processes %+v", held)
	}
	if n := strings.Count(log.String(), "can't be ended: a driver holds it"); n != most || l.Crashes()["door"] != most {
		t.Errorf("%d crashes; the log:\n%s", l.Crashes()["door"], log)
	}
	if p, err := l.Launch(ctx, "door", &picture, config.Worker{}, newSink()); err == nil || !strings.Contains(err.Error(), "a driver holds them") {
		t.Errorf("another one is started: %v", err)
		if err == nil {
			p.Close()
		}
	}
	sound := picture
	sound.Name = "audio"
	run(t, l, sound, config.Worker{}, newSink()) // has nothing to do with it
	close(letGo)
	for deadline := time.Now().Add(patience); len(l.Processes()) > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes %+v", l.Processes())
		}
	}
	run(t, l, picture, config.Worker{}, newSink())
}

// threadOf waits for a thread of that process whose name begins so.
func threadOf(t *testing.T, pid int, name string) (tid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			comm, _ := os.ReadFile(filepath.Join(thread, "comm"))
			if _, err := fmt.Sscan(filepath.Base(thread), &tid); err == nil && bytes.HasPrefix(comm, []byte(name)) {
				return tid
			}
		}
	}
	t.Fatalf("no thread of %d is named %q", pid, name)
	return 0
}

// liars are what runs in a child that does nothing but tell what no pipeline has to, by
// the launch texts that ask for them.
var liars = map[string]func(sink worker.Sink, i int){
	"describes": func(s worker.Sink, i int) {
		s.Describe("1", media.Track{Kind: media.Video, Codec: media.VP8, Width: i})
	},
	"ends":            func(s worker.Sink, _ int) { s.Ended("1", errors.New("again")) },
	"drops":           func(s worker.Sink, _ int) { s.Dropped("1", 1) },
	"drops backwards": func(s worker.Sink, _ int) { s.Dropped("1", -1) },
}

// liar is a pipeline that nothing can be asked of.
type liar struct{}

func (liar) Start(context.Context, string, *config.Branch) error { return nil }
func (liar) Stop(string)                                         {}
func (liar) RequestKeyframe(string)                              {}
func (liar) SetBitrate(string, int, bool) error                  { return nil }
func (liar) Close() error                                        { return nil }

func TestProcessThatTellsTooMuchIsEnded(t *testing.T) {
	for what, want := range map[string]string{
		"describes": "it tells more than 2000 events a second", "ends": "more than 2000 events", "drops": "more than 2000 events",
		"drops backwards": "is damaged: -1 frames were dropped",
	} {
		l, _ := newLauncher()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s := newSink()
		p, err := l.Launch(ctx, "door", &config.Feed{Name: "video", Capture: what}, config.Worker{}, s)
		cancel()
		if err == nil { // it may be ended before it plays
			s.until(t, "the end of the process", func() bool { return s.failure != nil })
			err = s.failure
			p.Close()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: ended with %q, want %q", what, err, want)
		}
	}
}
