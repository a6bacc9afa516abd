package rtc

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/media"
)

const (
	arenaBytes  = 64 << 10 // what a batch holds at most
	maxSegments = 64       // packets of one message: UDP_MAX_SEGMENTS of Linux before 6.8
	maxMessage  = 65000    // bytes of one message, below what IPv4 and IPv6 allow

	sendWait  = 20 * time.Millisecond  // what a shard waits for a network card
	stuckTime = 100 * time.Millisecond // and for how long it then leaves it alone
)

// batch is what a shard sends to one viewer in one go: sealed packets, one after
// another. Packets of equal size, and a last one that may be shorter, make one
// message which the kernel or the network card cuts up again (UDP_SEGMENT,
// udp(7)); all messages go out with one sendmmsg. It is touched by its shard's
// goroutine only.
type batch struct {
	link  *link // whose packets these are
	to    netip.AddrPort
	arena []byte
	ends  []int // ends[i] is where packet i ends in arena

	name  sockaddr // of to
	msgs  []message
	iovs  []unix.Iovec
	cmsgs []segmentSize
	count []int // packets of each message

	due   []message // what write has still to send
	errno syscall.Errno
	late  bool                  // write has waited for the network card
	write func(fd uintptr) bool // b.sendmmsg, made once

	unsent int                                                             // packets that found no way since it was last set to 0
	system func(fd uintptr, msgs []message, one bool) (int, syscall.Errno) // the function, but in tests
}

// message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	len uint32 // set by the kernel
}

// segmentSize is a control message with the kernel's UDP_SEGMENT in it.
type segmentSize struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [unix.SizeofPtr - 2]byte // CMSG_ALIGN
}

func newBatch() *batch {
	b := &batch{
		arena: make([]byte, 0, arenaBytes),
		ends:  make([]int, 0, maxSegments),
		msgs:  make([]message, maxSegments),
		iovs:  make([]unix.Iovec, maxSegments),
		cmsgs: make([]segmentSize, maxSegments),
		count: make([]int, maxSegments),
	}
	b.system, b.write = system, b.sendDue
	for i := range b.msgs {
		c := &b.cmsgs[i]
		c.hdr.Level, c.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(2))
		h := &b.msgs[i].hdr
		h.Iov, h.Name = &b.iovs[i], &b.name.bytes[0]
		h.SetIovlen(1)
	}
	return b
}

// add copies a sealed packet that is to go to an address.
func (b *batch) add(l *link, to netip.AddrPort, packet []byte) {
	copy(b.room(l, to, len(packet)), packet)
	b.commit(len(packet))
}

// room is where a packet of n bytes at most, arenaBytes at most, is to be written
// that is to go to an address; commit then takes its first bytes. What is for
// another place, or leaves no room, is sent before.
func (b *batch) room(l *link, to netip.AddrPort, n int) []byte {
	if len(b.ends) > 0 && (l != b.link || to != b.to || len(b.arena)+n > arenaBytes || len(b.ends) == maxSegments) {
		b.flush()
	}
	if len(b.ends) == 0 {
		b.link, b.to = l, to
	}
	at := len(b.arena)
	return b.arena[at : at+n : arenaBytes]
}

// commit adds a packet of n bytes that was written to the last room.
func (b *batch) commit(n int) {
	b.arena = b.arena[:len(b.arena)+n]
	b.ends = append(b.ends, len(b.arena))
}

// flush sends what is there. What can't be sent is counted as unsent: as on a
// network that loses packets, the receiver asks again.
func (b *batch) flush() {
	if len(b.ends) == 0 {
		return
	}
	s := b.link.sender
	m := s.socket.metrics
	b.name.set(b.to)
	if s.stuck != 0 && media.Now() < s.stuck {
		b.unsent += len(b.ends)
		b.clear()
		return
	}
	s.stuck = 0
	for done := 0; done < len(b.ends); {
		n := b.plan(done, !b.link.noGSO && !s.socket.noGSO.Load())
		err := b.send(s, n)
		sent := n - len(b.due)
		for _, c := range b.count[:sent] {
			done += c
			if c > 1 {
				s.socket.gsoSet.Store(true)
				m.gsoMessages.Inc()
				m.gsoPackets.Add(float64(c))
			} else {
				m.otherPackets.Inc()
			}
		}
		if err == nil {
			continue
		}
		if failed := b.count[sent]; !b.yield(s, err, failed > 1) {
			b.unsent += failed // this message's
			done += failed
		}
		if s.stuck != 0 || errors.Is(err, net.ErrClosed) {
			b.unsent += len(b.ends) - done
			break
		}
	}
	b.clear()
}

