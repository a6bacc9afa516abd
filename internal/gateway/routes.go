package gateway

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway/internal/auth"
	"gateway/internal/contain"
	"gateway/internal/signal"
	"gateway/internal/stream"
	"gateway/internal/web"
)

// reloadTimeout bounds the wait for a reload; it is shorter than the server's for
// an answer.
const reloadTimeout = 25 * time.Second

// routes is everything that the gateway answers over HTTP.
func (g *Gateway) routes() http.Handler {
	var h http.Handler = g.served(g.table())
	if g.https != nil {
		h = g.https.Insist(h)
	}
	return g.proxied(signal.Trace(contained(h, g.log), g.log))
}

// contained is the border of requests: one that panics is cut off, unanswered or in
// the middle of its answer.
func contained(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch value := recover(); value {
			case nil:
			case http.ErrAbortHandler: // net/http's way to cut off
				panic(value)
			default:
				contain.Note(log.With("trace_id", signal.TraceID(r.Context()), "route", r.Pattern), "request", value)
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// table is all that is served, and what each takes.
func (g *Gateway) table() []row {
	f := func(h http.HandlerFunc) http.Handler { return h }
	return []row{
		{"/", anyone, web.Handler()}, // the pages hold no secrets
		{"GET /healthz", anyone, f(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })},
		{"GET /readyz", anyone, f(g.readyz)},
		{"GET /metrics", may(auth.Administer), promhttp.HandlerFor(g.registry, promhttp.HandlerOpts{})},
		{"GET /ws", handler, g.signal.WebSocket()},
		{"/whep/", handler, g.signal.WHEP()},
		{"/whip/", handler, g.signal.WHIP()},

		{"/api/", someone, f(notFound)},
		{"GET /api/session", someone, f(g.whoAmI)},
		{"POST /api/session", anyone, f(g.login)},
		{"DELETE /api/session", anyone, f(g.logout)},
		{"POST /api/shares", someone, f(g.share)},   // who moderates the room that the body names
		{"POST /api/renewals", someone, f(g.renew)}, // of the same subject's session
		{"GET /api/revocations", may(auth.Administer), f(g.listRevoked)},
		{"POST /api/revocations", may(auth.Administer), f(g.revoke)},
		{"GET /api/streams", someone, f(g.listStreams)}, // those that may be watched
		{"GET /api/streams/{name}", mayOnStream(auth.Watch), f(g.oneStream)},
		{"GET /api/streams/{name}/snapshot.jpg", mayOnStream(auth.Watch), f(g.snapshot)},
		{"GET /api/streams/{name}/viewers", mayOnStream(auth.Moderate), f(g.listViewers)},
		{"GET /api/rooms", someone, f(g.listRooms)}, // those in which anything is granted
		{"GET /api/rooms/{room}", inRoom, f(g.oneRoom)},
		{"POST /api/rooms/{room}/close", mayInRoom(auth.Moderate), f(g.closeRoom)},
		{"POST /api/rooms/{room}/open", mayInRoom(auth.Administer), f(g.openRoom)},
		{"DELETE /api/rooms/{room}/participants/{user}", mayInRoom(auth.Moderate), f(g.removeFromRoom)},
		{"POST /api/reload", may(auth.Administer), f(g.reload)},
		{"GET /api/support", may(auth.Administer), f(g.support)},
	}
}

// ownPages refuses what a page of another site asks for with a browser's help,
// such as a picture that would switch a camera on (Fetch Metadata,
// Sec-Fetch-Site). Programs, and pages that are opened by hand, don't say so. Where
// "*" lets all pages in, they come without the browser's cookie and certificate.
func (g *Gateway) ownPages(next http.Handler) http.Handler {
	open := slices.Contains(g.conf.HTTP.AllowedOrigins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		own := !foreign(r) && (site == "" || site == "none" || site == "same-origin")
		switch {
		case open:
			if !own { // SameSite doesn't keep it from another port of this host
				auth.Unclaimed(r)
			}
			next.ServeHTTP(w, r)
		case own:
			w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
			next.ServeHTTP(w, r)
		default:
			writeProblem(w, r, http.StatusForbidden, "forbidden", "a page of another site asked")
		}
	})
}

