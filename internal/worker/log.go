package worker

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	mostAttrs = 32
	longText  = 4 << 10 // bytes of a message or a value; what is longer is cut
)

// talk bounds what a child may say in the log: 50 lines a second, 500 at once.
type talk struct {
	log   *slog.Logger
	limit *rate.Limiter
	left  atomic.Int64 // lines that were left out since the last one that wasn't
}

func newTalk(log *slog.Logger) *talk { return &talk{log: log, limit: rate.NewLimiter(50, 500)} }

// may tells whether one more line may be written.
func (t *talk) may() bool {
	if !t.limit.Allow() {
		t.left.Add(1)
		return false
	}
	if n := t.left.Swap(0); n > 0 {
		t.log.Warn("the process says too much", "lines_left_out", n)
	}
	return true
}

// record is a line of the child's log, which the gateway writes into its own.
type record struct {
	Level   int    `json:"level"`
	Message string `json:"message"`
	Attrs   []attr `json:"attrs,omitempty"`
}

type attr struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// write logs it, at the time that it is now.
func (r *record) write(t *talk) {
	if !t.may() {
		return
	}
	attrs := make([]slog.Attr, min(len(r.Attrs), mostAttrs))
	for i := range attrs {
		a := r.Attrs[i]
		if s, is := a.Value.(string); is {
			a.Value = short(s)
		}
		attrs[i] = slog.Any(short(a.Key), a.Value)
	}
	t.log.LogAttrs(context.Background(), slog.Level(r.Level), short(r.Message), attrs...)
}

func short(s string) string { return s[:min(len(s), longText)] }

// logHandler is the child's slog.Handler: it sends what is logged to the gateway.
type logHandler struct {
	out   *sender
	level *slog.LevelVar
	attrs []attr
	group string // of the attributes to come, with a dot behind
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler. It doesn't block: a line for which there is no
// room is lost.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, h.group, a)
		return true
	})
	return h.out.message(&message{Do: doLog, Log: &record{int(r.Level), r.Message, attrs}})
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(more []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clone(h.attrs)
	for _, a := range more {
		with.attrs = appendAttr(with.attrs, h.group, a)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.group += name + "."
	return &with
}

// appendAttr adds an attribute as values that JSON keeps, and times and errors as text.
func appendAttr(to []attr, group string, a slog.Attr) []attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		for _, in := range v.Group() {
			to = appendAttr(to, strings.TrimPrefix(group+a.Key+".", "."), in)
		}
		return to
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64:
		return append(to, attr{group + a.Key, json.RawMessage(v.String())})
	case slog.KindTime:
		return append(to, attr{group + a.Key, v.Time().Format(time.RFC3339Nano)})
	}
	return append(to, attr{group + a.Key, v.String()})
}
