package rtc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"

	"gateway/internal/media"
)

// sockets is the one UDP port on every local address: pion's UDPMux of an
// address each. A socket bound to an address answers from it, which one on the
// wildcard address doesn't promise. Addresses come and go (a camera box gets its
// lease after it has booted, a laptop changes its Wi-Fi), so they are looked up
// again when candidates are gathered.
type sockets struct {
	port    int
	public  []string // what the addresses are advertised as; empty: as they are
	shards  int
	log     *slog.Logger
	pion    logging.LeveledLogger
	metrics *metrics
	addrs   func() ([]netip.Addr, error) // those to serve, looked up now
	peers   *peers                       // of lite viewers

	mu      sync.Mutex // guards what follows
	muxes   map[netip.Addr]*mux
	checked time.Time
	closed  bool
}

// mux is pion's on one of the sockets.
type mux struct {
	*ice.UDPMuxDefault
	socket *socket
}

// openSockets opens the port; 0 takes one that is free on all addresses.
func openSockets(port, shards int, keep, public []string, log *slog.Logger, pion logging.LeveledLogger, m *metrics) (*sockets, error) {
	// With an advertised address a loopback candidate would be advertised too,
	// under that address, and neither connects.
	loopback := len(public) == 0
	var err error
	for try := 0; try < 10; try++ {
		s := &sockets{
			port: port, public: public, shards: shards, log: log, pion: pion, metrics: m, muxes: map[netip.Addr]*mux{}, peers: newPeers(),
			addrs: func() ([]netip.Addr, error) { return localAddrs(loopback, keep) },
		}
		if err = s.refresh(); err == nil {
			if len(s.muxes) == 0 {
				return nil, errors.New("UDP: no network interface has an address that may be used; check ice.interfaces")
			}
			return s, nil
		}
		s.Close()
		if port != 0 {
			break
		}
	}
	return nil, err
}

// refresh opens the port on addresses that are new and leaves those that are
// gone. An address that isn't ready yet (IPv6 looks for duplicates first) is
// tried again the next time. Only a port that is taken is an error, which doesn't
// keep the other addresses from being served.
func (s *sockets) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || time.Since(s.checked) < time.Second {
		return nil
	}
	s.checked = time.Now()
	addrs, err := s.addrs()
	if err != nil {
		return fmt.Errorf("network interfaces: %w", err)
	}
	for addr, mux := range s.muxes {
		if !slices.Contains(addrs, addr) {
			s.log.Info("address is gone", "address", addr)
			mux.Close()
			delete(s.muxes, addr)
		}
	}
	var taken []error
	for _, addr := range addrs {
		if s.muxes[addr] != nil {
			continue
		}
		conn, err := listen(addr, s.port, s.shards, s.log, s.metrics)
		if errors.Is(err, syscall.EADDRINUSE) {
			taken = append(taken, fmt.Errorf("UDP port %d is taken on %s by another program; stop it or set ice.udp_port: %w", s.port, addr, err))
			continue
		} else if err != nil {
			s.log.Warn("address can't be used yet", "address", addr, "error", err)
			continue
		}
		if s.port == 0 {
			s.port = conn.port()
		}
		conn.peers = s.peers
		s.log.Debug("address is served", "address", addr, "port", s.port)
		s.muxes[addr] = &mux{ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: s.pion}), conn}
	}
	return errors.Join(taken...)
}

// private tells whether the only addresses are ones that the Internet doesn't
// reach: loopback, RFC 1918, RFC 4193 (ULA), RFC 3927, RFC 6598.
func (s *sockets) private() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.muxes {
		if !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !carrierNAT.Contains(a) {
			return false
		}
	}
	return true
}

var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// localAddrs lists the addresses of interfaces that are up, loopback last.
// Link-local IPv6 is left out: browsers don't use it.
func localAddrs(loopback bool, keep []string) ([]netip.Addr, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, i := range ifaces {
		isLoopback := i.Flags&net.FlagLoopback != 0
		if i.Flags&net.FlagUp == 0 || isLoopback && !loopback || !isLoopback && len(keep) > 0 && !slices.Contains(keep, i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			addr := prefix.Addr().Unmap()
			if addr.IsLinkLocalUnicast() && addr.Is6() || addr.IsLoopback() && !loopback {
				continue
			}
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, func(a, b netip.Addr) int {
		if d := boolInt(a.IsLoopback()) - boolInt(b.IsLoopback()); d != 0 {
			return d
		}
		return a.Compare(b)
	})
	return slices.Compact(out), nil
}

// GetListenAddresses is pion's: where to gather host candidates.
func (s *sockets) GetListenAddresses() []net.Addr {
	if err := s.refresh(); err != nil {
		s.log.Warn("not all addresses are served", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]netip.Addr, 0, len(s.muxes))
	for a := range s.muxes {
		addrs = append(addrs, a)
	}
	// Of addresses that are advertised as the same public one pion takes the
	// first: it must be the one on the way to the Internet, not that of a bridge.
	outward := s.outward()
	slices.SortFunc(addrs, func(a, b netip.Addr) int {
		if d := boolInt(slices.Contains(outward, b)) - boolInt(slices.Contains(outward, a)); d != 0 {
			return d
		}
		return a.Compare(b)
	})
	out := make([]net.Addr, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, s.muxes[a].LocalAddr())
	}
	return out
}

