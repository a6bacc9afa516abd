package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"gateway/internal/config"
	"gateway/internal/device"
	"gateway/internal/lint"
	"gateway/internal/stream"
)

const (
	settleTime = 100 * time.Millisecond // without a further event before a changed folder is read
	goneTime   = 300 * time.Millisecond // that a file must be missing before its stream ends: editors write anew what they save
	folderPoll = 5 * time.Second        // how often the folder is read without an event: symlinks' targets and network file systems have none
)

// streams are the streams of the pipelines folder, kept as its files say.
type streams struct {
	dir      string
	table    *config.Encoders
	launcher launcher
	began    func(name string) // called when a stream was added
	removed  func(name string) // called when a stream has ended
	log      *slog.Logger

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   chan struct{}
	watch  *device.Watcher

	reloads sync.WaitGroup // those that follow has begun, and await

	mu      sync.Mutex // guards below
	byName  map[string]*stream.Stream
	files   map[string]file        // by path
	turns   map[string]*sync.Mutex // by path: see turn
	trouble []string               // what is wrong with the folder
}

// file is a pipeline file as it was seen last.
type file struct {
	config.File
	problems []string // what is wrong with it
	refused  bool     // its content isn't in force
	untold   bool     // because it couldn't be judged: it is tried again
}

// outcome is what a reload did with one file.
type outcome struct {
	Name     string   `json:"name"`
	OK       bool     `json:"ok"`
	Message  string   `json:"message"`
	Findings []string `json:"findings,omitempty"`
}

// load starts every good stream of the folder, logs what is wrong with the
// others, and goes on following the folder until close.
func (s *streams) load() {
	s.byName, s.files, s.turns = make(map[string]*stream.Stream), make(map[string]file), make(map[string]*sync.Mutex)
	s.done = make(chan struct{})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	events := s.listen()
	s.reload(false)
	s.watch = device.Watch(device.Options{Notify: s.changed, Logger: s.log})
	s.reloads.Go(s.await)
	go s.follow(events)
}

// listen has the kernel tell about changes in the folder, and of the folder
// itself, which may be a symlink that is replaced.
func (s *streams) listen() *fsnotify.Watcher {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = errors.Join(w.Add(s.dir), w.Add(filepath.Dir(s.dir)))
	}
	if err != nil {
		s.log.Warn("pipelines folder is looked at now and then only", "every", folderPoll, "err", err)
	}
	return w
}

// follow reloads whenever something in the folder has changed.
func (s *streams) follow(w *fsnotify.Watcher) {
	defer close(s.done)
	defer s.reloads.Wait()
	var events chan fsnotify.Event
	var faults chan error
	if w != nil {
		defer w.Close()
		events, faults = w.Events, w.Errors
	}
	poll := time.NewTicker(folderPoll)
	defer poll.Stop()
	settled := time.NewTimer(time.Hour)
	defer settled.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case err := <-faults: // events may be lost
			s.log.Debug("pipelines folder", "err", err)
			settled.Reset(settleTime)
			continue
		case e := <-events:
			if e.Op != fsnotify.Chmod && (filepath.Dir(e.Name) == s.dir || filepath.Clean(e.Name) == s.dir) {
				settled.Reset(settleTime)
			}
			continue
		case <-settled.C:
		case <-poll.C:
			if w != nil {
				w.Add(s.dir) // the same, unless the folder was exchanged
			}
		}
		s.reloads.Go(func() { s.reload(false) })
	}
}

// reload reads the folder and brings the streams in line with it: those whose
// files are new begin, changed ones are changed, gone ones end. Files that are as
// they were are left alone; with again, those that aren't in force are tried once
// more. It returns what was done, and blocks until that is decided.
func (s *streams) reload(again bool) []outcome {
	var (
		wait     sync.WaitGroup
		mu       sync.Mutex
		outcomes []outcome
	)
	for _, path := range s.candidates() {
		wait.Go(func() {
			if o, done := s.settle(path, again); done {
				mu.Lock()
				defer mu.Unlock()
				outcomes = append(outcomes, o)
			}
		})
	}
	wait.Wait()
	slices.SortFunc(outcomes, func(a, b outcome) int { return strings.Compare(a.Name, b.Name) })
	return outcomes
}

