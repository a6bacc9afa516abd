package config

import (
	"net/netip"
	"net/url"
	"strings"
)

// HTTP is what browsers of other sites may do, and what is between them and the gateway.
type HTTP struct {
	AllowedOrigins []string       // origins beside the gateway's own, such as "https://example.org"; "*" for all
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
}

func readHTTP(m *mapping) (h HTTP) {
	for _, n := range m.list("allowed_origins") {
		u, err := url.Parse(n.Value)
		if n.Value != "*" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil) {
			m.d.fault(n, "http.allowed_origins", quote(n.Value)+" is not an origin", "write scheme and host, such as https://example.org, without a path")
			continue
		}
		h.AllowedOrigins = append(h.AllowedOrigins, strings.ToLower(n.Value))
	}
	for _, n := range m.list("trusted_proxies") {
		p, err := netip.ParsePrefix(n.Value)
		if a, e := netip.ParseAddr(n.Value); e == nil && a.Zone() == "" {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil || p.Masked() != p || p.Bits() == 0 {
			m.d.fault(n, "http.trusted_proxies", quote(n.Value)+" is not the address of a proxy, nor a network of some", "write such as 127.0.0.1, ::1 or 10.0.0.0/8")
			continue
		}
		h.TrustedProxies = append(h.TrustedProxies, p)
	}
	return h
}
