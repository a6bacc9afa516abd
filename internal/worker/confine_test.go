package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attempts are what a child of these tests tries, with an argument.
var attempts = map[string]func(argument string) error{
	"read": func(path string) error { _, err := os.ReadFile(path); return err },
	"list": func(path string) error { _, err := os.ReadDir(path); return err },
	"write": func(path string) error {
		return os.WriteFile(path, []byte("x"), 0o600)
	},
	"run":  func(path string) error { return exec.Command(path).Run() },
	"dial": func(address string) error { return dial("tcp", address) },
	"send": func(address string) error { return dial("udp", address) },
	"unix": func(address string) error { return dial("unix", address) },
	"pair": func(string) error {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		unix.Close(pair[0])
		unix.Close(pair[1])
		return err
	},
	"packet": func(string) error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		unix.Close(fd)
		return err
	},
	"signal": func(pid string) error {
		var n int
		fmt.Sscan(pid, &n)
		return syscall.Kill(n, 0)
	},
	"environment": func(pid string) error { _, err := os.ReadFile("/proc/" + pid + "/environ"); return err },
	"trace": func(pid string) error {
		var n int
		fmt.Sscan(pid, &n)
		return unix.PtraceSeize(n)
	},
	"mount":   func(path string) error { return unix.Mount("none", path, "tmpfs", 0, "") },
	"unshare": func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"namespace": func(string) error {
		return (&exec.Cmd{Path: "/proc/self/exe", SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}}).Run()
	},
	"BPF":      func(string) error { _, _, errno := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return some(errno) },
	"io_uring": func(string) error { _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return some(errno) },
}

func some(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func dial(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

// attempt is one that a child is asked for.
type attempt struct{ What, Argument string }

var attemptAnswer = Answer(func(_ context.Context, a attempt) (string, error) {
	err := attempts[a.What](a.Argument)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno), nil
	case err != nil:
		return err.Error(), nil
	}
	return "done", nil
})

func needLandlock(t *testing.T, abi int) {
	t.Helper()
	if has, err := landlockABI(); err != nil || has < abi {
		t.Skipf("the kernel's Landlock has ABI %d (%v), which this needs: %d", has, err, abi)
	}
}

func TestConfinedProcessReachesNothingElse(t *testing.T) {
	needLandlock(t, scopedABI)
	dir := t.TempDir()
	secret, given, folder := filepath.Join(dir, "secret"), filepath.Join(dir, "given"), filepath.Join(dir, "folder")
	for _, path := range []string{secret, given} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	local, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	abstract, err := net.Listen("unix", "@gateway-test-"+filepath.Base(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	me := fmt.Sprint(os.Getpid())
	pipeline := "multifilesrc location=" + given + " ! multifilesink location=" + filepath.Join(folder, "%d") + " ! appsink"
	for name, c := range map[string]struct {
		may   *Confinement
		tries map[attempt]string
	}{
		"a local pipeline": {Needs([]string{pipeline}, nil), map[attempt]string{
			{"read", secret}: "EACCES", {"read", given}: "done", {"list", dir}: "EACCES", {"write", given}: "EACCES",
			{"write", filepath.Join(folder, "1")}: "done", {"write", filepath.Join(dir, "new")}: "EACCES",
			{"read", "/etc/shadow"}: "EACCES", {"read", "/etc/ld.so.cache"}: "done", {"list", "/usr"}: "done", {"write", "/dev/null"}: "done",
			{"run", "/bin/true"}: "EACCES", {"run", "/proc/self/exe"}: "EACCES", {"namespace", ""}: "EPERM",
			{"dial", listener.Addr().String()}: "EAFNOSUPPORT", {"send", "127.0.0.1:9"}: "EAFNOSUPPORT", {"packet", ""}: "EAFNOSUPPORT",
			{"unix", filepath.Join(dir, "socket")}: "EAFNOSUPPORT", {"unix", abstract.Addr().String()}: "EAFNOSUPPORT", {"pair", ""}: "done",
			{"signal", me}: "EPERM", {"environment", me}: "EACCES", {"trace", me}: "EPERM",
			{"mount", folder}: "EPERM", {"unshare", ""}: "EPERM", {"BPF", ""}: "EPERM", {"io_uring", ""}: "EPERM",
		}},
		"a network camera": {Needs([]string{"rtspsrc location=rtsp://192.0.2.1/ ! appsink"}, nil), map[attempt]string{
			{"dial", listener.Addr().String()}: "done", {"send", "127.0.0.1:9"}: "done", {"packet", ""}: "EAFNOSUPPORT", {"read", given}: "EACCES",
			{"run", "/bin/true"}: "EACCES",
		}},
		"a screen": {Needs([]string{"ximagesrc display-name=:1 ! appsink"}, nil), map[attempt]string{
			{"unix", filepath.Join(dir, "socket")}: "done", {"unix", abstract.Addr().String()}: "done", {"dial", listener.Addr().String()}: "EAFNOSUPPORT",
		}},
		"a screen far away": {Needs([]string{"ximagesrc display-name=127.0.0.1:1 ! appsink"}, nil), map[attempt]string{
			{"dial", listener.Addr().String()}: "done",
		}},
		"with a folder of the operator's": {Needs([]string{"videotestsrc ! appsink"}, []string{folder}), map[attempt]string{
			{"write", filepath.Join(folder, "2")}: "done", {"read", given}: "EACCES", {"unix", filepath.Join(dir, "socket")}: "EAFNOSUPPORT",
		}},
		"with a socket of the operator's": {Needs([]string{"videotestsrc ! appsink"}, []string{filepath.Join(dir, "socket")}), map[attempt]string{
			{"unix", filepath.Join(dir, "socket")}: "done",
		}},
		"a search for devices": {ProbeNeeds(nil), map[attempt]string{
			{"read", secret}: "EACCES", {"run", "/bin/true"}: "EACCES", {"dial", listener.Addr().String()}: "EAFNOSUPPORT",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DISPLAY", "")
			a := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler), Confine: func() *Confinement { return c.may }})
			defer a.Close()
			for try, want := range c.tries {
				if errata, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, landlockErrata); try.What == "signal" && errata&sameProcess == 0 {
					continue
				}
				if got := mustAsk[string](t, a, "attempt", try); got != want {
					t.Errorf("%s %s: %s, want %s", try.What, try.Argument, got, want)
				}
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", mustAsk[int](t, a, "pid", "")))
			if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") || !strings.Contains(string(status), "Seccomp:\t2") {
				t.Errorf("%v\n%s", err, status)
			}
		})
	}
}

