// Package client is a participant of a gateway's room, written in Go: it watches
// streams, publishes its own, and exchanges messages with others, by way of the gateway or
// over data channels, as docs/protocol.md has it.
//
// It leaves out what is for pages: it neither observes the quality of what it receives nor
// reports on it, and asks for no stream or view with its join, but by Watch and View after
// it. A track is published in one size, without simulcast. What others offer for direct
// connections comes among Events; to answer is the caller's, by Moderate, which sends any
// message.
//
//	c, err := client.Dial(ctx, "https://cam.example.org", client.Options{Token: token})
//	...
//	defer c.Close()
//	_, err = c.Join(ctx, "hall")
//	w, err := c.Watch(ctx, "door", "")
//	t, err := w.Track(ctx)
//	for {
//		p, err := t.Read(ctx) // an RTP packet and its codec
//	}
//
// A Client has a goroutine that reads its WebSocket, one for each track that comes, one
// that looks after what it publishes and one for each track of that, and pion's own;
// Close ends them. Its methods may be called from several
// goroutines at a time.
package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
)

// Options are what a client is made with. The zero Options will do where nobody is
// asked who they are.
type Options struct {
	Token  string      // of the gateway, or of those that it trusts; "": none
	Name   string      // shown to others in the room
	Role   string      // less than is granted, such as "viewer"; "": all of it
	Create bool        // make the room that is joined if it isn't there, where the token allows it
	TLS    *tls.Config // for https: roots, a machine's certificate; nil: the system's roots

	// Codecs are the MIME types that can be received, best first, such as
	// "video/VP8"; none: whatever API takes.
	Codecs []string
	// API makes the peer connections; nil: pion's codecs and interceptors, and what follows
	// a machine whose addresses change: pion by itself goes on with those that it found first.
	API *webrtc.API
	// DialContext makes TCP connections; nil: net.Dialer's.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Errors that callers branch on.
var (
	ErrClosed = errors.New("client closed")
	ErrSlow   = errors.New("events were not read") // the channel of Events was full
)

// Error is a refusal of the gateway.
type Error struct {
	Code    string // of docs/protocol.md, such as "not-found"
	Message string // for people
	TraceID string // finds it in the gateway's log
	Fatal   bool   // the session has ended by it
	Status  int    // of HTTP where the WebSocket was refused, else 0
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Code
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.TraceID != "" {
		text += " (trace " + e.TraceID + ")"
	}
	return text
}

// Left is the end of a session that the gateway told: by the client's own Close
// ("leave"), or because of something else.
type Left struct{ Reason string }

// Error implements error.
func (l *Left) Error() string { return "left: " + l.Reason }

// Lost tells whether a session has ended, or could not begin, because the gateway or the
// way to it was gone: it was restarted, for one. It is worth to dial and join anew then.
// It is false for refusals, and for what the client has ended itself.
func Lost(err error) bool {
	var left *Left
	var refused *Error
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrSlow), errors.As(err, &left):
		return false
	case errors.As(err, &refused):
		return refused.Code == "resume-failed" || refused.Code == "shutting-down"
	}
	return true
}

// Client is one participant.
type Client struct {
	options Options
	address string // of the WebSocket
	dialer  websocket.Dialer

	ctx    context.Context // ends with the client; for what happens on its goroutines
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup
	done   chan struct{} // closed when the reader has ended

	write sync.Mutex // held across a write of socket

	mu       sync.Mutex // guards below; never held across I/O
	socket   *websocket.Conn
	joined   *Joined
	seen     int64    // seq of the last message
	sent     [][]byte // the last messages that were sent, without joins and pings
	count    int      // of all that were
	atOnce   string   // the stream that is watched without having been asked for; "": none
	requests map[string]pending
	last     int // request
	events   chan Event
	leaving  bool
	watches  map[string]*Watch
	plan     map[string]place // what m-lines of the receiving connection carry, by mid
	receiver *webrtc.PeerConnection
	sender   *upstream
	data     *Data

	publisher publisher // has a lock of its own
}

// pending is a request that waits for its answer.
type pending struct {
	answer chan answer // takes one without blocking; whoever answers takes it out of the map
	order  bool        // a pong is the answer
}

