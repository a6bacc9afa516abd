package rtc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"gateway/internal/contain"
	"gateway/internal/media"
)

// sealBytes is what SRTP adds to a packet at most: AES-GCM's tag.
const sealBytes = 16

// lite is the connection of a viewer that can reach the gateway by itself, without a
// PeerConnection: ICE-lite (RFC 8445 §2.5) answers the peer's checks, pion/dtls
// makes the keys and is put away, pion/srtp seals into the shard's batch. While
// it is connected it has no goroutine: what comes from the peer is handled on the
// goroutine that reads the socket, which must neither wait nor hold mu while it
// calls out.
type lite struct {
	viewer      *Viewer
	peers       *peers
	certificate *certificate

	// guarded by the negotiation lock
	session uint64 // of the o= line (RFC 8866 §5.2)
	version int

	// guarded by Viewer.sendMu
	out    *srtp.Context // nil before the handshake
	header rtp.Header    // what SRTP reads from the packet again

	path    atomic.Pointer[path] // where packets go; nil before the first check
	phase   atomic.Uint32        // State
	pipe    *pipe                // to the DTLS handshake; nil after it, guarded by mu
	cancel  context.CancelFunc   // ends it
	running sync.WaitGroup       // goroutines for a moment: the handshake, an alert

	passing sync.Mutex // held to pass on RTCP, which may come by several sockets

	mu          sync.Mutex // guards what follows
	own, old    credentials
	fingerprint string   // of the peer's certificate; "" before its description
	client      bool     // of DTLS: the peer wants to be the server
	candidates  []string // the peer's, to name their types
	agent
	asked   time.Duration // when the peer's last description came
	shaken  bool          // the handshake has begun
	closed  bool
	in      *srtp.Context
	senders []uint32 // SSRCs that RTCP has come from
	reports reportLimit
	secret  *dtls.State
	flight  [][]byte      // the handshake's last datagrams, until the peer shows that it has them
	redone  time.Duration // when they were sent again, or an alert was looked at
}

// credentials are an ICE ufrag and password.
type credentials struct{ ufrag, pwd string }

func newLite(v *Viewer, p *peers, c *certificate) *lite {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lite{viewer: v, peers: p, certificate: c, cancel: cancel, session: uint64(v.epoch) >> 1}
	l.pipe = newPipe(ctx, l.write)
	own := p.add(l)
	l.mu.Lock()
	l.own = own
	l.mu.Unlock()
	return l
}

// join is the negotiator's.
func (l *lite) join(t *track) (ssrc, rtxSSRC uint32, err error) {
	l.viewer.sendMu.Lock()
	t.out = l
	l.viewer.sendMu.Unlock()
	ssrc = l.newSSRC()
	if t.kind == media.Video {
		for rtxSSRC = l.newSSRC(); rtxSSRC == ssrc; {
			rtxSSRC = l.newSSRC()
		}
	}
	return ssrc, rtxSSRC, nil
}

// newSSRC is one that the viewer doesn't use.
func (l *lite) newSSRC() uint32 {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		ssrc := binary.BigEndian.Uint32(b[:])
		if _, used := l.viewer.bySSRC.Load(ssrc); ssrc != 0 && !used {
			return ssrc
		}
	}
}

// offer is the negotiator's. A restart doesn't stop what is sent: the old way
// serves until the peer uses the new credentials.
func (l *lite) offer(restart bool) (string, error) {
	if restart {
		l.restart()
	}
	for i, t := range l.viewer.tracks {
		t.mid = strconv.Itoa(i)
	}
	if told := l.viewer.o.OnCandidate; told != nil && (restart || l.version == 0) {
		told(nil) // the offer has them all
	}
	return l.describe(l.viewer.tracks, "actpass"), nil
}

// restart makes new credentials. The old ones are good until the new are used.
func (l *lite) restart() {
	c := l.peers.add(l)
	l.mu.Lock()
	gone := l.old
	l.own, l.old = c, l.own
	l.mu.Unlock()
	l.peers.forget(gone)
}

// accept is the negotiator's.
func (l *lite) accept(r *remote) error {
	if r.lite {
		return fmt.Errorf("%w: it is ICE-lite itself", ErrNeedsFullICE)
	}
	l.mu.Lock()
	if l.fingerprint == "" { // DTLS isn't begun anew
		l.fingerprint, l.client = r.fingerprint, r.setup == "passive"
	}
	l.candidates, l.asked = slices.Clone(r.candidates), media.Now()
	l.mu.Unlock()
	if l.phase.CompareAndSwap(uint32(StateNew), uint32(StateConnecting)) {
		l.viewer.refresh() // before it may be connected: each state is told
	}
	l.mu.Lock()
	l.begin()
	l.mu.Unlock()
	return nil
}

