package rtc

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// inClear is a DTLS record of epoch 0.
func inClear(kind byte, content ...byte) []byte {
	return append([]byte{kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, byte(len(content))}, content...)
}

// Whoever knows a viewer's address could end its connection by one datagram in
// its name: pion/dtls took alerts, and what it can't read, in the clear from a
// peer whose handshake was done. They come from the viewer's own socket here.
func TestDatagramsInTheClearDoNotEndAConnection(t *testing.T) {
	e := newEngine(t, Options{})
	if err := e.sockets.addresses(t, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	src := newSource()
	v := newWHEP(t, e, videoTrack, src)
	src.run(t, 30, 2)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn})
	defer mux.Close()
	p := newPeer(t, peerOptions{settings: func(s *webrtc.SettingEngine) { s.SetICEUDPMux(mux) }})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	p.accept(t, answer)
	for range 30 {
		p.next(t)
	}
	gateway := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: e.sockets.port}
	for _, b := range [][]byte{
		inClear(recordAlert, 1, 0), inClear(recordAlert, 2, 40), inClear(recordApplication, 1, 2, 3), inClear(recordChangeCipher, 9, 9),
		inClear(recordHandshake, 1), inClear(24, 1), inClear(63), {recordAlert}, append(inClear(recordChangeCipher, 1), 21, 0xfe),
	} {
		if _, err := conn.WriteTo(b, gateway); err != nil {
			t.Fatal(err)
		}
	}
	for range 90 {
		p.next(t)
	}
	if v.Err() != nil {
		t.Errorf("the connection has ended: %v", v.Err())
	}
}

func TestWhatAPeerSendsInTheClear(t *testing.T) {
	l := new(link)
	alert, hello := inClear(recordAlert, 1, 0), inClear(recordHandshake, 1, 2, 3)
	sealed := append([]byte{recordAlert, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2}, 7, 7)
	if l.forged(alert) || l.forged(hello) {
		t.Error("a handshake isn't let through")
	}
	l.seals()
	for name, b := range map[string][]byte{"alert": alert, "data": inClear(recordApplication, 1), "no record": {20, 1, 2}, "after a sealed one": append(sealed, alert...)} {
		if !l.forged(b) {
			t.Errorf("%s in the clear is let through", name)
		}
	}
	for name, b := range map[string][]byte{
		"a handshake that is repeated": append(hello, inClear(recordChangeCipher, 1)...), "sealed": sealed,
		"SRTP": {0x80, 96, 0, 1}, "STUN": {0, 1, 0, 0}, "nothing": {},
	} {
		if l.forged(b) {
			t.Errorf("%s isn't let through", name)
		}
	}
	l.sealed.Store(int64(media.Now() - 2*shakes - time.Second))
	if !l.forged(hello) {
		t.Error("long after the handshake a hello is let through")
	}
}
