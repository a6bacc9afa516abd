package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"gateway/internal/auth"
)

const (
	maxLogin  = 16 << 10            // bytes of a body
	maxCookie = 3 << 10             // bytes of a token that browsers surely keep (RFC 6265 §6.1)
	keepFor   = 30 * 24 * time.Hour // a token without an end in a browser
)

// login turns a token, a link or a password into a browser's cookie, so that the
// page needs to keep no secret.
func (g *Gateway) login(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Token, User, Password string }
	if !readJSON(w, r, &asked) {
		return
	}
	if g.auth.Open() {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	token := asked.Token
	var err error
	switch {
	case token == "" && asked.User == "":
		writeProblem(w, r, http.StatusBadRequest, "bad-message", "it takes token, or user and password")
		return
	case token == "":
		if token, err = g.auth.Login(r.Context(), auth.AddressOf(r.RemoteAddr), asked.User, asked.Password); err == nil {
			g.log.Info("login", "user", asked.User)
		} else if errors.Is(err, auth.ErrPassword) {
			g.log.Warn("login refused", "address", r.RemoteAddr)
		}
	case g.auth.IsLink(token):
		token, err = g.auth.Redeem(token)
	}
	var grant *auth.Grant
	if err == nil {
		grant, err = g.auth.Authenticate(r.Context(), token)
	}
	switch {
	case err != nil:
		g.unauthorized(w, r, err)
		return
	case len(token) > maxCookie:
		writeProblem(w, r, http.StatusBadRequest, "message-too-large", fmt.Sprintf("a token of more than %d bytes fits no cookie: send it as Authorization: Bearer", maxCookie))
		return
	}
	age := keepFor
	if !grant.Expires.IsZero() {
		age = time.Until(grant.Expires)
	}
	g.setCookie(w, r, token, max(int(age/time.Second), 1))
	w.WriteHeader(http.StatusNoContent)
}

// renew has a running session go on by what the request is granted, which a page whose
// visitor has signed in again can't send over its socket: no script can read the cookie.
func (g *Gateway) renew(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Session string }
	if readJSON(w, r, &asked) {
		g.signal.Renew(w, r, asked.Session, grantOf(r))
	}
}

// logout has the browser forget its cookie. A token of which there is a copy
// elsewhere goes on until its end.
func (g *Gateway) logout(w http.ResponseWriter, r *http.Request) {
	g.setCookie(w, r, "", -1)
	w.WriteHeader(http.StatusNoContent)
}

// setCookie is for requests to this site only, out of reach of scripts, and where
// the request came by TLS it goes back by nothing else.
func (g *Gateway) setCookie(w http.ResponseWriter, r *http.Request, token string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: auth.Cookie, Value: token, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
	w.Header().Set("Cache-Control", "no-store")
}

// whoAmI tells what the request may do, and where.
func (g *Gateway) whoAmI(w http.ResponseWriter, r *http.Request) {
	grant := grantOf(r)
	answer := struct {
		Subject string        `json:"subject"`
		Name    string        `json:"name"`
		Role    auth.Role     `json:"role"`
		Can     []auth.Action `json:"can"`
		Rooms   []string      `json:"rooms"`   // patterns
		Streams []string      `json:"streams"` // patterns; none: all
		Create  bool          `json:"create"`
		Expires int64         `json:"expires,omitempty"` // Unix milliseconds
		Open    bool          `json:"open,omitempty"`    // nobody is asked: auth.mode is none
	}{
		Subject: grant.Subject, Name: grant.Name, Role: grant.Role, Can: grant.Actions(), Create: grant.Create, Open: g.auth.Open(),
		Rooms: append([]string{}, grant.Rooms...), Streams: append([]string{}, grant.Streams...),
	}
	if !grant.Expires.IsZero() {
		answer.Expires = grant.Expires.UnixMilli()
	}
	writeJSON(w, http.StatusOK, answer)
}

// share makes a link that somebody can use once, for one room: its maker
// moderates it, or the one stream of it, and gives no more than they have. Who may make
// rooms shares a room that may be gone when somebody comes: then the link makes it anew.
func (g *Gateway) share(w http.ResponseWriter, r *http.Request) {
	asked := struct {
		Room      string
		Stream    string    // "": all of the room
		Role      auth.Role // default viewer
		Name      string    // to be shown for who comes; "": they say it
		ExpiresIn int       // s in which it has to be used; default a day
		Lasts     int       // s that what it gives lasts; default 12 h
	}{Role: auth.Viewer, ExpiresIn: 24 * 3600, Lasts: 12 * 3600}
	if !readJSON(w, r, &asked) {
		return
	}
	grant := grantOf(r)
	if asked.Room == "" || !grant.May(auth.Moderate, asked.Room, asked.Stream) {
		deny(w, r, "who moderates a room may share it")
		return
	}
	made := &auth.Grant{Name: asked.Name, Role: asked.Role, Rooms: []string{auth.Literal(asked.Room)}, Create: grant.Create}
	if asked.Stream != "" {
		made.Streams = []string{auth.Literal(asked.Stream)}
	}
	const month = 30 * 24 * 3600
	if asked.ExpiresIn < 1 || asked.ExpiresIn > month || asked.Lasts < 1 || asked.Lasts > month {
		writeProblem(w, r, http.StatusBadRequest, "bad-message", "expiresIn and lasts are 1 to 2592000 s")
		return
	}
	token, expires, err := g.auth.Share(grant, made, time.Duration(asked.ExpiresIn)*time.Second, time.Duration(asked.Lasts)*time.Second)
	switch {
	case errors.Is(err, auth.ErrForbidden):
		deny(w, r, err.Error())
		return
	case err != nil:
		writeProblem(w, r, http.StatusBadRequest, "bad-message", err.Error())
		return
	}
	id, _ := auth.TokenID(token) // it has one
	writeJSON(w, http.StatusCreated, struct {
		Token   string `json:"token"`
		ID      string `json:"id"`      // by which it is revoked
		Path    string `json:"path"`    // of the page, to be put behind the gateway's address
		Expires int64  `json:"expires"` // Unix milliseconds
	}{token, id, "/room/" + url.PathEscape(asked.Room) + "#token=" + token, expires.UnixMilli()})
}

// readJSON reads a small object with no field that isn't known. Where it can't
// it has answered.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		writeProblem(w, r, http.StatusUnsupportedMediaType, "unsupported-media-type", "the body is of type application/json")
		return false
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows the object")
		}
	}
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		writeProblem(w, r, http.StatusRequestEntityTooLarge, "message-too-large", fmt.Sprintf("a body has at most %d bytes", maxLogin))
		return false
	} else if err != nil {
		writeProblem(w, r, http.StatusBadRequest, "bad-message", "not the object that is expected: "+err.Error())
		return false
	}
	return true
}
