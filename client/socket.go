package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

const (
	maxMessage = 4 << 20                // bytes of one message of the gateway
	silence    = 40 * time.Second       // without a ping of the gateway, which sends one every 15 s
	retry      = 500 * time.Millisecond // at first, and twice as long each time
	retryMost  = 4 * time.Second
)

// open makes a WebSocket.
func (c *Client) open(ctx context.Context) (*websocket.Conn, error) {
	header := http.Header{}
	c.mu.Lock()
	if c.options.Token != "" {
		header.Set("Authorization", "Bearer "+c.options.Token)
	}
	c.mu.Unlock()
	socket, answer, err := c.dialer.DialContext(ctx, c.address, header)
	if err != nil {
		if answer != nil {
			err = refusal(answer)
		}
		return nil, fmt.Errorf("connect %s: %w", c.address, err)
	}
	socket.SetReadLimit(maxMessage)
	socket.SetReadDeadline(time.Now().Add(silence))
	answerPing := socket.PingHandler()
	socket.SetPingHandler(func(data string) error {
		socket.SetReadDeadline(time.Now().Add(silence))
		return answerPing(data)
	})
	return socket, nil
}

// refusal is what an HTTP answer says (RFC 9457).
func refusal(answer *http.Response) error {
	e := &Error{Code: "http", Message: answer.Status, Status: answer.StatusCode, Fatal: true}
	var problem struct{ Code, Title, Detail, TraceID string }
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil && json.Unmarshal(body, &problem) == nil && problem.Code != "" {
		e.Code, e.Message, e.TraceID = problem.Code, problem.Detail, problem.TraceID
	}
	return e
}

// read reads messages until the session has ended. A socket that breaks is replaced.
func (c *Client) read() {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.events == nil {
			c.events = make(chan Event)
		}
		close(c.events) // nobody but this goroutine sends
		close(c.done)
	}()
	for {
		err := c.listen()
		if c.ctx.Err() != nil {
			return
		}
		var left *Left
		var refused *Error
		if errors.As(err, &left) || errors.As(err, &refused) || errors.Is(err, ErrSlow) {
			c.end(err)
			return
		}
		if again := c.resume(); again != nil {
			c.end(fmt.Errorf("connection lost: %w", errors.Join(err, again)))
			return
		}
	}
}

// listen takes the messages of a socket until one ends the session, or it breaks.
func (c *Client) listen() error {
	c.mu.Lock()
	socket := c.socket
	c.mu.Unlock()
	for {
		_, data, err := socket.ReadMessage()
		if err != nil {
			return err
		}
		socket.SetReadDeadline(time.Now().Add(silence))
		var m message
		if err := json.Unmarshal(data, &m); err != nil {
			return &Error{Code: "bad-message", Message: "of the gateway: " + err.Error(), Fatal: true}
		}
		m.raw = data
		if err := c.take(m); err != nil {
			return err
		}
	}
}

// resume takes the session up on a new socket, as long as the gateway keeps it. What
// it has said meanwhile comes again.
func (c *Client) resume() error {
	c.mu.Lock()
	joined, leaving := c.joined, c.leaving
	c.mu.Unlock()
	if joined == nil || joined.ResumeWithin == 0 || leaving {
		return errors.New("there is nothing to resume")
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Duration(joined.ResumeWithin*float64(time.Second)))
	defer cancel()
	for wait := retry; ; wait = min(2*wait, retryMost) {
		err := c.takeUp(ctx, joined)
		var refused *Error
		if err == nil || errors.As(err, &refused) && !passing(refused) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// passing tells whether a refusal is one of the moment: of a gateway that is just being
// started again or a proxy in front of it, or of one that is asked too often.
func passing(e *Error) bool {
	return e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests || e.Code == "rate-limited" || e.Code == "shutting-down"
}

// takeUp resumes on a new socket, and sends again what was lost with the old one.
func (c *Client) takeUp(ctx context.Context, joined *Joined) error {
	socket, err := c.open(ctx)
	if err != nil {
		return err
	}
	c.write.Lock() // nothing is sent between the join and what was lost
	defer c.write.Unlock()
	c.mu.Lock()
	seen := c.seen
	c.mu.Unlock()
	join, err := json.Marshal(map[string]any{"type": "join", "roomId": joined.RoomID, "version": 1, "resume": joined.Session, "seq": seen})
	if err != nil {
		return err
	}
	if err := write(socket, join); err != nil {
		return errors.Join(err, socket.Close())
	}
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	var m message
	if err := socket.ReadJSON(&m); err != nil {
		return errors.Join(err, socket.Close())
	}
	if m.Type != "joined" || !m.Resumed {
		return errors.Join(m.refusal(), socket.Close())
	}
	c.mu.Lock()
	lost := slices.Clone(c.sent[len(c.sent)-min(max(c.count-m.Received, 0), len(c.sent)):])
	for id, waiting := range c.requests {
		if waiting.order {
			lost = append(lost, fmt.Appendf(nil, `{"type":"ping","requestId":%q}`, id))
		}
	}
	c.mu.Unlock()
	for _, data := range lost {
		if err := write(socket, data); err != nil {
			return errors.Join(err, socket.Close())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := context.Cause(c.ctx); err != nil {
		return errors.Join(err, socket.Close())
	}
	c.socket.Close()
	c.socket = socket
	return nil
}

// take acts on a message. An error ends the session, or the socket.
func (c *Client) take(m message) error {
	c.mu.Lock()
	if m.Seq > 0 {
		if m.Seq <= c.seen {
			c.mu.Unlock()
			return nil // again, after a resume
		}
		c.seen = m.Seq
	}
	waiting, asked := c.requests[m.RequestID]
	if m.RequestID != "" {
		delete(c.requests, m.RequestID)
	}
	if m.Type == "joined" || m.Type == "moved" {
		if j, err := m.joined(); err == nil {
			if m.Type == "moved" && c.joined != nil {
				j.Session, j.ICEServers, j.ICEPolicy = c.joined.Session, c.joined.ICEServers, c.joined.ICEPolicy
			}
			c.joined, c.atOnce = j, ""
			if j.Stream != nil {
				c.atOnce = j.Stream.Name
				c.watch(c.atOnce)
			}
		}
	}
	if m.Type == "watching" {
		c.watch(m.streamOf())
	}
	c.mu.Unlock()

	var fault error
	switch m.Type {
	case "error":
		fault = m.refusal()
		if m.Code == "timeout" && !m.Fatal && !asked { // it is about what is published
			if u := c.upstream(); u != nil {
				u.givenUp()
				c.publisher.poke()
			}
		}
	case "left":
		fault = &Left{m.Reason}
	case "offer":
		if m.Target == "" { // else it is another participant's
			c.receive(m)
		}
	case "ice-candidate":
		if m.Target == "" {
			c.candidate(m)
		}
	case "unwatched":
		c.unwatched(m)
	}
	if asked {
		waiting.answer <- answer{m, fault}
	}
	if fault != nil && (m.Type == "left" || m.Fatal) {
		return fault
	}
	return c.publishEvent(m, asked)
}

// publishEvent hands a message to who listens, if it is one for them.
func (c *Client) publishEvent(m message, answered bool) error {
	switch m.Type {
	case "pong", "joined", "ice-candidate", "watching":
		if m.Target == "" {
			return nil
		}
	case "offer", "answer":
		if m.Target == "" {
			return nil
		}
	case "error":
		if answered {
			return nil
		}
	}
	c.mu.Lock()
	events := c.events
	c.mu.Unlock()
	if events == nil {
		return nil
	}
	select {
	case events <- m.event():
		return nil
	default:
		return ErrSlow
	}
}