// A gateway whose children are confined is not confined itself.
func TestConfinementIsTheChildsAlone(t *testing.T) {
	a := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler), Confine: func() *Confinement { return Needs(nil, nil) }})
	defer a.Close()
	mustAsk[int](t, a, "pid", "")
	for range 100 { // on threads that began since, too
		done := make(chan error)
		go func() { done <- attempts["write"](filepath.Join(t.TempDir(), "new")) }()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t0") {
		t.Errorf("%v\n%s", err, status)
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Error(err)
	}
}

func TestUnconfinedProcessMayWhatTheGatewayMay(t *testing.T) {
	a := asker(t)
	path := filepath.Join(t.TempDir(), "new")
	if got := mustAsk[string](t, a, "attempt", attempt{"write", path}); got != "done" {
		t.Errorf("write: %s", got)
	}
	if got := mustAsk[string](t, a, "attempt", attempt{"run", "/bin/true"}); got != "done" {
		t.Errorf("run: %s", got)
	}
}

// In a container every process has a filter of seccomp, which was taken for our own.
func TestFilterOfOthersConfinesNothing(t *testing.T) {
	const inside = "TEST_WORKER_FILTERED"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestFilterOfOthersConfinesNothing$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if !seccompKnown {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	var p program
	p.permit()
	if err := filter(p, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
		t.Fatal(err)
	}
	a := asker(t)
	if got := mustAsk[string](t, a, "attempt", attempt{"run", "/bin/true"}); got != "done" {
		t.Errorf("unconfined it runs programs: %s", got)
	}
	confined := NewAsker(AskOptions{Logger: slog.New(slog.DiscardHandler), Confine: func() *Confinement { return Needs(nil, nil) }})
	defer confined.Close()
	if got := mustAsk[string](t, confined, "attempt", attempt{"run", "/bin/true"}); got != "EACCES" {
		t.Errorf("confined it runs programs: %s", got)
	}
}

func TestWhatTheKernelHasIsTold(t *testing.T) {
	has, missing := Confined()
	t.Logf("has %q, misses %q", has, missing)
	if len(has)+len(missing) != 3 {
		t.Errorf("%d means", len(has)+len(missing))
	}
}

func TestNeedsAreThoseOfThePipeline(t *testing.T) {
	t.Setenv("DISPLAY", "")
	t.Setenv("PULSE_SERVER", "")
	for text, want := range map[string]struct{ network, local bool }{
		"videotestsrc ! x264enc ! appsink":                          {},
		"filesrc location=/x.mp4 ! decodebin ! appsink":             {},
		"ximagesrc ! appsink":                                       {local: true},
		"rtspsrc location=rtsp://x/ ! appsink":                      {true, true},
		"udpsrc port=5000 ! rtph264depay ! appsink":                 {true, true},
		"souphttpsrc location=http://x/ ! appsink":                  {true, true},
		"pulsesrc ! opusenc ! appsink":                              {local: true},
		"videotestsrc ! rtph264pay ! rtpjitterbuffer ! appsink":     {},
		"videotestsrc ! \"unbalanced":                               {},
		"alsasrc device=hw:CARD=PCH,DEV=0 ! audioconvert ! appsink": {local: true},
	} {
		if c := Needs([]string{text}, nil); c.Network != want.network || c.Local != want.local {
			t.Errorf("%s: network %t, other programs' sockets %t", text, c.Network, c.Local)
		}
	}
	node := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Needs([]string{"v4l2src device=/dev/null ! tee ! fakesink"}, nil)
	if !strings.Contains(fmt.Sprint(c.Devices), "/dev/null") {
		t.Errorf("devices %q", c.Devices)
	}
}
