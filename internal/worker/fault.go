package worker

import (
	"context"
	"errors"

	"gateway/internal/media"
)

// ErrStuck says that a child didn't answer in time. It is a media.ErrStuck, too.
var ErrStuck error = &fault{Text: "the pipeline's process doesn't answer", Kind: "stuck"}

// kinds are the errors that callers branch on, by their names on the wire.
var kinds = map[string]error{
	"absent":     media.ErrAbsent,
	"ended":      media.ErrEnded,
	"stuck":      media.ErrStuck,
	"unplayable": media.ErrUnplayable,
	"canceled":   context.Canceled,
	"late":       context.DeadlineExceeded,
}

// fault is an error on the wire: its words, and which of the known ones it is.
type fault struct {
	Text string `json:"text"`
	Kind string `json:"kind,omitempty"`
}

// newFault is an error as it is sent; nil stays nil.
func newFault(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Text: err.Error()}
	for kind, known := range kinds {
		if errors.Is(err, known) {
			f.Kind = kind
		}
	}
	return f
}

// err is the error that was sent.
func (f *fault) err() error {
	if f == nil {
		return nil
	}
	return f
}

// Error is the error's words.
func (f *fault) Error() string { return f.Text }

// Unwrap is which of the known errors it is, or nil.
func (f *fault) Unwrap() error { return kinds[f.Kind] }
