package crowd

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	mediaType = 102 // payload type of the video, as the crowd's offers have it
	rtxType   = 103 // of its retransmissions

	socketBuffer = 8 << 20 // bytes asked of the kernel; beyond its limit only root gets them
)

// tap is a client's UDP socket, in which the media ends: it is counted by the
// headers, which SRTP leaves in the clear, and not decrypted. What is no media
// (STUN, DTLS, RTCP) is read on by pion.
//
// The socket isn't in Go's poller but looked at every pollInterval, with all
// others, by the crowd's goroutine. So no packet that arrives wakes a thread: the
// wakeup would cost the sender, in whose time the loopback device delivers, more
// than the packet (8 µs of 13 in the virtual machine of docs/benchmarks.md), and a
// sender whose receivers are elsewhere doesn't pay it.
//
// For the same reason it takes the messages of a sender that uses UDP_SEGMENT as
// they are (UDP_GRO, udp(7)) and cuts them up itself: otherwise the kernel does so
// in the sender's time and queues each datagram, which is a network card's work
// and the other machine's (0.7 of 2.9 µs a packet there).
type tap struct {
	fd     int
	addr   *net.UDPAddr
	others chan datagram // what is no media
	closed chan struct{}

	mu   sync.Mutex // guards what follows
	gone bool       // fd is closed
	seen Seen
	last int64 // highest sequence number, unwrapped; before the first packet -1
	ssrc uint32
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

const pollInterval = 20 * time.Millisecond

// Seen is what clients have received, summed up.
type Seen struct {
	Packets uint64 // of media, without retransmissions
	Bytes   uint64 // of UDP payload
	RTX     uint64 // retransmissions
	Lost    uint64 // gaps in the sequence numbers that nothing has filled
	Late    uint64 // packets that filled one
	Ends    uint64 // of frames: RTP markers
}

func (s *Seen) add(o Seen) {
	s.Packets += o.Packets
	s.Bytes += o.Bytes
	s.RTX += o.RTX
	s.Lost += o.Lost
	s.Late += o.Late
	s.Ends += o.Ends
}

// newTap opens a socket, one that takes datagrams only if split is set.
func newTap(split bool) (*tap, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	}
	if !split {
		unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // without it (Linux before 5.0) the kernel splits
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	return &tap{
		fd: fd, last: -1, others: make(chan datagram, 64), closed: make(chan struct{}),
		addr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port},
	}, nil
}

// ReadFromAddrPort is pion's. It returns with what is no media.
func (t *tap) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-t.others:
		return copy(b, d.data), d.from, nil
	case <-t.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToAddrPort is pion's.
func (t *tap) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return 0, net.ErrClosed
	}
	if err := unix.Sendto(t.fd, b, 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}); err != nil {
		return 0, fmt.Errorf("sendto: %w", err)
	}
	return len(b), nil
}

// The rest makes it a net.PacketConn. There are no deadlines: nothing waits but
// ReadFrom, which Close ends.
func (t *tap) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := t.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

func (t *tap) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError(to.String())
	}
	return t.WriteToAddrPort(b, u.AddrPort())
}

func (t *tap) LocalAddr() net.Addr              { return t.addr }
func (t *tap) SetDeadline(time.Time) error      { return nil }
func (t *tap) SetReadDeadline(time.Time) error  { return nil }
func (t *tap) SetWriteDeadline(time.Time) error { return nil }

func (t *tap) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return nil
	}
	t.gone = true
	close(t.closed)
	return unix.Close(t.fd)
}

// batch is room for the messages that are read at once.
type batch struct {
	headers [16]mmsghdr
	iovs    [16]unix.Iovec
	names   [16]unix.RawSockaddrInet4
	sizes   [16]segmentSize
	data    [16][1 << 16]byte // one message each
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [4]byte
}

// segmentSize is room for the control message of UDP_GRO: the size of all of a
// message's datagrams but the last one, which may be smaller.
type segmentSize struct {
	unix.Cmsghdr
	size int32
	_    int32
}

// empty reads what is in the socket.
func (t *tap) empty(b *batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.gone {
		for i := range b.headers {
			b.iovs[i].Base = &b.data[i][0]
			b.iovs[i].SetLen(len(b.data[i]))
			h := &b.headers[i]
			h.Iov, h.Name, h.Namelen = &b.iovs[i], (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet4
			h.SetIovlen(1)
			h.Control = (*byte)(unsafe.Pointer(&b.sizes[i]))
			h.SetControllen(int(unsafe.Sizeof(b.sizes[i])))
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&b.headers)), uintptr(len(b.headers)), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			return // nothing more; faults would show as packets that are missing
		}
		for i := range int(n) {
			h, data := &b.headers[i], b.data[i][:b.headers[i].n]
			size := len(data)
			if c := &b.sizes[i]; h.Controllen >= uint64(unix.CmsgLen(4)) && c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO {
				size = int(c.size)
			}
			port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&b.names[i].Port))[:])
			from := netip.AddrPortFrom(netip.AddrFrom4(b.names[i].Addr), port)
			for d := range slices.Chunk(data, max(size, 1)) {
				t.arrived(d, from)
			}
		}
		if int(n) < len(b.headers) {
			return
		}
	}
}

// arrived handles one datagram. The caller holds mu.
func (t *tap) arrived(data []byte, from netip.AddrPort) {
	if t.take(data) {
		return
	}
	select {
	case t.others <- datagram{slices.Clone(data), from}:
	default: // as a full socket does
	}
}

// take counts a media packet and tells whether the datagram was one (RFC 7983 §7,
// RFC 5761 §4). The caller holds mu.
func (t *tap) take(b []byte) bool {
	if len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 {
		return false
	}
	s := &t.seen
	s.Bytes += uint64(len(b))
	if b[1]&0x7f == rtxType {
		s.RTX++
		return true
	}
	s.Packets++
	if b[1]&0x80 != 0 {
		s.Ends++
	}
	seq := binary.BigEndian.Uint16(b[2:])
	if t.last < 0 {
		t.last, t.ssrc = int64(seq), binary.BigEndian.Uint32(b[8:])
		return true
	}
	switch step := int64(int16(seq - uint16(t.last))); {
	case step > 0:
		s.Lost += uint64(step - 1)
		t.last += step
	case s.Lost > 0:
		s.Lost--
		s.Late++
	}
	return true
}

// receiver is what a receiver report says of the media; none before the first packet.
func (t *tap) receiver() (ssrc uint32, highest uint32, lost uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ssrc, uint32(t.last), t.seen.Lost, t.last >= 0
}

// drops is how many datagrams the kernel has dropped at the UDP sockets of these
// local ports because their buffers were full.
func drops(ports map[uint16]bool) (dropped uint64, err error) {
	data, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0, err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		fields := strings.Fields(line) // sl local_address rem_address … drops
		if i == 0 || len(fields) < 3 {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return 0, fmt.Errorf("/proc/net/udp: %w", err)
		}
		if !ports[uint16(port)] {
			continue
		}
		n, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/net/udp: %w", err)
		}
		dropped += n
	}
	return dropped, nil
}

var _ net.PacketConn = (*tap)(nil)
