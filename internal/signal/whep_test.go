package signal

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

const (
	video = webrtc.RTPCodecTypeVideo
	audio = webrtc.RTPCodecTypeAudio
)

// response is an answer over HTTP, read to its end.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) problem(t *testing.T) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || r.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("no problem: %d %s %q", r.status, r.header.Get("Content-Type"), r.body)
	}
	if p.Status != r.status || p.TraceID == "" || p.TraceID != r.header.Get("X-Trace-ID") || p.Title == "" || p.Detail == "" {
		t.Errorf("problem %+v of a %d with trace %q", p, r.status, r.header.Get("X-Trace-ID"))
	}
	return p
}

func (g *gateway) do(t *testing.T, method, path string, header map[string]string, body string) response {
	t.Helper()
	r, err := http.NewRequest(method, g.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := g.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(text)}
}

func sdpBody() map[string]string      { return map[string]string{"Content-Type": "application/sdp"} }
func fragmentBody() map[string]string { return map[string]string{"Content-Type": fragmentType} }

// whep begins a WHEP session and returns its answer and location.
func (g *gateway) whep(t *testing.T, name string, p *peer, kinds ...webrtc.RTPCodecType) (response, string) {
	t.Helper()
	resp := g.do(t, "POST", "/whep/"+name, sdpBody(), p.offer(kinds...))
	if resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	p.accept(resp.body)
	return resp, resp.header.Get("Location")
}

func TestWHEPViewerWatchesUntilItDeletes(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) {
		c.ICE.Servers = []config.ICEServer{{URLs: []string{"stun:127.0.0.1:9"}}}
	})
	p := newPeer(t)
	resp, location := g.whep(t, "test", p, video, audio)
	if h := resp.header; h.Get("Content-Type") != "application/sdp" || !strings.HasPrefix(location, "/whep/test/") ||
		len(location) < len("/whep/test/")+26 || !strings.HasPrefix(h.Get("ETag"), `"`) || h.Get("Link") != `<stun:127.0.0.1:9>; rel="ice-server"` {
		t.Errorf("headers %v", h)
	}
	p.sees(video)
	p.sees(audio)
	if n := g.count(t, "gateway_sessions", "whep"); n != 1 {
		t.Errorf("%v sessions", n)
	}
	if resp := g.do(t, "DELETE", location, nil, ""); resp.status != http.StatusOK {
		t.Errorf("DELETE: %d", resp.status)
	}
	if resp := g.do(t, "DELETE", location, nil, ""); resp.status != http.StatusNotFound || resp.problem(t).Code != notFound {
		t.Errorf("second DELETE: %d", resp.status)
	}
	if n := g.count(t, "gateway_sessions", "whep"); n != 0 {
		t.Errorf("%v sessions stay", n)
	}
}

func TestWHEPViewerMayWantOneKindOnly(t *testing.T) {
	g := newGateway(t)
	for _, kind := range []webrtc.RTPCodecType{video, audio} {
		p := newPeer(t)
		_, location := g.whep(t, "test", p, kind)
		p.sees(kind)
		g.do(t, "DELETE", location, nil, "")
	}
}

func TestWHEPTricklesByPatch(t *testing.T) {
	g := newGateway(t)
	p := newPeer(t)
	offer := p.offer(video)
	var candidates, rest []string
	for line := range lines(offer) {
		if strings.HasPrefix(line, "a=candidate:") {
			candidates = append(candidates, line)
		} else if line != "" && line != "a=end-of-candidates" {
			rest = append(rest, line)
		}
	}
	resp := g.do(t, "POST", "/whep/test", sdpBody(), strings.Join(rest, "\r\n")+"\r\n")
	if resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	p.accept(resp.body)
	location, etag := resp.header.Get("Location"), resp.header.Get("ETag")
	frag := "a=ice-ufrag:" + remoteUfrag(offer) + "\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n" + strings.Join(candidates, "\r\n") + "\r\na=end-of-candidates\r\n"

	wrong := fragmentBody()
	wrong["If-Match"] = `"another"`
	if resp := g.do(t, "PATCH", location, wrong, frag); resp.status != http.StatusPreconditionFailed || resp.problem(t).Code != preconditionFailed {
		t.Errorf("PATCH with another ETag: %d", resp.status)
	}
	right := fragmentBody()
	right["If-Match"] = etag
	if resp := g.do(t, "PATCH", location, right, frag); resp.status != http.StatusNoContent || resp.header.Get("ETag") != etag {
		t.Errorf("PATCH: %d %s", resp.status, resp.body)
	}
	if resp := g.do(t, "PATCH", location, fragmentBody(), frag); resp.status != http.StatusNoContent {
		t.Errorf("PATCH without If-Match: %d %s", resp.status, resp.body)
	}
	if resp := g.do(t, "PATCH", location, fragmentBody(), "m=video 9 x 0\r\na=candidate:what\r\n"); resp.status != http.StatusBadRequest || resp.problem(t).Code != badCandidate {
		t.Errorf("PATCH with a candidate of garbage: %d %s", resp.status, resp.body)
	}
	if resp := g.do(t, "PATCH", location, fragmentBody(), "garbage"); resp.status != http.StatusBadRequest || resp.problem(t).Code != badSDP {
		t.Errorf("PATCH with garbage: %d %s", resp.status, resp.body)
	}
	if resp := g.do(t, "PATCH", location, sdpBody(), frag); resp.status != http.StatusUnsupportedMediaType || resp.header.Get("Accept-Patch") != fragmentType {
		t.Errorf("PATCH of a wrong type: %d", resp.status)
	}
	p.sees(video)
}

