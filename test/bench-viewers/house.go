package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gateway/test/crowd"
	"gateway/test/rig"
)

const settle = 5 * time.Second // after joining, before measuring: histories fill, buffers find their size

// house is a server with one stream and its viewers.
type house struct {
	gateway *rig.Gateway // nil: another server, which was there before
	url     string       // of its WHEP endpoint
	pid     int
	threads string // the name of those that aren't GStreamer's
	crowd   crowd.Remote
	viewers int
}

func (b *bench) house(ctx context.Context, pipeline string) (*house, error) {
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{
		Pipelines: map[string]string{"bench": pipeline}, CPUs: gatewayCPU, Log: b.log,
		Config: "limits: {viewers: 10000, joins_per_address: 0, connections_per_address: 0}\nlog: {level: warn}\n",
	})
	if err != nil {
		return nil, err
	}
	h := &house{gateway: g, url: g.URL("/whep/bench"), pid: g.Pid()}
	return h, b.invite(ctx, h)
}

// other is the house of a server that isn't ours.
func (b *bench) other(ctx context.Context, url string, pid int) (*house, error) {
	h := &house{url: url, pid: pid}
	return h, b.invite(ctx, h)
}

// invite starts a house's crowd, or closes the house.
func (b *bench) invite(ctx context.Context, h *house) error {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.pid))
	if err == nil {
		h.threads = strings.TrimSpace(string(name))
		h.crowd, err = crowd.Start(otherCPU)
	}
	if err == nil && b.split {
		err = h.crowd.Split(ctx)
	}
	if err != nil {
		return errors.Join(err, h.close())
	}
	return nil
}

func (h *house) close() (err error) {
	if h.crowd.Child != nil {
		err = h.crowd.Close()
	}
	if h.gateway != nil {
		err = errors.Join(err, h.gateway.Close())
	}
	return err
}

// measured is what the server did in a span of time.
type measured struct {
	viewers   int
	span      time.Duration
	cpu       time.Duration // of the whole process
	gstreamer time.Duration // of this, in threads that aren't Go's
	cores     float64       // cpu / span
	rss       int           // bytes
	seen      crowd.Counts  // by the clients, in the span
	frames    float64       // of the stream, in the span; 0: only the gateway tells this and what follows
	unsent    float64       // packets that found no way out of the gateway
	dropped   float64       // packets that the gateway left out for viewers that fell behind
}

const header = "viewers   CPU %  of it GStreamer  RSS MB   packets/s   lost by the gateway   full client sockets   frames, fewest of a client   unsent  left out"

func (m *measured) String() string {
	gone := max(0, int64(m.seen.Lost)-int64(m.seen.Dropped))
	fewest := uint64(0)
	if len(m.seen.Frames) > 0 {
		fewest = slices.Min(m.seen.Frames)
	}
	share := 0.0
	if m.seen.Packets > 0 {
		share = 100 * float64(gone) / float64(m.seen.Packets+m.seen.Lost)
	}
	return fmt.Sprintf("%7d  %6.1f  %15.1f  %6.1f  %10.0f  %10d (%.4f %%)  %20d  %15d of %7.0f   %6.0f  %8.0f",
		m.viewers, 100*m.cores, 100*m.gstreamer.Seconds()/m.span.Seconds(), float64(m.rss)/(1<<20),
		float64(m.seen.Packets)/m.span.Seconds(), gone, share, m.seen.Dropped, fewest, m.frames, m.unsent, m.dropped)
}

// snapshot is what has been counted until now.
type snapshot struct {
	at      time.Time
	usage   rig.Usage
	seen    crowd.Counts
	metrics map[string]float64
}

func (h *house) snapshot(ctx context.Context) (s snapshot, err error) {
	if h.gateway != nil {
		if s.metrics, err = h.gateway.Metrics(ctx); err != nil {
			return s, err
		}
	}
	if s.seen, err = h.crowd.Count(ctx); err != nil {
		return s, err
	}
	s.at = time.Now()
	s.usage, err = rig.UsageOf(h.pid)
	return s, err
}

// measure lets viewers join until there are n and measures for a while.
func (h *house) measure(ctx context.Context, n int, span time.Duration) (*measured, error) {
	if more := n - h.viewers; more > 0 {
		if err := h.crowd.Join(ctx, h.url, more); err != nil {
			return nil, err
		}
		h.viewers = n
	}
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	from, err := h.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, span); err != nil {
		return nil, err
	}
	to, err := h.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	m := &measured{viewers: n, span: to.at.Sub(from.at), cpu: to.usage.CPU - from.usage.CPU, rss: to.usage.RSS}
	m.cores = m.cpu.Seconds() / m.span.Seconds()
	for name, d := range to.usage.ByThread {
		if name != h.threads {
			m.gstreamer += d - from.usage.ByThread[name]
		}
	}
	m.seen = to.seen.Since(from.seen)
	grown := func(name string) float64 { return to.metrics[name] - from.metrics[name] }
	m.frames = grown(`gateway_track_frames_total{stream="bench",track="video"}`)
	m.dropped = grown(`gateway_track_dropped_packets_total{stream="bench",track="video"}`)
	m.unsent = grown("gateway_rtc_packets_unsent_total")
	return m, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type point struct{ x, y float64 }

// line fits y = start + slope·x and tells how well (R²).
func line(points []point) (slope, start, fit float64) {
	var n, x, y, xx, xy, yy float64
	for _, p := range points {
		n++
		x, y = x+p.x, y+p.y
		xx, xy, yy = xx+p.x*p.x, xy+p.x*p.y, yy+p.y*p.y
	}
	sxx, sxy, syy := xx-x*x/n, xy-x*y/n, yy-y*y/n
	if sxx == 0 || syy == 0 {
		return 0, y / n, 1
	}
	slope = sxy / sxx
	return slope, (y - slope*x) / n, sxy * sxy / (sxx * syy)
}
