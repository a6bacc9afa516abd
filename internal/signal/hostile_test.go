package signal

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// What a client may do wrong, the code that it gets, and whether the socket
// stays. A good viewer watches through all of it.
func TestHostileClientsAreRefusedAndDisturbNobody(t *testing.T) {
	g := newGateway(t)
	good, viewer := g.watch(t, "test")

	join := func(c *conversation) { c.join("test"); c.hear("offer") }
	raw := func(text string) func(*conversation) {
		return func(c *conversation) { c.conn.WriteMessage(websocket.TextMessage, []byte(text)) }
	}
	say := func(m map[string]any) func(*conversation) { return func(c *conversation) { c.say(m) } }
	room := func(name string) func(*conversation) {
		return say(map[string]any{"type": "join", "roomId": name, "version": 1})
	}
	answer := func(sdp string) func(*conversation) { return say(map[string]any{"type": "answer", "sdp": sdp}) }
	candidate := func(text string) func(*conversation) {
		return say(map[string]any{"type": "ice-candidate", "candidate": map[string]any{"candidate": text, "sdpMid": "0"}})
	}
	for name, h := range map[string]struct {
		first func(*conversation)
		then  func(*conversation)
		code  code
		close int // 0: the socket stays
	}{
		"malformed JSON":             {nil, raw(`{"type":`), badMessage, 0},
		"two messages in one":        {nil, raw(`{"type":"ping"}{"type":"ping"}`), badMessage, 0},
		"an unknown type":            {join, raw(`{"type":"exec","cmd":"ls"}`), badMessage, 0},
		"an unknown field":           {join, raw(`{"type":"ping","x":1}`), badMessage, 0},
		"a binary frame":             {join, func(c *conversation) { c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{"type":"ping"}`)) }, badMessage, 0},
		"a huge message":             {join, raw(`{"type":"answer","sdp":"` + strings.Repeat("x", 1<<20) + `"}`), messageTooLarge, 1009},
		"an unknown room":            {nil, room("nowhere"), notFound, 1008},
		"a room that leaves":         {nil, room("../../etc/passwd"), notFound, 1008},
		"an empty room":              {nil, room(""), notFound, 1008},
		"a stream of another room":   {nil, say(map[string]any{"type": "join", "roomId": "test", "stream": "h264", "version": 1}), notFound, 1008},
		"another version":            {nil, say(map[string]any{"type": "join", "roomId": "test", "version": 2}), unsupportedVersion, 1008},
		"no version":                 {nil, say(map[string]any{"type": "join", "roomId": "test"}), unsupportedVersion, 1008},
		"an answer before join":      {nil, answer("v=0\r\n"), badState, 0},
		"a candidate before join":    {nil, say(map[string]any{"type": "ice-candidate", "candidate": nil}), badState, 0},
		"a report before join":       {nil, say(map[string]any{"type": "report", "firstFrameMs": 1}), badState, 0},
		"a second join":              {join, room("test"), badState, 0},
		"a join elsewhere":           {join, room("h264"), badState, 0},
		"an answer of garbage":       {join, answer("hello\x00world"), badSDP, 0},
		"an empty answer":            {join, answer(""), badSDP, 0},
		"an answer to something":     {join, answer(someOffer), badSDP, 0},
		"an answer of 48 KB":         {join, answer("v=0\r\n" + strings.Repeat("a=x\r\n", 8000)), badSDP, 0},
		"an answer for another":      {join, say(map[string]any{"type": "answer", "sdp": "v=0", "session": "X"}), badState, 0},
		"a candidate of garbage":     {join, candidate("candidate:no such thing"), badCandidate, 0},
		"a target":                   {join, say(map[string]any{"type": "ice-candidate", "candidate": nil, "target": "somebody"}), unknownTarget, 0},
		"another room's message":     {join, say(map[string]any{"type": "restart-ice", "roomId": "h264"}), badState, 0},
		"a report of nothing":        {join, raw(`{"type":"report"}`), badMessage, 0},
		"two reports":                {func(c *conversation) { join(c); c.say(map[string]any{"type": "report", "firstFrameMs": 1}) }, say(map[string]any{"type": "report", "firstFrameMs": 1}), badState, 0},
		"a select before join":       {nil, say(map[string]any{"type": "select", "rendition": "low"}), badState, 0},
		"a select of nothing":        {join, raw(`{"type":"select"}`), badMessage, 0},
		"a select of null":           {join, raw(`{"type":"select","rendition":null}`), badMessage, 0},
		"a select of a long name":    {join, say(map[string]any{"type": "select", "rendition": strings.Repeat("x", 129)}), badMessage, 0},
		"a select of what isn't":     {join, say(map[string]any{"type": "select", "rendition": "../\x00<b>"}), notFound, 0},
		"a select of the audio":      {join, say(map[string]any{"type": "select", "rendition": "audio"}), notFound, 0},
		"a join of a rendition list": {nil, raw(`{"type":"join","roomId":"test","version":1,"rendition":["low"]}`), badMessage, 0},
		"hasty selects":              {join, func(c *conversation) { selects(c, selectBurst+1) }, rateLimited, 0},
		"ten bad messages":           {nil, func(c *conversation) { badMessages(c, maxStrikes-1); raw(`{}`)(c) }, badMessage, 1008},
		"a flood of messages":        {join, func(c *conversation) { flood(c, messageBurst+20) }, rateLimited, 1008},
		"a flood of restarts":        {join, func(c *conversation) { restarts(c, 6) }, rateLimited, 1008},
		"a flood of WebSocket pings": {join, func(c *conversation) { pings(c, messageBurst+20) }, rateLimited, 1008},
	} {
		t.Run(name, func(t *testing.T) {
			c := g.dial(t)
			if h.first != nil {
				h.first(c)
			}
			h.then(c)
			e := c.hear("error")
			if e["code"] != string(h.code) || e["fatal"] != (h.close != 0) || e["message"] == "" || !isTraceID(e["traceId"].(string)) {
				t.Fatalf("answered by %v", e)
			}
			if h.close != 0 {
				if code, text := c.closed(); code != h.close || text != string(h.code) {
					t.Errorf("closed with %d %q", code, text)
				}
				return
			}
			c.say(map[string]any{"type": "ping", "requestId": "alive"})
			c.hear("pong")
		})
	}
	viewer.sees(webrtc.RTPCodecTypeVideo)
	good.say(map[string]any{"type": "ping"})
	good.hear("pong")
}

func badMessages(c *conversation, n int) {
	for range n {
		c.conn.WriteMessage(websocket.TextMessage, []byte(`nonsense`))
		if e := c.hear("error"); e["fatal"] != false {
			c.t.Fatalf("closed too early: %v", e)
		}
	}
}

func flood(c *conversation, n int) {
	for range n {
		if c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`)) != nil {
			return // closed meanwhile
		}
	}
}

