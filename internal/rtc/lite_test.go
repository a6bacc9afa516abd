package rtc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// overLite makes engines serve lite connections.
var overLite bool

// What holds for viewers holds for those on a lite connection.
func TestLite(t *testing.T) {
	overLite = true
	defer func() { overLite = false }()
	for name, f := range map[string]func(*testing.T){
		"packets":         TestViewerGetsEachPacketInOrderFromAKeyframeOn,
		"before":          TestNothingIsReadBeforeTheConnection,
		"loss":            TestLostPacketsAreSentAgain,
		"keyframes":       TestPLIAndFIRReachTheSource,
		"sender reports":  TestSenderReportsMapAllTracksToOneClock,
		"stats":           TestReceiverReportsBecomeStats,
		"feedback":        TestTransportFeedbackOfAPeer,
		"any SSRC":        TestTransportFeedbackForAnySSRC,
		"batches":         TestMediaIsSentInBatches,
		"level":           TestNewLevelGoesOutWithTheNextOffer,
		"second offer":    TestSecondOfferNeedsAnAnswerToTheFirst,
		"bad answers":     TestBadAnswersLeaveTheOfferOpen,
		"candidates":      TestEarlyCandidatesAreKeptAndCounted,
		"deadline":        TestNegotiationHasADeadline,
		"leaving":         TestPeerThatLeavesEndsTheViewer,
		"certificate":     TestPeerWithAnotherCertificateIsNotConnected,
		"gone":            TestViewerThatIsGoneDoesNotStopOthers,
		"IPv6":            TestIPv6AloneConnects,
		"many":            TestHundredViewersComeAndGo,
		"answer":          TestOfferOfAPeerIsAnsweredWithItsOwnPayloadTypes,
		"refused section": TestSectionsThatNothingIsSentOnAreRefused,
		"bad offers":      TestOffersThatCannotBeAnsweredAreTold,
	} {
		t.Run(name, f)
	}
}

// nat is between a peer and the gateway: what the peer sends comes from a port of
// the NAT's, which may change.
type nat struct {
	in      *net.UDPConn // the peer's side
	gateway netip.AddrPort

	mu   sync.Mutex // guards what follows
	out  *net.UDPConn
	peer netip.AddrPort
	drop func(b []byte, toPeer bool) bool // nil: nothing
	done sync.WaitGroup
}

func newNAT(t testing.TB, e *Engine) *nat {
	t.Helper()
	n := &nat{gateway: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(e.Port())), in: loopback(t)}
	n.rebind(t)
	n.done.Go(func() {
		b := make([]byte, 2048)
		for {
			size, from, err := n.in.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.peer = from
			if n.drop == nil || !n.drop(b[:size], false) {
				_, _ = n.out.WriteToUDPAddrPort(b[:size], n.gateway)
			}
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		n.in.Close()
		n.out.Close()
		n.done.Wait()
	})
	return n
}

