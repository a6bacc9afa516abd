package signal

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/stream"
)

const (
	sdpType      = "application/sdp"
	fragmentType = "application/trickle-ice-sdpfrag"
)

// resource is what a WHEP or WHIP session is over HTTP, beside what every session is.
type resource struct {
	path      string // the Location
	offer     string // the client's, as it was last accepted
	etag      string // of the ICE session: a restart changes it
	limiter   *rate.Limiter
	publishes string // over WHIP: ROOM/STREAM
	owner     string // over WHIP: the grant's subject
}

// door is one of the ways over HTTP.
type door struct {
	prefix string // of the path
	kind   string
	begin  func(w http.ResponseWriter, r *http.Request, room, stream string, grant *auth.Grant, offer string) error
}

// WHEP serves /whep/ROOM, /whep/ROOM/STREAM and the Locations of sessions, as draft-ietf-wish-whep-03
// has it. Where that follows WHIP, so does this (RFC 9725).
func (s *Server) WHEP() http.Handler {
	return s.overHTTP(door{"/whep/", overWHEP, s.watch})
}

func (s *Server) overHTTP(d door) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = s.traced(w, r)
		err := s.serveDoor(w, r, d)
		if err != nil && !errors.Is(err, context.Canceled) { // the client went away and waits for no answer
			s.writeProblem(w, r, err)
		}
	})
}

func (s *Server) serveDoor(w http.ResponseWriter, r *http.Request, d door) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Origin")
	if err := s.checkOrigin(r); err != nil {
		return err
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Location, Link, ETag, Accept-Patch, Retry-After, X-Trace-ID")
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, d.prefix), "/")
	methods := behind[len(parts)]
	if methods == nil {
		return refuse(notFound, "there is nothing at %.200s", r.URL.Path)
	}
	if serve := methods[r.Method]; serve != nil {
		return serve(s, w, r, d, parts)
	}
	allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	if r.Method == http.MethodOptions {
		preflight(w, allow+", OPTIONS")
		return nil
	}
	h.Set("Allow", allow+", OPTIONS")
	return refuse(methodNotAllowed, "here it takes %s", allow)
}

// behind is all that is behind a door: what each method does (beside OPTIONS, which asks for that), by
// the number of the path's parts. Two are ROOM/STREAM or a Location, ROOM/SESSION.
var behind = map[int]map[string]func(s *Server, w http.ResponseWriter, r *http.Request, d door, parts []string) error{
	1: {http.MethodPost: (*Server).enter},
	2: {http.MethodPost: (*Server).enter, http.MethodPatch: (*Server).patch, http.MethodDelete: (*Server).quit},
	3: {http.MethodPatch: (*Server).patch, http.MethodDelete: (*Server).quit},
}

// enter takes an offer for ROOM, or for ROOM/STREAM.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, d door, parts []string) error {
	name, stream := parts[0], ""
	if len(parts) > 1 {
		stream = parts[1]
	}
	if err := s.mayBegin(prefixOf(r.RemoteAddr)); err != nil {
		return err
	}
	grant, err := s.auth.FromRequest(r)
	if err != nil {
		return err
	}
	if !isType(r, sdpType) {
		w.Header().Set("Accept-Post", sdpType)
		return refuse(unsupportedType, "an offer is of type %s", sdpType)
	}
	offer, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	return d.begin(w, r, name, stream, grant, offer)
}

// watch begins a session for an offer and answers it.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, name, stream string, grant *auth.Grant, offer string) error {
	o, err := s.rooms.Offer(name, cmp.Or(stream, name), grant)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(offer, "v=0") {
		return refuse(badSDP, "the offer is not SDP")
	}
	receives := receiving(offer)
	if len(receives) == 0 {
		return refuse(notReceiving, "the offer receives neither video nor audio")
	}
	if err := s.awaitTracks(r.Context(), o); err != nil {
		return err
	}
	rendition := cmp.Or(r.URL.Query().Get("rendition"), auto)
	x := s.newSession(r.Context(), overWHEP, name, nobody{})
	x.from = prefixOf(r.RemoteAddr)
	x.whep = resource{path: path.Join("/whep", name, stream, x.id), offer: offer, etag: newETag(), limiter: rate.NewLimiter(messageRate, messageBurst)}
	etag := x.whep.etag
	if err := s.await(x, prefixOf(r.RemoteAddr)); err != nil {
		return err
	}
	if err := x.start(r.Context(), room.Joining{Grant: grant, Role: auth.Viewer}, request{Stream: stream}); err != nil {
		return err
	}
	answer, err := call(r.Context(), x, func(ctx context.Context) (string, error) {
		return x.accept(ctx, offer, receives, rendition)
	})
	if err != nil {
		return x.refused(err)
	}
	s.created(w, x.whep.path, etag)
	io.WriteString(w, answer)
	return nil
}

