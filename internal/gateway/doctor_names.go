package gateway

import (
	"context"
	"regexp"
	"slices"
	"sync"

	"gateway/internal/config"
)

// names looks up the hosts that the configuration and the pipeline files name.
func (d *doctor) names(ctx context.Context) (all []checked) {
	const area = "names"
	hosts := d.hosts()
	if len(hosts) == 0 {
		return []checked{ok(area, "no host is named: the DNS isn't needed")}
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	unknowns := make([]*unknown, len(hosts))
	var looking sync.WaitGroup
	for i, h := range hosts {
		looking.Go(func() { unknowns[i] = lookUp(ctx, h.host) })
	}
	looking.Wait()
	var found []string
	for i, h := range hosts {
		u := unknowns[i]
		if u == nil {
			found = append(found, h.host)
			continue
		}
		remedy := "look at /etc/resolv.conf, and whether its servers can be reached; it is looked up again by itself"
		if u.missing() {
			remedy = "mend it, or have the DNS or /etc/hosts know it; it is looked up again by itself"
		}
		all = append(all, checked{area, warn, h.where + ": " + u.Error(), remedy})
	}
	if len(found) > 0 {
		all = append(all, ok(area, "%s: found", and(found)))
	}
	return all
}

// named is a host that is named rather than numbered, and where.
type named struct{ host, where string }

var iceHost = regexp.MustCompile(`^(?:stuns?|turns?):(\[[^\]]*\]|[^:?]*)`) // RFC 7064, RFC 7065

// hosts lists those that are named, each once.
func (d *doctor) hosts() (all []named) {
	add := func(host, where string) {
		if isName(host) && !slices.ContainsFunc(all, func(n named) bool { return n.host == host }) {
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
		for _, text := range texts {
			for _, host := range hostsOf(text) {
				add(host, "stream "+s.Name)
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
