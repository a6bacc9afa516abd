package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gateway/internal/config"
	"gateway/internal/stream"
)

// maxSupport bounds what is read of a gateway's answer, in bytes.
const maxSupport = 16 << 20

// ask reads /api/support of the gateway that runs with these settings. serves tells
// whether one answers at all. The error is why it tells nothing.
func (s Settings) ask(ctx context.Context) (answer *support, serves bool, err error) {
	client, base, err := s.own(10 * time.Second)
	if err != nil {
		return nil, false, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/support", nil)
	if err != nil {
		return nil, false, err
	}
	var untold error
	if s.conf.Auth.Mode != config.AuthNone {
		token, err := s.ownToken()
		if err != nil { // it is seen at least whether one serves
			untold = err
			r.URL.Path = "/healthz"
		} else {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
	got, err := client.Do(r)
	if err != nil {
		return nil, false, err
	}
	defer got.Body.Close()
	if got.Header.Get("X-Trace-ID") == "" {
		return nil, false, errors.New("what answers there is no gateway")
	}
	if r.URL.Path == "/healthz" {
		return nil, true, untold
	}
	if got.StatusCode != http.StatusOK {
		return nil, true, fmt.Errorf("it answers %s", got.Status)
	}
	answer = new(support)
	if err := json.NewDecoder(io.LimitReader(got.Body, maxSupport)).Decode(answer); err != nil {
		return nil, true, err
	}
	return answer, true, nil
}

// gateway asks the one that runs, if one does.
func (d *doctor) gateway(ctx context.Context) (all []checked) {
	const area = "gateway"
	answer, serves, err := d.settings.ask(ctx)
	d.running, d.serves = answer, serves
	switch {
	case !serves:
		return []checked{ok(area, "none runs on %s", d.settings.conf.Listen)}
	case err != nil:
		return []checked{{area, warn, "one serves " + d.settings.conf.Listen + ", and tells nothing: " + err.Error(), "run this as the gateway's user, with its -config"}}
	}
	all = append(all, ok(area, "%s serves %s since %s, as process %d", answer.Version, d.settings.conf.Listen, answer.Began.Format(time.DateTime), answer.PID))
	for _, s := range answer.Streams {
		if s.State == stream.Absent || s.State == stream.Restarting {
			all = append(all, checked{"stream " + s.Name, warn, fmt.Sprintf("%s: %s", s.State, s.Reason), "what it names is in its way; it is tried again by itself"})
		}
	}
	for _, c := range answer.Crashes {
		all = append(all, checked{"crash", warn, fmt.Sprintf("%s: %s: %s", c.At.Format(time.DateTime), c.Where, c.What), "report it: gateway bundle packs what is needed"})
	}
	return all
}

// ports tries to open what the gateway would.
func (d *doctor) ports(context.Context) []checked {
	conf := d.settings.conf
	_, text, _ := net.SplitHostPort(conf.Listen) // checked by config
	port, err := net.LookupPort("tcp", text)
	if err != nil {
		return []checked{{"TCP port", fail, err.Error(), "name another in listen"}}
	}
	tcp := ok("TCP port", "%d is free", port)
	if l, err := net.Listen("tcp", conf.Listen); err == nil {
		l.Close()
	} else if d.serves && errors.Is(err, syscall.EADDRINUSE) {
		tcp = ok("TCP port", "%d is the running gateway's", port)
	} else {
		finding, remedy, _ := strings.Cut(refused(conf.Listen, err).Error(), "; ")
		if who, rest, found := strings.Cut(remedy, "; "); found {
			finding, remedy = finding+": "+who, rest
		}
		tcp = checked{"TCP port", fail, finding, remedy}
	}
	if conf.ICE.UDPPort != 0 {
		port = conf.ICE.UDPPort
	}
	return []checked{tcp, d.udp(port)}
}

// udp tries the media port on every address of this machine.
func (d *doctor) udp(port int) checked {
	for _, addr := range d.local() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
		switch {
		case err == nil:
			c.Close()
		case d.serves && errors.Is(err, syscall.EADDRINUSE):
			return ok("UDP port", "%d is the running gateway's", port)
		case errors.Is(err, syscall.EADDRINUSE):
			who := append(holders("udp", port), "another program")[0]
			return checked{"UDP port", fail, fmt.Sprintf("%d on %s is taken: %s has it", port, addr, who), "stop that program, or set ice.udp_port to another number"}
		default:
			return checked{"UDP port", warn, err.Error(), "the address may be on its way; if it stays so, limit ice.interfaces"}
		}
	}
	return ok("UDP port", "%d is free on all addresses", port)
}

// local are the addresses by which viewers may come, loopback left out.
func (d *doctor) local() (addrs []netip.Addr) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	wanted := d.settings.conf.ICE.Interfaces
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || len(wanted) > 0 && !slices.Contains(wanted, i.Name) {
			continue
		}
		all, err := i.Addrs()
		if err != nil {
			continue // it went away
		}
		for _, a := range all {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() {
				addrs = append(addrs, p.Addr())
			}
		}
	}
	return addrs
}

