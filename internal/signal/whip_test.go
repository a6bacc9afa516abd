package signal

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/auth"
	"gateway/internal/config"
)

// whip publishes over WHIP.
func (g *gateway) whip(t *testing.T, path string, s *studio) (response, string) {
	t.Helper()
	resp := g.do(t, "POST", "/whip/"+path, sdpBody(), s.offer(nil))
	if resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	s.accept(resp.body)
	return resp, resp.header.Get("Location")
}

// What a WHIP client publishes comes out at a WHEP viewer, bit by bit.
func TestWHIPReachesWHEPViewers(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) {
		c.ICE.Servers = []config.ICEServer{{URLs: []string{"stun:127.0.0.1:9"}}}
		c.Limits.Rooms = 1
	})
	s := newStudio(t)
	s.video("video")
	s.audio("audio")
	resp, location := g.whip(t, "obs", s)
	if h := resp.header; h.Get("Content-Type") != "application/sdp" || !strings.HasPrefix(location, "/whip/obs/") ||
		!strings.HasPrefix(h.Get("ETag"), `"`) || h.Get("Link") != `<stun:127.0.0.1:9>; rel="ice-server"` || h.Get("Accept-Patch") != fragmentType {
		t.Errorf("headers %v", h)
	}
	p := newPeer(t)
	var mu sync.Mutex
	got := map[uint16][]byte{} // a probe for bandwidth sends some of them again
	begin := -1
	enough := make(chan struct{}, 1)
	p.reads = func(kind webrtc.RTPCodecType, packet *rtp.Packet) {
		if kind != video {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if begin < 0 {
			begin = int(packet.SequenceNumber)
		}
		got[packet.SequenceNumber] = bytes.Clone(packet.Payload)
		if len(got) == 220 {
			poke(enough)
		}
	}
	g.whep(t, "obs", p, video, audio)
	p.sees(audio)
	p.await(enough, "220 packets of video")
	mu.Lock()
	defer mu.Unlock()
	first := binary.BigEndian.Uint32(got[uint16(begin)][20:])
	for i := range 200 {
		n, second := first+uint32(i/2), i%2 == 1
		payload := got[uint16(begin+i)]
		if !bytes.Equal(payload, shot(n, second, true)) && (i == 0 || !bytes.Equal(payload, shot(n, second, false))) {
			t.Fatalf("packet %d is % x", i, payload)
		}
	}
	if resp := g.do(t, "DELETE", location, nil, ""); resp.status != http.StatusOK {
		t.Errorf("DELETE: %d", resp.status)
	}
	until(t, "the viewer was told", func() bool { return g.count(t, "gateway_sessions") == 0 })
	if resp := g.do(t, "POST", "/whep/obs", sdpBody(), newPeer(t).offer(video)); resp.status != http.StatusNotFound {
		t.Errorf("a viewer of what was published is answered with %d", resp.status)
	}
}

// A client trickles and restarts ICE by PATCH, as RFC 9725 §4.3 has it.
func TestWHIPTricklesAndRestarts(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Rooms = 1 })
	s := newStudio(t)
	s.video("video")
	var candidates, rest []string
	for line := range lines(s.offer(nil)) {
		if strings.HasPrefix(line, "a=candidate:") {
			candidates = append(candidates, line)
		} else if line != "" && line != "a=end-of-candidates" {
			rest = append(rest, line)
		}
	}
	resp := g.do(t, "POST", "/whip/obs", sdpBody(), strings.Join(rest, "\r\n")+"\r\n")
	if resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	location, etag := resp.header.Get("Location"), resp.header.Get("ETag")
	s.accept(resp.body)
	ufrag, pwd := value(rest, "a=ice-ufrag:"), value(rest, "a=ice-pwd:")
	patch := func(ufrag, pwd, match string, lines ...string) response {
		header := fragmentBody()
		if match != "" {
			header["If-Match"] = match
		}
		body := "a=ice-ufrag:" + ufrag + "\r\na=ice-pwd:" + pwd + "\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" + strings.Join(lines, "\r\n") + "\r\n"
		return g.do(t, "PATCH", location, header, body)
	}
	if resp := patch(ufrag, pwd, etag, candidates...); resp.status != http.StatusNoContent {
		t.Fatalf("PATCH: %d %s", resp.status, resp.body)
	}
	select {
	case <-s.ready:
	case <-time.After(patience):
		t.Fatal("no connection")
	}
	if resp := patch("newufrag", "newpasswordnewpassword12", "*"); resp.status != http.StatusOK || resp.header.Get("ETag") == etag ||
		!strings.Contains(resp.body, "a=ice-ufrag:") {
		t.Errorf("restart: %d %v %s", resp.status, resp.header, resp.body)
	}
	if resp := patch("newufrag", "newpasswordnewpassword12", etag, candidates...); resp.status != http.StatusPreconditionFailed {
		t.Errorf("the old ETag: %d", resp.status)
	}
}

func value(lines []string, prefix string) string {
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, prefix); ok {
			return v
		}
	}
	return ""
}

