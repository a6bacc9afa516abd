package rtc

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketReadsFromBothFamilies(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, local := range []string{"127.0.0.1", "::1"} {
		t.Run(local, func(t *testing.T) {
			s, err := listen(netip.MustParseAddr(local), 0, 1, slog.New(slog.NewTextHandler(io.Discard, nil)), m)
			if err != nil {
				t.Skipf("no socket on %s: %v", local, err)
			}
			defer s.Close()
			peer, err := net.DialUDP("udp", nil, s.LocalAddr().(*net.UDPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			want := peer.LocalAddr().(*net.UDPAddr).AddrPort()
			b := make([]byte, 8)
			for _, sent := range []string{"datagram", "", "1", "longer than the room"} {
				if _, err := peer.Write([]byte(sent)); err != nil {
					t.Fatal(err)
				}
				n, from, err := s.ReadFromAddrPort(b)
				if err != nil || from != want || string(b[:n]) != sent[:min(len(sent), len(b))] {
					t.Fatalf("got %q from %v, %v; want %q from %v", b[:n], from, err, sent, want)
				}
			}
			ended := make(chan error)
			go func() {
				_, _, err := s.ReadFromAddrPort(b)
				ended <- err
			}()
			s.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Fatalf("a closed socket's read ends with %v", err)
			}
		})
	}
}

// A network card that takes nothing held up a shard by a sender report, and with it all
// its viewers. Here it is a neighbour who doesn't say where he is: what is for him stays
// in the socket's buffer for seconds.
func TestWritesDoNotWaitForTheNetworkCard(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread() // for good: the thread is in another namespace, and ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("no network namespaces: " + err.Error())
	}
	for _, command := range []string{
		"link add near type veth peer name far", "addr add 192.0.2.1/24 dev near", "link set near up", "link set far up",
	} {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v %s", command, err, out)
		}
	}
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := listen(netip.MustParseAddr("192.0.2.1"), 0, 1, testLog(t), m)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetWriteBuffer(1); err != nil { // the least that there is
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		var err error
		for range 100 {
			n, failed := s.WriteToAddrPort(make([]byte, 1200), netip.MustParseAddrPort("192.0.2.2:9"))
			if failed == nil && n != 1200 {
				failed = io.ErrShortWrite
			}
			err = errors.Join(err, failed)
		}
		written <- err
	}()
	if err := receive(t, written, "the writes"); err != nil {
		t.Error(err)
	}
	if n := value(t, m.dropped); n < 50 {
		t.Errorf("%v of 100 datagrams were dropped", n)
	}
}

func TestWritesAllocateNothing(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		w := newWire(t, host)
		s, b := w.out.sender.socket, make([]byte, 100)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := s.WriteToAddrPort(b, w.to); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
		if _, err := s.WriteTo([]byte("the last"), net.UDPAddrFromAddrPort(w.to)); err != nil {
			t.Error(err)
		}
		for b := make([]byte, 200); string(b[:8]) != "the last"; {
			if _, err := w.conn.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.WriteToAddrPort(b, netip.MustParseAddrPort("[2001:db8::1]:9")); host == "127.0.0.1" && err == nil {
			t.Error("an IPv4 socket has written to an IPv6 address")
		}
		s.Close()
		if _, err := s.WriteToAddrPort(b, w.to); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed socket's write ends with %v", err)
		}
	}
}
