// Command bench-join measures how long a viewer waits for a first picture, with a
// keyframe interval of 10 s, so that nothing is won by short GOPs:
//
//   - from opening the page to the first rendered frame in Chromium, warm (someone
//     watches already) and cold (the capture starts for this viewer)
//   - from asking to watch (WHEP) to the first packet of a keyframe, for many
//     viewers that join a running stream within two seconds
//
// The stream is a real X screen, 1280x720 at 30 frames a second, H.264.
//
//	go run ./test/bench-join [-joins 20] [-viewers 50] [-v]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
	"gateway/test/viewer"
)

func main() {
	joins := flag.Int("joins", 20, "page openings, warm and cold each")
	viewers := flag.Int("viewers", 50, "viewers that join a running stream")
	within := flag.Duration("within", 2*time.Second, "the time in which they join")
	verbose := flag.Bool("v", false, "print what the gateway logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var log io.Writer
	if *verbose {
		log = os.Stderr
	}
	if err := bench(ctx, *joins, *viewers, *within, log); err != nil {
		fmt.Fprintln(os.Stderr, "bench-join:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, joins, viewers int, within time.Duration, log io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	screen, err := rig.StartXvfb(ctx, rig.XOptions{Width: 1280, Height: 720})
	if err != nil {
		return err
	}
	defer screen.Close()
	stop, err := strip.Keep(ctx, screen.Display, 30)
	if err != nil {
		return err
	}
	defer stop()

	defer rig.RemoveBinary()
	text := fmt.Sprintf("source: ximagesrc display-name=%s use-damage=false\nlinger: 0s\nvideo:\n  codec: h264\n  framerate: 30\n  keyframe_interval: 10s\n", screen.Display)
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Log: log, Pipelines: map[string]string{"desktop": text}})
	if err != nil {
		return err
	}
	defer g.Close()
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script})
	if err != nil {
		return err
	}
	defer browser.Close()

	fmt.Println("keyframe interval 10 s; ms")
	// the first page of a browser pays for starting its processes
	if _, err := open(ctx, browser, g); err != nil {
		return err
	}
	cold, err := openings(ctx, browser, g, joins)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	printOpenings("page opened to first frame, cold", cold)

	first, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/desktop"), Codecs: []media.Codec{media.H264}})
	if err != nil {
		return err
	}
	defer first.Close()
	if err := first.WaitKeyframe(ctx); err != nil {
		return err
	}
	warm, err := openings(ctx, browser, g, joins)
	if err != nil {
		return fmt.Errorf("warm: %w", err)
	}
	printOpenings("page opened to first frame, warm", warm)
	if err := browser.Close(); err != nil {
		return err
	}
	return crowd(ctx, g, viewers, within)
}

func print(what string, ms []float64) {
	fmt.Printf("%-52s n=%-3d p50 %6.0f  p95 %6.0f  most %6.0f\n", what, len(ms), stat.Quantile(ms, 0.5), stat.Quantile(ms, 0.95), stat.Quantile(ms, 1))
}

// openings opens the page n times, each in a tab and a storage of its own, and
// returns the times to the first frame in ms. A cold one begins when nothing
// runs.
func openings(ctx context.Context, browser *rig.Chromium, g *rig.Gateway, n int) ([]opening, error) {
	idle, err := g.Stream(ctx, "desktop")
	if err != nil {
		return nil, err
	}
	cold := idle.Viewers == 0
	var openings []opening
	for range n {
		if cold {
			if err := g.WaitState(ctx, "desktop", "idle"); err != nil {
				return nil, err
			}
		}
		o, err := open(ctx, browser, g)
		if err != nil {
			return nil, err
		}
		openings = append(openings, o)
	}
	return openings, nil
}

// opening is how long after the navigation began each step was done, in ms; the
// last is the first rendered frame. The player sets the marks.
type opening map[string]float64

// steps are an opening's steps in their order.
var steps = []string{"page", "connecting", "open", "joined", "offer", "answer", "connected", "frame"}

func open(ctx context.Context, browser *rig.Chromium, g *rig.Gateway) (opening, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	page, err := browser.Open(ctx, "")
	if err != nil {
		return nil, err
	}
	defer page.Close()
	if err := page.Navigate(ctx, g.URL("/watch/desktop")); err != nil {
		return nil, err
	}
	var o opening
	err = page.Eval(ctx, `new Promise((done) => {
		const look = () => {
			if (globalThis.firstFrame === undefined) return setTimeout(look, 20)
			const steps = { frame: firstFrame, page: performance.getEntriesByType('navigation')[0].responseEnd }
			for (const mark of performance.getEntriesByType('mark'))
				if (mark.name.startsWith('gateway:')) steps[mark.name.slice(8)] ??= mark.startTime
			done(steps)
		}
		look()
	})`, &o)
	return o, err
}

// printOpenings prints the times to the first frame, and the median of each step.
func printOpenings(what string, all []opening) {
	at := func(step string) []float64 {
		var ms []float64
		for _, o := range all {
			ms = append(ms, o[step])
		}
		return ms
	}
	print(what, at("frame"))
	fmt.Print("  of these, medians:")
	for _, step := range steps {
		fmt.Printf(" %s %.0f", step, stat.Quantile(at(step), 0.5))
	}
	fmt.Println()
}

// crowd lets n viewers join a running stream, evenly within a time.
func crowd(ctx context.Context, g *rig.Gateway, n int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	before, err := g.Metrics(ctx)
	if err != nil {
		return err
	}
	viewers, errs := make([]*viewer.Viewer, n), make([]error, n)
	var joining sync.WaitGroup
	tick := time.NewTicker(within / time.Duration(n))
	defer tick.Stop()
	for i := range n {
		<-tick.C
		joining.Go(func() {
			v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/desktop"), Codecs: []media.Codec{media.H264}})
			if err != nil {
				errs[i] = err
				return
			}
			viewers[i], errs[i] = v, v.WaitKeyframe(ctx)
		})
	}
	joining.Wait()
	after, err := g.Metrics(ctx)
	if err != nil {
		return err
	}
	var keyframe, answer, connect, first []float64
	since := func(from, to time.Time) float64 { return to.Sub(from).Seconds() * 1000 }
	for _, v := range viewers {
		if v == nil {
			continue
		}
		s := v.Seen()
		keyframe = append(keyframe, since(v.Posted, s.FirstKeyframe))
		answer = append(answer, since(v.Posted, v.Answered))
		connect = append(connect, since(v.Answered, s.Connected))
		first = append(first, since(s.Connected, s.FirstKeyframe))
		errs = append(errs, v.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	print(fmt.Sprintf("%d viewers in %s: asked to first keyframe packet", n, within), keyframe)
	print("  of these, asked to answered", answer)
	print("  answered to connected (ICE, DTLS)", connect)
	print("  connected to first keyframe packet", first)
	requests := `gateway_track_keyframe_requests_total{stream="desktop",track="video"}`
	fmt.Printf("  keyframes asked of the encoder for them: %.0f\n", after[requests]-before[requests])
	return nil
}
