package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
	"gateway/internal/worker"
)

// The test's own binary is the child, as the gateway's is.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == worker.Argument && os.Args[2] == worker.AskArgument {
		os.Exit(worker.ServeTestAnswers())
	}
	if len(os.Args) > 1 && os.Args[1] == worker.Argument {
		gst.TellCrashes()
		os.Exit(worker.Serve(worker.Host{Init: func(log *slog.Logger) { gst.Debug(log, "") }, Launch: launch}))
	}
	if feed := os.Getenv("TEST_WORKER_GATEWAY"); feed != "" {
		gateway()
	}
	goleak.VerifyTestMain(m)
}

func launch(ctx context.Context, name string, feed *config.Feed, sink worker.Sink, log *slog.Logger) (worker.Running, error) {
	if tell := liars[feed.Capture]; tell != nil {
		go func() {
			for i := 0; ; i++ { // to the process's end
				tell(sink, i)
			}
		}()
		return liar{}, nil
	}
	p, err := gst.Launch(ctx, name, feed, sink, log)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// confined is what a gateway has its pipelines confined to.
func confined(texts []string) *worker.Confinement { return worker.Needs(texts, nil) }

const patience = 30 * time.Second // a deadline that only a fault reaches

var (
	picture = config.Feed{Name: "video", Capture: "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1"}
	vp8     = config.Branch{
		Track:  media.Track{Name: "video", Kind: media.Video, Codec: media.VP8},
		Launch: "videoconvert ! vp8enc name=encoder deadline=1 keyframe-max-dist=3000 ! rtpvp8pay", Element: "encoder",
		Bitrate: config.BitrateProperty{Property: "target-bitrate", Unit: 1, Live: true},
	}
)

// sink notes what comes.
type sink struct {
	mu      sync.Mutex
	changed chan struct{}
	packets map[string]int
	keys    map[string]int
	first   map[string]bool // the first buffer of a branch was a keyframe
	ends    map[string]error
	tracks  map[string]media.Track
	failure error
	fault   error // what never should be
}

func newSink() *sink {
	return &sink{
		changed: make(chan struct{}, 1), packets: make(map[string]int), keys: make(map[string]int),
		first: make(map[string]bool), ends: make(map[string]error), tracks: make(map[string]media.Track),
	}
}

func (s *sink) note(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *sink) Deliver(id string, b *media.Buffer) {
	defer b.Release()
	s.note(func() {
		if s.packets[id] == 0 {
			s.first[id] = b.Keyframe && b.Start
		}
		s.packets[id] += b.Len()
		if b.Keyframe {
			s.keys[id]++
		}
		if now := media.Now(); b.Len() == 0 || b.Capture > b.Arrived || b.Arrived > now || now-b.Capture > time.Minute {
			s.fault = fmt.Errorf("%d packets, captured at %s, arrived at %s, now %s", b.Len(), b.Capture, b.Arrived, now)
		}
	})
}

func (s *sink) Describe(id string, t media.Track) { s.note(func() { s.tracks[id] = t }) }
func (s *sink) Dropped(string, int)               {}
func (s *sink) Ended(id string, err error)        { s.note(func() { s.ends[id] = err }) }

func (s *sink) Fail(err error) {
	s.note(func() {
		if s.failure == nil {
			s.failure = err
		}
	})
}

// until waits until what was noted is as f says.
func (s *sink) until(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		ok, fault := f(), s.fault
		s.mu.Unlock()
		if fault != nil {
			t.Fatal(fault)
		}
		if ok {
			return
		}
		select {
		case <-s.changed:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// lines is a log to look into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newLauncher() (*worker.Launcher, *lines) {
	l := &lines{}
	return worker.NewLauncher(slog.New(slog.NewTextHandler(l, nil)), nil, confined), l
}

// run launches a feed whose pipeline is closed with the test, and which then must
// have left nothing.
func run(t *testing.T, l *worker.Launcher, feed config.Feed, limits config.Worker, s *sink) *worker.Pipeline {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := l.Launch(ctx, "door", &feed, limits, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if !gone(p.PID()) {
			t.Errorf("process %d is still there", p.PID())
		}
		if n := media.LiveBuffers(); n != 0 {
			t.Errorf("%d buffers weren't released", n)
		}
	})
	return p
}

// gone tells whether there is no such process any more, not even a zombie.
func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func start(t *testing.T, p *worker.Pipeline, id string, b config.Branch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Start(ctx, id, &b); err != nil {
		t.Fatal(err)
	}
}

func TestPacketsComeAndCommandsGo(t *testing.T) {
	s := newSink()
	l, _ := newLauncher()
	p := run(t, l, picture, config.Worker{}, s)
	start(t, p, "1", vp8)
	start(t, p, "2", vp8)
	s.until(t, "packets of both", func() bool { return s.packets["1"] > 5 && s.packets["2"] > 5 && s.tracks["1"].Width == 160 })
	if !s.first["1"] || !s.first["2"] {
		t.Error("a branch doesn't begin with a keyframe")
	}
	keys := s.keys["1"]
	p.RequestKeyframe("1")
	s.until(t, "a keyframe that was asked for", func() bool { return s.keys["1"] > keys })
	if err := p.SetBitrate("1", 200_000, true); err != nil {
		t.Error(err)
	}
	if err := p.SetBitrate("3", 200_000, true); err == nil || !strings.Contains(err.Error(), `branch "3"`) {
		t.Error(err)
	}
	bad := vp8
	bad.Launch = "videoconvert ! nosuchelement"
	if err := p.Start(t.Context(), "3", &bad); err == nil || !strings.Contains(err.Error(), "nosuchelement") {
		t.Error(err)
	}
	p.Stop("1")
	s.mu.Lock()
	n, m := s.packets["1"], s.packets["2"]
	s.mu.Unlock()
	s.until(t, "more of the other", func() bool { return s.packets["2"] > m+5 })
	if s.packets["1"] != n {
		t.Error("a branch yields after Stop")
	}
	start(t, p, "1", vp8)
	s.until(t, "packets of what was started again", func() bool { return s.packets["1"] > n })
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all, spent := l.Processes(), l.Spent()["door"]
		if len(all) == 1 && all[0].PID == p.PID() && all[0].Stream == "door" && all[0].Feed == "video" && all[0].RSS > 1<<20 && spent > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %+v have used %s", all, spent)
		}
	}
	if rss, ok := p.Usage(); !ok || rss < 1<<20 {
		t.Errorf("it occupies %d bytes", rss)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Start(t.Context(), "4", &vp8); err == nil {
		t.Error("a closed pipeline starts a branch")
	}
	if _, crashed := l.LastCrash(); crashed || s.failure != nil || len(l.Crashes()) > 0 {
		t.Error("a closed pipeline counts as crashed:", s.failure)
	}
	if all, spent := l.Processes(), l.Spent()["door"]; len(all) > 0 || spent == 0 {
		t.Errorf("processes %+v, CPU time %s after the end", all, spent)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	l, _ := newLauncher()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	missing := config.Feed{Name: "video", Capture: "filesrc location=/nonexistent.mkv ! decodebin"}
	if _, err := l.Launch(ctx, "door", &missing, config.Worker{}, newSink()); err == nil || !strings.Contains(err.Error(), "nonexistent") {
		t.Error(err)
	}
	s := newSink()
	run(t, l, config.Feed{Name: "video", Capture: "videotestsrc num-buffers=3", Once: true}, config.Worker{}, s)
	s.until(t, "the end of the source", func() bool { return s.failure != nil })
	if !errors.Is(s.failure, media.ErrEnded) || s.failure.Error() != media.ErrEnded.Error() {
		t.Error(s.failure)
	}
	if c, crashed := l.LastCrash(); crashed {
		t.Errorf("an end counts as a crash: %+v", c)
	}

	s = newSink()
	p := run(t, l, picture, config.Worker{}, s)
	b := vp8
	b.Launch, b.Element = "videoconvert ! vp8enc ! identity error-after=5 ! rtpvp8pay", ""
	start(t, p, "1", b)
	s.until(t, "the end of the branch", func() bool { return s.ends["1"] != nil })
	if !strings.Contains(s.ends["1"].Error(), "identity") {
		t.Error(s.ends["1"])
	}
}

// A filesrc on a FIFO without a writer hangs in its state change for ever.
func TestHangingElementIsLeft(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, _ := newLauncher()
	feed := config.Feed{Name: "video", Capture: "filesrc location=" + fifo + " ! matroskademux"}
	for name, context := range map[string]func() (context.Context, context.CancelFunc){
		"too late": func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), 2*time.Second) },
		"left": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := context()
		before := time.Now()
		p, err := l.Launch(ctx, "door", &feed, config.Worker{}, newSink())
		cancel()
		if err == nil {
			p.Close()
			t.Fatalf("%s: it plays", name)
		}
		if took := time.Since(before); took > patience {
			t.Errorf("%s: took %s", name, took)
		}
		if name == "too late" && !strings.Contains(err.Error(), "doesn't answer") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A queue without bounds before a slow sink takes all the memory there is.
