package hostile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

var webSocketAttacks = []attack{
	{"WebSocket", "half-open: 400 sockets that never join", func(ctx context.Context, e *enemy) error {
		e.hold(ctx, 400, func() {
			if _, err := e.socket(ctx); err == nil {
				e.did()
			}
		})
		return nil
	}},
	{"WebSocket", "flood: handshakes as fast as they go", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 16, func() {
			if s, err := e.socket(ctx); err == nil {
				s.Close()
				e.did()
			}
		})
		return nil
	}},
	{"WebSocket", "flood: joins that vanish at once", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 16, func() {
			if s, err := e.join(ctx); err == nil {
				s.NetConn().Close()
				e.did()
			}
		})
		return nil
	}},
	{"WebSocket", "flood: messages as fast as they go", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() { e.repeat(ctx, websocket.TextMessage, func() []byte { return []byte(`{"type":"ping"}`) }) })
		return nil
	}},
	{"WebSocket", "flood: the protocol's own pings", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() { e.repeat(ctx, websocket.PingMessage, func() []byte { return noise(125) }) })
		return nil
	}},
	{"WebSocket", "flood: renegotiations as fast as they are taken", func(ctx context.Context, e *enemy) error {
		say := []string{`{"type":"restart-ice"}`, `{"type":"unwatch","stream":"good"}`, `{"type":"watch","stream":"good"}`, `{"type":"open-data"}`,
			`{"type":"select","rendition":"auto"}`, `{"type":"view","width":1,"height":1,"visible":false}`, `{"type":"observe","on":true}`}
		e.many(ctx, 8, func() {
			e.repeat(ctx, websocket.TextMessage, func() []byte { return []byte(say[rand.IntN(len(say))]) })
		})
		return nil
	}},
	{"WebSocket", "flood: sessions that are guessed", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			s, err := e.socket(ctx)
			if err != nil {
				return
			}
			defer s.Close()
			s.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"join","roomId":"good","version":1,"resume":"%x","seq":1}`, noise(16)))
			s.SetReadDeadline(time.Now().Add(time.Second))
			s.ReadMessage()
			e.did()
		})
		return nil
	}},
	{"WebSocket", "malformed: frames against the RFC", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			if s, err := e.socket(ctx); err == nil {
				conn := s.NetConn()
				conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
				for range 1 + rand.IntN(4) {
					conn.Write(badFrames[rand.IntN(len(badFrames))])
				}
				io.CopyN(io.Discard, conn, 512)
				conn.Close()
				e.did()
			}
		})
		return nil
	}},
	{"WebSocket", "malformed: messages damaged at random", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			e.repeat(ctx, websocket.TextMessage, func() []byte { return damage([]byte(messages[rand.IntN(len(messages))])) })
		})
		return nil
	}},
	{"WebSocket", "malformed: JSON of 30,000 brackets", func(ctx context.Context, e *enemy) error {
		deep := []byte(`{"type":"message","data":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}")
		e.many(ctx, 8, func() { e.repeat(ctx, websocket.TextMessage, func() []byte { return deep }) })
		return nil
	}},
	{"WebSocket", "oversized: messages of 16 MiB", func(ctx context.Context, e *enemy) error {
		large := []byte(strings.Repeat("a", 16<<20))
		e.many(ctx, 8, func() {
			if s, err := e.socket(ctx); err == nil {
				s.SetWriteDeadline(time.Now().Add(time.Second))
				e.did()
				s.WriteMessage(websocket.TextMessage, large)
				s.Close()
			}
		})
		return nil
	}},
	{"WebSocket", "oversized: one message in pieces without an end", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			s, err := e.socket(ctx)
			if err != nil {
				return
			}
			defer s.Close()
			e.did()
			kind := byte(websocket.TextMessage)
			for ctx.Err() == nil {
				s.NetConn().SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				if _, err := s.NetConn().Write(clientFrame(kind, []byte(strings.Repeat("a", 1000)))); err != nil {
					return
				}
				kind = 0 // it goes on
			}
		})
		return nil
	}},
	{"WebSocket", "slow: 100 that talk and never read", func(ctx context.Context, e *enemy) error {
		e.hold(ctx, 100, func() {
			conn, err := net.Dial("tcp", e.host)
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			conn.(*net.TCPConn).SetReadBuffer(1024)
			io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: "+e.host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
			conn.Write(clientFrame(websocket.TextMessage, []byte(joinGood)))
			e.did()
			for wait(ctx, 25*time.Millisecond) {
				if _, err := conn.Write(clientFrame(websocket.TextMessage, []byte(`{"type":"watch","stream":"nowhere"}`))); err != nil {
					return
				}
			}
		})
		return nil
	}},
}

