package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/media"
)

const (
	pulseEvery = 500 * time.Millisecond // how often a child tells that it lives
	flushTime  = time.Second            // for the last message
	margin     = 200 * time.Millisecond // by which a child's deadlines end before the gateway's
)

var errOver = errors.New("the pipeline is closed")

// Serve is the life of a child that was started by spawn: it runs one pipeline by
// the gateway's commands, until the gateway closes the socket or is gone. It returns
// the exit status.
func Serve(h Host) (status int) {
	// whoever ends the gateway, by a Ctrl-C or as a service, ends this by it
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	conn, err := fileConn(socketFD)
	if err != nil {
		os.Stderr.WriteString("gateway: a worker is started by the gateway itself\n")
		return 2
	}
	out, err := newSender(conn)
	if err != nil {
		return 1
	}
	c := &child{
		host: h, out: out, level: new(slog.LevelVar),
		turns: make(map[string]chan struct{}), cancels: make(map[string]context.CancelFunc), over: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.log = slog.New(&logHandler{out: out, level: c.level})
	commands := make(chan *message)
	go c.receive(newReceiver(conn), commands)
	c.serve(commands)
	out.close(flushTime)
	return 0
}

// child is the state of a child. Only serve's goroutine changes it, but for what mu
// guards.
type child struct {
	host  Host
	out   *sender
	log   *slog.Logger
	level *slog.LevelVar

	ctx     context.Context // of what is being started; ends with close
	cancel  context.CancelFunc
	cancels map[string]context.CancelFunc // by branch: of its last start
	closing bool
	over    chan struct{} // the pipeline is closed

	mu      sync.Mutex               // guards below
	running Running                  // nil: not launched
	turns   map[string]chan struct{} // by branch: closed when the last command for it is done
	closed  bool
}

// receive reads commands until the gateway is gone.
func (c *child) receive(r *receiver, commands chan<- *message) {
	defer close(commands)
	for {
		_, b, m, err := r.next()
		switch {
		case err != nil:
			return
		case b != nil:
			b.Release()
		default:
			commands <- m
		}
	}
}

// serve carries out commands and tells now and then that it can.
func (c *child) serve(commands <-chan *message) {
	pulse := time.NewTicker(pulseEvery)
	defer pulse.Stop()
	for {
		select {
		case m, ok := <-commands:
			if !ok {
				return // what runs ends with the process
			}
			c.do(m)
		case <-pulse.C:
			c.out.message(&message{Do: doPulse, RSS: residentSize(), CPU: cpuTime()})
		case <-c.over:
			return
		}
	}
}

// do begins a command. It doesn't block.
func (c *child) do(m *message) {
	switch m.Do {
	case doLaunch:
		if m.Feed == nil || m.Feed.Worker == nil {
			c.answer(m, errWire)
			return
		}
		c.level.Set(slog.Level(m.Level))
		go func() { c.answer(m, c.launch(m)) }()
	case doStart:
		ctx, cancel := context.WithTimeout(c.ctx, m.Within)
		c.cancels[m.ID] = cancel
		c.inTurn(m.ID, func() {
			defer cancel()
			c.answer(m, c.with(func(p Running) error { return p.Start(ctx, m.ID, m.Branch) }))
		})
	case doStop:
		if cancel := c.cancels[m.ID]; cancel != nil { // it may still be starting
			cancel()
			delete(c.cancels, m.ID)
		}
		c.inTurn(m.ID, func() {
			c.answer(m, c.with(func(p Running) error { p.Stop(m.ID); return nil }))
		})
	case doBitrate:
		c.inTurn(m.ID, func() {
			c.answer(m, c.with(func(p Running) error { return p.SetBitrate(m.ID, m.Count, m.Scarce) }))
		})
	case doKeyframe:
		c.with(func(p Running) error { p.RequestKeyframe(m.ID); return nil })
	case doClose:
		if !c.closing {
			c.closing = true
			c.cancel()
			go c.close(m)
		}
	}
}

// inTurn runs f after what was asked earlier for the same branch.
func (c *child) inTurn(id string, f func()) {
	mine := make(chan struct{})
	c.mu.Lock()
	before := c.turns[id]
	c.turns[id] = mine
	c.mu.Unlock()
	go func() {
		if before != nil {
			<-before
		}
		f()
		close(mine)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turns[id] == mine {
			delete(c.turns, id)
		}
	}()
}

// with calls the running pipeline.
func (c *child) with(f func(Running) error) error {
	c.mu.Lock()
	p := c.running
	c.mu.Unlock()
	if p == nil {
		return errOver
	}
	return f(p)
}

func (c *child) answer(m *message, err error) {
	if e := c.out.message(&message{Do: doAnswer, N: m.N, Error: newFault(err)}); e != nil {
		c.log.Error("worker answer", "command", m.Do, "err", e)
	}
}

func (c *child) launch(m *message) error {
	limit(m.Feed.Worker, c.log)
	c.host.Init(c.log)
	if err := noPrograms(); err != nil {
		return fmt.Errorf("confinement: %w", err)
	}
	ctx, cancel := context.WithTimeout(c.ctx, m.Within)
	defer cancel()
	p, err := c.host.Launch(ctx, m.Name, m.Feed, outlet{c.out, c.log}, c.log)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if !c.closed {
		c.running = p
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	return errors.Join(errOver, p.Close())
}

// close ends the pipeline and, once that is answered, this process.
func (c *child) close(m *message) {
	defer close(c.over)
	c.mu.Lock()
	p := c.running
	c.closed = true
	c.mu.Unlock()
	var err error
	if p != nil {
		err = p.Close()
	}
	c.answer(m, err)
}

// outlet sends what a pipeline yields to the gateway.
type outlet struct {
	out *sender
	log *slog.Logger
}

// Deliver implements Sink.
func (o outlet) Deliver(id string, b *media.Buffer) { o.out.packets(id, b) }

// Describe implements Sink.
func (o outlet) Describe(id string, t media.Track) {
	o.tell(&message{Do: doDescribe, ID: id, Track: &t})
}

// Dropped implements Sink.
func (o outlet) Dropped(id string, n int) { o.tell(&message{Do: doDropped, ID: id, Count: n}) }

// Ended implements Sink.
func (o outlet) Ended(id string, err error) {
	o.tell(&message{Do: doEnded, ID: id, Error: newFault(err)})
}

// Fail implements Sink.
func (o outlet) Fail(err error) { o.tell(&message{Do: doFail, Error: newFault(err)}) }

func (o outlet) tell(m *message) {
	if err := o.out.message(m); err != nil {
		o.log.Error("worker event", "event", m.Do, "err", err)
	}
}

// cpuTime is how much CPU time this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentSize is how much memory this process occupies, in bytes; 0: unknown.
func residentSize() uint64 {
	text, err := os.ReadFile("/proc/self/statm") // proc_pid_statm(5): size, resident, …, in pages
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
