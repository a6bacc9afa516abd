package https

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"gateway/internal/config"
)

const domain = "cam.example.org"

// ca is an ACME server (RFC 8555) for one account and one name, which asks as a real
// one does, but knows addresses in place of DNS. It doesn't check the signatures.
type ca struct {
	*authority
	*httptest.Server
	challenge string // the only one that it offers
	alpn      string // address of the name's port 443
	plain     func() string
	refuse    string        // why it finds every challenge unmet; "": it looks
	hang      chan struct{} // not nil: orders are answered when it is closed

	mu         sync.Mutex
	thumbprint string
	status     string // of order and authorization
	detail     string
	orders     int
	issued     []byte
}

const token = "a-token_of-the-CA"

func newCA(t *testing.T, challenge string) *ca {
	c := &ca{authority: newAuthority(t), challenge: challenge, status: "pending"}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", "nonce")
		if err := c.serve(w, r); err != nil {
			t.Errorf("ACME server: %s: %v", r.URL, err)
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	c.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

// config is what a gateway needs to come here.
func (c *ca) config(t *testing.T) config.ACME {
	roots := filepath.Join(t.TempDir(), "roots.pem")
	write(t, roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}))
	return config.ACME{Domains: []string{domain}, Email: "a@example.org", Directory: c.URL + "/dir", Roots: roots}
}

func (c *ca) serve(w http.ResponseWriter, r *http.Request) error {
	answer := func(status int, v any) error {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		return json.NewEncoder(w).Encode(v)
	}
	if r.URL.Path == "/dir" {
		return answer(200, map[string]string{"newNonce": c.URL + "/nonce", "newAccount": c.URL + "/account", "newOrder": c.URL + "/new", "revokeCert": c.URL + "/x", "keyChange": c.URL + "/x"})
	}
	if r.URL.Path == "/nonce" {
		return nil
	}
	protected, payload, err := jws(r.Body)
	if err != nil {
		return err
	}
	if r.URL.Path == "/new" && c.hang != nil {
		select {
		case <-c.hang:
		case <-r.Context().Done():
			return nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	order := map[string]any{
		"status": c.status, "identifiers": []any{map[string]string{"type": "dns", "value": domain}},
		"authorizations": []string{c.URL + "/authz"}, "finalize": c.URL + "/finalize",
	}
	challenge := map[string]any{"type": c.challenge, "url": c.URL + "/challenge", "token": token, "status": c.status}
	if c.detail != "" {
		challenge["error"] = map[string]string{"type": "urn:ietf:params:acme:error:unauthorized", "detail": c.detail}
	}
	switch r.URL.Path {
	case "/account":
		if c.thumbprint, err = thumbprint(protected); err != nil {
			return err
		}
		w.Header().Set("Location", c.URL+"/account/1")
		return answer(201, map[string]any{"status": "valid"})
	case "/new":
		c.orders++
		w.Header().Set("Location", c.URL+"/order")
		return answer(201, order)
	case "/order":
		if c.status == "valid" && c.issued == nil {
			order["status"] = "ready"
		}
		return answer(200, order)
	case "/authz":
		return answer(200, map[string]any{"identifier": map[string]string{"type": "dns", "value": domain}, "status": c.status, "challenges": []any{challenge}})
	case "/challenge":
		c.status = "valid"
		if err := c.look(); err != nil {
			c.status, c.detail = "invalid", err.Error()
		}
		return answer(200, challenge)
	case "/finalize":
		var request struct{ CSR string }
		if err := json.Unmarshal(payload, &request); err != nil {
			return err
		}
		if c.issued, err = c.sign(request.CSR); err != nil {
			return err
		}
		order["status"], order["certificate"] = "valid", c.URL+"/cert"
		w.Header().Set("Location", c.URL+"/order")
		return answer(200, order)
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, err := w.Write(c.issued)
		return err
	}
	return errors.New("unknown path")
}

// look tells whether the challenge is met.
func (c *ca) look() error {
	if c.refuse != "" {
		return errors.New(c.refuse)
	}
	want := token + "." + c.thumbprint
	if c.challenge == "http-01" {
		r, err := http.NewRequest(http.MethodGet, "http://"+c.plain()+"/.well-known/acme-challenge/"+token, nil)
		if err != nil {
			return err
		}
		r.Host = domain
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != want {
			return fmt.Errorf("%s, %q, %w", answer.Status, body, err)
		}
		return nil
	}
	conn, err := tls.Dial("tcp", c.alpn, &tls.Config{ServerName: domain, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha256.Sum256([]byte(want))
	value, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	for _, e := range leaf.Extensions { // RFC 8737 §3
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && e.Critical && string(e.Value) == string(value) && leaf.VerifyHostname(domain) == nil {
			return nil
		}
	}
	return errors.New("not the certificate of RFC 8737")
}

func (c *ca) sign(csr string) ([]byte, error) {
	der, err := base64.RawURLEncoding.DecodeString(csr)
	if err != nil {
		return nil, err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(5), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: request.DNSNames,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, c.cert, request.PublicKey, c.key)
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...), err
}

// jws takes a request apart (RFC 7515 §7.2.2).
func jws(body io.Reader) (protected, payload []byte, err error) {
	var parts struct{ Protected, Payload string }
	if err := json.NewDecoder(body).Decode(&parts); err != nil {
		return nil, nil, err
	}
	protected, err = base64.RawURLEncoding.DecodeString(parts.Protected)
	if err != nil {
		return nil, nil, err
	}
	payload, err = base64.RawURLEncoding.DecodeString(parts.Payload)
	return protected, payload, err
}

// thumbprint is that of the account's key (RFC 7638).
func thumbprint(protected []byte) (string, error) {
	var header struct{ JWK struct{ X, Y string } }
	if err := json.Unmarshal(protected, &header); err != nil {
		return "", err
	}
	x, err := base64.RawURLEncoding.DecodeString(header.JWK.X)
	if err != nil {
		return "", err
	}
	y, err := base64.RawURLEncoding.DecodeString(header.JWK.Y)
	if err != nil {
		return "", err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y)) // SEC 1 §2.3.4
	if err != nil {
		return "", err
	}
	return acme.JWKThumbprint(key)
}

func TestCertificatesComeByACME(t *testing.T) {
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			ca := newCA(t, challenge)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			check(t, err)
			ca.alpn = l.Addr().String()
			plain := make(chan *served, 1)
			ca.plain = func() string {
				s := <-plain
				plain <- s
				return s.plain.Addr().String()
			}
			conf, state := config.HTTPS{ACME: ca.config(t), PublicPort: 443}, filepath.Join(t.TempDir(), "state")
			if challenge == "http-01" {
				conf.Redirect = "127.0.0.1:0"
			}
			byName := &tls.Config{RootCAs: ca.pool(), ServerName: domain}
			t.Run("asked for", func(t *testing.T) {
				s := serveOn(t, l, Options{Config: conf, State: state})
				plain <- s
				until(t, "the certificate", func() bool { return s.log.has(`msg="certificate from ACME"`) })
				if body, leaf, err := s.get(byName); err != nil || body != "hello 0" || leaf.SerialNumber.Int64() != 5 {
					t.Errorf("%q, %v", body, err)
				}
				if !s.Knows(domain) || s.Name() != domain || s.Port() != "" || s.Knows("example.org") {
					t.Error("what it is known by")
				}
				if _, _, err := s.get(&tls.Config{InsecureSkipVerify: true, ServerName: "other.example.org"}); err == nil {
					t.Error("a stranger's name got a certificate")
				}
			})
			t.Run("kept", func(t *testing.T) {
				s := serve(t, Options{Config: conf, State: state})
				until(t, "the certificate", func() bool { return s.log.has(`msg="certificate from ACME"`) })
				if _, leaf, err := s.get(byName); err != nil || leaf.SerialNumber.Int64() != 5 {
					t.Error(err)
				}
			})
			ca.mu.Lock()
			defer ca.mu.Unlock()
			if ca.orders != 1 {
				t.Errorf("%d orders", ca.orders)
			}
		})
	}
}

