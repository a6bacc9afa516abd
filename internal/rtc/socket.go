package rtc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"

	"gateway/internal/contain"
)

const (
	socketBuffer = 1 << 20 // asked of the kernel, which may give less
	refusedLinks = 4       // that take no segments, until no other is tried
)

// socket is the UDP port on one local address. pion reads from it and writes its
// own packets (STUN, DTLS, RTCP) to it; media leaves by its senders.
//
// A write doesn't wait: what the network card has no room for is dropped and counted.
// Those who write are the shards (sender reports) and the goroutine that reads the
// socket (answers to checks), each of which serves many viewers.
//
// So it has no write deadline. pion sets one to end the writes of a candidate that
// closes, but all viewers share the socket: packets of others were lost by it
// (0.1 % while viewers came and went, 2026-11).
type socket struct {
	*net.UDPConn
	addr    netip.Addr
	raw     syscall.RawConn
	senders []*sender // one a shard
	log     *slog.Logger
	metrics *metrics

	// What the kernel and the network card have refused isn't asked for again.
	noGSO   atomic.Bool  // UDP_SEGMENT
	noMMsg  atomic.Bool  // sendmmsg
	gsoSet  atomic.Bool  // a message with UDP_SEGMENT was taken
	refused atomic.Int32 // links that had none taken

	// peers take their packets before pion sees them; set before pion reads.
	peers        *peers
	check, reply stun.Message // touched by the reading goroutine only, as is
	in           reception

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
	if s.raw, err = conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	s.in.raw, s.in.read = s.raw, s.in.readOnce
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

// ReadFromAddrPort is pion's, whose one goroutine for the socket calls it: it
// doesn't allocate. What is a lite viewer's is handled at once.
func (s *socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := s.in.next(b, s.addr)
		if err == nil && s.take(b[:n], from) {
			continue
		}
		return n, from, err
	}
}

// take handles a datagram as far as it isn't pion's, and tells whether that was all.
func (s *socket) take(b []byte, from netip.AddrPort) (done bool) {
	defer contain.Panic(s.log, "datagram", func(error) { done = true })
	if s.peers != nil && s.peers.take(s, from, b) {
		return true
	}
	claims, forged := s.owners.heard(unmapped(from), b)
	if claims != nil {
		_, _ = claims.WriteToAddrPort(nil, from) // has pion's mux note it
	}
	return forged
}

// reception reads datagrams by calls that Go's scheduler isn't told of, as they never
// wait: any other call wakes its sysmon, which then looks around every 20 µs. 200
// viewers' reports, one a second from each, cost 0.9 µs for each packet sent; without
// the wakeups sending cost 1.7 times the floor instead of 2.2, 1.5 instead of 1.7
// with ice.lite (make bench-fanout, mean of three runs, November 2026).
type reception struct {
	raw   syscall.RawConn
	read  func(fd uintptr) bool // readOnce, made once
	b     []byte
	n     int
	name  unix.RawSockaddrInet6 // or an Inet4, as Family tells
	errno syscall.Errno
}

// next waits for a datagram at the socket of an address.
func (r *reception) next(b []byte, local netip.Addr) (int, netip.AddrPort, error) {
	r.b = b
	err := r.raw.Read(r.read)
	r.b = nil
	if err == nil && r.errno != 0 {
		err = os.NewSyscallError("recvfrom", r.errno)
	}
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return r.n, r.from(local.Zone()), nil
}

// readOnce is what next does with the descriptor; false waits until there is something.
func (r *reception) readOnce(fd uintptr) bool {
	for {
		size := uint32(unsafe.Sizeof(r.name))
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.b))), uintptr(len(r.b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&r.name)), uintptr(unsafe.Pointer(&size)))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		r.n, r.errno = int(n), errno
		return true
	}
}

// from is the address that the kernel has written into name. The zone is the socket's
// own: it is bound to one address.
func (r *reception) from(zone string) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&r.name.Port))[:])
	if r.name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.name)).Addr), port)
	}
	addr := netip.AddrFrom16(r.name.Addr)
	if addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(zone)
	}
	return netip.AddrPortFrom(addr, port)
}

// WriteToAddrPort is pion's: it neither waits nor allocates. What there is no room for
// is lost, as on a network that loses packets.
func (s *socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	to = unmapped(to)
	if to.Addr().Is4() != s.addr.Is4() {
		return 0, net.InvalidAddrError(to.String())
	}
	t := transmissions.Get().(*transmission)
	err := t.send(s.raw, b, to)
	transmissions.Put(t)
	if errors.Is(err, syscall.EAGAIN) {
		s.metrics.dropped.Inc()
		err = nil
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteTo is pion's.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError(to.String())
	}
	return s.WriteToAddrPort(b, u.AddrPort())
}

// transmission sends one datagram by a call that doesn't wait, like reception.
type transmission struct {
	write func(fd uintptr) // once, made once
	b     []byte
	name  sockaddr
	errno syscall.Errno
}

var transmissions = sync.Pool{New: func() any {
	t := new(transmission)
	t.write = t.once
	return t
}}

// send sends a datagram from a descriptor, EAGAIN: there is no room. It takes no lock
// that a writer who waits holds.
func (t *transmission) send(raw syscall.RawConn, b []byte, to netip.AddrPort) error {
	t.b = b
	t.name.set(to)
	err := raw.Control(t.write)
	t.b = nil
	if err == nil && t.errno != 0 {
		err = os.NewSyscallError("sendto", t.errno)
	}
	return err
}

// once is what send does with the descriptor.
func (t *transmission) once(fd uintptr) {
	for {
		_, _, t.errno = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&t.name.bytes)), uintptr(t.name.n))
		if t.errno != syscall.EINTR {
			return
		}
	}
}

// sockaddr is an address as the kernel reads it (struct sockaddr_in, sockaddr_in6).
type sockaddr struct {
	bytes [unix.SizeofSockaddrInet6]byte
	n     uint32 // of bytes that it takes
}

func (a *sockaddr) set(to netip.AddrPort) {
	clear(a.bytes[:])
	binary.BigEndian.PutUint16(a.bytes[2:], to.Port())
	if to.Addr().Is4() {
		binary.NativeEndian.PutUint16(a.bytes[:], unix.AF_INET)
		ip := to.Addr().As4()
		copy(a.bytes[4:], ip[:])
		a.n = unix.SizeofSockaddrInet4
		return
	}
	binary.NativeEndian.PutUint16(a.bytes[:], unix.AF_INET6)
	ip := to.Addr().As16()
	copy(a.bytes[8:], ip[:])
	a.n = unix.SizeofSockaddrInet6
}

// Close closes the port. Senders that are at work end with net.ErrClosed.
func (s *socket) Close() error {
	for _, o := range s.senders {
		o.conn.Close()
	}
	return s.UDPConn.Close()
}

// refuseLink notes that the network card, or the way to one peer, takes no segments.
// It is the card's doing if several links were refused, and none ever wasn't.
func (s *socket) refuseLink(err error) {
	if s.refused.Add(1) >= refusedLinks && !s.gsoSet.Load() {
		s.refuseGSO(err)
	}
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
