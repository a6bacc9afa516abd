package loss

import (
	"context"
	"testing"
	"time"

	"gateway/test/rig"
)

const (
	stormy      = 50               // clients
	stormFor    = 10 * time.Second // of loss
	mostASecond = 2                // keyframes, however many ask
)

// Fifty clients that lose a fifth of their packets ask for what is missing, and ten times
// a second each for a keyframe: the encoder makes two a second at most, and all go on
// playing.
func TestLossyClientsCauseNoKeyframeStorm(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{
		"test": "source: videotestsrc is-live=true pattern=ball\nvideo: {codec: h264, width: 320, height: 240, framerate: 30, bitrate: 300k}\n",
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	clients, err := join(ctx, g, stormy, weather{delay: delay, rate: 0.2, burst: 2}, kind{rtx: true, plis: true})
	for _, c := range clients {
		defer func() {
			if err := c.close(); err != nil {
				t.Error(err)
			}
		}()
	}
	rig.Check(t, err)
	read := func() (m map[string]float64, at time.Time) {
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		return m, time.Now()
	}
	for _, c := range clients {
		c.path.lossy.Store(true)
	}
	before, from := read()
	select {
	case <-time.After(stormFor):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	after, to := read()
	grown := func(name string) float64 { return after[name] - before[name] }
	keyframes, plis := grown(`gateway_track_keyframes_total{stream="test",track="video"}`), grown("gateway_rtc_plis_received_total")
	seconds := to.Sub(from).Seconds()
	t.Logf("%.0f requests and %.0f NACKs of %d clients in %.1f s: %.0f keyframes", plis, grown("gateway_rtc_nacks_received_total"), stormy, seconds, keyframes)
	if plis < 100 {
		t.Errorf("only %.0f requests came", plis)
	}
	if most := mostASecond*seconds + 1; keyframes > most || keyframes == 0 {
		t.Errorf("%.0f keyframes in %.1f s, want %d a second at most", keyframes, seconds, mostASecond)
	}
	for i, c := range clients {
		c.mu.Lock()
		got := len(c.received)
		c.mu.Unlock()
		if float64(got) < 2*seconds {
			t.Errorf("client %d has received %d packets in %.0f s", i, got, seconds)
		}
	}
}
