package gateway

import (
	"net"
	"net/netip"
	"time"

	"gateway/internal/https"
)

// startHTTPS gets the certificate where HTTPS is configured.
func (g *Gateway) startHTTPS() (err error) {
	if !g.conf.HTTPS.On() {
		return nil
	}
	names := g.conf.ICE.PublicAddresses
	if host, _, err := net.SplitHostPort(g.conf.Listen); err == nil {
		if a, err := netip.ParseAddr(host); host != "" && (err != nil || !a.IsUnspecified()) {
			names = append([]string{host}, names...)
		}
	}
	g.https, err = https.New(https.Options{
		Config: g.conf.HTTPS, State: g.conf.State, Port: g.listener.Addr().(*net.TCPAddr).Port, Names: names,
		Logger: g.log, Registerer: g.registry, Guard: g.guarded,
	})
	return err
}

func (g *Gateway) stopHTTPS() error {
	if g.https == nil {
		return nil
	}
	return g.https.Close()
}

// guarded is a listener with the limits that hold for all ports together.
func (g *Gateway) guarded(l net.Listener) net.Listener {
	return patient{g.conns.capped(l), g.log, new(time.Time)}
}

// accepted is where the connections come from.
func (g *Gateway) accepted() net.Listener {
	l := g.guarded(g.listener)
	if g.https == nil {
		return l
	}
	return g.https.Listener(l)
}

func (g *Gateway) scheme() string {
	if g.https == nil {
		return "http"
	}
	return "https"
}

// URL is the gateway's address without a slash at its end, as one types it into a
// browser on this machine, or, with a certificate for a name, anywhere.
func (g *Gateway) URL() string {
	host, port, err := net.SplitHostPort(g.Addr().String())
	if err != nil {
		return g.scheme() + "://" + g.Addr().String()
	}
	if a, err := netip.ParseAddr(host); err == nil && (a.IsUnspecified() || a.IsLoopback()) {
		host = "localhost"
	}
	if g.https != nil && g.https.Name() != "" {
		host, port = g.https.Name(), g.https.Port()
	}
	switch {
	case port == "":
		return g.scheme() + "://" + host
	default:
		return g.scheme() + "://" + net.JoinHostPort(host, port)
	}
}

// Fingerprint is the SHA-256 of the certificate that the gateway has made for
// itself, which browsers show when they ask; "" when it has made none.
func (g *Gateway) Fingerprint() string {
	if g.https == nil {
		return ""
	}
	return g.https.Fingerprint()
}
