package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"gateway/internal/config"
)

// A connection that is kept open outlasts its certificate, which only the handshake looks at.
func TestCertificatesEndOnOpenConnections(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{Machines: map[string]config.Machine{"camera.lan": {Role: "publisher", Rooms: []string{"hall"}}}})
	cert := &x509.Certificate{DNSNames: []string{"camera.lan"}, NotAfter: c.now().Add(time.Hour)}
	r := httptest.NewRequest(http.MethodGet, "/api/session", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	if _, err := a.FromRequest(r); err != nil {
		t.Error(err)
	}
	c.advance(time.Hour)
	if g, err := a.FromRequest(r); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestMachinesAreKnownByTheirCertificates(t *testing.T) {
	a, err := New(Options{State: t.TempDir(), Config: &config.Auth{Mode: config.AuthToken, Machines: map[string]config.Machine{
		"camera.lan":         {Role: "publisher", Rooms: []string{"hall"}},
		"spiffe://lab/robot": {Role: "viewer", Rooms: []string{"*"}},
		"robot":              {Role: "admin", Rooms: []string{"*"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	robot := &url.URL{Scheme: "spiffe", Host: "lab", Path: "/robot"}
	for _, c := range []struct {
		name     string
		cert     *x509.Certificate
		verified bool
		want     string // subject; "": refused
		role     Role
	}{
		{"host name", &x509.Certificate{DNSNames: []string{"other.lan", "camera.lan"}, NotAfter: until}, true, "machine-camera.lan", Publisher},
		{"common name", &x509.Certificate{Subject: pkix.Name{CommonName: "robot"}, NotAfter: until}, true, "machine-robot", Admin},
		{"URI before the common name", &x509.Certificate{URIs: []*url.URL{robot}, Subject: pkix.Name{CommonName: "robot"}, NotAfter: until}, true, "machine-spiffe://lab/robot", Viewer},
		{"not listed", &x509.Certificate{DNSNames: []string{"x.camera.lan"}, NotAfter: until}, true, "", ""},
		{"no names", &x509.Certificate{NotAfter: until}, true, "", ""},
		{"not verified", &x509.Certificate{DNSNames: []string{"camera.lan"}, NotAfter: until}, false, "", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert}}
		if c.verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{c.cert}}
		}
		g, err := a.FromRequest(r)
		if c.want == "" {
			if !errors.Is(err, ErrUnauthorized) {
				t.Errorf("%s: %+v, %v", c.name, g, err)
			}
			continue
		}
		if err != nil || g.Subject != c.want || g.Role != c.role || !g.Expires.Equal(until) {
			t.Errorf("%s: %+v, %v", c.name, g, err)
		}
	}

	// a token that is given is what counts, also a bad one
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	cert := &x509.Certificate{DNSNames: []string{"camera.lan"}, NotAfter: until}
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	r.Header.Set("Authorization", "Bearer "+a.AdminToken())
	if g, err := a.FromRequest(r); err != nil || g.Role != Admin {
		t.Errorf("%+v, %v", g, err)
	}
	r.Header.Set("Authorization", "Bearer nonsense")
	if g, err := a.FromRequest(r); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("%+v, %v", g, err)
	}
}

// A page's request brings the cookie and the certificate whoever wrote the page; a token it
// brings only if the page has it.
func TestUnclaimedRequestsBringWhatThePageHas(t *testing.T) {
	c := newClock()
	a := authority(t, c, config.Auth{Machines: map[string]config.Machine{"kiosk.lan": {Role: "admin", Rooms: []string{"*"}}}})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	state := &tls.ConnectionState{HandshakeComplete: true, VerifiedChains: [][]*x509.Certificate{{{DNSNames: []string{"kiosk.lan"}, NotAfter: c.now().Add(time.Hour)}}}}
	r.TLS = state
	r.Header.Set("Cookie", Cookie+"="+a.AdminToken())
	Unclaimed(r)
	if g, err := a.FromRequest(r); err == nil {
		t.Errorf("it is still %+v", g)
	}
	if !r.TLS.HandshakeComplete || state.VerifiedChains == nil {
		t.Error("the request came by TLS, and the connection is of others too")
	}
	r.Header.Set("Authorization", "Bearer "+a.AdminToken())
	if _, err := a.FromRequest(r); err != nil {
		t.Error(err)
	}
}
