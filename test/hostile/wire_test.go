package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
)

// overheard is a datagram that somebody has sent to the gateway.
type overheard struct {
	from, to netip.AddrPort
	payload  []byte
}

func anything(overheard) bool    { return true }
func (o overheard) isSTUN() bool { return o.payload[0] < 4 } // RFC 7983 §7
func (o overheard) isRTCP() bool { return o.payload[0]>>6 == 2 }

const (
	hearing = 5 * time.Second // at most, and who watches is checked to be there every 2 s
	enough  = 40              // datagrams
)

// listen hears what the good viewers send to the gateway, as who sits on their way does. It
// takes root, and IPv4 on the loopback interface.
func listen(host string, wanted func(overheard) bool) ([]overheard, error) {
	if err := rig.NeedRoot(); err != nil {
		return nil, err
	}
	gateway, err := netip.ParseAddrPort(host)
	if err != nil {
		return nil, err
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, err
	}
	const protocol = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: lo.Index}); err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	var all []overheard
	b := make([]byte, 1<<16)
	for end := time.Now().Add(hearing); len(all) < enough && time.Now().Before(end); {
		size, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue
		}
		if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype == unix.PACKET_OUTGOING {
			continue // of the loopback interface each comes twice
		}
		if o, ok := readUDP(b[:size]); ok && o.to.Port() == gateway.Port() && wanted(o) {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("nothing was overheard")
	}
	return all, nil
}

// readUDP reads an IPv4 packet; one without a payload isn't ok.
func readUDP(b []byte) (overheard, bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP {
		return overheard{}, false
	}
	head := int(b[0]&15) * 4
	if len(b) <= head+8 {
		return overheard{}, false
	}
	udp := b[head:]
	return overheard{
		from:    netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(udp)),
		to:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(udp[2:])),
		payload: append([]byte(nil), udp[8:]...),
	}, true
}

// forger sends datagrams in the name of others.
type forger int

func newForger() (forger, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, fmt.Errorf("raw socket: %w", err)
	}
	return forger(fd), nil
}

func (f forger) close() { unix.Close(int(f)) }

// send sends a payload as if from another. The kernel completes the header; without a
// check sum of UDP (0) none is looked at.
func (f forger) send(from, to netip.AddrPort, payload []byte) error {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], from.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	return unix.Sendto(int(f), append(b, payload...), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
}

// inTheirName sends what make makes of what was overheard, from where that came, again and
// again; nil is passed over.
func (e *enemy) inTheirName(ctx context.Context, make func(overheard) []byte) error {
	f, err := newForger()
	if err != nil {
		return err
	}
	defer f.close()
	for i := 0; ctx.Err() == nil; i++ {
		o := e.heard[i%len(e.heard)]
		if b := make(o); b != nil && f.send(o.from, o.to, b) == nil {
			e.did()
		}
		if i%64 == 63 {
			wait(ctx, time.Millisecond)
		}
	}
	return nil
}

// strangers sends what make makes from n sockets of its own, again and again.
func (e *enemy) strangers(ctx context.Context, n int, make func() []byte) error {
	to, err := net.ResolveUDPAddr("udp", e.host)
	if err != nil {
		return err
	}
	e.many(ctx, n, func() {
		conn, err := net.DialUDP("udp", nil, to)
		if err != nil {
			return
		}
		defer conn.Close()
		for i := 0; i < 1000 && ctx.Err() == nil; i++ {
			if _, err := conn.Write(make()); err == nil {
				e.did()
			}
			if i%64 == 63 {
				wait(ctx, time.Millisecond)
			}
		}
	})
	return nil
}
