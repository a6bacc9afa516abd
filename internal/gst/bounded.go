package gst

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// hung remembers the native calls that didn't return in time, by what they were
// about. Each holds a thread until it returns: a wedged driver that is asked again
// and again would use up the process's.
var hung = struct {
	mu    sync.Mutex
	since map[string]time.Time
}{since: make(map[string]time.Time)}

// bounded runs f, native calls that may never return, and waits as long as ctx
// allows. After that it returns ErrStuck, nothing more is tried about the same
// thing until f has returned after all, and late (if any) then cleans up what f
// did.
func bounded(ctx context.Context, about string, f func() error, late func()) error {
	hung.mu.Lock()
	since, is := hung.since[about]
	hung.mu.Unlock()
	if is {
		return fmt.Errorf("%w, since %s: it is not tried again before that has ended", ErrStuck, since.Format(time.TimeOnly))
	}
	result := make(chan error) // not buffered: who sends learns whether it is too late
	gone := make(chan struct{})
	go func() {
		err := f()
		select {
		case result <- err:
		case <-gone:
			hung.mu.Lock()
			delete(hung.since, about)
			hung.mu.Unlock()
			if late != nil {
				late()
			}
		}
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		hung.mu.Lock()
		hung.since[about] = time.Now()
		hung.mu.Unlock()
		close(gone)
		return ErrStuck
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
