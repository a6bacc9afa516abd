package device

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// Change is a thing to capture that came, went or is otherwise than it was. The
// zero value: something did, and it isn't known what.
type Change struct {
	Subsystem string // the kernel's, such as "video4linux"; "x11", "sound server" or "link" for what isn't its own
	Node      string // "/dev/video0", a socket's path; "" unknown
	Gone      bool
}

const (
	least = 100 * time.Millisecond // between two notices
	late  = time.Second            // after a change there is one more notice: sound servers and portals see new hardware later than we do
)

// Options says whom a [Watcher] tells.
type Options struct {
	// Notify is called when something has changed, with what it was: on the
	// watcher's goroutine, at once for the first of many, then ten times a second at
	// most. It must not block for long, and not call Close.
	Notify func([]Change)
	Logger *slog.Logger
}

// Watcher tells of devices that come and go, until Close.
type Watcher struct {
	o       Options
	uevents *os.File // nil: can't be opened
	folders *folders // likewise
	changes chan Change
	done    chan struct{}
	wait    sync.WaitGroup
	once    sync.Once
}

// Watch begins to watch. It never fails: what can't be heard is logged once, and
// is seen only when somebody looks.
func Watch(o Options) *Watcher {
	w := &Watcher{o: o, changes: make(chan Change), done: make(chan struct{})}
	var err error
	if w.uevents, err = openUevents(); err != nil {
		o.Logger.Warn("the kernel's device events can't be heard: devices that come are found by looking now and then", "err", err)
	} else {
		w.wait.Go(w.hear)
	}
	if w.folders, err = openFolders(); err != nil {
		o.Logger.Warn("files can't be watched: X and sound servers that come are found by looking now and then", "err", err)
	} else {
		w.wait.Go(w.see)
	}
	w.wait.Go(w.tell)
	return w
}

// Close ends the watching and waits for it. Idempotent.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		close(w.done)
		if w.uevents != nil {
			w.uevents.Close()
		}
		if w.folders != nil {
			w.folders.file.Close()
		}
		w.wait.Wait()
	})
	return nil
}

// hear passes on what the kernel says.
func (w *Watcher) hear() {
	for {
		c, err := readUevent(w.uevents)
		if err != nil {
			select {
			case <-w.done:
			default:
				w.o.Logger.Warn("the kernel's device events aren't heard any more", "err", err)
			}
			return
		}
		w.pass(c)
	}
}

// see passes on what comes and goes as a file.
func (w *Watcher) see() {
	for {
		all, err := w.folders.read()
		if err != nil {
			return
		}
		for _, c := range all {
			w.pass(c)
		}
	}
}

func (w *Watcher) pass(c Change) {
	select {
	case w.changes <- c:
	case <-w.done:
	}
}

// tell gives notice: at once of the first change, of those that follow together,
// and once more when all is quiet.
func (w *Watcher) tell() {
	var (
		news  []Change
		last  time.Time
		quiet = true // the last notice is complete
		due   = time.NewTimer(time.Hour)
	)
	defer due.Stop()
	for {
		select {
		case <-w.done:
			return
		case c := <-w.changes:
			if !slices.Contains(news, c) && len(news) < 256 {
				news = append(news, c)
			}
			quiet = false
			due.Reset(least - time.Since(last))
			continue
		case <-due.C:
		}
		if len(news) == 0 && quiet {
			continue
		}
		quiet = len(news) == 0
		w.o.Notify(news)
		news, last = nil, time.Now()
		if !quiet {
			due.Reset(late)
		}
	}
}
