package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Behind a proxy that is trusted, each client has an address of its own; what he writes
// about himself, and what comes from elsewhere, counts for nothing.
func TestClientsOfATrustedProxyAreToldApart(t *testing.T) {
	h := newHouse(t, "http: {trusted_proxies: [192.0.2.1, '2001:db8:1::/48']}\n")
	seen := ""
	handler := h.proxied(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.RemoteAddr }))
	for _, c := range []struct{ peer, header, want string }{
		{"198.51.100.7:99", "203.0.113.1", "198.51.100.7:99"}, // no proxy
		{"192.0.2.1:99", "203.0.113.1", "203.0.113.1:0"},
		{"[::ffff:192.0.2.1]:99", "203.0.113.1", "203.0.113.1:0"},
		{"192.0.2.1:99", "127.0.0.1, 10.0.0.1, 203.0.113.1", "203.0.113.1:0"}, // the rest he has written himself
		{"192.0.2.1:99", "203.0.113.1, 2001:db8:1::5,192.0.2.1", "203.0.113.1:0"},
		{"192.0.2.1:99", "[2001:db8:9::1]:4711", "[2001:db8:9::1]:0"},
		{"192.0.2.1:99", "203.0.113.1:4711", "203.0.113.1:0"},
		{"192.0.2.1:99", "203.0.113.1, unknown", "192.0.2.1:99"},
		{"192.0.2.1:99", "", "192.0.2.1:99"},
		{"192.0.2.1:99", "2001:db8:1::5", "[2001:db8:1::5]:0"}, // the proxy itself asks
		{"192.0.2.1:99", strings.Repeat("x,", 5000) + "203.0.113.1", "203.0.113.1:0"},
		{"nonsense", "203.0.113.1", "nonsense"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": {c.header}}}
		if handler.ServeHTTP(nil, r); seen != c.want {
			t.Errorf("%s for %.60q is %s, want %s", c.peer, c.header, seen, c.want)
		}
	}
}

// One client's guesses behind the proxy don't lock out the next one.
func TestLoginsBehindAProxyAreThrottledByClient(t *testing.T) {
	for name, c := range map[string]struct {
		conf string
		want int
	}{"trusted": {"http: {trusted_proxies: [127.0.0.1]}\n", http.StatusUnauthorized}, "not trusted": {"", http.StatusTooManyRequests}} {
		h := newHouse(t, c.conf)
		login := func(client string) int {
			answer, _ := ask(t, "POST", h.url+"/api/session", `{"user": "`+client+`", "password": "wrong password"}`, "X-Forwarded-For", client)
			return answer.StatusCode
		}
		for login("203.0.113.1") != http.StatusTooManyRequests {
		}
		if got := login("203.0.113.2"); got != c.want {
			t.Errorf("%s: another client's login is answered by %d, want %d", name, got, c.want)
		}
	}
}

// An address has so many connections at a time; one that is closed makes room.
func TestConnectionsOfAnAddressAreLimited(t *testing.T) {
	h := newHouse(t, "limits: {connections_per_address: 5}\n")
	http.DefaultClient.CloseIdleConnections()
	open := func() (net.Conn, bool) {
		c, err := net.Dial("tcp", h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", h.Addr())
		first := make([]byte, 8)
		_, err = io.ReadFull(c, first)
		return c, err == nil
	}
	var taken []net.Conn
	for len(taken) < 5 {
		c, ok := open()
		if !ok {
			t.Fatalf("connection %d is refused", len(taken)+1)
		}
		taken = append(taken, c)
	}
	for range 3 {
		if _, ok := open(); ok {
			t.Error("a sixth connection is taken")
		}
	}
	taken[0].Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, ok := open(); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no room after one was closed")
		}
	}
}

// The port of the redirects was open to as many connections as there are file descriptors, and each
// could wait there with half a request.
func TestRedirectsCountAmongTheConnectionsOfAnAddress(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	redirect := free.Addr().String()
	free.Close()
	h := newHouse(t, "limits: {connections_per_address: 5}\nhttps: {self_signed: true, redirect: '"+redirect+"'}\n")
	open := func(address, text string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, text)
		return c
	}
	redirects := func(address string) bool { // one is answered, one too many isn't
		first := make([]byte, 12)
		io.ReadFull(open(address, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), first)
		return string(first) == "HTTP/1.1 308"
	}
	var half []net.Conn
	for range 5 {
		half = append(half, open(redirect, "GET / HTTP/1.1\r\nHost"))
	}
	for _, address := range []string{redirect, h.Addr().String()} {
		if redirects(address) {
			t.Errorf("a sixth connection is taken, at %s", address)
		}
	}
	for _, c := range half {
		c.Close()
	}
	for _, address := range []string{redirect, h.Addr().String()} {
		for deadline := time.Now().Add(20 * time.Second); !redirects(address); {
			if time.Now().After(deadline) {
				t.Fatal("no room after they were closed")
			}
		}
	}
}
