package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"

	"gateway/internal/config"
)

// machineGrant is what the certificate of a connection grants, whose chain the TLS
// handshake has verified (https.client_ca): the entry of auth.machines that has one
// of its names, the alternative names (RFC 5280 §4.2.1.6) before the common name.
// It ends with the certificate.
func machineGrant(machines map[string]config.Machine, state *tls.ConnectionState) (*Grant, error) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil, ErrNoToken
	}
	c := state.VerifiedChains[0][0]
	for _, name := range namesOf(c) {
		m, ok := machines[name]
		if !ok {
			continue
		}
		subject := "machine-" + name[:min(len(name), maxName-len("machine-"))]
		return &Grant{
			Subject: subject, origins: []origin{{Subject: subject}}, Name: shown(name),
			Role: Role(m.Role), Rooms: m.Rooms, Streams: m.Streams, Expires: c.NotAfter,
		}, nil
	}
	return nil, fmt.Errorf("%w: none of the certificate's names is listed under auth.machines", ErrUnauthorized)
}

// Unclaimed takes from a request what a browser adds to it by itself, whatever page has
// it made: the cookie, and the certificate of its machine. A token in a header or in a
// message stays.
func Unclaimed(r *http.Request) {
	r.Header.Del("Cookie")
	if r.TLS != nil {
		state := *r.TLS
		state.PeerCertificates, state.VerifiedChains = nil, nil
		r.TLS = &state
	}
}

func namesOf(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	if c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	return names
}
