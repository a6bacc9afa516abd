// Command bench-fanout measures what it costs to send one stream to N viewers, in
// one run, by four senders in processes of their own:
//
//	pion  pion's TrackLocalStaticRTP with its default interceptors, a
//	      PeerConnection a viewer, one UDP mux, AES-128-GCM
//	ours  internal/stream's ring and internal/rtc's Engine, as the gateway has them
//	lite  the same with ice.lite: viewers without a PeerConnection
//	bare  AES-128-GCM and UDP_SEGMENT in a loop: what nobody can go below
//
// The traffic is recorded once from a pipeline that internal/gst launches (x264enc as
// the encoder table has it) and played in its own rhythm; for pion it is recorded
// from the same with rtph264pay, since the gateway cuts frames so that they suit its
// own sending. What is compared is therefore the cost of a frame. The
// sender has the first core, the receivers, which are one other process, the
// second. The sender's CPU time is what it used while it sent, less what it
// used in the same time with all viewers connected and nothing to send.
//
// The receivers take a sender's messages whole and are not woken by them, so that
// the sender's time holds as little of their work as can be over loopback; with
// -split the kernel cuts each message into datagrams for them, in the sender's time.
//
//	go run ./test/bench-fanout [-n 1,50,200] [-seconds 8] [-runs 1] [-speed 1] [-split] [-variants pion,ours,lite,bare]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gateway/test/crowd"
	"gateway/test/rig"
	"gateway/test/traffic"
)

// pipeline is the traffic: 720p30 of which x264enc really makes 2.5 Mbit/s.
const pipeline = `source: >
  videotestsrc is-live=true pattern=smpte horizontal-speed=2 ! timecodestamper
  ! timeoverlay time-mode=time-code font-desc=Mono,28 shaded-background=true
video: {codec: h264, width: 1280, height: 720, framerate: 30, bitrate: 2.5M}
`

func main() {
	rig.ServeChild(new(crowd.Crowd), new(Sender))
	numbers := flag.String("n", "1,50,200", "numbers of viewers")
	seconds := flag.Int("seconds", 8, "how long each is measured")
	runs := flag.Int("runs", 1, "runs of each, in turn; the one with the middle CPU time is printed")
	variants := flag.String("variants", "pion,ours,lite,bare", "which senders")
	threads := flag.Int("threads", 0, "of the encoder, which makes a slice in each; 0: as the gateway sets")
	speed := flag.Float64("speed", 1, "how much faster than recorded the traffic goes, but to one viewer")
	split := flag.Bool("split", false, "the receivers take single datagrams")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{
		variants: strings.Split(*variants, ","), span: time.Duration(*seconds) * time.Second, runs: max(*runs, 1),
		threads: *threads, speed: *speed, split: *split,
	}
	if err := b.all(ctx, *numbers); err != nil {
		fmt.Fprintln(os.Stderr, "bench-fanout:", err)
		os.Exit(1)
	}
}

type bench struct {
	variants   []string
	span       time.Duration
	runs       int
	threads    int // of the encoder; 0: as the gateway sets
	speed      float64
	split      bool     // the receivers take single datagrams
	own, usual recorded // as the gateway makes packets, and as rtph264pay does
}

// recorded is a recording in a file.
type recorded struct {
	file  string
	frame float64 // packets of one, in the mean
}

// of is what a variant plays.
func (b *bench) of(variant string) recorded {
	if variant == "pion" {
		return b.usual
	}
	return b.own
}

// all measures all variants with each number of viewers.
func (b *bench) all(ctx context.Context, numbers string) error {
	dir, err := os.MkdirTemp("", "bench-fanout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	text := pipeline
	if b.threads > 0 {
		text = strings.Replace(pipeline, "bitrate: 2.5M", fmt.Sprintf("bitrate: 2.5M, options: {threads: %d}", b.threads), 1)
	}
	for _, r := range []struct {
		of         *recorded
		file, name string
		payloaded  bool
	}{{&b.own, "own", "the gateway's packets", false}, {&b.usual, "usual", "rtph264pay's packets, for pion", true}} {
		recording, err := traffic.Record(ctx, text, r.payloaded, 10)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		packets, frames, _ := recording.Packets()
		*r.of = recorded{filepath.Join(dir, r.file), float64(packets) / float64(frames)}
		if err := recording.Save(r.of.file); err != nil {
			return err
		}
		fmt.Printf("%s: %v\n", r.name, recording)
	}
	taken := "whole messages"
	if b.split {
		taken = "single datagrams"
	}
	fmt.Printf("%v each; sender on core 0, receivers on core 1, which take %s; played %g times as fast, to one viewer %d times\n\n", b.span, taken, b.speed, fast)
	fmt.Printf("%-5s %5s %10s %9s %8s %8s %8s %10s %8s %10s %9s %10s\n",
		"", "N", "µs/packet", "µs/frame", "of pion", "of bare", "allocs", "RSS/viewer", "gorout.", "GSO size", "by GSO", "delivered")
	for _, field := range strings.Split(numbers, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("-n: %q is no number of viewers", field)
		}
		all := make(map[string][]Result)
		for range b.runs {
			for _, v := range b.variants {
				r, err := b.run(ctx, v, n)
				if err != nil {
					return fmt.Errorf("%s, %d viewers: %w", v, n, err)
				}
				all[v] = append(all[v], r)
			}
		}
		var results []Result
		for _, v := range b.variants {
			slices.SortFunc(all[v], func(a, b Result) int { return cmp.Compare(a.CPU, b.CPU) })
			results = append(results, all[v][b.runs/2])
		}
		for _, r := range results {
			r.print(n, results)
		}
	}
	return nil
}