// answer is the negotiator's.
func (l *lite) answer(_ context.Context, r *remote, sections []*section, restart bool) (string, error) {
	if restart {
		l.restart()
	}
	if err := l.accept(r); err != nil {
		return "", err
	}
	var tracks []*track
	for _, s := range sections {
		tracks = append(tracks, l.viewer.byMid(s.mid))
	}
	return l.describe(tracks, "passive"), nil
}

// restartable is the negotiator's.
func (l *lite) restartable() bool { return true }

// addCandidate is the negotiator's. The peer's checks make the way, its candidates
// only tell what kind it is.
func (l *lite) addCandidate(line string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.candidates) < maxCandidates {
		l.candidates = append(l.candidates, line)
	}
	return nil
}

// describe is a description of this side for dress, which puts the formats in.
func (l *lite) describe(tracks []*track, setup string) string {
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	l.version++
	var b strings.Builder
	line := func(text string, args ...any) { fmt.Fprintf(&b, text+"\r\n", args...) }
	var mids []string
	for _, t := range tracks {
		mids = append(mids, t.mid)
	}
	line("v=0")
	line("o=- %d %d IN IP4 0.0.0.0", l.session, l.version)
	line("s=-")
	line("t=0 0")
	line("a=msid-semantic:WMS *")
	line("a=fingerprint:%s", l.certificate.fingerprint)
	line("a=ice-lite")
	line("a=group:BUNDLE %s", strings.Join(mids, " "))
	line("a=ice-options:trickle")
	for i, t := range tracks {
		line("m=%s 9 UDP/TLS/RTP/SAVPF 0", t.kind)
		line("c=IN IP4 0.0.0.0")
		line("a=setup:%s", setup)
		line("a=mid:%s", t.mid)
		line("a=ice-ufrag:%s", own.ufrag)
		line("a=ice-pwd:%s", own.pwd)
		line("a=rtcp-mux")
		line("a=rtcp-rsize")
		id := t.msid.Load()
		if t.rtxSSRC != 0 {
			line("a=ssrc-group:FID %d %d", t.ssrc, t.rtxSSRC)
		}
		for _, ssrc := range []uint32{t.ssrc, t.rtxSSRC} {
			if ssrc != 0 {
				line("a=ssrc:%d cname:%s", ssrc, id.stream)
				line("a=ssrc:%d msid:%s %s", ssrc, id.stream, id.track)
			}
		}
		line("a=msid:%s %s", id.stream, id.track)
		line("a=sendonly")
		if i == 0 {
			for n, a := range l.viewer.engine.sockets.advertised(l.viewer.o.Elsewhere) {
				// host, and the first is preferred (RFC 8445 §5.1.2.1)
				line("a=candidate:%d 1 udp %d %s %d typ host", n+1, 126<<24|(65535-n)<<8|255, a.Addr(), a.Port())
			}
			line("a=end-of-candidates")
		}
	}
	return b.String()
}

// WriteRTP seals a packet into the shard's batch. It is called in the viewer's turn.
func (l *lite) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	p := l.path.Load()
	if p == nil || l.out == nil {
		return 0, nil
	}
	head, pad, out := h.MarshalSize(), int(h.PaddingSize), l.viewer.shard.out
	size := head + len(payload) + pad
	if size+sealBytes > maxMessage {
		return 0, fmt.Errorf("packet of %d bytes: %w", len(payload), syscall.EMSGSIZE)
	}
	plain := out.room(&p.link, p.to, size+sealBytes)[:size]
	if _, err := h.MarshalTo(plain); err != nil {
		return 0, err
	}
	copy(plain[head:], payload)
	if pad > 0 { // RFC 3550 §5.1
		clear(plain[size-pad:])
		plain[size-1] = byte(pad)
	}
	sealed, err := l.out.EncryptRTP(plain, plain, &l.header) // in place: there is room for the tag
	if err != nil {
		return 0, err
	}
	out.commit(len(sealed))
	return len(payload), nil
}

// Write is a TrackLocalWriter's: WriteRTP for a packet as it is on the wire.
func (l *lite) Write(b []byte) (int, error) {
	var p rtp.Packet
	if err := p.Unmarshal(b); err != nil {
		return 0, err
	}
	return l.WriteRTP(&p.Header, p.Payload)
}

func (l *lite) writeRTCP(packets []rtcp.Packet) error {
	if l.out == nil {
		return nil
	}
	b, err := rtcp.Marshal(packets)
	if err != nil {
		return err
	}
	if b, err = l.out.EncryptRTCP(nil, b, nil); err != nil {
		return err
	}
	return l.write(b)
}

// write sends a datagram to where the peer is.
func (l *lite) write(b []byte) error {
	p := l.path.Load()
	if p == nil {
		return nil
	}
	_, err := p.link.sender.socket.WriteToAddrPort(b, p.to)
	return err
}

