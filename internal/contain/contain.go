// Package contain keeps a panic to the connection that it happened on: the
// goroutines that serve one peer have a border, at which a panic becomes an error
// that ends this peer alone, a line in the log with its stack, and a count. What
// must not be contained, because more than one peer depends on it, has no border:
// there the process ends and is started again.
package contain

import (
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"time"
)

// Error is a panic, as its connection ends with it.
type Error struct {
	At    time.Time
	Where string // of the borders, such as "session"
	Value string // what it panicked with
	Stack string // of the goroutine, as package runtime prints it
}

// Error implements error.
func (e *Error) Error() string { return "panic: " + e.Value }

var (
	mu     sync.Mutex // guards below
	counts = map[string]uint64{}
	last   *Error
)

// Panic, deferred, is the border: it takes a panic of the function that has deferred
// it, notes it, and calls end, unless that is nil, with an [*Error]. Without a panic
// it does nothing. The function's later deferred calls have been made by then; locks
// that it held without deferring their release stay locked.
//
//	defer contain.Panic(log, "session", func(err error) { … })
func Panic(log *slog.Logger, where string, end func(error)) {
	value := recover()
	if value == nil {
		return
	}
	e := Note(log, where, value)
	if end != nil {
		end(e)
	}
}

// Note counts and logs a panic that was recovered elsewhere, on the goroutine that
// has panicked, and returns it as an error.
func Note(log *slog.Logger, where string, value any) *Error {
	e := &Error{At: time.Now(), Where: where, Value: fmt.Sprint(value), Stack: string(debug.Stack())}
	mu.Lock()
	counts[where]++
	last = e
	mu.Unlock()
	log.Error("panic contained: its connection ends", "where", where, "panic", e.Value, "stack", e.Stack)
	return e
}

// Counts are the panics so far, by where they were contained.
func Counts() map[string]uint64 {
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(counts)
}

// Last is the latest panic; nil: there was none.
func Last() *Error {
	mu.Lock()
	defer mu.Unlock()
	return last
}
