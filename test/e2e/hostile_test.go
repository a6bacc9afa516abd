package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

const testPipeline = "source: videotestsrc is-live=true pattern=ball\nlinger: 0s\nvideo:\n  codec: h264\n  width: 320\n  height: 180\n  framerate: 30\n  bitrate: 500k\n"

// undisturbed watches a stream while a test does its worst, and checks at the end
// that no frame was missed.
func undisturbed(ctx context.Context, t *testing.T, g *rig.Gateway, name string) {
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/" + name), Codecs: []media.Codec{media.H264}})
	rig.Check(t, err)
	rig.Check(t, v.WaitKeyframe(ctx))
	begun, before := time.Now(), v.Seen()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := rig.Until(ctx, "another viewer's frames", func() (bool, error) {
			return v.Seen().Frames > before.Frames+60, nil
		}); err != nil {
			t.Error(err)
		}
		after, took := v.Seen(), time.Since(begun)
		t.Logf("the other viewer: %d frames in %s, %d packets lost", after.Frames-before.Frames, took.Round(time.Millisecond), after.Lost)
		if want := int(took.Seconds() * 30 * 0.8); after.Frames-before.Frames < want {
			t.Errorf("another viewer got %d frames in %s, want %d", after.Frames-before.Frames, took, want)
		}
		if after.Lost > 0 {
			t.Errorf("another viewer lost %d packets", after.Lost)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

// talk is one WebSocket to the gateway.
type talk struct {
	t    *testing.T
	conn *websocket.Conn
}

// said is a message of the gateway, as far as these tests read it.
type said struct {
	Type, Code, Message, TraceID, RequestID, SDP, Session, Reason string
	Fatal                                                         bool
}

func dial(ctx context.Context, t *testing.T, g *rig.Gateway) *talk {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(g.URL("/ws"), "http:", "ws:", 1), nil)
	rig.Check(t, err)
	t.Cleanup(func() { conn.Close() })
	return &talk{t, conn}
}

func (c *talk) send(message string) {
	c.t.Helper()
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		c.t.Logf("send: %v", err) // it may have closed already
	}
}

// until reads until a message of one of the types.
func (c *talk) until(kinds ...string) said {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		var m said
		if err := c.conn.ReadJSON(&m); err != nil {
			c.t.Fatalf("wait for %q: %v", kinds, err)
		}
		if slices.Contains(kinds, m.Type) {
			return m
		}
	}
}

// refuses sends a message and expects an error with a code.
func (c *talk) refuses(message, code string, fatal bool) {
	c.t.Helper()
	c.send(message)
	m := c.until("error")
	if m.Code != code || m.Fatal != fatal {
		c.t.Errorf("%.80s: refused with %q fatal=%t (%s), want %q fatal=%t", message, m.Code, m.Fatal, m.Message, code, fatal)
	}
	if m.Message == "" || m.TraceID == "" {
		c.t.Errorf("%.80s: the error lacks a message or a trace id: %+v", message, m)
	}
	if fatal {
		c.closed()
	}
}

