// Command bench-worker measures what it costs that a pipeline runs in a process of
// its own (isolation: process): how much later packets are there, and how much more
// CPU time is used. A 720p30 test picture is encoded at 2.5 Mbit/s in this process and
// in a child in turn, so that both see the same machine.
//
// The delay is from the moment that a buffer has left its pipeline until it is handed
// over in this process. CPU time is that of this process and the child, all threads;
// "Go" is what isn't GStreamer's or the encoder's part of it, in which the difference
// lies and which varies less.
//
//	go run ./test/bench-worker [-rounds 5] [-for 10s]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"gateway/internal/config"
	"gateway/internal/gateway"
	"gateway/internal/gst"
	"gateway/internal/media"
	"gateway/internal/worker"
	"gateway/test/rig"
	"gateway/test/stat"
)

const (
	settle  = 2 * time.Second
	startIn = 20 * time.Second

	delayAim = time.Millisecond // p99
	cpuAim   = 2.0              // percent of a core
)

var (
	feed   = config.Feed{Name: "video", Capture: "videotestsrc is-live=true pattern=smpte horizontal-speed=2 ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1"}
	branch = config.Branch{
		Track: media.Track{Name: "video", Kind: media.Video, Codec: media.H264},
		Launch: "x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate=2500 key-int-max=60 ! video/x-h264,profile=constrained-baseline" +
			" ! h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency mtu=1200",
		Element: "encoder",
	}
	goThreads = []string{"bench-worker", "gateway-worker"}
)

func main() {
	gateway.WorkerMain()
	rounds := flag.Int("rounds", 5, "rounds of each kind")
	span := flag.Duration("for", 10*time.Second, "length of a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *rounds, *span); err != nil {
		fmt.Fprintln(os.Stderr, "bench-worker:", err)
		os.Exit(1)
	}
}

// kind is a place where the pipeline runs, and what was measured there.
type kind struct {
	name   string
	launch func(context.Context, worker.Sink) (worker.Running, error)

	delays  []float64 // µs, one a buffer
	total   []float64 // percent of a core, one a round
	golang  []float64 // likewise
	launchS []float64 // ms from the launch to the first packet, one a round
}

func bench(ctx context.Context, rounds int, span time.Duration) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	workers := worker.NewLauncher(log, "", func(texts []string) *worker.Confinement { return worker.Needs(texts, nil) })
	none := &kind{name: "none", launch: func(ctx context.Context, s worker.Sink) (worker.Running, error) {
		return gst.Launch(ctx, "bench", &feed, s, log)
	}}
	process := &kind{name: "process", launch: func(ctx context.Context, s worker.Sink) (worker.Running, error) {
		return workers.Launch(ctx, "bench", &feed, config.Worker{}, s)
	}}
	gst.Init()
	for range rounds {
		for _, k := range []*kind{none, process} {
			if err := k.round(ctx, span); err != nil {
				return fmt.Errorf("isolation %s: %w", k.name, err)
			}
		}
	}
	fmt.Printf("%-10s %8s %10s %10s %10s %14s %8s %14s\n", "isolation", "buffers", "p50 µs", "p99 µs", "max µs", "CPU % of core", "Go", "first packet")
	for _, k := range []*kind{none, process} {
		fmt.Printf("%-10s %8d %10.0f %10.0f %10.0f %14.2f %8.2f %11.0f ms\n", k.name, len(k.delays),
			stat.Quantile(k.delays, 0.5), stat.Quantile(k.delays, 0.99), slices.Max(k.delays),
			stat.Quantile(k.total, 0.5), stat.Quantile(k.golang, 0.5), stat.Quantile(k.launchS, 0.5))
	}
	delay := stat.Quantile(process.delays, 0.99) - stat.Quantile(none.delays, 0.99)
	cpu := stat.Quantile(process.golang, 0.5) - stat.Quantile(none.golang, 0.5)
	fmt.Printf("added: %.2f ms of delay at p99 (aim: less than %d), %.2f %% of a core (aim: less than %.0f)\n",
		delay/1000, delayAim.Milliseconds(), cpu, cpuAim)
	return nil
}

// round runs the pipeline once and measures it for a while.
func (k *kind) round(ctx context.Context, span time.Duration) error {
	s := &sink{first: make(chan struct{}), failed: make(chan error, 1)}
	starting, cancel := context.WithTimeout(ctx, startIn)
	defer cancel()
	began := time.Now()
	p, err := k.launch(starting, s)
	if err != nil {
		return err
	}
	defer p.Close()
	b := branch
	if err := p.Start(starting, "1", &b); err != nil {
		return err
	}
	select {
	case <-s.first:
	case err := <-s.failed:
		return err
	case <-starting.Done():
		return errors.New("no packet")
	}
	k.launchS = append(k.launchS, float64(time.Since(began).Microseconds())/1000)
	if err := s.wait(ctx, settle); err != nil {
		return err
	}
	s.take()
	from, err := rig.UsageOf(os.Getpid())
	if err != nil {
		return err
	}
	at := time.Now()
	if err := s.wait(ctx, span); err != nil {
		return err
	}
	to, err := rig.UsageOf(os.Getpid())
	if err != nil {
		return err
	}
	took := time.Since(at).Seconds()
	k.delays = append(k.delays, s.take()...)
	k.total = append(k.total, 100*(to.CPU-from.CPU).Seconds()/took)
	var golang time.Duration
	for _, name := range goThreads {
		golang += to.ByThread[name] - from.ByThread[name]
	}
	k.golang = append(k.golang, 100*golang.Seconds()/took)
	return nil
}

// sink notes how late each buffer comes.
type sink struct {
	first  chan struct{}
	once   sync.Once
	failed chan error // holds one

	mu     sync.Mutex
	delays []float64 // µs
}

// Deliver implements worker.Sink.
func (s *sink) Deliver(_ string, b *media.Buffer) {
	late := media.Now() - b.Arrived
	b.Release()
	s.once.Do(func() { close(s.first) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays = append(s.delays, float64(late.Nanoseconds())/1000)
}

// Describe implements worker.Sink.
func (s *sink) Describe(string, media.Track) {}

// Dropped implements worker.Sink.
func (s *sink) Dropped(string, int) {}

// Ended implements worker.Sink.
func (s *sink) Ended(_ string, err error) { s.Fail(err) }

// Fail implements worker.Sink.
func (s *sink) Fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// take returns the delays since the last call.
func (s *sink) take() []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.delays
	s.delays = nil
	return taken
}

// wait lets the pipeline run.
func (s *sink) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
