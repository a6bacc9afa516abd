package gateway

import (
	"context"
	"fmt"
	"strings"

	"gateway/internal/config"
	"gateway/internal/device"
	"gateway/internal/stream"
)

// changed has all streams look what there is: something to capture came or went.
func (s *streams) changed(news []device.Change) {
	for _, c := range news {
		what := "device came"
		switch {
		case c == device.Change{}:
			what = "devices have changed: some word of it was lost"
		case c.Gone:
			what = "device gone"
		}
		s.log.Debug(what, "kind", c.Subsystem, "node", c.Node)
	}
	for _, one := range s.list() {
		one.Look()
	}
}

// naming is a launcher that names the process which holds a device that is busy.
type naming struct{ stream.Launcher }

// Launch implements stream.Launcher.
func (n naming) Launch(ctx context.Context, name string, feed *config.Feed, sink stream.Sink) (stream.Pipeline, error) {
	p, err := n.Launcher.Launch(ctx, name, feed, namingSink{sink, feed})
	if err != nil {
		return nil, nameHolder(feed, err)
	}
	return p, nil
}

type namingSink struct {
	stream.Sink
	feed *config.Feed
}

// Fail implements stream.Sink.
func (s namingSink) Fail(err error) { s.Sink.Fail(nameHolder(s.feed, err)) }

// nameHolder adds to an error who has the device open, if it says that one is taken.
func nameHolder(feed *config.Feed, err error) error {
	words := err.Error()
	if !strings.Contains(words, "busy") && !strings.Contains(words, "being used by another application") { // v4l2src, alsasrc
		return err
	}
	for _, d := range feed.Devices {
		factory, name, _ := strings.Cut(d, " ")
		node := name
		switch factory {
		case "v4l2src":
		case "alsasrc":
			node = device.SoundCard(name)
		default:
			continue
		}
		if node != "" {
			return fmt.Errorf("%w: %s is held by %s", err, name, device.HeldBy(node))
		}
	}
	return err
}
