package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/auth"
)

// house is a gateway that asks who everybody is, with the streams red and blue.
type house struct {
	*Gateway
	url string
}

const annasPassword = "correct horse"

var annasHash = sync.OnceValues(func() (string, error) { return auth.HashPassword(annasPassword) })

func newHouse(t *testing.T, conf string) *house {
	t.Helper()
	hash, err := annasHash()
	if err != nil {
		t.Fatal(err)
	}
	pipelines, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(pipelines, "red.yaml"), small)
	write(t, filepath.Join(pipelines, "blue.yaml"), strings.Replace(small, "red", "blue", 1))
	write(t, filepath.Join(pipelines, "bad.yaml"), "sauce: videotestsrc\n")
	write(t, filepath.Join(dir, "gateway.yaml"), "state: "+dir+"/state\nauth:\n  users:\n    anna:\n      password: "+hash+"\n      role: host\n      rooms: [red]\nrooms: {hall: {streams: [red]}}\n"+conf)
	return startHouse(t, dir, pipelines)
}

func startHouse(t *testing.T, dir, pipelines string) *house {
	t.Helper()
	settings, err := Load(filepath.Join(dir, "gateway.yaml"), pipelines, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{Settings: settings, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return &house{g, "http://" + g.Addr().String()}
}

func (h *house) token(t *testing.T, g *auth.Grant) string {
	t.Helper()
	token, err := h.auth.Issue(g, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// ask is do by a client that keeps no cookies.
func ask(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	return do(t, http.DefaultClient, method, url, body, header...)
}

// permissions is what each route takes: a request for each, and who may make it,
// of those in callers. A route that isn't here fails the test.
var permissions = map[string]struct {
	method, path, body string
	may                string
}{
	"/":            {"GET", "/", "", everyone},
	"GET /healthz": {"GET", "/healthz", "", everyone},
	"GET /readyz":  {"GET", "/readyz", "", everyone},
	"GET /metrics": {"GET", "/metrics", "", admins},
	"GET /ws":      {"GET", "/ws", "", everyone}, // who is asked to join with a grant: see signal
	"/whep/":       {"POST", "/whep/red", recvonly, ofRed},

	"/whip/": {"POST", "/whip/red", recvonly, "publisher host admin publisher-of-red host-of-red admin-of-red only-publish host-of-stream-red admin-of-stream-red admin-of-all-streams"},

	"/api/":                                        {"GET", "/api/nothing", "", anybody},
	"GET /api/session":                             {"GET", "/api/session", "", anybody},
	"POST /api/session":                            {"POST", "/api/session", `{"token": "wrong"}`, ""}, // what it takes is in its body
	"DELETE /api/session":                          {"DELETE", "/api/session", "", everyone},
	"POST /api/shares":                             {"POST", "/api/shares", `{"room": "red"}`, "host host-of-red admin admin-of-red admin-of-all-streams"},
	"POST /api/renewals":                           {"POST", "/api/renewals", `{"session": "of nobody"}`, anybody}, // what it takes is in its body
	"GET /api/revocations":                         {"GET", "/api/revocations", "", admins},
	"POST /api/revocations":                        {"POST", "/api/revocations", `{"subject": "nobody"}`, admins},
	"GET /api/streams":                             {"GET", "/api/streams", "", anybody},
	"GET /api/streams/{name}":                      {"GET", "/api/streams/red", "", redWatchers},
	"GET /api/streams/{name}/snapshot.jpg":         {"GET", "/api/streams/red/snapshot.jpg", "", redWatchers},
	"GET /api/streams/{name}/viewers":              {"GET", "/api/streams/red/viewers", "", hostsOfRed + " host-of-stream-red admin-of-stream-red"},
	"GET /api/rooms":                               {"GET", "/api/rooms", "", anybody},
	"GET /api/rooms/{room}":                        {"GET", "/api/rooms/red", "", anythingInRed},
	"POST /api/rooms/{room}/close":                 {"POST", "/api/rooms/nowhere/close", "", "host admin only-moderate admin-of-all-streams"},
	"POST /api/rooms/{room}/open":                  {"POST", "/api/rooms/hall/open", "", admins},
	"DELETE /api/rooms/{room}/participants/{user}": {"DELETE", "/api/rooms/red/participants/none", "", hostsOfRed},
	"POST /api/reload":                             {"POST", "/api/reload", "", admins},
	"GET /api/support":                             {"GET", "/api/support", "", admins},
}

const (
	everyone = "everyone"
	anybody  = "anybody" // with a grant
	admins   = "admin only-administer admin-of-all-streams"
	// who is let in to some streams doesn't moderate a room, nor administer the gateway
	hostsOfRed = "host host-of-red admin admin-of-red only-moderate admin-of-all-streams"
	// a grant of one stream of red, named red, reaches it too
	ofRed         = "viewer publisher host admin viewer-of-red publisher-of-red host-of-red admin-of-red only-watch viewer-of-stream-red host-of-stream-red admin-of-stream-red admin-of-all-streams"
	redWatchers   = ofRed + " viewer-of-hall" // which offers red
	anythingInRed = ofRed + " viewer-of-other-in-red only-publish only-relay only-control only-moderate only-administer viewer-of-stream-blue"
	recvonly      = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n" +
		"a=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\n" +
		"a=setup:actpass\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
)

// callers are all kinds of people, with a grant or none.
func callers() map[string]*auth.Grant {
	all := map[string]*auth.Grant{
		"viewer-of-stream-red":   {Role: auth.Viewer, Rooms: []string{"*"}, Streams: []string{"red"}},
		"viewer-of-stream-blue":  {Role: auth.Viewer, Rooms: []string{"*"}, Streams: []string{"blue"}},
		"host-of-stream-red":     {Role: auth.Host, Rooms: []string{"*"}, Streams: []string{"red"}},
		"admin-of-stream-red":    {Role: auth.Admin, Rooms: []string{"*"}, Streams: []string{"red"}},
		"admin-of-all-streams":   {Role: auth.Admin, Rooms: []string{"*"}, Streams: []string{"*"}},
		"viewer-of-other-in-red": {Role: auth.Viewer, Rooms: []string{"red"}, Streams: []string{"other"}},
		"viewer-of-hall":         {Role: auth.Viewer, Rooms: []string{"hall"}},
		"of-nothing":             {Role: auth.Admin, Can: []auth.Action{}, Rooms: []string{"*"}},
	}
	for _, role := range auth.Roles {
		all[string(role)] = &auth.Grant{Role: role, Rooms: []string{"*"}}
		all[string(role)+"-of-red"] = &auth.Grant{Role: role, Rooms: []string{"red"}}
		all[string(role)+"-of-blue"] = &auth.Grant{Role: role, Rooms: []string{"blue"}}
	}
	for _, action := range auth.Actions {
		all["only-"+string(action)] = &auth.Grant{Role: auth.Viewer, Can: []auth.Action{action}, Rooms: []string{"*"}}
	}
	return all
}

func TestEveryRouteTakesWhatItShould(t *testing.T) {
	h := newHouse(t, "")
	tokens := map[string]string{"nobody": "", "forger": "eyJhbGciOiJub25lIn0.e30.", "stranger": strings.Repeat("A", 43)}
	for name, grant := range callers() {
		tokens[name] = h.token(t, grant)
	}
	link, _, err := h.auth.Share(auth.Open(), &auth.Grant{Role: auth.Admin, Rooms: []string{"*"}}, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	tokens["bearer-of-a-link"] = link
	for _, r := range h.table() {
		p, ok := permissions[r.pattern]
		if !ok {
			t.Errorf("%s has no row in permissions: say who may, and to whom it is refused", r.pattern)
			continue
		}
		for caller, token := range tokens {
			var header []string
			if token != "" {
				header = []string{"Authorization", "Bearer " + token}
			}
			if p.body == recvonly {
				header = append(header, "Content-Type", "application/sdp")
			}
			answer, body := ask(t, p.method, h.url+p.path, p.body, header...)
			_, known := callers()[caller]
			want := http.StatusOK
			switch {
			case p.may == everyone, p.may == anybody && known, slices.Contains(strings.Fields(p.may), caller):
			case !known || p.may == "":
				want = http.StatusUnauthorized
			default:
				want = http.StatusForbidden
			}
			got := answer.StatusCode
			if got != http.StatusUnauthorized && got != http.StatusForbidden {
				got = http.StatusOK // admitted, whatever came of it
			}
			if got != want {
				t.Errorf("%s as %s: %s, want %d\n%s", r.pattern, caller, answer.Status, want, body)
			}
			if got == http.StatusOK {
				continue
			}
			var problem struct{ Code, TraceID string }
			if err := json.Unmarshal([]byte(body), &problem); err != nil || answer.Header.Get("Content-Type") != "application/problem+json" || problem.TraceID == "" ||
				problem.Code != map[int]string{401: "unauthorized", 403: "forbidden"}[got] {
				t.Errorf("%s as %s: %s %s", r.pattern, caller, answer.Header.Get("Content-Type"), body)
			}
			if challenge := answer.Header.Get("WWW-Authenticate"); (got == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Bearer") {
				t.Errorf("%s as %s: WWW-Authenticate %q with %s", r.pattern, caller, challenge, answer.Status)
			}
			if token != "" && strings.Contains(body, token) {
				t.Errorf("%s as %s: the answer repeats the token", r.pattern, caller)
			}
		}
	}
	for pattern := range permissions {
		if !slices.ContainsFunc(h.table(), func(r row) bool { return r.pattern == pattern }) {
			t.Errorf("%s is in permissions, and isn't served", pattern)
		}
	}
}

func TestOddRequestsAreNoWayAround(t *testing.T) {
	h := newHouse(t, "")
	addr := strings.TrimPrefix(h.url, "http://")
	for _, line := range []string{
		"GET //metrics", "GET /./metrics", "GET /x/../metrics", "GET /%6detrics", "GET /metrics/", "GET /METRICS", "GET /metrics%00", "GET /metrics;x", "GET /metrics?token=" + h.auth.AdminToken(),
		"GET http://" + addr + "/metrics", "GET http://localhost//api/streams", "HEAD /metrics", "OPTIONS /metrics", "POST /metrics", "PROPFIND /api/streams",
		"GET /api/streams/red%2f..%2fblue", "GET /api/streams/", "GET /api/streams//", "GET /api/streams/.", "GET /api/streams/%2e%2e", "GET /api/streams/%2A", "GET /api/streams/*",
		"GET /api/streams/red/viewers/", "HEAD /api/streams/red", "POST /api/reload/", "PUT /api/reload", "GET /whep/../metrics", "GET /healthz/../metrics", "GET /healthz/metrics", "GET /readyz%2f..%2fmetrics",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /metrics\r\nX-HTTP-Method-Override: GET\r\n\r\n", line, addr)
		answer, err := io.ReadAll(c)
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		text := string(answer)
		status, _, _ := strings.Cut(strings.TrimPrefix(text, "HTTP/1.1 "), " ")
		if strings.HasPrefix(status, "2") && !strings.Contains(text, "text/html") || strings.Contains(text, "gateway_build_info") || strings.Contains(text, `"tracks"`) {
			t.Errorf("%s: %s", line, text)
		}
	}
}

// What has no row isn't served, and a row that says nothing is served to nobody.
func TestNothingIsServedByDefault(t *testing.T) {
	h := newHouse(t, "")
	secret := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") })
	mux := h.served([]row{{pattern: "GET /forgotten", handler: secret}})
	for path, want := range map[string]int{"/forgotten": http.StatusForbidden, "/elsewhere": http.StatusNotFound} {
		r, err := http.NewRequest(http.MethodGet, h.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+h.auth.AdminToken())
		w := newRecorder()
		mux.ServeHTTP(w, r)
		if w.status != want || strings.Contains(w.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.status, w)
		}
	}
}

type recorder struct {
	bytes.Buffer
	header http.Header
	status int
}

func newRecorder() *recorder { return &recorder{header: http.Header{}, status: http.StatusOK} }

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

func TestListsShowWhatMayBeWatched(t *testing.T) {
	h := newHouse(t, "")
	for caller, want := range map[string]string{
		"admin": "blue red problems", "viewer": "blue red", "viewer-of-red": "red", "admin-of-blue": "blue", "viewer-of-stream-red": "red", "viewer-of-hall": "red", "only-publish": "", "of-nothing": "",
	} {
		_, body := ask(t, "GET", h.url+"/api/streams", "", "Authorization", "Bearer "+h.token(t, callers()[caller]))
		var list struct {
			Streams  []struct{ Name string }
			Problems []string
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range list.Streams {
			got = append(got, s.Name)
		}
		if len(list.Problems) > 0 {
			got = append(got, "problems")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s sees %v, want %s", caller, got, want)
		}
	}
	for caller, want := range map[string]bool{"admin": true, "host": false, "viewer-of-red": false} {
		_, body := ask(t, "GET", h.url+"/api/streams/red", "", "Authorization", "Bearer "+h.token(t, callers()[caller]))
		if got := strings.Contains(body, "videotestsrc"); got != want {
			t.Errorf("%s sees how the stream is made: %v\n%s", caller, got, body)
		}
	}
}

func TestModeNoneAsksNobody(t *testing.T) {
	url, _ := start(t, map[string]string{"red.yaml": small})
	for _, x := range [][3]string{{"GET", "/metrics", ""}, {"POST", "/api/reload", ""}, {"GET", "/api/streams/red", ""}, {"POST", "/api/session", `{"token": "x"}`}} {
		if answer, body := ask(t, x[0], url+x[1], x[2]); answer.StatusCode >= 300 {
			t.Errorf("%v: %s %s", x, answer.Status, body)
		}
	}
	_, body := ask(t, "GET", url+"/api/session", "")
	var who struct {
		Role string
		Open bool
	}
	if err := json.Unmarshal([]byte(body), &who); err != nil || who.Role != "admin" || !who.Open {
		t.Errorf("%s %v", body, err)
	}
}

func TestTokensAreMadeOnTheCommandLine(t *testing.T) {
	h := newHouse(t, "")
	settings := Settings{conf: h.conf}
	make := func(o TokenOptions, in string) string {
		t.Helper()
		if o.TTL == 0 {
			o.TTL = time.Hour
		}
		var out, notes bytes.Buffer
		if err := settings.Token(o, strings.NewReader(in), &out, &notes); err != nil {
			t.Fatal(err)
		}
		if !o.Hash && !strings.Contains(notes.String(), h.conf.State) {
			t.Errorf("notes %q", &notes)
		}
		return strings.TrimSpace(out.String())
	}
	token := make(TokenOptions{Role: "host", Rooms: []string{"red"}, Name: "Anna"}, "")
	if g, err := h.auth.Authenticate(t.Context(), token); err != nil || g.Role != auth.Host || g.Name != "Anna" || !g.May(auth.Moderate, "red", "") || g.May(auth.Watch, "blue", "") {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := h.auth.Authenticate(t.Context(), make(TokenOptions{Role: "viewer", Streams: []string{"blue"}}, "")); err != nil || !g.May(auth.Watch, "any", "blue") || g.May(auth.Watch, "any", "red") {
		t.Errorf("%+v, %v", g, err)
	}
	if got := make(TokenOptions{Admin: true}, ""); got != h.auth.AdminToken() {
		t.Errorf("admin %q", got)
	}
	link := make(TokenOptions{Role: "viewer", Rooms: []string{"red"}, Once: true, Link: true}, "")
	address, once, _ := strings.Cut(link, "#token=")
	if !strings.HasSuffix(address, "/room/red") || !h.auth.IsLink(once) {
		t.Errorf("link %q", link)
	}
	if got := make(TokenOptions{Role: "viewer", Rooms: []string{"r*"}, Link: true}, ""); !strings.Contains(got, "/#token=") {
		t.Errorf("link %q", got)
	}
	if got := make(TokenOptions{Hash: true}, "correct horse\n"); !strings.HasPrefix(got, "$argon2id$") {
		t.Errorf("hash %q", got)
	}
}