func loopback(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rebind gives the peer another port.
func (n *nat) rebind(t testing.TB) {
	out := loopback(t)
	n.mu.Lock()
	old := n.out
	n.out = out
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	n.done.Go(func() {
		b := make([]byte, 2048)
		for {
			size, _, err := out.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			if n.drop == nil || !n.drop(b[:size], true) {
				_, _ = n.in.WriteToUDPAddrPort(b[:size], n.peer)
			}
			n.mu.Unlock()
		}
	})
}

func (n *nat) filter(drop func(b []byte, toPeer bool) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop = drop
}

func (n *nat) sendAs(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = n.out.WriteToUDPAddrPort(b, n.gateway)
}

// through is a description in which the gateway is at the NAT's inner address.
func (n *nat) through(text string) string {
	var lines []string
	first := true
	for _, line := range strings.Split(text, "\r\n") {
		if strings.HasPrefix(line, "a=candidate:") {
			if !first {
				continue
			}
			first = false
			line = fmt.Sprintf("a=candidate:1 1 udp 2130706431 127.0.0.1 %d typ host", n.in.LocalAddr().(*net.UDPAddr).Port)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\r\n")
}

// quick makes a peer check its connection often, and repeat soon what was lost.
func quick(s *webrtc.SettingEngine) {
	s.SetICETimeouts(10*time.Second, 20*time.Second, 100*time.Millisecond)
	s.SetDTLSRetransmissionInterval(50 * time.Millisecond)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
}

func behindNAT(t *testing.T, e *Engine, settings func(*webrtc.SettingEngine), tracks ...any) (*session, *nat) {
	t.Helper()
	s, n := newSession(t, e, peerOptions{settings: settings}, tracks...), newNAT(t, e)
	s.exchange(t, n, false)
	return s, n
}

func (s *session) exchange(t *testing.T, n *nat, restart bool) {
	t.Helper()
	offer, err := s.Offer(context.Background(), restart)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAnswer(context.Background(), s.peer.answer(t, n.through(offer))); err != nil {
		t.Fatal(err)
	}
}

func liteEngine(t *testing.T) *Engine { return newEngine(t, Options{ICE: config.ICE{Lite: true}}) }

func TestLitePeerMayBeDTLSServer(t *testing.T) {
	src := newSource()
	src.push(true, 1)
	s := newSession(t, liteEngine(t), peerOptions{settings: func(s *webrtc.SettingEngine) {
		if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
			t.Fatal(err)
		}
	}}, videoTrack, src)
	s.connect(t)
	s.peer.next(t)
	if err := s.peer.pc.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, s.Done(), "the end")
	if !errors.Is(s.Err(), ErrLeft) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestLitePeersCannotBothBe(t *testing.T) {
	ctx := context.Background()
	s := newSession(t, liteEngine(t), peerOptions{}, videoTrack, newSource())
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	answer := strings.Replace(s.peer.answer(t, offer), "t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n", 1)
	if err := s.SetAnswer(ctx, answer); !errors.Is(err, ErrNeedsFullICE) {
		t.Errorf("answer of a lite peer: %v", err)
	}
	receive(t, s.Done(), "the end")
}

func TestLiteCloseTellsThePeer(t *testing.T) {
	src := newSource()
	src.push(true, 1)
	s := newSession(t, liteEngine(t), peerOptions{}, videoTrack, src)
	closed := make(chan struct{})
	s.peer.pc.OnConnectionStateChange(func(st webrtc.PeerConnectionState) {
		if st == webrtc.PeerConnectionStateClosed {
			close(closed)
		}
	})
	s.connect(t)
	s.peer.next(t)
	s.Close()
	receive(t, closed, "close_notify at the peer")
}

func TestLiteLastFlightIsSentAgainWhenItIsLost(t *testing.T) {
	e := liteEngine(t)
	src := newSource()
	src.push(true, 1)
	s, n := newSession(t, e, peerOptions{settings: quick}, videoTrack, src), newNAT(t, e)
	lost := 0
	n.filter(func(b []byte, toPeer bool) bool {
		if toPeer && b[0] == recordChangeCipher && lost < 3 {
			lost++
			return true
		}
		return false
	})
	s.exchange(t, n, false)
	s.await(t, StateConnected) // though the peer isn't
	src.run(t, 20, 1)
	s.peer.next(t)
	n.mu.Lock()
	defer n.mu.Unlock()
	if lost != 3 {
		t.Errorf("%d of the gateway's last flights were lost", lost)
	}
}

func TestLiteFollowsAPeerWhosePortChanges(t *testing.T) {
	src := newSource()
	s, n := behindNAT(t, liteEngine(t), quick, videoTrack, src)
	src.run(t, 60, 2)
	s.peer.next(t)
	for range 3 {
		n.rebind(t)
		for len(s.peer.packets) > 0 {
			<-s.peer.packets
		}
		for range 20 {
			s.peer.next(t)
		}
	}
	if err := s.Err(); err != nil {
		t.Errorf("viewer ended: %v", err)
	}
}

func TestLitePeerThatVanishesIsNoticed(t *testing.T) {
	e := liteEngine(t)
	e.sockets.peers.disconnected, e.sockets.peers.failed = time.Second, 4*time.Second
	src := newSource()
	s, n := behindNAT(t, e, quick, videoTrack, src)
	src.run(t, 20, 1)
	s.peer.next(t)
	n.filter(func([]byte, bool) bool { return true })
	s.await(t, StateDisconnected)
	n.filter(nil)
	s.await(t, StateConnected)
	n.filter(func([]byte, bool) bool { return true })
	s.await(t, StateDisconnected)
	receive(t, s.Done(), "the end")
	if !errors.Is(s.Err(), ErrConnectionLost) {
		t.Errorf("ended by %v", s.Err())
	}
}

// Media goes on while ICE restarts, and the handshake isn't repeated.
func TestLiteICERestartHasNoGap(t *testing.T) {
	src := newSource()
	s, n := behindNAT(t, liteEngine(t), quick, videoTrack, src)
	src.run(t, 60, 2)
	first := s.peer.next(t)
	l := s.conn.(*lite)
	for range 3 {
		before := l.own
		s.exchange(t, n, true)
		if l.own == before {
			t.Error("the credentials are the same")
		}
		for deadline := time.Now().Add(15 * time.Second); ; {
			l.mu.Lock()
			used := l.old == credentials{}
			l.mu.Unlock()
			if used {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the new credentials are not used")
			}
			s.peer.next(t)
		}
	}
	seen := map[uint16]bool{}
	for range 100 {
		seen[s.peer.next(t).SequenceNumber-first.SequenceNumber] = true
	}
	if st := s.Stats(); st.Unsent != 0 || st.Loss > 0 || st.State != StateConnected {
		t.Errorf("%+v", st)
	}
	l.peers.mu.RLock()
	defer l.peers.mu.RUnlock()
	if n := len(l.peers.byUfrag); n != 1 || int(l.peers.count.Load()) != n {
		t.Errorf("%d ufrags are known, counted %d", n, l.peers.count.Load())
	}
}

func TestLiteWHEPPeerRestartsICE(t *testing.T) {
	ctx := context.Background()
	src := newSource()
	v := newWHEP(t, liteEngine(t), videoTrack, src)
	p := newPeer(t, peerOptions{settings: quick})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	accept := func(offer string) {
		t.Helper()
		answer, err := v.Answer(ctx, offer)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
			t.Fatal(err)
		}
	}
	accept(whepOffer(t, p))
	src.run(t, 60, 2)
	p.next(t)
	o, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	accept(p.pc.LocalDescription().SDP)
	for len(p.packets) > 0 {
		<-p.packets
	}
	for range 100 {
		p.next(t)
	}
	if s := v.Stats(); s.Unsent != 0 || s.State != StateConnected {
		t.Errorf("%+v", s)
	}
}

// The address that a viewer is served from goes away, and comes back as another.
func TestLiteSurvivesTheLossOfItsAddress(t *testing.T) {
	e := liteEngine(t)
	if err := e.sockets.addresses(t, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	src := newSource()
	s := newSession(t, e, peerOptions{settings: quick}, videoTrack, src)
	s.connect(t)
	src.run(t, 20, 4)
	s.peer.next(t)
	if err := e.sockets.addresses(t, netip.MustParseAddr("127.0.0.2")); err != nil {
		t.Skip("127.0.0.2 can't be used: " + err.Error())
	}
	for deadline := time.Now().Add(15 * time.Second); s.Stats().Unsent < 10; {
		if time.Now().After(deadline) {
			t.Fatalf("packets are still sent: %+v", s.Stats())
		}
		time.Sleep(10 * time.Millisecond)
	}
	for len(s.peer.packets) > 0 {
		<-s.peer.packets
	}
	s.negotiate(t, true)
	for range 100 {
		s.peer.next(t)
	}
}

// Who listens on the way repeats what it has heard from an address of its own: no
// media must go there.
func TestLiteMediaIsNotSteeredByStrangers(t *testing.T) {
	src := newSource()
	s, n := behindNAT(t, liteEngine(t), quick, videoTrack, src)
	var mu sync.Mutex
	var heard [][]byte
	n.filter(func(b []byte, toPeer bool) bool {
		if !toPeer {
			mu.Lock()
			heard = append(heard, append([]byte(nil), b...))
			mu.Unlock()
		}
		return false
	})
	src.run(t, 60, 2)
	s.peer.next(t)
	stranger := loopback(t)
	defer stranger.Close()
	stray := make(chan struct{}, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 2048)
		for {
			size, _, err := stranger.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if size > 0 && b[0]>>6 == 2 {
				select {
				case stray <- struct{}{}:
				default:
				}
			}
		}
	})
	alert := []byte{recordAlert, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 32}
	alert = append(alert, make([]byte, 32)...)
	for range 100 {
		s.peer.next(t)
		mu.Lock()
		repeated := heard
		mu.Unlock()
		for _, b := range repeated[max(0, len(repeated)-20):] {
			_, _ = stranger.WriteToUDPAddrPort(b, n.gateway)
		}
		n.sendAs(alert) // with the peer's own address forged, too
		n.sendAs([]byte{recordHandshake, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0})
		n.sendAs([]byte{0x81, 201, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x80, 0, 0, 1})
	}
	stranger.Close()
	reading.Wait()
	for range 30 { // for a while nobody forges alerts
		s.peer.next(t)
	}
	select {
	case <-stray:
		t.Error("media went to a stranger")
	default:
	}
	if err := s.Err(); err != nil || s.Stats().State != StateConnected {
		t.Errorf("viewer is %v: %v", s.Stats().State, err)
	}
	s.peer.pc.Close() // is still heard
	receive(t, s.Done(), "the end")
	if !errors.Is(s.Err(), ErrLeft) {
		t.Errorf("ended by %v", s.Err())
	}
}

