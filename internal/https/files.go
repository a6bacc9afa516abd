package https

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// watched notices that files have changed. It looks at them now and then: what
// certbot and Kubernetes exchange is the target of a symlink, of which no event tells.
type watched struct{ seen, before string }

// changed tells whether the files aren't those of the last call to taken, and have
// been as they are since the last look: a pair is seldom written in one step.
func (w *watched) changed(paths ...string) bool {
	now := stamp(paths)
	settled := now == w.before
	w.before = now
	return settled && now != w.seen
}

// taken notes how the files are.
func (w *watched) taken(paths ...string) {
	w.seen = stamp(paths)
	w.before = w.seen
}

func stamp(paths []string) string {
	var b strings.Builder
	for _, path := range paths {
		if i, err := os.Stat(path); err != nil {
			b.WriteString("none ")
		} else {
			fmt.Fprintf(&b, "%d %d %v ", i.Size(), i.ModTime().UnixNano(), i.Sys())
		}
	}
	return b.String()
}

// pair is a certificate and its key in two PEM files.
type pair struct {
	cert, key string
	seen      watched // touched by one caller at a time
	current   atomic.Pointer[tls.Certificate]
}

// load reads the files. With an error the certificate before stays.
func (p *pair) load() error {
	p.seen.taken(p.cert, p.key)
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", p.cert, p.key, err)
	}
	p.current.Store(&c)
	return nil
}

// machines are the CAs whose certificates machines may show.
type machines struct {
	path string
	seen watched
	pool *x509.CertPool
}

func (m *machines) load() error {
	m.seen.taken(m.path)
	pool, err := readPool(m.path)
	if err != nil {
		return err
	}
	m.pool = pool
	return nil
}

func readPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: %w", path, errors.New("it holds no certificate in PEM"))
	}
	return pool, nil
}