// refused ends a session whose offer can't be answered. It returns why.
func (x *session) refused(err error) error {
	x.end(wasRefused)
	<-x.done
	if errors.Is(err, errGone) {
		return errShuttingDown
	}
	return err
}

// created says where a session is; the answer follows.
func (s *Server) created(w http.ResponseWriter, path, etag string) {
	h := w.Header()
	h.Set("Content-Type", sdpType)
	h.Set("Location", path)
	h.Set("ETag", etag)
	h.Set("Accept-Patch", fragmentType)
	for _, link := range iceLinks(s.conf.ICE) {
		h.Add("Link", link)
	}
	w.WriteHeader(http.StatusCreated)
}

// accept answers a client's offer (WHEP), with the tracks of the kinds and codecs
// that it receives, of video the rendition that it asks for.
func (x *session) accept(ctx context.Context, offer string, receives map[media.Kind][]media.Codec, rendition string) (string, error) {
	w := x.single
	tracks, err := w.stream.Tracks(ctx) // known: doesn't wait
	if err != nil {
		return "", err
	}
	x.kinds = slices.Collect(maps.Keys(receives))
	x.codecs = &codecs{video: receives[media.Video], audio: receives[media.Audio]}
	if !slices.ContainsFunc(tracks, func(t media.Track) bool { return slices.Contains(x.kinds, t.Kind) }) {
		return "", refuse(notReceiving, "the offer receives no kind of media that the stream has")
	}
	if err := x.selectable(tracks, rendition); err != nil {
		return "", err
	}
	w.selected = rendition
	if err := x.newViewer(); err != nil {
		return "", err
	}
	if _, err := w.arrange(tracks); err != nil {
		return "", err
	}
	answer, err := x.viewer.Answer(ctx, offer)
	if err != nil {
		return "", fmt.Errorf("offer: %w", err)
	}
	x.fixed = true
	x.kinds, x.codecs = nil, &codecs{video: []media.Codec{}, audio: []media.Codec{}}
	for kind, l := range w.legs { // nothing else can be sent from now on
		x.kinds = append(x.kinds, kind)
		x.codecs.video = append(x.codecs.video, l.track.Codec)
		x.codecs.audio = append(x.codecs.audio, l.track.Codec)
	}
	return answer, nil
}

// awaitTracks waits a moment for the tracks of a stream that has just come. One
// that is absent is refused with its reason.
func (s *Server) awaitTracks(ctx context.Context, st room.Stream) error {
	if i := st.Info(); i.State == stream.Absent {
		return refuse(streamAbsent, "%s", i.Reason)
	}
	waiting, cancel := context.WithTimeout(ctx, s.timing.tracks)
	defer cancel()
	if _, err := st.Tracks(waiting); err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			return refuse(streamAbsent, "the stream isn't ready: %s", st.Info().Reason)
		}
		return err
	}
	return nil
}

// located is the session of a Location: who knows that owns the session.
func (s *Server) located(r *http.Request, d door, parts []string) (*session, error) {
	x := s.session(parts[len(parts)-1])
	if x == nil || x.kind != d.kind || x.whep.path != r.URL.EscapedPath() {
		return nil, refuse(notFound, "no such session")
	}
	return x, nil
}

