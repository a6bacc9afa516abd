package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"gateway/internal/config"
)

// nameTimeout is how long names are looked up, all at once.
const nameTimeout = 5 * time.Second

// named is a host that is named rather than numbered, and where.
type named struct{ host, where string }

// names looks up the hosts that the configuration and the pipeline files name.
func (d *doctor) names(ctx context.Context) (all []checked) {
	const area = "names"
	hosts := d.hosts()
	if len(hosts) == 0 {
		return []checked{ok(area, "no host is named: the DNS isn't needed")}
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	errs := make([]error, len(hosts))
	var looking sync.WaitGroup
	for i, h := range hosts {
		looking.Go(func() { _, errs[i] = net.DefaultResolver.LookupHost(ctx, h.host) })
	}
	looking.Wait()
	var found []string
	for i, h := range hosts {
		var fault *net.DNSError
		switch {
		case errs[i] == nil:
			found = append(found, h.host)
		case errors.As(errs[i], &fault) && fault.IsNotFound:
			all = append(all, checked{area, warn, fmt.Sprintf("%s (%s): there is no such name", h.host, h.where), "mend it, or have the DNS or /etc/hosts know it; it is looked up again by itself"})
		default:
			all = append(all, checked{area, warn, fmt.Sprintf("%s (%s): %v", h.host, h.where, errs[i]), "look at /etc/resolv.conf, and whether its servers can be reached; it is looked up again by itself"})
		}
	}
	if len(found) > 0 {
		all = append(all, ok(area, "%s: found", and(found)))
	}
	return all
}

var (
	urlHost = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/@]*@)?(\[[^\]]*\]|[^/:?#]*)`)
	iceHost = regexp.MustCompile(`^(?:stuns?|turns?):(\[[^\]]*\]|[^:?]*)`) // RFC 7064, RFC 7065
)

// hosts lists those that are named, each once.
func (d *doctor) hosts() (all []named) {
	add := func(host, where string) {
		host = strings.Trim(host, "[]")
		if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" {
			return
		}
		if !slices.ContainsFunc(all, func(n named) bool { return n.host == host }) {
			all = append(all, named{host, where})
		}
	}
	from := func(pattern *regexp.Regexp, text, where string) {
		if m := pattern.FindStringSubmatch(text); m != nil {
			add(m[1], where)
		}
	}
	conf := d.settings.conf
	from(urlHost, conf.Auth.JWKS, "auth.jwks")
	for _, s := range conf.ICE.Servers {
		for _, u := range s.URLs {
			from(iceHost, u, "ice.servers")
		}
	}
	if acme := conf.HTTPS.ACME; len(acme.Domains) > 0 {
		from(urlHost, acme.Directory, "https.acme.directory")
		for _, domain := range acme.Domains {
			add(domain, "https.acme.domains")
		}
	}
	for _, s := range d.streams() {
		texts := []string{s.Source, s.Launch}
		if s.Audio != nil {
			texts = append(texts, s.Audio.Source)
		}
		for _, p := range properties(texts) {
			switch p.Name {
			case "location", "uri", "url":
				from(urlHost, p.Value, "stream "+s.Name)
			case "host":
				add(p.Value, "stream "+s.Name)
			}
		}
	}
	return all
}

// streams reads the pipeline files that can be read; the others are told of elsewhere.
func (d *doctor) streams() (all []*config.Stream) {
	table, err := encodersOf(d.settings.conf)
	if err != nil {
		return nil
	}
	files, err := config.ListFolder(d.settings.conf.Pipelines)
	if err != nil {
		return nil
	}
	for _, path := range files {
		if s, err := config.LoadStream(path, table); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// properties are those of all elements in launch texts.
func properties(texts []string) (all []config.LaunchProp) {
	for _, text := range texts {
		nodes, _ := config.ParseLaunch(text) // it was parsed before
		for _, n := range nodes {
			all = append(all, n.Props...)
		}
	}
	return all
}