// checker makes the checks of a peer by hand.
type checker struct {
	t    *testing.T
	v    *Viewer
	l    *lite
	sock *socket
}

func newChecker(t *testing.T) *checker {
	v := newWHEP(t, liteEngine(t), videoTrack, newSource())
	e := v.engine
	return &checker{t, v, v.conn.(*lite), e.sockets.muxes[netip.MustParseAddr("127.0.0.1")].socket}
}

func (c *checker) check(password string, with ...stun.Setter) []byte {
	c.t.Helper()
	setters := append([]stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(c.l.own.ufrag + ":peer")}, with...)
	m, err := stun.Build(append(setters, stun.NewShortTermIntegrity(password), stun.Fingerprint)...)
	if err != nil {
		c.t.Fatal(err)
	}
	return m.Raw
}

type attr struct {
	kind  stun.AttrType
	value []byte
}

func (a attr) AddTo(m *stun.Message) error { m.Add(a.kind, a.value); return nil }

func TestLiteChecksAreAnsweredToWhoKnowsThePassword(t *testing.T) {
	c := newChecker(t)
	conn := loopback(t)
	defer conn.Close()
	gateway := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(c.v.engine.Port()))
	send := func(b []byte) {
		t.Helper()
		if _, err := conn.WriteToUDPAddrPort(b, gateway); err != nil {
			t.Fatal(err)
		}
	}
	good := c.check(c.l.own.pwd)
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)-1]++ // the fingerprint
	bare, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(c.l.own.ufrag+":peer"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	send(c.check("wrong"))
	send(damaged)
	send(bare.Raw)
	send(good[:len(good)-9])
	send(c.check(c.l.own.pwd, attr{stun.AttrICEControlled, make([]byte, 8)}))
	send(good)
	b := make([]byte, 2048)
	var got []stun.MessageType
	for len(got) < 2 {
		_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%v after %v", err, got)
		}
		m := &stun.Message{Raw: b[:n]}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(stun.NewShortTermIntegrity(c.l.own.pwd), stun.Fingerprint); err != nil {
			t.Error(err)
		}
		got = append(got, m.Type)
		var code stun.ErrorCodeAttribute
		var mapped stun.XORMappedAddress
		if m.Type == stun.BindingError {
			if err := code.GetFrom(m); err != nil || code.Code != stun.CodeRoleConflict {
				t.Errorf("error %v, %v", code, err)
			}
		} else if err := mapped.GetFrom(m); err != nil || mapped.Port != conn.LocalAddr().(*net.UDPAddr).Port {
			t.Errorf("mapped address %v, %v", mapped, err)
		}
	}
	if got[0] != stun.BindingError || got[1] != stun.BindingSuccess {
		t.Errorf("answers %v", got)
	}
}

