package https

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate with a serial number, for localhost and for machines.
func (a *authority) issue(t testing.TB, serial int64, until time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "machine"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, k.Public(), a.key)
	check(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// machine is a client certificate.
func (a *authority) machine(t testing.TB, until time.Time) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(a.issue(t, 7, until))
	check(t, err)
	return c
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(path+".new", data, 0o600))
	check(t, os.Rename(path+".new", path))
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) has(s string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), s)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// served is a server with a port of its own.
type served struct {
	*Server
	address string
	log     *journal
}

// serve answers "hello" over HTTPS, with the number of chains that the client's
// certificate has.
func serve(t *testing.T, o Options) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := serveOn(t, l, o)
	return s
}

func serveOn(t *testing.T, l net.Listener, o Options) *served {
	t.Helper()
	log := new(journal)
	o.Port, o.Logger = l.Addr().(*net.TCPAddr).Port, slog.New(slog.NewTextHandler(log, nil))
	if o.every == 0 {
		o.every = 5 * time.Millisecond
	}
	s, err := New(o)
	check(t, err)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %d", len(r.TLS.VerifiedChains))
	})
	web := &http.Server{Handler: s.Insist(h), ReadHeaderTimeout: 3 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(s.Listener(l)) }()
	t.Cleanup(func() {
		web.Close()
		<-ended
		check(t, s.Close())
	})
	return &served{s, l.Addr().String(), log}
}

// get asks over a connection of its own.
func (s *served) get(conf *tls.Config) (body string, leaf *x509.Certificate, err error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	answer, err := client.Get("https://" + s.address + "/")
	if err != nil {
		return "", nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	return string(data), answer.TLS.PeerCertificates[0], err
}

// until waits for an event that nothing tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: it didn't come", what)
		}
	}
}

func TestChangedFilesAreTakenUnderLoad(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func(serial int64) {
		c, k := ca.issue(t, serial, time.Now().Add(time.Hour))
		write(t, cert, c) // for a moment the pair doesn't fit
		write(t, key, k)
	}
	put(100)
	s := serve(t, Options{Config: config.HTTPS{Cert: cert, Key: key}})
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if body, _, err := s.get(&tls.Config{RootCAs: ca.pool()}); err != nil || body != "hello 0" {
					t.Errorf("%q, %v", body, err)
					return
				}
			}
		})
	}
	for serial := int64(101); serial < 110; serial++ {
		put(serial)
		until(t, "the new certificate", func() bool {
			_, leaf, err := s.get(&tls.Config{RootCAs: ca.pool()})
			return err == nil && leaf.SerialNumber.Int64() == serial
		})
	}
	cancel()
	clients.Wait()
}

func TestABrokenPairChangesNothing(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := New(Options{Config: config.HTTPS{Cert: cert, Key: key}}); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("files that aren't there: %v", err)
	}
	c, k := ca.issue(t, 1, time.Now().Add(time.Hour))
	write(t, cert, c)
	write(t, key, k)
	s := serve(t, Options{Config: config.HTTPS{Cert: cert, Key: key}})
	for _, broken := range []string{"", "nonsense", string(k)} {
		before := strings.Count(s.log.String(), "certificate not taken")
		write(t, cert, []byte(broken))
		until(t, "the log line", func() bool { return strings.Count(s.log.String(), "certificate not taken") > before })
		if _, leaf, err := s.get(&tls.Config{RootCAs: ca.pool()}); err != nil || leaf.SerialNumber.Int64() != 1 {
			t.Errorf("%q: %v", broken, err)
		}
	}
	c, _ = ca.issue(t, 2, time.Now().Add(time.Hour)) // with another key than the file's
	write(t, cert, c)
	s.Reload()
	if !s.log.has("private key does not match public key") {
		t.Error(s.log)
	}
	check(t, os.Remove(key))
	s.Reload()
	if _, _, err := s.get(&tls.Config{RootCAs: ca.pool()}); err != nil {
		t.Error(err)
	}
	c, k = ca.issue(t, 3, time.Now().Add(time.Hour))
	write(t, cert, c)
	write(t, key, k)
	s.Reload()
	if _, leaf, err := s.get(&tls.Config{RootCAs: ca.pool()}); err != nil || leaf.SerialNumber.Int64() != 3 {
		t.Error(err)
	}
}

