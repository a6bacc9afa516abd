package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

// litePipeline has sound, and a codec that both browsers decode.
const litePipeline = `title: Lite
source: videotestsrc is-live=true horizontal-speed=2
video:
  codec: vp8
  width: 640
  height: 360
  framerate: 30
  bitrate: 800k
audio:
  source: audiotestsrc is-live=true wave=ticks
  codec: opus
`

// eachBrowser runs a part of a test in Chromium and in Firefox.
func eachBrowser(ctx context.Context, t *testing.T, script string, part func(t *testing.T, b browser)) {
	inEach(ctx, t, func(t *testing.T, start func(script string) browser) { part(t, start(script)) })
}

// inEach runs a part of a test twice, which starts Chromium the first time and Firefox
// the second.
func inEach(ctx context.Context, t *testing.T, part func(t *testing.T, start func(script string) browser)) {
	t.Run("chromium", func(t *testing.T) {
		part(t, func(script string) browser {
			b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + script})
			rig.Check(t, err)
			rig.End(t, "chromium", b.Close)
			return b
		})
	})
	t.Run("firefox", func(t *testing.T) {
		part(t, func(script string) browser {
			b, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script + script})
			rig.Check(t, err)
			rig.End(t, "firefox", b.Close)
			return b
		})
	})
}

// received is what a page's PeerConnection has received.
type received struct {
	Video, Audio struct {
		Packets, Lost float64
		Frames        float64
		Frozen        float64 // seconds
	}
	State, Ufrag string
}

const receivedNow = `(async () => {
	const pc = document.querySelector('gateway-player').peerConnection;
	const r = { State: pc.connectionState, Ufrag: pc.remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1] };
	for (const s of (await pc.getStats()).values()) {
		if (s.type === 'inbound-rtp') {
			r[s.kind === 'audio' ? 'Audio' : 'Video'] = {
				Packets: s.packetsReceived, Lost: s.packetsLost, Frames: s.framesDecoded ?? 0, Frozen: s.totalFreezesDuration ?? 0,
			};
		}
	}
	return r;
})()`

func receivedBy(ctx context.Context, t *testing.T, page rig.Page) (r received) {
	t.Helper()
	rig.Check(t, page.Eval(ctx, receivedNow, &r))
	return r
}

// goesOn waits until a page has decoded n more frames and got sound.
func goesOn(ctx context.Context, t *testing.T, page rig.Page, n float64) {
	t.Helper()
	before := receivedBy(ctx, t, page)
	rig.Check(t, rig.Until(ctx, "more frames and sound", func() (bool, error) {
		var r received
		err := page.Eval(ctx, receivedNow, &r)
		return r.Video.Frames >= before.Video.Frames+n && r.Audio.Packets > before.Audio.Packets, err
	}))
}

