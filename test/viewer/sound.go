package viewer

import (
	"context"
	"fmt"
	"math"

	"github.com/pion/rtp"

	"gateway/internal/media"
)

// Hear watches a stream until n tenths of a second in a row hold a tone of hz and
// little else. The error of a ctx that ends first tells how much of it there was.
func Hear(ctx context.Context, url string, codec media.Codec, hz float64, n int) error {
	sound := make(chan []float64, 100)
	d, err := NewSoundDecoder(codec, func(samples []float64) {
		select {
		case sound <- samples:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer d.Close()
	v, err := Watch(ctx, Options{URL: url, Codecs: []media.Codec{codec, media.VP8}, OnRTP: func(c media.Codec, p *rtp.Packet) {
		if c == codec && len(p.Payload) > 0 {
			d.Write(p) // an error means that the decoder has ended: no sound then
		}
	}})
	if err != nil {
		return err
	}
	defer v.Close()
	best := 0.0
	for good := 0; good < n; {
		select {
		case samples := <-sound:
			share := toneShare(samples, hz)
			best = max(best, share)
			if good++; share < 0.9 {
				good = 0
			}
		case <-ctx.Done():
			return fmt.Errorf("no tone of %g Hz, its share was %.2f at most: %w", hz, best, ctx.Err())
		}
	}
	return nil
}

// toneShare is the part of the power that is at a frequency (Goertzel), 0 for silence.
func toneShare(samples []float64, hz float64) float64 {
	c := 2 * math.Cos(2*math.Pi*hz/SoundRate)
	var s1, s2, power float64
	for _, x := range samples {
		s1, s2 = x+c*s1-s2, s1
		power += x * x
	}
	n := float64(len(samples))
	if power/n < 1e-4 {
		return 0
	}
	return 2 * (s1*s1 + s2*s2 - c*s1*s2) / n / power
}
