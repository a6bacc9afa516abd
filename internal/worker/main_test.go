package worker

import (
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// The tests' own binary is what they start as a child.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == Argument && os.Args[2] == AskArgument {
		raw, _ = syscall.Dup(socketFD)
		os.Exit(answersOfTests().Serve())
	}
	goleak.VerifyTestMain(m)
}
