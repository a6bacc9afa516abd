package rtc

import (
	"crypto/rand"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"

	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	// pathSilence is how long a path may be silent before another that speaks takes
	// its place. Firefox doesn't nominate again when a NAT has given it another port
	// (2026-11).
	pathSilence = 1200 * time.Millisecond
	maxPaths    = 8  // of a viewer
	keptChecks  = 64 // that are known again

	agePeriod      = 500 * time.Millisecond
	unreachedAfter = 3 * time.Second  // of a description, for the first check; Firefox gives up after 5 s
	shakenWithin   = 10 * time.Second // of the first check: pion repeats a flight after 0.25, 0.75, 1.75, 3.75 and 7.75 s
)

// peers finds the lite viewer that a packet comes from: by the ufrag that a check
// names, and by the address that has made a check.
type peers struct {
	disconnected, failed time.Duration // after so long a silence
	shaking              time.Duration // that a DTLS handshake may take

	stop, done chan struct{}
	once       sync.Once
	count      atomic.Int32 // of ufrags: without any there is nothing to look for

	mu      sync.RWMutex // guards what follows
	byUfrag map[string]*lite
	byAddr  map[source]*lite
}

// source is the far end of a path.
type source struct {
	socket *socket
	addr   netip.AddrPort
}

// newPeers starts the goroutine that looks for peers that have gone, one for all.
func newPeers() *peers {
	p := &peers{
		disconnected: iceDisconnected, failed: iceDisconnected + iceFailed, shaking: shakenWithin,
		stop: make(chan struct{}), done: make(chan struct{}),
		byUfrag: map[string]*lite{}, byAddr: map[source]*lite{},
	}
	go p.watch()
	return p
}

func (p *peers) close() {
	p.once.Do(func() { close(p.stop) })
	<-p.done
}

func (p *peers) watch() {
	defer close(p.done)
	tick := time.NewTicker(agePeriod)
	defer tick.Stop()
	var all []*lite
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.RLock()
		all = all[:0]
		for _, l := range p.byUfrag { // twice in a restart
			all = append(all, l)
		}
		p.mu.RUnlock()
		now := media.Now()
		for i, l := range all {
			all[i] = nil
			l.grow(now)
		}
	}
}

// add makes credentials by which a viewer is found: of 40 and 130 random bits
// (RFC 8445 §5.3 wants 24 and 128).
func (p *peers) add(l *lite) credentials {
	c := credentials{rand.Text()[:8], rand.Text()}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.byUfrag[c.ufrag] != nil {
		c.ufrag = rand.Text()[:8]
	}
	p.byUfrag[c.ufrag] = l
	p.count.Add(1)
	return c
}

func (p *peers) forget(c credentials) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byUfrag[c.ufrag] != nil {
		delete(p.byUfrag, c.ufrag)
		p.count.Add(-1)
	}
}

// expel has a viewer hear nothing any more.
func (p *peers) expel(l *lite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ufrag, other := range p.byUfrag {
		if other == l {
			delete(p.byUfrag, ufrag)
			p.count.Add(-1)
		}
	}
	maps.DeleteFunc(p.byAddr, func(_ source, other *lite) bool { return other == l })
}

func (p *peers) route(at *path, l *lite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byAddr[at.source()] = l
}

func (p *peers) unroute(at *path, l *lite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byAddr[at.source()] == l {
		delete(p.byAddr, at.source())
	}
}

// take handles a packet that is a lite viewer's, and tells whether it was. It is
// called on the goroutine that reads the socket. b may be written to.
func (p *peers) take(s *socket, from netip.AddrPort, b []byte) bool {
	if p.count.Load() == 0 || len(b) == 0 {
		return false
	}
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if b[0] < 4 && stun.IsMessage(b) { // RFC 7983 §7
		return p.takeSTUN(s, from, b)
	}
	p.mu.RLock()
	l := p.byAddr[source{s, from}]
	p.mu.RUnlock()
	if l == nil {
		return false
	}
	defer contain.Panic(l.viewer.log, "viewer", l.broke)
	switch {
	case b[0] >= 20 && b[0] < 64:
		l.receiveDTLS(b)
	case b[0]>>6 == 2 && !isRTP(b):
		l.receiveRTCP(s, from, b)
	}
	return true
}

// takeSTUN is take for what looks like STUN: checks of lite viewers' peers. They
// are known by their ufrag wherever they come from, for an address may have been
// another viewer's before.
func (p *peers) takeSTUN(s *socket, from netip.AddrPort, b []byte) bool {
	m := &s.check
	m.Raw = b
	defer func() { m.Raw = nil }()
	if m.Decode() != nil || m.Type != stun.BindingRequest {
		return false
	}
	name, err := m.Get(stun.AttrUsername)
	if err != nil {
		return false
	}
	ufrag := name
	for i, c := range name {
		if c == ':' {
			ufrag = name[:i]
			break
		}
	}
	p.mu.RLock()
	l := p.byUfrag[string(ufrag)]
	p.mu.RUnlock()
	if l == nil {
		return false
	}
	defer contain.Panic(l.viewer.log, "viewer", l.broke)
	l.check(s, from, m, string(ufrag))
	return true
}

// path is a way to a peer that has made a check on it.
type path struct {
	link link
	to   netip.AddrPort

	// guarded by lite.mu
	priority  uint32        // that the peer gives it
	heard     time.Duration // when something came that only the peer can make
	fed       time.Duration // when RTCP came, which nobody can repeat
	nominated time.Duration
}

func (p *path) source() source { return source{p.link.sender.socket, p.to} }

