package worker

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
)

// realtimePriority is that of SCHED_FIFO and SCHED_RR, of 1 to 99: before everything
// ordinary, behind the kernel's own threads and sound servers.
const realtimePriority = 10

// spinMost is how long a thread may run at such a priority without waiting for anything
// (RLIMIT_RTTIME, getrlimit(2)): one that spins keeps the gateway off that core. SIGXCPU
// ends the process then and, if that doesn't, SIGKILL after twice as long.
const spinMost = time.Second

// outOfMemory is the child's oom_score_adj (proc_pid_oom_score_adj(5)): where the
// machine's memory ends, it goes before the gateway.
const outOfMemory = 500

var policies = map[string]uint32{"batch": unix.SCHED_BATCH, "fifo": unix.SCHED_FIFO, "rr": unix.SCHED_RR}

// limit gives this process what a pipeline may use. It is called before there are
// threads of GStreamer's, which inherit it. What can't be had is logged: a pipeline
// that runs less well is better than none.
func limit(w *config.Worker, log *slog.Logger) {
	refused := func(what, remedy string, err error) {
		if err != nil {
			log.Warn("worker limit", "key", "worker."+what, "err", err, "remedy", remedy)
		}
	}
	if w.Files > 0 {
		files := unix.Rlimit{Cur: uint64(w.Files), Max: uint64(w.Files)}
		var has unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &has); err == nil && has.Max < files.Max {
			refused("files", "raise the gateway's own limit (LimitNOFILE of its service), or lower it", fmt.Errorf("the gateway itself may open %d", has.Max))
			files = unix.Rlimit{Cur: has.Max, Max: has.Max}
		}
		refused("files", "lower it", unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil))
	}
	if cpus, err := config.ParseCPUs(w.CPUs); w.CPUs != "" && err == nil {
		var set unix.CPUSet
		for _, n := range cpus {
			set.Set(n)
		}
		refused("cpus", "name cores that this machine has and that the gateway may use", eachThread(func(tid int) error {
			return unix.SchedSetaffinity(tid, &set)
		}))
	}
	if w.Nice != 0 {
		refused("nice", "give the gateway CAP_SYS_NICE, or write 0 or more", eachThread(func(tid int) error {
			return unix.Setpriority(unix.PRIO_PROCESS, tid, w.Nice)
		}))
	}
	if policy, ok := policies[w.Scheduler]; ok {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: int32(w.Nice)}
		if policy != unix.SCHED_BATCH {
			attr.Priority, attr.Nice = realtimePriority, 0
			most := unix.Rlimit{Cur: uint64(spinMost.Microseconds()), Max: uint64(2 * spinMost.Microseconds())}
			refused("scheduler", "write normal", unix.Prlimit(0, unix.RLIMIT_RTTIME, &most, nil))
		}
		refused("scheduler", "give the gateway CAP_SYS_NICE or LimitRTPRIO, or write normal", eachThread(func(tid int) error {
			return unix.SchedSetAttr(tid, &attr, 0)
		}))
	}
}

// eachThread calls f for every thread of this process, twice: one may have started
// another meanwhile. The first error is returned.
func eachThread(f func(tid int) error) (first error) {
	for range 2 {
		first = cmp.Or(first, eachThreadOnce(f))
	}
	return first
}

func eachThreadOnce(f func(tid int) error) (first error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := f(tid); err != nil && err != unix.ESRCH && first == nil {
			first = err
		}
	}
	return first
}
