package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
	"gateway/internal/stream"
	"gateway/internal/worker"
)

func TestMachineIsAskedInAnotherProcess(t *testing.T) {
	m := testMachine(t).inquire(t.Context())
	if !m.Installed("videotestsrc") || m.Installed("nosuchelement") {
		t.Error("videotestsrc isn't installed, or nosuchelement is")
	}
	if e, ok := m.Element("x264enc"); !ok || len(e.Properties) == 0 || len(e.Pads) != 2 {
		t.Errorf("x264enc: %t, %+v", ok, e)
	}
	if _, ok := m.Element("nosuchelement"); ok {
		t.Error("there is nosuchelement")
	}
	if all := m.Elements(); !slices.Contains(all, "x264enc") || !slices.IsSorted(all) {
		t.Errorf("%d elements", len(all))
	}
	if !m.Accepts("x264enc", "bitrate", "100") || m.Accepts("x264enc", "bitrate", "much") {
		t.Error("x264enc takes no bitrate, or any")
	}
	if fields := m.CapsFields("video/x-raw"); !slices.Contains(fields, "framerate") {
		t.Errorf("fields %q", fields)
	}
	if fault := m.Link([]string{"videotestsrc", "audioconvert"}); fault == nil || fault.At != 1 {
		t.Errorf("fault %+v", fault)
	}
	if formats, err := m.Formats("videotestsrc"); err != nil || len(formats) == 0 {
		t.Errorf("%d formats, %v", len(formats), err)
	}
	if _, err := m.Formats("v4l2src device=/dev/nosuchcamera"); err == nil || !strings.Contains(err.Error(), "/dev/nosuchcamera") {
		t.Errorf("a camera that isn't there: %v", err)
	}
	if fps, err := m.Trial(config.Encoder{Name: "x264enc"}, "x264enc tune=zerolatency ! rtph264pay", 160, 120, 30); err != nil || fps <= 0 {
		t.Errorf("%f frames a second, %v", fps, err)
	}
	links, dot, err := m.negotiate(t.Context(), "videotestsrc ! fakesink")
	if err != nil || len(links) != 1 || dot == "" {
		t.Errorf("%+v, %v", links, err)
	}
	if d, err := m.devices(t.Context()); err != nil || d.Cameras == nil {
		t.Errorf("%+v, %v", d, err)
	}
	if m.err != nil {
		t.Error(m.err)
	}
}

// unanswering is asked in vain.
type unanswering struct {
	err   error
	asked map[string]int
}

func (u *unanswering) Ask(_ context.Context, question string, argument, _ any) error {
	u.asked[fmt.Sprint(question, " ", argument)]++
	return u.err
}

