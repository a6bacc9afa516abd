// Package worker runs a pipeline in a process of its own, so that what crashes,
// hangs or leaks in a driver or a plugin ends that process and nothing else.
//
// The gateway starts itself again, as `gateway worker`, once for each capture. The
// two ends hold a socket pair: commands go one way, packets and events the other
// (wire.go). [Launcher] is the gateway's end (launch.go, pipeline.go); [Serve] is
// the child's (child.go), which is given what really runs pipelines: this package
// knows nothing of GStreamer. Both ends are the same binary, so nothing on the wire
// has a version.
//
// It hides processes, the socket and what a death means: whoever holds a [Pipeline]
// sees one that fails, with the reason in words.
//
// Goroutines: in the gateway one a child waits for its end, one reads its socket
// and one its standard error; in the child one reads commands and tells that it
// lives, and each command has its own.
package worker

import (
	"context"
	"log/slog"

	"gateway/internal/config"
	"gateway/internal/media"
)

// Argument is the first argument of a program that was started as a child.
const Argument = "worker"

// Running is a capture that a Host has launched: see stream.Pipeline.
type Running interface {
	Start(ctx context.Context, id string, branch *config.Branch) error
	Stop(id string)
	RequestKeyframe(id string)
	SetBitrate(id string, bps int, scarce bool) error
	Close() error
}

// Sink takes what a pipeline yields, on the pipeline's goroutines: see stream.Sink.
// Its methods don't block.
type Sink interface {
	Deliver(id string, b *media.Buffer)
	Describe(id string, track media.Track)
	Dropped(id string, n int)
	Ended(id string, err error)
	Fail(err error)
}

// Host is what runs pipelines in a child.
type Host struct {
	// Init prepares the process, for seconds perhaps. It is called first, once.
	Init func(log *slog.Logger)
	// Launch starts a capture: see stream.Launcher.
	Launch func(ctx context.Context, name string, feed *config.Feed, sink Sink, log *slog.Logger) (Running, error)
}