// outward lists the local addresses from which the public ones would be
// reached. No packet is sent for it.
func (s *sockets) outward() []netip.Addr {
	var out []netip.Addr
	for _, p := range s.public {
		conn, err := net.Dial("udp", net.JoinHostPort(p, "9"))
		if err != nil {
			continue // no route
		}
		out = append(out, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
		conn.Close()
	}
	return out
}

// at is the mux of a local address, nil if there is none.
func (s *sockets) at(addr net.Addr) *mux {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.muxes[u.AddrPort().Addr().Unmap().WithZone("")]
}

// viewerMux is the sockets as a peer's ICE agent sees them.
type viewerMux struct {
	*sockets
	viewer    *Viewer // nil: a publisher's
	elsewhere bool    // the peer is on another machine
}

// GetListenAddresses is pion's: where to gather host candidates.
func (m viewerMux) GetListenAddresses() []net.Addr { return m.reachable(m.elsewhere) }

// reachable are the addresses for host candidates; without those of loopback for peers
// elsewhere, if there are others.
func (s *sockets) reachable(elsewhere bool) []net.Addr {
	all := s.GetListenAddresses()
	others := slices.DeleteFunc(slices.Clone(all), func(a net.Addr) bool { return a.(*net.UDPAddr).IP.IsLoopback() })
	if elsewhere && len(others) > 0 {
		return others
	}
	return all
}

// GetConn is pion's: the connection of an ICE agent at an address.
func (m viewerMux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	at := m.at(addr)
	if at == nil {
		return nil, net.InvalidAddrError(addr.String())
	}
	conn, err := at.GetConn(ufrag, addr)
	if err != nil {
		return nil, err
	}
	through, ok := conn.(muxConn)
	if !ok {
		return conn, nil
	}
	l := &link{muxConn: through, viewer: m.viewer}
	if m.viewer != nil {
		l.sender = at.socket.senders[m.viewer.shard.index]
	} else {
		l.sender = at.socket.senders[0]
	}
	l.at.Store(int64(media.Now())) // its peer is about to be heard
	at.socket.owners.add(ufrag, l)
	return l, nil
}

// muxConn is what pion's mux makes over a connection that has these methods.
type muxConn interface {
	net.PacketConn
	ice.AddrPortReaderWriter
}

// link is a peer's ICE agent at one of the sockets. What it writes goes to pion's
// mux, but for RTP in a viewer's turn, which its shard sends in batches.
type link struct {
	muxConn
	viewer *Viewer // nil: a publisher's
	sender *sender
	noGSO  bool         // segments don't get through to this viewer; its shard's
	sealed atomic.Int64 // when the first media or report was written; 0: not yet
	lastHeard

	reports reportLimit // of the goroutine that reads
}

// ReadFromAddrPort is pion's, whose one goroutine for the link calls it.
func (l *link) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := l.muxConn.ReadFromAddrPort(b)
		if err == nil && isRTCP(b[:n]) && !l.reports.may(b[:n], media.Now()) {
			continue
		}
		return n, from, err
	}
}

// Close is pion's.
func (l *link) Close() error {
	l.sender.socket.owners.remove(l)
	return l.muxConn.Close()
}

// WriteToAddrPort is pion's.
func (l *link) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if len(b) > 0 && (b[0]>>6 == 2 || b[0] == recordApplication) { // the handshake is done
		l.seals()
	}
	// RTP is written with Viewer.sendMu held, which guards batching.
	if l.viewer != nil && isRTP(b) && l.viewer.batching {
		if at := unmapped(to); at.Addr().Is4() == l.sender.socket.addr.Is4() {
			l.viewer.shard.out.add(l, at, b)
			return len(b), nil
		}
	}
	if !l.sender.socket.owners.claim(l, unmapped(to)) {
		return len(b), nil
	}
	return l.muxConn.WriteToAddrPort(b, to)
}

// unmapped is an address without the IPv6 clothes of an IPv4 one.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// isRTP tells RTP from all else on the port (RFC 7983 §7, RFC 5761 §4).
func isRTP(b []byte) bool {
	return len(b) >= 12 && b[0]>>6 == 2 && (b[1]&0x7f < 64 || b[1]&0x7f > 95)
}

// isRTCP tells RTCP likewise.
func isRTCP(b []byte) bool { return len(b) >= 8 && b[0]>>6 == 2 && !isRTP(b) }

// RemoveConnByUfrag is pion's: an ICE agent ended or restarts.
func (s *sockets) RemoveConnByUfrag(ufrag string) {
	s.mu.Lock()
	muxes := make([]*mux, 0, len(s.muxes))
	for _, m := range s.muxes {
		muxes = append(muxes, m)
	}
	s.mu.Unlock()
	for _, m := range muxes {
		m.RemoveConnByUfrag(ufrag)
	}
}

// Close closes the port on every address.
func (s *sockets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.peers != nil {
		s.peers.close()
	}
	var errs []error
	for addr, m := range s.muxes {
		errs = append(errs, m.Close())
		delete(s.muxes, addr)
	}
	return errors.Join(errs...)
}
