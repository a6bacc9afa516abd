package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used until now.
type Usage struct {
	CPU      time.Duration            // of its threads that live, user and system
	ByThread map[string]time.Duration // the same by the threads' names: GStreamer names its own, Go's have the program's
	RSS      int                      // resident memory, bytes
}

// UsageOf reads it from the kernel, CPU time to the nanosecond.
func UsageOf(pid int) (Usage, error) {
	u := Usage{ByThread: make(map[string]time.Duration)}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	tasks, err := filepath.Glob(filepath.Join(dir, "task", "*"))
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("process %d has no threads", pid)
	}
	for _, task := range tasks {
		comm, err := os.ReadFile(filepath.Join(task, "comm"))
		if err != nil {
			continue // the thread has ended
		}
		stat, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s/schedstat: %w", task, err)
		}
		u.CPU += time.Duration(ns)
		u.ByThread[strings.TrimSpace(string(comm))] += time.Duration(ns)
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				return u, fmt.Errorf("VmRSS: %w", err)
			}
			u.RSS = kb << 10
		}
	}
	return u, nil
}