func (b *batch) clear() {
	b.arena, b.ends, b.due = b.arena[:0], b.ends[:0], nil
}

// yield answers a message that was refused by giving up what may be the reason,
// and tells whether its packets should be tried again.
func (b *batch) yield(s *sender, err error, gso bool) (again bool) {
	switch {
	case errors.Is(err, syscall.ENOSYS) && !s.socket.noMMsg.Load():
		s.socket.refuseMMsg(err)
		return true
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		s.stuck = media.Now() + stuckTime
		s.socket.metrics.stuck.Inc()
		return false
	case !gso:
		return false
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOPROTOOPT):
		// EIO: the card can't do checksums, or IPsec is on the way to this viewer (net/ipv4/udp.c)
		b.refuseGSO()
		s.socket.refuseLink(err)
		return true
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EMSGSIZE):
		// A packet is larger than the MTU on the way to this viewer alone: a kernel that
		// doesn't know segments is noticed at the start (sender.segments).
		b.refuseGSO()
		return true
	}
	return false
}

// refuseGSO gives up segmentation on the way to one viewer for good.
func (b *batch) refuseGSO() {
	b.link.noGSO = true
	b.link.sender.socket.metrics.fallbacks.WithLabelValues("viewer", "mmsg").Inc()
}

// plan makes messages of the packets from the one with number from on, and
// returns how many.
func (b *batch) plan(from int, gso bool) int {
	n := 0
	for i := from; i < len(b.ends); n++ {
		begin := b.begin(i)
		size := b.ends[i] - begin
		j := i + 1
		for gso && j < len(b.ends) && b.ends[j]-begin <= maxMessage {
			next := b.ends[j] - b.ends[j-1]
			if next > size {
				break
			}
			j++
			if next < size {
				break
			}
		}
		iov, h := &b.iovs[n], &b.msgs[n].hdr
		iov.Base = &b.arena[begin]
		iov.SetLen(b.ends[j-1] - begin)
		h.Namelen = b.name.n
		h.Control = nil
		h.SetControllen(0)
		if j-i > 1 {
			c := &b.cmsgs[n]
			c.size = uint16(size)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(int(unsafe.Sizeof(*c)))
		}
		b.count[n] = j - i
		i = j
	}
	return n
}

func (b *batch) begin(i int) int {
	if i == 0 {
		return 0
	}
	return b.ends[i-1]
}

// send sends the first n messages. b.due holds those that were not sent, the
// first of them for the reason that is returned. It waits for the network card at
// most sendWait.
func (b *batch) send(s *sender, n int) error {
	b.due, b.errno = b.msgs[:n], 0
	err := s.raw.Write(b.write)
	runtime.KeepAlive(b)
	if b.late {
		b.late = false
		_ = s.conn.SetWriteDeadline(time.Time{}) // an error says that it is closed, as the next write will
	}
	if err == nil && b.errno != 0 {
		err = b.errno
	}
	return err
}

// sendDue is what send does with the descriptor; false waits until it takes more.
func (b *batch) sendDue(fd uintptr) bool {
	s := b.link.sender
	for len(b.due) > 0 {
		n, errno := b.system(fd, b.due, s.socket.noMMsg.Load())
		switch {
		case n > 0:
			b.due = b.due[n:]
			s.socket.metrics.sends.Inc()
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			if !b.late {
				b.late = true
				_ = s.conn.SetWriteDeadline(time.Now().Add(sendWait)) // as above
			}
			return false
		default:
			b.errno = errno
			return true
		}
	}
	return true
}

// system sends messages, or the first one only, and returns how many went out;
// none for a reason. With MSG_DONTWAIT it doesn't wait, so Go's scheduler isn't told:
// it would take the processor away from a call that lasts 20 µs and give it back
// after, and sysmon would go on looking every 20 µs (11 % of a sender's CPU time on
// one core, 1 % without; November 2026).
func system(fd uintptr, msgs []message, one bool) (int, syscall.Errno) {
	if one {
		_, _, errno := syscall.RawSyscall6(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msgs[0].hdr)), unix.MSG_DONTWAIT, 0, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return 1, 0
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
