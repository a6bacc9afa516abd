package loss

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The payload types of the clients' offers.
const (
	mediaType = 102
	rtxType   = 103
)

// weather is what a way does to what goes over it, in both directions: STUN and
// DTLS are left alone until it is switched on.
type weather struct {
	delay time.Duration // each way
	rate  float64       // share of datagrams that are lost, 0 to 1
	burst int           // how many are lost at a time, at least 1
	seed  uint64
	port  int // from which the gateway sees the client come; 0: any
}

// path is one client's way to the gateway: a socket that the client takes for the
// gateway, and one that the gateway takes for the client. It has two goroutines for
// each direction; close ends them.
type path struct {
	weather
	front, back *net.UDPConn // towards the client, towards the gateway
	client      atomic.Pointer[netip.AddrPort]
	lossy       atomic.Bool
	wait        sync.WaitGroup

	mu   sync.Mutex // guards what follows: the truth about media
	seen map[uint16]bool
	sent int                  // first transmissions while packets are lost
	lost map[uint16]time.Time // first transmissions, by when the way lost them
	rtx  int                  // retransmissions that came this far
}

func newPath(gateway *net.UDPAddr, w weather) (*path, error) {
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	back, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: w.port}, gateway)
	if err != nil {
		front.Close()
		return nil, err
	}
	for _, c := range []*net.UDPConn{front, back} {
		c.SetReadBuffer(4 << 20) // no losses but those that are wanted
	}
	p := &path{weather: w, front: front, back: back, seen: map[uint16]bool{}, lost: map[uint16]time.Time{}}
	up := func(b []byte) { p.back.Write(b) }
	down := func(b []byte) {
		if to := p.client.Load(); to != nil {
			p.front.WriteToUDPAddrPort(b, *to)
		}
	}
	p.carry(front, up, 1)
	p.carry(back, down, 2)
	return p, nil
}

// close lets what is underway arrive: what the client said last is that it leaves.
// To a gateway that doesn't hear it, the path's port would belong to that client
// until its consent expires, also when the next path gets the same port.
func (p *path) close() {
	end := time.Now().Add(p.delay)
	p.front.SetReadDeadline(end)
	p.back.SetReadDeadline(end)
	p.wait.Wait()
	p.front.Close()
	p.back.Close()
}

// carry takes what comes from one socket to the other, the delay later.
func (p *path) carry(from *net.UDPConn, write func([]byte), direction uint64) {
	type late struct {
		data []byte
		due  time.Time
	}
	underway := make(chan late, 10000)
	p.wait.Go(func() {
		for l := range underway {
			time.Sleep(time.Until(l.due))
			write(l.data)
		}
	})
	p.wait.Go(func() {
		defer close(underway)
		dice := newDice(p.weather, direction)
		b := make([]byte, 2048)
		for {
			n, addr, err := from.ReadFromUDPAddrPort(b)
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				continue // ECONNREFUSED: the other side has closed its port
			}
			if from == p.front {
				p.client.Store(&addr)
			}
			now := time.Now()
			gone := p.lossy.Load() && dice.lose()
			if direction == 2 {
				p.note(b[:n], gone, now)
			}
			if !gone {
				underway <- late{append([]byte(nil), b[:n]...), now.Add(p.delay)}
			}
		}
	})
}

// note keeps the truth about a datagram from the gateway, by its header, which SRTP
// leaves in the clear. A media packet that comes again is a retransmission.
func (p *path) note(b []byte, gone bool, now time.Time) {
	if len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seq := binary.BigEndian.Uint16(b[2:])
	if b[1]&0x7f == rtxType || p.seen[seq] {
		p.rtx++
		return
	}
	p.seen[seq] = true
	if p.lossy.Load() {
		p.sent++
	}
	if gone {
		p.lost[seq] = now
	}
}

// dice decide what is lost. A burst begins so often that the rate comes out.
type dice struct {
	*rand.Rand
	weather
	left int // of the burst
}

func newDice(w weather, stream uint64) *dice {
	return &dice{Rand: rand.New(rand.NewPCG(w.seed, stream)), weather: w}
}

func (d *dice) lose() bool {
	if d.left > 0 {
		d.left--
		return true
	}
	b := float64(d.burst)
	if d.Float64() >= d.rate/(b-d.rate*(b-1)) {
		return false
	}
	d.left = d.burst - 1
	return true
}
