package signal

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gateway/internal/auth"
	"gateway/internal/contain"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/rtc"
)

// maxWatched is how many streams one session watches at most.
const maxWatched = 32

// departure is why a session ended that wasn't refused: the reason of `left`.
type departure string

const (
	leaves           departure = "leave"             // the client said so
	connectionLost   departure = "connection-lost"   // ICE heard nothing for 30 s
	connectionClosed departure = "connection-closed" // the client closed its PeerConnection
	streamClosed     departure = "stream-closed"     // removed from the configuration
	replaced         departure = "replaced"          // over WHIP: the same publisher came again
	streamChanged    departure = "stream-changed"    // over WHEP: it has none of the codecs that were negotiated
	wasRefused       departure = "refused"           // the client was told by a fatal error, or a problem over HTTP
)

// Error implements error.
func (d departure) Error() string { return string(d) }

// errGone ends a session whose client can't be told any more.
var errGone = errors.New("client is gone")

// client is the far side of a session. A session may outlive it.
type client interface {
	// send hands over a message and never blocks; left and a fatal error are the last.
	send(message)
}

// nobody is a client that can't be told anything: WHEP has no way back.
type nobody struct{}

func (nobody) send(message) {}

// How a session's client talks, as metrics and logs name it.
const (
	overWebSocket = "ws"
	overWHEP      = "whep"
	overWHIP      = "whip"
)

// session is one participant who watches streams of a room on one PeerConnection,
// from join to left.
//
// Its goroutine, run, owns its state. Everything else reaches it by channels:
// the client's messages as calls, the streams' changes and the viewer's
// candidates and end as events. So nothing is locked, and nobody is held up but
// the client who talks.
type session struct {
	id     string // secret: who knows it, owns the session
	user   string // how others may know the participant
	kind   string // overWebSocket, overWHEP or overWHIP
	server *Server
	client client
	out    *outbox // the client, over a WebSocket; else nil
	codecs *codecs
	trace  string
	log    *slog.Logger
	began  time.Time
	number uint64 // in the order in which sessions were admitted

	cancel     context.CancelCauseFunc
	calls      chan func(context.Context) error
	changed    chan struct{} // a stream has changed
	candidates chan *rtc.Candidate
	states     chan rtc.State
	switched   chan struct{} // switches has something
	switches   switches
	ear        ear
	place      *room.Participant
	shares     *shares                      // of what the user may
	resumes    *rate.Limiter                // of the session: each repeats what was missed
	renewals   *rate.Limiter                // of the session, over HTTP
	data       atomic.Pointer[dataChannels] // nil: not asked for
	names      atomic.Pointer[[]string]     // of the streams that are watched, for others
	granted    atomic.Pointer[auth.Grant]   // as it was authenticated; what holds is the place's
	done       chan struct{}                // closed when run has ended

	// below: touched only by run's goroutine
	room      string
	request   string // id of the client's request that the next joined or left answers
	viewer    *rtc.Viewer
	watches   []*watch     // in the order in which they began
	single    *watch       // the client has asked for nothing else: the session ends with it
	numbered  int          // watches so far
	kinds     []media.Kind // that the client receives; nil: any
	fixed     bool         // the client made the offer: codecs and tracks stay
	offered   bool         // an offer waits for its answer
	answered  string       // the last answer that was taken
	gathering bool         // the gateway's candidates aren't all found yet
	started   bool         // ICE has begun to connect
	connected bool         // at least once
	fullICE   bool         // the client doesn't connect without
	from      netip.Prefix // the client's address when it joined
	awaited   func()       // it is connected, or at its end
	viewing   time.Time    // since when there is the viewer
	next      *nextOffer   // to be made when the last one is settled
	trickled  int          // candidates of the client since the last offer
	reported  bool         // the client told its time to first frame
	whep      resource     // over WHEP and WHIP
	up        upstream     // what it publishes
	expiry    *time.Timer  // see watchExpiry
	noticed   bool         // token-expiring was sent
	network   transport
	parked    bool         // the client\'s socket is lost, and the room waits for it
	address   netip.Prefix // of the socket that was lost
}

// switches are the renditions that the viewer has begun to send and that the session
// hasn't heard of, by slot.
type switches struct {
	mu     sync.Mutex // guards newest; held for a moment, on a goroutine that serves others too
	newest map[string]string
}

func (s *switches) put(slot, rendition string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		s.newest = make(map[string]string)
	}
	s.newest[slot] = rendition
}

func (s *switches) take() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.newest
	s.newest = nil
	return all
}

