package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor is systemd, told how the gateway is (sd_notify(3)): READY=1 when it
// serves, RELOADING=1, STOPPING=1, and WATCHDOG=1 as long as it is alive. Where the
// gateway isn't its service nothing is told.
type supervisor struct {
	socket string        // of datagrams; "": nobody listens
	every  time.Duration // WATCHDOG=1 is due by; 0: never
	log    *slog.Logger
}

// newSupervisor reads what systemd says in the environment of a service: NOTIFY_SOCKET,
// and WATCHDOG_USEC with WATCHDOG_PID (sd_watchdog_enabled(3)).
func newSupervisor(environ []string, log *slog.Logger) supervisor {
	s := supervisor{log: log}
	usec, pid := "", ""
	for _, entry := range environ {
		switch name, value, _ := strings.Cut(entry, "="); name {
		case "NOTIFY_SOCKET":
			s.socket = value
		case "WATCHDOG_USEC":
			usec = value
		case "WATCHDOG_PID":
			pid = value
		}
	}
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(n) * time.Microsecond
	}
	return s
}

// tell sends assignments, a line each. It doesn't block for longer than a second.
func (s supervisor) tell(state ...string) {
	if s.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"}) // a leading @ is Linux's abstract name
	if err == nil {
		defer conn.Close()
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = conn.Write([]byte(strings.Join(state, "\n")))
	}
	if err != nil {
		s.log.Warn("systemd can't be told", "state", state[0], "err", err)
	}
}

// reloading tells of a reload; what it returns tells of its end.
func (s supervisor) reloading() (done func()) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // that clock exists
	s.tell("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
	return func() { s.tell("READY=1") }
}

// watch tells twice in the time that systemd allows that the gateway is alive, if
// check says so in time, until ctx is done. A gateway that hangs is so killed and
// started again.
func (s supervisor) watch(ctx context.Context, check func(context.Context) error) {
	if s.socket == "" || s.every == 0 {
		return
	}
	tick := time.NewTicker(s.every / 2)
	defer tick.Stop()
	for {
		if err := s.checked(ctx, check); ctx.Err() != nil {
			return
		} else if err != nil {
			s.log.Error("the gateway hangs: systemd's watchdog isn't told that it is alive", "err", err)
		} else {
			s.tell("WATCHDOG=1")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// checked makes a check. One that hangs is waited for as long as systemd waits: no
// other is begun.
func (s supervisor) checked(ctx context.Context, check func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, s.every/2)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- check(limited) }()
	select {
	case err := <-result:
		return err
	case <-limited.Done():
	}
	s.log.Warn("the gateway takes long to look after itself", "waited", s.every/2)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pulse looks whether the gateway's loops and locks still move.
type pulse struct {
	gateway *Gateway
	client  *http.Client // keeps its connection: a check takes no file descriptor
}

func (g *Gateway) newPulse() pulse {
	return pulse{g, &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: 1,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: g.httpsName()}, // it asks itself
	}}}
}

func (p pulse) close() { p.client.CloseIdleConnections() }

// check asks itself over HTTP, and goes once through what all streams, rooms, sessions
// and viewers depend on.
func (p pulse) check(ctx context.Context) error {
	g := p.gateway
	g.streams.list()
	g.rooms.Stats()
	g.signal.Viewers(ctx, "") // of no stream: the sessions are looked through, not asked
	if err := g.engine.Alive(ctx); err != nil {
		return err
	}
	if free, err := freeFiles(); err == nil && free < scarceFiles {
		return nil // nobody new is let in then, and those who are here go on
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.scheme()+"://"+g.selfAddr()+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := p.client.Do(r)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return nil
	} else if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("healthz: %s", answer.Status))
	}
	return nil
}

// selfAddr is where the gateway reaches itself.
func (g *Gateway) selfAddr() string {
	addr := g.listener.Addr().(*net.TCPAddr).AddrPort()
	if addr.Addr().IsUnspecified() {
		loopback := netip.IPv6Loopback()
		if addr.Addr().Is4() || addr.Addr().Is4In6() {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		addr = netip.AddrPortFrom(loopback, addr.Port())
	}
	return addr.String()
}

func (g *Gateway) httpsName() string {
	if g.https == nil {
		return ""
	}
	return g.https.Name()
}

// scarceFiles is how few free file descriptors are a shortage.
const scarceFiles = 16

// freeFiles is how many file descriptors the process may still open.
func freeFiles() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	return int(min(limit.Cur, 1<<30)) - (len(names) - 1), nil // without the folder's own
}