func TestWhatACMERefusesIsTold(t *testing.T) {
	ca := newCA(t, "tls-alpn-01")
	ca.refuse = "no A record for cam.example.org"
	conf := config.HTTPS{ACME: ca.config(t), SelfSigned: true}
	s := serve(t, Options{Config: conf, State: t.TempDir()})
	until(t, "the log line", func() bool { return s.log.has(ca.refuse) })
	if !s.log.has("retry=2m") || !strings.Contains(s.log.String(), "tls-alpn-01") {
		t.Error(s.log)
	}
	for range 5 { // nobody who comes makes it ask again
		if _, leaf, err := s.get(&tls.Config{InsecureSkipVerify: true, ServerName: domain}); err != nil || fingerprint(leaf) != s.Fingerprint() {
			t.Errorf("not the self-signed one meanwhile: %v", err)
		}
	}
	ca.mu.Lock()
	orders := ca.orders
	ca.mu.Unlock()
	conf.SelfSigned = false
	if alone := serve(t, Options{Config: conf, State: t.TempDir()}); orders > 2 {
		t.Errorf("%d orders", orders)
	} else if _, _, err := alone.get(&tls.Config{InsecureSkipVerify: true, ServerName: domain}); err == nil {
		t.Error("a certificate out of nothing")
	}
}

func TestCloseDoesNotWaitForTheCA(t *testing.T) {
	ca := newCA(t, "tls-alpn-01")
	ca.hang = make(chan struct{})
	defer close(ca.hang)
	s := serve(t, Options{Config: config.HTTPS{ACME: ca.config(t)}, State: t.TempDir()})
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		check(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("it waits")
	}
}
