package https

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
)

// say writes to the port of HTTPS in the clear and reads what comes.
func (s *served) say(t *testing.T, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	check(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(c, text)
	check(t, err)
	data, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q: nothing came, the connection stayed", text)
	}
	return string(data)
}

func TestPlainHTTPIsToldWhereHTTPSIs(t *testing.T) {
	s := serve(t, Options{Config: config.HTTPS{SelfSigned: true}, State: t.TempDir()})
	for _, c := range []struct{ request, status, location string }{
		{"GET /watch/a%2Fb?x=1 HTTP/1.1\r\nHost: box.local:8080\r\n\r\n", "308 Permanent Redirect", "https://box.local:8080/watch/a%2Fb?x=1"},
		{"HEAD / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "308 Permanent Redirect", "https://[::1]:8080/"},
		{"GET //evil.example/ HTTP/1.1\r\nHost: box\r\n\r\n", "308 Permanent Redirect", "https://box//evil.example/"},
		{"POST /whip/a HTTP/1.1\r\nHost: box\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), "400 Bad Request", ""},
		{"GET / HTTP/1.0\r\n\r\n", "400 Bad Request", ""},
		{"GET / HTTP/1.1\r\nHost: box\r\nX: " + strings.Repeat("x", 2*maxPlain), "", ""},
		{"NONSENSE", "", ""},
		{"GET / HTTP/1.1\r\nHost", "", ""},
	} {
		text := s.say(t, c.request)
		if c.status == "" {
			if text != "" {
				t.Errorf("%.40q was answered by %q", c.request, text)
			}
			continue
		}
		method, _, _ := strings.Cut(c.request, " ")
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), &http.Request{Method: method})
		if err != nil {
			t.Errorf("%.40q: %q, %v", c.request, text, err)
			continue
		}
		r.Body.Close()
		if r.Status != c.status || r.Header.Get("Location") != c.location {
			t.Errorf("%.40q: %s, %q", c.request, r.Status, r.Header.Get("Location"))
		}
	}
}

func TestAnAddressOfItsOwnRedirects(t *testing.T) {
	for _, c := range []struct {
		public         int
		host, location string
	}{
		{443, "cam.lan", "https://cam.lan/x?y"},
		{443, "cam.lan:80", "https://cam.lan/x?y"},
		{8443, "cam.lan:80", "https://cam.lan:8443/x?y"},
		{8443, "[::1]", "https://[::1]:8443/x?y"},
		{443, "[::1]:80", "https://[::1]/x?y"},
	} {
		s := serve(t, Options{Config: config.HTTPS{SelfSigned: true, Redirect: "127.0.0.1:0", PublicPort: c.public}, State: t.TempDir()})
		client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := http.NewRequest(http.MethodGet, "http://"+s.plain.Addr().String()+"/x?y", nil)
		check(t, err)
		r.Host = c.host
		answer, err := client.Do(r)
		check(t, err)
		answer.Body.Close()
		if answer.StatusCode != http.StatusPermanentRedirect || answer.Header.Get("Location") != c.location {
			t.Errorf("%+v: %s, %q", c, answer.Status, answer.Header.Get("Location"))
		}
		answer, err = client.Post("http://"+s.plain.Addr().String()+"/x", "text/plain", strings.NewReader("secret"))
		check(t, err)
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("POST: %s", answer.Status)
		}
	}
}
