package rtc

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// pion aborts a candidate's writes by a write deadline on the mux's socket, which
// all viewers share: whoever left took packets of others with it, now and then a
// viewer's first ones, which no later packet would tell it to ask for.
func TestViewerThatClosesTakesNoPacketsOfOthers(t *testing.T) {
	ctx := context.Background()
	e := newEngine(t, Options{})
	src := newSource()
	stays := newSession(t, e, peerOptions{}, videoTrack, src)
	stays.connect(t)
	src.run(t, 200, 60)
	stays.peer.next(t)
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	offer := whepOffer(t, p)
	for range 300 {
		v, err := e.NewViewer(ViewerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.AddTrack("video", videoTrack, "desk", newSource()); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Answer(ctx, offer); err != nil {
			t.Fatal(err)
		}
		v.Close()
	}
	if s := stays.Stats(); s.Unsent != 0 || s.Packets < 1000 {
		t.Errorf("%d of %d packets were not sent", s.Unsent, s.Packets)
	}
}

// addresses has the engine believe that the machine has these, and looks anew.
func (s *sockets) addresses(t *testing.T, addrs ...netip.Addr) error {
	t.Helper()
	s.mu.Lock()
	s.addrs = func() ([]netip.Addr, error) { return addrs, nil }
	s.checked = time.Time{}
	s.mu.Unlock()
	return s.refresh()
}

// A laptop changes its Wi-Fi: the address that a viewer is served from goes away
// with its socket. The viewer was ended by the 100th packet that found it closed.
func TestViewerSurvivesTheLossOfItsAddress(t *testing.T) {
	e := newEngine(t, Options{})
	one, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	if err := e.sockets.addresses(t, one); err != nil {
		t.Fatal(err)
	}
	src := newSource()
	s := newSession(t, e, peerOptions{}, videoTrack, src)
	s.connect(t)
	src.run(t, 20, maxWriteErrors+20)
	s.peer.next(t)
	if err := e.sockets.addresses(t, other); err != nil {
		t.Skip("127.0.0.2 can't be used: " + err.Error())
	}
	for deadline := time.Now().Add(15 * time.Second); s.Stats().Unsent < 3*maxWriteErrors; {
		select {
		case <-s.Done():
			t.Fatalf("ended by %v", s.Err())
		case <-s.peer.packets:
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("packets are still sent: %+v", s.Stats())
		}
	}
	s.negotiate(t, true)
	s.await(t, StateConnected)
	for len(s.peer.packets) > 0 {
		<-s.peer.packets
	}
	for range 100 {
		s.peer.next(t)
	}
	if n := value(t, e.metrics.unsent); n < 3*maxWriteErrors {
		t.Errorf("%v packets are counted as unsent", n)
	}
}

func TestPeersElsewhereAreToldOfNoLoopback(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	others, err := localAddrs(false, nil)
	if err != nil || len(others) == 0 {
		t.Skipf("skipped: no network is up (%v)", err)
	}
	e := newEngine(t, Options{})
	addresses := func(elsewhere bool) (out []netip.Addr) {
		for _, a := range e.sockets.advertised(elsewhere) {
			out = append(out, a.Addr())
		}
		return out
	}
	if err := e.sockets.addresses(t, append(others, loopback)...); err != nil {
		t.Fatal(err)
	}
	if got := addresses(true); len(got) == 0 || slices.Contains(got, loopback) {
		t.Errorf("a peer elsewhere is told of %v", got)
	}
	if got := addresses(false); !slices.Contains(got, loopback) {
		t.Errorf("a peer on this machine is told of %v", got)
	}
	if err := e.sockets.addresses(t, loopback); err != nil {
		t.Fatal(err)
	}
	if got := addresses(true); !slices.Contains(got, loopback) {
		t.Errorf("where there is nothing else a peer elsewhere is told of %v", got)
	}
}

func TestTakenPortOfOneAddressDoesNotKeepOthersUnserved(t *testing.T) {
	e := newEngine(t, Options{})
	taken, free := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(taken, uint16(e.Port()))))
	if err != nil {
		t.Skip("127.0.0.2 can't be used: " + err.Error())
	}
	defer c.Close()
	err = e.sockets.addresses(t, taken, free)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.String()) {
		t.Errorf("the taken port is told as %v", err)
	}
	served := e.sockets.GetListenAddresses()
	if len(served) != 1 || !strings.HasPrefix(served[0].String(), free.String()) {
		t.Errorf("served: %v, want %v", served, free)
	}
}

func TestPrivateAddressesAreTold(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "192.168.0.9": true, "172.31.0.1": true, "169.254.3.4": true, "100.64.7.7": true, "fd12::1": true,
		"203.0.113.7": false, "172.32.0.1": false, "2001:db8::7": false, "100.128.0.1": false,
	} {
		s := sockets{muxes: map[netip.Addr]*mux{netip.MustParseAddr(addr): nil, netip.MustParseAddr("127.0.0.1"): nil}}
		if got := s.private(); got != want {
			t.Errorf("%s: private is %v", addr, got)
		}
	}
}

func TestReportsOfAPeerAreBounded(t *testing.T) {
	report, media := []byte{0x81, 201, 0, 1, 0, 0, 0, 1}, make([]byte, 12)
	media[0], media[1] = 0x80, 96
	if !isRTCP(report) || isRTCP(media) || isRTCP(report[:4]) || isRTCP(make([]byte, 20)) {
		t.Error("RTCP isn't told from the rest")
	}
	feedback := []byte{0x8f, 205, 0, 1, 0, 0, 0, 1}
	var r reportLimit
	for _, second := range []time.Duration{time.Second, 2 * time.Second} {
		for _, of := range []struct {
			packet []byte
			most   int
		}{{report, maxReports}, {feedback, maxFeedbacks}} {
			taken := 0
			for range 3 * maxReports {
				if r.may(of.packet, second) {
					taken++
				}
			}
			if taken != of.most {
				t.Errorf("%d of %d were taken in a second, want %d", taken, 3*maxReports, of.most)
			}
		}
	}
}
