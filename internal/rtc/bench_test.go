package rtc

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/srtp/v3"

	"gateway/internal/config"
)

// BenchmarkSend is what a packet costs a viewer up to the system call: header with
// transport-wide number, and SRTP with AES-128-GCM. It allocates nothing.
func BenchmarkSend(b *testing.B) {
	session, err := srtp.NewSessionSRTP(newNowhere(), &srtp.Config{
		Profile: srtp.ProtectionProfileAeadAes128Gcm,
		Keys: srtp.SessionKeys{
			LocalMasterKey: make([]byte, 16), LocalMasterSalt: make([]byte, 12),
			RemoteMasterKey: make([]byte, 16), RemoteMasterSalt: make([]byte, 12),
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	out, err := session.OpenWriteStream()
	if err != nil {
		b.Fatal(err)
	}
	src := newSource()
	src.push(true, 17)
	t := playing(newWHEP(b, newEngine(b, Options{})), videoTrack, src, format{pt: 102, rtx: 103, delayID: 1, transportID: 2}, out)
	packets := src.packets
	b.ReportAllocs()
	b.SetBytes(1000)
	for i := 0; b.Loop(); i++ {
		p := packets[i%len(packets)]
		p.Index = uint64(i)
		if err := t.write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLiteSend is what a packet costs a viewer on a lite connection: header,
// AES-128-GCM in the shard's batch, and the system call, to a socket that nobody
// reads. It allocates nothing.
func BenchmarkLiteSend(b *testing.B) {
	v := newWHEP(b, newEngine(b, Options{ICE: config.ICE{Lite: true}}))
	l := v.conn.(*lite)
	sink := loopback(b)
	defer sink.Close()
	l.mu.Lock()
	l.choose(l.newPath(v.engine.sockets.muxes[netip.MustParseAddr("127.0.0.1")].socket, sink.LocalAddr().(*net.UDPAddr).AddrPort()))
	l.mu.Unlock()
	var err error
	if l.out, err = srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm); err != nil {
		b.Fatal(err)
	}
	src := newSource()
	src.push(true, 17)
	t := playing(v, videoTrack, src, format{pt: 102, delayID: 1}, l)
	packets := src.packets
	b.ReportAllocs()
	b.SetBytes(1000)
	for i := 0; b.Loop(); i++ {
		p := packets[i%len(packets)]
		p.Index = uint64(i)
		if err := t.write(p); err != nil {
			b.Fatal(err)
		}
		if i%len(packets) == len(packets)-1 {
			v.shard.out.flush()
		}
	}
}

// nowhere takes all that is written and has nothing to read.
type nowhere struct {
	net.Conn
	closed chan struct{}
}

func newNowhere() nowhere { return nowhere{closed: make(chan struct{})} }

func (n nowhere) Write(b []byte) (int, error)     { return len(b), nil }
func (n nowhere) Read([]byte) (int, error)        { <-n.closed; return 0, io.EOF }
func (n nowhere) Close() error                    { close(n.closed); return nil }
func (n nowhere) SetReadDeadline(time.Time) error { return nil }

// BenchmarkDelivery is the whole way to a peer in the same process, whose own
// work is in the numbers too.
func BenchmarkDelivery(b *testing.B) {
	src := newSource()
	s := newSession(b, newEngine(b, Options{}), peerOptions{}, videoTrack, src)
	s.connect(b)
	src.push(true, 17)
	for range 17 {
		s.peer.next(b)
	}
	t := s.tracks[0]
	packets := src.packets
	b.ReportAllocs()
	b.SetBytes(1000)
	for i := 0; b.Loop(); i++ {
		p := packets[i%len(packets)]
		p.Index = uint64(17 + i)
		s.sendMu.Lock()
		if err := t.write(p); err != nil {
			b.Fatal(err)
		}
		s.sendMu.Unlock()
	}
}

// BenchmarkTurn is a viewer's turn with nothing due, and the wake that leads to it.
func BenchmarkTurn(b *testing.B) {
	src := newSource()
	s := newSession(b, newEngine(b, Options{}), peerOptions{}, videoTrack, src)
	s.connect(b)
	idle := &shard{out: newBatch(), wake: make(chan struct{}, 1), batch: newPackets()}
	idle.add(s.Viewer)
	b.ReportAllocs()
	for b.Loop() {
		idle.mark(s.Viewer)
		idle.serve()
	}
}
