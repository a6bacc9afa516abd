package signal

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// The conversation of docs/protocol.md, from join to left.
func TestViewerWatchesFromJoinToLeft(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	c.say(map[string]any{"type": "ping", "requestId": "0"})
	if pong := c.hear("pong"); pong["requestId"] != "0" {
		t.Errorf("pong %v", pong)
	}
	c.say(map[string]any{"type": "join", "roomId": "test", "version": 1, "requestId": "1", "timestamp": time.Now().UnixMilli(),
		"codecs": map[string]any{"video": []string{"video/H264", "video/VP8"}, "audio": []string{"audio/opus"}}})
	joined := c.hear("joined")
	session, _ := joined["session"].(string)
	state, _ := joined["stream"].(map[string]any)
	if joined["requestId"] != "1" || joined["roomId"] != "test" || joined["version"] != 1.0 || joined["userId"] == "" ||
		len(session) < 26 || !isTraceID(joined["traceId"].(string)) || joined["iceServers"] == nil || state["name"] != "test" || state["title"] != "The test" {
		t.Fatalf("joined %v", joined)
	}
	if age := time.Since(time.UnixMilli(int64(joined["timestamp"].(float64)))); age < -time.Minute || age > time.Minute {
		t.Errorf("joined is stamped %v ago", age)
	}
	offer := c.hear("offer")
	if offer["session"] != session || offer["userId"] != joined["userId"] {
		t.Errorf("offer for %v of %v", offer["session"], offer["userId"])
	}
	p.negotiate(c, offer)
	p.sees(webrtc.RTPCodecTypeVideo)
	p.sees(webrtc.RTPCodecTypeAudio)
	c.say(map[string]any{"type": "report", "firstFrameMs": 87.5})
	c.say(map[string]any{"type": "leave", "requestId": "9"})
	if left := c.hear("left"); left["reason"] != "leave" || left["requestId"] != "9" {
		t.Errorf("left %v", left)
	}
	if code, text := c.closed(); code != 1000 || text != "leave" {
		t.Errorf("closed with %d %q", code, text)
	}
	for metric, want := range map[string]float64{
		"gateway_joins_total": 1, "gateway_first_frame_seconds": 1, "gateway_connect_seconds": 1, "gateway_refusals_total": 0, "gateway_negotiation_timeouts_total": 0,
	} {
		if got := g.count(t, metric); got != want {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
}

func TestClientHearsOfTheStreamsState(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	c.join("test")
	for {
		if m := c.hear("stream"); m["stream"].(map[string]any)["state"] == "live" {
			return
		}
	}
}

func TestAbsentStreamIsJoinedAndOfferedWhenItComes(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	state, _ := c.join("away")["stream"].(map[string]any)
	for state["state"] != "absent" {
		state = c.hear("stream")["stream"].(map[string]any)
	}
	if !strings.Contains(state["reason"].(string), "cable") {
		t.Errorf("reason %q", state["reason"])
	}
	c.say(map[string]any{"type": "restart-ice", "requestId": "early"})
	if e := c.hear("error"); e["code"] != "bad-state" || e["requestId"] != "early" {
		t.Errorf("restart-ice before the first offer: %v", e)
	}
	g.sources["away"].appear()
	p.negotiate(c, c.hear("offer"))
	p.sees(webrtc.RTPCodecTypeVideo)
}

// What a stream turns out to be may exceed what was offered: a level is of no
// consequence to a browser, a profile is another format.
func TestOfferIsRenewedForAProfileNotForALevel(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "h264")
	g.sources["h264"].describe("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e028")
	g.sources["h264"].describe("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f") // baseline
	offer := c.hear("offer")["sdp"].(string)
	if !strings.Contains(offer, "42001f") || strings.Contains(offer, "42e028") {
		t.Errorf("the offer is not for the profile:\n%s", offer)
	}
	c.say(map[string]any{"type": "answer", "sdp": p.answer(offer)})
	p.sees(webrtc.RTPCodecTypeVideo)
}

func TestICERestartKeepsTheSession(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	before := remoteUfrag(p.pc.RemoteDescription().SDP)
	c.say(map[string]any{"type": "restart-ice", "requestId": "r"})
	offer := c.hear("offer")
	if offer["requestId"] != "r" || remoteUfrag(offer["sdp"].(string)) == before {
		t.Fatalf("offer for %v has ufrag %q, as before", offer["requestId"], before)
	}
	p.negotiate(c, offer)
	p.sees(webrtc.RTPCodecTypeVideo)
}

func TestRestartWaitsForTheOpenOffersAnswer(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	c.join("test")
	first := c.hear("offer")
	c.say(map[string]any{"type": "restart-ice", "requestId": "r"})
	c.say(map[string]any{"type": "answer", "sdp": p.answer(first["sdp"].(string))})
	second := c.hear("offer")
	if second["requestId"] != "r" || remoteUfrag(second["sdp"].(string)) == remoteUfrag(first["sdp"].(string)) {
		t.Errorf("second offer for %v", second["requestId"])
	}
	p.await(p.started, "start of ICE") // pion can't restart before
	p.negotiate(c, second)
	p.sees(webrtc.RTPCodecTypeVideo)
}

func TestJoinedTellsTheTransportPolicy(t *testing.T) {
	for relayOnly, want := range map[bool]string{false: "all", true: "relay"} {
		t.Run(want, func(t *testing.T) {
			g := newGateway(t, func(c *config.Gateway, _ *timing) { c.ICE.RelayOnly = relayOnly })
			if got := g.dial(t).join("test")["iceTransportPolicy"]; got != want {
				t.Errorf("relay_only %v: iceTransportPolicy %v, want %q", relayOnly, got, want)
			}
		})
	}
}

func TestSessionEndsWithItsStream(t *testing.T) {
	g := newGateway(t)
	c, _ := g.watch(t, "test")
	g.streams["test"].Close()
	if left := c.hear("left"); left["reason"] != "stream-closed" || left["requestId"] != nil {
		t.Errorf("left %v", left)
	}
}

func TestSessionEndsWithItsPeerConnection(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	if err := p.pc.Close(); err != nil {
		t.Fatal(err)
	}
	if left := c.hear("left"); left["reason"] != "connection-closed" {
		t.Errorf("left %v", left)
	}
}

func TestNegotiationThatIsNeverAnsweredTimesOut(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.negotiate = 300 * time.Millisecond })
	c := g.dial(t)
	c.join("test")
	if e := c.hear("error"); e["code"] != "timeout" || e["fatal"] != true {
		t.Errorf("error %v", e)
	}
	if code, text := c.closed(); code != 1008 || text != "timeout" {
		t.Errorf("closed with %d %q", code, text)
	}
	if n := g.count(t, "gateway_negotiation_timeouts_total", "ws"); n != 1 {
		t.Errorf("%v timeouts counted", n)
	}
}

