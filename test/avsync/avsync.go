// Package avsync measures how far sound and picture are apart in a browser: a
// pipeline flashes and beeps at the same moment again and again, and a page tells
// when it shows the one and plays the other.
//
// Flash and beep have the same timestamps, to a millisecond, because both sources
// count from the same base time in one pipeline; a test of this package looks at
// their raw output. What is measured includes all that follows: the
// encoders, RTP timestamps and sender reports, the network, the browser's jitter
// buffers and its lip sync.
package avsync

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"time"

	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
)

const (
	fps  = 30
	rate = 48000 // samples a second

	// flip changes the colours of ground and ball every 50 frames
	flashing = "videotestsrc is-live=true pattern=ball flip=true"
	period   = 50 * time.Second / fps
	// 20 ms of 1 kHz at the same moments. audiotestsrc 1.22 is a buffer early, so
	// that is made 1 ms.
	beeping = "audiotestsrc is-live=true wave=ticks freq=1000 sine-periods-per-tick=20 tick-interval=1666666667 volume=0.8 samplesperbuffer=48"
)

// Pipeline is a pipeline file whose picture flashes when its sound beeps. sync is
// "av" or "video-first".
func Pipeline(sync string) string {
	return fmt.Sprintf(`sync: %s
launch: >
  %s ! video/x-raw,format=I420,width=320,height=180,framerate=%d/1,colorimetry=bt709
  ! queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0
  ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1000 key-int-max=60 ! video/x-h264,profile=constrained-baseline
  ! h264parse config-interval=-1 ! rtph264pay aggregate-mode=zero-latency mtu=1200 ! appsink name=video
  %s ! audio/x-raw,rate=%d,channels=2 ! queue leaky=downstream max-size-buffers=0 max-size-bytes=0 max-size-time=100000000
  ! opusenc frame-size=20 ! rtpopuspay ! appsink name=audio
`, sync, flashing, fps, beeping, rate)
}

// Browser is a Chromium that can measure: it may play sound unasked.
func Browser(ctx context.Context) (*rig.Chromium, error) {
	return rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + script, Flags: map[string]string{"autoplay-policy": "no-user-gesture-required"}})
}

//go:embed avsync.js
var script string

// Result is what a run measured, in ms.
type Result struct {
	Offsets      []float64 // of each pair, in the order of time: the beep after the flash; negative: before it
	Audio, Video float64   // mean time in the browser's jitter buffers
	Latency      float64   // of the loudspeaker, as the browser tells; part of the offsets
}

// Mean is the mean offset.
func (r Result) Mean() float64 { return mean(r.Offsets) }

// Drift is how much more the offset's mean is in the last third of the pairs than in
// the first. There must be three.
func (r Result) Drift() float64 {
	third := len(r.Offsets) / 3
	return mean(r.Offsets[len(r.Offsets)-third:]) - mean(r.Offsets[:third])
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Worst is the offset, without its sign, that a share q of the pairs doesn't
// exceed.
func (r Result) Worst(q float64) float64 {
	var all []float64
	for _, o := range r.Offsets {
		all = append(all, math.Abs(o))
	}
	return stat.Quantile(all, q)
}

// heard is what the page tells, in ms.
type heard struct {
	Flashes []float64 // when the first frame of each flash was expected on the glass
	Beeps   []float64 // when the first sample of each beep left the loudspeaker
	Latency float64
	Audio   float64
	Video   float64
}

// Measure plays a stream of [Pipeline] in a page of [Browser], and counts for d
// after what the browser takes to settle. It blocks until then.
func Measure(ctx context.Context, page rig.Page, g *rig.Gateway, stream string, settle, d time.Duration) (Result, error) {
	if err := page.Navigate(ctx, g.URL("/watch/"+stream+"?muted=0")); err != nil {
		return Result{}, err
	}
	if err := strip.WaitVideo(ctx, page); err != nil {
		return Result{}, err
	}
	var h heard
	expression := "measureSync(findVideo(), document.querySelector('gateway-player').peerConnection, %d, %d)"
	if err := page.Eval(ctx, fmt.Sprintf(expression, settle.Milliseconds(), d.Milliseconds()), &h); err != nil {
		return Result{}, err
	}
	r := Result{Audio: h.Audio, Video: h.Video, Latency: h.Latency}
	for _, flash := range h.Flashes {
		nearest := math.Inf(1)
		for _, beep := range h.Beeps {
			if math.Abs(beep-flash) < math.Abs(nearest) {
				nearest = beep - flash
			}
		}
		if math.Abs(nearest) < float64(period.Milliseconds())/2 {
			r.Offsets = append(r.Offsets, nearest)
		}
	}
	if expected := int(d / period); len(r.Offsets) < expected*3/4 {
		return r, fmt.Errorf("in %s there were %d flashes and %d beeps: %d pairs", d, len(h.Flashes), len(h.Beeps), len(r.Offsets))
	}
	return r, nil
}