func TestLeakEndsTheProcess(t *testing.T) {
	s := newSink()
	l, _ := newLauncher()
	run(t, l, config.Feed{
		Name: "launch", Whole: true,
		Capture: "videotestsrc is-live=true ! vp8enc ! rtpvp8pay ! appsink name=video" +
			" videotestsrc num-buffers=400 pattern=black ! video/x-raw,width=1280,height=720,framerate=1/1 ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! fakesink sync=true",
		Branches: []config.Branch{{Track: media.Track{Name: "video", Kind: media.Video, Codec: media.VP8}}},
	}, config.Worker{Memory: 200 << 20}, s)
	s.until(t, "the failure", func() bool { return s.failure != nil })
	if want := "worker.memory allows 200"; !strings.Contains(s.failure.Error(), want) {
		t.Errorf("failed with %q, want %q", s.failure, want)
	}
}

func TestProcessHasItsLimits(t *testing.T) {
	t.Setenv("GATEWAY_ICE_SERVERS", `{"urls": "turn:a", "credential": "hunter2"}`)
	l, log := newLauncher()
	p := run(t, l, picture, config.Worker{Files: 300, Nice: 7, Scheduler: "batch", CPUs: "0,1000"}, newSink())
	start(t, p, "1", vp8)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID()))
	if err != nil || len(threads) < 5 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(thread, "stat"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		// proc_pid_stat(5): after the name in brackets the fields are from the third on
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if nice, policy := fields[19-3], fields[41-3]; nice != "7" || policy != "3" {
			t.Errorf("%s: nice %s, policy %s", stat[:bytes.LastIndexByte(stat, ')')+1], nice, policy)
		}
		status, _ := os.ReadFile(filepath.Join(thread, "status"))
		if !bytes.Contains(status, []byte("Cpus_allowed_list:\t0\n")) {
			t.Errorf("%s may use other cores", thread)
		}
	}
	limits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID()))
	if !bytes.Contains(bytes.Join(bytes.Fields(limits), []byte(" ")), []byte("Max open files 300 300 files")) {
		t.Errorf("limits:\n%s", limits)
	}
	if score, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID())); string(score) != "500\n" {
		t.Errorf("oom_score_adj: %q", score)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID())); err != nil || bytes.Contains(env, []byte("hunter2")) || !bytes.Contains(env, []byte("PATH=")) {
		t.Errorf("environment %q, %v", env, err)
	}
	if strings.Contains(log.String(), "worker limit") {
		t.Error(log)
	}
}

