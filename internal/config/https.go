package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// LetsEncrypt is the ACME directory that certificates come from unless told otherwise.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// HTTPS is how the gateway serves HTTPS on Listen, in place of HTTP. The
// certificate is one of: that of Cert and Key; one from ACME; one that the gateway
// makes for itself. The last two can be together: names that ACME isn't asked for,
// and addresses, then get the gateway's own.
type HTTPS struct {
	Cert       string // PEM file: the certificate, and those that link it to its CA
	Key        string // PEM file: its key
	SelfSigned bool
	Names      []string // of the self-signed certificate, beside the machine's own: host names and IP addresses
	ACME       ACME
	ClientCA   string        // PEM file: who signs the certificates of machines; "": none is asked for
	Redirect   string        // address of plain HTTP that leads to HTTPS, such as ":80"; "": none
	PublicPort int           // port that browsers use where it isn't Listen's; 0: it is
	HSTS       time.Duration // how long browsers are to insist on HTTPS (RFC 6797); 0: not told
}

// ACME is where certificates are got from by RFC 8555.
type ACME struct {
	Domains   []string // empty: ACME isn't used
	Email     string   // of the account; may be empty
	Directory string   // URL; default LetsEncrypt
	Roots     string   // PEM file: who signs the directory's own certificate; "": the system's
}

// On tells whether HTTPS is served.
func (h *HTTPS) On() bool { return h.Cert != "" || h.SelfSigned || len(h.ACME.Domains) > 0 }

var httpsKeys = []key{
	{path: "https", kind: ofSection, meaning: "HTTPS on listen, in place of HTTP: by cert and key, self_signed or acme"},
	{path: "https.cert", kind: ofText, def: `""`, example: "/etc/gateway/cert.pem", meaning: "PEM file of the certificate and those that link it to its CA; read again when it changes"},
	{path: "https.key", kind: ofText, def: `""`, example: "/etc/gateway/key.pem", meaning: "PEM file of its key"},
	{path: "https.self_signed", kind: ofFlag, def: "false", meaning: "make a certificate for this machine's names and addresses, kept in the state folder; browsers ask before they take it"},
	{path: "https.names", kind: ofTexts, def: "[]", example: "[camera.lan, 192.0.2.7]", meaning: "further names and addresses of the self-signed certificate"},
	{path: "https.acme", kind: ofSection, meaning: "a certificate from Let's Encrypt or another ACME server"},
	{path: "https.acme.domains", kind: ofTexts, def: "[]", example: "[cam.example.org]", meaning: "names to get certificates for, which accepts the server's terms; empty: ACME isn't used"},
	{path: "https.acme.email", kind: ofText, def: `""`, example: "admin@example.org", meaning: "where the ACME server may write to"},
	{path: "https.acme.directory", kind: ofText, def: LetsEncrypt, meaning: "URL of the ACME server's directory"},
	{path: "https.acme.roots", kind: ofText, def: `""`, example: "/etc/gateway/acme-root.pem", meaning: "PEM file of the CA of the ACME server itself; empty: those that the system trusts"},
	{path: "https.client_ca", kind: ofText, def: `""`, example: "/etc/gateway/machines.pem", meaning: "PEM file of the CA whose certificates machines may show (mTLS); read again when it changes"},
	{path: "https.redirect", kind: ofText, def: `""`, example: ":80", meaning: "address of plain HTTP that leads to HTTPS and answers ACME's http-01; empty: none"},
	{path: "https.public_port", kind: ofCount, def: "0", least: 0, most: 65535, meaning: "port that browsers use, where a router or container maps another one to listen; 0: the port of listen"},
	{path: "https.hsts", kind: ofDuration, def: "0s", least: 0, most: 2 * 365 * 24 * 3600, example: "4320h", meaning: "how long browsers are to refuse plain HTTP for this host (Strict-Transport-Security); 0s: they aren't told"},
}

func readHTTPS(m *mapping, listen string) HTTPS {
	h := HTTPS{
		Cert: m.text("cert", "", 4096), Key: m.text("key", "", 4096), SelfSigned: m.boolean("self_signed", false),
		ClientCA: m.text("client_ca", "", 4096), Redirect: m.text("redirect", "", 255),
		PublicPort: m.integer("public_port", 0, "(0: the port of listen)"), HSTS: m.duration("hsts", 0),
	}
	for _, n := range m.list("names") {
		name := strings.ToLower(n.Value)
		if _, err := netip.ParseAddr(name); err != nil && !hostName.MatchString(strings.TrimPrefix(name, "*.")) {
			m.d.fault(n, "https.names", quote(n.Value)+" is neither a host name nor an IP address", "write one such as camera.lan")
			continue
		}
		h.Names = append(h.Names, name)
	}
	h.ACME = readACME(m.d.mapping(m.value("acme"), "https.acme"))

	switch {
	case (h.Cert == "") != (h.Key == ""):
		missing, there := "key", "cert"
		if h.Cert == "" {
			missing, there = there, missing
		}
		m.fault(there, "https."+missing+" is missing", "name both files")
	case h.Cert != "" && (h.SelfSigned || len(h.ACME.Domains) > 0):
		m.fault("cert", "there is another certificate too", "keep one of cert and key, self_signed or acme, or the last two together")
	}
	if !h.On() {
		for name, set := range map[string]bool{
			"names": len(h.Names) > 0, "client_ca": h.ClientCA != "", "redirect": h.Redirect != "", "public_port": h.PublicPort != 0, "hsts": h.HSTS != 0,
		} {
			if set && h.Key == "" {
				m.fault(name, "HTTPS isn't served", "set cert and key, self_signed: true or acme.domains")
			}
		}
	}
	if h.Redirect != "" {
		_, port, err := net.SplitHostPort(h.Redirect)
		_, own, _ := net.SplitHostPort(listen)
		switch {
		case err != nil || !validPort(port):
			m.fault("redirect", quote(h.Redirect)+" is not an address with a port", "write one such as :80")
		case port == own:
			m.fault("redirect", "it has the port of listen", "leave it out: that port answers plain HTTP with a redirect by itself")
		}
	}
	return h
}

func readACME(m *mapping) ACME {
	a := ACME{
		Email: m.text("email", "", 320), Directory: m.text("directory", LetsEncrypt, 2048), Roots: m.text("roots", "", 4096),
	}
	for _, n := range m.list("domains") {
		name := strings.ToLower(n.Value)
		if _, err := netip.ParseAddr(name); err == nil || !hostName.MatchString(name) || !strings.Contains(name, ".") {
			m.d.fault(n, "https.acme.domains", quote(n.Value)+" is not a public host name", "write one such as cam.example.org, no wildcard and no address")
			continue
		}
		a.Domains = append(a.Domains, name)
	}
	if len(a.Domains) > 100 { // what Let's Encrypt takes, and a CA is asked for each
		m.fault("domains", fmt.Sprintf("there are %d names", len(a.Domains)), "at most 100")
	}
	if user, host, _ := strings.Cut(a.Email, "@"); a.Email != "" && (user == "" || host == "" || strings.ContainsAny(a.Email, " <>,")) {
		m.fault("email", quote(a.Email)+" is not an e-mail address", "write one such as admin@example.org")
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		m.fault("directory", quote(a.Directory)+" is not an https URL", "write one such as "+LetsEncrypt)
	}
	return a
}