// Result is what a sender cost with a number of viewers.
type Result struct {
	Variant    string
	CPU        float64 // µs a packet and viewer
	Frame      float64 // µs a frame and viewer
	Allocs     float64 // a packet and viewer
	RSS        float64 // KB a viewer
	Goroutines float64 // a viewer
	Segments   float64 // packets a message with UDP_SEGMENT; 0: unknown
	Share      float64 // of packets in such messages
	Delivered  float64 // of the packets sent
}

func (r Result) print(n int, all []Result) {
	to := func(variant string) string {
		i := slices.IndexFunc(all, func(o Result) bool { return o.Variant == variant })
		if i < 0 || all[i].Frame <= 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", r.Frame/all[i].Frame)
	}
	segments, share := "-", "-"
	if r.Segments > 0 {
		segments, share = fmt.Sprintf("%.1f", r.Segments), fmt.Sprintf("%.1f%%", 100*r.Share)
	}
	fmt.Printf("%-5s %5d %10.2f %9.1f %8s %8s %8.3f %7.0f KB %8.1f %10s %9s %9.3f%%\n", r.Variant, n, r.CPU, r.Frame, to("pion"), to("bare"),
		r.Allocs, r.RSS, r.Goroutines, segments, share, 100*r.Delivered)
}

// fast is how much faster than real time the traffic of a single viewer goes:
// at 230 packets a second the wakeups would be most of what is measured.
const fast = 20

func (b *bench) run(ctx context.Context, variant string, n int) (r Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute+3*b.span)
	defer cancel()
	sender, err := rig.StartChild("0")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	receivers, err := crowd.Start("1")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, receivers.Close()) }()
	if b.split {
		if err := receivers.Split(ctx); err != nil {
			return r, err
		}
	}

	speed := b.speed
	if n == 1 {
		speed = fast
	}
	start := StartArgs{Variant: variant, Recording: b.of(variant).file, Speed: speed}
	if variant == "bare" {
		if start.To, err = receivers.Listen(ctx, n); err != nil {
			return r, err
		}
	}
	var url string
	if err := sender.Call(ctx, "Sender.Start", start, &url); err != nil {
		return r, err
	}
	if url != "" {
		if err := receivers.Join(ctx, url, n); err != nil {
			return r, err
		}
	}
	var m Measured
	if err := sender.Call(ctx, "Sender.Measure", MeasureArgs{Span: b.span, Speed: speed}, &m); err != nil {
		return r, err
	}
	var seen crowd.Counts
	err = rig.Until(ctx, "the last packets", func() (bool, error) { // what is sent is in the sockets already
		before := seen.Packets
		seen, err = receivers.Count(ctx)
		return err == nil && seen.Packets == before, err
	})
	if err != nil {
		return r, err
	}
	packets := float64(m.Packets)
	r = Result{
		Variant:    variant,
		CPU:        (m.Busy.CPU - m.Idle.CPU).Seconds() * 1e6 / packets,
		Allocs:     max(0, float64(m.Busy.Mallocs)-float64(m.Idle.Mallocs)) / packets,
		RSS:        float64(m.RSS) / 1024 / float64(n),
		Goroutines: float64(m.Goroutines) / float64(n),
		Delivered:  float64(seen.Packets) / float64(m.Sent),
	}
	r.Frame = r.CPU * b.of(variant).frame
	if m.Messages > 0 {
		r.Segments, r.Share = float64(m.Segments)/float64(m.Messages), float64(m.Segments)/float64(m.Sent)
	}
	return r, nil
}