// With no file descriptor left for a process to ask, good edits were refused: "no encoder
// for h264 is installed".
func TestWhatCannotBeAskedIsNotAbsent(t *testing.T) {
	m := testMachine(t)
	l := newLauncher(m.conf, m, m.log)
	s, err := config.ParseStream("s", "s.yaml", []byte("source: videotestsrc\nvideo: {codec: h264, width: 320, height: 180}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	processes := m.asker
	u := &unanswering{fmt.Errorf("%w: %w", worker.ErrUnasked, syscall.EMFILE), map[string]int{}}
	m.asker = u
	var faults config.Errors
	if plan, err := l.Compile(t.Context(), s); plan != nil || !errors.Is(err, errUntold) || !errors.Is(err, syscall.EMFILE) || errors.As(err, &faults) {
		t.Errorf("%+v, %v", plan, err)
	}
	if len(u.asked) != 1 {
		t.Errorf("asked on: %v", u.asked)
	}
	f := &streams{launcher: l, table: nil, ctx: t.Context()}
	if _, _, err := f.check(config.File{Path: "s.yaml", Data: []byte("source: videotestsrc\nvideo: {codec: h264}\n")}, true); !errors.Is(err, errUntold) {
		t.Errorf("the edit: %v", err)
	}
	q := m.inquire(t.Context())
	if err := q.Try(config.Encoder{Name: "x264enc"}, "x264enc ! rtph264pay", 160, 120, 30); err == nil || q.err == nil {
		t.Errorf("a trial: %v, %v", err, q.err)
	}
	m.asker = processes
	if _, err := l.Compile(t.Context(), s); err != nil {
		t.Errorf("when it can be asked again: %v", err)
	}
	if err := m.inquire(t.Context()).Try(config.Encoder{Name: "x264enc"}, "x264enc ! rtph264pay", 160, 120, 30); err != nil {
		t.Errorf("the trial is remembered as failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.forget()
	if _, err := l.Compile(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("who has left: %v", err)
	}
}

// switching is asked in vain while it has an error.
type switching struct {
	asker
	mu  sync.Mutex
	err error
}

func (s *switching) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *switching) Ask(ctx context.Context, question string, argument, answer any) error {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.asker.Ask(ctx, question, argument, answer)
}

// An edit that couldn't be judged is judged when it can be, without another edit.
func TestEditThatCouldNotBeJudgedIsTriedAgain(t *testing.T) {
	m := testMachine(t)
	processes := &switching{asker: m.asker}
	m.asker = processes
	defer func() { m.asker = processes.asker }()
	f := &streams{
		dir: t.TempDir(), launcher: newLauncher(m.conf, m, m.log), log: m.log, ctx: t.Context(), began: func(string) {},
		byName: make(map[string]*stream.Stream), files: make(map[string]file), turns: make(map[string]*sync.Mutex),
	}
	path := filepath.Join(f.dir, "red.yaml")
	write(t, path, small)
	if o, done := f.settle(path, false); !done || !o.OK {
		t.Fatalf("%+v", o)
	}
	red, _ := f.Stream("red")
	defer red.Close()
	if _, err := red.Tracks(t.Context()); err != nil {
		t.Fatal(err)
	}
	processes.set(fmt.Errorf("%w: %w", worker.ErrUnasked, syscall.EMFILE))
	write(t, path, strings.Replace(small, "{", "{codec: vp8, ", 1))
	for range 2 {
		if o, done := f.settle(path, false); !done || o.OK || !strings.Contains(o.Message, "can't be told now") || !strings.Contains(o.Message, "too many open files") {
			t.Fatalf("%+v", o)
		}
	}
	processes.set(nil)
	if o, done := f.settle(path, false); !done || !o.OK {
		t.Errorf("%+v", o)
	}
	if i := red.Info(); i.Tracks[0].Codec != media.VP8 {
		t.Errorf("%+v", i)
	}
	if _, done := f.settle(path, false); done {
		t.Error("it is tried on")
	}
}

// An answer that comes late once says nothing, one that never comes that the plugin is
// of no use.
func TestElementOverWhichProcessesDieIsMissingInTheEnd(t *testing.T) {
	m := testMachine(t)
	m.griefs = 0
	processes := m.asker
	defer func() { m.asker = processes }()
	u := &unanswering{&worker.DeathError{Question: askInstalled, Reason: "was killed"}, map[string]int{}}
	m.asker = u
	for i := range mostFatal + 1 {
		q := m.inquire(t.Context())
		if there := q.Installed("x264enc"); there || (q.err == nil) != (i >= mostFatal-1) {
			t.Errorf("time %d: %t, %v", i, there, q.err)
		}
	}
	if n := u.asked[askInstalled+" x264enc"]; n != mostFatal {
		t.Errorf("asked %d times", n)
	}
	m.asker = processes
	m.forget()
	if !m.inquire(t.Context()).Installed("x264enc") {
		t.Error("it isn't asked again after SIGHUP")
	}
}

// A sound server that accepts and says nothing: its source isn't asked again before the
// process has ended that hangs over it, and then it is.
func TestSourceThatHangsIsAskedAgainInAnotherProcess(t *testing.T) {
	m := testMachine(t)
	server := filepath.Join(t.TempDir(), "pulse")
	l, err := net.Listen("unix", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.asker.(*worker.Asker).Confine = nil // it may connect to that socket
	source := "pulsesrc server=unix:" + server
	if _, err := m.inquire(t.Context()).Formats(source); err == nil || !strings.Contains(err.Error(), gst.ErrStuck.Error()) {
		t.Fatalf("it said %v", err)
	}
	l.Close()
	q := m.inquire(t.Context())
	_, err = q.Formats(source)
	for due := time.Now().Add(30 * time.Second); errors.Is(err, worker.ErrHangs) && time.Now().Before(due); time.Sleep(10 * time.Millisecond) {
		_, err = q.Formats(source)
	}
	if err == nil || errors.Is(err, worker.ErrHangs) || strings.Contains(err.Error(), gst.ErrStuck.Error()) || q.err != nil {
		t.Errorf("when the server is gone it said %v; %v", err, q.err)
	}
}

// A source that has been away since the gateway began: what its file says is enough for a
// track and a card.
func TestViewerOfASourceThatWasNeverThereSeesACard(t *testing.T) {
	m := testMachine(t)
	l := newLauncher(m.conf, m, m.log)
	for _, text := range []string{
		"source: v4l2src device=/dev/nosuchcamera\nvideo: {codec: h264}\n",
		"launch: v4l2src device=/dev/nosuchcamera ! videoconvert ! vp8enc ! rtpvp8pay ! appsink name=video\n",
	} {
		conf, err := config.ParseStream("cam", "cam.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := stream.New(conf, l, m.log)
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		tracks, err := s.Tracks(ctx)
		if err != nil || len(tracks) != 1 {
			t.Fatalf("%v, %v", tracks, err)
		}
		sub, err := s.Subscribe(tracks[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		due := make(chan struct{}, 1)
		sub.Notify(func() {
			select {
			case due <- struct{}{}:
			default:
			}
		})
		for seen := false; !seen; {
			select {
			case <-due:
			case <-ctx.Done():
				t.Fatalf("nothing is seen of %s", text)
			}
			for _, p := range sub.Next(make([]media.Packet, 0, 16)) {
				seen = p.Buffer.Placeholder
				p.Release()
			}
		}
	}
}

// What doesn't change is asked once, until it may have changed.
func TestMachineRemembersFacts(t *testing.T) {
	m := testMachine(t).inquire(t.Context())
	m.Installed("videotestsrc")
	m.facts.Store(askInstalled+" videotestsrc", false)
	if m.Installed("videotestsrc") {
		t.Error("it was asked again")
	}
	m.forget()
	if !m.Installed("videotestsrc") {
		t.Error("it wasn't asked again")
	}
	m.facts.Store(askInstalled+" videotestsrc", false)
	m.began("other plugins")
	if !m.Installed("videotestsrc") {
		t.Error("other plugins have the same elements")
	}
}

// A launch text that no check has seen gets neither the element nor the file.
func TestProcessHasNoElementThatIsNotAllowed(t *testing.T) {
	m := testMachine(t).inquire(t.Context())
	path := filepath.Join(t.TempDir(), "written")
	_, _, err := m.negotiate(t.Context(), "videotestsrc num-buffers=2 ! filesink location="+path)
	if err == nil || !strings.Contains(err.Error(), "filesink") {
		t.Errorf("it said %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was written")
	}
	for _, e := range []string{"filesink", "udpsink", "giosrc", "shmsink"} { // udpsink is in rtspsrc, which is allowed
		if got := m.Installed(e); got != (e == "udpsink") {
			t.Errorf("%s: %t", e, got)
		}
	}
}
