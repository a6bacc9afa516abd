package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
	if m := s.launcher.machine; m != nil {
		m.renew()
	}
	for _, one := range s.list() {
		one.Look()
	}
}

// provided are the sources whose devices GStreamer's providers tell of, and the
// kernel doesn't: a Bluetooth microphone, another program's node, a shared screen.
var provided = []string{"pulsesrc", "pipewiresrc", "libcamerasrc", "decklinkvideosrc", "decklinkaudiosrc"}

// awaiting tells whether a stream waits for such a source.
func (s *streams) awaiting() bool {
	for _, one := range s.list() {
		conf := one.Config()
		text := conf.Source + " " + conf.Launch
		if conf.Audio != nil {
			text += " " + conf.Audio.Source
		}
		if !slices.ContainsFunc(provided, func(p string) bool { return strings.Contains(text, p) }) {
			continue
		}
		if state := one.Info().State; state == stream.Absent || state == stream.Restarting {
			return true
		}
	}
	return false
}

const (
	awaitPoll = 2 * time.Second  // how often it is looked whether a stream waits
	awaitRest = 10 * time.Second // before providers are asked anew that don't tell
)

// await has GStreamer's providers watched while a stream waits for what they have,
// and ends with close. It asks another process, which otherwise needn't run.
func (s *streams) await() {
	var known []string // nil: not asked yet
	for rest := awaitPoll; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(rest):
		}
		if rest = awaitPoll; !s.awaiting() {
			known = nil
			continue
		}
		began := time.Now()
		now, err := s.launcher.machine.await(s.ctx, known)
		switch {
		case err != nil:
			s.log.Debug("devices of sound servers", "err", err)
			rest = awaitRest
		case slices.Equal(now, known):
			if rest = 0; time.Since(began) < time.Second { // nobody tells
				rest = awaitRest
			}
		default:
			rest = 0
			if known == nil {
				s.log.Debug("a stream waits for what sound servers and GStreamer's plugins have", "now", len(now))
			} else {
				s.changed([]device.Change{{Subsystem: "provided"}})
			}
			known = append([]string{}, now...)
		}
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
