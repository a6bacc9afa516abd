package rtc

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLog bridges pion's logging to slog, all of it at debug level: pion warns
// of what is ordinary here (a connection that closes, a packet nobody waits
// for), and a peer could fill a log with it.
type pionLog struct{ log *slog.Logger }

// NewLogger is pion's.
func (p pionLog) NewLogger(scope string) logging.LeveledLogger {
	return scopedLog{p.log.With("pion", scope)}
}

type scopedLog struct{ log *slog.Logger }

func (s scopedLog) print(level, text string) {
	s.log.Debug(text, "level_pion", level)
}

func (s scopedLog) printf(level, format string, args []any) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug(fmt.Sprintf(format, args...), "level_pion", level)
	}
}

func (s scopedLog) Trace(string)                 {}
func (s scopedLog) Tracef(string, ...any)        {}
func (s scopedLog) Debug(m string)               { s.print("debug", m) }
func (s scopedLog) Debugf(f string, args ...any) { s.printf("debug", f, args) }
func (s scopedLog) Info(m string)                { s.print("info", m) }
func (s scopedLog) Infof(f string, args ...any)  { s.printf("info", f, args) }
func (s scopedLog) Warn(m string)                { s.print("warn", m) }
func (s scopedLog) Warnf(f string, args ...any)  { s.printf("warn", f, args) }
func (s scopedLog) Error(m string)               { s.print("error", m) }
func (s scopedLog) Errorf(f string, args ...any) { s.printf("error", f, args) }