// What the child logs stands in the gateway's log, with its level and attributes.
func TestLogIsJoined(t *testing.T) {
	l, log := newLauncher()
	s := newSink()
	run(t, l, config.Feed{Name: "video", Capture: "videotestsrc num-buffers=2"}, config.Worker{CPUs: "1000"}, s)
	s.until(t, "the end", func() bool { return s.failure != nil })
	for _, want := range []string{`level=INFO msg="the source isn't live`, "feed=video", "stream=door", "level=WARN", "key=worker.cpus"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// A gateway that is killed takes its children with it, also one that can't notice.
func TestChildEndsWithTheGateway(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "TEST_WORKER_GATEWAY=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscanln(out, &pid); err != nil {
			t.Fatal(err)
		}
		if stopped {
			unix.Kill(pid, unix.SIGSTOP)
		}
		cmd.Process.Kill()
		cmd.Wait()
		for deadline := time.Now().Add(patience); !ended(pid); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("child %d outlives the gateway (stopped: %t)", pid, stopped)
				unix.Kill(pid, unix.SIGKILL)
				break
			}
		}
	}
}

// ended is gone of a process that is another's child: a zombie counts.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// gateway is a process that has launched a pipeline, tells the child's number and
// waits to be killed.
func gateway() {
	l := worker.NewLauncher(slog.New(slog.DiscardHandler), nil, confined)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p, err := l.Launch(ctx, "door", &picture, config.Worker{}, newSink())
	cancel()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	time.Sleep(2 * patience)
	os.Exit(1)
}