func TestWHEPRestartsICEByPatch(t *testing.T) {
	g := newGateway(t)
	p := newPeer(t)
	resp, location := g.whep(t, "test", p, video)
	p.sees(video)

	offer, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	p.await(gathered, "candidates")
	frag := answerFragment(p.pc.LocalDescription().SDP)

	if resp := g.do(t, "PATCH", location, fragmentBody(), frag); resp.status != http.StatusPreconditionRequired || resp.problem(t).Code != preconditionRequired {
		t.Errorf("restart without If-Match: %d", resp.status)
	}
	any := fragmentBody()
	any["If-Match"] = "*"
	patched := g.do(t, "PATCH", location, any, frag)
	if patched.status != http.StatusOK || patched.header.Get("ETag") == resp.header.Get("ETag") || patched.header.Get("Content-Type") != fragmentType {
		t.Fatalf("restart: %d %s", patched.status, patched.body)
	}
	theirs, err := parseFragment(patched.body)
	if err != nil || theirs.ufrag == remoteUfrag(resp.body) || len(theirs.candidates) == 0 {
		t.Fatalf("restart answered by %+v, %v", theirs, err)
	}
	answer := restartedOffer(resp.body, theirs) // what the client makes of it: the answer with new ICE lines
	p.accept(answer)
	for _, c := range theirs.candidates {
		if err := p.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: c.Candidate, SDPMid: c.SDPMid}); err != nil {
			t.Fatal(err)
		}
	}
	p.sees(video)
	if resp := g.do(t, "PATCH", location, any, "a=ice-ufrag:"+remoteUfrag(frag)+"\r\n"); resp.status != http.StatusPreconditionFailed {
		t.Errorf("If-Match: * without a restart: %d", resp.status)
	}
}

func TestWHEPRefuses(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.tracks = 200 * time.Millisecond })
	h264 := strings.ReplaceAll(someOffer, "VP8", "H264")
	sends := strings.NewReplacer("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n", "a=recvonly", "a=sendonly").Replace(someOffer)
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		body         string
		status       int
		code         code
		answered     string // header that must be there
	}{
		"an unknown stream":          {"POST", "/whep/nowhere", sdpBody(), someOffer, 404, notFound, ""},
		"a stream that leaves":       {"POST", "/whep/%2e%2e%2ftest", sdpBody(), someOffer, 404, notFound, ""},
		"no stream":                  {"POST", "/whep/", sdpBody(), someOffer, 404, notFound, ""},
		"GET":                        {"GET", "/whep/test", nil, "", 405, methodNotAllowed, "Allow"},
		"PUT":                        {"PUT", "/whep/test", sdpBody(), someOffer, 405, methodNotAllowed, "Allow"},
		"no type":                    {"POST", "/whep/test", nil, someOffer, 415, unsupportedType, "Accept-Post"},
		"a wrong type":               {"POST", "/whep/test", map[string]string{"Content-Type": "text/plain"}, someOffer, 415, unsupportedType, "Accept-Post"},
		"an empty offer":             {"POST", "/whep/test", sdpBody(), "", 400, badSDP, ""},
		"garbage":                    {"POST", "/whep/test", sdpBody(), "hello", 400, badSDP, ""},
		"garbage that looks like it": {"POST", "/whep/test", sdpBody(), "v=0\r\nm=video 9 x 96\r\na=rtpmap:96 VP8/90000\r\n", 400, badSDP, ""},
		"a huge offer":               {"POST", "/whep/test", sdpBody(), someOffer + strings.Repeat("a=x\r\n", 20000), 413, messageTooLarge, ""},
		"an offer that sends":        {"POST", "/whep/test", sdpBody(), sends, 422, notReceiving, ""},
		"no codec in common":         {"POST", "/whep/test", sdpBody(), h264, 406, codecUnsupported, ""},
		"an absent stream":           {"POST", "/whep/away", sdpBody(), someOffer, 503, streamAbsent, "Retry-After"},
		"an unknown session":         {"PATCH", "/whep/test/nobody", fragmentBody(), "a=end-of-candidates\r\n", 404, notFound, ""},
		"DELETE of nothing":          {"DELETE", "/whep/test/nobody", nil, "", 404, notFound, ""},
		"a foreign page":             {"POST", "/whep/test", map[string]string{"Content-Type": "application/sdp", "Origin": "https://evil.example"}, someOffer, 403, forbidden, "Vary"},
		"a foreign preflight":        {"OPTIONS", "/whep/test", map[string]string{"Origin": "https://evil.example"}, "", 403, forbidden, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp := g.do(t, c.method, c.path, c.header, c.body)
			if resp.status != c.status || resp.problem(t).Code != c.code {
				t.Fatalf("answered by %d %s", resp.status, resp.body)
			}
			if c.answered != "" && resp.header.Get(c.answered) == "" {
				t.Errorf("no %s in %v", c.answered, resp.header)
			}
			if c.code == forbidden && resp.header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a foreign page may read the answer")
			}
		})
	}
	if n := g.count(t, "gateway_sessions"); n != 0 {
		t.Errorf("%v sessions stay", n)
	}
}