// agent is the state of ICE, guarded by lite.mu.
type agent struct {
	paths  []*path
	heard  time.Duration // any of them
	checks [keptChecks]known
	next   int // of checks, to be overwritten
}

// known is a check that was answered, and where it came from.
type known struct {
	id   [stun.TransactionIDSize]byte
	path *path
}

// check answers a binding request (RFC 8445 §7.3) if the peer has made it. What it
// has not made is dropped: an error response would tell a stranger something.
func (l *lite) check(s *socket, from netip.AddrPort, m *stun.Message, ufrag string) {
	l.mu.Lock()
	c := l.own
	if ufrag == l.old.ufrag {
		c = l.old
	}
	closed := l.closed
	l.mu.Unlock()
	key := stun.MessageIntegrity(c.pwd)
	if closed || c.ufrag != ufrag || stun.Fingerprint.Check(m) != nil || key.Check(m) != nil {
		return
	}
	reply := &s.reply
	id := stun.NewTransactionIDSetter(m.TransactionID)
	if m.Contains(stun.AttrICEControlled) { // a lite agent never controls (RFC 8445 §7.3.1.1)
		if reply.Build(id, stun.BindingError, stun.CodeRoleConflict, key, stun.Fingerprint) == nil {
			_, _ = s.WriteToAddrPort(reply.Raw, from)
		}
		return
	}
	var priority uint32
	if v, err := m.Get(stun.AttrPriority); err == nil && len(v) == 4 {
		priority = uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
	}
	if !l.checked(s, from, m.TransactionID, priority, m.Contains(stun.AttrUseCandidate), c, media.Now()) {
		return
	}
	mapped := &stun.XORMappedAddress{IP: net.IP(from.Addr().AsSlice()), Port: int(from.Port())}
	if reply.Build(id, stun.BindingSuccess, mapped, key, stun.Fingerprint) == nil {
		_, _ = s.WriteToAddrPort(reply.Raw, from) // lost, as on a network that loses packets
	}
	l.revive()
}

// checked notes a check that is the peer's and tells whether it is to be answered.
func (l *lite) checked(s *socket, from netip.AddrPort, id [stun.TransactionIDSize]byte, priority uint32, nominated bool, with credentials, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	p := l.pathOf(s, from)
	// Who listens on the way can send a check again, from elsewhere, and media
	// would follow: a full agent finds that out by a check of its own.
	for _, k := range l.checks {
		if k.path != nil && k.id == id && (p == nil || k.path != p) {
			return false
		}
	}
	if p == nil {
		p = l.newPath(s, from)
	}
	l.checks[l.next] = known{id, p}
	l.next = (l.next + 1) % keptChecks
	p.priority = priority
	if nominated {
		p.nominated = now
	}
	if l.prefers(p, nominated, now) {
		l.choose(p)
	}
	p.heard, l.agent.heard = now, now
	if l.old.ufrag != "" && with == l.own {
		l.peers.forget(l.old)
		l.old = credentials{}
	}
	l.begin()
	return true
}

// prefers tells whether packets are to go along a path on which a check came. The
// peer decides by nominating; one that nominates all that work, as RFC 5245 had it,
// means the one to which it gives the highest priority.
func (l *lite) prefers(p *path, nominated bool, now time.Duration) bool {
	switch c := l.path.Load(); {
	case c == nil:
		return true
	case c == p:
		return false
	case now-c.heard > pathSilence:
		return true
	case !nominated:
		return false
	default:
		return c.nominated == 0 || now-c.nominated > pathSilence || p.priority > c.priority
	}
}

// fed notes RTCP that came along a path. It can't be repeated, so it tells better
// than checks which way the peer uses.
func (l *lite) fed(s *socket, from netip.AddrPort, now time.Duration) {
	p := l.pathOf(s, from)
	if p == nil {
		return
	}
	if c := l.path.Load(); c != p && now-c.fed > pathSilence {
		l.choose(p)
	}
	p.heard, p.fed, l.agent.heard = now, now, now
}

func (l *lite) choose(p *path) {
	if c := l.path.Swap(p); c != nil {
		l.viewer.log.Debug("viewer is sent to another address", "from", c.to, "to", p.to)
	}
}

func (l *lite) pathOf(s *socket, addr netip.AddrPort) *path {
	for _, p := range l.paths {
		if p.source() == (source{s, addr}) {
			return p
		}
	}
	return nil
}

// newPath makes a path, in place of the one that was silent the longest if there
// are many.
func (l *lite) newPath(s *socket, addr netip.AddrPort) *path {
	p := &path{link: link{viewer: l.viewer, sender: s.senders[l.viewer.shard.index]}, to: addr}
	if len(l.paths) < maxPaths {
		l.paths = append(l.paths, p)
	} else {
		oldest := -1
		for i, o := range l.paths {
			if o != l.path.Load() && (oldest < 0 || o.heard < l.paths[oldest].heard) {
				oldest = i
			}
		}
		l.peers.unroute(l.paths[oldest], l)
		l.paths[oldest] = p
	}
	l.peers.route(p, l)
	return p
}

// advertised is the addresses of the gateway's host candidates, best first.
func (s *sockets) advertised(elsewhere bool) []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range s.public {
		if a, err := netip.ParseAddr(strings.TrimSpace(p)); err == nil {
			out = append(out, netip.AddrPortFrom(a, uint16(s.port)))
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, a := range s.reachable(elsewhere) {
		out = append(out, a.(*net.UDPAddr).AddrPort())
	}
	return out
}
