package rtc

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"
)

const socketBuffer = 1 << 20 // asked of the kernel, which may give less

// socket is the UDP port on one local address. pion reads from it and writes its
// own packets (STUN, DTLS, RTCP) to it; media leaves by its senders.
//
// It has no write deadline. pion sets one to end the writes of a candidate that
// closes, but all viewers share the socket: packets of others were lost by it
// (0.1 % while viewers came and went, 2026-11). A write to a UDP socket waits for
// the network card at most.
type socket struct {
	*net.UDPConn
	addr    netip.Addr
	senders []*sender // one a shard
	log     *slog.Logger
	metrics *metrics

	// What the kernel and the network card have refused isn't asked for again.
	noGSO  atomic.Bool // UDP_SEGMENT
	noMMsg atomic.Bool // sendmmsg
	gsoSet atomic.Bool // a message with UDP_SEGMENT was taken

	// peers take their packets before pion sees them; set before pion reads.
	peers        *peers
	check, reply stun.Message // touched by the reading goroutine only

	owners owners // of addresses, among pion's connections
}

// listen opens the port on an address, with a sender for each shard; port 0
// takes a free one.
func listen(addr netip.Addr, port, shards int, log *slog.Logger, m *metrics) (*socket, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(socketBuffer) // best effort
	_ = conn.SetWriteBuffer(socketBuffer)
	s := &socket{UDPConn: conn, addr: addr, log: log, metrics: m}
	for range shards {
		out, err := newSender(s)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.senders = append(s.senders, out)
	}
	if err := s.senders[0].segments(); err != nil {
		s.refuseGSO(err)
	}
	return s, nil
}

// port is the port that the socket has.
func (s *socket) port() int { return s.LocalAddr().(*net.UDPAddr).Port }

// SetDeadline is pion's.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline is pion's.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// ReadFromAddrPort is pion's: it doesn't allocate. What is a lite viewer's is
// handled at once.
func (s *socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := s.ReadFromUDPAddrPort(b)
		if err == nil && s.peers != nil && s.peers.take(s, from, b[:n]) {
			continue
		}
		if err == nil {
			if l := s.owners.heard(unmapped(from), b[:n]); l != nil {
				_, _ = l.WriteToAddrPort(nil, from) // has pion's mux note it
			}
		}
		return n, from, err
	}
}

// WriteToAddrPort is pion's: it doesn't allocate.
func (s *socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return s.WriteToUDPAddrPort(b, to)
}

// Close closes the port. Senders that are at work end with net.ErrClosed.
func (s *socket) Close() error {
	for _, o := range s.senders {
		o.conn.Close()
	}
	return s.UDPConn.Close()
}

// refuseGSO gives up segmentation on this socket for good.
func (s *socket) refuseGSO(err error) {
	if !s.noGSO.Swap(true) {
		s.metrics.fallbacks.WithLabelValues("socket", "mmsg").Inc()
		s.log.Warn("UDP segmentation offload is not to be had: packets go out one by one, which costs more", "address", s.addr, "error", err)
	}
}

// refuseMMsg gives up sendmmsg on this socket for good.
func (s *socket) refuseMMsg(err error) {
	if !s.noMMsg.Swap(true) {
		s.metrics.fallbacks.WithLabelValues("socket", "single").Inc()
		s.log.Warn("sendmmsg is not to be had: each packet is a system call", "address", s.addr, "error", err)
	}
}

// sender is a shard's own descriptor of a socket: Go's network poller has a lock
// for each descriptor, and shards needn't wait for each other there.
type sender struct {
	socket *socket
	conn   *net.UDPConn
	raw    syscall.RawConn
	stuck  time.Duration // until then nothing is tried: the network card takes nothing
}

func newSender(s *socket) (*sender, error) {
	f, err := s.File()
	if err != nil {
		return nil, fmt.Errorf("second descriptor: %w", err)
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("second descriptor: %w", err)
	}
	conn := c.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("second descriptor: %w", err)
	}
	return &sender{socket: s, conn: conn, raw: raw}, nil
}

// segments tells why the kernel has no UDP_SEGMENT (it came with Linux 4.18).
func (s *sender) segments() error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		_, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	})
	if err != nil {
		return err
	}
	return failed
}