// foreign tells whether a page of another origin asks. Browsers say it with every
// request that may change something (RFC 6454 §7.3).
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host) || r.TLS != nil && u.Scheme != "https"
}

func (g *Gateway) readyz(w http.ResponseWriter, _ *http.Request) {
	if !g.ready.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// listStreams lists what the request may watch, and to who administers the
// gateway what is wrong with the files.
func (g *Gateway) listStreams(w http.ResponseWriter, r *http.Request) {
	grant := grantOf(r)
	answer := struct {
		Streams  []stream.Info `json:"streams"`
		Problems []string      `json:"problems,omitempty"` // files that were left out, and why
	}{Streams: []stream.Info{}}
	if grant.May(auth.Administer, "", "") {
		answer.Problems = g.streams.problems()
	}
	for _, s := range g.streams.list() {
		if g.mayOn(grant, auth.Watch, s.Name()) {
			answer.Streams = append(answer.Streams, brief(s.Info()))
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// brief is a stream without how it is made.
func brief(i stream.Info) stream.Info {
	i.Notes = nil
	for t := range i.Tracks {
		i.Tracks[t].Launch = ""
	}
	return i
}

// oneStream tells of one stream, and how it is made to who administers the gateway.
func (g *Gateway) oneStream(w http.ResponseWriter, r *http.Request) {
	s, ok := g.streams.Stream(r.PathValue("name"))
	if !ok {
		notFound(w, r)
		return
	}
	answer := struct {
		stream.Info
		Settings string `json:"settings,omitempty"` // in force, as YAML, with defaults
	}{s.Info(), s.Config().Settings()}
	if !grantOf(r).May(auth.Administer, "", "") {
		answer.Info, answer.Settings = brief(answer.Info), ""
	}
	writeJSON(w, http.StatusOK, answer)
}

// listViewers tells who watches a stream, and how it goes.
func (g *Gateway) listViewers(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, ok := g.streams.Stream(name); !ok {
		notFound(w, r)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Viewers []signal.Viewer `json:"viewers"`
	}{g.signal.Viewers(r.Context(), name)})
}

// reload brings the streams in line with their files and answers with what was
// done to those that have changed, or were refused before.
func (g *Gateway) reload(w http.ResponseWriter, r *http.Request) {
	done := make(chan []outcome, 1)
	go func() { done <- g.streams.reload(true) }() // ends with the streams at the latest
	select {
	case o := <-done:
		writeJSON(w, http.StatusOK, struct {
			Streams []outcome `json:"streams"`
		}{append([]outcome{}, o...)})
	case <-time.After(reloadTimeout):
		writeProblem(w, r, http.StatusGatewayTimeout, "timeout", "the reload takes long; /api/streams/NAME tells how it comes out")
	case <-r.Context().Done():
	}
}

// problem is an error as RFC 9457 has it.
type problem struct {
	Title   string `json:"title"`
	Detail  string `json:"detail,omitempty"`
	Code    string `json:"code"`
	TraceID string `json:"traceId"`
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, r, http.StatusNotFound, "not-found", "there is nothing at "+r.URL.Path)
}

func writeProblem(w http.ResponseWriter, r *http.Request, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(problem{Title: http.StatusText(status), Detail: detail, Code: code, TraceID: signal.TraceID(r.Context())})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// knownHost refuses requests whose Host is a name that isn't this gateway's: a
// page elsewhere could otherwise have its own name resolved to this address (DNS
// rebinding) and read streams as if it came from here.
func (g *Gateway) knownHost(next http.Handler) http.Handler {
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(strings.ToLower(name), ".")
		names = append(names, strings.ToLower(name), short, short+".local")
	}
	for _, origin := range g.conf.HTTP.AllowedOrigins {
		if u, err := url.Parse(origin); err == nil && u.Hostname() != "" {
			names = append(names, strings.ToLower(u.Hostname()))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.ToLower(strings.Trim(strings.TrimSuffix(host, "."), "[]"))
		_, err := netip.ParseAddr(host)
		if err != nil && !slices.Contains(names, host) && !(g.https != nil && g.https.Knows(host)) {
			writeProblem(w, r, http.StatusMisdirectedRequest, "unknown-host",
				fmt.Sprintf("this gateway isn't known as %q; if it should be, list http://%s under http.allowed_origins", host, host))
			return
		}
		next.ServeHTTP(w, r)
	})
}
