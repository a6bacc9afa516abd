package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Family is a process and those that it has started, and they: a gateway and the
// processes of its pipelines. It is empty when the process has ended.
func Family(pid int) []int {
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err != nil {
		return nil
	}
	all := []int{pid}
	lists, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	for _, path := range lists {
		list, err := os.ReadFile(path) // proc_tid_children(5); a thread may have ended
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, Family(child)...)
			}
		}
	}
	return all
}

// ThreadsOf are the names of a process's threads. Go's have the program's (the
// first one's), GStreamer and encoders give their own.
func ThreadsOf(pid int) (names []string, err error) {
	paths, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "comm"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("process %d has no threads", pid)
	}
	for _, path := range paths {
		if name, err := os.ReadFile(path); err == nil { // else it has just ended
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	return names, nil
}

// Usage is what a process has used until now.
type Usage struct {
	CPU      time.Duration            // of its threads that live, user and system
	ByThread map[string]time.Duration // the same by the threads' names: GStreamer names its own, Go's have the program's
	RSS      int                      // resident memory, bytes
}

// UsageOf reads it from the kernel, CPU time to the nanosecond, for a process and
// those that it has started. What these share in memory is counted for each.
func UsageOf(pid int) (Usage, error) {
	sum := Usage{ByThread: make(map[string]time.Duration)}
	for _, pid := range Family(pid) {
		u, err := usageOf(pid)
		if err != nil {
			if _, gone := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); gone != nil {
				continue
			}
			return u, err
		}
		sum.CPU += u.CPU
		sum.RSS += u.RSS
		for name, d := range u.ByThread {
			sum.ByThread[name] += d
		}
	}
	if len(sum.ByThread) == 0 {
		return sum, fmt.Errorf("process %d has ended", pid)
	}
	return sum, nil
}

// usageOf is what one process has used.
func usageOf(pid int) (Usage, error) {
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
