// Command bench-latency measures glass to glass: from a strip painted 60 times a
// second on a real X screen to its pixels in Chromium, all on this machine.
//
// Single runs differ by a screen refresh, so it alternates the gateway with a
// bare chain of the same elements (test/bare) and prints the difference of each
// pair. Both are started afresh for every run; each plays 3 s before it counts.
//
//	go run ./test/bench-latency [-pairs 5] [-seconds 10] [-fps 30] [-bitrate 2500] [-v]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
)

type options struct {
	pairs, fps, kbps int
	measure          time.Duration
	log              io.Writer // of the chains; may be nil
}

const (
	width, height = 1280, 720
	warmUp        = 3 * time.Second
)

func main() {
	var o options
	flag.IntVar(&o.pairs, "pairs", 5, "pairs of runs")
	flag.IntVar(&o.fps, "fps", 30, "frames a second of both chains")
	flag.IntVar(&o.kbps, "bitrate", 2500, "kbit/s of both chains")
	seconds := flag.Int("seconds", 10, "seconds that a run counts")
	verbose := flag.Bool("v", false, "print what the chains log")
	flag.Parse()
	o.measure = time.Duration(*seconds) * time.Second
	if *verbose {
		o.log = os.Stderr
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-latency:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-latency-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bare, err := buildBare(ctx, dir)
	if err != nil {
		return err
	}
	if _, err := rig.Binary(); err != nil {
		return err
	}
	defer rig.RemoveBinary()

	screen, err := rig.StartXvfb(ctx, rig.XOptions{Width: width, Height: height})
	if err != nil {
		return err
	}
	defer screen.Close()
	stop, err := strip.Keep(ctx, screen.Display, 60)
	if err != nil {
		return err
	}
	defer stop()

	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script})
	if err != nil {
		return err
	}
	defer browser.Close()

	fmt.Printf("%dx%d, %d frames a second, %d kbit/s H.264, %d pairs of runs of %s, screen painted at 60 Hz\n",
		width, height, o.fps, o.kbps, o.pairs, o.measure)
	fmt.Printf("ages in ms against the painted clock: shown is when the browser expects the frame on the glass, seen when a script had it\n\n")
	fmt.Printf("%4s  %-8s %6s  %13s  %13s  %9s  %7s  %7s  %7s\n", "pair", "chain", "frames", "shown p50/p95", "seen p50/p95", "recv p50", "jbuf", "decode", "dropped")
	var results [2][]result // bare, gateway
	for pair := range o.pairs {
		order := []int{0, 1}
		if pair%2 == 1 {
			order = []int{1, 0} // whatever drifts, drifts against both
		}
		for _, i := range order {
			start := startBare(bare)
			if i == 1 {
				start = startGateway
			}
			r, err := run(ctx, o, browser, screen.Display, start)
			if err != nil {
				return fmt.Errorf("pair %d: %s: %w", pair+1, chains[i], err)
			}
			results[i] = append(results[i], r)
			fmt.Printf("%4d  %-8s %6d  %6.1f/%6.1f  %6.1f/%6.1f  %9.1f  %7.1f  %7.1f  %7.0f\n", pair+1, chains[i], r.frames,
				r.shown50, r.shown95, r.seen50, r.seen95, r.received50, r.buffer, r.decode, r.dropped)
		}
	}
	report(results)
	reportLedger(results[1])
	return nil
}

var chains = [2]string{"bare", "gateway"}

// stages are those of the ledger, in the order of the way.
var stages = []string{"capture", "encode", "packetize", "queue", "network", "jitterBuffer", "decode", "render", "total"}

// ledger is what the gateway says that the stages took, in ms, and what the same
// took as it was measured.
type ledger struct {
	stages           map[string]quantiles
	waited           float64 // p50 from the painting to the capture
	shown50, shown95 float64 // from the capture to the glass
	difference       float64 // the ledger's total p50, against the measured one
}

type quantiles struct{ P50, P95, Max float64 }

// chain is one running chain: where its page is, and how it ends.
type chain struct {
	url      string
	close    func() error
	pipeline func(ctx context.Context) (ms float64, err error)       // mean time from capture to packets; nil where it isn't known
	ledger   func(ctx context.Context) (map[string]quantiles, error) // of the only viewer; nil where there is none
}

type starter func(ctx context.Context, o options, display string) (chain, error)

func buildBare(ctx context.Context, dir string) (string, error) {
	root, err := rig.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bare")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./test/bare")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the bare chain: %w\n%s", err, out)
	}
	return path, nil
}