// quit ends a session and waits for its end.
func (s *Server) quit(w http.ResponseWriter, r *http.Request, d door, parts []string) error {
	x, err := s.located(r, d, parts)
	if err != nil {
		return err
	}
	x.end(leaves)
	select {
	case <-x.done:
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// patch takes a client's candidates, or restarts ICE (RFC 9725 §4.3).
func (s *Server) patch(w http.ResponseWriter, r *http.Request, d door, parts []string) error {
	x, err := s.located(r, d, parts)
	if err != nil {
		return err
	}
	if !isType(r, fragmentType) {
		w.Header().Set("Accept-Patch", fragmentType)
		return refuse(unsupportedType, "a fragment is of type %s", fragmentType)
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	f, err := parseFragment(body)
	if err != nil {
		return refuse(badSDP, "fragment: %v", err)
	}
	match := strings.Join(r.Header.Values("If-Match"), ",")
	done, err := call(r.Context(), x, func(ctx context.Context) (patched, error) {
		return x.patch(ctx, f, match)
	})
	switch {
	case errors.Is(err, errGone):
		return refuse(notFound, "no such session")
	case err != nil:
		return err
	}
	w.Header().Set("ETag", done.etag)
	if done.fragment == "" {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Content-Type", fragmentType)
	io.WriteString(w, done.fragment)
	return nil
}

// patched is the outcome of a PATCH. The fragment is the gateway's side of an
// ICE restart.
type patched struct {
	etag     string
	fragment string
}

// patch is Server.patch on the session's goroutine.
func (x *session) patch(ctx context.Context, f fragment, match string) (patched, error) {
	restart := f.ufrag != "" && f.ufrag != remoteUfrag(x.whep.offer)
	cost := 1
	if restart {
		cost = restartCost
	}
	switch {
	case !x.whep.limiter.AllowN(time.Now(), cost):
		return patched{}, tooFast
	case match == "" && restart:
		return patched{}, refuse(preconditionRequired, "an ICE restart needs If-Match: *")
	case match == "*" && !restart:
		return patched{}, refuse(preconditionFailed, "If-Match: * is for an ICE restart, which has a new ice-ufrag")
	case match != "" && match != "*" && !slices.Contains(strings.FieldsFunc(match, func(r rune) bool { return r == ',' || r == ' ' }), x.whep.etag):
		return patched{}, refuse(preconditionFailed, "the ETag is another's")
	case restart && f.pwd == "":
		return patched{}, refuse(badSDP, "an ICE restart has an ice-pwd")
	}
	done := patched{etag: x.whep.etag}
	if restart {
		offer := restartedOffer(x.whep.offer, f)
		answer, err := x.answerAgain(ctx, offer)
		if err != nil {
			return patched{}, err
		}
		x.whep.offer, x.whep.etag, x.trickled, x.up.trickled = offer, newETag(), 0, 0
		done = patched{etag: x.whep.etag, fragment: answerFragment(answer)}
	}
	take := x.candidate
	if x.kind == overWHIP {
		take = x.publishedCandidate
	}
	for _, c := range f.candidates {
		if err := take(c); err != nil {
			return patched{}, err
		}
	}
	if f.end {
		if err := take(nil); err != nil {
			return patched{}, err
		}
	}
	return done, nil
}

// answerAgain answers an offer that restarts ICE.
func (x *session) answerAgain(ctx context.Context, offer string) (answer string, err error) {
	if x.kind != overWHIP {
		return x.viewer.Answer(ctx, offer)
	}
	if x.up.publisher == nil {
		return "", refuse(badState, "nothing is published")
	}
	answer, _, err = x.up.publisher.Answer(ctx, offer)
	return answer, err
}

// readBody reads a request's body, bounded in size and time.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (string, error) {
	// not every ResponseWriter has deadlines; those of real connections do
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.timing.body))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "", refuse(messageTooLarge, "a body has at most %d bytes", maxMessage)
	case err != nil:
		return "", refuse(timedOut, "the body didn't arrive: %v", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return string(body), nil
}

// preflight answers an OPTIONS request, also a browser's before the real one.
func preflight(w http.ResponseWriter, methods string) {
	h := w.Header()
	h.Set("Allow", methods)
	if strings.Contains(methods, http.MethodPost) {
		h.Set("Accept-Post", sdpType)
	}
	if strings.Contains(methods, http.MethodPatch) {
		h.Set("Accept-Patch", fragmentType)
	}
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, Traceparent, X-Trace-ID")
		h.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}

func isType(r *http.Request, want string) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == want
}

// newETag makes a strong entity tag.
func newETag() string { return `"` + rand.Text() + `"` }

// iceLinks are the ICE servers as Link headers (RFC 9725 §4.6).
func iceLinks(conf config.ICE) []string {
	var links []string
	for _, server := range conf.Servers {
		for _, u := range server.URLs {
			link := "<" + u + `>; rel="ice-server"`
			if server.Username != "" {
				link += "; username=" + quoted(server.Username) +
					"; credential=" + quoted(server.Credential) + `; credential-type="password"`
			}
			links = append(links, link)
		}
	}
	return links
}

// quoted writes a quoted-string (RFC 9110 §5.6.4).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", "").Replace(s) + `"`
}
