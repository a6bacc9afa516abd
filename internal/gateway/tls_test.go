package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// insecure takes any certificate: what it is, the tests look at.
var insecure = &tls.Config{InsecureSkipVerify: true}

func TestHTTPSServesTheWholeProduct(t *testing.T) {
	g, _ := runAs(t, t.TempDir(), "state: "+t.TempDir()+"\nhttps: {self_signed: true, names: [box.lan], hsts: 1h}\n")
	url := "https://" + g.Addr().String()
	if want := "https://localhost:" + url[strings.LastIndexByte(url, ':')+1:]; g.URL() != want {
		t.Errorf("it prints %s, want %s", g.URL(), want)
	}
	client := http.Client{
		Transport:     &http.Transport{TLSClientConfig: insecure, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, c := range []struct {
		url    string
		header []string
		status int
	}{
		{url + "/healthz", nil, 200},
		{url + "/api/streams", nil, 200},
		{url + "/api/streams", []string{"Origin", url}, 200},
		{url + "/api/streams", []string{"Origin", "http://" + g.Addr().String()}, 403},
		{url + "/api/streams", []string{"Host", "box.lan:8080"}, 200},
		{url + "/api/streams", []string{"Host", "attacker.example"}, 421},
		{"http://" + g.Addr().String() + "/watch/x", nil, 308},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
			if c.header[i] == "Host" {
				r.Host = c.header[i+1]
			}
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%s %v: %s", c.url, c.header, answer.Status)
		}
		if s := answer.Header.Get("Strict-Transport-Security"); (s != "") != (answer.TLS != nil) {
			t.Errorf("%s: Strict-Transport-Security %q", c.url, s)
		}
	}

	dialer := websocket.Dialer{TLSClientConfig: insecure}
	for origin, status := range map[string]int{"": 101, url: 101, "http://" + g.Addr().String(): 403, "https://attacker.example": 403} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		c, answer, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(url, "https")+"/ws", header)
		if answer == nil {
			t.Fatal(err)
		}
		if answer.StatusCode != status {
			t.Errorf("wss from %q: %s", origin, answer.Status)
		}
		if err != nil {
			continue
		}
		sum := sha256.Sum256(c.NetConn().(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
		if got := strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":"); got != g.Fingerprint() {
			t.Errorf("fingerprint %s, printed %s", got, g.Fingerprint())
		}
		if err := errors.Join(c.WriteJSON(map[string]string{"type": "ping"}), c.ReadJSON(new(map[string]any))); err != nil {
			t.Errorf("wss from %q: %v", origin, err)
		}
		c.Close()
	}
}

func TestHealthcheckSpeaksHTTPS(t *testing.T) {
	lines := "https: {self_signed: true}\n"
	g, _ := runAs(t, t.TempDir(), "state: "+t.TempDir()+"\n"+lines)
	conf := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, conf, lines)
	settings, err := Load(conf, "", g.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := settings.Healthcheck(); err != nil {
		t.Error(err)
	}
}

func TestACertificateThatIsMissingIsSaid(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, conf, "state: "+t.TempDir()+"\nhttps: {cert: /nowhere/cert.pem, key: /nowhere/key.pem}\n")
	settings, err := Load(conf, t.TempDir(), "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Settings: settings, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "/nowhere/cert.pem") {
		t.Error(err)
	}
}

// machineOf is the certificate of a machine, which is its own CA, and that as PEM.
func machineOf(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// A browser shows its machine's certificate whatever page asks. Where every page was let in,
// any page that was open on a kiosk could act as the kiosk.
func TestOpenOriginsDoNotLendTheCertificate(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	kiosk, ca := machineOf(t, "kiosk.lan")
	write(t, filepath.Join(dir, "ca.pem"), ca)
	write(t, filepath.Join(pipelines, "red.yaml"), small)
	write(t, filepath.Join(dir, "gateway.yaml"), "state: "+dir+"/state\nauth: {machines: {kiosk.lan: {role: admin, rooms: ['*']}}}\n"+
		"http: {allowed_origins: ['*', 'https://portal.example']}\nhttps: {self_signed: true, client_ca: "+dir+"/ca.pem}\n")
	h := startHouse(t, dir, pipelines)
	url := "https://" + h.Addr().String()
	shows := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{kiosk}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: shows}}
	t.Cleanup(client.CloseIdleConnections)
	dialer := websocket.Dialer{TLSClientConfig: shows}
	for _, c := range []struct {
		origin, code string
		reload, whip int
	}{
		{"", "", http.StatusOK, http.StatusBadRequest}, // no browser
		{url, "", http.StatusOK, http.StatusBadRequest},
		{"https://portal.example", "", http.StatusUnauthorized, http.StatusBadRequest}, // the API is for the gateway's own pages
		{"https://evil.example", "unauthorized", http.StatusUnauthorized, http.StatusUnauthorized},
		{"https://127.0.0.1:1", "unauthorized", http.StatusUnauthorized, http.StatusUnauthorized},
		{"null", "unauthorized", http.StatusUnauthorized, http.StatusUnauthorized},
	} {
		var header []string
		if c.origin != "" {
			header = []string{"Origin", c.origin}
		}
		if answer, body := do(t, client, "POST", url+"/api/reload", "", header...); answer.StatusCode != c.reload {
			t.Errorf("the API to %q: %s %s", c.origin, answer.Status, body)
		}
		if answer, body := do(t, client, "POST", url+"/whip/red", "v=0", append(header, "Content-Type", "application/sdp")...); answer.StatusCode != c.whip {
			t.Errorf("WHIP to %q: %s %s", c.origin, answer.Status, body)
		}
		upgrade := http.Header{}
		if c.origin != "" {
			upgrade.Set("Origin", c.origin)
		}
		conn, _, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(url, "https")+"/ws", upgrade)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var m struct{ Type, Code string }
		if err := errors.Join(conn.WriteJSON(map[string]any{"type": "join", "roomId": "red", "version": 1, "role": "viewer"}), conn.ReadJSON(&m)); err != nil || m.Code != c.code {
			t.Errorf("a socket of %q: %+v %v", c.origin, m, err)
		}
	}
}