func TestLitePathIsWhereThePeerNominates(t *testing.T) {
	c := newChecker(t)
	at := func(port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	}
	now := time.Hour
	for i, step := range []struct {
		after     time.Duration
		port      int
		nominated bool
		priority  uint32
		want      int
	}{
		{0, 1, false, 5, 1},                       // the first that speaks
		{10 * time.Millisecond, 2, false, 9, 1},   // speaks only
		{10 * time.Millisecond, 2, true, 5, 2},    // is nominated
		{10 * time.Millisecond, 1, true, 5, 2},    // aggressive nomination: no better
		{10 * time.Millisecond, 3, true, 6, 3},    // better
		{10 * time.Millisecond, 2, true, 5, 3},    // worse
		{time.Second, 3, false, 6, 3},             // speaks on, but isn't nominated any more
		{500 * time.Millisecond, 2, true, 5, 2},   // so the other is meant
		{1300 * time.Millisecond, 4, false, 1, 4}, // silence: its port has changed
	} {
		now += step.after
		id := stun.NewTransactionID()
		if !c.l.checked(c.sock, at(step.port), id, step.priority, step.nominated, c.l.own, now) {
			t.Errorf("step %d: not answered", i)
		}
		if c.l.checked(c.sock, at(99), id, 1000, true, c.l.own, now) {
			t.Errorf("step %d: repeated by a stranger, and answered", i)
		}
		if got := c.l.path.Load().to; got != at(step.want) {
			t.Errorf("step %d: packets go to %v, want %v", i, got, at(step.want))
		}
	}
	for port := range 100 { // are bounded
		c.l.checked(c.sock, at(1000+port), stun.NewTransactionID(), 1, false, c.l.own, now)
	}
	c.l.peers.mu.RLock()
	defer c.l.peers.mu.RUnlock()
	if n := len(c.l.peers.byAddr); n != maxPaths || c.l.path.Load().to != at(4) {
		t.Errorf("%d addresses are known; packets go to %v", n, c.l.path.Load().to)
	}
}

