package worker

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// crashes begin the lines by which the Go runtime, the C library or the child's own
// handler tell that the process is coming to a bad end.
var crashes = []string{"panic: ", "fatal error: ", "unexpected fault address", "SIG", "runtime: ", "malloc(): ", "free(): ", "double free", "*** "}

func crashLine(line string) bool {
	for _, begin := range crashes {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return false
}

// signalLine is how the Go runtime names the signal that it died of.
var signalLine = regexp.MustCompile(`(?m)^\[signal (SIG[A-Z]+)`)

// deathReason tells in words why a process ended: by a signal, by a crash that the
// Go runtime reports, or with an exit code.
func deathReason(state *os.ProcessState, words string) string {
	crash := ""
	for line := range strings.SplitSeq(words, "\n") {
		if crashLine(line) {
			crash = strings.TrimPrefix(strings.TrimSpace(line), "fatal error: ")
			break
		}
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	switch name := unix.SignalName(status.Signal()); {
	case status.Signaled() && status.Signal() == syscall.SIGXCPU:
		return fmt.Sprintf("spun: a thread with the priority of worker.scheduler didn't wait for anything for %s: %s", spinMost, cmp.Or(crash, name))
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return "was killed (" + name + "): by somebody, or because the machine ran out of memory"
	case status.Signaled() && strings.HasPrefix(crash, name):
		return "crashed: " + crash
	case status.Signaled():
		return "crashed: " + name
	case crash == "":
		return fmt.Sprintf("ended with exit status %d", state.ExitCode())
	case strings.HasPrefix(crash, "SIG"):
		return "crashed: " + crash
	}
	if m := signalLine.FindStringSubmatch(words); m != nil {
		return "crashed: " + m[1]
	}
	return "crashed: " + crash
}