func TestSelfSignedIsKeptAndRenewed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	trusts := func(s *served) (*x509.Certificate, error) {
		pool := x509.NewCertPool()
		pool.AddCert(s.Leaf())
		_, leaf, err := s.get(&tls.Config{RootCAs: pool})
		return leaf, err
	}
	var first *x509.Certificate
	t.Run("made", func(t *testing.T) {
		s := serve(t, Options{Config: config.HTTPS{SelfSigned: true}, State: dir})
		leaf, err := trusts(s)
		check(t, err)
		first = leaf
		if s.Fingerprint() != fingerprint(leaf) || len(s.Fingerprint()) != 32*3-1 {
			t.Errorf("fingerprint %q", s.Fingerprint())
		}
		if !s.Knows("localhost") || s.Knows("attacker.example") || leaf.IsCA {
			t.Error("what it vouches for")
		}
		for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, ownKey): 0o600} {
			if i, err := os.Stat(path); err != nil || i.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", path, i.Mode(), err)
			}
		}
	})
	t.Run("kept", func(t *testing.T) {
		if leaf, err := trusts(serve(t, Options{Config: config.HTTPS{SelfSigned: true}, State: dir})); err != nil || !leaf.Equal(first) {
			t.Error("another certificate", err)
		}
	})
	t.Run("another name", func(t *testing.T) {
		s := serve(t, Options{Config: config.HTTPS{SelfSigned: true, Names: []string{"camera.lan", "192.0.2.9"}}, State: dir})
		leaf, err := trusts(s)
		if err != nil || leaf.Equal(first) || leaf.VerifyHostname("192.0.2.9") != nil || !s.Knows("camera.lan") {
			t.Error("no new certificate", err)
		}
		first = leaf
	})
	t.Run("renewed", func(t *testing.T) {
		var mu sync.Mutex
		now := time.Now()
		s := serve(t, Options{Config: config.HTTPS{SelfSigned: true, Names: []string{"camera.lan", "192.0.2.9"}}, State: dir, now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}})
		if leaf, err := trusts(s); err != nil || !leaf.Equal(first) {
			t.Error("renewed too early", err)
		}
		mu.Lock()
		now = now.Add(ownLife - ownRenew + time.Hour)
		mu.Unlock()
		until(t, "a new certificate", func() bool { return !s.Leaf().Equal(first) })
		if leaf := s.Leaf(); !leaf.NotAfter.After(first.NotAfter) || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
			t.Error("not the same key for longer")
		}
		if !s.log.has("self-signed certificate taken") {
			t.Error(s.log)
		}
	})
	t.Run("open key", func(t *testing.T) {
		check(t, os.Chmod(filepath.Join(dir, ownKey), 0o644))
		if _, err := New(Options{Config: config.HTTPS{SelfSigned: true}, State: dir}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Error(err)
		}
	})
}

func TestMachinesShowCertificates(t *testing.T) {
	own, machines, strangers, dir := newAuthority(t), newAuthority(t), newAuthority(t), t.TempDir()
	c, k := own.issue(t, 1, time.Now().Add(time.Hour))
	cert, key, ca := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	write(t, cert, c)
	write(t, key, k)
	trust := func(a *authority) {
		write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	}
	trust(machines)
	s := serve(t, Options{Config: config.HTTPS{Cert: cert, Key: key, ClientCA: ca}})
	for _, c := range []struct {
		name string
		with []tls.Certificate
		want string // "": refused
	}{
		{"none", nil, "hello 0"},
		{"good", []tls.Certificate{machines.machine(t, time.Now().Add(time.Hour))}, "hello 1"},
		{"expired", []tls.Certificate{machines.machine(t, time.Now().Add(-time.Hour))}, ""},
		{"of another CA", []tls.Certificate{strangers.machine(t, time.Now().Add(time.Hour))}, ""},
	} {
		conf := &tls.Config{RootCAs: own.pool()}
		if c.with != nil { // shown whatever the server asks for
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.with[0], nil }
		}
		body, _, err := s.get(conf)
		if body != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v", c.name, body, err)
		}
	}

	// another CA is in force for connections that would be resumed, too
	machine := machines.machine(t, time.Now().Add(time.Hour))
	conf := &tls.Config{RootCAs: own.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &machine, nil }}
	for range 2 {
		if body, _, err := s.get(conf); err != nil || body != "hello 1" {
			t.Errorf("%q, %v", body, err)
		}
	}
	trust(strangers)
	s.Reload()
	if body, _, err := s.get(conf); err == nil {
		t.Errorf("a certificate of the CA before was taken: %q", body)
	}
	write(t, ca, []byte("nonsense"))
	s.Reload()
	conf.ClientSessionCache, conf.GetClientCertificate = nil, nil
	if body, _, err := s.get(conf); err != nil || body != "hello 0" || !s.log.has("CA of the machines not taken") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestBadHandshakesDisturbNobody(t *testing.T) {
	s := serve(t, Options{Config: config.HTTPS{SelfSigned: true, HSTS: time.Hour}, State: t.TempDir()})
	var idle []net.Conn
	for i := range 40 {
		c, err := net.Dial("tcp", s.address)
		check(t, err)
		defer c.Close()
		idle = append(idle, c)
		switch i % 4 {
		case 0: // says nothing
		case 1:
			io.WriteString(c, "\x16\x03\x01\x02") // half a record header
		case 2:
			io.WriteString(c, "\x16\x03\x01\x40\x00"+strings.Repeat("\x01", 1000)) // no hello
		case 3:
			io.WriteString(c, "\x80\x00 not TLS")
		}
	}
	conf := &tls.Config{InsecureSkipVerify: true}
	for range 10 {
		if body, _, err := s.get(conf); err != nil || body != "hello 0" {
			t.Fatalf("%q, %v", body, err)
		}
	}
	for i, c := range idle { // each is cut by the deadline of its handshake
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d stayed", i)
		}
	}
	if _, _, err := s.get(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
}

func TestBrowsersAreToldToInsistByChoice(t *testing.T) {
	for hsts, want := range map[time.Duration]string{0: "", time.Hour: "max-age=3600"} {
		s := serve(t, Options{Config: config.HTTPS{SelfSigned: true, HSTS: hsts}, State: t.TempDir()})
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
		answer, err := client.Get("https://" + s.address)
		check(t, err)
		answer.Body.Close()
		if got := answer.Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%v: %q", hsts, got)
		}
		if answer.ProtoMajor != 2 {
			t.Errorf("by %s", answer.Proto)
		}
		client.CloseIdleConnections()
	}
}
