package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gorilla/websocket"

	"gateway/internal/auth"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// code says what was refused; docs/protocol.md lists them.
type code string

const (
	badMessage         code = "bad-message"
	badState           code = "bad-state"
	badSDP             code = "bad-sdp"
	badCandidate       code = "bad-candidate"
	notFound           code = "not-found"
	unsupportedVersion code = "unsupported-version"
	codecUnsupported   code = "codec-unsupported"
	tooManyViewers     code = "too-many-viewers"
	tooManyStreams     code = "too-many-streams"
	resumeFailed       code = "resume-failed"
	rateLimited        code = "rate-limited"
	messageTooLarge    code = "message-too-large"
	timedOut           code = "timeout"
	shuttingDown       code = "shutting-down"
	internal           code = "internal"
	unauthorized       code = "unauthorized"
	forbidden          code = "forbidden"
	tokenExpired       code = "token-expired"
	roomClosed         code = "room-closed"
	roomLocked         code = "room-locked"
	roomFull           code = "room-full"
	unknownTarget      code = "unknown-target"
	tooManyRooms       code = "too-many-rooms"
	nameTaken          code = "name-taken"

	// these are answers over HTTP only
	methodNotAllowed     code = "method-not-allowed"
	unsupportedType      code = "unsupported-media-type"
	notReceiving         code = "not-receiving"
	preconditionFailed   code = "precondition-failed"
	preconditionRequired code = "precondition-required"
	streamAbsent         code = "stream-absent"
)

// codes is what each code means to a socket (does it end, and with which close
// code of RFC 6455 §7.4.1) and over HTTP.
var codes = map[code]struct {
	fatal  bool
	close  int
	status int
}{
	badMessage:         {false, websocket.ClosePolicyViolation, http.StatusBadRequest},
	badState:           {false, websocket.ClosePolicyViolation, http.StatusConflict},
	badSDP:             {false, websocket.ClosePolicyViolation, http.StatusBadRequest},
	badCandidate:       {false, websocket.ClosePolicyViolation, http.StatusBadRequest},
	notFound:           {true, websocket.ClosePolicyViolation, http.StatusNotFound},
	unsupportedVersion: {true, websocket.ClosePolicyViolation, http.StatusBadRequest},
	codecUnsupported:   {true, websocket.ClosePolicyViolation, http.StatusNotAcceptable},
	tooManyViewers:     {true, websocket.CloseTryAgainLater, http.StatusServiceUnavailable},
	resumeFailed:       {true, websocket.ClosePolicyViolation, http.StatusNotFound},
	tooManyStreams:     {false, websocket.ClosePolicyViolation, http.StatusConflict},
	rateLimited:        {true, websocket.ClosePolicyViolation, http.StatusTooManyRequests},
	messageTooLarge:    {true, websocket.CloseMessageTooBig, http.StatusRequestEntityTooLarge},
	timedOut:           {true, websocket.ClosePolicyViolation, http.StatusRequestTimeout},
	shuttingDown:       {true, websocket.CloseGoingAway, http.StatusServiceUnavailable},
	internal:           {true, websocket.CloseInternalServerErr, http.StatusInternalServerError},
	unauthorized:       {true, websocket.ClosePolicyViolation, http.StatusUnauthorized},
	forbidden:          {true, websocket.ClosePolicyViolation, http.StatusForbidden},
	tokenExpired:       {true, websocket.ClosePolicyViolation, http.StatusUnauthorized},
	roomClosed:         {true, websocket.ClosePolicyViolation, http.StatusConflict},
	roomLocked:         {true, websocket.ClosePolicyViolation, http.StatusConflict},
	roomFull:           {true, websocket.CloseTryAgainLater, http.StatusServiceUnavailable},
	unknownTarget:      {false, websocket.ClosePolicyViolation, http.StatusNotFound},
	tooManyRooms:       {true, websocket.CloseTryAgainLater, http.StatusServiceUnavailable},
	nameTaken:          {false, websocket.ClosePolicyViolation, http.StatusConflict},

	methodNotAllowed:     {true, websocket.ClosePolicyViolation, http.StatusMethodNotAllowed},
	unsupportedType:      {true, websocket.ClosePolicyViolation, http.StatusUnsupportedMediaType},
	notReceiving:         {true, websocket.ClosePolicyViolation, http.StatusUnprocessableEntity},
	preconditionFailed:   {true, websocket.ClosePolicyViolation, http.StatusPreconditionFailed},
	preconditionRequired: {true, websocket.ClosePolicyViolation, http.StatusPreconditionRequired},
	streamAbsent:         {true, websocket.CloseTryAgainLater, http.StatusServiceUnavailable},
}

