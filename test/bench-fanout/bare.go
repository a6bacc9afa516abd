package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/media"
	"gateway/test/traffic"
)

const (
	headerSize  = 12
	maxSegments = 64         // of one message: UDP_MAX_SEGMENTS of older kernels
	maxMessage  = 65535 - 28 // an IP packet's worth
)

// bare seals and sends, and does nothing else: each viewer has a key, an address
// and a sequence number.
type bare struct {
	socket  *os.File
	fd      int // of socket
	viewers []bareViewer
	arena   []byte

	mu     sync.Mutex // guards what follows
	totals Counts
	failed error
}

type bareViewer struct {
	seal  cipher.AEAD
	to    unix.RawSockaddrInet4
	seq   uint16
	nonce [12]byte
}

func newBare(to []string) (*bare, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	file, err := conn.File() // a duplicate that blocks
	if err != nil {
		return nil, err
	}
	b := &bare{socket: file, fd: int(file.Fd()), arena: make([]byte, 0, maxMessage)}
	for i, text := range to {
		addr, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)))
		if err != nil {
			return nil, err
		}
		v := bareViewer{to: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.Addr().As4()}}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&v.to.Port))[:], addr.Port())
		if v.seal, err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
		b.viewers = append(b.viewers, v)
	}
	return b, nil
}

func (b *bare) answer(context.Context, string) (string, error) {
	return "", errors.New("there is nothing to negotiate")
}

// send sends a buffer's packets, padded as the gateway pads them, in runs of equal size,
// whose last may be smaller.
func (b *bare) send(buf *traffic.Buffer, capture time.Duration) {
	at := media.RTPTime(capture, 90000)
	for i := range b.viewers {
		v := &b.viewers[i]
		b.arena = b.arena[:0]
		size, n := 0, 0
		for j, payload := range buf.Payloads {
			whole := headerSize + len(payload) + buf.Padding[j] + v.seal.Overhead()
			if n > 0 && (whole > size || n == maxSegments || len(b.arena)+whole > maxMessage || len(b.arena) != n*size) {
				b.flush(v, size, n)
				n = 0
			}
			if n == 0 {
				size = whole
			}
			b.arena = v.append(b.arena, payload, buf.Padding[j], at, buf.End && j == len(buf.Payloads)-1)
			n++
		}
		b.flush(v, size, n)
	}
}

func (v *bareViewer) append(dst, payload []byte, pad int, at uint32, marker bool) []byte {
	v.seq++
	pt := byte(102)
	if marker {
		pt |= 0x80
	}
	start := len(dst)
	first := byte(0x80)
	if pad > 0 {
		first |= 0x20 // RFC 3550 §5.1
	}
	dst = append(dst, first, pt)
	dst = binary.BigEndian.AppendUint16(dst, v.seq)
	dst = binary.BigEndian.AppendUint32(dst, at)
	dst = binary.BigEndian.AppendUint32(dst, 1)
	binary.BigEndian.PutUint64(v.nonce[4:], binary.BigEndian.Uint64(v.nonce[4:])+1)
	if pad == 0 {
		return v.seal.Seal(dst, v.nonce[:], payload, dst[start:])
	}
	padded := append(append(make([]byte, 0, 2048), payload...), make([]byte, pad)...)
	padded[len(padded)-1] = byte(pad)
	return v.seal.Seal(dst, v.nonce[:], padded, dst[start:])
}

// segment is the control message of UDP_SEGMENT.
type segment struct {
	unix.Cmsghdr
	size uint16
	_    [6]byte
}

func (b *bare) flush(v *bareViewer, size, n int) {
	if n == 0 {
		return
	}
	c := segment{Cmsghdr: unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_SEGMENT}, size: uint16(size)}
	c.SetLen(unix.CmsgLen(2))
	iov := unix.Iovec{Base: unsafe.SliceData(b.arena)}
	iov.SetLen(len(b.arena))
	msg := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&v.to)), Namelen: unix.SizeofSockaddrInet4, Iov: &iov}
	msg.SetIovlen(1)
	msg.Control = (*byte)(unsafe.Pointer(&c))
	msg.SetControllen(unix.CmsgSpace(2))
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&msg)), 0)
	b.mu.Lock()
	if errno != 0 {
		b.failed = fmt.Errorf("sendmsg: %w", errno)
	}
	b.totals.Packets += uint64(n)
	b.totals.Segments += uint64(n)
	b.totals.Messages++
	b.mu.Unlock()
	b.arena = b.arena[:0]
}

func (b *bare) counts() (Counts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.totals, b.failed
}
