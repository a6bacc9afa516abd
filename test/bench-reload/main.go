// Command bench-reload measures what a viewer misses when a pipeline file is
// edited: Chromium plays one stream, the file is changed to and fro, and the
// longest interval between two presented frames around each edit, less the usual
// interval, is the gap.
//
// The kinds cover what an edit can need: nothing but a property (bitrate), another
// encoding of the same capture (encoder, codec), another capture beside the old
// one (size, fps, source), and a device that only one pipeline can hold, which is
// released first (device). None is the same without an edit: what this machine
// makes of a picture that nobody disturbs. For the last one a UDP port stands in, to which the
// bench sends a picture: a second bind is refused as a camera's second open is.
//
// A kind takes about 45 s for 10 edits, all of them 6 minutes.
//
//	go run ./test/bench-reload [-edits 10] [-kinds bitrate,size] [-v]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
)

// kind is one way to edit: the file goes from one text to the other and back.
type kind struct {
	name string
	text [2]string
	// with starts what the text captures from, which costs CPU time, and returns its
	// end; nil: the text needs nothing
	with func(context.Context) (stop func(), err error)
}

const testSource = "videotestsrc is-live=true pattern=smpte horizontal-speed=2"

// file is a pipeline file of 720p30 with changes.
func file(changes ...string) string {
	keys := []string{"source", testSource, "codec", "h264", "width", "1280", "height", "720", "framerate", "30", "bitrate", "2500k"}
	for i := 0; i < len(changes); i += 2 {
		if at := slices.Index(keys, changes[i]); at >= 0 && at%2 == 0 {
			keys[at+1] = changes[i+1]
		} else {
			keys = append(keys, changes[i], changes[i+1])
		}
	}
	var b strings.Builder
	for i := 0; i < len(keys); i += 2 {
		if i == 2 {
			b.WriteString("video:\n")
		}
		if i > 0 {
			b.WriteString("  ")
		}
		fmt.Fprintf(&b, "%s: %s\n", keys[i], keys[i+1])
	}
	return b.String()
}

func kinds(display string, port int) []kind {
	desktop := "ximagesrc use-damage=false display-name=" + display
	device := fmt.Sprintf("udpsrc address=127.0.0.1 port=%d reuse=false caps=\"application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8,payload=96\" ! rtpvp8depay ! vp8dec", port)
	return []kind{
		{name: "none", text: [2]string{file(), file()}},
		{name: "bitrate", text: [2]string{file(), file("bitrate", "1500k")}},
		{name: "size", text: [2]string{file(), file("width", "640", "height", "360")}},
		{name: "fps", text: [2]string{file(), file("framerate", "20")}},
		{name: "encoder", text: [2]string{file(), file("encoder", "openh264enc")}},
		{name: "source", text: [2]string{file(), file("source", desktop)}, with: painted(display)},
		{name: "codec", text: [2]string{file(), file("codec", "vp8")}},
		{name: "device", text: [2]string{file("source", device), file("source", device+" ! identity")}, with: camera(port)},
	}
}

