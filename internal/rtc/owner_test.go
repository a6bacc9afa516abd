package rtc

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"testing"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// peerAt is a peer with one UDP port, which vanish takes from it without a word.
func peerAt(t *testing.T, port int) (p *peer, at int, vanish func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn})
	t.Cleanup(func() { mux.Close() })
	p = newPeer(t, peerOptions{settings: func(s *webrtc.SettingEngine) {
		s.SetICEUDPMux(mux)
		s.SetICEMaxBindingRequests(100) // as browsers, which go on for longer than pion
	}})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	return p, conn.LocalAddr().(*net.UDPAddr).Port, func() { conn.Close() }
}

func TestNextViewerFromTheAddressOfOneThatVanishedConnects(t *testing.T) {
	e := newEngine(t, Options{})
	if err := e.sockets.addresses(t, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	port := 0
	for i := range 3 {
		src := newSource()
		v := newWHEP(t, e, videoTrack, src)
		src.run(t, 30, 2)
		p, at, vanish := peerAt(t, port)
		// browsers hide their addresses: the gateway learns them from their checks
		offer := regexp.MustCompile(`a=candidate:.*\r\n`).ReplaceAllString(whepOffer(t, p), "")
		answer, err := v.Answer(context.Background(), offer)
		if err != nil {
			t.Fatal(err)
		}
		p.accept(t, answer)
		p.next(t)
		for range 30 { // and goes on
			p.next(t)
		}
		if v.Err() != nil {
			t.Fatalf("viewer %d: %v", i, v.Err())
		}
		vanish()
		port = at
	}
}

// Who is there keeps the address, whoever's checks seem to come from it.
func TestAddressOfALivingViewerIsNotTaken(t *testing.T) {
	var o owners
	living, other := &link{}, &link{}
	addr := netip.MustParseAddrPort("192.0.2.1:4000")
	o.add("living", living)
	o.add("other", other)
	o.claim(living, addr)
	check := func(ufrag string) []byte {
		b := append(make([]byte, 20), 0, 6, 0, byte(len(ufrag)+2))
		b = append(b, ufrag+":x"...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b[1], b[3] = 1, byte(len(b)-20)
		copy(b[4:], []byte{0x21, 0x12, 0xa4, 0x42})
		return b
	}
	heard := func(b []byte) *link {
		claims, _ := o.heard(addr, b)
		return claims
	}
	if heard([]byte{128, 200, 0, 0}); living.silent() {
		t.Error("it was heard")
	}
	if heard(check("other")) != nil || !o.claim(living, addr) {
		t.Error("the address was taken from one who is there")
	}
	if l := heard(check("living")); l != nil {
		t.Error("a check of its own takes it")
	}
	living.at.Store(living.at.Load() - int64(2*pathSilence))
	if heard(check("nobody")) != nil {
		t.Error("a check for nobody takes the address")
	}
	living.at.Store(living.at.Load() - int64(2*pathSilence))
	if heard(check("other")) != other {
		t.Error("the next viewer doesn't get it")
	}
	other.at.Store(living.at.Load() + int64(3*pathSilence))
	o.claim(other, addr)
	if o.claim(living, addr) {
		t.Error("who is gone takes it back")
	}
	o.remove(other)
	if heard(check("other")) != nil || !o.claim(living, addr) {
		t.Error("it is still another's who has left")
	}
}

func FuzzCheckNamesItsViewer(f *testing.F) {
	f.Add(make([]byte, 28))
	f.Add([]byte{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1, 'a', 0, 0, 0})
	f.Add([]byte{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 'a', 0, 0, 0})
	var o owners
	o.add("a", &link{})
	f.Fuzz(func(_ *testing.T, b []byte) { o.named(b) })
}
