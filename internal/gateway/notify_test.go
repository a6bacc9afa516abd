package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// systemd is a service manager's socket.
type systemd struct{ *net.UnixConn }

func newSystemd(t *testing.T) (s systemd, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return systemd{conn}, socket
}

// next is the next datagram; "" when none has come by the deadline.
func (s systemd) next(t *testing.T, within time.Duration) string {
	t.Helper()
	b := make([]byte, 4096)
	s.SetReadDeadline(time.Now().Add(within))
	n, err := s.Read(b)
	if err != nil {
		if os.IsTimeout(err) {
			return ""
		}
		t.Fatal(err)
	}
	return string(b[:n])
}

// hear passes over watchdog pings until it is told what begins so.
func (s systemd) hear(t *testing.T, what string) string {
	t.Helper()
	for {
		switch said := s.next(t, 30*time.Second); {
		case strings.HasPrefix(said, what):
			return said
		case said == "WATCHDOG=1":
		default:
			t.Fatalf("told %q, want %q", said, what)
		}
	}
}

func TestSystemdIsToldHowTheGatewayIs(t *testing.T) {
	s, socket := newSystemd(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "gateway.conf"), "auth: {mode: none}\n")
	settings, err := Load(filepath.Join(dir, "gateway.conf"), t.TempDir(), "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{Settings: settings, Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Environ: []string{
		"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=200000", "WATCHDOG_PID=" + strconv.Itoa(os.Getpid()),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()

	if said := s.next(t, 30*time.Second); !strings.HasPrefix(said, "READY=1\nSTATUS=serves http://localhost:") {
		t.Errorf("told %q", said)
	}
	for range 3 {
		if said := s.next(t, 30*time.Second); said != "WATCHDOG=1" {
			t.Errorf("told %q", said)
		}
	}
	g.Reload()
	if said := s.hear(t, "RELOADING=1"); !strings.Contains(said, "\nMONOTONIC_USEC=") {
		t.Errorf("told %q", said)
	}
	s.hear(t, "READY=1")

	g.streams.mu.Lock() // which everything comes by
	for s.next(t, 2*time.Second) != "" {
	} // those that were under way; then none comes
	g.streams.mu.Unlock()
	s.hear(t, "WATCHDOG=1")

	cancel()
	s.hear(t, "STOPPING=1")
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSystemdsWatchdogIsOneProcesss(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for environ, want := range map[string]time.Duration{
		"WATCHDOG_USEC=30000000": 30 * time.Second,
		"WATCHDOG_USEC=-1":       0,
		"WATCHDOG_USEC=soon":     0,
		"WATCHDOG_USEC=30000000 WATCHDOG_PID=" + strconv.Itoa(os.Getpid()):   30 * time.Second,
		"WATCHDOG_USEC=30000000 WATCHDOG_PID=" + strconv.Itoa(os.Getpid()+1): 0,
	} {
		if s := newSupervisor(strings.Fields(environ), log); s.every != want {
			t.Errorf("%s: %v, want %v", environ, s.every, want)
		}
	}
}