// TestLiteConnections has both browsers watch without a PeerConnection at the
// gateway: picture and sound, an ICE restart, and the end told by the page.
func TestLiteConnections(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	eachBrowser(ctx, t, "", func(t *testing.T, b browser) {
		before, err := g.Metrics(ctx)
		rig.Check(t, err)
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		rig.Check(t, strip.WaitVideo(ctx, page))
		goesOn(ctx, t, page, 60)

		first := receivedBy(ctx, t, page)
		rig.Check(t, page.Eval(ctx, `(() => {
			const pc = document.querySelector('gateway-player').peerConnection;
			Object.defineProperty(pc, 'connectionState', { value: 'disconnected', configurable: true });
			pc.onconnectionstatechange();
			delete pc.connectionState;
		})()`, nil))
		rig.Check(t, rig.Until(ctx, "new credentials", func() (bool, error) {
			var r received
			err := page.Eval(ctx, receivedNow, &r)
			return r.Ufrag != first.Ufrag && r.State == "connected", err
		}))
		goesOn(ctx, t, page, 90)
		r := receivedBy(ctx, t, page)
		t.Logf("%+v", r)
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		if n := m["gateway_rtc_packets_unsent_total"] - before["gateway_rtc_packets_unsent_total"]; n > 0 {
			t.Errorf("%v packets found no way", n)
		}
		// numbers that were left out at the restart would be missing for good; a browser
		// that is kept from reading loses some too, and has them again soon
		rig.Check(t, rig.Until(ctx, "all packets, or all but some that a busy machine loses", func() (bool, error) {
			r := receivedBy(ctx, t, page)
			return r.Video.Lost <= r.Video.Packets/50 && r.Audio.Lost <= r.Audio.Packets/50, nil
		}))
		rig.Check(t, page.Close())
		begun := time.Now()
		rig.Check(t, rig.Until(ctx, "the viewer's end", func() (bool, error) {
			m, err := g.Metrics(ctx)
			const connected = `gateway_rtc_connected_total{ice="lite"}`
			ended := 0.0
			for name := range m { // whatever comes first: the alert, the socket's end, or silence
				if strings.HasPrefix(name, "gateway_rtc_viewers_ended_total{") {
					ended += m[name] - before[name]
				}
			}
			return ended > 0 && m[connected] > before[connected], err
		}))
		t.Logf("ended %v after the page", time.Since(begun).Round(time.Millisecond))
	})
}

// relabel is a NAT in front of the gateway's UDP port at another address of this
// machine: what a browser sends comes from a port which rebind changes.
type relabel struct {
	in *net.UDPConn
	to netip.AddrPort

	lossy atomic.Bool  // it loses 5 % of the gateway's RTP and RTCP
	stuck atomic.Bool  // it loses what a browser's DTLS handshake goes on with after the hello
	last  atomic.Int32 // so many of the gateway's last flights of a handshake it loses still

	mu   sync.Mutex // guards what follows
	outs map[netip.AddrPort]*net.UDPConn
	done sync.WaitGroup
}

func newRelabel(t *testing.T, at, to netip.AddrPort) *relabel {
	in, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	rig.Check(t, err)
	n := &relabel{in: in, to: to, outs: map[netip.AddrPort]*net.UDPConn{}}
	n.done.Go(func() {
		b := make([]byte, 2048)
		for {
			size, from, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.forward(from, b[:size])
		}
	})
	t.Cleanup(func() {
		in.Close()
		n.rebind()
		n.done.Wait()
	})
	return n
}

func (n *relabel) forward(from netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.outs[from]
	if out == nil {
		var err error
		if out, err = net.ListenUDP("udp4", nil); err != nil {
			return
		}
		n.outs[from] = out
		n.done.Go(func() {
			b := make([]byte, 2048)
			for {
				size, _, err := out.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				if n.lossy.Load() && rand.IntN(20) == 0 && b[0]&0xc0 == 0x80 { // RTP or RTCP
					continue
				}
				if b[0] == 20 && n.last.Add(-1) >= 0 { // ChangeCipherSpec
					continue
				}
				n.in.WriteToUDPAddrPort(b[:size], from)
			}
		})
	}
	// records of a handshake (RFC 6347 §4.1, §4.2.2), and of what comes with its last flight
	if shakes := len(b) > 13 && (b[0] == 22 && b[13] != 1 || b[0] == 20 || b[0] == 21); !shakes || !n.stuck.Load() {
		out.WriteToUDPAddrPort(b, n.to)
	}
}

// script is for pages, which know the gateway at the NAT's port only.
func (n *relabel) script(own netip.Addr, gateway int) string {
	return fmt.Sprintf(`
		const setRemote = RTCPeerConnection.prototype.setRemoteDescription;
		RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
			const lines = sdp.split('\r\n').filter((l) => !l.startsWith('a=candidate:') || l.includes(' %[1]s '));
			return setRemote.call(this, { type, sdp: lines.map((l) => l.replace(' %[1]s %[2]d ', ' %[1]s %[3]d ')).join('\r\n') });
		};`, own, gateway, n.in.LocalAddr().(*net.UDPAddr).Port)
}