// receiveRTCP opens what came along a path, on the goroutine that reads the
// socket, and passes it on packet by packet.
func (l *lite) receiveRTCP(s *socket, from netip.AddrPort, b []byte) {
	l.mu.Lock()
	if l.in == nil || l.closed || len(b) < 8 {
		l.mu.Unlock()
		return
	}
	b, err := l.in.DecryptRTCP(b, b, nil)
	if err != nil || len(b) < 8 || !l.reports.may(b, media.Now()) {
		l.mu.Unlock()
		return
	}
	// SRTP keeps something for each SSRC
	ssrc := binary.BigEndian.Uint32(b[4:])
	hostile := false
	if !slices.Contains(l.senders, ssrc) {
		hostile = len(l.senders) == maxForeign
		l.senders = append(l.senders, ssrc)
	}
	l.flight = nil // it has our keys
	l.fed(s, from, media.Now())
	l.mu.Unlock()
	if hostile {
		l.viewer.end(errForeign)
		return
	}
	l.revive()
	l.passing.Lock()
	defer l.passing.Unlock()
	for len(b) >= 4 {
		n := 4 + 4*int(binary.BigEndian.Uint16(b[2:]))
		if n < 8 || n > len(b) { // one without an SSRC says nothing
			return
		}
		l.viewer.receiveRTCP(b[:n])
		b = b[n:]
	}
}

// receiveRTCP takes an RTCP packet of the peer's for the tracks that it is about.
func (v *Viewer) receiveRTCP(b []byte) {
	if isTransportFeedback(b) {
		v.onTransportFeedback(b)
		return
	}
	if isCongestionFeedback(b) {
		v.onCongestionFeedback(b)
		return
	}
	v.bySSRC.Range(func(ssrc, t any) bool {
		if t := t.(*track); t.ssrc == ssrc { // not its RTX stream's
			t.receive(b)
		}
		return true
	})
}

func (l *lite) state() State { return State(l.phase.Load()) }

// enter goes to another state, but for the last ones, and tells the viewer.
func (l *lite) enter(s State) {
	for {
		was := l.state()
		if was == s || was == StateClosed || was == StateFailed && s != StateClosed {
			return
		}
		if l.phase.CompareAndSwap(uint32(was), uint32(s)) {
			go l.viewer.refresh()
			return
		}
	}
}

// revive tells that the peer was heard.
func (l *lite) revive() {
	if l.state() == StateDisconnected {
		l.enter(StateConnected)
	}
}

// grow is age, and a panic's border.
func (l *lite) grow(now time.Duration) {
	defer contain.Panic(l.viewer.log, "viewer", l.broke)
	l.age(now)
}

// broke ends the viewer after a panic. Nothing reaches it from then on: a lock that it
// left locked would stop the goroutine that reads the socket, which is everybody's.
func (l *lite) broke(err error) {
	l.peers.expel(l)
	l.viewer.broke(err)
}

// age ends a connection whose peer has not been heard for long (RFC 7675 §5.1), or
// not at all: it may be reached from here.
func (l *lite) age(now time.Duration) {
	l.mu.Lock()
	silent, waited := now-l.agent.heard, now-l.asked
	l.mu.Unlock()
	switch s := l.state(); {
	case s == StateConnecting && l.path.Load() == nil && waited > unreachedAfter:
		l.viewer.end(fmt.Errorf("%w: none of its checks has arrived within %v", ErrNeedsFullICE, unreachedAfter))
	case s != StateConnected && s != StateDisconnected:
	case silent > l.peers.failed:
		l.enter(StateFailed)
	case silent > l.peers.disconnected:
		l.enter(StateDisconnected)
	}
}

func (l *lite) pair() (local, remote string) {
	p := l.path.Load()
	if p == nil {
		return "", ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.candidates {
		c, err := ice.UnmarshalCandidate(strings.TrimPrefix(line, "candidate:"))
		if err != nil || c.Port() != int(p.to.Port()) {
			continue
		}
		if a, err := netip.ParseAddr(c.Address()); err == nil && a.Unmap() == p.to.Addr() {
			return ice.CandidateTypeHost.String(), c.Type().String()
		}
	}
	return ice.CandidateTypeHost.String(), ice.CandidateTypePeerReflexive.String()
}

// close is the connection's: it tells the peer (close_notify) if it can.
func (l *lite) close() error {
	l.mu.Lock()
	l.closed = true
	own, old := l.own, l.old
	left := l.state() == StateClosed
	l.mu.Unlock()
	l.peers.forget(own)
	l.peers.forget(old)
	l.cancel()
	l.running.Wait()

	l.mu.Lock()
	paths, secret := l.paths, l.secret
	l.paths = nil
	l.mu.Unlock()
	for _, p := range paths {
		l.peers.unroute(p, l)
	}
	l.phase.Store(uint32(StateClosed))
	if secret == nil || left {
		return nil
	}
	return l.bid(secret)
}
