package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

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
