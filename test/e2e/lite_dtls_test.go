package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

// stuck is a gateway with ice.lite which hears no more of DTLS handshakes than the
// hello, until it has offered full ICE, and the script by which pages reach it so.
func stuck(ctx context.Context, t *testing.T) (g *rig.Gateway, n *relabel, script string) {
	own := outward(t)
	g = startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	n = newRelabel(t, netip.AddrPortFrom(own, 0), netip.AddrPortFrom(own, uint16(g.Port)))
	n.stuck.Store(true)
	return g, n, n.script(own, g.Port)
}

// gaveUp waits until the gateway has given up the lite connection, and lets all through.
func (n *relabel) gaveUp(ctx context.Context, t *testing.T, g *rig.Gateway) {
	t.Helper()
	rig.Check(t, rig.Until(ctx, "the lite connection's end", func() (bool, error) {
		m, err := g.Metrics(ctx)
		return m[`gateway_rtc_viewers_ended_total{reason="needs-full-ice"}`] == 1, err
	}))
	n.stuck.Store(false)
}

// onlyFull checks that one viewer was connected by full ICE after one that wasn't by lite.
func onlyFull(ctx context.Context, t *testing.T, g *rig.Gateway) {
	t.Helper()
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	for name, want := range map[string]float64{
		`gateway_rtc_connected_total{ice="lite"}`: 0, `gateway_rtc_connected_total{ice="full"}`: 1,
		`gateway_rtc_viewers_ended_total{reason="needs-full-ice"}`: 1,
	} {
		if got := m[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// TestLiteHandshakeThatFailsIsFollowedByFullICE has the player's handshake fail. Chromium, which
// is in the middle of it, is offered full ICE with another certificate, begins anew, and
// plays. Firefox begins no other on a PeerConnection (2026-11): its page joins anew, and is
// offered full ICE at once; before the gateway remembered it, it was offered lite for ever.
func TestLiteHandshakeThatFailsIsFollowedByFullICE(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	inEach(ctx, t, func(t *testing.T, start func(script string) browser) {
		g, n, script := stuck(ctx, t)
		b := start(script)
		begun := time.Now()
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		n.gaveUp(ctx, t, g)
		rig.Check(t, strip.WaitVideo(ctx, page))
		t.Logf("the picture is there after %v", time.Since(begun).Round(10*time.Millisecond))
		goesOn(ctx, t, page, 30)
		onlyFull(ctx, t, g)
	})
}

// TestWHEPPlayerWhoseLiteHandshakeFailsTriesAgain has a player do what they do: on "failed" it makes
// another PeerConnection.
func TestWHEPPlayerWhoseLiteHandshakeFailsTriesAgain(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	inEach(ctx, t, func(t *testing.T, start func(script string) browser) {
		g, n, script := stuck(ctx, t)
		b := start(script)
		page, err := b.Open(ctx, g.URL("/"))
		rig.Check(t, err)
		defer page.Close()
		begun := time.Now()
		rig.Check(t, page.Eval(ctx, whepPlayer, nil))
		n.gaveUp(ctx, t, g)
		t.Logf("the gateway gives up after %v", time.Since(begun).Round(10*time.Millisecond))
		if tries := triesUntilPlaying(ctx, t, page); tries != 2 {
			t.Errorf("it took %v tries", tries)
		}
		t.Logf("plays after %v", time.Since(begun).Round(10*time.Millisecond))
		onlyFull(ctx, t, g)
	})
}

// TestLiteConnectionsByWHEP has both browsers play without a second try, and leave.
func TestLiteConnectionsByWHEP(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	inEach(ctx, t, func(t *testing.T, start func(script string) browser) {
		g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
		page, err := start("").Open(ctx, g.URL("/"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, page.Eval(ctx, whepPlayer, nil))
		if tries := triesUntilPlaying(ctx, t, page); tries != 1 {
			t.Errorf("it took %v tries", tries)
		}
		begun := time.Now()
		rig.Check(t, page.Eval(ctx, `window.pc.close()`, nil))
		rig.Check(t, rig.Until(ctx, "the viewer's end, which DTLS tells", func() (bool, error) {
			m, err := g.Metrics(ctx)
			return m[`gateway_rtc_viewers_ended_total{reason="left"}`] == 1 && m[`gateway_rtc_connected_total{ice="lite"}`] == 1, err
		}))
		t.Logf("ended %v after the connection was closed", time.Since(begun).Round(time.Millisecond))
	})
}

// TestLiteConnectionWhoseLastFlightIsLost keeps the end of the gateway's handshake from both
// browsers three times, which is then over for the gateway: it sends it again.
func TestLiteConnectionWhoseLastFlightIsLost(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	own := outward(t)
	inEach(ctx, t, func(t *testing.T, start func(script string) browser) {
		g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
		n := newRelabel(t, netip.AddrPortFrom(own, 0), netip.AddrPortFrom(own, uint16(g.Port)))
		n.last.Store(3)
		begun := time.Now()
		page, err := start(n.script(own, g.Port)).Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		t.Logf("the picture is there after %v", time.Since(begun).Round(10*time.Millisecond))
		goesOn(ctx, t, page, 30)
		if left := n.last.Load(); left >= 0 {
			t.Errorf("%d of three were not lost, or none came after them", left)
		}
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		if got := m[`gateway_rtc_connected_total{ice="lite"}`]; got != 1 || m[`gateway_rtc_connected_total{ice="full"}`] != 0 {
			t.Errorf("%v viewers were connected by ICE-lite", got)
		}
	})
}

// triesUntilPlaying waits until the WHEP player of a page has got picture and sound, and returns how often
// it has tried.
func triesUntilPlaying(ctx context.Context, t *testing.T, page rig.Page) (tries int) {
	t.Helper()
	rig.Check(t, rig.Until(ctx, "packets", func() (bool, error) {
		var now struct{ Tries, Video, Audio int }
		err := page.Eval(ctx, `(async () => {
			const now = { Tries: window.tries, Video: 0, Audio: 0 };
			for (const s of (await window.pc.getStats()).values()) if (s.type === 'inbound-rtp') now[s.kind === 'audio' ? 'Audio' : 'Video'] = s.packetsReceived;
			return now;
		})()`, &now)
		tries = now.Tries
		return now.Video > 100 && now.Audio > 50, err
	}))
	return tries
}

// whepPlayer is a WHEP player in a page.
const whepPlayer = `(() => {
	const play = async () => {
		window.tries = (window.tries ?? 0) + 1;
		const pc = (window.pc = new RTCPeerConnection());
		for (const kind of ['video', 'audio']) pc.addTransceiver(kind, { direction: 'recvonly' });
		pc.onconnectionstatechange = () => {
			if (pc.connectionState !== 'failed') return;
			pc.close();
			play();
		};
		await pc.setLocalDescription();
		const r = await fetch('/whep/lite', { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
		await pc.setRemoteDescription({ type: 'answer', sdp: await r.text() });
	};
	return play();
})()`