// choose picks kinds by their names, separated by commas; all for none.
func choose(all []kind, names string) ([]kind, error) {
	if names == "" {
		return all, nil
	}
	var known []string
	for _, k := range all {
		known = append(known, k.name)
	}
	var chosen []kind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.Index(known, name)
		if i < 0 {
			return nil, fmt.Errorf("there is no kind %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func main() {
	edits := flag.Int("edits", 10, "edits of each kind")
	only := flag.String("kinds", "", "some of the kinds, separated by commas")
	verbose := flag.Bool("v", false, "print each edit, and what the gateway logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *edits, *only, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "bench-reload:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, edits int, only string, verbose bool) error {
	defer rig.RemoveBinary()
	screen, err := rig.StartXvfb(ctx, rig.XOptions{Width: 1280, Height: 720})
	if err != nil {
		return err
	}
	defer screen.Close()
	port, err := rig.Port()
	if err != nil {
		return err
	}
	chosen, err := choose(kinds(screen.Display, port), only)
	if err != nil {
		return err
	}
	pipelines := make(map[string]string)
	for _, k := range chosen {
		pipelines[k.name] = k.text[0]
	}
	var log io.Writer
	if verbose {
		log = os.Stderr
	}
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines, Log: log})
	if err != nil {
		return err
	}
	defer g.Close()
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + gap.Script})
	if err != nil {
		return err
	}
	defer browser.Close()

	fmt.Printf("1280x720 at 30 frames a second, %d edits of each kind; gap: longest interval between presented frames less the usual one\n\n", edits)
	fmt.Printf("%-8s %6s %19s %25s %8s\n", "", "", "ms", "frames", "")
	fmt.Printf("%-8s %6s %6s %6s %6s %8s %8s %8s %8s\n", "kind", "edits", "p50", "p95", "max", "p50", "p95", "max", "rejoins")
	for _, k := range chosen {
		gaps, rejoins, err := run(ctx, browser, g, k, edits, verbose)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		var ms, frames []float64
		for _, s := range gaps {
			ms, frames = append(ms, s.Gap()), append(frames, s.Missed())
		}
		fmt.Printf("%-8s %6d %6.0f %6.0f %6.0f %8.1f %8.1f %8.1f %8d\n", k.name, len(gaps),
			stat.Quantile(ms, 0.5), stat.Quantile(ms, 0.95), slices.Max(ms),
			stat.Quantile(frames, 0.5), stat.Quantile(frames, 0.95), slices.Max(frames), rejoins)
	}
	return nil
}

// run edits one stream's file, again and again, under one viewer.
func run(ctx context.Context, browser *rig.Chromium, g *rig.Gateway, k kind, edits int, verbose bool) (gaps []gap.Seen, rejoins int, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(edits)*15*time.Second)
	defer cancel()
	if k.with != nil {
		stop, err := k.with(ctx)
		if err != nil {
			return nil, 0, err
		}
		defer stop()
	}
	page, err := browser.Open(ctx, g.URL("/watch/"+k.name))
	if err != nil {
		return nil, 0, err
	}
	defer page.Close()
	if err := strip.WaitVideo(ctx, page); err != nil {
		return nil, 0, err
	}
	if err := gap.Mark(ctx, page); err != nil {
		return nil, 0, err
	}
	if _, err := gap.Since(ctx, page, 3000); err != nil { // the browser settles
		return nil, 0, err
	}
	for i := range edits {
		if err := gap.Mark(ctx, page); err != nil {
			return nil, 0, err
		}
		if k.text[0] != k.text[1] {
			r, err := g.Edit(ctx, k.name, func() error { return g.WritePipeline(k.name, k.text[(i+1)%2]) })
			if err != nil {
				return nil, 0, err
			}
			if !r.OK {
				return nil, 0, fmt.Errorf("edit %d is refused: %s %q", i+1, r.Message, r.Findings)
			}
		}
		// the cut may come after the gateway has decided
		s, err := gap.Since(ctx, page, 2000)
		if err != nil {
			return nil, 0, err
		}
		if verbose {
			fmt.Printf("%-8s %s\n", k.name, s)
		}
		if !s.Same {
			rejoins++
		}
		gaps = append(gaps, s)
	}
	return gaps, rejoins, nil
}

// painted paints a screen, so that what is captured of it moves.
func painted(display string) func(context.Context) (func(), error) {
	return func(ctx context.Context) (func(), error) { return strip.Keep(ctx, display, 60) }
}

// camera sends a picture to a UDP port of this machine.
func camera(port int) func(context.Context) (func(), error) {
	return func(context.Context) (func(), error) {
		launch, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("videotestsrc is-live=true horizontal-speed=2 ! video/x-raw,width=640,height=360,framerate=30/1 ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=5 ! rtpvp8pay pt=96 ! udpsink host=127.0.0.1 port=%d", port)
		p, err := rig.Start(rig.Command{Path: launch, Args: append([]string{"-q"}, strings.Fields(text)...)})
		if err != nil {
			return nil, err
		}
		return func() { p.Close() }, nil
	}
}
