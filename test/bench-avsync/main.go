// Command bench-avsync measures in Chromium how far sound and picture are apart:
// a stream that flashes and beeps at once (test/avsync), watched for three minutes
// with each value of the key sync. Drift is what the offset's mean in the last third
// of that time is more than in the first.
//
//	go run ./test/bench-avsync [-settle 20s] [-for 3m] [-v]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"gateway/test/avsync"
	"gateway/test/rig"
)

func main() {
	settle := flag.Duration("settle", 20*time.Second, "what the browser gets to settle")
	measure := flag.Duration("for", 3*time.Minute, "how long each run counts")
	verbose := flag.Bool("v", false, "print what the gateway logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var log io.Writer
	if *verbose {
		log = os.Stderr
	}
	if err := bench(ctx, *settle, *measure, log); err != nil {
		fmt.Fprintln(os.Stderr, "bench-avsync:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, settle, measure time.Duration, log io.Writer) error {
	defer rig.RemoveBinary()
	pipelines := make(map[string]string)
	modes := []string{"av", "video-first"}
	for _, mode := range modes {
		pipelines[mode] = avsync.Pipeline(mode)
	}
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines, Log: log})
	if err != nil {
		return err
	}
	defer g.Close()
	browser, err := avsync.Browser(ctx)
	if err != nil {
		return err
	}
	defer browser.Close()

	fmt.Printf("320x180 at 30 frames a second, H.264 and Opus, %s after %s to settle; ms, sound after picture; jitter buffers are means\n\n", measure, settle)
	fmt.Printf("%-12s %6s %8s %8s %8s %14s %8s %14s %14s\n", "sync", "pairs", "mean", "least", "most", "p95, no sign", "drift", "sound buffer", "picture buffer")
	for _, mode := range modes {
		r, err := run(ctx, browser, g, mode, settle, measure)
		if err != nil {
			return fmt.Errorf("sync %s: %w", mode, err)
		}
		fmt.Printf("%-12s %6d %8.1f %8.1f %8.1f %14.1f %8.1f %14.1f %14.1f\n", mode, len(r.Offsets), r.Mean(),
			slices.Min(r.Offsets), slices.Max(r.Offsets), r.Worst(0.95), r.Drift(), r.Audio, r.Video)
	}
	return nil
}

func run(ctx context.Context, browser *rig.Chromium, g *rig.Gateway, stream string, settle, measure time.Duration) (avsync.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, settle+measure+time.Minute)
	defer cancel()
	page, err := browser.Open(ctx, "")
	if err != nil {
		return avsync.Result{}, err
	}
	defer page.Close()
	return avsync.Measure(ctx, page, g, stream, settle, measure)
}
