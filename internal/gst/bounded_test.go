package gst

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A viewer who leaves while an encoder starts doesn't make it one that hangs: it
// would be refused to the next viewer, and blamed.
func TestCallThatIsGivenUpDoesNotHang(t *testing.T) {
	began, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	err := bounded(ctx, "a slow start", func() error { close(began); <-end; return nil }, func() { close(ended) })
	if !errors.Is(err, ErrStuck) {
		t.Fatal(err)
	}
	if err := bounded(t.Context(), "a slow start", func() error { return nil }, nil); err != nil {
		t.Error(err)
	}
	close(end)
	<-ended

	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	end, ended = make(chan struct{}), make(chan struct{})
	if err := bounded(late, "a slow start", func() error { <-end; return nil }, func() { close(ended) }); !errors.Is(err, ErrStuck) {
		t.Fatal(err)
	}
	if err := bounded(t.Context(), "a slow start", func() error { return nil }, nil); !errors.Is(err, ErrStuck) {
		t.Error("a call that hangs is made again")
	}
	close(end)
	<-ended
	if err := bounded(t.Context(), "a slow start", func() error { return nil }, nil); err != nil {
		t.Error(err)
	}
}