func TestClientThatCannotDecodeIsToldWhat(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": "h264", "version": 1, "codecs": map[string]any{"video": []string{"video/VP9", "video/rtx"}}})
	e := c.hear("error")
	if e["code"] != "codec-unsupported" || !strings.Contains(e["message"].(string), "video/H264") || !strings.Contains(e["message"].(string), "video/VP9") {
		t.Errorf("error %v", e)
	}
}

func TestAudioThatDoesNotFitIsLeftOut(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": "test", "version": 1, "codecs": map[string]any{"video": []string{"video/VP8"}, "audio": []string{}}})
	if sdp := c.hear("offer")["sdp"].(string); strings.Contains(sdp, "m=audio") {
		t.Errorf("offered audio:\n%s", sdp)
	}
}

func TestViewersAreLimited(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Viewers = 1 })
	first, p := g.watch(t, "test")
	second := g.dial(t)
	second.say(map[string]any{"type": "join", "roomId": "test", "version": 1})
	if e := second.hear("error"); e["code"] != "too-many-viewers" {
		t.Errorf("error %v", e)
	}
	if code, _ := second.closed(); code != 1013 {
		t.Errorf("closed with %d", code)
	}
	p.sees(webrtc.RTPCodecTypeVideo)
	first.say(map[string]any{"type": "leave"})
	first.hear("left")
	first.closed()
	g.dial(t).join("test")
}

