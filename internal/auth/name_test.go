package auth

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gateway/internal/config"
)

// names are what somebody may write as a name, and what others see of it.
var names = map[string]string{
	"":                                  "",
	"Ann Müller":                        "Ann Müller",
	"  Ann\t":                           "Ann",
	"Ann\nadmin: all of you":            "Annadmin: all of you",
	"\u202eevil\u2066":                  "evil",
	"a\u2028b\u2029c\x00\x7f":           "abc",
	"a\xffb\u0085":                      "ab",
	strings.Repeat("é", 33):             strings.Repeat("é", 32),
	"x" + strings.Repeat("é", 40):       "x" + strings.Repeat("é", 31),
	strings.Repeat("x", 63) + " " + "y": strings.Repeat("x", 63),
}

func TestNamesAreShownOnOneLine(t *testing.T) {
	for name, want := range names {
		if got := shown(name); got != want || shown(got) != got {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}

// What others write into a token or a certificate reaches everybody in a room. It is cleaned
// where it is read: who brings it can't help it. What is made here is refused instead.
func TestGrantsHaveNamesThatCanBeShown(t *testing.T) {
	c := newClock()
	paths, signers := keyFiles(t)
	a := authority(t, c, config.Auth{Mode: config.AuthJWT, Keys: paths, Machines: map[string]config.Machine{"\u202elan\n": {Role: "viewer", Rooms: []string{"*"}}}})
	maker := &Grant{Role: Admin, Rooms: []string{"*"}}
	for name, want := range names {
		claims := claimsUntil(c.now().Add(time.Hour))
		claims["name"] = name
		g, err := a.Authenticate(t.Context(), forge(t, signers["ed"].method, signers["ed"].key, nil, claims))
		if err != nil || utf8.ValidString(name) && g.Name != want { // JSON has its own way with what is no UTF-8
			t.Errorf("a token of %q is of %+v, %v", name, g, err)
		}
		made := &Grant{Name: name, Role: Viewer, Rooms: []string{"lobby"}}
		_, issued := a.Issue(made, time.Hour)
		_, _, shared := a.Share(maker, made, time.Hour, time.Hour)
		if ok := name == want; ok != (issued == nil) || ok != (shared == nil) {
			t.Errorf("%q in a token: %v, in a link: %v", name, issued, shared)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{DNSNames: []string{"\u202elan\n"}, NotAfter: c.now().Add(time.Hour)}}}}
	if g, err := a.FromRequest(r); err != nil || g.Name != "lan" {
		t.Errorf("the machine is %+v, %v", g, err)
	}
}