// answer is what came for a request.
type answer struct {
	message message
	err     error
}

// Dial connects to a gateway by its address, such as "https://host:8080"; a path is
// passed over. It returns when the WebSocket is open; an *Error tells why it was
// refused.
func Dial(ctx context.Context, address string, o Options) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	scheme, ok := map[string]string{"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[u.Scheme]
	if !ok || u.Host == "" {
		return nil, fmt.Errorf("address %q: it begins with http:// or https://, and has a host", address)
	}
	if o.API == nil {
		if o.API, err = newAPI(); err != nil {
			return nil, err
		}
	}
	c := &Client{
		options: o, address: scheme + "://" + u.Host + "/ws",
		dialer:   websocket.Dialer{TLSClientConfig: o.TLS, NetDialContext: o.DialContext, HandshakeTimeout: 20 * time.Second},
		done:     make(chan struct{}),
		requests: make(map[string]pending), watches: make(map[string]*Watch), plan: make(map[string]place),
	}
	c.publisher = publisher{client: c, stir: make(chan struct{}, 1)}
	if c.socket, err = c.open(ctx); err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.wait.Go(c.read)
	return c, nil
}

// newAPI is pion as it comes, with loopback candidates, for a gateway on the same
// machine, and the addresses that the machine has when it looks for them.
func newAPI() (*webrtc.API, error) {
	own, err := newFresh()
	if err != nil {
		return nil, err
	}
	setting := webrtc.SettingEngine{}
	setting.SetNet(own)
	setting.SetIncludeLoopbackCandidate(true)
	if err := setting.SetAnsweringDTLSRole(webrtc.DTLSRoleClient); err != nil { // as the protocol asks of an ICE-lite gateway's client
		return nil, err
	}
	return webrtc.NewAPI(webrtc.WithSettingEngine(setting)), nil
}

// Join enters a room. Once a client.
func (c *Client) Join(ctx context.Context, room string) (*Joined, error) {
	m := map[string]any{"type": "join", "roomId": room, "version": 1}
	if c.options.Name != "" {
		m["name"] = c.options.Name
	}
	if c.options.Role != "" {
		m["role"] = c.options.Role
	}
	if c.options.Create {
		m["create"] = true
	}
	if len(c.options.Codecs) > 0 {
		m["codecs"] = byKind(c.options.Codecs)
	}
	got, err := c.request(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", room, err)
	}
	return got.joined()
}

// byKind sorts MIME types as the protocol has them.
func byKind(codecs []string) map[string][]string {
	all := map[string][]string{"video": {}, "audio": {}}
	for _, c := range codecs {
		if kind, _, ok := strings.Cut(c, "/"); ok {
			all[kind] = append(all[kind], c)
		}
	}
	return all
}

// Relay sends something to a participant of the room, or, without a target, to all
// who may hear it: data is anything that makes JSON. It returns when the gateway has
// passed it on; "unknown-target" is the code for one that isn't there.
func (c *Client) Relay(ctx context.Context, target string, data any) error {
	m := map[string]any{"type": "message", "data": data}
	if target != "" {
		m["target"] = target
	}
	return c.order(ctx, m)
}

// Moderate sends a message of a type, with its fields: one by which hosts keep order, such
// as "mute" with target, kind and on, or any other that is answered only where it is
// refused. It returns when it is done.
func (c *Client) Moderate(ctx context.Context, kind string, fields map[string]any) error {
	m := map[string]any{"type": kind}
	for name, v := range fields {
		m[name] = v
	}
	return c.order(ctx, m)
}

// Renew gives the gateway a new token before the one it has expires.
func (c *Client) Renew(ctx context.Context, token string) error {
	_, err := c.request(ctx, map[string]any{"type": "token", "token": token})
	if err == nil {
		c.mu.Lock()
		c.options.Token = token
		c.mu.Unlock()
	}
	return err
}

// Events are what happens in the room: participants and streams that come and go,
// and what others relay. They are kept from the first call on, and the channel is
// closed at the client's end. A caller that doesn't read loses the client
// ([ErrSlow]), not events.
func (c *Client) Events() <-chan Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events == nil {
		c.events = make(chan Event, 256)
	}
	return c.events
}