const joinGood = `{"type":"join","roomId":"good","version":1}`

// messages are good ones, to be damaged.
var messages = []string{
	joinGood,
	`{"type":"answer","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"}`,
	`{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 9 typ host","sdpMid":"0","sdpMLineIndex":0}}`,
	`{"type":"view","width":640,"height":360,"visible":true}`,
	`{"type":"report","frames":[{"rtp":1,"at":2}]}`,
	`{"type":"message","target":"x","data":{"a":[1,2,{"b":null}]}}`,
	`{"type":"offer","sdp":"v=0\r\n","streams":[{"label":"a","mids":["0"]}]}`,
	`{"type":"set-role","target":"x","role":"admin"}`,
}

// badFrames break RFC 6455: unmasked, reserved bits and codes, control frames that are long or
// in pieces, lengths that can't be, text that is no UTF-8, a close code that isn't one.
var badFrames = [][]byte{
	{0x81, 0x02, 'h', 'i'},
	{0xf1, 0x80, 0, 0, 0, 0},
	{0x83, 0x80, 0, 0, 0, 0},
	{0x8f, 0x80, 0, 0, 0, 0},
	append([]byte{0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0}, make([]byte, 256)...),
	{0x09, 0x80, 0, 0, 0, 0},
	{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	{0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe},
	{0x80, 0x81, 0, 0, 0, 0, 'a'},
	{0x88, 0x82, 0, 0, 0, 0, 0x00, 0x01},
	{0x88, 0x81, 0, 0, 0, 0, 0x03},
}

// clientFrame is a masked frame without FIN where it is a part of a longer one (RFC 6455 §5.2): all but
// whole messages of the text that ends.
func clientFrame(kind byte, payload []byte) []byte {
	first := kind
	if len(payload) > 0 && payload[len(payload)-1] == '}' {
		first |= 0x80
	}
	b := []byte{first, 0x80 | 126, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(len(payload)))
	return append(b, payload...) // the mask is 0
}

// socket opens a WebSocket, which ends with the attack at the latest.
func (e *enemy) socket(ctx context.Context) (*websocket.Conn, error) {
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	s, resp, err := dialer.DialContext(ctx, "ws://"+e.host+"/ws", nil)
	if err != nil {
		if resp != nil {
			e.say("%s", resp.Status)
		}
		return nil, err
	}
	context.AfterFunc(ctx, func() { s.NetConn().Close() })
	return s, nil
}

// join opens one that watches, as far as that is taken.
func (e *enemy) join(ctx context.Context) (*websocket.Conn, error) {
	s, err := e.socket(ctx)
	if err != nil {
		return nil, err
	}
	return s, s.WriteMessage(websocket.TextMessage, []byte(joinGood))
}

// repeat joins and sends until the gateway has enough of it.
func (e *enemy) repeat(ctx context.Context, kind int, next func() []byte) {
	s, err := e.join(ctx)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		for {
			_, b, err := s.ReadMessage()
			if err != nil {
				return
			}
			if strings.Contains(string(b), `"fatal":true`) {
				e.say("%.90s", b)
			}
		}
	}()
	for ctx.Err() == nil {
		s.SetWriteDeadline(time.Now().Add(time.Second))
		if s.WriteMessage(kind, next()) != nil {
			return
		}
		e.did()
	}
}
