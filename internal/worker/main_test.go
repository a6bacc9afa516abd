package worker

import "syscall"

// ServeTestAnswers is an ask child of the tests of this package.
func ServeTestAnswers() int {
	raw, _ = syscall.Dup(socketFD)
	status := answersOfTests().Serve()
	for stuck.Load() { // as in a driver
		syscall.Pause()
	}
	return status
}