func startBare(path string) starter {
	return func(ctx context.Context, o options, display string) (chain, error) {
		p, err := rig.Start(rig.Command{Path: path, Log: o.log, Args: []string{
			"-listen", "127.0.0.1:0", "-display", display, "-fps", strconv.Itoa(o.fps), "-bitrate", strconv.Itoa(o.kbps),
		}})
		if err != nil {
			return chain{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		m, err := p.WaitLog(ctx, regexp.MustCompile(`listening on (\S+)`))
		if err != nil {
			p.Close()
			return chain{}, err
		}
		return chain{url: "http://" + m[1] + "/", close: p.Close}, nil
	}
}

func startGateway(ctx context.Context, o options, display string) (chain, error) {
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Log: o.log, Pipelines: map[string]string{
		"desktop": fmt.Sprintf("source: ximagesrc display-name=%s use-damage=false\nvideo:\n  codec: h264\n  framerate: %d\n  bitrate: %dk\n", display, o.fps, o.kbps),
	}})
	if err != nil {
		return chain{}, err
	}
	pipeline := func(ctx context.Context) (float64, error) {
		m, err := g.Metrics(ctx)
		if err != nil {
			return 0, err
		}
		labels := `{stream="desktop",track="video"}`
		return 1000 * m["gateway_track_pipeline_seconds_total"+labels] / m["gateway_track_frames_total"+labels], nil
	}
	latency := func(ctx context.Context) (map[string]quantiles, error) {
		var answer struct {
			Viewers []struct{ Latency map[string]quantiles }
		}
		_, body, err := g.Get(ctx, "/api/streams/desktop/viewers")
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil {
			return nil, err
		}
		if len(answer.Viewers) != 1 || len(answer.Viewers[0].Latency) < len(stages) {
			return nil, fmt.Errorf("the ledger isn't complete: %s", body)
		}
		return answer.Viewers[0].Latency, nil
	}
	return chain{url: g.URL("/watch/desktop"), close: g.Close, pipeline: pipeline, ledger: latency}, nil
}

// result is what one run measured, in ms.
type result struct {
	frames             int
	shown50, shown95   float64
	seen50, seen95     float64
	received50, decode float64
	buffer             float64 // mean time in the browser's jitter buffer
	dropped            float64 // frames that the browser dropped
	pipeline           float64 // mean from capture to packets; 0 where it isn't known
	ledger             ledger
}

func run(ctx context.Context, o options, browser *rig.Chromium, display string, start starter) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second+2*o.measure)
	defer cancel()
	c, err := start(ctx, o, display)
	if err != nil {
		return result{}, err
	}
	defer c.close()
	page, err := browser.Open(ctx, c.url)
	if err != nil {
		return result{}, err
	}
	defer page.Close()
	if err := strip.WaitVideo(ctx, page); err != nil {
		return result{}, err
	}
	if _, err := strip.Watch(ctx, page, strip.ReadOptions{ScreenWidth: width, For: warmUp}); err != nil {
		return result{}, err
	}
	before, err := stats(ctx, page)
	if err != nil {
		return result{}, err
	}
	frames, err := strip.Watch(ctx, page, strip.ReadOptions{ScreenWidth: width, For: o.measure})
	if err != nil {
		return result{}, err
	}
	after, err := stats(ctx, page)
	if err != nil {
		return result{}, err
	}
	var shown, seen, received []float64
	unreadable := 0
	for _, f := range frames {
		if f.Painted < 0 {
			unreadable++
			continue
		}
		shown, seen = append(shown, f.Shown), append(seen, f.Seen)
		if f.Received >= 0 {
			received = append(received, f.Received)
		}
	}
	if unreadable > len(frames)/50 {
		return result{}, fmt.Errorf("%d of %d frames show no strip", unreadable, len(frames))
	}
	r := result{
		frames:  len(frames),
		shown50: stat.Quantile(shown, 0.5), shown95: stat.Quantile(shown, 0.95),
		seen50: stat.Quantile(seen, 0.5), seen95: stat.Quantile(seen, 0.95),
		received50: stat.Quantile(received, 0.5), dropped: after.Dropped - before.Dropped,
	}
	if c.pipeline != nil {
		if r.pipeline, err = c.pipeline(ctx); err != nil {
			return result{}, err
		}
	}
	if n := after.Emitted - before.Emitted; n > 0 {
		r.buffer = 1000 * (after.Buffered - before.Buffered) / n
	}
	if n := after.Decoded - before.Decoded; n > 0 {
		r.decode = 1000 * (after.DecodeTime - before.DecodeTime) / n
	}
	if c.ledger != nil { // afterwards, for it costs the page something
		if r.ledger, err = account(ctx, o, c, page); err != nil {
			return result{}, err
		}
	}
	return r, nil
}

