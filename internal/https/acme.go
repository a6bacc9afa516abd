package https

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"gateway/internal/config"
)

// How long to wait after an attempt that went wrong: CAs allow few of them, Let's
// Encrypt five an hour for a name.
const (
	firstRetry = 2 * time.Minute
	lastRetry  = time.Hour
)

// acmePair gets certificates by RFC 8555, proving by tls-alpn-01 (RFC 8737), or
// http-01 where redirects are served, that the names lead here.
type acmePair struct {
	domains []string
	manager *autocert.Manager
	log     *slog.Logger
	witness *witness

	mu    sync.Mutex // guards ready
	ready map[string]bool
}

// newACME asks nobody yet. What it does later ends with ctx.
func newACME(ctx context.Context, c config.ACME, state string, log *slog.Logger) (*acmePair, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.Roots != "" {
		pool, err := readPool(c.Roots)
		if err != nil {
			return nil, fmt.Errorf("https.acme.roots: %w", err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	w := &witness{ctx: ctx, next: transport}
	context.AfterFunc(ctx, transport.CloseIdleConnections)
	return &acmePair{
		domains: c.Domains, log: log, ready: make(map[string]bool), witness: w,
		manager: &autocert.Manager{
			Prompt:     autocert.AcceptTOS,
			Cache:      autocert.DirCache(filepath.Join(state, "acme")), // owner-only
			HostPolicy: autocert.HostWhitelist(c.Domains...),
			Email:      c.Email,
			Client: &acme.Client{
				DirectoryURL: c.Directory,
				HTTPClient:   &http.Client{Transport: w, Timeout: time.Minute},
				UserAgent:    "gateway",
				RetryBackoff: func(n int, _ *http.Request, _ *http.Response) time.Duration {
					if ctx.Err() != nil || n > 5 {
						return -1
					}
					return time.Duration(n) * time.Second
				},
			},
		},
	}, nil
}

// obtain gets the certificates that aren't there, name by name, until they are or
// ctx is done. autocert renews them from then on.
func (a *acmePair) obtain(ctx context.Context, wait *sync.WaitGroup) {
	for _, name := range a.domains {
		wait.Go(func() {
			for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
				c, err := a.manager.GetCertificate(helloOf(name))
				if err == nil {
					a.mu.Lock()
					a.ready[name] = true
					a.mu.Unlock()
					a.log.Info("certificate from ACME", "name", name, "expires", c.Leaf.NotAfter)
					return
				}
				if ctx.Err() != nil {
					return
				}
				a.log.Error("no certificate from ACME", "name", name, "err", errors.Join(err, a.witness.take(name)), "retry", retry)
				select {
				case <-time.After(retry):
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

// certificate is what a client gets, nil and no error where ACME has nothing for
// it. It never asks the CA: a stranger's handshake shall not use up what it allows.
func (a *acmePair) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		return a.manager.GetCertificate(hello)
	}
	name := strings.ToLower(hello.ServerName)
	a.mu.Lock()
	ready := a.ready[name]
	a.mu.Unlock()
	if !ready {
		return nil, nil
	}
	return a.manager.GetCertificate(helloOf(name))
}

// first is the first domain's certificate, nil while there is none.
func (a *acmePair) first() *tls.Certificate {
	c, err := a.certificate(&tls.ClientHelloInfo{ServerName: a.domains[0]})
	if err != nil {
		return nil
	}
	return c
}

func (a *acmePair) has(host string) bool { return slices.Contains(a.domains, host) }

// helloOf is a client that takes the kind of certificate that all browsers take:
// one a name is enough.
func helloOf(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
}

// witness carries the requests to the CA, as long as ctx lasts, and keeps what it
// says about a challenge that it found unmet: autocert doesn't tell.
type witness struct {
	ctx  context.Context
	next http.RoundTripper

	mu   sync.Mutex
	said map[string]error // by name
}

const maxSaid = 64 << 10

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(w.ctx, cancel)
	defer stop()
	answer, err := w.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	defer cancel()
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxSaid))
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	w.read(body)
	return answer, nil
}

// read looks whether an answer is an authorization that failed (RFC 8555 §7.1.4).
func (w *witness) read(body []byte) {
	var authorization struct {
		Identifier struct{ Value string }
		Status     string
		Challenges []struct {
			Type  string
			Error *struct{ Detail string }
		}
	}
	if json.Unmarshal(body, &authorization) != nil || authorization.Status != "invalid" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range authorization.Challenges {
		if c.Error != nil {
			if w.said == nil {
				w.said = make(map[string]error)
			}
			w.said[authorization.Identifier.Value] = fmt.Errorf("the CA says of %s: %.500s", c.Type, c.Error.Detail)
		}
	}
}

// take is what was said of a name, and forgets it.
func (w *witness) take(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.said[name]
	delete(w.said, name)
	return err
}
