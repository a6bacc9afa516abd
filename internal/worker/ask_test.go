package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	raw   int         // of a child: its socket, past what speaks on it
	stuck atomic.Bool // of a child: it doesn't end by itself

	errStuck = errors.New("no answer from the driver")
)

// answersOfTests are what the children of these tests can be asked.
func answersOfTests() *Answers {
	opened := make(chan string)
	unsound := false
	return &Answers{
		Begin: func() string {
			if os.Getenv("TEST_ASK_ENDS") != "" {
				os.Exit(3)
			}
			return "some plugins"
		},
		Sound: func() bool { return !unsound && !stuck.Load() },
		Hangs: func(err error) bool { return errors.Is(err, errStuck) },
		Questions: map[string]Answerer{
			"echo":  Answer(func(_ context.Context, s string) (string, error) { return s, nil }),
			"fail":  Answer(func(_ context.Context, s string) (string, error) { return "", errors.New(s) }),
			"pid":   Answer(func(context.Context, string) (int, error) { return os.Getpid(), nil }),
			"hang":  Answer(func(context.Context, string) (int, error) { unsound = true; return os.Getpid(), nil }),
			"stick": Answer(func(context.Context, string) (int, error) { stuck.Store(true); return 0, errStuck }),
			"close": Answer(func(_ context.Context, s string) (int, error) { close(opened); return 0, nil }),
			"wait":  Answer(func(context.Context, string) (string, error) { <-opened; return "waited", nil }),
			"never": Answer(func(ctx context.Context, _ string) (int, error) { <-ctx.Done(); return 0, ctx.Err() }),
			"read": Answer(func(_ context.Context, path string) (string, error) {
				b, err := os.ReadFile(path)
				return string(b), err
			}),
			"crash": Answer(func(context.Context, string) (int, error) {
				syscall.Kill(os.Getpid(), syscall.SIGSEGV)
				select {} // until the signal is delivered
			}),
			"crash once": Answer(func(_ context.Context, path string) (string, error) {
				if f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600); err == nil {
					f.Close()
					panic("once")
				}
				return "the second time", nil
			}),
			"attempt": attemptAnswer,
			"garble":  Answer(func(_ context.Context, b []byte) (int, error) { return syscall.Write(raw, b) }),
		},
	}
}