// closed expects that the gateway closes the socket.
func (c *talk) closed() error {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		_, _, err := c.conn.ReadMessage()
		var closing *websocket.CloseError
		switch {
		case err == nil:
		case errors.As(err, &closing), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "reset by peer"):
			return err
		default:
			c.t.Errorf("the socket stays open: %v", err)
			return err
		}
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Config: "room: {departure_timeout: 1s}\n", Pipelines: map[string]string{"test": testPipeline}})
	undisturbed(ctx, t, g, "test")
	const join = `{"type":"join","roomId":"test","version":1}`

	t.Run("before join", func(t *testing.T) {
		c := dial(ctx, t, g)
		c.refuses(`not json`, "bad-message", false)
		c.refuses(`{"type":"dance"}`, "bad-message", false)
		c.refuses(`{"type":"join","roomId":"test","version":1,"colour":"red"}`, "bad-message", false)
		c.refuses(`{"type":"join","roomId":7,"version":1}`, "bad-message", false)
		c.refuses(`{"type":"join"}{"type":"join"}`, "bad-message", false)
		c.refuses(`[1,2,3]`, "bad-message", false)
		c.refuses(`{"type":"answer","sdp":"v=0"}`, "bad-state", false)
		c.send(join)
		c.until("joined") // what went wrong before is forgiven
		c.refuses(join, "bad-state", false)
	})
	t.Run("answers and candidates", func(t *testing.T) {
		c := dial(ctx, t, g)
		c.send(join)
		c.until("offer")
		c.refuses(`{"type":"answer","sdp":"garbage"}`, "bad-sdp", false)
		c.refuses(`{"type":"answer","sdp":"`+strings.Repeat(`v=0\r\n`, 2000)+`"}`, "bad-sdp", false)
		c.refuses(`{"type":"ice-candidate","candidate":{"candidate":"candidate:garbage","sdpMid":"0","sdpMLineIndex":0}}`, "bad-candidate", false)
		c.send(`{"type":"leave"}`)
		c.until("left")
		c.closed()
	})
	for _, refused := range []struct{ name, message, code string }{
		{"unknown room", `{"type":"join","roomId":"nowhere","version":1}`, "not-found"},
		{"room that leaves the folder", `{"type":"join","roomId":"../test","version":1}`, ""},
		{"version", `{"type":"join","roomId":"test","version":2}`, "unsupported-version"},
		{"codecs", `{"type":"join","roomId":"test","version":1,"codecs":{"video":["video/H265"]}}`, "codec-unsupported"},
	} {
		t.Run(refused.name, func(t *testing.T) {
			c := dial(ctx, t, g)
			if refused.code == "" {
				c.send(refused.message)
				if m := c.until("error"); m.Code != "bad-message" && m.Code != "not-found" {
					t.Errorf("refused with %q", m.Code)
				}
				return
			}
			c.refuses(refused.message, refused.code, true)
		})
	}
	t.Run("too large", func(t *testing.T) {
		c := dial(ctx, t, g)
		c.send(`{"type":"join","roomId":"` + strings.Repeat("x", 70<<10) + `","version":1}`)
		if err := c.closed(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
			t.Errorf("closed with %v, want 1009", err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		c := dial(ctx, t, g)
		c.send(join)
		for range 300 {
			if c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`)) != nil {
				break
			}
		}
		if m := c.until("error"); m.Code != "rate-limited" || !m.Fatal {
			t.Errorf("refused with %+v", m)
		}
		c.closed()
	})
	t.Run("ten bad ones close the session", func(t *testing.T) {
		c := dial(ctx, t, g)
		c.send(join)
		for range 12 {
			c.send(`nonsense`)
		}
		c.closed()
	})
	t.Run("another site", func(t *testing.T) {
		_, resp, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(g.URL("/ws"), "http:", "ws:", 1), http.Header{"Origin": {"https://evil.example"}})
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("a foreign page's socket: %v, %v; want 403", resp, err)
		}
	})
	rig.Check(t, rig.Until(ctx, "the sessions to end", func() (bool, error) {
		s, err := g.Stream(ctx, "test")
		return err == nil && s.Viewers == 1, err
	}))
}

func TestBadRequestsAreRefused(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}})
	undisturbed(ctx, t, g, "test")
	const sendonly = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n" +
		"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=setup:actpass\r\n"
	for _, c := range []struct {
		name, method, path, contentType, body string
		status                                int
	}{
		{"garbage", "POST", "/whep/test", "application/sdp", "garbage", 400},
		{"empty", "POST", "/whep/test", "application/sdp", "", 400},
		{"many lines of nothing", "POST", "/whep/test", "application/sdp", strings.Repeat("a=b\r\n", 10000), 400},
		{"sends", "POST", "/whep/test", "application/sdp", sendonly, 422},
		{"wrong type", "POST", "/whep/test", "text/plain", "v=0", 415},
		{"too large", "POST", "/whep/test", "application/sdp", strings.Repeat("x", 70<<10), 413},
		{"unknown stream", "POST", "/whep/nowhere", "application/sdp", sendonly, 404},
		{"wrong method", "PUT", "/whep/test", "application/sdp", "v=0", 405},
		{"unknown session", "DELETE", "/whep/test/0123", "", "", 404},
		{"trickle to an unknown session", "PATCH", "/whep/test/0123", "application/trickle-ice-sdpfrag", "a=b\r\n", 404},
		{"unknown stream of the API", "GET", "/api/streams/nowhere", "", "", 404},
		{"a path that leaves the folder", "GET", "/api/streams/..%2f..%2fetc%2fpasswd", "", "", 403},
		{"page of an unknown stream", "GET", "/watch/nowhere", "", "", 0},
		{"asset that leaves the folder", "GET", "/assets/..%2f..%2fgo.mod", "", "", 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(ctx, c.method, g.URL(c.path), strings.NewReader(c.body))
			rig.Check(t, err)
			if c.contentType != "" {
				req.Header.Set("Content-Type", c.contentType)
			}
			const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
			req.Header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
			resp, err := http.DefaultClient.Do(req)
			rig.Check(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			rig.Check(t, err)
			if resp.StatusCode != c.status && c.status != 0 {
				t.Errorf("status %d, want %d: %.200s", resp.StatusCode, c.status, body)
			}
			if got := resp.Header.Get("X-Trace-ID"); got != trace {
				t.Errorf("X-Trace-ID is %q, want the request's", got)
			}
			if c.status >= 400 && strings.HasPrefix(c.path, "/whep/") {
				var problem struct{ Title, Detail, Code, TraceID string }
				if err := json.NewDecoder(bytes.NewReader(body)).Decode(&problem); err != nil || problem.Title == "" || problem.TraceID != trace {
					t.Errorf("no problem+json with title and trace id: %s", body)
				}
				if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("content type %q", got)
				}
			}
		})
	}
}

// TestBadPipelineFilesLeaveTheGoodOnes starts with broken files beside a good one:
// each fault is told with its place, and the good one plays.
func TestBadPipelineFilesLeaveTheGoodOnes(t *testing.T) {
	ctx := bounded(t, time.Minute)
	bad := map[string]string{
		"tab":      "source:\tvideotestsrc\n\tvideo: {}\n",
		"unknown":  "source: videotestsrc\nvidoe:\n  codec: h264\n",
		"codec":    "source: videotestsrc\nvideo:\n  codec: h262\n",
		"negative": "source: videotestsrc\nvideo:\n  width: -3\n  height: 0\n",
		"element":  "source: nosuchsrc\nvideo:\n  codec: h264\n",
		"list":     "- a\n- b\n",
		"alias":    "a: &a [*a, *a]\n",
		"empty":    "",
	}
	pipelines := map[string]string{"test": testPipeline}
	for name, text := range bad {
		pipelines[name] = text
	}
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: pipelines})
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/test"), Codecs: []media.Codec{media.H264}})
	rig.Check(t, err)
	defer v.Close()
	rig.Check(t, v.WaitKeyframe(ctx))
	for name := range bad {
		told := strings.Contains(g.Log(), name+".yaml:")
		if s, err := g.Stream(ctx, name); err == nil {
			told = told || s.Reason != "" || s.LastError != ""
			if s.State == "live" {
				t.Errorf("%s.yaml plays: %s", name, bad[name])
			}
		}
		if !told {
			t.Errorf("nothing tells what is wrong with %s.yaml", name)
		}
	}
	if status, _, err := g.Get(ctx, "/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("healthz: %d, %v", status, err)
	}
}