func (n *relabel) rebind() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for from, out := range n.outs {
		out.Close()
		delete(n.outs, from)
	}
}

// outward is an address of this machine that isn't loopback.
func outward(t *testing.T) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	rig.Check(t, err)
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Skip("no address but loopback: a NAT can't be in between")
	return netip.Addr{}
}

// TestLiteConnectionFollowsItsBrowser gives the browser another port in the middle
// of it, as a NAT does that has forgotten the old one.
func TestLiteConnectionFollowsItsBrowser(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	own := outward(t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	n := newRelabel(t, netip.AddrPortFrom(own, 0), netip.AddrPortFrom(own, uint16(g.Port)))
	eachBrowser(ctx, t, n.script(own, g.Port), func(t *testing.T, b browser) {
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		goesOn(ctx, t, page, 60)
		for range 2 {
			n.rebind()
			begun := time.Now()
			// what is on its way may still arrive
			rig.Check(t, rig.Until(ctx, "the first frames", func() (bool, error) { return time.Since(begun) > 300*time.Millisecond, nil }))
			goesOn(ctx, t, page, 30)
			t.Logf("goes on %v after the port has changed; %+v", time.Since(begun).Round(10*time.Millisecond), receivedBy(ctx, t, page))
		}
	})
}

// TestLiteConnectionIsRepaired loses 5 % of what the gateway sends to both browsers,
// which ask for it and go on.
func TestLiteConnectionIsRepaired(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	own := outward(t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	n := newRelabel(t, netip.AddrPortFrom(own, 0), netip.AddrPortFrom(own, uint16(g.Port)))
	eachBrowser(ctx, t, n.script(own, g.Port), func(t *testing.T, b browser) {
		const again = "gateway_rtc_packets_retransmitted_total"
		n.lossy.Store(false)
		before, err := g.Metrics(ctx)
		rig.Check(t, err)
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		goesOn(ctx, t, page, 30)
		n.lossy.Store(true)
		goesOn(ctx, t, page, 150)
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		t.Logf("%v packets sent again; %+v", m[again]-before[again], receivedBy(ctx, t, page))
		if m[again] == before[again] {
			t.Error("nothing was sent again")
		}
	})
}

// TestLiteConnectionOverIPv6 leaves both browsers no other address of the gateway's.
func TestLiteConnectionOverIPv6(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	rig.Check(t, err)
	if !slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Is6() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast()
	}) {
		t.Skip("no IPv6 address but loopback and link-local ones")
	}
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	const script = `
		const setRemote = RTCPeerConnection.prototype.setRemoteDescription;
		RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
			const lines = sdp.split('\r\n').filter((l) => !l.startsWith('a=candidate:') || l.split(' ')[4].includes(':'));
			return setRemote.call(this, { type, sdp: lines.join('\r\n') });
		};`
	eachBrowser(ctx, t, script, func(t *testing.T, b browser) {
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		goesOn(ctx, t, page, 60)
	})
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	if n := m[`gateway_rtc_connected_total{ice="lite"}`]; n != 2 {
		t.Errorf("%v lite connections, want 2", n)
	}
}

// TestLiteViewerWhoseBrowserIsKilled watches by WHEP, where no socket tells of it: what
// the gateway notices is that nobody consents any more (RFC 7675).
func TestLiteViewerWhoseBrowserIsKilled(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{})
	rig.Check(t, err)
	defer b.Close()
	page, err := b.Open(ctx, g.URL("/"))
	rig.Check(t, err)
	rig.Check(t, page.Eval(ctx, `(async () => {
		const pc = window.pc = new RTCPeerConnection();
		pc.addTransceiver('video', { direction: 'recvonly' });
		await pc.setLocalDescription();
		const r = await fetch('/whep/lite', { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
		await pc.setRemoteDescription({ type: 'answer', sdp: await r.text() });
	})()`, nil))
	rig.Check(t, rig.Until(ctx, "the connection", func() (bool, error) {
		m, err := g.Metrics(ctx)
		return m[`gateway_rtc_viewers{state="connected"}`] == 1, err
	}))
	rig.Check(t, b.Kill())
	begun := time.Now()
	rig.Check(t, rig.Until(ctx, "its end", func() (bool, error) {
		m, err := g.Metrics(ctx)
		return m[`gateway_rtc_viewers_ended_total{reason="connection-lost"}`] == 1, err
	}))
	t.Logf("ended %v after the browser", time.Since(begun).Round(time.Second))
}