// retryAfter is what a client that is refused for the moment is told to wait, in seconds.
const retryAfter = 5

// refusal is an answer of no, as the client reads it.
type refusal struct {
	code    code
	message string
	fatal   bool  // ends the conversation, also where the code alone doesn't
	cause   error // for the log
}

var errShuttingDown = refuse(shuttingDown, "the gateway stops; reconnect later")

func refuse(c code, format string, args ...any) *refusal {
	return &refusal{code: c, message: fmt.Sprintf(format, args...), fatal: codes[c].fatal}
}

// mildly is a refusal after which the conversation goes on, whatever the code
// means elsewhere; nil of nil.
func mildly(err error) error {
	if err == nil {
		return nil
	}
	r := *refusalOf(err)
	r.fatal = r.fatal && r.code == internal
	return &r
}

// Error implements error.
func (r *refusal) Error() string { return string(r.code) + ": " + r.message }

// Unwrap gives the fault behind an internal refusal.
func (r *refusal) Unwrap() error { return r.cause }

// refusalOf is what a client is told of an error. What it can't be told is
// internal, with the cause left to the log.
func refusalOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	for _, known := range []struct {
		err  error
		code code
	}{
		{rtc.ErrBadSDP, badSDP},
		{rtc.ErrBadCandidate, badCandidate},
		{rtc.ErrNoCodec, codecUnsupported},
		{rtc.ErrTooManyTracks, tooManyStreams},
		{rtc.ErrNotReceiving, notReceiving},
		{rtc.ErrBadState, badState},
		{rtc.ErrNeedsFullICE, badState},
		{rtc.ErrClosed, badState},
		{rtc.ErrConnectTimeout, timedOut},
		{stream.ErrClosed, notFound},
		{auth.ErrUnauthorized, unauthorized},
		{room.ErrNotFound, notFound},
		{room.ErrForbidden, forbidden},
		{room.ErrClosed, roomClosed},
		{room.ErrLocked, roomLocked},
		{room.ErrFull, roomFull},
		{room.ErrTooMany, tooManyRooms},
		{room.ErrUnknownTarget, unknownTarget},
		{room.ErrTooLarge, messageTooLarge},
		{room.ErrNameTaken, nameTaken},
		{room.ErrLeft, badState},
	} {
		if errors.Is(err, known.err) {
			return refuse(known.code, "%.500s", err)
		}
	}
	return &refusal{code: internal, message: "the gateway has a fault; its log has the trace id", fatal: true, cause: err}
}

// problem is a refusal over HTTP (RFC 9457).
type problem struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Code    code   `json:"code"`
	TraceID string `json:"traceId"`
}

// writeProblem answers a request with a refusal.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	refused := refusalOf(err)
	s.metrics.refusals.WithLabelValues(string(refused.code)).Inc()
	trace := TraceID(r.Context())
	if refused.code == internal {
		s.log.ErrorContext(r.Context(), "request failed", "trace_id", trace, "err", refused.cause)
	} else {
		s.log.DebugContext(r.Context(), "request refused", "trace_id", trace, "code", refused.code, "err", refused.message)
	}
	status := codes[refused.code].status
	body, _ := json.Marshal(problem{ // strings and a number: always marshals
		Title: http.StatusText(status), Status: status, Detail: refused.message, Code: refused.code, TraceID: trace,
	})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized { // RFC 6750 §3, RFC 9725 §4.7
		h.Set("WWW-Authenticate", "Bearer")
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(status)
	w.Write(body)
}
