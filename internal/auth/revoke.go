package auth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// ErrRevoked is an ErrUnauthorized: the token was taken back, or one that it was made of.
var ErrRevoked = fmt.Errorf("%w: the token was revoked", ErrUnauthorized)

// origin is a token that a grant came of.
type origin struct {
	ID      string           `json:"jti,omitempty"`
	Subject string           `json:"sub,omitempty"`
	Issued  *jwt.NumericDate `json:"iat,omitempty"` // missing: before anything
}

const (
	maxOrigins = 16     // hands that a link goes through
	maxRevoked = 10_000 // revocations
	maxID      = 512    // bytes of one
)

// Revocation takes back one token by its ID (jti, RFC 7519 §4.1.7), or all of a subject
// that were issued until then; with them the links that were made with them, and what
// these gave.
type Revocation struct {
	ID      string    `json:"id,omitempty"`
	Subject string    `json:"subject,omitempty"`
	At      time.Time `json:"at"`
}

// covers tells whether a revocation is about an origin. A token that doesn't tell when it
// was issued counts as an old one.
func (r Revocation) covers(o origin) bool {
	if r.ID != "" {
		return r.ID == o.ID
	}
	return r.Subject == o.Subject && (o.Issued == nil || !o.Issued.After(r.At))
}

// key names a revocation, in memory and as a file.
func (r Revocation) key() string {
	kind, of := "id-", r.ID
	if of == "" {
		kind, of = "subject-", r.Subject
	}
	sum := sha256.Sum256([]byte(of))
	return kind + hex.EncodeToString(sum[:16])
}

func (r Revocation) check() error {
	switch {
	case (r.ID == "") == (r.Subject == ""):
		return errors.New("a revocation is of an id or of a subject")
	case len(r.ID) > maxID || len(r.Subject) > maxName:
		return fmt.Errorf("an id has at most %d bytes, a subject %d", maxID, maxName)
	}
	return nil
}

// revoked is the revocations in force.
type revoked struct {
	files sync.Mutex // held while they are read or written

	mu sync.RWMutex // guards by; held for a moment
	by map[string]Revocation
}

func (v *revoked) set(by map[string]Revocation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.by = by
}

// find is the revocation of one of the origins, if there is one.
func (v *revoked) find(origins []origin) (Revocation, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.by) == 0 {
		return Revocation{}, false
	}
	for _, o := range origins {
		for _, about := range []Revocation{{ID: o.ID}, {Subject: o.Subject}} {
			if about.ID == "" && about.Subject == "" {
				continue
			}
			if r, ok := v.by[about.key()]; ok && r.covers(o) {
				return r, true
			}
		}
	}
	return Revocation{}, false
}

// Revoked tells whether what a grant came of was taken back since.
func (a *Authority) Revoked(g *Grant) bool {
	if g == nil {
		return false
	}
	_, is := a.revoked.find(g.origins)
	return is
}

// TokenID is how a token is named in a revocation: for who has its text. Neither its
// signature nor its time is looked at.
func TokenID(token string) (string, error) {
	c := new(jwt.RegisteredClaims)
	if _, _, err := jwt.NewParser().ParseUnverified(token, c); err != nil || len(token) > maxToken {
		return "", errors.New("this is not a token that says what it is: the admin's own ends with its file")
	}
	if c.ID == "" {
		return "", errors.New("the token has no id (jti): revoke its subject")
	}
	return c.ID, nil
}

// Revoke takes tokens back, from now on and for good: it is kept in the state folder.
// Those who came by them are still there: see Revoked. An unknown id is taken too.
func (a *Authority) Revoke(r Revocation) (Revocation, error) {
	if a.open {
		return r, errors.New("there are no tokens: auth.mode is none")
	}
	if err := r.check(); err != nil {
		return r, err
	}
	r.At = a.now().UTC().Truncate(time.Second)
	a.revoked.files.Lock()
	defer a.revoked.files.Unlock()
	by, err := a.state.revoked()
	if _, again := by[r.key()]; err == nil && !again && len(by) >= maxRevoked {
		err = fmt.Errorf("%d are kept already: remove old files from %s", maxRevoked, a.state.path(revokedDir))
	}
	if err == nil {
		err = a.state.revoke(r)
	}
	if err != nil {
		return r, fmt.Errorf("revocation: %w", err)
	}
	by[r.key()] = r
	a.revoked.set(by)
	return r, nil
}

// Revocations lists what was revoked, the newest first.
func (a *Authority) Revocations() []Revocation {
	a.revoked.mu.RLock()
	defer a.revoked.mu.RUnlock()
	return slices.SortedFunc(maps.Values(a.revoked.by), func(x, y Revocation) int {
		return cmp.Or(y.At.Compare(x.At), strings.Compare(x.ID, y.ID), strings.Compare(x.Subject, y.Subject))
	})
}

// RevokedFolder is where revocations are kept, a file each; "" where there are none.
func (a *Authority) RevokedFolder() string {
	if a.open {
		return ""
	}
	return a.state.path(revokedDir)
}

// ReadRevoked reads the revocations again, which another process may have made. With an
// error those that were known before hold on.
func (a *Authority) ReadRevoked() error {
	if a.open {
		return nil
	}
	a.revoked.files.Lock()
	defer a.revoked.files.Unlock()
	by, err := a.state.revoked()
	if err != nil {
		return fmt.Errorf("revocations: %w", err)
	}
	a.revoked.set(by)
	return nil
}

// revoke keeps a revocation, in the place of one about the same.
func (s store) revoke(r Revocation) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".revoked-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	folder := filepath.Join(s.dir, revokedDir)
	return errors.Join(os.Rename(f.Name(), filepath.Join(folder, r.key())), syncFolder(folder))
}

// revoked reads all revocations.
func (s store) revoked() (map[string]Revocation, error) {
	folder := filepath.Join(s.dir, revokedDir)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	by := make(map[string]Revocation, len(entries))
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		data, err := readSecret(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just removed
		}
		var r Revocation
		if err == nil {
			if err = json.Unmarshal(data, &r); err == nil {
				err = r.check()
			}
			if err != nil {
				err = fmt.Errorf("%s: not a revocation (%w); remove it if it is none", path, err)
			}
		}
		if err != nil {
			return nil, err
		}
		by[r.key()] = r
	}
	return by, nil
}