func FuzzPeers(f *testing.F) {
	e, err := New(Options{ICE: config.ICE{Lite: true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	v, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		f.Fatal(err)
	}
	l := v.conn.(*lite)
	s := e.sockets.muxes[netip.MustParseAddr("127.0.0.1")].socket
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("ufrag:peer"), attr{stun.AttrPriority, []byte{1, 2, 3, 4}},
		stun.NewShortTermIntegrity("password"), stun.Fingerprint)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.Raw)
	f.Add([]byte{recordHandshake, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Add([]byte{0x81, 201, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x80, 0, 0, 1})
	p := newPeers()
	f.Cleanup(p.close)
	l.peers = p
	l.own = credentials{"ufrag", "password"}
	p.byUfrag["ufrag"] = l
	p.count.Add(1)
	from := netip.MustParseAddrPort("127.0.0.1:9")
	l.mu.Lock()
	l.newPath(s, from)
	l.mu.Unlock()
	own := &socket{UDPConn: s.UDPConn, senders: s.senders, metrics: s.metrics} // its scratch is the fuzzer's
	f.Fuzz(func(t *testing.T, b []byte) {
		p.take(own, from, append([]byte(nil), b...))
		holds(b, recordAlert)
	})
}

// TestPeerProcess isn't a test: it is the peers of TestLiteViewerCosts.
func TestPeerProcess(t *testing.T) {
	if os.Getenv("RTC_TEST_PEERS") == "" {
		t.Skip("only run by TestLiteViewerCosts")
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var offer string
		if err := json.Unmarshal(in.Bytes(), &offer); err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, peerOptions{settings: func(s *webrtc.SettingEngine) {
			s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
		}})
		answer, _ := json.Marshal(p.answer(t, offer))
		fmt.Printf("answer %s\n", answer)
	}
}

// peers is another process with real peers in it.
func peerProcess(t testing.TB) func(offer string) (answer string) {
	c := exec.Command(os.Args[0], "-test.run=^TestPeerProcess$", "-test.v")
	c.Env = append(os.Environ(), "RTC_TEST_PEERS=1")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	return func(offer string) string {
		b, _ := json.Marshal(offer)
		if _, err := in.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "answer "); ok {
				var answer string
				if err := json.Unmarshal([]byte(text), &answer); err != nil {
					t.Fatal(err)
				}
				return answer
			}
		}
		t.Fatal("the peers' process has ended")
		return ""
	}
}

func footprint() (bytes uint64, goroutines int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// What a connected viewer costs: memory, and no goroutine.
func TestLiteViewerCosts(t *testing.T) {
	const n = 50
	for _, lite := range []bool{true, false} {
		name := "full"
		if lite {
			name = "lite"
		}
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{ICE: config.ICE{Lite: lite}})
			answer := peerProcess(t)
			src := newSource()
			src.push(true, 3)
			var viewers []*Viewer
			connect := func() {
				states := make(chan State, 100)
				v, err := e.NewViewer(ViewerOptions{OnState: func(s State) { states <- s }})
				if err != nil {
					t.Fatal(err)
				}
				own := newSource()
				if err := v.AddTrack("video", videoTrack, "desk", own); err != nil {
					t.Fatal(err)
				}
				offer, err := v.Offer(context.Background(), false)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.SetAnswer(context.Background(), answer(offer)); err != nil {
					t.Fatal(err)
				}
				for receive(t, states, "the connection") != StateConnected {
				}
				viewers = append(viewers, v)
			}
			connect() // what the first makes stays
			bytes, goroutines := footprint()
			for range n {
				connect()
			}
			settled := func() int { _, g := footprint(); return g - goroutines }
			for deadline := time.Now().Add(10 * time.Second); lite && settled() > 0; {
				if time.Now().After(deadline) {
					t.Errorf("%d viewers have %d goroutines", n, settled())
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			after, g := footprint()
			each := (int64(after) - int64(bytes)) / n
			t.Logf("%s: %d bytes and %.1f goroutines a viewer", name, each, float64(g-goroutines)/n)
			if lite && each > 64<<10 {
				t.Errorf("a viewer takes %d bytes", each)
			}
			for _, v := range viewers {
				v.Close()
			}
		})
	}
}
