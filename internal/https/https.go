// Package https serves TLS on the gateway's port. It hides where the certificate
// comes from, be it files that are read again when they change, ACME (RFC 8555) or
// one that it makes for itself, and what becomes of those who ask in plain HTTP.
//
// A Server has one goroutine that looks after the certificates, and one that serves
// the redirects if they have an address of their own.
package https

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/acme"

	"gateway/internal/config"
)

// Options are what a server is made with.
type Options struct {
	Config config.HTTPS // with HTTPS on
	State  string       // folder for what is made: keys, certificates, the ACME account
	Port   int          // that is listened on
	Names  []string     // host names and IP addresses of this machine, beside those that it knows of
	Logger *slog.Logger

	Registerer prometheus.Registerer // nil: no metrics

	// Guard limits who connects to the port of the redirects, as elsewhere; nil: nobody is.
	Guard func(net.Listener) net.Listener

	every time.Duration    // how often the certificates are looked after; 0: checkTime
	now   func() time.Time // nil: time.Now
}

const (
	checkTime = 2 * time.Second
	warnTime  = 7 * 24 * time.Hour // before its end a certificate is warned of
)

// Server makes TLS of TCP connections.
type Server struct {
	log   *slog.Logger
	now   func() time.Time
	files *pair     // one of these three,
	own   *ownPair  // or the
	acme  *acmePair // last two
	trust *machines // nil: no client certificates

	hsts     time.Duration
	port     string // that browsers use; "" is 443
	redirect *http.Server
	plain    net.Listener // of redirect
	warned   time.Time    // touched by look only
	look     sync.Mutex   // held while the certificates are looked after

	conf   atomic.Pointer[tls.Config]
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// New reads or makes the certificate, and opens the port of the redirects. What
// ACME is asked for may come later: until then its names are refused, or get the
// self-signed one.
func New(o Options) (*Server, error) {
	s := &Server{log: o.Logger, now: o.now, hsts: o.Config.HSTS}
	if s.now == nil {
		s.now = time.Now
	}
	if o.every == 0 {
		o.every = checkTime
	}
	if port := o.Config.PublicPort; port != 0 {
		o.Port = port
	}
	if o.Port != 443 {
		s.port = fmt.Sprint(o.Port)
	}
	c := o.Config
	if o.State == "" && c.Cert == "" {
		return nil, errors.New("https: there is no folder to keep keys in; set state")
	}
	if c.Cert != "" {
		s.files = &pair{cert: c.Cert, key: c.Key}
		if err := s.files.load(); err != nil {
			return nil, err
		}
	}
	if c.SelfSigned {
		s.own = &ownPair{dir: o.State, names: slices.Concat(o.Names, c.Names), now: s.now}
		if err := s.own.load(true); err != nil {
			return nil, err
		}
	}
	if c.ClientCA != "" {
		s.trust = &machines{path: c.ClientCA}
		if err := s.trust.load(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if len(c.ACME.Domains) > 0 {
		var err error
		if s.acme, err = newACME(ctx, c.ACME, o.State, s.log); err != nil {
			cancel()
			return nil, err
		}
	}
	s.configure()
	if c.Redirect != "" {
		if err := s.listenPlain(c.Redirect, o.Guard); err != nil {
			cancel()
			return nil, err
		}
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gateway_certificate_expiry_seconds", Help: "When the TLS certificate ends, in Unix seconds; 0: there is none yet.",
		}, func() float64 {
			if leaf := s.Leaf(); leaf != nil {
				return float64(leaf.NotAfter.Unix())
			}
			return 0
		}))
	}
	s.wait.Go(func() { s.follow(ctx, o.every) })
	if s.acme != nil {
		s.acme.obtain(ctx, &s.wait)
	}
	return s, nil
}

// Listener accepts the connections of a listener as TLS; each is a *tls.Conn whose
// handshake is still to be made. One that begins in plain HTTP is answered there
// with the way to HTTPS.
func (s *Server) Listener(inner net.Listener) net.Listener { return listener{inner, s} }

type listener struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener; conn tells TLS from plain HTTP by the first byte.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(&conn{Conn: c}, l.s.conf.Load()), nil
}

// configure makes the configuration that further connections have. A new one has
// new keys for its session tickets: nobody resumes what an older one allowed.
func (s *Server) configure() {
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.certificate,
	}
	if s.acme != nil {
		c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	}
	if s.trust != nil {
		c.ClientAuth = tls.VerifyClientCertIfGiven
		c.ClientCAs = s.trust.pool
	}
	s.conf.Store(c)
}

