package rtc

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
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