func asker(t *testing.T) *Asker {
	t.Helper()
	a := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func mustAsk[R any](t *testing.T, a *Asker, question string, argument any) (answer R) {
	t.Helper()
	if err := a.Ask(t.Context(), question, argument, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestOneProcessAnswersAllQuestions(t *testing.T) {
	a := asker(t)
	began := make(chan string, 1)
	a.Began = func(says string) { began <- says }
	if got := mustAsk[string](t, a, "echo", "hello \x00 wörld"); got != "hello \x00 wörld" {
		t.Errorf("answer %q", got)
	}
	if says := <-began; says != `"some plugins"` {
		t.Errorf("it said %s of itself", says)
	}
	var wait sync.WaitGroup
	var waited string
	wait.Go(func() { waited = mustAsk[string](t, a, "wait", "") })
	first := mustAsk[int](t, a, "pid", "")
	mustAsk[int](t, a, "close", "") // answered while another is open
	wait.Wait()
	if again := mustAsk[int](t, a, "pid", ""); waited != "waited" || first == os.Getpid() || again != first {
		t.Errorf("waited %q, process %d, then %d; this one is %d", waited, first, again, os.Getpid())
	}
	for question, want := range map[string]string{"fail": "no such device", "what": `the question "what"`} {
		if err := a.Ask(t.Context(), question, "no such device", new(string)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", question, err, want)
		}
	}
}

func TestCrashFailsOnlyTheQuestionThatCrashes(t *testing.T) {
	a := asker(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	first := mustAsk[int](t, a, "pid", "")
	var wait sync.WaitGroup
	var innocent string
	wait.Go(func() { innocent = mustAsk[string](t, a, "read", fifo) })
	defer wait.Wait()
	pending := func() int {
		n := 0
		for _, p := range processes(a) {
			p.mu.Lock()
			n += len(p.open)
			p.mu.Unlock()
		}
		return n
	}
	until(t, "the question is asked", func() bool { return pending() == 1 })
	err := a.Ask(t.Context(), "crash", "", new(int))
	var died *DeathError
	if !errors.As(err, &died) || died.Question != "crash" || !strings.Contains(err.Error(), "SIGSEGV") {
		t.Errorf("it said %v", err)
	}
	// the innocent question was asked of another process, which has the FIFO open by now or soon
	if err := os.WriteFile(fifo, []byte("alive"), 0); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if again := mustAsk[int](t, a, "pid", ""); innocent != "alive" || again == first {
		t.Errorf("the other question got %q; process %d, then %d", innocent, first, again)
	}
}

func TestCrashThatDoesNotHappenAgainIsNoError(t *testing.T) {
	if got := mustAsk[string](t, asker(t), "crash once", filepath.Join(t.TempDir(), "crashed")); got != "the second time" {
		t.Errorf("answer %q", got)
	}
}

func TestProcessThatGivesNoAnswerInTimeIsKilled(t *testing.T) {
	a := asker(t)
	first := mustAsk[int](t, a, "pid", "")
	a.limit = 50 * time.Millisecond
	err := a.Ask(t.Context(), "never", "", new(int))
	var died *DeathError
	if !errors.As(err, &died) || died.Question != "never" || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("it said %v", err)
	}
	a.limit = askLimit
	if again := mustAsk[int](t, a, "pid", ""); again == first {
		t.Error("it was asked again")
	}
}

func TestWhoAskedMayLeave(t *testing.T) {
	a := asker(t)
	first := mustAsk[int](t, a, "pid", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Ask(ctx, "never", "", new(int)); !errors.Is(err, context.Canceled) {
		t.Errorf("it said %v", err)
	}
	if again := mustAsk[int](t, a, "pid", ""); again != first {
		t.Error("the process was given up")
	}
}

func TestProcessInWhichSomethingHangsIsAskedNoMore(t *testing.T) {
	a := asker(t)
	first := mustAsk[int](t, a, "hang", "")
	if again := mustAsk[int](t, a, "pid", ""); again == first {
		t.Error("it was asked again")
	}
}

// processes are those of an asker that haven't ended.
func processes(a *Asker) []*asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.all))
}

// immortal has no process of an asker be killed before the test's end, as one isn't that
// sleeps in a driver.
func immortal(t *testing.T, a *Asker) {
	a.grace, a.kill = 10*time.Millisecond, func(*process) {}
	t.Cleanup(func() {
		for _, p := range processes(a) {
			p.child.kill()
		}
		until(t, "all have ended", func() bool { return len(processes(a)) == 0 })
	})
}

// A camera whose driver hung was asked every two seconds, each time of a process that
// then couldn't be killed: the ninth question of whatever source had none to be asked of.
func TestProcessThatCannotBeKilledTakesNoOthersPlace(t *testing.T) {
	a := asker(t)
	immortal(t, a)
	for i := range mostAsked + 1 {
		camera := fmt.Sprint("camera ", i)
		for range 3 {
			err := a.Ask(t.Context(), "stick", camera, new(int))
			if err == nil || !strings.Contains(err.Error(), errStuck.Error()) && !errors.Is(err, ErrHangs) {
				t.Fatalf("%s: %v", camera, err)
			}
		}
		if err := a.Ask(t.Context(), "stick", camera, new(int)); !errors.Is(err, ErrHangs) {
			t.Fatalf("%s was asked again: %v", camera, err)
		}
		if n := len(processes(a)); n != i+1 {
			t.Fatalf("%d processes hang over %d cameras", n, i+1)
		}
		until(t, "it is given up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.wedged == i+1 })
	}
	mustAsk[int](t, a, "pid", "")

	a.mu.Lock()
	freed := a.hung[subjectOf("stick", []byte(`"camera 3"`))].process
	a.mu.Unlock()
	freed.child.kill() // the driver lets go
	<-freed.child.done
	until(t, "it may be asked again", func() bool { return a.hangs("stick", []byte(`"camera 3"`)) == nil })
	if err := a.Ask(t.Context(), "stick", "camera 3", new(int)); errors.Is(err, ErrHangs) || err == nil {
		t.Errorf("it said %v", err)
	}
}

// The same where no answer comes at all, while others wait for theirs.
func TestQuestionOfAWedgedProcessIsAnsweredAndNotAskedAgain(t *testing.T) {
	a := asker(t)
	immortal(t, a)
	mustAsk[int](t, a, "pid", "")
	a.limit = 50 * time.Millisecond
	err := a.Ask(t.Context(), "never", "", new(int))
	var died *DeathError
	if !errors.As(err, &died) || died.Question != "never" || !strings.Contains(err.Error(), "can't be killed") || errors.Is(err, ErrUnasked) {
		t.Errorf("it said %v", err)
	}
	a.limit = askLimit
	// its process has seen the end of its socket, and ends by that
	until(t, "the process has ended", func() bool { return len(processes(a)) == 0 })
	mustAsk[int](t, a, "pid", "")
}

// Whoever asked while another's process couldn't begin waited for that, for 15 s each,
// and a stream that was to end with them.
func TestNobodyWaitsForAnothersProcessToBegin(t *testing.T) {
	a := asker(t)
	for range mostAsked {
		a.slots <- struct{}{}
	}
	first := make(chan error)
	go func() { first <- a.Ask(context.Background(), "pid", "", new(int)) }()
	until(t, "the first one waits", func() bool { return len(a.start) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() { second <- a.Ask(ctx, "pid", "", new(int)) }()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnasked) {
		t.Errorf("who has left: %v", err)
	}
	select {
	case err := <-first:
		t.Errorf("the first one didn't wait: %v", err)
	default:
	}
	a.Close()
	if err := <-first; !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// What a process that can't begin doesn't answer says nothing of what it was asked.
func TestProcessThatDoesNotBeginAnswersNothing(t *testing.T) {
	a := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler), Env: []string{"TEST_ASK_ENDS=1"}})
	defer a.Close()
	var t1 interface{ Temporary() bool }
	if err := a.Ask(t.Context(), "pid", "", new(int)); !errors.Is(err, ErrUnasked) || !errors.As(err, &t1) {
		t.Errorf("it said %v", err)
	}
}

func TestProcessEndsWhenIdleAndWhenRenewed(t *testing.T) {
	a := asker(t)
	gone := func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.all) == 0 }
	a.idle = time.Millisecond
	mustAsk[int](t, a, "pid", "")
	until(t, "the process has ended", gone)
	a.idle = idleTime
	first := mustAsk[int](t, a, "pid", "")
	a.Renew()
	if again := mustAsk[int](t, a, "pid", ""); again == first {
		t.Error("the process was asked again")
	}
}

