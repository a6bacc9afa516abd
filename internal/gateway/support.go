package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/contain"
	"gateway/internal/gst"
	"gateway/internal/stream"
)

// support is what a running gateway tells of itself for `gateway bundle`: the answer
// of GET /api/support.
type support struct {
	Version   string        `json:"version"`
	GStreamer string        `json:"gstreamer"`
	Go        string        `json:"go"`
	PID       int           `json:"pid"`
	Began     time.Time     `json:"began"`
	Now       time.Time     `json:"now"`
	Streams   []stream.Info `json:"streams"`
	Problems  []string      `json:"problems"` // files that were left out, and why
	Crashes   []fault       `json:"crashes"`  // the latest of each kind: of this process before, and what was contained
	Log       []string      `json:"log"`      // its latest lines, the oldest first
}

// fault is a crash, or a panic that was contained.
type fault struct {
	At    time.Time `json:"at"`
	Where string    `json:"where"` // "gateway": it ended the process; else what was ended
	What  string    `json:"what"`
	Stack string    `json:"stack"`
}

// support tells an admin what a bug report needs.
func (g *Gateway) support(w http.ResponseWriter, _ *http.Request) {
	s := support{
		Version: g.version, GStreamer: gst.Version(), Go: runtime.Version(), PID: os.Getpid(), Began: g.began, Now: time.Now(),
		Streams: []stream.Info{}, Problems: append([]string{}, g.streams.problems()...), Crashes: g.crashes(), Log: g.recent.all(),
	}
	for _, one := range g.streams.list() {
		s.Streams = append(s.Streams, one.Info())
	}
	for i, line := range s.Log {
		s.Log[i] = config.Redact(line)
	}
	writeJSON(w, http.StatusOK, s)
}

// crashes are the latest faults, the newest first.
func (g *Gateway) crashes() []fault {
	all := []fault{}
	if c := lastCrash(g.conf.State); c != nil {
		all = append(all, *c)
	}
	if c, ok := g.streams.launcher.workers.LastCrash(); ok {
		all = append(all, fault{c.Time, "pipeline of " + c.Stream, c.Reason, c.Words})
	}
	if p := contain.Last(); p != nil {
		all = append(all, fault{p.At, p.Where, p.Value, p.Stack})
	}
	slices.SortFunc(all, func(a, b fault) int { return b.At.Compare(a.At) })
	return all
}

// Files of the state folder that hold how the process ended by a fault: what Go's
// runtime wrote of this run, and of the run before that ended so.
const (
	crashFile     = "crash.txt"
	lastCrashFile = "last-crash.txt"
	maxCrash      = 256 << 10 // bytes of it that are told
)

// KeepCrashes has Go's runtime write a fault that ends this process into the state
// folder too, and tells in the log of one that ended the process before. Where nothing
// can be written it says so; nothing else depends on it. It is for the whole process.
func (g *Gateway) KeepCrashes() {
	dir := g.conf.State
	if dir == "" {
		return
	}
	path := filepath.Join(dir, crashFile)
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		if err := os.Rename(path, filepath.Join(dir, lastCrashFile)); err != nil {
			g.log.Warn("crash of the last run not kept", "err", err)
		}
		if c := lastCrash(dir); c != nil {
			g.log.Error("the last run ended by a fault; gateway bundle has its stack", "at", c.At, "fault", c.What)
		}
	}
	err := os.MkdirAll(dir, 0o700)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	if err == nil {
		err = errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()) // it keeps a descriptor of its own
	}
	if err != nil {
		g.log.Warn("a crash would be told on standard error only", "err", err)
	}
}

// lastCrash is how the gateway ended by a fault the last time; nil: it never did, or
// there is no folder to keep it in.
func lastCrash(dir string) *fault {
	if dir == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, lastCrashFile))
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCrash))
	if err != nil {
		return nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return &fault{info.ModTime(), "gateway", first, string(text)}
}
