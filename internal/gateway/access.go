package gateway

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gateway/internal/auth"
	"gateway/internal/config"
)

// row is one thing that the gateway answers over HTTP. The table of rows is all
// that it answers: what has no row isn't served, and what has no need is served
// to nobody.
type row struct {
	pattern string // as http.ServeMux has it
	need    need
	handler http.Handler
}

// path is the pattern without its method.
func (r row) path() string {
	if _, path, ok := strings.Cut(r.pattern, " "); ok {
		return path
	}
	return r.pattern
}

// need is what a request has to bring. The zero need is met by nobody.
type need struct {
	by     admission
	action auth.Action // by grant: that it has to allow; "": any will do, and the handler looks closer
	on     string      // where: "" on the gateway itself, "room" in the room {room}, "stream" on the stream {name}
}

type admission uint8

const (
	never     admission = iota
	byAnyone            // no secrets are behind it
	byHandler           // which asks the authority itself
	byGrant
)

var (
	anyone  = need{by: byAnyone}
	handler = need{by: byHandler}
	someone = need{by: byGrant}
	inRoom  = need{by: byGrant, on: "room"} // who may anything in the room {room}
)

func may(action auth.Action) need         { return need{by: byGrant, action: action} }
func mayInRoom(action auth.Action) need   { return need{by: byGrant, action: action, on: "room"} }
func mayOnStream(action auth.Action) need { return need{by: byGrant, action: action, on: "stream"} }

// served is the table as a handler.
func (g *Gateway) served(table []row) *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range table {
		h := g.admit(r.need, r.handler)
		switch path := r.path(); {
		case path == "/healthz": // whoever probes, by whatever name
		case strings.HasPrefix(path, "/api/"):
			h = g.knownHost(g.ownPages(h))
		default:
			h = g.knownHost(h)
		}
		mux.Handle(r.pattern, h)
	}
	return mux
}

// admit lets those requests pass that bring what is needed.
func (g *Gateway) admit(n need, next http.Handler) http.Handler {
	switch n.by {
	case byAnyone, byHandler:
		return next
	case byGrant:
	default:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { deny(w, r, "nobody may do this") })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant, err := g.auth.FromRequest(r)
		if err != nil {
			g.unauthorized(w, r, err)
			return
		}
		if !g.allows(grant, n, r) {
			deny(w, r, "this takes a grant to "+cmp.Or(string(n.action), "do anything in this room"))
			return
		}
		w.Header().Add("Vary", "Authorization, Cookie")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), grantKey{}, grant)))
	})
}

// allows tells whether a grant allows the action of a row where the request is about.
func (g *Gateway) allows(grant *auth.Grant, n need, r *http.Request) bool {
	switch name := r.PathValue("name"); n.on {
	case "stream":
		return name != "" && g.mayOn(grant, n.action, name)
	case "room":
		room := r.PathValue("room")
		if n.action == "" {
			return room != "" && len(grant.In(room)) > 0
		}
		return room != "" && grant.May(n.action, room, "")
	}
	return n.action == "" || grant.May(n.action, "", "")
}

// mayOn tells whether a grant allows an action on a stream: in its own room, and to
// watch it also in another room that offers it.
func (g *Gateway) mayOn(grant *auth.Grant, action auth.Action, name string) bool {
	return grant.May(action, name, name) || action == auth.Watch && slices.ContainsFunc(g.conf.Rooms, func(r config.Room) bool {
		return slices.Contains(r.Streams, name) && grant.May(action, r.Name, name)
	})
}

// offered tells why nobody with this grant is shown a stream now: each room of the stream
// that the grant reaches is closed or locked; nil where one isn't.
func (g *Gateway) offered(grant *auth.Grant, name string) error {
	_, err := g.rooms.Offer(name, name, grant)
	for _, r := range g.conf.Rooms {
		if err == nil {
			return nil
		}
		if slices.Contains(r.Streams, name) && grant.May(auth.Watch, r.Name, name) {
			_, err = g.rooms.Offer(r.Name, name, grant)
		}
	}
	return err
}

type grantKey struct{}

// grantOf is what the request of a row that takes a grant may do; nil, which may
// nothing, for others.
func grantOf(r *http.Request) *auth.Grant {
	g, _ := r.Context().Value(grantKey{}).(*auth.Grant)
	return g
}

// unauthorized answers who couldn't be told (RFC 6750 §3), or not be told now.
func (g *Gateway) unauthorized(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, auth.ErrThrottled):
		w.Header().Set("Retry-After", strconv.Itoa(60))
		writeProblem(w, r, http.StatusTooManyRequests, "rate-limited", err.Error())
		return
	case !errors.Is(err, auth.ErrUnauthorized):
		g.log.ErrorContext(r.Context(), "access", "err", err)
		writeProblem(w, r, http.StatusInternalServerError, "internal", "the gateway has a fault; its log has the trace id")
		return
	}
	challenge := "Bearer"
	if !errors.Is(err, auth.ErrNoToken) {
		challenge = `Bearer error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	writeProblem(w, r, http.StatusUnauthorized, "unauthorized", sentence(err))
}

// deny answers who was told, and may not.
func deny(w http.ResponseWriter, r *http.Request, detail string) {
	writeProblem(w, r, http.StatusForbidden, "forbidden", detail)
}

// sentence is an error of auth as its bearer reads it: what is said already by
// the status isn't repeated.
func sentence(err error) string {
	return strings.TrimPrefix(err.Error(), auth.ErrUnauthorized.Error()+": ")
}
