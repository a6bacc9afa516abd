package gst

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// hangsAfter is when a call counts as hanging whose asker has left.
const hangsAfter = 10 * time.Second

// hung remembers the native calls that didn't return in time, by what they were
// about. Each holds a thread until it returns: a wedged driver that is asked again
// and again would use up the process's.
var hung = struct {
	mu    sync.Mutex
	calls map[string]hungCalls
}{calls: make(map[string]hungCalls)}

type hungCalls struct {
	n     int
	since time.Time // of the first
}

// Hanging is how many native calls didn't return in time and haven't since.
func Hanging() (n int) {
	hung.mu.Lock()
	defer hung.mu.Unlock()
	for _, calls := range hung.calls {
		n += calls.n
	}
	return n
}

// bounded is attempt, but refuses while an earlier call about the same thing hangs.
func bounded(ctx context.Context, about string, f func() error, late func()) error {
	hung.mu.Lock()
	calls, is := hung.calls[about]
	hung.mu.Unlock()
	if is {
		return fmt.Errorf("%w, since %s: it is not tried again before that has ended", ErrStuck, calls.since.Format(time.TimeOnly))
	}
	return attempt(ctx, about, f, late)
}

// attempt runs f, native calls that may never return, and waits as long as ctx
// allows. After that it returns ErrStuck; once f has returned after all, late (if
// any) cleans up what it did.
func attempt(ctx context.Context, about string, f func() error, late func()) error {
	result := make(chan error) // not buffered: who sends learns whether it is too late
	gone := make(chan struct{})
	var counted *time.Timer // set before gone is closed; nil: it counts already
	go func() {
		err := f()
		select {
		case result <- err:
		case <-gone:
			if counted == nil || !counted.Stop() {
				hangs(about, -1)
			}
			if late != nil {
				late()
			}
		}
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) { // who asked has lost interest: nothing is known to hang
			counted = time.AfterFunc(hangsAfter, func() { hangs(about, 1) })
		} else {
			hangs(about, 1)
		}
		close(gone)
		return ErrStuck
	}
}

// hangs counts one hanging call more or less.
func hangs(about string, more int) {
	hung.mu.Lock()
	defer hung.mu.Unlock()
	calls := hung.calls[about]
	if calls.n == 0 {
		calls.since = time.Now()
	}
	if calls.n += more; calls.n == 0 {
		delete(hung.calls, about)
	} else {
		hung.calls[about] = calls
	}
}

// xserver admits one pipeline at a time to what makes ximagesrc open or close its
// display: it sets process-wide handlers meanwhile, and side by side it crashed
// (GStreamer 1.22).
var xserver = make(chan struct{}, 1)

// enterX waits for its turn if text has an ximagesrc. The caller calls leave.
func enterX(text string) (leave func()) {
	if !strings.Contains(text, "ximagesrc") {
		return func() {}
	}
	xserver <- struct{}{}
	return func() { <-xserver }
}
