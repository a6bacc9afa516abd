package https

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// conn is a TCP connection on which TLS is expected. Whoever begins in plain HTTP
// is answered by it.
type conn struct {
	net.Conn
	begun bool // touched by the handshake's goroutine only
}

var errPlain = errors.New("plain HTTP on the port of HTTPS")

const maxPlain = 16 << 10 // bytes of a plain request that are read

// Read implements net.Conn. The first to be read is TLS's record header: a handshake
// is of type 22 (RFC 8446 §5.1), which begins no line of text.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n == 0 || c.begun {
		return n, err
	}
	c.begun = true
	if b[0] < 'A' || b[0] > 'Z' {
		return n, err
	}
	c.answer(bytes.Clone(b[:n]))
	return 0, errPlain
}

// answer reads a request and tells where HTTPS is. The deadline is the handshake's.
func (c *conn) answer(begun []byte) {
	rest := io.LimitReader(c.Conn, int64(maxPlain-min(len(begun), maxPlain)))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(begun), rest)))
	if err != nil {
		return
	}
	status, to := upgrade(r, r.Host)
	text := "This port speaks HTTPS: " + to + "\n"
	fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	if status != http.StatusBadRequest {
		fmt.Fprintf(c.Conn, "Location: %s\r\n", to)
	}
	fmt.Fprintf(c.Conn, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(text))
	if r.Method != http.MethodHead {
		io.WriteString(c.Conn, text)
	}
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok && tcp.CloseWrite() == nil {
		// to close with something unread would reset the connection, and the answer with it
		c.Conn.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, io.LimitReader(c.Conn, maxPlain))
	}
}

// upgrade is the answer to a plain request: where the same is by HTTPS. What may
// change something isn't sent on, so that its sender notices that it went out in
// the open.
func upgrade(r *http.Request, host string) (status int, to string) {
	u := url.URL{Scheme: "https", Host: host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || host == "" {
		return http.StatusBadRequest, u.String()
	}
	return http.StatusPermanentRedirect, u.String()
}

// listenPlain serves the redirects on an address of their own, with the answers to
// ACME's http-01 (RFC 8555 §8.3).
func (s *Server) listenPlain(address string, guard func(net.Listener) net.Listener) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("https.redirect: listen %s: %w", address, err)
	}
	if guard != nil {
		l = guard(l)
	}
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, to := upgrade(r, withPort(r.Host, s.port))
		if status == http.StatusBadRequest {
			http.Error(w, "This port leads to HTTPS: "+to, status)
			return
		}
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	})
	if s.acme != nil {
		h = s.acme.manager.HTTPHandler(h)
	}
	s.plain = l
	s.redirect = &http.Server{
		Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: maxPlain,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.wait.Go(func() {
		if err := s.redirect.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("redirects ended", "err", err)
		}
	})
	return nil
}

// withPort is a host of a URL with another port, "" for none.
func withPort(host, port string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if port != "" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
