package soak

import (
	"context"
	"flag"
	"testing"
	"time"

	"gateway/test/crowd"
	"gateway/test/rig"
)

var minutes = flag.Float64("minutes", 1, "how long the stream of a high rate is watched")

// fast has six times the packets of a usual stream: ten minutes are an hour, and
// a viewer's sequence numbers roll over every two minutes.
const fast = "source: videotestsrc is-live=true pattern=snow\nlinger: 0s\nvideo:\n  width: 320\n  height: 180\n  framerate: 120\n  bitrate: 4M\naudio:\n  source: audiotestsrc is-live=true\n"

// TestMemoryIsFlatAtAHighRate has many viewers watch for a long time.
func TestMemoryIsFlatAtAHighRate(t *testing.T) {
	const viewers, samples = 20, 6
	span := time.Duration(*minutes * float64(time.Minute))
	ctx, cancel := context.WithTimeout(t.Context(), span+10*time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{"fast": fast}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	all, err := crowd.Start("")
	rig.Check(t, err)
	rig.End(t, "viewers", all.Close)
	rig.Check(t, all.Join(ctx, g.URL("/whep/fast"), viewers))

	tick := time.NewTicker(span / samples)
	defer tick.Stop()
	var first, last usage
	before, err := all.Count(ctx)
	rig.Check(t, err)
	for i := range samples {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
		last, err = measure(ctx, g)
		rig.Check(t, err)
		t.Logf("after %v: %s", (time.Duration(i+1) * span / samples).Round(time.Second), last)
		if i == 0 {
			first = last
		}
	}
	after, err := all.Count(ctx)
	rig.Check(t, err)
	seen := after.Since(before)
	t.Logf("%d packets reached %d viewers in %v: %+v", seen.Packets, viewers, span, seen)
	if least := uint64(span.Seconds() * 200 * viewers); seen.Packets < least {
		t.Errorf("%d packets arrived, want %d at least", seen.Packets, least)
	}
	if last.Goroutines > first.Goroutines+5 || last.Files > first.Files+5 || last.Streaming > first.Streaming+4 { // requests come and go
		t.Errorf("at the end %s, at first %s", last, first)
	}
	if grown := last.RSS - first.RSS; grown > 8<<10 {
		t.Errorf("memory grew by %d KiB", grown)
	}
}
