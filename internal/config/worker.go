package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Where a pipeline runs.
const (
	IsolationProcess = "process" // in a process of its own: what crashes there ends nothing else
	IsolationNone    = "none"    // in the gateway's process
)

// Worker is what the process of a pipeline may use. It is comparable.
type Worker struct {
	Memory    int64  // bytes in RAM (RSS): above it the process is ended; 0: no limit. Default 2G
	Files     int    // open files at a time (RLIMIT_NOFILE). Default 1024
	Nice      int    // -20, which comes first, to 19 (nice(2)). Default 0
	Scheduler string // one of Schedulers. Default normal
	CPUs      string // cores that it may use, such as "0,2-3"; "": all (the default)
}

// Schedulers are the words of worker.scheduler: SCHED_OTHER, SCHED_BATCH, SCHED_FIFO and
// SCHED_RR of sched(7).
var Schedulers = []string{"normal", "batch", "fifo", "rr"}

// workerKeys are isolation and worker, which both kinds of file may have. In a pipeline
// file they have no default of their own: the gateway's hold.
func workerKeys(pipeline bool) []key {
	keys := []key{
		{path: "isolation", kind: ofWord, def: IsolationProcess, words: []string{IsolationProcess, IsolationNone}, example: IsolationNone, meaning: "`process`: the pipeline runs in a process of its own, and what crashes, hangs or leaks there ends that alone; `none`: in the gateway's own process"},
		{path: "worker", kind: ofSection, meaning: "what the process of a pipeline may use"},
		{path: "worker.memory", kind: ofSize, def: "2G", least: 0, most: 1 << 50, unit: "bytes with `k`, `M` or `G`; 0: no limit", example: "500M", meaning: "memory (RSS) above which the process is ended and started again"},
		{path: "worker.files", kind: ofCount, def: "1024", least: 64, most: 1 << 20, unit: "64 to 1048576", example: "256", meaning: "files that it may have open at a time"},
		{path: "worker.nice", kind: ofCount, def: "0", least: -20, most: 19, unit: "-20 to 19", example: "5", meaning: "less than 0: it goes before other processes, which takes privileges; more: it waits for them"},
		{path: "worker.scheduler", kind: ofWord, def: "normal", words: Schedulers, example: "rr", meaning: "scheduling class (sched(7)); `fifo` and `rr` go before everything else and take privileges"},
		{path: "worker.cpus", kind: ofText, def: `""`, unit: "numbers and ranges of them", example: `"2-3"`, meaning: "CPU cores that it may use; empty: all"},
	}
	if pipeline {
		for i := range keys {
			keys[i].def, keys[i].otherwise = "", "as in gateway.yaml"
			if parent, _ := splitPath(keys[i].path); parent != "" {
				keys[i].otherwise = "as `worker` in gateway.yaml, without `worker` here; else " + workerDefault(keys[i].path)
			}
		}
		keys[1].meaning += "; it takes the place of the whole section in gateway.yaml"
	}
	return keys
}

// workerDefault is what a key of worker is where the section doesn't have it.
func workerDefault(path string) string {
	for _, k := range workerKeys(false) {
		if k.path == path && k.def != `""` {
			return "`" + k.def + "`"
		}
	}
	return "all"
}

// readWorker reads the section.
func readWorker(m *mapping) Worker {
	w := Worker{
		Memory: m.size("memory", 2<<30), Files: m.integer("files", 1024, "files"), Nice: m.integer("nice", 0, ""),
		Scheduler: m.one("scheduler", "normal"), CPUs: m.text("cpus", "", 256),
	}
	if w.CPUs != "" {
		if _, err := ParseCPUs(w.CPUs); err != nil {
			m.fault("cpus", quote(w.CPUs)+" isn't a list of CPU cores", `write their numbers, such as "0,2-3"`)
		}
	}
	return w
}

var cpuRange = regexp.MustCompile(`^([0-9]{1,4})(?:-([0-9]{1,4}))?$`)

// maxCPU is the highest core that can be named, as in the kernel's cpu_set_t.
const maxCPU = 1023

// ParseCPUs reads a list of cores such as "0,2-3" (the List format of cpuset(7)).
func ParseCPUs(text string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(text, ",") {
		p := cpuRange.FindStringSubmatch(strings.TrimSpace(part))
		if p == nil {
			return nil, strconv.ErrSyntax
		}
		first, _ := strconv.Atoi(p[1])
		last := first
		if p[2] != "" {
			last, _ = strconv.Atoi(p[2])
		}
		if last < first || last > maxCPU {
			return nil, strconv.ErrRange
		}
		for n := first; n <= last; n++ {
			cpus = append(cpus, n)
		}
	}
	return cpus, nil
}

var bytesText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kKMG]?)(?:i?B)?$`)

// sizeUnits are powers of 1024, as free(1) and systemd have them.
var sizeUnits = map[string]float64{"": 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

// size reads a number of bytes: a number, or one with k, M or G behind it.
func (m *mapping) size(name string, def int64) int64 {
	n := m.scalar(name, "a size")
	if n == nil {
		return def
	}
	t := bytesText.FindStringSubmatch(n.Value)
	if t == nil {
		m.fault(name, "expected a size, found "+describe(n), "write bytes with k, M or G, such as 500M or 2G")
		return def
	}
	v, err := strconv.ParseFloat(t[1], 64)
	v *= sizeUnits[t[2]]
	switch {
	case err != nil || v > m.key(name).most:
		m.fault(name, n.Value+" is out of range", "write bytes with k, M or G, such as 500M or 2G")
		return def
	case v > 0 && v < minMemory:
		m.fault(name, n.Value+" is too little for any pipeline", "write at least 64M, or 0 for no limit")
		return def
	}
	return int64(math.Round(v))
}

// minMemory is what a pipeline's process needs at least, bytes.
const minMemory = 64 << 20

// formatSize writes a size as the configuration does: 2G, 500M.
func formatSize(n int64) string {
	for _, unit := range []string{"G", "M", "k"} {
		if u := int64(sizeUnits[unit]); n >= u && n%u == 0 {
			return strconv.FormatInt(n/u, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

func (w *Worker) settings() yamlMap {
	var m yamlMap
	m.word("memory", formatSize(w.Memory))
	m.number("files", w.Files)
	m.number("nice", w.Nice)
	m.word("scheduler", w.Scheduler)
	if w.CPUs != "" {
		m.text("cpus", w.CPUs)
	}
	return m
}

// sameWorker tells whether two of them, nil or not, ask for the same.
func sameWorker(a, b *Worker) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// SameProcess tells whether two feeds may run in the same process.
func (f *Feed) SameProcess(o *Feed) bool {
	return f.Isolation == o.Isolation && sameWorker(f.Worker, o.Worker)
}