// The id of a WebSocket session is no WHEP resource, nor is that of another stream.
func TestWHEPResourcesAreTheirOwn(t *testing.T) {
	g := newGateway(t)
	session := g.dial(t).join("test")["session"].(string)
	_, location := g.whep(t, "test", newPeer(t), video)
	for _, path := range []string{"/whep/test/" + session, strings.Replace(location, "/test/", "/h264/", 1), location + "/"} {
		if resp := g.do(t, "DELETE", path, nil, ""); resp.status != http.StatusNotFound {
			t.Errorf("DELETE %s: %d", path, resp.status)
		}
	}
	if resp := g.do(t, "GET", location, nil, ""); resp.status != http.StatusMethodNotAllowed || resp.header.Get("Allow") == "" {
		t.Errorf("GET of a session: %d", resp.status)
	}
}

func TestWHEPViewersAreLimited(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Viewers = 1 })
	g.whep(t, "test", newPeer(t), video)
	resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video))
	if resp.status != http.StatusServiceUnavailable || resp.problem(t).Code != tooManyViewers || resp.header.Get("Retry-After") == "" {
		t.Errorf("second viewer: %d %s", resp.status, resp.body)
	}
}

// Who may watch could otherwise fill the gateway with connections at any rate.
func TestWHEPSessionsBeginAtALimitedRate(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.JoinsPerAddress = 1 })
	for i := range 20 {
		resp := g.do(t, "POST", "/whep/nothing", sdpBody(), "v=0")
		if resp.status == http.StatusTooManyRequests {
			if resp.problem(t).Code != rateLimited || i < joinBurst {
				t.Errorf("request %d: %s", i, resp.body)
			}
			return
		}
	}
	t.Error("sessions begin at any rate")
}

// One address could otherwise take all places for viewers with offers, and keep them.
func TestWHEPSessionsThatAreNotConnectedAreFew(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.JoinsPerAddress = 50 })
	g.whep(t, "test", newPeer(t), video)
	awaited := func() (n int) {
		g.addresses.mu.Lock()
		defer g.addresses.mu.Unlock()
		for _, a := range g.addresses.known {
			n += a.waiting
		}
		return n
	}
	waiting := func(want int) {
		t.Helper()
		eventually(t, "as many connections as expected are waited for", func() bool { return awaited() == want })
	}
	waiting(0) // it is connected
	g.addresses.mu.Lock()
	g.addresses.joins = 1 // the rate is another test's: what this address may was taken before
	g.addresses.mu.Unlock()
	var last string
	for range joinBurst {
		resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video))
		if last = resp.header.Get("Location"); resp.status != http.StatusCreated {
			t.Fatalf("%d %s", resp.status, resp.body)
		}
	}
	resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video))
	if resp.status != http.StatusTooManyRequests || !strings.Contains(resp.body, "aren't connected yet") {
		t.Errorf("one more: %d %s", resp.status, resp.body)
	}
	g.do(t, "DELETE", last, nil, "")
	waiting(joinBurst - 1)
	g.whep(t, "test", newPeer(t), video)
	waiting(joinBurst - 1)

	// who finds no place isn't waited for either
	g.mu.Lock()
	g.conf.Limits.Viewers = 1
	g.mu.Unlock()
	if resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video)); resp.status != http.StatusServiceUnavailable {
		t.Errorf("without a place: %d %s", resp.status, resp.body)
	}
	if n := awaited(); n != joinBurst-1 {
		t.Errorf("%d are waited for, %d before", n, joinBurst-1)
	}
}

func TestWHEPSessionThatNeverConnectsEnds(t *testing.T) {
	g := newGateway(t, func(_ *config.Gateway, w *timing) { w.negotiate = 300 * time.Millisecond })
	resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video)) // and never takes the answer
	id := resp.header.Get("Location")[len("/whep/test/"):]
	if x := g.session(id); x != nil {
		select {
		case <-x.done:
		case <-time.After(patience):
			t.Fatal("the session stays")
		}
	}
	if n := g.count(t, "gateway_negotiation_timeouts_total", "whep"); n != 1 {
		t.Errorf("%v timeouts counted", n)
	}
}

func TestWHEPPreflight(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.HTTP.AllowedOrigins = []string{"https://kiosk.example"} })
	for path, accept := range map[string]string{"/whep/test": "Accept-Post", "/whep/test/any": "Accept-Patch"} {
		resp := g.do(t, "OPTIONS", path, map[string]string{"Origin": "https://kiosk.example", "Access-Control-Request-Method": "POST"}, "")
		h := resp.header
		if resp.status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://kiosk.example" || h.Get(accept) == "" ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "If-Match") || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", path, resp.status, h)
		}
	}
}
