package signal

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// frame is what the writer writes: messages, and the close frame after them if
// nothing follows.
type frame struct {
	messages [][]byte
	close    []byte
	seq      uint64 // of the last message, if it is a session's
}

// send hands a message that isn't a session's to the writer, as push does.
func (c *socket) send(m message) {
	data, err := encode(m)
	if err != nil {
		c.log.Error("message dropped", "err", err)
		return
	}
	c.push(frame{messages: [][]byte{data}, close: closing(m)}, m.envelope().Type)
}

// push hands something to the writer. After a left or a fatal error the socket is
// closed and what comes further is dropped. It doesn't block: a client that doesn't
// read is cut off.
func (c *socket) push(f frame, kind string) {
	c.mu.Lock()
	if c.last {
		c.mu.Unlock()
		return
	}
	size := 0
	for _, data := range f.messages {
		size += len(data)
	}
	queued := len(c.frames) == 0 || len(c.frames) < outgoing && c.waiting+size <= outgoingSize
	if queued {
		c.frames, c.waiting = append(c.frames, f), c.waiting+size
		poke(c.due)
	}
	c.over = queued && f.close != nil
	c.last = !queued || c.over
	c.mu.Unlock()

	if !queued {
		c.cut()
		return
	}
	c.server.metrics.messages.WithLabelValues("out", kind).Add(float64(len(f.messages)))
}

// hangUpNow ends the socket without a word: another has taken its place.
func (c *socket) hangUpNow() {
	c.mu.Lock()
	c.last = true
	c.mu.Unlock()
	c.conn.NetConn().Close()
}

// cut ends the socket of a client that doesn't read.
func (c *socket) cut() {
	c.slow.Do(func() {
		c.server.metrics.slowSockets.Inc()
		c.log.Info("socket cut", "reason", "the client doesn't read")
		c.conn.NetConn().Close()
	})
}

// closing is the close frame that follows a message, nil if more may come.
func closing(m message) []byte {
	switch m := m.(type) {
	case *leftMessage:
		return websocket.FormatCloseMessage(websocket.CloseNormalClosure, string(m.Reason))
	case *errorReply:
		if m.Fatal {
			return websocket.FormatCloseMessage(codes[m.Code].close, string(m.Code))
		}
	}
	return nil
}

// write is the writer: it writes messages and pings until the last message, a
// fault, or the reader's end.
func (c *socket) write() {
	ping := time.NewTicker(c.server.timing.ping)
	defer ping.Stop()
	var written uint64 // seq of the last message
	for {
		select {
		case <-c.done:
			return
		case <-ping.C:
			if c.conn.WriteControl(websocket.PingMessage, strconv.AppendUint(nil, written, 10), time.Now().Add(c.server.timing.write)) != nil {
				c.conn.NetConn().Close()
				return
			}
			continue
		case <-c.due:
		}
		for _, f := range c.waited() {
			for _, data := range f.messages {
				c.conn.SetWriteDeadline(time.Now().Add(c.server.timing.write))
				if err := c.conn.WriteMessage(websocket.TextMessage, data); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						c.cut()
					}
					c.conn.NetConn().Close()
					return
				}
			}
			written = max(written, f.seq)
			if f.close != nil {
				c.conn.WriteControl(websocket.CloseMessage, f.close, time.Now().Add(c.server.timing.write))
				c.hangUp()
				return
			}
		}
	}
}

// waited takes what waits for the writer.
func (c *socket) waited() []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.frames
	c.frames, c.waiting = nil, 0
	return all
}

// alive notes that the peer was heard.
func (c *socket) alive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conn.SetReadDeadline(time.Now().Add(c.server.timing.silence))
	}
}

// hangUp leaves the peer a moment to answer the close frame (RFC 6455 §7.1.1):
// to close at once, with something unread, would reset the connection and take
// our last message with it.
func (c *socket) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.conn.SetReadDeadline(time.Now().Add(c.server.timing.linger))
}

// isOver tells whether a left or a fatal error is on its way.
func (c *socket) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// ending tells whether nothing more is sent.
func (c *socket) ending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
