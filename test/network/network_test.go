// Package network holds the gateway to its word that a viewer gets what its network
// carries, over a link that becomes slow and recovers. How well, make bench-network
// measures.
package network

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"gateway/test/impair"
	"gateway/test/receiver"
	"gateway/test/rig"
)

func TestMain(m *testing.M) {
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

const (
	wide   = 2_500_000 // bit/s of the link
	narrow = 600_000
	span   = 2 * time.Second // in which the bitrate is measured
)

// pipeline is one rendition that fits both.
const pipeline = `source: videotestsrc is-live=true pattern=smpte horizontal-speed=2
video: {codec: h264, width: 640, height: 360, framerate: 30, keyframe_interval: 10s, bitrate: {min: 150k, start: 2M, max: 2M}}
`

// serve starts a gateway with the stream test, and a client behind a wide link.
func serve(ctx context.Context, t *testing.T, pipeline string) (*rig.Gateway, *impair.Client) {
	t.Helper()
	n, err := impair.New(ctx, 1, 1)
	rig.Check(t, err)
	rig.End(t, "network", n.Close)
	client := n.Clients[0]
	setLink(client, wide)
	client.Up.Set(impair.Settings{Delay: 20 * time.Millisecond})
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{
		Namespace: n.Server, Host: impair.ServerIP, Config: "auth: {allow_open: true}\n", Pipelines: map[string]string{"test": pipeline},
	})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.Log())
		}
	})
	return g, client
}

// setLink sets the bit/s of the link to a client.
func setLink(c *impair.Client, bps int) {
	c.Down.Set(impair.Settings{Rate: bps, Queue: 300 * time.Millisecond, Delay: 20 * time.Millisecond})
}

func TestBitrateFollowsTheLink(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	g, client := serve(ctx, t, pipeline)
	r, err := receiver.Watch(ctx, receiver.Options{URL: g.URL("/whep/test"), Namespace: client.Namespace, IP: client.IP})
	rig.Check(t, err)
	rig.End(t, "receiver", r.Close)
	m := &meter{impair.NewMeter(client.Down), r}
	begun := time.Now()

	used := func(bps float64) func() (bool, error) {
		return func() (bool, error) {
			sent, media, wait := m.lately()
			return media > bps, fmt.Errorf("%.0f kbit/s are sent, %.0f of media arrive, packets wait %s", sent/1000, media/1000, wait)
		}
	}
	wait(ctx, t, 40*time.Second, "the wide link to be used", used(0.5*wide))
	setLink(client, narrow)
	wait(ctx, t, 40*time.Second, "the bitrate to fit the narrow link", func() (bool, error) {
		sent, media, wait := m.lately()
		return sent < 1.1*narrow && media > 0.3*narrow && wait < 200*time.Millisecond,
			fmt.Errorf("%.0f kbit/s are sent, %.0f of media arrive, packets wait %s", sent/1000, media/1000, wait)
	})
	setLink(client, wide)
	wait(ctx, t, 60*time.Second, "the wide link to be used again", used(0.5*wide))

	seen, lasted := r.Seen(), time.Since(begun)
	t.Logf("after %s: %+v", lasted.Round(time.Second), seen)
	if !r.Kept() {
		t.Error("the connection was lost")
	}
	if most := 5 + int(lasted/time.Second)/2; seen.Keyframes > most {
		t.Errorf("%d keyframes in %s", seen.Keyframes, lasted)
	}
}

// wait waits until ok, whose error tells how things are.
func wait(ctx context.Context, t *testing.T, most time.Duration, what string, ok func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	begun := time.Now()
	err := rig.Until(ctx, what, func() (bool, error) {
		if time.Since(begun) < span {
			return false, nil
		}
		done, err := ok()
		if done {
			t.Logf("%s: after %s %v", what, time.Since(begun).Round(100*time.Millisecond), err)
			return true, nil
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// meter measures one receiver's link.
type meter struct {
	*impair.Meter
	of *receiver.Receiver
}

// lately is bit/s that were sent over the link and that arrived of media, the first
// time that they were sent, and the longest wait at it, in the last span.
func (m *meter) lately() (sent, media float64, wait time.Duration) {
	now := time.Now()
	records := m.Records(now.Add(-span), now)
	ssrc := m.of.SSRC()
	sent = impair.Rate(records, span, func(r *impair.Record) bool { return r.RTP })
	media = impair.Rate(records, span, func(r *impair.Record) bool {
		return r.RTP && r.Fate == impair.Delivered && r.SSRC == ssrc
	})
	for i := range records {
		wait = max(wait, records[i].Waited)
	}
	return sent, media, wait
}
