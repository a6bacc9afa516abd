package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"gateway/internal/config"
)

// Launcher runs pipelines in children.
type Launcher struct {
	// Crashed is called with each crash once its pipeline's sink knows, and may block for a
	// moment; nil: nobody wants to know. It is set before the first Launch.
	Crashed func(Crash)

	log     *slog.Logger
	env     []string
	confine func(texts []string) *Confinement

	mu      sync.Mutex // guards below
	running map[*Pipeline]bool
	held    map[*Pipeline]bool       // given up, and not ended when they were looked at last
	spent   map[string]time.Duration // by stream: CPU time of children that have ended
	crashes map[string]int           // by stream
	crash   *Crash
}

// NewLauncher makes a launcher. env ("NAME=value") is what the children's environment
// has beside this process's. confine is asked what the child may do that runs such
// launch texts, which is everything where confine is nil or returns nil.
func NewLauncher(log *slog.Logger, env []string, confine func(texts []string) *Confinement) *Launcher {
	return &Launcher{
		log: log, env: env, confine: confine,
		running: make(map[*Pipeline]bool), held: make(map[*Pipeline]bool), spent: make(map[string]time.Duration), crashes: make(map[string]int),
	}
}

// Process is a child that runs.
type Process struct {
	PID    int
	Stream string
	Feed   string
	RSS    uint64 // bytes in memory, as it told last
	Held   bool   // it was killed and hasn't ended: a driver holds it
}

// Processes are the children that run now, and those that can't be ended, in no order.
func (l *Launcher) Processes() []Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bury()
	var all []Process
	for p := range l.running {
		all = append(all, Process{PID: p.proc.pid, Stream: p.name, Feed: p.feed, RSS: p.rss.Load()})
	}
	for p := range l.held {
		all = append(all, Process{PID: p.proc.pid, Stream: p.name, Feed: p.feed, RSS: p.rss.Load(), Held: true})
	}
	return all
}

// bury forgets children that could be ended after all. The caller holds mu.
func (l *Launcher) bury() {
	maps.DeleteFunc(l.held, func(p *Pipeline, _ bool) bool { return p.proc.ended() })
}

// mostHeld is how many children of a feed may be held by a driver until no more are
// started: each costs a process, a thread of this one and some descriptors.
const mostHeld = 2

// heldUp tells that too many children of a feed can't be ended.
func (l *Launcher) heldUp(stream, feed string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bury()
	n := 0
	for p := range l.held {
		if p.name == stream && p.feed == feed {
			n++
		}
	}
	if n < mostHeld {
		return nil
	}
	return fmt.Errorf("%d processes of it can't be ended: a driver holds them; replug the device or restart the machine", n)
}

// Spent is the CPU time that the children of each stream have used so far, as they told
// last, of those that have ended too.
func (l *Launcher) Spent() map[string]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := maps.Clone(l.spent)
	for p := range l.running {
		sum[p.name] += time.Duration(p.cpu.Load())
	}
	return sum
}

// Crashes counts for each stream the children that came to an end which nobody asked for.
func (l *Launcher) Crashes() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.crashes)
}

// keep and forget note which children run.
func (l *Launcher) keep(p *Pipeline) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[p] = true
}

func (l *Launcher) forget(p *Pipeline) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, p)
	if !p.proc.ended() {
		l.held[p] = true
	}
	l.spent[p.name] += max(p.proc.spent(), time.Duration(p.cpu.Load()))
}

// note keeps a crash for LastCrash.
func (l *Launcher) note(c Crash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crash = &c
	l.crashes[c.Stream]++
}

// Crash is the end of a child that nobody asked for.
type Crash struct {
	Time   time.Time
	Stream string
	Feed   string
	Reason string // in words
	Words  string // the last 64 KiB that it wrote to standard error: the stack, if it could still tell
}

// LastCrash is the latest crash of a child, if there was one.
func (l *Launcher) LastCrash() (c Crash, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crash == nil {
		return Crash{}, false
	}
	return *l.crash, true
}

// Launch starts a child and a feed's capture in it, and returns when it plays; it
// blocks no longer than ctx allows. The sink may be called before it returns. Nothing is
// started while two children of the feed can't be ended.
func (l *Launcher) Launch(ctx context.Context, name string, feed *config.Feed, limits config.Worker, sink Sink) (*Pipeline, error) {
	if err := l.heldUp(name, feed.Name); err != nil {
		return nil, err
	}
	log := l.log.With("stream", name)
	env := append([]string{"GOMAXPROCS=1"}, l.env...) // its Go side does little, and more would look for work in vain: 1 to 2 % of a core (make bench-worker)
	var may *Confinement
	if l.confine != nil {
		texts := []string{feed.Capture}
		for _, b := range feed.Branches {
			texts = append(texts, b.Launch)
		}
		may = l.confine(texts)
	}
	talk := newTalk(log)
	proc, err := spawn([]string{name + "/" + feed.Name}, env, may, func(line string) {
		if talk.may() {
			log.Warn("pipeline process", "says", line)
		}
	})
	if err != nil {
		return nil, err
	}
	out, err := newSender(proc.conn)
	if err != nil {
		proc.conn.Close()
		proc.end(0)
		return nil, fmt.Errorf("worker socket: %w", err)
	}
	p := &Pipeline{
		launcher: l, name: name, feed: feed.Name, memory: uint64(limits.Memory), sink: sink, log: log, talk: talk, proc: proc, out: out,
		events: rate.NewLimiter(eventRate, eventBurst), calls: make(map[uint64]chan error), over: make(chan struct{}),
	}
	l.keep(p)
	go p.read()
	go p.watch()
	sent := *feed
	sent.Absent, sent.Worker = nil, &limits
	m := &message{Do: doLaunch, Name: name, Feed: &sent, Level: int(level(ctx, log))}
	if err := p.call(ctx, m); err != nil {
		p.end()
		return nil, err
	}
	p.mu.Lock()
	p.launched = true
	err = p.failure
	p.mu.Unlock()
	if err != nil { // it died since
		p.end()
		return nil, err
	}
	return p, nil
}

// level is the least severe level that is logged.
func level(ctx context.Context, log *slog.Logger) slog.Level {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(ctx, l) {
			return l
		}
	}
	return slog.LevelError
}