func TestShutdownTellsEveryone(t *testing.T) {
	g := newGateway(t)
	joined, _ := g.watch(t, "test")
	waiting := g.dial(t)
	waiting.say(map[string]any{"type": "ping"})
	waiting.hear("pong")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*conversation{"joined": joined, "waiting": waiting} {
		if e := c.hear("error"); e["code"] != "shutting-down" {
			t.Errorf("%s: %v", name, e)
		}
		if code, _ := c.closed(); code != 1001 {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
	late := g.dial(t)
	if e := late.hear("error"); e["code"] != "shutting-down" {
		t.Errorf("late: %v", e)
	}
	if code, _ := late.closed(); code != 1001 {
		t.Errorf("late: closed with %d", code)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.linger = time.Minute })
	c, _ := newSilentClient(t, g)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := g.Close(ctx); err != context.DeadlineExceeded {
		t.Errorf("close with a client that never closes: %v", err)
	}
}

func TestJoinStormLeavesNothingBehind(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Room.DepartureTimeout = 0 })
	for range 20 {
		c := g.dial(t)
		c.join("test")
		c.hear("offer")
		c.conn.Close() // without a word
	}
	deadline := time.Now().Add(patience)
	for g.count(t, "gateway_sessions") > 0 || g.count(t, "gateway_sockets") > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%v sessions stay", g.count(t, "gateway_sessions"))
		}
		time.Sleep(5 * time.Millisecond) // gauges tell nobody when they change
	}
	if n := g.count(t, "gateway_session_ends_total", "gone"); n != 20 {
		t.Errorf("%v sessions ended as gone, want 20", n)
	}
}

// A client that can't reach the gateway (which is behind a NAT, say) is reached by
// it: on the same PeerConnection, with full ICE at both ends.
func TestClientThatDoesNotReachTheGatewayIsOfferedFullICE(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.ICE.Lite = true })
	c, p := g.dial(t), newPeer(t)
	c.join("test")
	first := c.hear("offer")
	sdp := first["sdp"].(string)
	if !strings.Contains(sdp, "a=ice-lite\r\n") {
		t.Fatalf("the first offer is\n%s", sdp)
	}
	first["sdp"] = regexp.MustCompile(`a=candidate:.*\r\n`).ReplaceAllString(sdp, "")
	p.negotiate(c, first)
	second := c.hear("offer")
	if sdp := second["sdp"].(string); strings.Contains(sdp, "a=ice-lite\r\n") || second["session"] != first["session"] {
		t.Fatalf("the second offer is %v", second)
	}
	p.negotiate(c, second)
	p.sees(webrtc.RTPCodecTypeVideo)
}

// So is one whose DTLS handshake fails: with another certificate, by which it knows that
// DTLS begins anew.
func TestClientWhoseHandshakeFailsIsOfferedFullICE(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.ICE.Lite = true })
	c, p := g.dial(t), newPeer(t, func(s *webrtc.SettingEngine) { s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_256_GCM) })
	c.join("test")
	first := c.hear("offer")
	p.negotiate(c, first)
	second := c.hear("offer")
	sdp := second["sdp"].(string)
	if strings.Contains(sdp, "a=ice-lite\r\n") || second["session"] != first["session"] {
		t.Fatalf("the second offer is %v", second)
	}
	fingerprint := regexp.MustCompile(`a=fingerprint:.*`)
	if fingerprint.FindString(sdp) == fingerprint.FindString(first["sdp"].(string)) {
		t.Error("both offers have the same certificate")
	}
}