// addresses tells who can reach the gateway.
func (d *doctor) addresses(context.Context) []checked {
	const area = "addresses"
	conf := d.settings.conf
	for _, name := range conf.ICE.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			return []checked{{area, fail, fmt.Sprintf("ice.interfaces names %q, which isn't here", name), "name interfaces of ip -br address, or remove the key"}}
		}
	}
	local := d.local()
	texts := make([]string, len(local))
	private := true
	for i, a := range local {
		texts[i] = a.String()
		private = private && a.IsPrivate()
	}
	if len(local) == 0 {
		return []checked{{area, warn, "loopback only: no network is up", "connect this machine, unless only its own browser is to watch"}}
	}
	host, _, _ := net.SplitHostPort(conf.Listen)
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return []checked{ok(area, "%s; pages are for this machine alone (listen: %s)", and(texts), conf.Listen)}
	}
	if private && len(conf.ICE.PublicAddresses) == 0 {
		return []checked{ok(area, "%s: viewers beyond a router need ice.public_addresses and a forwarded port", and(texts))}
	}
	return []checked{ok(area, "%s", and(slices.Concat(texts, conf.ICE.PublicAddresses)))}
}

// soonEnds is how long before its end a certificate is told of.
const soonEnds = 14 * 24 * time.Hour

// https looks at the certificate: the one that is served, else the one of the files.
func (d *doctor) https(ctx context.Context) []checked {
	const area = "certificate"
	conf := d.settings.conf.HTTPS
	if !conf.On() {
		return []checked{ok("HTTPS", "off: cameras and microphones of others' browsers take HTTPS, or localhost")}
	}
	var leaf *x509.Certificate
	if d.serves {
		client, base, err := d.settings.own(5 * time.Second)
		if err == nil {
			config := client.Transport.(*http.Transport).TLSClientConfig
			dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
			var conn net.Conn
			if conn, err = dialer.DialContext(ctx, "tcp", strings.TrimPrefix(base, "https://")); err == nil {
				defer conn.Close()
				leaf = conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
			}
		}
		if err != nil {
			return []checked{{area, fail, err.Error(), "the gateway's log has the reason"}}
		}
	} else if conf.Cert != "" {
		pair, err := tls.LoadX509KeyPair(conf.Cert, conf.Key)
		if err != nil {
			return []checked{{area, fail, err.Error(), "name the PEM files of a certificate and its key in https.cert and https.key"}}
		}
		leaf = pair.Leaf
	} else {
		return []checked{ok(area, "it is made, or got, at start")}
	}
	until := "for " + and(leaf.DNSNames) + " until " + leaf.NotAfter.Format(time.DateOnly)
	switch left := time.Until(leaf.NotAfter); {
	case left <= 0:
		return []checked{{area, fail, "it has ended: " + until, "renew it; then: systemctl reload gateway"}}
	case left < soonEnds:
		return []checked{{area, warn, until, "renew it; then: systemctl reload gateway"}}
	case time.Until(leaf.NotBefore) > 0:
		return []checked{{area, fail, "it begins " + leaf.NotBefore.Format(time.DateTime) + ", later than now", "set the clock"}}
	}
	return []checked{ok(area, "%s", until)}
}

// network looks at what the kernel gives to the media port.
func (d *doctor) network(context.Context) []checked {
	const area, enough, many = "UDP buffers", 4 << 20, 100
	text, err := os.ReadFile("/proc/sys/net/core/wmem_max")
	size, parsed := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || parsed != nil {
		return []checked{ok(area, "the kernel doesn't tell (a container's network)")}
	}
	if n := d.viewers(); size < enough && n > many {
		return []checked{{area, warn, fmt.Sprintf("%s at most for %d viewers", bytesText(size), n), "sudo sysctl -w net.core.wmem_max=8388608 net.core.rmem_max=8388608"}}
	}
	return []checked{ok(area, "%s at most; for hundreds of viewers 8 MiB are better (net.core.wmem_max)", bytesText(size))}
}

// viewers is how many the running gateway has.
func (d *doctor) viewers() (n int) {
	if d.running != nil {
		for _, s := range d.running.Streams {
			n += s.Viewers
		}
	}
	return n
}
