package signal

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"gateway/internal/media"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// departure is why a session ended that wasn't refused: the reason of `left`.
type departure string

const (
	leaves           departure = "leave"             // the client said so
	connectionLost   departure = "connection-lost"   // ICE heard nothing for 30 s
	connectionClosed departure = "connection-closed" // the client closed its PeerConnection
	streamClosed     departure = "stream-closed"     // removed from the configuration
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
)

// session is one participant who watches one stream, from join to left.
//
// Its goroutine, run, owns its state. Everything else reaches it by channels:
// the client's messages as calls, the stream's changes and the viewer's
// candidates and end as events. So nothing is locked, and nobody is held up but
// the client who talks.
type session struct {
	id     string // secret: who knows it, owns the session
	user   string // how others may know the participant
	kind   string // overWebSocket or overWHEP
	server *Server
	stream *stream.Stream
	client client
	codecs *codecs
	trace  string
	log    *slog.Logger
	began  time.Time

	cancel     context.CancelCauseFunc
	calls      chan func(context.Context) error
	changed    chan struct{} // the stream has changed
	candidates chan *rtc.Candidate
	states     chan rtc.State
	switched   chan struct{}          // the viewer sends another rendition
	newest     atomic.Pointer[string] // its name
	done       chan struct{}          // closed when run has ended

	// below: touched only by run's goroutine
	request   string // id of the client's request that the next joined or left answers
	viewer    *rtc.Viewer
	legs      map[media.Kind]*leg // what the viewer was given
	kinds     []media.Kind        // that the client receives; nil: any
	fixed     bool                // the client made the offer: codecs and tracks stay
	selected  string              // a rendition, or auto
	playing   string              // the rendition that is sent; "" before the first packet
	told      streamState         // what the client knows of the stream
	sync      string              // stream.Info's
	offered   bool                // an offer waits for its answer
	gathering bool                // the gateway's candidates aren't all found yet
	started   bool                // ICE has begun to connect
	connected bool                // at least once
	fullICE   bool                // the client doesn't connect without
	next      *nextOffer          // to be made when the last one is settled
	trickled  int                 // candidates of the client since the last offer
	reported  bool                // the client told its time to first frame
	whep      resource            // over WHEP
	adapt     adaptation
}

// nextOffer is an offer that can't be made yet.
type nextOffer struct {
	restartICE bool
	requestID  string
}

// join begins a session for a client that asked for one over a WebSocket.
func (s *Server) join(ctx context.Context, m request, c client) (*session, error) {
	if m.Version != protocolVersion {
		return nil, refuse(unsupportedVersion, "version %d is not spoken here; version %d is", m.Version, protocolVersion)
	}
	name := cmp.Or(m.Stream, m.RoomID)
	st, ok := s.streams.Stream(name)
	if !ok || name != m.RoomID { // every stream is its own room
		return nil, refuse(notFound, "no room %q with a stream %q", m.RoomID, name)
	}
	x := s.newSession(ctx, overWebSocket, st, c)
	x.codecs, x.request, x.selected = cmp.Or(m.Codecs, x.codecs), m.RequestID, cmp.Or(m.Rendition, auto)
	if err := x.start(ctx); err != nil {
		return nil, err
	}
	return x, nil
}

func (s *Server) newSession(ctx context.Context, kind string, st *stream.Stream, c client) *session {
	x := &session{
		id:         rand.Text(), // 128 bits at least
		user:       strings.ToLower(rand.Text()[:12]),
		kind:       kind,
		server:     s,
		stream:     st,
		client:     c,
		trace:      TraceID(ctx),
		began:      time.Now(),
		calls:      make(chan func(context.Context) error),
		changed:    make(chan struct{}, 1),
		candidates: make(chan *rtc.Candidate, 256),
		states:     make(chan rtc.State, 64),
		switched:   make(chan struct{}, 1),
		codecs:     new(codecs),
		legs:       make(map[media.Kind]*leg),
		selected:   auto,
		adapt:      adaptation{stir: make(chan struct{}, 1), audible: true},
		done:       make(chan struct{}),
	}
	x.log = s.log.With("stream", st.Name(), "viewer", x.user, "trace_id", x.trace)
	return x
}

// start admits the session and starts its goroutine, which outlives ctx and ends
// by end.
func (x *session) start(ctx context.Context) error {
	ctx, x.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := x.server.enterSession(x); err != nil {
		x.cancel(err)
		return err
	}
	go x.run(ctx)
	return nil
}

// end ends the session; done is closed when all is released. The first cause
// counts: a refusal, a departure or errGone. It doesn't block.
func (x *session) end(cause error) { x.cancel(cause) }

