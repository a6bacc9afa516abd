// Package signal is the conversation with those who watch: the WebSocket
// protocol and WHEP, both as docs/protocol.md has them.
//
// It hides who speaks how. A session (session.go) is one participant, who watches
// streams (watch.go) on one PeerConnection; it is the same whether a browser talks to it over a WebSocket
// (ws.go, writer.go) or a standard client over plain HTTP (whep.go, whip.go). What comes from outside
// is decoded strictly (message.go, field.go, sdp.go) before anything acts on it, and what
// is refused is refused with a code (refusal.go).
//
// Goroutines: each session has one, which owns its state; each WebSocket has a
// reader (the HTTP handler's own) and a writer. [Server.Close] waits for all.
package signal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// Streams finds the streams that can be watched.
type Streams interface {
	Stream(name string) (*stream.Stream, bool)
}

// Pipelines are streams as rooms know them.
type Pipelines struct {
	Streams
	List func() []string // names them; nil: nobody asks
}

// Stream implements room.Pipelines.
func (p Pipelines) Stream(name string) (room.Stream, bool) {
	s, ok := p.Streams.Stream(name)
	return s, ok
}

// Names implements room.Pipelines.
func (p Pipelines) Names() []string {
	if p.List == nil {
		return nil
	}
	return p.List()
}

// Authority tells what tokens grant; it is [auth.Authority].
type Authority interface {
	Authenticate(ctx context.Context, token string) (*auth.Grant, error)
	FromRequest(*http.Request) (*auth.Grant, error)
	// Revoked tells whether what a grant came of was taken back since.
	Revoked(*auth.Grant) bool
}

// strangers is an authority to which everybody is one.
type strangers struct{}

func (strangers) Authenticate(context.Context, string) (*auth.Grant, error) {
	return nil, auth.ErrNoToken
}
func (strangers) FromRequest(*http.Request) (*auth.Grant, error) { return nil, auth.ErrNoToken }
func (strangers) Revoked(*auth.Grant) bool                       { return true }

// Options are what a server is made of.
type Options struct {
	Streams    Streams
	Rooms      *room.Rooms // nil: each stream is a room of its name, and others may be made
	Authority  Authority   // nil: nobody is admitted
	RTC        *rtc.Engine
	Config     *config.Gateway
	Paint      stream.Painter        // makes pictures for those who watch a publisher that is away; nil: there are none
	Strained   func() string         // why the machine bears no more sessions now, in words; "": it does. Asked at each join; nil: always
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: metrics are not exported
}

// timing is how long the server waits for a peer. Tests shorten it.
type timing struct {
	join      time.Duration // from the socket's opening to its join
	negotiate time.Duration // from an offer to a connection
	ping      time.Duration // between WebSocket pings
	silence   time.Duration // after which a socket counts as dead
	write     time.Duration // for one message to be taken by the kernel
	linger    time.Duration // for the peer to answer a close frame
	body      time.Duration // for an HTTP body to arrive
	tracks    time.Duration // that a WHEP request waits for a stream's tracks
	vain      time.Duration // after which a client that leaves unconnected was not reached by ICE-lite
	clock     time.Duration // between looks at the wall clock, for who comes with a token that ends
}

// Server serves /ws and /whep/. Its methods may be called from any goroutine.
type Server struct {
	streams  Streams
	rtc      *rtc.Engine
	conf     *config.Gateway
	log      *slog.Logger
	metrics  *metrics
	timing   timing
	users    *users
	rooms    *room.Rooms
	auth     Authority
	strained func() string
	paint    stream.Painter
	now      func() time.Time // the wall clock, by which tokens end

	addresses *addresses
	unreached unreached

	lastPresence atomic.Pointer[writtenPresence]

	handlers sync.WaitGroup // sockets and sessions

	mu       sync.Mutex // guards below; held to look up and to enter only
	closing  bool
	sockets  map[*socket]struct{}
	sessions map[[sha256.Size]byte]*session // by secretKey
	admitted uint64                         // sessions so far
	most     int                            // sessions at a time, since memory was given back
	giving   *time.Timer                    // memory back; nil: never yet
}

// New makes a server. [Server.Close] ends it.
func New(o Options) *Server {
	s := &Server{
		streams:  o.Streams,
		rooms:    o.Rooms,
		auth:     o.Authority,
		strained: o.Strained,
		paint:    o.Paint,
		now:      time.Now,
		rtc:      o.RTC,
		conf:     o.Config,
		log:      cmp.Or(o.Logger, slog.Default()),
		metrics:  newMetrics(o.Registerer, o.Streams),
		timing: timing{
			join:      10 * time.Second,
			negotiate: 30 * time.Second,
			ping:      15 * time.Second,
			silence:   40 * time.Second,
			write:     10 * time.Second,
			linger:    time.Second,
			body:      10 * time.Second,
			tracks:    5 * time.Second,
			vain:      3 * time.Second,
			clock:     time.Minute,
		},
		addresses: newAddresses(o.Config.Limits.JoinsPerAddress),
		users:     newUsers(o.Config.Limits.SessionsPerUser),
		sockets:   make(map[*socket]struct{}),
		sessions:  make(map[[sha256.Size]byte]*session),
	}
	if s.rooms == nil {
		s.rooms = room.New(room.Options{
			Default: o.Config.Room, Made: o.Config.Limits.Rooms, Pipelines: Pipelines{o.Streams, nil}, Logger: s.log,
		})
	}
	if s.auth == nil {
		s.auth = strangers{}
	}
	return s
}

