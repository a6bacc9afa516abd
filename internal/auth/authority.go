package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gateway/internal/config"
)

// Cookie is the cookie that holds a browser's token.
const Cookie = "gateway_session"

// Errors that callers branch on. All but ErrThrottled and ErrForbidden are
// ErrUnauthorized too.
var (
	ErrUnauthorized = errors.New("not authorized")
	ErrNoToken      = fmt.Errorf("%w: no token was given", ErrUnauthorized)
	ErrExpired      = fmt.Errorf("%w: the token has expired", ErrUnauthorized)
	ErrUsed         = fmt.Errorf("%w: the link was used before", ErrUnauthorized)
	ErrPassword     = fmt.Errorf("%w: the user or the password is wrong", ErrUnauthorized)
	ErrThrottled    = errors.New("too many logins: wait a minute")
	ErrForbidden    = errors.New("nobody gives more than they have")
)

const (
	maxToken     = 8 << 10 // bytes
	maxTTL       = 3660 * 24 * time.Hour
	sessionTTL   = 12 * time.Hour // of who logged in with a password, or came by a link
	maxLink      = 30 * 24 * time.Hour
	clockSkew    = 30 * time.Second // that others' clocks may be ahead of ours
	adminSubject = "admin"
)

// Options are what an authority is made of.
type Options struct {
	Config *config.Auth
	State  string // folder of the gateway's own secrets, made if it isn't there; not used in mode none
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Authority decides who somebody is. A zero one admits nobody.
type Authority struct {
	open    bool
	own     signer
	admin   string // the admin's token
	state   store
	revoked revoked
	users   map[string]config.User
	known   map[string]config.Machine // by a name in their certificates
	others  *others                   // nil: tokens of others aren't taken
	log     *slog.Logger
	now     func() time.Time
	logins  *throttle
	hashing chan struct{} // a place for each password that is checked at a time
	waiting chan struct{} // and for each login that waits for one
}

// New makes an authority, and its state folder with the gateway's own key and
// the admin's token where they aren't there yet. The error names the file and a
// remedy.
func New(o Options) (*Authority, error) {
	a := &Authority{log: cmp.Or(o.Logger, slog.Default()), now: o.Now, users: o.Config.Users, known: o.Config.Machines}
	if a.now == nil {
		a.now = time.Now
	}
	if o.Config.Mode == config.AuthNone {
		a.open = true
		return a, nil
	}
	a.logins, a.hashing, a.waiting = newThrottle(a.now), make(chan struct{}, hashesAtATime), make(chan struct{}, loginsAtATime)
	var err error
	if a.state, err = openStore(o.State); err != nil {
		return nil, err
	}
	if err := a.ReadRevoked(); err != nil {
		return nil, err
	}
	if a.own, err = a.state.signer(); err != nil {
		return nil, err
	}
	if a.admin, err = a.state.adminToken(); err != nil {
		return nil, err
	}
	if o.Config.Mode == config.AuthJWT {
		if a.others, err = newOthers(o.Config, a.log, a.now); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Open tells whether everybody is admitted (auth.mode none).
func (a *Authority) Open() bool { return a.open }

// AdminToken is the token that may do everything and has no end, "" where
// everybody may. AdminTokenFile is where it is kept.
func (a *Authority) AdminToken() string { return a.admin }

// AdminTokenFile is the path of the file that holds AdminToken.
func (a *Authority) AdminTokenFile() string { return a.state.path(adminFile) }

// Reload reads the key files of others again, and the revocations. Where it can't, it
// says so in the log, and those from before hold.
func (a *Authority) Reload() {
	if err := a.ReadRevoked(); err != nil {
		a.log.Error("revocations not read again: those from before hold", "err", err)
	}
	if a.others == nil {
		return
	}
	if err := a.others.read(); err != nil {
		a.log.Error("keys not read again: those from before hold", "err", err)
	}
}

// Authenticate tells what a token grants. Errors are ErrUnauthorized, with words
// that its bearer may read.
func (a *Authority) Authenticate(ctx context.Context, token string) (*Grant, error) {
	switch {
	case a.open:
		return Open(), nil
	case token == "":
		return nil, ErrNoToken
	case len(token) > maxToken:
		return nil, fmt.Errorf("%w: a token has at most %d bytes", ErrUnauthorized, maxToken)
	case a.isAdmin(token):
		return &Grant{Subject: adminSubject, Role: Admin, Rooms: []string{"*"}, Create: true}, nil
	}
	g, err := a.authenticate(ctx, token)
	if err == nil && a.Revoked(g) {
		return nil, ErrRevoked
	}
	return g, err
}

// authenticate is Authenticate for what is no secret of the gateway's own.
func (a *Authority) authenticate(ctx context.Context, token string) (*Grant, error) {
	switch {
	case a.own.isOwn(token):
		return a.authenticateOwn(token)
	case a.others != nil:
		return a.others.authenticate(ctx, token)
	}
	return nil, fmt.Errorf("%w: the token is not this gateway's", ErrUnauthorized)
}

// isAdmin compares in a time that tells nothing of the token.
func (a *Authority) isAdmin(token string) bool {
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.admin))
	return a.admin != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// authenticateOwn takes a token that this gateway has signed.
func (a *Authority) authenticateOwn(token string) (*Grant, error) {
	c, err := a.own.parse(token, typeToken, a.now)
	if err != nil {
		return nil, err
	}
	if c.User != "" { // what a user may is in the configuration, as it is now
		user, ok := a.users[c.User]
		if !ok || fingerprint(user.Password) != c.Password {
			return nil, fmt.Errorf("%w: the user isn't there any more, or has another password", ErrUnauthorized)
		}
		g := userGrant(c.User, user)
		g.Expires, g.origins = c.expires(), c.origins()
		return g, nil
	}
	return c.grant()
}

// FromRequest tells what a request may: by its Authorization header (RFC 6750
// §2.1), else by its cookie, else by the certificate that a machine has shown. It
// blocks as Authenticate does.
func (a *Authority) FromRequest(r *http.Request) (*Grant, error) {
	if a.open {
		return Open(), nil
	}
	token, err := TokenOf(r)
	if errors.Is(err, ErrNoToken) {
		g, err := machineGrant(a.known, r.TLS)
		if err == nil && g.Expired(a.now()) { // since the handshake, which has looked: connections are kept
			return nil, fmt.Errorf("%w: the certificate has expired", ErrUnauthorized)
		}
		if err == nil && a.Revoked(g) {
			return nil, ErrRevoked
		}
		return g, err
	}
	if err != nil {
		return nil, err
	}
	return a.Authenticate(r.Context(), token)
}

// TokenOf is the token that a request brings: that of its Authorization header
// (RFC 6750 §2.1), else that of its cookie.
func TokenOf(r *http.Request) (string, error) {
	switch headers := r.Header.Values("Authorization"); len(headers) {
	case 0:
	case 1:
		scheme, token, _ := strings.Cut(headers[0], " ")
		if token = strings.TrimSpace(token); strings.EqualFold(scheme, "Bearer") && token != "" {
			return token, nil
		}
		return "", fmt.Errorf("%w: the Authorization header has to be: Bearer TOKEN", ErrUnauthorized)
	default:
		return "", fmt.Errorf("%w: there is more than one Authorization header", ErrUnauthorized)
	}
	for _, c := range r.CookiesNamed(Cookie) {
		if c.Value != "" {
			return c.Value, nil
		}
	}
	return "", ErrNoToken
}

// Issue makes a token that grants what g says for ttl, at most ten years, and
// not beyond g.Expires.
func (a *Authority) Issue(g *Grant, ttl time.Duration) (token string, err error) {
	if err := g.check(); err != nil {
		return "", err
	}
	expires, err := a.expiry(g, ttl, maxTTL)
	if err != nil {
		return "", err
	}
	return a.own.sign(typeToken, claimsOf(g), a.now(), expires)
}

// Share makes a link's token: whoever redeems it first gets what g says for
// lasting, once, within ttl (30 days at most). Nobody gives more than they have:
// every action, room, stream and the time have to be the maker's too, or it is
// ErrForbidden.
func (a *Authority) Share(maker, g *Grant, ttl, lasting time.Duration) (token string, expires time.Time, err error) {
	if a.open {
		return "", expires, errors.New("nobody needs a link: auth.mode is none")
	}
	if err := maker.covers(g); err != nil {
		return "", expires, err
	}
	if expires, err = a.expiry(maker, ttl, maxLink); err != nil {
		return "", expires, err
	}
	if len(maker.origins) >= maxOrigins {
		return "", expires, fmt.Errorf("%w: the link that this came of went through %d hands", ErrForbidden, maxOrigins)
	}
	c := claimsOf(g)
	c.From = maker.origins
	c.Lasting = int64(min(cmp.Or(lasting, sessionTTL), maxLink) / time.Second)
	if !maker.Expires.IsZero() {
		c.Until = maker.Expires.Unix()
	}
	token, err = a.own.sign(typeLink, c, a.now(), expires)
	return token, expires, err
}

// expiry is the end of what begins now and lasts for ttl, but for no longer than
// what it comes from.
func (a *Authority) expiry(from *Grant, ttl, most time.Duration) (time.Time, error) {
	if ttl < time.Second || ttl > most {
		return time.Time{}, fmt.Errorf("a duration of %v is not between 1s and %v", ttl, most)
	}
	if a.open {
		return time.Time{}, errors.New("there are no tokens: auth.mode is none")
	}
	expires := a.now().Add(ttl)
	if !from.Expires.IsZero() && from.Expires.Before(expires) {
		expires = from.Expires
	}
	return expires, nil
}

// Redeem takes a link's token, once, and makes a token of it that its bearer
// keeps. Of several at the same time one succeeds; the others, and all later
// ones, also after a restart, get ErrUsed.
func (a *Authority) Redeem(link string) (token string, err error) {
	c, err := a.own.parse(link, typeLink, a.now)
	if err != nil {
		return "", err
	}
	g, err := c.grant()
	if err != nil {
		return "", err
	}
	if a.Revoked(g) {
		return "", ErrRevoked
	}
	if err := a.state.use(c.ID, c.expires(), a.now()); err != nil {
		return "", err
	}
	g.Expires = time.Time{}
	if c.Until != 0 {
		g.Expires = time.Unix(c.Until, 0)
	}
	g.Subject = "link-" + strings.ToLower(c.ID[:min(8, len(c.ID))])
	return a.Issue(g, time.Duration(c.Lasting)*time.Second)
}

// IsLink tells whether a text is a token of Share, used or not.
func (a *Authority) IsLink(token string) bool {
	return !a.open && len(token) <= maxToken && a.own.isOwn(token) && a.own.isType(token, typeLink)
}

// Login makes a token for a user who knows the password. Logins are throttled by
// address and by name (ErrThrottled); a wrong name takes as long as a wrong
// password, and says the same (ErrPassword). It blocks while a password is
// checked, and while others are.
func (a *Authority) Login(ctx context.Context, address, name, password string) (token string, err error) {
	if a.open {
		return "", errors.New("nobody logs in: auth.mode is none")
	}
	counted := name[:min(len(name), maxName)] // which is longer than any user's: what is remembered is bounded
	if !a.logins.allow("address "+address, addressRate) || !a.logins.allow("user "+counted, userRate) {
		return "", ErrThrottled
	}
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default: // from many addresses: those who are known already aren't held up by them
		return "", ErrThrottled
	}
	user, known := a.users[name]
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	want := user.Password
	if !known {
		want = nobodysPassword
	}
	if right := matches(want, password); !right || !known {
		return "", ErrPassword
	}
	c := &claims{User: name, Password: fingerprint(user.Password)}
	c.Subject = name
	return a.own.sign(typeToken, c, a.now(), a.now().Add(sessionTTL))
}

// userGrant is what a user of the configuration may.
func userGrant(name string, u config.User) *Grant {
	return &Grant{Subject: name, Name: shown(name), Role: Role(u.Role), Rooms: u.Rooms, Streams: u.Streams, Create: Role(u.Role) == Admin}
}

// newID names a token, with 128 bits of chance at least.
func newID() string { return rand.Text() }