// run is the session's life.
func (x *session) run(ctx context.Context) {
	defer x.server.handlers.Done()
	defer close(x.done)
	defer x.cancel(nil)

	x.server.metrics.joins.WithLabelValues(x.kind).Inc()
	x.server.metrics.sessions.WithLabelValues(x.kind).Inc()
	defer x.server.metrics.sessions.WithLabelValues(x.kind).Dec()
	x.log.InfoContext(ctx, "viewer joined", "kind", x.kind)

	unwatch := x.stream.Watch(func(stream.Info) { poke(x.changed) })
	defer unwatch()
	x.greet()
	err := x.follow(ctx)
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

// step waits for what happens next and acts on it. An error ends the session.
func (x *session) step(ctx context.Context) error {
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
	case c := <-x.candidates:
		x.client.send(&candidateMessage{x.header("ice-candidate", ""), x.id, c})
		if c == nil {
			x.gathering = false
			return x.offerNext(ctx)
		}
	case state := <-x.states:
		return x.enter(ctx, state)
	case <-x.adapt.stir:
		return x.learned(ctx)
	case <-x.adapt.ticks():
		x.tellQuality()
	case <-x.switched:
		x.playing = *x.newest.Load()
		x.tell("")
	case do := <-x.calls:
		var left departure
		if err := do(ctx); errors.As(err, &left) {
			return left
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
func (x *session) greet() {
	info := x.stream.Info()
	x.told, x.sync = stateOf(info), info.Sync
	x.client.send(&joinedMessage{
		header: x.header("joined", x.request), Session: x.id, TraceID: x.trace, Version: protocolVersion,
		ICEServers: iceServers(x.server.conf.ICE), ICEPolicy: icePolicy(x.server.conf.ICE), Stream: x.told,
	})
	x.request = ""
}

// follow brings the session up to date with its stream: tells the client what
// has changed, and offers what hasn't been offered.
func (x *session) follow(ctx context.Context) error {
	info := x.stream.Info()
	now := stateOf(info)
	x.sync = info.Sync
	x.encoderDecided(info)
	if !now.equal(x.told) {
		x.told = now
		x.client.send(&streamMessage{x.header("stream", ""), now})
	}
	if now.State == stream.Closed {
		return streamClosed
	}
	if len(now.Tracks) == 0 {
		return nil // the source isn't there yet
	}
	tracks, err := x.tracks(ctx)
	if err != nil {
		return err
	}
	switch {
	case x.viewer != nil:
		return x.rearrange(ctx, tracks)
	case x.kind == overWebSocket:
		return x.open(ctx, tracks)
	}
	return nil // WHEP: the client offers
}

// tracks lists the stream's tracks, which are known: it doesn't wait.
func (x *session) tracks(ctx context.Context) ([]media.Track, error) {
	tracks, err := x.stream.Tracks(ctx)
	if errors.Is(err, stream.ErrClosed) {
		return nil, streamClosed
	}
	return tracks, err
}

// open makes the viewer and offers it what the client can decode.
func (x *session) open(ctx context.Context, tracks []media.Track) error {
	if err := x.newViewer(); err != nil {
		return err
	}
	if err := x.rearrange(ctx, tracks); err != nil {
		return err
	}
	if l := x.legs[media.Video]; l != nil {
		x.playing = l.track.Name
		x.tell("")
	}
	return nil
}

// reopen offers full ICE to a client that didn't connect without: a restart of ICE
// on its PeerConnection, with another viewer here.
func (x *session) reopen(ctx context.Context) error {
	x.log.InfoContext(ctx, "viewer is offered full ICE", "reason", x.viewer.Err())
	tracks, err := x.tracks(ctx)
	if err != nil {
		return err
	}
	x.fullICE, x.offered, x.started, x.next, x.trickled = true, false, false, nil, 0
	clear(x.legs)
	return x.open(ctx, tracks)
}

// newViewer makes the viewer, without tracks. From then on leave closes it.
func (x *session) newViewer() (err error) {
	options := rtc.ViewerOptions{
		ID: x.user, Logger: x.log, ConnectTimeout: x.server.timing.negotiate,
		FullICE: x.fullICE || strings.Contains(x.whep.offer, "a=ice-lite"),
		OnState: func(s rtc.State) {
			select {
			case x.states <- s:
			default: // the session is at its end
			}
		},
		OnEstimate: x.onEstimate,
		OnSwitch: func(at string, t media.Track) {
			if at == slot(media.Video) {
				x.newest.Store(&t.Name)
				poke(x.switched)
			}
		},
	}
	if x.kind == overWebSocket {
		x.gathering = true // begins with the first offer
		options.OnCandidate = func(c *rtc.Candidate) {
			select {
			case x.candidates <- c:
			default: // more than any host has
				x.log.Warn("candidate dropped", "candidate", c)
			}
		}
	}
	if x.viewer, err = x.server.rtc.NewViewer(options); err != nil {
		return fmt.Errorf("viewer: %w", err)
	}
	return nil
}

// offer makes an offer and sends it, or keeps it for later: the last one must
// have been answered. pion's ICE agent can't be restarted while it gathers (a
// data race), nor between an answer and its start, which comes later on another
// goroutine and would bring back the answer's credentials.
func (x *session) offer(ctx context.Context, o nextOffer) error {
	if x.offered || o.restartICE && (x.gathering || !x.started) {
		if x.next != nil {
			o.restartICE = o.restartICE || x.next.restartICE
			o.requestID = cmp.Or(o.requestID, x.next.requestID)
		}
		x.next = &o
		return nil
	}
	sdp, err := x.viewer.Offer(ctx, o.restartICE)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	x.offered, x.trickled = true, 0
	if o.restartICE {
		x.gathering = true
	}
	x.client.send(&offerMessage{x.header("offer", o.requestID), x.id, sdp})
	return nil
}

// offerNext makes the offer that was kept, if there is one and there still is
// something to offer.
func (x *session) offerNext(ctx context.Context) error {
	if x.next == nil {
		return nil
	}
	o := *x.next
	x.next = nil
	if !o.restartICE && !x.viewer.OfferDue() {
		return nil
	}
	return x.offer(ctx, o)
}

// receive acts on a client's message. The error is for the client. ctx bounds
// the wait, not the work.
func (x *session) receive(ctx context.Context, m request) error {
	switch {
	case m.Target != "":
		return refuse(badState, "target is reserved: nothing is relayed yet")
	case m.RoomID != "" && m.RoomID != x.stream.Name() && m.Type != "join":
		return refuse(badState, "this session is in room %q", x.stream.Name())
	case m.Session != "" && m.Session != x.id:
		return refuse(badState, "session is another's, or over")
	}
	_, err := call(ctx, x, func(ctx context.Context) (none, error) {
		return none{}, x.act(ctx, m)
	})
	var left departure
	if errors.As(err, &left) {
		return nil // the session says it
	}
	return err
}

// act is receive on the session's goroutine.
func (x *session) act(ctx context.Context, m request) error {
	switch m.Type {
	case "answer":
		return x.answer(ctx, m.SDP)
	case "ice-candidate":
		return x.candidate(m.Candidate)
	case "restart-ice":
		if x.viewer == nil {
			return refuse(badState, "nothing was offered yet")
		}
		return x.offer(ctx, nextOffer{restartICE: true, requestID: m.RequestID})
	case "select":
		return x.choice(ctx, cmp.Or(m.Rendition, auto), m.RequestID)
	case "report":
		return x.report(m.FirstFrameMs)
	case "view":
		return x.view(ctx, m)
	case "observe":
		return x.observe(m.On)
	case "leave":
		x.request = m.RequestID
		return leaves
	}
	return refuse(badState, "%s doesn't fit now", m.Type)
}

// answer takes the client's answer to the open offer.
func (x *session) answer(ctx context.Context, sdp string) error {
	if !x.offered {
		return refuse(badState, "no offer waits for an answer")
	}
	err := x.viewer.SetAnswer(ctx, sdp)
	var declined *rtc.DeclinedError
	if err != nil && !errors.As(err, &declined) {
		return fmt.Errorf("answer: %w", err)
	}
	x.offered = false
	var refused error
	if declined != nil {
		if refused = x.declined(ctx, declined); refusalOf(refused).fatal {
			return refused
		}
	}
	if x.next == nil && !x.offered && x.viewer.OfferDue() {
		x.next = new(nextOffer)
	}
	return cmp.Or(x.offerNext(ctx), refused)
}

// candidate takes one candidate of the client, nil at the end.
func (x *session) candidate(c *rtc.Candidate) error {
	if x.viewer == nil {
		return refuse(badState, "nothing was offered yet")
	}
	if x.trickled++; x.trickled > maxCandidates {
		return refuse(rateLimited, "more than %d candidates for one negotiation", maxCandidates)
	}
	return x.viewer.AddCandidate(c)
}

// report takes the client's time to its first frame.
func (x *session) report(ms float64) error {
	if x.reported {
		return refuse(badState, "the first frame was reported already")
	}
	x.reported = true
	x.server.metrics.firstFrame.Observe(ms / 1000)
	x.log.Info("first frame", "after", time.Duration(ms*float64(time.Millisecond)))
	return nil
}

// leave tells the client why, releases the viewer and its subscriptions, and
// notes the end. Its place is free before the client hears of it, so that who
// comes back at once finds it.
func (x *session) leave(ctx context.Context, cause error) {
	x.server.forget(x)
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

// none is the result of a call that has none.
type none struct{}

// call has f done on the session's goroutine and waits for its result. It
// returns errGone when the session has ended.
func call[T any](ctx context.Context, x *session, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	results := make(chan result, 1)
	do := func(ctx context.Context) error {
		v, err := f(ctx)
		if err != nil && ctx.Err() != nil {
			err = errGone
		}
		results <- result{v, err}
		return err
	}
	select {
	case x.calls <- do:
	case <-x.done:
		return zero, errGone
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	select {
	case r := <-results: // run does what it has taken
		return r.value, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

func (x *session) header(kind, requestID string) header {
	return header{Type: kind, RequestID: requestID, RoomID: x.stream.Name(), UserID: x.user}
}

// poke sets an event that is taken up once, however often it was set.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
