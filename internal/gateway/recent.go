package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// recentBytes is how much of the log a running gateway keeps for `gateway bundle`.
const recentBytes = 512 << 10

// recent keeps the latest lines of a log.
type recent struct {
	mu    sync.Mutex // guards below; held to copy a line
	lines []string   // the oldest first
	size  int
}

// Write implements io.Writer: a line each, as slog's handlers write.
func (r *recent) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.size = append(r.lines, string(line)), r.size+len(line)
	for r.size > recentBytes && len(r.lines) > 1 {
		r.size -= len(r.lines[0])
		r.lines[0], r.lines = "", r.lines[1:]
	}
	return len(line), nil
}

// all are the lines that are kept, the oldest first.
func (r *recent) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// remembering is a log whose lines are also kept.
func remembering(log *slog.Logger, r *recent) *slog.Logger {
	// the other handler decides on levels
	return slog.New(both{log.Handler(), slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})})
}

// both hands what the first handler takes to the second as well.
type both struct{ first, second slog.Handler }

// Enabled implements slog.Handler.
func (b both) Enabled(ctx context.Context, level slog.Level) bool { return b.first.Enabled(ctx, level) }

// Handle implements slog.Handler. A disk that is full, or a pipe that nobody reads any
// more, doesn't keep the second from having the line.
func (b both) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(b.first.Handle(ctx, r.Clone()), b.second.Handle(ctx, r))
}

// WithAttrs implements slog.Handler.
func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b.first.WithAttrs(attrs), b.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (b both) WithGroup(name string) slog.Handler {
	return both{b.first.WithGroup(name), b.second.WithGroup(name)}
}
