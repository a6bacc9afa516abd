package e2e

import (
	"net/netip"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

// TestLiteHandshakeThatFailsIsFollowedByFullICE keeps the gateway from hearing more of
// Chromium's DTLS handshake than its hello. Chromium, which is in the middle of it, is
// offered full ICE with another certificate, begins anew, and plays. Firefox begins no
// other on a PeerConnection (2026-11): its page joins anew when the connection has failed.
func TestLiteHandshakeThatFailsIsFollowedByFullICE(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	own := outward(t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	n := newRelabel(t, netip.AddrPortFrom(own, 0), netip.AddrPortFrom(own, uint16(g.Port)))
	n.stuck.Store(true)
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + n.script(own, g.Port)})
	rig.Check(t, err)
	rig.End(t, "chromium", b.Close)
	before, err := g.Metrics(ctx)
	rig.Check(t, err)
	begun := time.Now()
	page, err := b.Open(ctx, g.URL("/watch/lite"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, strip.WaitVideo(ctx, page))
	t.Logf("the picture is there after %v", time.Since(begun).Round(10*time.Millisecond))
	goesOn(ctx, t, page, 30)
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	for name, want := range map[string]float64{
		`gateway_rtc_connected_total{ice="lite"}`: 0, `gateway_rtc_connected_total{ice="full"}`: 1,
		`gateway_rtc_viewers_ended_total{reason="needs-full-ice"}`: 1,
	} {
		if got := m[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
}
