package signal

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

type traceKey struct{}

// TraceID is the trace id of the request that ctx belongs to, 32 hex digits, or
// "" outside of [Trace].
func TraceID(ctx context.Context) string {
	id, _ := ctx.Value(traceKey{}).(string)
	return id
}

// Trace gives every request a trace id: the client's, from traceparent or
// X-Trace-ID, if it sends a valid one, else a new one. It is in the request's
// context ([TraceID]), in X-Trace-ID of the answer, and in one debug line a
// request on log.
func Trace(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := traceOf(r.Header)
		w.Header().Set("X-Trace-ID", id)
		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, id))
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(a, r)
		// the route, not the path: the address of a WHEP session is a secret
		log.DebugContext(r.Context(), "request", "trace_id", id, "method", r.Method, "route", r.Pattern,
			"status", a.status, "took", time.Since(began))
	})
}

// traceOf finds the client's trace id, or makes one.
func traceOf(h http.Header) string {
	if id := parseTraceparent(h.Get("traceparent")); id != "" {
		return id
	}
	if id := strings.ToLower(h.Get("X-Trace-ID")); isTraceID(id) {
		return id
	}
	return newTraceID()
}

// parseTraceparent takes the trace id out of a traceparent (W3C Trace Context
// §3.2.2): version-traceid-parentid-flags, in lower case. A version after 00 may
// say more behind another dash.
func parseTraceparent(v string) string {
	const size = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(v) < size || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return ""
	}
	version, id, parent, flags := v[:2], v[3:35], v[36:52], v[53:55]
	switch {
	case !isHex(version) || !isHex(parent) || !isHex(flags) || !isTraceID(id):
		return ""
	case version == "ff" || parent == "0000000000000000":
		return ""
	case len(v) > size && (version == "00" || v[size] != '-'):
		return ""
	}
	return id
}

// isTraceID tells 32 lower-case hex digits that aren't all zero.
func isTraceID(id string) bool {
	return len(id) == 32 && isHex(id) && strings.Trim(id, "0") != ""
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func newTraceID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// answer notes the status of a response.
type answer struct {
	http.ResponseWriter
	status int
	wrote  bool
}

// WriteHeader takes the first status that is final; 1xx, but for 101, come before it.
func (a *answer) WriteHeader(status int) {
	if !a.wrote {
		a.status, a.wrote = status, status >= 200 || status == http.StatusSwitchingProtocols
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write without a WriteHeader before it is a 200, which the status begins as.
func (a *answer) Write(b []byte) (int, error) {
	a.wrote = true
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack is for the WebSocket upgrade, which asks for an http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.status, a.wrote = http.StatusSwitchingProtocols, true
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// Flush is for handlers that ask for an http.Flusher.
func (a *answer) Flush() { http.NewResponseController(a.ResponseWriter).Flush() }
