package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
)

var dtlsAttacks = []attack{
	{"DTLS", "flood: hellos of strangers", func(ctx context.Context, e *enemy) error {
		return e.strangers(ctx, 4, func() []byte { return clientHello() })
	}},
	{"DTLS", "spoofed: hellos in good viewers' names", hear(anything, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(overheard) []byte { return clientHello() })
	})},
	{"DTLS", "spoofed: alerts that close good viewers' sessions", hear(anything, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(overheard) []byte {
			// close_notify or a fatal alert, in the clear or as if it were sealed
			return record(21, uint16(rand.IntN(2)), rand.Uint64N(1<<16), [][]byte{{1, 0}, {2, 40}, noise(26)}[rand.IntN(3)])
		})
	})},
	{"DTLS", "replayed: a handshake, from elsewhere", func(_ context.Context, e *enemy) error {
		joining, cancel := context.WithTimeout(context.Background(), preparing)
		defer cancel()
		own, err := prepare(joining, e.recorded)
		if err != nil {
			return err
		}
		ctx, end := e.begin()
		defer end()
		return e.strangers(ctx, 4, func() []byte { return own[rand.IntN(len(own))] })
	}},
	{"DTLS", "half-open: handshakes that end with the first hello", insiders(8, false, func(ctx context.Context, e *enemy, s *session) {
		s.Write(clientHello())
		e.did()
		wait(ctx, 20*time.Millisecond)
	})},
	{"DTLS", "malformed: records damaged at random, of admitted peers", insiders(8, false, func(ctx context.Context, e *enemy, s *session) {
		e.send(ctx, s, func() []byte { return damage(clientHello()) })
	})},
	{"DTLS", "oversized: fragments of hellos of 16 MB", insiders(8, false, func(ctx context.Context, e *enemy, s *session) {
		e.send(ctx, s, func() []byte {
			part := make([]byte, 12, 1200) // type, length, message, offset, length (RFC 6347 §4.2.2)
			part[0], part[1], part[2], part[3] = 1, 0xff, 0xff, 0xff
			binary.BigEndian.PutUint16(part[4:], uint16(rand.IntN(1<<16)))
			at := rand.IntN(1 << 24)
			part[6], part[7], part[8] = byte(at>>16), byte(at>>8), byte(at)
			part[10], part[11] = 1100>>8, 1100&0xff
			return record(22, 0, rand.Uint64N(1<<48), append(part, noise(1100)...))
		})
	})},
	{"DTLS", "flood: handshakes with another's certificate", insiders(4, false, func(ctx context.Context, e *enemy, s *session) {
		certificate, err := selfsign.GenerateSelfSigned()
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if conn, err := s.handshake(ctx, certificate); err == nil {
			conn.Close()
		}
		e.did()
	})},
	{"DTLS", "malformed: application data that is no SCTP", insiders(4, true, func(ctx context.Context, e *enemy, s *session) {
		for i := 0; ctx.Err() == nil && i < 5000; i++ {
			if _, err := s.dtls.Write(noise(12 + rand.IntN(1000))); err != nil {
				return
			}
			e.did()
		}
	})},
}

// insiders is an attack by n admitted peers, each again and again; secured: whose DTLS is done. The
// first ones are admitted before it begins.
func insiders(n int, secured bool, f func(ctx context.Context, e *enemy, s *session)) func(context.Context, *enemy) error {
	return func(_ context.Context, e *enemy) error {
		enter := func(ctx context.Context) (*session, error) {
			s, err := e.admit(ctx)
			if err == nil && secured {
				if err = s.secure(ctx); err != nil {
					s.Close()
				}
			}
			return s, err
		}
		entering, cancel := context.WithTimeout(context.Background(), preparing)
		defer cancel()
		ready := make(chan *session, n)
		for range n {
			s, err := prepare(entering, enter)
			if err != nil {
				return err
			}
			ready <- s
		}
		ctx, cancel := e.begin()
		defer cancel()
		e.many(ctx, n, func() {
			var s *session
			var err error
			select {
			case s = <-ready:
			default: // those were turned out
				if s, err = enter(ctx); err != nil {
					return
				}
			}
			defer s.Close()
			f(ctx, e, s)
		})
		return nil
	}
}

// send sends datagrams on a session, some thousands.
func (e *enemy) send(ctx context.Context, s *session, make func() []byte) {
	for i := 0; ctx.Err() == nil && i < 5000; i++ {
		if _, err := s.Write(make()); err == nil {
			e.did()
		}
		if i%64 == 63 {
			wait(ctx, time.Millisecond)
		}
	}
}

// recorded is what a peer of ours sends in a whole handshake.
func (e *enemy) recorded(ctx context.Context) ([][]byte, error) {
	s, err := e.admit(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	tape := &tape{PacketConn: s}
	conn, err := dtls.ClientWithOptions(tape, s.RemoteAddr(), dtls.WithCertificates(s.certificate), dtls.WithInsecureSkipVerify(true),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM))
	if err != nil {
		return nil, err
	}
	err = conn.HandshakeContext(ctx)
	tape.mu.Lock()
	defer tape.mu.Unlock()
	return tape.written, err
}

// tape keeps what is written.
type tape struct {
	net.PacketConn
	mu      sync.Mutex // guards written
	written [][]byte
}

func (t *tape) WriteTo(b []byte, to net.Addr) (int, error) {
	t.mu.Lock()
	t.written = append(t.written, append([]byte(nil), b...))
	t.mu.Unlock()
	return t.PacketConn.WriteTo(b, to)
}

// record is a DTLS 1.2 record (RFC 6347 §4.1).
func record(kind byte, epoch uint16, sequence uint64, payload []byte) []byte {
	b := []byte{kind, 0xfe, 0xfd}
	b = binary.BigEndian.AppendUint64(b, uint64(epoch)<<48|sequence)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...)
}

// clientHello is the first datagram of a handshake, each time with another random.
func clientHello() []byte {
	hello := helloOnce()
	b := append([]byte(nil), hello...)
	if len(b) > 59 {
		copy(b[27:59], noise(32)) // behind the headers of record and handshake and the version
	}
	return b
}

// helloOnce is a hello of pion's.
var helloOnce = sync.OnceValue(func() []byte {
	caught := &catcher{hello: make(chan []byte, 1), closed: make(chan struct{})}
	certificate, err := selfsign.GenerateSelfSigned()
	if err != nil {
		panic(err)
	}
	conn, err := dtls.ClientWithOptions(caught, &net.UDPAddr{}, dtls.WithCertificates(certificate), dtls.WithInsecureSkipVerify(true),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go conn.HandshakeContext(ctx)
	hello := <-caught.hello
	cancel()
	conn.Close()
	return hello
})

// catcher is a network that keeps the first datagram and answers nothing.
type catcher struct {
	hello  chan []byte
	closed chan struct{}
	once   sync.Once
}

func (c *catcher) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case c.hello <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}
func (c *catcher) ReadFrom([]byte) (int, net.Addr, error) {
	<-c.closed
	return 0, nil, errors.New("closed")
}
func (c *catcher) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *catcher) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *catcher) SetDeadline(time.Time) error      { return nil }
func (c *catcher) SetReadDeadline(time.Time) error  { return nil }
func (c *catcher) SetWriteDeadline(time.Time) error { return nil }
