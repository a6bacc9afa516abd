package worker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
)

const (
	socketFD  = 3        // of the child's end of the socket
	lineLimit = 4 << 10  // bytes of a line of standard error; the rest is the next line
	tailLimit = 64 << 10 // bytes of standard error that are kept
	drainTime = time.Second

	killTimeout = 3 * time.Second // for the kernel to end what was killed
)

// process is a child: this program, started again.
type process struct {
	conn *net.UnixConn // the gateway's end of the socket; its holder closes it
	pid  int

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its last words were read
	tail tail
}

// spawn starts this program again with the arguments "worker" and args. The child
// has the other end of a socket as file descriptor 3, no standard input and output,
// this process's environment without its own settings, env, and a process group of its own: a Ctrl-C is
// the gateway's. It is killed when this process dies. line is given what it writes
// to standard error, until it crashes; it may be nil. So may confine be: the child
// may do what this process may then.
//
// The caller closes conn, which tells the child to end, and waits for done.
func spawn(args, env []string, confine *Confinement, line func(string)) (*process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("worker socket: %w", err)
	}
	defer theirs.Close()
	words, stderr, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("worker pipe: %w", err)
	}
	defer stderr.Close()
	// not by its path: that may hold a newer version by now
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"gateway", Argument}, args...)
	cmd.Env = append(environ(), env...)
	if confine != nil {
		cmd.Env = append(cmd.Env, confinedEnv+"=1", "GSETTINGS_BACKEND=memory") // dconf complains a dozen times of its files, which such a child may not open
	}
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{theirs} // socketFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	p := &process{conn: ours, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	// The kernel sends Pdeathsig when the thread ends that started the child (prctl(2),
	// golang.org/issue/27505), and the thread is confined as the child is: both have it
	// to themselves, to their end.
	go onThread(func() {
		var err error
		if confine != nil {
			err = confine.apply()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err != nil {
			return
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			p.listen(words, line)
		}()
		cmd.Wait()                                       // how it ended is in ProcessState
		words.SetReadDeadline(time.Now().Add(drainTime)) // a child of its own may hold the other end
		<-read
		words.Close()
		close(p.done)
	})
	if err := <-started; err != nil {
		ours.Close()
		words.Close()
		return nil, fmt.Errorf("worker process: %w", err)
	}
	p.pid = cmd.Process.Pid
	p.offer()
	return p, nil
}

// onThread runs f on a thread that ends with it, which isn't the process's first: that
// one never ends, and is what others see of the process.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	begun := make(chan struct{})
	go func() {
		runtime.LockOSThread() // another, while this one is held
		close(begun)
		f()
	}()
	<-begun
	runtime.UnlockOSThread()
}

// offer has the child go before the gateway where the machine's memory ends. It mayn't
// write that itself.
func (p *process) offer() {
	file := fmt.Sprintf("/proc/%d/oom_score_adj", p.pid)
	if text, err := os.ReadFile(file); err == nil {
		if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now < outOfMemory {
			os.WriteFile(file, []byte(strconv.Itoa(outOfMemory)), 0)
		}
	}
}

// A child is called by what it is in ps and top: without this it is "exe". Only here it
// is certain to be the process's first thread that says so (prctl(2), PR_SET_NAME).
func init() {
	if len(os.Args) < 2 || os.Args[1] != Argument {
		return
	}
	name := []byte("gateway-worker\x00")
	if len(os.Args) > 2 && os.Args[2] == AskArgument {
		name = []byte("gateway-ask\x00")
	}
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

// kill ends the child at once; done is closed soon after. Idempotent.
func (p *process) kill() { p.cmd.Process.Kill() } // by pidfd: never another process of that number

// end waits for the child's end and tells how it ended. It is killed if it hasn't
// ended by then, and given up if that doesn't help: a thread of it hangs in a driver.
func (p *process) end(within time.Duration) (how string) {
	late := time.AfterFunc(within, p.kill)
	defer late.Stop()
	select {
	case <-p.done:
		return deathReason(p.cmd.ProcessState, p.tail.String())
	case <-time.After(within + killTimeout):
		return "can't be ended: a driver holds it"
	}
}

// ended tells whether the child has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// spent is the CPU time that an ended child used, 0 while it runs.
func (p *process) spent() time.Duration {
	if !p.ended() {
		return 0
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// listen reads the child's standard error to its end.
func (p *process) listen(words io.Reader, line func(string)) {
	r := bufio.NewReaderSize(words, lineLimit)
	for {
		text, err := r.ReadSlice('\n')
		if len(text) > 0 {
			p.tail.add(text)
			if s := strings.TrimRight(string(text), "\r\n"); line != nil && s != "" && !p.tail.fatal {
				line(s)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// environ is this process's environment without what is the gateway's own: its
// settings, which may hold secrets, and its place with systemd.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(name, config.EnvPrefix) || slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"}, name)
	})
}

// socketPair makes a connected pair of stream sockets: ours is closed on exec,
// theirs is to be handed to a child.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = os.NewFile(uintptr(fds[1]), "worker")
	if ours, err = fileConn(fds[0]); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// fileConn makes a connection of a file descriptor, which it takes over.
func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "worker")
	defer f.Close()
	c, err := net.FileConn(f) // a duplicate, closed on exec
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a Unix socket")
	}
	return u, nil
}

// tail keeps the last of what a child wrote to standard error.
type tail struct {
	fatal bool // it crashes: what follows is its stack. Touched by listen only, until done

	mu   sync.Mutex // guards below
	text []byte
}

func (t *tail) add(line []byte) {
	t.fatal = t.fatal || crashLine(string(line))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text = append(t.text, line...); len(t.text) > 2*tailLimit {
		t.text = append(t.text[:0], t.text[len(t.text)-tailLimit:]...)
	}
}

// String is the last 64 KiB at most.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text[max(0, len(t.text)-tailLimit):])
}
