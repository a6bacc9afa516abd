package https

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	ownLife  = 397 * 24 * time.Hour // more than 398 days no browser takes from anybody
	ownRenew = 30 * 24 * time.Hour  // before its end
)

var maxSerial = new(big.Int).Lsh(big.NewInt(1), 127) // RFC 5280 §4.1.2.2

// ownPair is a certificate that the gateway makes for itself, signed by its own key.
// The key stays when the certificate is made anew, so that a pin on it holds.
type ownPair struct {
	dir     string   // the state folder
	names   []string // beside the machine's
	now     func() time.Time
	current atomic.Pointer[tls.Certificate]
}

// Files in the state folder.
const (
	ownCert = "self-signed.pem"
	ownKey  = "self-signed.key"
)

// due tells whether it is time for a new one.
func (p *ownPair) due() bool {
	return p.current.Load().Leaf.NotAfter.Sub(p.now()) < ownRenew
}

// load takes the certificate of the state folder, or makes one: where there is
// none, where it ends soon, and, if names is set, where one of the machine's names
// or addresses isn't in it.
func (p *ownPair) load(names bool) error {
	wanted := machineNames(p.names)
	key, err := p.loadKey()
	if err != nil {
		return fmt.Errorf("key of the self-signed certificate: %w", err)
	}
	path := filepath.Join(p.dir, ownCert)
	if c, err := tls.LoadX509KeyPair(path, filepath.Join(p.dir, ownKey)); err == nil {
		if c.Leaf.NotAfter.Sub(p.now()) >= ownRenew && (!names || covers(c.Leaf, wanted)) {
			p.current.Store(&c)
			return nil
		}
	}
	der, err := selfSign(key, wanted, p.now())
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}
	if err := writeFile(path, "CERTIFICATE", der, 0o644); err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}
	p.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
	return nil
}

// loadKey reads the key, or makes it with rights for its owner only.
func (p *ownPair) loadKey() (crypto.Signer, error) {
	path := filepath.Join(p.dir, ownKey)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, writeFile(path, "PRIVATE KEY", der, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: it isn't PEM; remove it to have a new one made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to have a new one made", path, err)
	}
	if i, err := os.Stat(path); err == nil && i.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others than its owner may read it; chmod 600, or remove it to have a new one made", path)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: it is no key that signs", path)
	}
	return signer, nil
}

// writeFile writes a file whole or not at all.
func writeFile(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func selfSign(key crypto.Signer, names []string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, maxSerial)
	if err != nil {
		return nil, err
	}
	// not a CA: who trusts it trusts this machine and nothing else
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: names[0], Organization: []string{"gateway, self-signed"}},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(ownLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// covers tells whether a certificate names all of these.
func covers(c *x509.Certificate, names []string) bool {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
				return false
			}
		} else if !slices.Contains(c.DNSNames, name) {
			return false
		}
	}
	return true
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// machineNames are the names and addresses that this machine is known by, and more. Of IPv6
// there is only loopback: the others change from day to day (RFC 8981), and with
// them would the certificate.
func machineNames(more []string) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if host, err := os.Hostname(); err == nil {
		host = strings.ToLower(host)
		short, _, _ := strings.Cut(host, ".")
		for _, name := range []string{host, short, short + ".local"} {
			if dnsName.MatchString(name) {
				add(name)
			}
		}
	}
	add("localhost")
	add("127.0.0.1")
	add("::1")
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() {
				add(p.Addr().String())
			}
		}
	}
	for _, name := range more {
		add(name)
	}
	return names
}