// TestLiteSoak plays for as long as the environment's LITE_SOAK says, in both browsers.
func TestLiteSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("LITE_SOAK"))
	if err != nil {
		t.Skip("LITE_SOAK names no duration, such as 1h")
	}
	ctx := bounded(t, d+5*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	pages := map[string]rig.Page{}
	chromium := startChromium(ctx, t, rig.ChromiumOptions{})
	firefox, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script})
	rig.Check(t, err)
	rig.End(t, "firefox", firefox.Close)
	for name, b := range map[string]browser{"chromium": chromium, "firefox": firefox} {
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		pages[name] = page
	}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		next := time.Now().Add(min(time.Minute, time.Until(end)))
		rig.Check(t, rig.Until(ctx, "a minute", func() (bool, error) { return time.Now().After(next), nil }))
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		for name, page := range pages {
			goesOn(ctx, t, page, 10)
			t.Logf("%s: %+v", name, receivedBy(ctx, t, page))
		}
		t.Logf("gateway: %.0f KB, %v goroutines, %v viewers", m["process_resident_memory_bytes"]/1024, m["go_goroutines"], m[`gateway_rtc_viewers{state="connected"}`])
	}
	for name, page := range pages {
		if r := receivedBy(ctx, t, page); r.State != "connected" {
			t.Errorf("%s is %s", name, r.State)
		}
	}
}

// TestBrowserThatDoesNotReachTheGatewayIsReached hides the gateway's addresses from
// the page until it is offered full ICE: then the gateway's checks reach it.
func TestBrowserThatDoesNotReachTheGatewayIsReached(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	const script = `
		const setRemote = RTCPeerConnection.prototype.setRemoteDescription;
		RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
			if (sdp.includes('a=ice-lite')) sdp = sdp.replace(/a=candidate:.*\r\n/g, '');
			return setRemote.call(this, { type, sdp });
		};`
	eachBrowser(ctx, t, script, func(t *testing.T, b browser) {
		// each its own gateway, which remembers who needs full ICE
		g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
		begun := time.Now()
		page, err := b.Open(ctx, g.URL("/watch/lite"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		t.Logf("plays after %v", time.Since(begun).Round(10*time.Millisecond))
		goesOn(ctx, t, page, 60)
		onlyFull(ctx, t, g)
	})
}

// TestLiteConnectionsOfOtherMakes has aiortc and GStreamer's webrtcbin watch by WHEP.
func TestLiteConnectionsOfOtherMakes(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"lite": litePipeline}, Config: "ice: {lite: true}\n"})
	for _, c := range []struct {
		name, needs, remedy string
		args                []string
		want                string
	}{
		{"aiortc", "import aiortc", "apt-get install python3-aiortc", []string{"whep_aiortc.py", g.URL("/whep/lite"), "60", "640"}, `{"left": 200}`},
		{"webrtcbin", "import gi; gi.require_version('GstWebRTC', '1.0')", "apt-get install python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice",
			[]string{"whep_webrtcbin.py", g.URL("/whep/lite"), "60"}, `{"frames": 60, "left": 200}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			otherMake(ctx, t, c.name, c.needs, c.remedy, c.want, c.args)
		})
	}
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	if n := m[`gateway_rtc_connected_total{ice="lite"}`]; n != 2 {
		t.Errorf("%v lite connections, want 2", n)
	}
}