// join begins a session for a client with a grant that asked for one over a WebSocket.
func (s *Server) join(ctx context.Context, m request, grant *auth.Grant, c *socket) (*session, error) {
	if m.Version != protocolVersion {
		return nil, refuse(unsupportedVersion, "version %d is not spoken here; version %d is", m.Version, protocolVersion)
	}
	out := &outbox{log: c.log, socket: c}
	x := s.newSession(ctx, overWebSocket, m.RoomID, out)
	x.out, x.from = out, c.address
	x.codecs, x.request = cmp.Or(m.Codecs, x.codecs), m.RequestID
	err := x.start(ctx, room.Joining{Name: m.Name, Grant: grant, Role: m.Role, Create: m.Create}, m)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (s *Server) newSession(ctx context.Context, kind, name string, c client) *session {
	x := &session{
		id:         rand.Text(), // 128 bits at least
		user:       strings.ToLower(rand.Text()[:12]),
		kind:       kind,
		room:       name,
		server:     s,
		client:     c,
		trace:      TraceID(ctx),
		began:      time.Now(),
		calls:      make(chan func(context.Context) error),
		changed:    make(chan struct{}, 1),
		candidates: make(chan *rtc.Candidate, 256),
		states:     make(chan rtc.State, 64),
		switched:   make(chan struct{}, 1),
		ear:        ear{due: make(chan struct{}, 1)},
		codecs:     new(codecs),
		up:         upstream{candidates: make(chan *rtc.Candidate, 256), states: make(chan rtc.State, 64)},
		resumes:    rate.NewLimiter(resumesRate, resumesBurst),
		renewals:   rate.NewLimiter(1, 5),
		network:    transport{stir: make(chan struct{}, 1)},
		done:       make(chan struct{}),
		awaited:    func() {},
	}
	x.log = s.log.With("room", name, "viewer", x.user, "trace_id", x.trace)
	x.rename()
	return x
}

// start admits the session, finds it a place in its room and starts its goroutine,
// which outlives ctx and ends by end.
func (x *session) start(ctx context.Context, j room.Joining, m request) error {
	ctx, x.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := x.server.enterSession(x); err != nil {
		x.awaited()
		x.cancel(err)
		return err
	}
	settled := false
	defer func() {
		if !settled { // refused, or it panics
			x.server.forget(x)
			x.server.handlers.Done()
			x.cancel(errGone)
		}
	}()
	if err := x.settle(j, m); err != nil {
		return err
	}
	settled = true
	go x.run(ctx)
	return nil
}

// end ends the session; done is closed when all is released. The first cause
// counts: a refusal, a departure or errGone. It doesn't block.
func (x *session) end(cause error) { x.cancel(cause) }

// run is the session's life.
func (x *session) run(ctx context.Context) {
	defer contain.Panic(x.log, "session", nil) // of leave, else
	defer x.server.handlers.Done()
	defer close(x.done)
	defer x.cancel(nil)

	x.server.metrics.joins.WithLabelValues(x.kind).Inc()
	x.server.metrics.sessions.WithLabelValues(x.kind).Inc()
	defer x.server.metrics.sessions.WithLabelValues(x.kind).Dec()
	granted := x.granted.Load()
	x.log.InfoContext(ctx, "viewer joined", "kind", x.kind, "subject", granted.Subject, "token", granted.TokenID())

	err := x.begin(ctx)
	for err == nil {
		err = x.step(ctx)
	}
	if errors.Is(err, rtc.ErrClosed) && x.viewer != nil {
		err = ending(x.viewer.Err()) // and so failed what was asked of it
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what failed because of it is no fault of its own
	}
	x.leave(ctx, err)
}

// begin is what comes before the first step.
func (x *session) begin(ctx context.Context) (err error) {
	defer contain.Panic(x.log, "session", func(e error) { err = e })
	for _, w := range x.watches {
		w.begin()
	}
	if err := x.learn(ctx); err != nil { // it is joined, to begin with
		return err
	}
	err = x.follow(ctx)
	x.watchExpiry()
	return err
}

// step waits for what happens next and acts on it. An error ends the session.
func (x *session) step(ctx context.Context) (err error) {
	defer contain.Panic(x.log, "session", func(e error) { err = e })
	var ended <-chan struct{}
	if x.viewer != nil {
		ended = x.viewer.Done()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ended:
		if err := x.viewer.Err(); !errors.Is(err, rtc.ErrNeedsFullICE) || x.fullICE || x.kind != overWebSocket {
			return ending(err)
		}
		return x.reopen(ctx)
	case <-x.changed:
		return x.follow(ctx)
	case <-x.up.ended():
		return x.publisherEnded()
	case c := <-x.up.candidates:
		x.client.send(&publishCandidate{x.header("ice-candidate", ""), "publish", c})
	case state := <-x.up.states:
		x.publisherState(state)
	case <-x.ear.due:
		return x.learn(ctx)
	case <-x.expires():
		return x.expire()
	case c := <-x.candidates:
		x.client.send(&candidateMessage{x.header("ice-candidate", ""), x.id, c})
		if c == nil {
			x.gathering = false
			return x.offerNext(ctx)
		}
	case state := <-x.states:
		return x.enter(ctx, state)
	case <-x.network.stir:
		return x.learned(ctx)
	case <-x.network.ticks():
		x.tellQuality()
	case <-x.switched:
		for slot, name := range x.switches.take() {
			if w := x.showing(slot); w != nil {
				w.playing = name
				w.tell("")
			}
		}
	case do := <-x.calls:
		var left departure
		var broken *contain.Error
		if err := do(ctx); errors.As(err, &left) || errors.As(err, &broken) {
			return err
		}
	}
	return nil
}

// enter takes note of the viewer's state.
func (x *session) enter(ctx context.Context, state rtc.State) error {
	switch {
	case state == rtc.StateConnecting && !x.started:
		x.started = true
		return x.offerNext(ctx)
	case state == rtc.StateConnected && !x.connected:
		x.connected = true
		x.awaited()
		x.server.metrics.connect.WithLabelValues(x.kind).Observe(time.Since(x.began).Seconds())
		x.log.InfoContext(ctx, "viewer connected", "after", time.Since(x.began))
		return x.adjust(ctx)
	}
	return nil
}

// ending translates why a viewer ended.
func ending(err error) error {
	switch {
	case errors.Is(err, rtc.ErrConnectTimeout):
		return refuse(timedOut, "no connection came about: %v", err)
	case errors.Is(err, rtc.ErrConnectionLost), errors.Is(err, rtc.ErrNeedsFullICE):
		return connectionLost
	case errors.Is(err, rtc.ErrLeft):
		return connectionClosed
	case errors.Is(err, rtc.ErrClosed):
		return errShuttingDown
	case err == nil:
		return errors.New("viewer ended without a reason")
	}
	return fmt.Errorf("viewer: %w", err)
}

// greet tells the client that it is in.
func (x *session) greet(s room.Snapshot) {
	x.client.send(x.welcome("joined", x.request, s))
	x.request = ""
}

// welcome is what a client is told who comes, comes back or is moved.
func (x *session) welcome(kind, requestID string, s room.Snapshot) *joinedMessage {
	m := &joinedMessage{
		header: x.header(kind, requestID), Session: x.id, TraceID: x.trace, Version: protocolVersion,
		ICEServers: iceServers(x.server.conf.ICE), ICEPolicy: icePolicy(x.server.conf.ICE),
		ResumeWithin: int(x.place.DepartureTimeout() / time.Second), placeState: x.describePlace(s),
	}
	if w := x.single; w != nil {
		w.told = stateOf(w.offered, w.stream.Info())
		m.Stream = &w.told
	}
	return m
}

// follow brings the session up to date with the streams that have changed.
func (x *session) follow(ctx context.Context) error {
	for _, w := range slices.Clone(x.watches) {
		if !slices.Contains(x.watches, w) || !w.stale.Swap(false) {
			continue // it went with another, or hasn't changed
		}
		if err := w.follow(ctx); err != nil {
			if err := x.lose(ctx, w, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave tells the client why, releases the viewer and its subscriptions, and
// notes the end. Its place is free before the client hears of it, so that who
// comes back at once finds it.
func (x *session) leave(ctx context.Context, cause error) {
	x.noteUnreached()
	x.server.forget(x)
	x.unpark()
	x.place.Leave()
	x.stopPublishing()
	x.server.users.leave(x.granted.Load().Subject)
	if x.expiry != nil {
		x.expiry.Stop()
	}
	for _, w := range x.watches {
		w.cancel()
	}
	var left departure
	var reason string
	switch {
	case errors.As(cause, &left):
		reason = string(left)
		x.client.send(&leftMessage{x.header("left", x.request), left})
	case errors.Is(cause, errGone):
		reason = "gone"
	default:
		r := *refusalOf(cause)
		r.fatal = true
		reason = string(r.code)
		x.server.metrics.refusals.WithLabelValues(reason).Inc()
		if r.code == timedOut {
			x.server.metrics.timeouts.WithLabelValues(x.kind).Inc()
		}
		if r.code == internal {
			x.log.ErrorContext(ctx, "session failed", "err", r.cause)
		}
		x.client.send(errorMessage(&r, x.trace, ""))
	}
	x.server.metrics.ends.WithLabelValues(x.kind, reason).Inc()
	args := []any{"reason", reason, "after", time.Since(x.began)}
	if x.viewer != nil {
		stats := x.viewer.Stats()
		args = append(args, "packets", stats.Packets, "retransmitted", stats.Retransmitted)
		if err := x.viewer.Close(); err != nil && !errors.Is(err, rtc.ErrClosed) {
			x.log.ErrorContext(ctx, "viewer close", "err", err)
		}
	}
	x.log.InfoContext(ctx, "viewer left", args...)
}

func (x *session) header(kind, requestID string) header {
	return header{Type: kind, RequestID: requestID, RoomID: x.room, UserID: x.user}
}

// drain drops what waits in a channel that nobody fills now.
func drain[T any](c chan T) {
	for len(c) > 0 {
		<-c
	}
}

// poke sets an event that is taken up once, however often it was set.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
