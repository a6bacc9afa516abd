package signal

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// unable is a peer whose DTLS handshake with a lite connection fails.
func unable(s *webrtc.SettingEngine) { s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_256_GCM) }

func lite(c *config.Gateway, w *timing) { c.ICE.Lite, w.vain = true, time.Hour }

// A WHEP client can't be offered anything: who comes again after its lite connection
// has failed is answered with full ICE at once, until it is forgotten.
func TestWHEPClientThatLiteDoesNotConnectGetsFullICENext(t *testing.T) {
	g := newGateway(t, lite)
	resp, location := g.whep(t, "test", newPeer(t, unable), video)
	if !strings.Contains(resp.body, "a=ice-lite\r\n") {
		t.Fatalf("the first answer is\n%s", resp.body)
	}
	g.ended(t, location)
	p := newPeer(t)
	resp, location = g.whep(t, "test", p, video)
	if strings.Contains(resp.body, "a=ice-lite\r\n") {
		t.Errorf("the second answer is\n%s", resp.body)
	}
	p.sees(video)
	g.do(t, "DELETE", location, nil, "")

	for i := range g.unreached.last {
		if r := &g.unreached.last[i]; !r.until.IsZero() {
			r.until = time.Now()
		}
	}
	if resp, _ = g.whep(t, "test", newPeer(t), video); !strings.Contains(resp.body, "a=ice-lite\r\n") {
		t.Errorf("the answer an hour later is\n%s", resp.body)
	}
}

// Players have a time of their own, after which they DELETE and come again.
func TestWHEPClientThatGivesUpGetsFullICENext(t *testing.T) {
	g := newGateway(t, lite)
	for _, c := range []struct {
		vain time.Duration
		lite bool // the next answer
	}{{time.Hour, true}, {0, false}} {
		g.timing.vain = c.vain
		resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video)) // and never takes the answer
		if !strings.Contains(resp.body, "a=ice-lite\r\n") {
			t.Fatalf("the first answer is\n%s", resp.body)
		}
		if resp := g.do(t, "DELETE", resp.header.Get("Location"), nil, ""); resp.status != http.StatusOK {
			t.Errorf("DELETE: %d", resp.status)
		}
		resp, location := g.whep(t, "test", newPeer(t), video)
		if got := strings.Contains(resp.body, "a=ice-lite\r\n"); got != c.lite {
			t.Errorf("after %v the next answer is\n%s", c.vain, resp.body)
		}
		g.do(t, "DELETE", location, nil, "")
	}
}

// One that is connected leaves when it likes.
func TestClientThatLiteConnectsIsNotRemembered(t *testing.T) {
	g := newGateway(t, lite)
	g.timing.vain = 0
	for range 2 {
		p := newPeer(t)
		resp, location := g.whep(t, "test", p, video)
		if !strings.Contains(resp.body, "a=ice-lite\r\n") {
			t.Fatalf("the answer is\n%s", resp.body)
		}
		p.sees(video)
		g.do(t, "DELETE", location, nil, "")
	}
}

// A page that can't begin DTLS anew joins with another PeerConnection.
func TestPageThatLiteDoesNotConnectIsOfferedFullICENext(t *testing.T) {
	g := newGateway(t, lite)
	c := g.dial(t)
	c.join("test")
	newPeer(t, unable).negotiate(c, c.hear("offer"))
	c.hear("offer")
	again, p := g.dial(t), newPeer(t)
	again.join("test")
	offer := again.hear("offer")
	if sdp := offer["sdp"].(string); strings.Contains(sdp, "a=ice-lite\r\n") {
		t.Fatalf("the next offer is\n%s", sdp)
	}
	p.negotiate(again, offer)
	p.sees(video)
}

// ended waits for the end of a WHEP session.
func (g *gateway) ended(t *testing.T, location string) {
	t.Helper()
	x := g.session(location[strings.LastIndex(location, "/")+1:])
	if x == nil {
		return
	}
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatal("the session stays")
	}
}

func TestUnreachedClientsAreKnownByTokenAndAddress(t *testing.T) {
	var u unreached
	here, there := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	u.note("anna", here)
	if !u.has("anna", here) || u.has("anna", there) || u.has("otto", here) || u.has("", netip.Prefix{}) {
		t.Error("not exactly anna at her address is remembered")
	}
	for range u.last {
		u.note("", there)
	}
	if u.has("anna", here) || !u.has("", there) {
		t.Error("the oldest isn't forgotten first")
	}
}
