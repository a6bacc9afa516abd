package hostile

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

var httpAttacks = []attack{
	{"HTTP", "bytes that are no HTTP", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() { e.once(ctx, noise(4096)) })
		return nil
	}},
	{"HTTP", "TLS where plain HTTP is spoken", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			if conn, err := e.dial(ctx); err == nil {
				tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
				conn.Close()
				e.did()
			}
		})
		return nil
	}},
	{"HTTP", "half-open: 500 connections that say nothing", func(ctx context.Context, e *enemy) error {
		e.hold(ctx, 500, func() {
			if _, err := e.dial(ctx); err == nil {
				e.did()
			}
		})
		return nil
	}},
	{"HTTP", "slow: headers byte by byte on 300 connections", func(ctx context.Context, e *enemy) error {
		e.hold(ctx, 300, func() { e.drip(ctx, "GET / HTTP/1.1\r\nHost: "+e.host+"\r\nX-Slow: ", "a") })
		return nil
	}},
	{"HTTP", "slow: bodies byte by byte on 300 connections", func(ctx context.Context, e *enemy) error {
		e.hold(ctx, 300, func() {
			e.drip(ctx, "POST /whep/good HTTP/1.1\r\nHost: "+e.host+"\r\nContent-Type: application/sdp\r\nContent-Length: 60000\r\n\r\n", "v")
		})
		return nil
	}},
	{"HTTP", "slow: 200 readers of answers that don't read", func(ctx context.Context, e *enemy) error {
		request := strings.Repeat("GET /metrics HTTP/1.1\r\nHost: "+e.host+"\r\n\r\n", 200)
		e.hold(ctx, 200, func() {
			if conn, err := e.dial(ctx); err == nil {
				conn.SetWriteDeadline(time.Now().Add(time.Second))
				io.WriteString(conn, request)
				e.did()
			}
		})
		return nil
	}},
	{"HTTP", "oversized: headers without an end", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			e.pump(ctx, "GET / HTTP/1.1\r\nHost: "+e.host+"\r\n", "X-More: "+strings.Repeat("a", 4000)+"\r\n")
		})
		return nil
	}},
	{"HTTP", "oversized: bodies without an end", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			e.pump(ctx, "POST /whep/good HTTP/1.1\r\nHost: "+e.host+"\r\nContent-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n\r\n",
				fmt.Sprintf("%x\r\n%s\r\n", 4000, strings.Repeat("a", 4000)))
		})
		return nil
	}},
	{"HTTP", "malformed: requests damaged at random", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() { e.once(ctx, damage([]byte(odd[rand.IntN(len(odd))]))) })
		return nil
	}},
	{"HTTP", "flood: requests as fast as they go", func(ctx context.Context, e *enemy) error {
		paths := []string{"/", "/api/streams", "/api/streams/good", "/api/streams/good/viewers", "/api/rooms", "/metrics", "/readyz", "/nowhere"}
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
		e.many(ctx, 16, func() { e.get(ctx, client, paths[rand.IntN(len(paths))]) })
		return nil
	}},
	{"HTTP", "flood: snapshots as fast as they go", func(ctx context.Context, e *enemy) error {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
		e.many(ctx, 16, func() { e.get(ctx, client, fmt.Sprintf("/api/streams/good/snapshot.jpg?width=%d", 100+rand.IntN(100))) })
		return nil
	}},
}

// odd are requests at the edge of what HTTP is, to be damaged too.
var odd = []string{
	"GET /assets/../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /api/streams/%2e%2e%2fgood%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
	"POST /whep/good HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
	"POST /whep/good HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
	"POST /api/reload HTTP/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n",
	"PATCH /whep/good/AAAA HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/trickle-ice-sdpfrag\r\nIf-Match: \"*\"\r\nContent-Length: 4\r\n\r\na=b\n",
	"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nRange: bytes=0-,0-,0-,0-,0-,0-,0-\r\n\r\n",
}

// once sends bytes on a new connection, reads a little and closes it.
func (e *enemy) once(ctx context.Context, b []byte) {
	conn, err := e.dial(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	conn.Write(b)
	io.CopyN(io.Discard, conn, 1024)
	e.did()
}

// drip sends a beginning at once and what follows ten times a second.
func (e *enemy) drip(ctx context.Context, begin, drop string) {
	conn, err := e.dial(ctx)
	if err != nil {
		return
	}
	e.did()
	if _, err := io.WriteString(conn, begin); err != nil {
		return
	}
	for wait(ctx, 100*time.Millisecond) {
		if _, err := io.WriteString(conn, drop); err != nil {
			return
		}
	}
}

// pump sends a beginning and then the same for as long as it is taken.
func (e *enemy) pump(ctx context.Context, begin, more string) {
	conn, err := e.dial(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, begin); err != nil {
		return
	}
	e.did()
	for ctx.Err() == nil {
		conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := io.WriteString(conn, more); err != nil {
			e.say("%s", firstLine(conn))
			return
		}
	}
}

// firstLine is the beginning of what a connection has answered.
func firstLine(r io.Reader) string {
	line, _ := bufio.NewReader(r).ReadString('\n')
	return strings.TrimSpace(line)
}

func (e *enemy) get(ctx context.Context, client *http.Client, path string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url(path), nil)
	if err != nil {
		return
	}
	if resp, err := client.Do(req); err == nil {
		drain(resp)
		e.did()
	}
}

func drain(resp *http.Response) {
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}