func TestGarbleEndsTheProcess(t *testing.T) {
	for name, garble := range map[string][]byte{
		"too long":              binary.BigEndian.AppendUint32(nil, maxEnquiry+1),
		"no JSON":               append(binary.BigEndian.AppendUint32(nil, 5), "?????"...),
		"an unasked-for answer": append(binary.BigEndian.AppendUint32(nil, 8), `{"id":9}`...),
	} {
		a := asker(t)
		err := a.Ask(t.Context(), "garble", garble, new(int))
		var died *DeathError
		if !errors.As(err, &died) {
			t.Errorf("%s: it said %v", name, err)
		}
		mustAsk[int](t, a, "pid", "")
	}
}

func TestCloseEndsEveryQuestion(t *testing.T) {
	a := asker(t)
	mustAsk[int](t, a, "pid", "")
	failed := make(chan error)
	go func() { failed <- a.Ask(t.Context(), "never", "", new(int)) }()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("open question: %v", err)
	}
	if err := a.Ask(t.Context(), "pid", "", new(int)); !errors.Is(err, ErrClosed) {
		t.Errorf("later question: %v", err)
	}
}

func TestAnswersInThisProcess(t *testing.T) {
	var pid int
	if err := answersOfTests().Ask(t.Context(), "pid", "", &pid); err != nil || pid != os.Getpid() {
		t.Errorf("process %d, %v", pid, err)
	}
	if err := answersOfTests().Ask(t.Context(), "fail", "broken", &pid); err == nil || err.Error() != "broken" {
		t.Errorf("it said %v", err)
	}
}

// BenchmarkAsk measures a question to a process that waits for one, and to one that begins for it.
func BenchmarkAsk(b *testing.B) {
	a := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler)})
	defer a.Close()
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			if err := a.Ask(b.Context(), "echo", "x", new(string)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			a.Renew()
			if err := a.Ask(b.Context(), "echo", "x", new(string)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func FuzzReadEnquiry(f *testing.F) {
	var good bytes.Buffer
	if err := writeEnquiry(&good, &enquiry{ID: 1, Question: "echo", Body: []byte(`"x"`)}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e enquiry
		if err := readEnquiry(bytes.NewReader(b), &e); err == nil && len(b) < 4+len(`{}`) {
			t.Errorf("%q is %+v", b, e)
		}
	})
}

// until waits for what happens in other goroutines.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for due := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(due) {
			t.Fatalf("not yet: %s", what)
		}
	}
}
