package signal

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"gateway/internal/auth"
	"gateway/internal/contain"
)

const (
	messageRate  = 50 // messages a second from one client
	messageBurst = 100
	restartCost  = 25 // messages that a restart-ice counts for: it gathers candidates anew
	selectRate   = 2  // selects a second: each may start an encoder and negotiate
	selectBurst  = 4
	watchRate    = 4 // watches a second
	watchBurst   = maxWatched
	offerRate    = 4 // offers a second: each negotiates, and may begin a connection
	offerBurst   = 16
	deedRate     = 10 // deeds and tokens a second: everybody in the room is told
	deedBurst    = 50
	maxStrikes   = 10      // refused messages until the socket is closed
	outgoing     = 1000    // messages that wait for a client that doesn't read: as many as a room may tell at once
	outgoingSize = 1 << 20 // bytes of them
	unjoined     = 256     // sockets that may be open beside the viewers'
)

var tooFast = refuse(rateLimited, "more than %d messages a second", messageRate)

// WebSocket serves the signaling protocol, for GET /ws.
func (s *Server) WebSocket() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = s.traced(w, r)
		if err := s.serveWebSocket(w, r); err != nil {
			s.writeProblem(w, r, err)
		}
	})
}

// traced gives a request a trace id if it hasn't come through [Trace].
func (s *Server) traced(w http.ResponseWriter, r *http.Request) *http.Request {
	if TraceID(r.Context()) != "" {
		return r
	}
	id := traceOf(r.Header)
	w.Header().Set("X-Trace-ID", id)
	return r.WithContext(context.WithValue(r.Context(), traceKey{}, id))
}

// serveWebSocket upgrades a request and stays until its socket has ended. An
// error means that the request still waits for its answer.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) error {
	if err := s.checkOrigin(r); err != nil {
		return err
	}
	var refused *refusal // what gorilla found wrong with the handshake
	upgrader := websocket.Upgrader{
		HandshakeTimeout: s.timing.write,
		CheckOrigin:      func(*http.Request) bool { return true }, // done above
		Error: func(_ http.ResponseWriter, _ *http.Request, status int, reason error) {
			switch status {
			case http.StatusMethodNotAllowed:
				refused = refuse(methodNotAllowed, "%v", reason)
				w.Header().Set("Allow", http.MethodGet)
			case http.StatusInternalServerError:
				refused = refusalOf(reason)
			default:
				refused = refuse(badMessage, "%v", reason)
			}
		},
	}
	trace := TraceID(r.Context())
	conn, err := upgrader.Upgrade(w, r, http.Header{"X-Trace-Id": {trace}})
	if refused != nil {
		return refused
	}
	if err != nil {
		return nil // hijacked and gone: nobody to answer
	}
	c := &socket{
		server:  s,
		conn:    conn,
		address: prefixOf(r.RemoteAddr),
		trace:   trace,
		log:     s.log.With("trace_id", trace),
		limiter: rate.NewLimiter(messageRate, messageBurst),
		selects: rate.NewLimiter(selectRate, selectBurst),
		watches: rate.NewLimiter(watchRate, watchBurst),
		offers:  rate.NewLimiter(offerRate, offerBurst),
		deeds:   rate.NewLimiter(deedRate, deedBurst),
		due:     make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	c.opened, c.stranger = s.auth.FromRequest(r)
	if err := s.enterSocket(c); err != nil {
		c.refuse("", err)
		c.write() // returns after the close frame
		conn.Close()
		return nil
	}
	defer s.leaveSocket(c)
	s.metrics.sockets.Inc()
	defer s.metrics.sockets.Dec()
	c.serve(r.Context())
	return nil
}

// socket is one WebSocket: how the messages of a session travel, and the rules
// of the road. It knows nothing of media.
type socket struct {
	server   *Server
	conn     *websocket.Conn
	address  netip.Prefix
	trace    string
	log      *slog.Logger
	limiter  *rate.Limiter
	selects  *rate.Limiter
	watches  *rate.Limiter
	offers   *rate.Limiter
	deeds    *rate.Limiter
	opened   *auth.Grant   // by the request that opened the socket
	stranger error         // why there is no such grant
	due      chan struct{} // frames wait for the writer
	done     chan struct{} // closed when the reader has ended
	slow     sync.Once     // to cut it

	// below: touched only by the reader
	session *session
	strikes int

	mu      sync.Mutex // guards below; held to enqueue and to set a deadline
	frames  []frame    // to the writer
	waiting int        // bytes of them
	last    bool       // nothing more is enqueued
	over    bool       // because the last message is: a left or a fatal error
	closed  bool       // the close frame was sent: the peer has the linger time
}

// serve reads until the socket ends. Its session ends with it if the client has
// closed it, and waits for the client otherwise.
func (c *socket) serve(ctx context.Context) {
	written := make(chan struct{})
	go func() {
		defer contain.Panic(c.log, "socket", func(error) { c.conn.NetConn().Close() })
		defer close(written)
		c.write()
	}()
	overdue := time.AfterFunc(c.server.timing.join, func() {
		c.refuse("", refuse(timedOut, "no join within %v", c.server.timing.join))
	})
	err := c.read(ctx, overdue)
	overdue.Stop()
	switch leaves := websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway); {
	case c.session == nil:
	case leaves && c.session.out.detach(c):
		c.session.end(errGone)
		<-c.session.done
	default:
		c.session.lost(context.WithoutCancel(ctx), c)
	}
	close(c.done)
	c.conn.Close()
	<-written
}