// Close tells every client that the gateway stops, ends all sessions and
// sockets, and waits for them. When ctx is done first, the sockets are cut and
// ctx's error is returned. Idempotent.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	if s.giving != nil {
		s.giving.Stop()
	}
	sockets := make([]*socket, 0, len(s.sockets))
	for c := range s.sockets {
		sockets = append(sockets, c)
	}
	sessions := make([]*session, 0, len(s.sessions))
	for _, x := range s.sessions {
		sessions = append(sessions, x)
	}
	s.mu.Unlock()

	for _, x := range sessions {
		x.end(errShuttingDown)
	}
	for _, c := range sockets { // those that haven't joined; the others have been told
		c.send(errorMessage(errShuttingDown, c.trace, ""))
	}
	ended := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		for _, c := range sockets {
			c.conn.Close()
		}
		return ctx.Err()
	}
}

// enterSocket counts a socket that Close must wait for.
func (s *Server) enterSocket(c *socket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return errShuttingDown
	case len(s.sockets) >= s.conf.Limits.Viewers+unjoined:
		return refuse(tooManyViewers, "%d sockets are open, which is the limit", len(s.sockets))
	case !s.addresses.enter(c.address, s.conf.Limits.SocketsPerAddress):
		return refuse(tooManyViewers, "%d sockets are open from one address, which is the limit", s.conf.Limits.SocketsPerAddress)
	}
	s.sockets[c] = struct{}{}
	s.handlers.Add(1)
	return nil
}

func (s *Server) leaveSocket(c *socket) {
	s.mu.Lock()
	delete(s.sockets, c)
	s.mu.Unlock()
	s.addresses.leave(c.address)
	s.handlers.Done()
}

// Recheck ends the sessions of those whose tokens were revoked since they came. It
// doesn't wait for their end.
func (s *Server) Recheck() {
	s.mu.Lock()
	sessions := slices.Collect(maps.Values(s.sessions))
	s.mu.Unlock()
	for _, x := range sessions {
		if g := x.granted.Load(); g != nil && s.auth.Revoked(g) {
			x.log.Info("session ends", "reason", "its token was revoked")
			x.end(refusalOf(auth.ErrRevoked))
		}
	}
}

// enterSession admits a session, if the gateway has room for it.
func (s *Server) enterSession(x *session) error {
	if s.strained != nil {
		if why := s.strained(); why != "" {
			return refuse(tooManyViewers, "the gateway takes no more viewers for now: %s", why)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return errShuttingDown
	case len(s.sessions) >= s.conf.Limits.Viewers:
		return refuse(tooManyViewers, "the gateway serves %d viewers, which is its limit", len(s.sessions))
	}
	s.admitted++
	x.number = s.admitted
	s.sessions[secretKey(x.id)] = x
	s.most = max(s.most, len(s.sessions))
	s.handlers.Add(1)
	return nil
}

// forget gives a session's place to others. The session may still be at its end.
func (s *Server) forget(x *session) {
	x.awaited()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, secretKey(x.id))
	if s.most < many || len(s.sessions) > s.most/2 {
		return
	}
	s.most = len(s.sessions)
	if s.giving != nil {
		s.giving.Reset(afterMany)
	} else {
		s.giving = time.AfterFunc(afterMany, debug.FreeOSMemory)
	}
}

// Go would keep what a crowd has used for some five minutes after it has left (make
// bench-signaling, 2026-11); a camera box has others who want it.
const (
	many      = 100             // sessions: of fewer it isn't worth a collection
	afterMany = 2 * time.Second // until they have released what they had
)

// checkOrigin refuses a browser's request that comes from a page of another
// origin, unless the operator listed it. While access is open to whoever reaches
// the port, this is what keeps a foreign page in the operator's own browser from
// watching a loopback gateway. A client that isn't a browser sends no Origin.
//
// Where "*" lets every page in, those that aren't listed by name come without what the
// browser adds by itself. That is the machine's certificate, and the cookie: SameSite
// keeps it from other sites, but a page of another port of this host, or of a sibling
// domain, is of the same site.
func (s *Server) checkOrigin(r *http.Request) error {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return nil
	}
	if len(origins) == 1 {
		if u, err := url.Parse(origins[0]); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) && (r.TLS == nil || u.Scheme == "https") {
			return nil // without TLS the scheme tells nothing: a proxy may speak HTTPS
		}
		for _, allowed := range s.conf.HTTP.AllowedOrigins {
			if strings.EqualFold(allowed, origins[0]) {
				return nil
			}
		}
		if slices.Contains(s.conf.HTTP.AllowedOrigins, "*") {
			auth.Unclaimed(r)
			return nil
		}
	}
	return refuse(forbidden, "pages of %.200q may not watch here: list the origin under http.allowed_origins", strings.Join(origins, ", "))
}