// candidates lists the files of the folder, and those that were there.
func (s *streams) candidates() []string {
	paths, err := config.ListFolder(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.trouble
	s.trouble = problemsOf(err)
	if err != nil { // nothing is known of any file: all goes on
		if !slices.Equal(known, s.trouble) {
			s.log.Error("pipelines", "err", err)
		}
		return nil
	}
	for path := range s.files {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// settle does what one file asks for, one at a time for each: a stream that takes
// long to decide about holds up no other.
func (s *streams) settle(path string, again bool) (o outcome, done bool) {
	turn := s.turn(path)
	turn.Lock()
	defer turn.Unlock()
	if s.ctx.Err() != nil {
		return o, false
	}
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return s.remove(path)
	}
	f := config.ReadFile(path)
	s.mu.Lock()
	old, had := s.files[path]
	s.mu.Unlock()
	if had && bytes.Equal(old.Data, f.Data) && (old.Err == nil) == (f.Err == nil) && !(again && s.pending(old)) && !old.untold {
		return o, false
	}
	return s.update(f), true
}

// turn is held by who settles a file.
func (s *streams) turn(path string) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[path] == nil {
		s.turns[path] = new(sync.Mutex)
	}
	return s.turns[path]
}

// pending tells whether a file's content isn't in force: it was refused, or its
// stream has gone back to what it had before.
func (s *streams) pending(f file) bool {
	if f.refused {
		return true
	}
	running, ok := s.Stream(f.Name())
	if !ok {
		return false
	}
	r := running.Info().Reload
	return r != nil && !r.OK
}

// update puts a file's new content in force, if it can be.
func (s *streams) update(f config.File) outcome {
	name := f.Name()
	running, exists := s.Stream(name)
	o := outcome{Name: name, OK: true, Message: "new"}
	s.mu.Lock()
	told := s.files[f.Path].untold
	s.mu.Unlock()
	conf, warnings, err := s.check(f, exists)
	switch {
	case err != nil && exists && told && errors.Is(err, errUntold): // as at the last try
	case err != nil && exists:
		running.Refuse(err)
	case err == nil && exists:
		err = running.Apply(s.ctx, conf)
	case err == nil:
		s.mu.Lock()
		open := s.ctx.Err() == nil // see close
		if open {
			s.byName[name] = stream.New(conf, naming{s.launcher}, s.log)
		}
		s.mu.Unlock()
		if open {
			s.began(name)
		}
	default:
		s.log.Error("pipeline file", "err", err)
		o.OK, o.Message = false, "the file has faults"
	}
	if exists {
		if r := running.Info().Reload; r != nil {
			o = outcome{Name: name, OK: r.OK, Message: r.Message, Findings: r.Findings}
		}
	}
	o.Findings = append(o.Findings, warnings...)
	seen := file{File: f, refused: err != nil, untold: errors.Is(err, errUntold)}
	var faults config.Errors
	if errors.As(err, &faults) {
		seen.problems = problemsOf(faults)
		o.Findings = append(seen.problems, warnings...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[f.Path] = seen
	return o
}

// check parses a file, and where its stream runs already looks for faults in what
// it would launch: a new stream is rather seen to fail than not tried.
func (s *streams) check(f config.File, thoroughly bool) (*config.Stream, []string, error) {
	conf, err := f.Parse(s.table)
	if err != nil || !thoroughly {
		return conf, nil, err
	}
	var faults, warnings config.Errors
	q := s.launcher.machine.inquire(s.ctx)
	_, found := lint.Stream(conf, q)
	if q.err != nil {
		return nil, nil, q.err
	}
	for _, e := range found {
		if e.Severity == config.Fault {
			faults = append(faults, e)
		} else {
			warnings = append(warnings, e)
		}
	}
	if len(faults) > 0 {
		return nil, problemsOf(warnings), faults
	}
	return conf, problemsOf(warnings), nil
}

// remove ends the stream of a file that is gone, if it stays so for a moment.
func (s *streams) remove(path string) (outcome, bool) {
	select {
	case <-time.After(goneTime):
	case <-s.ctx.Done():
		return outcome{}, false
	}
	if _, err := os.Stat(path); err == nil {
		return outcome{}, false // the next reload sees what it holds
	}
	name := config.File{Path: path}.Name()
	s.mu.Lock()
	if _, known := s.files[path]; !known { // another reload was first
		s.mu.Unlock()
		return outcome{}, false
	}
	gone := s.byName[name]
	delete(s.byName, name)
	delete(s.files, path)
	s.mu.Unlock()
	if gone != nil {
		s.log.Info("stream removed with its file", "stream", name)
		if err := gone.Close(); err != nil {
			s.log.Error("stream close", "stream", name, "err", err)
		}
		s.removed(name)
	}
	return outcome{Name: name, OK: true, Message: "removed"}, true
}

// problemsOf is an error as lines for people.
func problemsOf(err error) []string {
	var findings config.Errors
	if !errors.As(err, &findings) {
		return nil
	}
	lines := make([]string, len(findings))
	for i, f := range findings {
		lines[i] = config.Redact(f.Error())
	}
	return lines
}

// problems lists what is wrong with files of the folder, in the order of their names.
func (s *streams) problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.trouble)
	paths := make([]string, 0, len(s.files))
	for path := range s.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		all = append(all, s.files[path].problems...)
	}
	return all
}

// Stream finds a stream by name.
func (s *streams) Stream(name string) (*stream.Stream, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.byName[name]
	return found, ok
}

// list returns all streams in the order of their names.
func (s *streams) list() []*stream.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*stream.Stream, 0, len(s.byName))
	for _, one := range s.byName {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *stream.Stream) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

// names lists the names of all streams.
func (s *streams) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.byName))
}

// close stops following the folder and closes all streams, at the same time.
func (s *streams) close() error {
	s.cancel()
	s.watch.Close() // never fails
	all := s.list() // update makes none after the cancel
	var wait sync.WaitGroup
	errs := make([]error, len(all))
	for i, one := range all {
		wait.Go(func() { errs[i] = one.Close() })
	}
	wait.Wait()
	<-s.done
	return errors.Join(errs...)
}
