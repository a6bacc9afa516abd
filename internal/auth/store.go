package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What the state folder holds, all of it for its owner only.
const (
	keyFile   = "token-key.pem" // the gateway's own Ed25519 key, PKCS #8
	adminFile = "admin-token"
	linksDir  = "used-links" // an empty file for each, END-ID: see store.use

	revokedDir = "revoked" // a file for each revocation
)

// store is the state folder.
type store struct {
	dir   string
	links *linkEnds
}

// linkEnds is since when each mark of a used link looks as if the link had ended, by a
// clock that nobody sets: the one of the links may be wrong for a while.
type linkEnds struct {
	up func() time.Duration // since the start

	mu    sync.Mutex // guards below; held for a sweep
	since map[string]time.Duration
}

// markKept is how long a mark is kept while its link looks ended: for how long the clock
// may have been ahead without a link's second life.
const markKept = 24 * time.Hour

func openStore(dir string) (store, error) {
	if dir == "" {
		return store{}, errors.New("there is no folder for the gateway's own keys: set state to one that this user may write, or HOME")
	}
	for _, sub := range []string{linksDir, revokedDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return store{}, fmt.Errorf("state folder: %w; set state to a folder that this user may write", err)
		}
	}
	began := time.Now()
	return store{dir, &linkEnds{up: func() time.Duration { return time.Since(began) }, since: make(map[string]time.Duration)}}, nil
}

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

// signer is the gateway's own key, made when it is first asked for.
func (s store) signer() (signer, error) {
	data, err := s.once(keyFile, func() ([]byte, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
	})
	if err != nil {
		return signer{}, err
	}
	block, _ := pem.Decode(data)
	if block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := key.(ed25519.PrivateKey); ok {
				return newSigner(private), nil
			}
		}
	}
	return signer{}, fmt.Errorf("%s: not an Ed25519 key; remove it for a new one, which ends all tokens", s.path(keyFile))
}

var adminToken = regexp.MustCompile(`^[A-Za-z0-9_-]{32,128}$`)

// adminToken is the admin's token, made when it is first asked for. It is no JWT:
// who removes the file has ended it.
func (s store) adminToken() (string, error) {
	data, err := s.once(adminFile, func() ([]byte, error) {
		secret := make([]byte, 32)
		rand.Read(secret) // never fails
		return []byte(base64.RawURLEncoding.EncodeToString(secret) + "\n"), nil
	})
	token := strings.TrimSpace(string(data))
	if err == nil && !adminToken.MatchString(token) {
		err = fmt.Errorf("%s: not 32 to 128 letters, digits, - and _; remove it for a new one", s.path(adminFile))
	}
	return token, err
}

// ReadAdminToken is the admin's token that a state folder holds, and the user id of
// whose file it is. It makes none.
func ReadAdminToken(dir string) (token string, owner int, err error) {
	path := store{dir: dir}.path(adminFile)
	data, err := readSecret(path)
	if err != nil {
		return "", 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", 0, err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(s.Uid)
	}
	return strings.TrimSpace(string(data)), owner, nil
}

// once reads a secret, or keeps the one that make makes. Of several gateways that
// begin with one folder at the same time all get the same.
func (s store) once(name string, make func() ([]byte, error)) ([]byte, error) {
	path := s.path(name)
	data, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if data, err = make(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.keep(name, data); err != nil {
		return nil, fmt.Errorf("state folder: %w; set state to a folder that this user may write", err)
	}
	return readSecret(path)
}

// keep writes a file that isn't there, whole or not at all.
func (s store) keep(name string, data []byte) error {
	f, err := os.CreateTemp(s.dir, "."+name+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), s.path(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// readSecret reads a small file that nobody but its owner may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s: others may read it (%v); if they can't have, chmod 600 it, else remove it for a new one", path, info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(f, 16<<10))
}

// use marks a link's id as used, for as long as the link could be presented: by
// a file of its own, whose creation succeeds once, whatever happens to the
// process in between. Marks of links that have ended are removed.
func (s store) use(id string, expires, now time.Time) error {
	if id == "" || strings.ContainsAny(id, "/.-") || len(id) > 64 { // its signature was right all the same
		return fmt.Errorf("%w: the link has no proper id", ErrUnauthorized)
	}
	s.sweep(now)
	f, err := os.OpenFile(filepath.Join(s.dir, linksDir, strconv.FormatInt(expires.Unix(), 10)+"-"+id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return ErrUsed
	}
	if err == nil {
		err = errors.Join(f.Close(), syncFolder(filepath.Join(s.dir, linksDir)))
	}
	if err != nil { // not marked for sure: not given
		return fmt.Errorf("used link: %w", err)
	}
	return nil
}

// sweep removes the marks of links that have ended a while ago, by the clock that they go
// by and, for as long as this process runs, by that which isn't set. A clock that is set
// forward and back again so revives no link.
func (s store) sweep(now time.Time) {
	l := s.links
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := os.ReadDir(filepath.Join(s.dir, linksDir))
	if err != nil {
		return // use will say so
	}
	up, ended := l.up(), make(map[string]time.Duration)
	for _, e := range entries {
		end, _, _ := strings.Cut(e.Name(), "-")
		if seconds, err := strconv.ParseInt(end, 10, 64); err != nil || !now.After(time.Unix(seconds, 0)) {
			continue
		}
		since, seen := l.since[e.Name()]
		if !seen {
			since = up
		}
		if up-since >= markKept && os.Remove(filepath.Join(s.dir, linksDir, e.Name())) == nil {
			continue
		}
		ended[e.Name()] = since
	}
	l.since = ended
}

// syncFolder has a new file of a folder outlast a power cut.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