// read is the reader: it takes messages until the peer is gone, which is the error, or
// has had its time to answer our close frame.
func (c *socket) read(ctx context.Context, overdue *time.Timer) (err error) {
	defer contain.Panic(c.log, "socket", func(e error) {
		if err = e; c.session != nil {
			c.session.end(e)
		}
	})
	c.alive()
	c.conn.SetPongHandler(func(data string) error {
		c.alive()
		if seq, err := strconv.ParseUint(data, 10, 64); err == nil && c.session != nil { // it has what came before the ping
			c.session.out.confirm(c, seq)
		}
		return nil
	})
	answerPing := c.conn.PingHandler()
	c.conn.SetPingHandler(func(data string) error {
		c.alive()
		if !c.limiter.Allow() {
			c.refuse("", tooFast)
			return nil
		}
		return answerPing(data)
	})
	for {
		kind, r, err := c.conn.NextReader()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(r, maxMessage+1))
		if err != nil {
			return err
		}
		c.alive()
		if c.ending() {
			continue // what comes after our last message is only drained
		}
		m, err := c.take(kind, data)
		if err == nil {
			err = c.receive(ctx, m, overdue)
		} else if c.session != nil {
			c.session.out.count(c)
		}
		if err != nil {
			c.refuse(m.RequestID, err)
		}
		if c.isOver() && c.session != nil {
			c.session.end(wasRefused)
		}
	}
}

// take counts and decodes one message.
func (c *socket) take(kind int, data []byte) (request, error) {
	messages := c.server.metrics.messages
	if !c.limiter.Allow() {
		messages.WithLabelValues("in", "refused").Inc()
		return request{}, tooFast
	}
	if kind != websocket.TextMessage {
		messages.WithLabelValues("in", "refused").Inc()
		return request{}, c.strike(refuse(badMessage, "a message is a text frame"))
	}
	m, err := decode(data)
	if err != nil {
		messages.WithLabelValues("in", "refused").Inc()
		return m, c.strike(err)
	}
	messages.WithLabelValues("in", m.Type).Inc()
	if m.Type == "restart-ice" && !c.limiter.AllowN(time.Now(), restartCost-1) {
		return m, tooFast
	}
	if most, what := c.pace(m); most != nil && !most.Allow() { // a hasty hand on a menu: what plays goes on
		r := refuse(rateLimited, "more than %v %s a second", most.Limit(), what)
		r.fatal = false
		return m, r
	}
	return m, nil
}

// pace bounds how often that comes which costs more than to read it; nil: as often as
// any message.
func (c *socket) pace(m request) (most *rate.Limiter, what string) {
	switch {
	case m.Type == "select":
		return c.selects, "selects"
	case m.Type == "watch":
		return c.watches, "watches"
	case m.Type == "offer" && m.Target == "":
		return c.offers, "offers"
	case deeds[m.Type], m.Type == "token":
		return c.deeds, "changes of a room, or tokens,"
	}
	return nil, ""
}

// strike counts a refused message; the last that is borne is fatal.
func (c *socket) strike(err error) error {
	r := *refusalOf(err)
	switch r.code {
	case badMessage, badState, badSDP:
		if c.strikes++; c.strikes >= maxStrikes {
			r.fatal = true
		}
	}
	return &r
}

// receive acts on one message.
func (c *socket) receive(ctx context.Context, m request, overdue *time.Timer) error {
	switch {
	case m.Type == "ping":
		c.send(&pongMessage{header{Type: "pong", RequestID: m.RequestID}})
		return nil
	case c.session != nil:
		if err := c.session.receive(ctx, c, m); err != nil {
			return c.strike(err)
		}
		return nil
	case m.Type == "leave":
		c.send(&leftMessage{header{Type: "left", RequestID: m.RequestID}, leaves})
		return nil
	case m.Type != "join":
		return c.strike(refuse(badState, "%s comes after join", m.Type))
	case !overdue.Stop():
		return nil // too late: the refusal is on its way
	}
	session, err := c.join(ctx, m)
	if err != nil {
		return err
	}
	c.session = session
	return nil
}

// grant is what the client may do: by the token that it joins with, else by what
// came with the request that opened the socket.
func (c *socket) grant(ctx context.Context, token string) (*auth.Grant, error) {
	g, err := c.opened, c.stranger
	if token != "" {
		g, err = c.server.auth.Authenticate(ctx, token)
	}
	if err == nil && g.Expired(c.server.now()) {
		err = auth.ErrExpired
	}
	return g, err
}

// join takes up a session, or begins one, if the client's address may.
func (c *socket) join(ctx context.Context, m request) (*session, error) {
	all := c.server.addresses
	if m.Resume == "" {
		if err := c.server.mayBegin(c.address); err != nil {
			return nil, err
		}
		grant, err := c.grant(ctx, m.Token)
		if err != nil {
			return nil, err
		}
		return c.server.join(ctx, m, grant, c)
	}
	if !all.mayResume(c.address) {
		return nil, refuse(rateLimited, "too many sessions that there aren't were asked for from this address")
	}
	x, err := c.server.resume(ctx, m, c)
	if errors.Is(err, errNotResumed) {
		all.refused(c.address)
	}
	return x, err
}

// refuse tells the client what was refused. It doesn't block.
func (c *socket) refuse(requestID string, err error) {
	r := refusalOf(err)
	if errors.Is(err, errGone) || c.ending() {
		return // the session ended meanwhile and has said why
	}
	c.server.metrics.refusals.WithLabelValues(string(r.code)).Inc()
	if r.code == internal {
		c.log.Error("message failed", "err", r.cause)
	} else {
		c.log.Debug("message refused", "code", r.code, "err", r.message)
	}
	m := errorMessage(r, c.trace, requestID)
	if c.session != nil {
		c.session.out.answer(c, m)
		return
	}
	c.send(m)
}
