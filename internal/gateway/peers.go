package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/auth"
)

// proxied has requests that a trusted proxy passes on count as the client's: by
// X-Forwarded-For, read from its end, where the proxies themselves write, up to the first
// address that isn't one of theirs. What a client writes in front of it counts for nothing.
func (g *Gateway) proxied(next http.Handler) http.Handler {
	if len(g.conf.HTTP.TrustedProxies) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && g.trusts(peer.Addr()) {
			hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
			for _, hop := range slices.Backward(hops) {
				a, ok := addressIn(hop)
				if !ok {
					break // of who has written no address the one behind it is known
				}
				r.RemoteAddr = netip.AddrPortFrom(a, 0).String()
				if !g.trusts(a) {
					break
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// addressIn reads one entry of X-Forwarded-For, which some proxies write with a port.
func addressIn(hop string) (netip.Addr, bool) {
	hop = strings.TrimSpace(hop)
	if p, err := netip.ParseAddrPort(hop); err == nil {
		return p.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(hop, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

func (g *Gateway) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.conf.HTTP.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// connections are the TCP connections of each address, on all ports.
type connections struct {
	most    int // of each address; 0: no limit
	trusts  func(netip.Addr) bool
	refused prometheus.Counter

	mu    sync.Mutex // guards below; held for a moment
	known map[string]int
}

func (g *Gateway) newConnections() *connections {
	c := &connections{most: g.conf.Limits.ConnsPerAddress, trusts: g.trusts, known: make(map[string]int), refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gateway_connections_refused_total", Help: "TCP connections beyond limits.connections_per_address.",
	})}
	if c.most > 0 {
		g.registry.MustRegister(c.refused)
	}
	return c
}

// capped is a listener that takes so many connections of one address at a time. Who has
// more of them is hung up on at once, before anything is read or encrypted.
type capped struct {
	net.Listener
	*connections
}

func (c *connections) capped(inner net.Listener) net.Listener {
	if c.most == 0 {
		return inner
	}
	return capped{inner, c}
}

// Accept implements net.Listener.
func (l capped) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := c.RemoteAddr().String()
		if p, err := netip.ParseAddrPort(peer); err == nil && l.trusts(p.Addr()) {
			return c, nil
		}
		address := auth.AddressOf(peer)
		if l.enter(address) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.leave(address) })}, nil
		}
		l.refused.Inc()
		c.Close()
	}
}

func (c *connections) enter(address string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[address] >= c.most {
		return false
	}
	c.known[address]++
	return true
}

func (c *connections) leave(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[address]--; c.known[address] == 0 {
		delete(c.known, address)
	}
}

// counted is a connection that makes room when it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
