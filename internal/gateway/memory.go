package gateway

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// cgroupLimit is the least memory.max of this process's control group and those
// above it (cgroups(7), version 2), in bytes, and what the same group uses, without
// the pages of files that the kernel would give up first; 0: there is no limit, or it can't be read. table is /proc/self/cgroup, root where the groups
// are mounted.
func cgroupLimit(table, root string) (limit, used uint64) {
	text, err := os.ReadFile(table)
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := filepath.Join(root, path); strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
			n, ok := cgroupNumber(filepath.Join(dir, "memory.max"))
			if ok && (limit == 0 || n < limit) {
				limit = n
				used, _ = cgroupNumber(filepath.Join(dir, "memory.current"))
				used -= min(used, cgroupCache(filepath.Join(dir, "memory.stat")))
			}
		}
	}
	return limit, used
}

// cgroupCache is inactive_file of a memory.stat.
func cgroupCache(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "inactive_file "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}

// cgroupNumber reads one number; "max" is none.
func cgroupNumber(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// LimitMemory has Go's collector keep the process below the limit of its control
// group: it works harder as the heap comes near nine tenths of it, rather than have
// the kernel end the process. GOMEMLIMIT in the environment overrides it. It is for
// the whole process.
func LimitMemory(log *slog.Logger) {
	limit, _ := cgroupLimit("/proc/self/cgroup", "/sys/fs/cgroup")
	if limit == 0 || os.Getenv("GOMEMLIMIT") != "" || limit > math.MaxInt64 {
		return
	}
	debug.SetMemoryLimit(int64(limit / 10 * 9))
	log.Info("memory is limited", "limit", bytesText(limit))
}