// Who publishes again takes the place of his own session, nobody else's.
func TestWHIPClientThatComesAgainTakesItsPlace(t *testing.T) {
	g := newRoomGateway(t)
	bearer := func(token string) map[string]string {
		return map[string]string{"Content-Type": "application/sdp", "Authorization": "Bearer " + token}
	}
	post := func(token string) response {
		s := newStudio(t)
		s.video("video")
		return g.do(t, "POST", "/whip/hall/obs", bearer(token), s.offer(nil))
	}
	first := post("publisher")
	if first.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", first.status, first.body)
	}
	if resp := post("host"); resp.status != http.StatusConflict || resp.problem(t).Code != nameTaken {
		t.Errorf("another's: %d %s", resp.status, resp.body)
	}
	if resp := post("viewer"); resp.status != http.StatusForbidden {
		t.Errorf("a viewer: %d %s", resp.status, resp.body)
	}
	if resp := post("nobody"); resp.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d %s", resp.status, resp.body)
	}
	second := post("publisher")
	if second.status != http.StatusCreated {
		t.Fatalf("again: %d %s", second.status, second.body)
	}
	if resp := g.do(t, "DELETE", first.header.Get("Location"), bearer("publisher"), ""); resp.status != http.StatusNotFound {
		t.Errorf("the first session is still there: %d", resp.status)
	}
	if n := g.count(t, "gateway_sessions", "whip"); n != 1 {
		t.Errorf("%v sessions", n)
	}

	// several at the same time: one is left
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { post("publisher") })
	}
	wait.Wait()
	until(t, "one session is left", func() bool { return g.count(t, "gateway_sessions", "whip") == 1 })
	if o, err := g.rooms.Offer("hall", "obs", g.auth.(tokens)["viewer"]); err != nil || o.Publisher == "" {
		t.Errorf("its stream: %+v, %v", o, err)
	}
}

// A WHIP client that may not publish any more has nothing to stay for.
func TestWHIPEndsWithThePermission(t *testing.T) {
	g := newRoomGateway(t)
	host, joined := g.as(t, "host", "hall")
	s := newStudio(t)
	s.video("video")
	if resp := g.do(t, "POST", "/whip/hall/obs", map[string]string{"Content-Type": "application/sdp", "Authorization": "Bearer publisher"}, s.offer(nil)); resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	user := host.hear("participant-joined")["participant"].(map[string]any)["userId"]
	if user == joined["userId"] {
		t.Fatal("the host heard of himself")
	}
	host.say(map[string]any{"type": "set-role", "target": user, "role": "viewer"})
	until(t, "the session has ended", func() bool { return g.count(t, "gateway_sessions", "whip") == 0 })
	for m := host.hear("participant-left"); m["participant"].(map[string]any)["userId"] != user; m = host.hear("participant-left") {
	}
}

func TestWHIPRefuses(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Rooms = 1 })
	for _, c := range []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
	}{
		{"GET", "GET", "/whip/obs", "", nil, http.StatusMethodNotAllowed},
		{"another type", "POST", "/whip/obs", "v=0", map[string]string{"Content-Type": "text/plain"}, http.StatusUnsupportedMediaType},
		{"no SDP", "POST", "/whip/obs", "hello", sdpBody(), http.StatusBadRequest},
		{"who only receives", "POST", "/whip/obs", newPeer(t).offer(video), sdpBody(), http.StatusBadRequest},
		{"a pipeline's name", "POST", "/whip/test", publishing(t), sdpBody(), http.StatusConflict},
		{"a bad name", "POST", "/whip/obs/..%2F..", publishing(t), sdpBody(), http.StatusMethodNotAllowed}, // three parts are a Location
		{"another bad name", "POST", "/whip/obs/a%20b", publishing(t), sdpBody(), http.StatusBadRequest},
		{"a foreign page", "POST", "/whip/obs", "", map[string]string{"Origin": "https://evil.example"}, http.StatusForbidden},
		{"no session", "DELETE", "/whip/obs/unknown", "", nil, http.StatusNotFound},
	} {
		resp := g.do(t, c.method, c.path, c.header, c.body)
		if resp.status != c.status {
			t.Errorf("%s: %d %s", c.name, resp.status, resp.body)
		} else {
			resp.problem(t)
		}
	}
	if resp := g.do(t, "OPTIONS", "/whip/obs", map[string]string{"Origin": g.http.URL}, ""); resp.status != http.StatusNoContent ||
		!strings.Contains(resp.header.Get("Access-Control-Allow-Methods"), "POST") || resp.header.Get("Accept-Post") != sdpType {
		t.Errorf("preflight: %d %v", resp.status, resp.header)
	}
	until(t, "all is released", func() bool { return g.count(t, "gateway_sessions") == 0 })
}

// Who may not publish was let into the room, and made it, before he was refused: each of a
// viewer's requests told everybody that somebody came and went.
func TestWHIPDisturbsNobodyWithWhatIsRefused(t *testing.T) {
	g := newRoomGateway(t, tokens{"maker": {Role: auth.Viewer, Rooms: []string{"*"}, Create: true}})
	host, _ := g.as(t, "host", "house")
	for _, path := range []string{"/whip/house", "/whip/house/cam", "/whip/new"} {
		resp := g.do(t, "POST", path, map[string]string{"Content-Type": "application/sdp", "Authorization": "Bearer maker"}, publishing(t))
		if resp.status != http.StatusForbidden || resp.problem(t).Code != forbidden {
			t.Errorf("%s: %d %s", path, resp.status, resp.body)
		}
	}
	_, j := g.as(t, "publisher", "house")
	if f := host.hear("participant-joined")["participant"].(map[string]any); f["userId"] != j["userId"] {
		t.Errorf("the host heard of %v", f)
	}
	if _, _, err := g.rooms.Room("new", auth.Open()); err == nil {
		t.Error("the room was made")
	}
}
