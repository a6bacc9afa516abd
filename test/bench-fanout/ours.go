package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/rtc"
	"gateway/internal/stream"
	"gateway/test/traffic"
)

// ours is the gateway's own way from a pipeline to the viewers: only the pipeline
// is a recording.
type ours struct {
	engine  *rtc.Engine
	stream  *stream.Stream
	metrics *prometheus.Registry
	track   media.Track
	begun   time.Duration // at 0 of the recording's capture times

	mu   sync.Mutex // guards what follows
	sink stream.Sink
	id   string // of the branch that runs; empty: none
}

func newOurs(track media.Track, lite bool) (*ours, error) {
	conf, err := config.ParseStream("bench", "bench.yaml", []byte(pipeline), nil)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	o := &ours{metrics: prometheus.NewRegistry(), track: track}
	if o.engine, err = rtc.New(rtc.Options{ICE: config.ICE{Lite: lite}, Logger: log, Registerer: o.metrics}); err != nil {
		return nil, err
	}
	o.stream = stream.New(conf, o, log)
	return o, nil
}

// Compile, Launch and Blame are stream.Launcher.
func (o *ours) Compile(context.Context, *config.Stream) (*config.Plan, error) {
	return &config.Plan{Feeds: []config.Feed{{Name: "video", Branches: []config.Branch{{Track: o.track}}}}}, nil
}

func (o *ours) Launch(_ context.Context, _ string, _ *config.Feed, sink stream.Sink) (stream.Pipeline, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sink = sink
	return o, nil
}

func (o *ours) Blame(*config.Branch, error) {}

func (o *ours) Placeholder(context.Context, *config.Placeholder) ([][][]byte, error) {
	return nil, errors.New("nothing is encoded here")
}

// Start and the rest are stream.Pipeline.
func (o *ours) Start(_ context.Context, id string, _ *config.Branch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.id = id
	return nil
}

func (o *ours) Stop(string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.id = ""
}

func (o *ours) RequestKeyframe(string)             {} // the recording has one every two seconds
func (o *ours) SetBitrate(string, int, bool) error { return nil }
func (o *ours) Close() error                       { o.Stop(""); return nil }

func (o *ours) send(b *traffic.Buffer, capture time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.id == "" {
		return
	}
	if o.begun == 0 {
		o.begun = media.Now() - capture
	}
	o.sink.Deliver(o.id, b.Media(o.begun+capture))
}

func (o *ours) answer(ctx context.Context, offer string) (string, error) {
	if _, err := o.stream.Tracks(ctx); err != nil {
		return "", err
	}
	source, err := o.stream.Subscribe(o.track.Name)
	if err != nil {
		return "", err
	}
	v, err := o.engine.NewViewer(rtc.ViewerOptions{})
	if err != nil {
		source.Close()
		return "", err
	}
	if err := v.AddTrack("video", o.track, "bench", source); err != nil {
		return "", err
	}
	return v.Answer(ctx, offer)
}

// counts reads the engine's own counters.
func (o *ours) counts() (c Counts, err error) {
	families, err := o.metrics.Gather()
	if err != nil {
		return c, err
	}
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), "gateway_rtc_")
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			n, by := uint64(m.GetCounter().GetValue()), ""
			for _, l := range m.GetLabel() {
				by = l.GetValue()
			}
			switch {
			case name == "packets_sent_total":
				c.Packets += n
			case name == "datagrams_sent_total" && by == "gso":
				c.Segments += n
			case name == "gso_messages_total":
				c.Messages += n
			}
		}
	}
	return c, nil
}
