package rtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// relayServer is a TURN server on 127.0.0.9 that relays from there.
func relayServer(t *testing.T) webrtc.ICEServer {
	t.Helper()
	const host = "127.0.0.9"
	conn, err := net.ListenPacket("udp4", host+":0")
	if err != nil {
		t.Skip("no second loopback address: " + err.Error())
	}
	s, err := turn.NewServer(turn.ServerConfig{
		Realm:         "test",
		LoggerFactory: pionLog{testLog(t)},
		AuthHandler: func(r *turn.RequestAttributes) (string, []byte, bool) {
			return r.Username, turn.GenerateAuthKey(r.Username, "test", "secret"), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP(host), Address: host},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return webrtc.ICEServer{URLs: []string{"turn:" + conn.LocalAddr().String()}, Username: "viewer", Credential: "secret"}
}

// relayPeer uses a relay, and its host candidates too.
func relayPeer(t *testing.T) *peer {
	t.Helper()
	server := relayServer(t)
	p := newPeer(t, peerOptions{})
	if err := p.pc.SetConfiguration(webrtc.Configuration{ICEServers: []webrtc.ICEServer{server}}); err != nil {
		t.Fatal(err)
	}
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	return p
}

func (p *peer) accept(t *testing.T, answer string) {
	t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

// remoteAddress is where the gateway's media goes. Packets that are on their way
// may arrive before ICE has chosen a pair anew.
func (v *Viewer) remoteAddress(t *testing.T) string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		pair, err := v.conn.(*peerConnection).SCTP().Transport().ICETransport().GetSelectedCandidatePair()
		if err == nil && pair != nil {
			return pair.Remote.Address
		}
		if time.Now().After(deadline) {
			t.Fatalf("no pair is selected: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestRelayOnlyViewerIsSentMediaThroughItsRelay(t *testing.T) {
	ctx := context.Background()
	e := newEngine(t, Options{ICE: config.ICE{RelayOnly: true}})
	src := newSource()
	v := newWHEP(t, e, videoTrack, src)
	p := relayPeer(t) // its host candidates would connect, and sooner
	src.run(t, 60, 2)
	offer := whepOffer(t, p)
	if !strings.Contains(offer, "typ host") || !strings.Contains(offer, "typ relay") {
		t.Fatalf("candidates of the offer:\n%s", offer)
	}
	answer, err := v.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	p.accept(t, answer)
	p.next(t)
	if got := v.remoteAddress(t); got != "127.0.0.9" {
		t.Errorf("media goes to %s, not to the relay", got)
	}

	// after a restart as well
	o, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	if answer, err = v.Answer(ctx, p.pc.LocalDescription().SDP); err != nil {
		t.Fatal(err)
	}
	p.accept(t, answer)
	for len(p.packets) > 0 {
		<-p.packets
	}
	p.next(t)
	if got := v.remoteAddress(t); got != "127.0.0.9" {
		t.Errorf("after a restart media goes to %s, not to the relay", got)
	}
}

func TestRelayOnlyTakesTrickledRelays(t *testing.T) {
	v := newWHEP(t, newEngine(t, Options{ICE: config.ICE{RelayOnly: true}}), videoTrack, newSource())
	v.tracks[0].latest().src.(*fakeSource).run(t, 60, 2)
	p := relayPeer(t)
	var bare, candidates []string
	for _, line := range strings.Split(whepOffer(t, p), "\r\n") {
		if c, ok := strings.CutPrefix(line, "a="); ok && strings.HasPrefix(c, "candidate:") {
			candidates = append(candidates, c)
		} else if line != "a=end-of-candidates" {
			bare = append(bare, line)
		}
	}
	answer, err := v.Answer(context.Background(), strings.Join(bare, "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	p.accept(t, answer)
	for _, c := range candidates {
		if err := v.AddCandidate(&Candidate{Candidate: c}); err != nil {
			t.Fatal(err)
		}
	}
	p.next(t)
	if got := v.remoteAddress(t); got != "127.0.0.9" {
		t.Errorf("media goes to %s, not to the relay", got)
	}
}

// The peer knows the gateway's candidates and its checks arrive: that alone made
// a peer-reflexive candidate of it, and media flowed whatever was configured.
func TestRelayOnlyKeepsOutWhoComesDirectly(t *testing.T) {
	for name, knows := range map[string]bool{"host candidates told": true, "found by its checks only": false} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{ICE: config.ICE{RelayOnly: true}})
			v, err := e.NewViewer(ViewerOptions{ConnectTimeout: 3 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			src := newSource()
			if err := v.AddTrack("video", videoTrack, "desk", src); err != nil {
				t.Fatal(err)
			}
			src.run(t, 60, 2)
			p := newPeer(t, peerOptions{})
			receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
			offer := whepOffer(t, p)
			if !knows {
				offer = strings.ReplaceAll(offer, "a=candidate:", "a=nothing:")
			}
			answer, err := v.Answer(context.Background(), offer)
			if err != nil {
				t.Fatal(err)
			}
			p.accept(t, answer)
			receive(t, v.Done(), "the end")
			if !errors.Is(v.Err(), ErrConnectTimeout) || !strings.Contains(fmt.Sprint(v.Err()), "relay_only") {
				t.Errorf("ended by %v", v.Err())
			}
			if s := v.Stats(); s.Packets != 0 || !s.Connected.IsZero() || len(p.packets) != 0 {
				t.Errorf("media was sent: %+v", s)
			}
		})
	}
}

func TestRelaysAreToldFromOtherCandidates(t *testing.T) {
	r := &relays{}
	for line, want := range map[string]bool{
		"candidate:1 1 udp 41885439 198.51.100.5 50000 typ relay raddr 203.0.113.9 rport 4242": true,
		"1 1 udp 41885439 2001:db8::5 50000 typ relay raddr 2001:db8::9 rport 4242":            true,
		"candidate:1 1 udp 2122260223 10.0.0.5 50000 typ host":                                 false,
		"candidate:1 1 udp 1686052607 203.0.113.9 50000 typ srflx raddr 10.0.0.5 rport 50000":  false,
		"candidate:1 1 udp 1686052607 203.0.113.9 50000 typ prflx raddr 10.0.0.5 rport 50000":  false,
		"nonsense": false,
	} {
		if got := r.take(line); got != want {
			t.Errorf("%q: relay is %v", line, got)
		}
	}
	for addr, want := range map[string]bool{
		"198.51.100.5": true, "::ffff:198.51.100.5": true, "2001:db8::5": true, "203.0.113.9": false, "10.0.0.5": false, "::1": false,
	} {
		if got := r.admit(netip.MustParseAddr(addr).AsSlice()); got != want {
			t.Errorf("%s: admitted is %v", addr, got)
		}
	}
	r.forget()
	if !r.none() || r.admit(net.IP{198, 51, 100, 5}) || r.admit(nil) {
		t.Error("something is left")
	}
}