// Done is closed when the session has ended. Err tells why.
func (c *Client) Done() <-chan struct{} { return c.ctx.Done() }

// Err is why the session has ended: a *Left, an *Error, ErrClosed, or a fault of
// the network that lasted for longer than a session can be taken up again. nil while
// it goes on.
func (c *Client) Err() error {
	return context.Cause(c.ctx)
}

// Close leaves, and ends the connections. It waits for the gateway to tell so, 5 s
// at most. Where the session has ended before by something else, that is the error.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.leaving
	c.leaving = true
	c.mu.Unlock()
	if first && c.ctx.Err() == nil {
		overdue := time.AfterFunc(5*time.Second, func() { c.end(ErrClosed) }) // also a session's being taken up
		if c.send(map[string]any{"type": "leave"}) == nil {
			<-c.done
		}
		overdue.Stop()
	}
	c.end(ErrClosed)
	c.mu.Lock()
	receiver := c.receiver
	c.receiver = nil
	c.mu.Unlock()
	var err error
	if receiver != nil {
		err = receiver.GracefulClose()
	}
	err = errors.Join(err, c.hangUp(c.upstream()))
	c.wait.Wait()
	var left *Left
	if errors.Is(err, webrtc.ErrConnectionClosed) { // it had ended by itself
		err = nil
	}
	if cause := c.Err(); !errors.Is(cause, ErrClosed) && !errors.Is(cause, webrtc.ErrConnectionClosed) && !(errors.As(cause, &left) && left.Reason == "leave") {
		err = errors.Join(cause, err)
	}
	return err
}

// end ends the session for a reason; the first one counts.
func (c *Client) end(why error) {
	c.cancel(why)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket.Close()
	for id, waiting := range c.requests {
		waiting.answer <- answer{err: context.Cause(c.ctx)}
		delete(c.requests, id)
	}
	for _, w := range c.watches {
		w.finish(context.Cause(c.ctx))
	}
}

// begin has f run on a goroutine for which Close waits, unless the client has ended.
func (c *Client) begin(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	c.wait.Go(f)
	return nil
}

// request sends a message and waits for the answer to it.
func (c *Client) request(ctx context.Context, m map[string]any) (message, error) {
	return c.ask(ctx, m)
}

// ask sends messages under one requestId, and waits for the first answer.
func (c *Client) ask(ctx context.Context, messages ...map[string]any) (message, error) {
	waiting := pending{make(chan answer, 1), len(messages) > 1}
	c.mu.Lock()
	if err := context.Cause(c.ctx); err != nil {
		c.mu.Unlock()
		return message{}, err
	}
	c.last++
	id := fmt.Sprint(c.last)
	c.requests[id] = waiting
	c.mu.Unlock()
	defer c.drop(id)
	for _, m := range messages {
		m["requestId"] = id
		if err := c.send(m); err != nil {
			return message{}, err
		}
	}
	select {
	case a := <-waiting.answer:
		return a.message, a.err
	case <-ctx.Done():
		return message{}, ctx.Err()
	}
}

func (c *Client) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.requests, id)
}

// order sends a message that is answered only where it is refused: a ping behind it,
// with the same requestId, tells that it was taken, as the gateway keeps the order.
func (c *Client) order(ctx context.Context, m map[string]any) error {
	_, err := c.ask(ctx, m, map[string]any{"type": "ping"})
	return err
}

// maxSent is how many messages are kept to be sent again.
const maxSent = 256

// send writes a message. One that the network has lost is sent again on the next
// socket, see resume; the caller doesn't hear of it.
func (c *Client) send(m map[string]any) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	c.mu.Lock()
	socket, resumable := c.socket, c.joined != nil && c.joined.ResumeWithin > 0
	if resumable && m["type"] != "ping" && m["type"] != "leave" {
		c.count++
		if c.sent = append(c.sent, data); len(c.sent) > maxSent {
			c.sent = c.sent[1:]
		}
	}
	c.mu.Unlock()
	if err := write(socket, data); err != nil && !resumable {
		return err
	}
	return nil
}

func write(socket *websocket.Conn, data []byte) error {
	socket.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return socket.WriteMessage(websocket.TextMessage, data)
}