func restarts(c *conversation, n int) {
	for range n {
		if c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"restart-ice"}`)) != nil {
			return
		}
	}
}

func selects(c *conversation, n int) {
	for range n {
		if c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"select","rendition":"auto"}`)) != nil {
			return
		}
	}
}

func pings(c *conversation, n int) {
	for range n {
		if c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) != nil {
			return
		}
	}
}

// A hundred candidates are enough for anybody. Slowly sent, so that the limit of
// messages isn't what refuses them.
func TestCandidatesOfANegotiationAreLimited(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	session := c.join("test")["session"].(string)
	c.hear("offer")
	x := g.session(session)
	good := candidateOf(t)
	var err error
	for range maxCandidates + 1 {
		err = x.receive(context.Background(), x.out.socket, good)
	}
	if r := refusalOf(err); err == nil || r.code != rateLimited || !r.fatal {
		t.Errorf("candidate %d: %v", maxCandidates+1, err)
	}
}

func candidateOf(t *testing.T) request {
	m, err := decode([]byte(`{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 9 typ host","sdpMid":"0"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSocketThatNeverJoinsIsClosed(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.join = 100 * time.Millisecond })
	c := g.dial(t)
	if e := c.hear("error"); e["code"] != "timeout" {
		t.Errorf("error %v", e)
	}
	if code, _ := c.closed(); code != 1008 {
		t.Errorf("closed with %d", code)
	}
}

// A flood of selects is a flood of messages, and costs the others nothing.
func TestFloodOfSelectsIsCutOff(t *testing.T) {
	g := newGateway(t)
	_, viewer := g.watch(t, "ladder")
	c, p := g.watch(t, "ladder")
	for i := range messageBurst + messageRate {
		c.try(map[string]any{"type": "select", "rendition": []string{"best", "high", "low", "auto"}[i%4]})
	}
	for fatal := false; !fatal; {
		e := c.hear("error")
		if e["code"] != "rate-limited" {
			t.Fatalf("answered by %v", e)
		}
		fatal = e["fatal"].(bool)
	}
	if code, text := c.closed(); code != 1008 || text != "rate-limited" {
		t.Errorf("closed with %d %q", code, text)
	}
	p.pc.Close()
	viewer.sees(webrtc.RTPCodecTypeVideo)
}

// What everybody in a room is told of, and what negotiates, comes at a bounded rate also
// from who means nothing by it: a viewer may mute himself, and all who take part hear it.
func TestWhatCostsOthersIsPaced(t *testing.T) {
	for kind, fields := range map[string]map[string]any{
		"mute":  {"kind": "audio"},
		"token": {"token": "viewer"},
		"offer": {"sdp": "v=0"},
	} {
		t.Run(kind, func(t *testing.T) {
			g := newRoomGateway(t)
			c, joined := g.as(t, "viewer", "hall")
			for i := range messageBurst - 10 {
				m := map[string]any{"type": kind}
				if kind == "mute" {
					m["target"], m["on"] = joined["userId"], i%2 == 0
				}
				for k, v := range fields {
					m[k] = v
				}
				c.say(m)
			}
			deadline := time.After(patience)
			for {
				select {
				case m, ok := <-c.got:
					if !ok || m["fatal"] == true {
						t.Fatalf("the socket ends by %v", m)
					}
					if m["code"] == string(rateLimited) {
						return
					}
				case <-deadline:
					t.Fatal("it comes at any rate")
				}
			}
		})
	}
}

// newSilentClient joins, and then neither reads nor writes: what is left when a
// laptop is closed. It returns the client's end of the connection.
func newSilentClient(t *testing.T, g *gateway) (net.Conn, string) {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(g.http.URL, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.WriteJSON(map[string]any{"type": "join", "roomId": "test", "version": 1}); err != nil {
		t.Fatal(err)
	}
	var joined struct{ Session string }
	if err := conn.ReadJSON(&joined); err != nil {
		t.Fatal(err)
	}
	return conn.NetConn(), joined.Session
}

func TestHalfOpenSocketIsDropped(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, w *timing) {
		w.ping, w.silence, c.Room.DepartureTimeout = 20*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond
	})
	conn, id := newSilentClient(t, g)
	defer conn.Close()
	x := g.session(id)
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatal("the session of a dead client stays")
	}
}

func TestClientThatDoesNotReadIsCutAndDisturbsNobody(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Room.DepartureTimeout = 50 * time.Millisecond })
	_, viewer := g.watch(t, "test")
	conn, id := newSilentClient(t, g)
	defer conn.Close()
	x := g.session(id)
	big := &streamMessage{x.header("stream", ""), streamState{Title: strings.Repeat("x", 1<<16)}}
	for cut := false; !cut; {
		x.client.send(big) // never blocks; the kernel's buffers fill, then the queue
		select {
		case <-x.done:
			cut = true
		default:
			x.out.mu.Lock()
			cut = x.out.socket == nil || x.out.socket.ending()
			x.out.mu.Unlock()
		}
	}
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatal("the session of a slow client stays")
	}
	if n := g.count(t, "gateway_slow_sockets_total"); n != 1 {
		t.Errorf("%v slow sockets counted", n)
	}
	viewer.sees(webrtc.RTPCodecTypeVideo)
}

func TestPagesOfOtherOriginsMayNotWatch(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.HTTP.AllowedOrigins = []string{"https://kiosk.example"} })
	host := strings.TrimPrefix(g.http.URL, "http://")
	for _, c := range []struct {
		origin []string
		ok     bool
	}{
		{nil, true},
		{[]string{"http://" + host}, true},
		{[]string{"https://kiosk.example"}, true},
		{[]string{"https://evil.example"}, false},
		{[]string{"http://" + host + ".evil.example"}, false},
		{[]string{"http://kiosk.example"}, false},
		{[]string{"null"}, false},
		{[]string{""}, false},
		{[]string{"http://" + host, "https://evil.example"}, false},
		{[]string{"http://localhost:1"}, false},
	} {
		t.Run(fmt.Sprint(c.origin), func(t *testing.T) {
			conn, resp, err := websocket.DefaultDialer.Dial("ws://"+host+"/ws", http.Header{"Origin": c.origin})
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if !isTraceID(resp.Header.Get("X-Trace-ID")) {
					t.Errorf("upgraded with trace id %q", resp.Header.Get("X-Trace-ID"))
				}
				return
			}
			if err == nil {
				conn.Close()
				t.Fatal("upgraded")
			}
			defer resp.Body.Close()
			var p problem
			if json.NewDecoder(resp.Body).Decode(&p) != nil || resp.StatusCode != http.StatusForbidden || p.Code != forbidden || p.TraceID != resp.Header.Get("X-Trace-ID") {
				t.Errorf("answered by %s, %+v", resp.Status, p)
			}
		})
	}
}

func TestRequestThatIsNoWebSocketIsAProblem(t *testing.T) {
	g := newGateway(t)
	for method, want := range map[string]int{"GET": http.StatusBadRequest, "POST": http.StatusBadRequest} {
		resp := g.do(t, method, "/ws", nil, "")
		if resp.status != want || resp.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", method, resp.status, resp.header)
		}
	}
}

func TestBodyThatDoesNotArriveTimesOut(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.body = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.http.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /whep/test HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 5000\r\n\r\nv=0\r\n")
	conn.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("answered by %s", resp.Status)
	}
}

func TestSocketsThatHaveNotJoinedAreLimited(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Viewers = 1 - unjoined })
	first := g.dial(t)
	first.say(map[string]any{"type": "ping"})
	first.hear("pong")
	c := g.dial(t)
	if e := c.hear("error"); e["code"] != "too-many-viewers" {
		t.Errorf("error %v", e)
	}
	if code, _ := c.closed(); code != 1013 {
		t.Errorf("closed with %d", code)
	}
}
