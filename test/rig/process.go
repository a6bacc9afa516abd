package rig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Command says how to start a [Process].
type Command struct {
	Path      string
	Args      []string
	Env       []string      // added to the environment of the test
	Dir       string        // working directory; empty: the test's
	Namespace *Namespace    // network namespace; nil: the test's
	CPUs      string        // cores that it may use, such as "0" or "0,2-3"; empty: all
	Files     []*os.File    // file descriptors 3, 4, … of the process
	Input     io.Reader     // standard input; nil: none
	Output    io.Writer     // gets standard output instead of the log; nil: the log
	Log       io.Writer     // gets the log as it is written, besides Process.Log
	Grace     time.Duration // how long Close waits after SIGTERM before SIGKILL; 0: 5 s
}

// Process is a program that a test runs. It has a process group of its own,
// which Close ends as a whole; the kernel kills it when the test process dies.
type Process struct {
	cmd   *exec.Cmd
	grace time.Duration
	done  chan struct{}
	err   error // of Wait; valid once done is closed

	mu   sync.Mutex // guards what follows
	log  bytes.Buffer
	more chan struct{} // closed and renewed when log grows
	tee  io.Writer

	closing sync.Once
}

// maxLog bounds what a Process remembers of its output, in bytes.
const maxLog = 8 << 20

// Start starts a program. It doesn't wait until the program is ready.
func Start(c Command) (*Process, error) {
	path, args := c.Path, c.Args
	if c.Namespace != nil {
		ip, err := Need("ip", "iproute2")
		if err != nil {
			return nil, err
		}
		path, args = ip, append([]string{"netns", "exec", c.Namespace.Name, c.Path}, c.Args...)
	}
	if c.CPUs != "" {
		taskset, err := Need("taskset", "util-linux")
		if err != nil {
			return nil, err
		}
		path, args = taskset, append([]string{"-c", c.CPUs, path}, args...)
	}
	p := &Process{grace: c.Grace, done: make(chan struct{}), more: make(chan struct{}), tee: c.Log}
	if p.grace == 0 {
		p.grace = 5 * time.Second
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.ExtraFiles = append(os.Environ(), c.Env...), c.Dir, c.Files
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.Input, c.Output, (*logWriter)(p)
	if c.Output == nil {
		p.cmd.Stdout = p.cmd.Stderr
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = 2 * time.Second // a grandchild may hold the pipes
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that started the process ends, not
		// the process (golang.org/issue/27505): stay on it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return p, nil
}

// logWriter is a Process as the writer of its own log.
type logWriter Process

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.log.Len()+len(b) <= maxLog {
		w.log.Write(b)
	}
	if w.tee != nil {
		w.tee.Write(b)
	}
	close(w.more)
	w.more = make(chan struct{})
	return len(b), nil
}

// Log is what the process printed until now, standard error included, up to
// 8 MiB.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// WaitLog waits until the log matches and returns the match and its groups. It
// fails when the process ends before, or ctx.
func (p *Process) WaitLog(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		p.mu.Lock()
		m, more := re.FindStringSubmatch(p.log.String()), p.more
		p.mu.Unlock()
		if m != nil {
			return m, nil
		}
		select {
		case <-more:
		case <-p.done:
			if m := re.FindStringSubmatch(p.Log()); m != nil {
				return m, nil
			}
			return nil, fmt.Errorf("%s ended (%v) before it printed %q:\n%s", p.cmd.Path, p.err, re, tail(p.Log()))
		case <-ctx.Done():
			return nil, fmt.Errorf("%s didn't print %q: %w\n%s", p.cmd.Path, re, ctx.Err(), tail(p.Log()))
		}
	}
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process itself, not to its group.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end by itself and returns how it did, as
// [exec.Cmd.Wait].
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s runs on: %w", p.cmd.Path, ctx.Err())
	}
}

// Close ends the process group: SIGTERM, and SIGKILL when that takes longer than
// the grace, which is an error. It waits, and does nothing the second time.
func (p *Process) Close() (err error) {
	p.closing.Do(func() { err = p.end() })
	return err
}

func (p *Process) end() error {
	defer syscall.Kill(-p.Pid(), syscall.SIGKILL) // what it left behind
	select {
	case <-p.done:
		return nil
	default:
	}
	syscall.Kill(-p.Pid(), syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(p.grace):
	}
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
	return fmt.Errorf("%s didn't end within %s of SIGTERM:\n%s", p.cmd.Path, p.grace, tail(p.Log()))
}

// tail is the end of a log, as much as a test report bears.
func tail(log string) string {
	const most = 4000
	if len(log) > most {
		return "…" + log[len(log)-most:]
	}
	return log
}