var errNoCertificate = errors.New("there is no certificate for this name")

func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme != nil {
		if c, err := s.acme.certificate(hello); c != nil || err != nil {
			return c, err
		}
	}
	switch {
	case s.files != nil:
		return s.files.current.Load(), nil
	case s.own != nil:
		return s.own.current.Load(), nil
	}
	return nil, errNoCertificate
}

// Leaf is the certificate that is shown, nil while there is none. With ACME it is
// the first domain's.
func (s *Server) Leaf() *x509.Certificate {
	var c *tls.Certificate
	switch {
	case s.files != nil:
		c = s.files.current.Load()
	case s.acme != nil && s.acme.first() != nil:
		c = s.acme.first()
	case s.own != nil:
		c = s.own.current.Load()
	}
	if c == nil {
		return nil
	}
	return c.Leaf
}

// Fingerprint is the SHA-256 of the self-signed certificate, as browsers show it;
// "" when there is none.
func (s *Server) Fingerprint() string {
	if s.own == nil {
		return ""
	}
	return fingerprint(s.own.current.Load().Leaf)
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// Knows tells whether a certificate vouches for a host name: then a page can't be
// under that name without being ours.
func (s *Server) Knows(host string) bool {
	if s.acme != nil && s.acme.has(host) {
		return true
	}
	leaf := s.Leaf()
	return leaf != nil && leaf.VerifyHostname(host) == nil
}

// Name is the host name that the certificate is for, where ACME tells: browsers
// come by that one. Else "".
func (s *Server) Name() string {
	if s.acme == nil {
		return ""
	}
	return s.acme.domains[0]
}

// Port is the port that browsers use; "" is HTTPS's own.
func (s *Server) Port() string { return s.port }

// Insist adds to what is answered over TLS that browsers are to come by HTTPS only
// (RFC 6797), where that is configured.
func (s *Server) Insist(next http.Handler) http.Handler {
	if s.hsts == 0 {
		return next
	}
	policy := fmt.Sprintf("max-age=%d", int(s.hsts.Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			w.Header().Set("Strict-Transport-Security", policy)
		}
		next.ServeHTTP(w, r)
	})
}

// follow looks after the certificates until ctx is done.
func (s *Server) follow(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s.check(false)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads the files now, whether or not they have changed. What is wrong with
// them is logged, and what was read before stays in force.
func (s *Server) Reload() { s.check(true) }

func (s *Server) check(force bool) {
	s.look.Lock()
	defer s.look.Unlock()
	if s.files != nil && (s.files.seen.changed(s.files.cert, s.files.key) || force) {
		s.tell("certificate", s.files.load())
	}
	if s.own != nil && (s.own.due() || force) {
		before := s.own.current.Load()
		if err := s.own.load(force); err != nil || s.own.current.Load() != before {
			s.tell("self-signed certificate", err)
		}
	}
	if s.trust != nil && (s.trust.seen.changed(s.trust.path) || force) {
		err := s.trust.load()
		if err == nil {
			s.configure()
		}
		s.tell("CA of the machines", err)
	}
	s.warn()
}

// tell logs how a file was taken.
func (s *Server) tell(what string, err error) {
	if err != nil {
		s.log.Error(what+" not taken, the one before stays", "err", err)
		return
	}
	args := []any{}
	if leaf := s.Leaf(); leaf != nil {
		args = []any{"expires", leaf.NotAfter, "sha256", fingerprint(leaf)}
	}
	s.log.Info(what+" taken", args...)
}

// warn tells once a day that the certificate ends soon, or has ended.
func (s *Server) warn() {
	leaf, now := s.Leaf(), s.now()
	if leaf == nil || leaf.NotAfter.Sub(now) > warnTime && !now.Before(leaf.NotBefore) || now.Sub(s.warned) < 24*time.Hour {
		return
	}
	s.warned = now
	s.log.Warn("certificate is not valid for long, or not at all", "from", leaf.NotBefore, "until", leaf.NotAfter)
}

// Close ends what New has begun; connections are their listener's. It may wait for
// an ACME server's answer for a second or so.
func (s *Server) Close() error {
	s.cancel()
	var err error
	if s.redirect != nil {
		err = s.redirect.Close()
	}
	s.wait.Wait()
	return err
}
