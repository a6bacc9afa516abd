package gateway

import (
	"encoding/json"
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
	"gateway/internal/worker"
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
	all := leftCrashes(g.conf.State)
	if c, ok := g.streams.launcher.workers.LastCrash(); ok { // it may not have been kept
		this := pipelineFault(c)
		all = append(slices.DeleteFunc(all, func(f fault) bool { return f.Where != gatewayCrash }), this)
	}
	if p := contain.Last(); p != nil {
		all = append(all, fault{p.At, p.Where, p.Value, p.Stack})
	}
	newestFirst(all)
	return all
}

// leftCrashes are the latest faults that the state folder knows, the newest first: the
// gateway's own, and a pipeline's.
func leftCrashes(dir string) []fault {
	all := []fault{}
	for _, c := range []*fault{lastCrash(dir), lastPipelineCrash(dir)} {
		if c != nil {
			all = append(all, *c)
		}
	}
	newestFirst(all)
	return all
}

func newestFirst(all []fault) {
	slices.SortFunc(all, func(a, b fault) int { return b.At.Compare(a.At) })
}

// pipelineFault is the crash of a pipeline's process.
func pipelineFault(c worker.Crash) fault {
	return fault{c.Time, "pipeline of " + c.Stream, c.Reason, c.Words}
}

// Files of the state folder that hold how the process ended by a fault: what Go's
// runtime wrote of this run, and of the run before that ended so.
const (
	crashFile     = "crash.txt"
	lastCrashFile = "last-crash.txt"
	maxCrash      = 256 << 10 // bytes of it that are told

	// pipelineCrashFile holds how a pipeline's process ended by a fault the last time: a
	// fault as JSON.
	pipelineCrashFile = "last-pipeline-crash.json"

	gatewayCrash = "gateway" // where a fault was that ended the gateway
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
	return &fault{info.ModTime(), gatewayCrash, first, string(text)}
}

// keepPipelineCrash keeps a fault for the time after this run, without its secrets and
// for this user only: whole, or the one before. Without a folder it is forgotten.
func keepPipelineCrash(dir string, c fault) error {
	if dir == "" {
		return nil
	}
	c.What, c.Stack = config.Redact(c.What), config.Redact(c.Stack[max(0, len(c.Stack)-maxCrash):])
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".pipeline-crash-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, pipelineCrashFile))
}

// lastPipelineCrash is what was kept; nil: nothing, or not in one piece.
func lastPipelineCrash(dir string) *fault {
	if dir == "" {
		return nil
	}
	text, err := readSome(filepath.Join(dir, pipelineCrashFile))
	if err != nil {
		return nil
	}
	c := new(fault)
	if json.Unmarshal(text, c) != nil || c.Where == "" {
		return nil
	}
	return c
}