// account has the page observe how it goes, and compares the gateway's ledger of
// the run with what was measured in it. The painting is up to a frame's time before
// the capture, which no stage can know: the time counts from the capture, as the
// frames tell it themselves (abs-capture-time), to when the browser expects them on
// the glass.
func account(ctx context.Context, o options, c chain, page rig.Page) (ledger, error) {
	if err := page.Eval(ctx, "document.querySelector('gateway-player').toggleAttribute('stats', true)", new(bool)); err != nil {
		return ledger{}, err
	}
	frames, err := strip.Watch(ctx, page, strip.ReadOptions{ScreenWidth: width, For: o.measure})
	if err != nil {
		return ledger{}, err
	}
	var l ledger
	if l.stages, err = c.ledger(ctx); err != nil {
		return ledger{}, err
	}
	var waited, shown []float64
	frames = strip.Reported(frames)
	for _, f := range frames {
		if f.Captured != nil {
			waited, shown = append(waited, *f.Captured), append(shown, f.Shown-*f.Captured)
		}
	}
	if len(shown) < len(frames)/2 {
		return ledger{}, fmt.Errorf("only %d of %d frames tell when they were captured", len(shown), len(frames))
	}
	l.waited, l.shown50, l.shown95 = stat.Quantile(waited, 0.5), stat.Quantile(shown, 0.5), stat.Quantile(shown, 0.95)
	l.difference = l.stages["total"].P50 - l.shown50
	return l, nil
}

// inbound is what the browser's statistics say of the video that comes in.
type inbound struct {
	Buffered   float64 `json:"jitterBufferDelay"` // seconds, summed over Emitted frames
	Emitted    float64 `json:"jitterBufferEmittedCount"`
	DecodeTime float64 `json:"totalDecodeTime"` // seconds, summed over Decoded frames
	Decoded    float64 `json:"framesDecoded"`
	Dropped    float64 `json:"framesDropped"`
}

func stats(ctx context.Context, page rig.Page) (inbound, error) {
	var s *inbound
	if err := page.Eval(ctx, "videoStats()", &s); err != nil {
		return inbound{}, err
	}
	if s == nil {
		return inbound{}, fmt.Errorf("the page has no statistics of inbound video")
	}
	return *s, nil
}

func report(results [2][]result) {
	fields := []struct {
		name string
		of   func(result) float64
	}{
		{"shown p50", func(r result) float64 { return r.shown50 }},
		{"shown p95", func(r result) float64 { return r.shown95 }},
		{"seen p50", func(r result) float64 { return r.seen50 }},
		{"seen p95", func(r result) float64 { return r.seen95 }},
		{"received p50", func(r result) float64 { return r.received50 }},
		{"jitter buffer mean", func(r result) float64 { return r.buffer }},
		{"decode mean", func(r result) float64 { return r.decode }},
	}
	fmt.Printf("\n%-20s %10s %10s %26s\n", "median over runs, ms", "bare", "gateway", "gateway - bare, by pair")
	for _, f := range fields {
		var bare, gateway, difference []float64
		for i := range results[0] {
			bare, gateway = append(bare, f.of(results[0][i])), append(gateway, f.of(results[1][i]))
			difference = append(difference, gateway[i]-bare[i])
		}
		fmt.Printf("%-20s %10.1f %10.1f %10.1f (%.1f to %.1f)\n", f.name, stat.Quantile(bare, 0.5), stat.Quantile(gateway, 0.5),
			stat.Quantile(difference, 0.5), slices.Min(difference), slices.Max(difference))
	}
	var pipeline []float64
	for _, r := range results[1] {
		pipeline = append(pipeline, r.pipeline)
	}
	fmt.Printf("%-20s %10s %10.1f\n", "capture to packets", "", stat.Quantile(pipeline, 0.5))
}

// reportLedger prints where the gateway says that the time went.
func reportLedger(results []result) {
	median := func(of func(ledger) float64) float64 {
		var all []float64
		for _, r := range results {
			all = append(all, of(r.ledger))
		}
		return stat.Quantile(all, 0.5)
	}
	fmt.Printf("\n%-20s %8s %8s %8s\n", "the ledger, ms", "p50", "p95", "max")
	for _, s := range stages {
		fmt.Printf("%-20s %8.1f %8.1f %8.1f\n", s, median(func(l ledger) float64 { return l.stages[s].P50 }),
			median(func(l ledger) float64 { return l.stages[s].P95 }), median(func(l ledger) float64 { return l.stages[s].Max }))
	}
	fmt.Printf("%-20s %8.1f %8.1f\n", "measured", median(func(l ledger) float64 { return l.shown50 }), median(func(l ledger) float64 { return l.shown95 }))
	var differences []float64
	for _, r := range results {
		differences = append(differences, r.ledger.difference)
	}
	fmt.Printf("total - measured p50: %.1f (%.1f to %.1f); from the painting to the capture, which neither counts: %.1f\n",
		stat.Quantile(differences, 0.5), slices.Min(differences), slices.Max(differences), median(func(l ledger) float64 { return l.waited }))
}
