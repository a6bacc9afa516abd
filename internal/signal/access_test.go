package signal

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/internal/auth"
)

// everybody is an authority that lets everybody do everything.
type everybody struct{}

func (everybody) Authenticate(context.Context, string) (*auth.Grant, error) { return auth.Open(), nil }
func (everybody) FromRequest(*http.Request) (*auth.Grant, error)            { return auth.Open(), nil }
func (everybody) Revoked(*auth.Grant) bool                                  { return false }

// permissions is what each message of a client takes of who has joined, "" nothing, on a stream where
// it is about one, and one of its kind. A message to or about a participant has a row for another, and
// one about somebody a row for oneself. What isn't here fails the test.
var permissions = map[string]struct {
	action auth.Action
	stream string
	fields map[string]any
}{
	"watch":                    {auth.Watch, "test", map[string]any{"stream": "test"}},
	"unwatch":                  {"", "", map[string]any{"stream": "test"}},
	"answer":                   {"", "", map[string]any{"sdp": "v=0"}},
	"ice-candidate":            {"", "", map[string]any{"candidate": nil}},
	"ice-candidate to publish": {"", "", map[string]any{"candidate": nil, "connection": "publish"}},
	"restart-ice":              {"", "", nil},
	"select":                   {"", "", map[string]any{"rendition": "auto"}},
	"report":                   {"", "", map[string]any{"firstFrameMs": 1}},
	"view":                     {"", "", map[string]any{"width": 1, "height": 1, "visible": true}},
	"observe":                  {"", "", map[string]any{"on": false}},
	"open-data":                {auth.Relay, "", nil},
	"unpublish":                {"", "", map[string]any{"stream": "nothing"}},
	"offer":                    {auth.Publish, "USERID-camera", map[string]any{"sdp": "v=0"}},
	"offer of no streams":      {auth.Publish, "", map[string]any{"sdp": "v=0", "streams": []any{}}},
	"offer to another":         {auth.Relay, "", map[string]any{"sdp": "v=0", "target": another}},
	"answer to another":        {auth.Relay, "", map[string]any{"sdp": "v=0", "target": another}},
	"ice-candidate to another": {auth.Relay, "", map[string]any{"candidate": nil, "target": another}},
	"message":                  {auth.Relay, "", map[string]any{"data": 1}},
	"message to another":       {auth.Relay, "", map[string]any{"data": 1, "target": another}},
	"mute of another":          {auth.Moderate, "", map[string]any{"target": another, "kind": "audio", "on": true}},
	"mute of oneself":          {"", "", map[string]any{"target": oneself, "kind": "audio", "on": true}},
	"set-role of another":      {auth.Moderate, "", map[string]any{"target": another, "role": "viewer"}},
	"set-role of oneself":      {auth.Moderate, "", map[string]any{"target": oneself, "role": "viewer"}},
	"token":                    {"", "", map[string]any{"token": "wrong"}},
	"ping":                     {"", "", nil},
	"lock":                     {auth.Moderate, "", map[string]any{"on": false}},
	"move of another":          {auth.Moderate, "", map[string]any{"target": another, "to": "hall"}},
	"move of oneself":          {auth.Moderate, "", map[string]any{"target": oneself, "to": "hall"}},
	"remove of another":        {auth.Moderate, "", map[string]any{"target": another}},
	"remove of oneself":        {auth.Moderate, "", map[string]any{"target": oneself}},
	"close-room":               {auth.Moderate, "", nil},
	"join":                     {"", "", map[string]any{"roomId": "house"}},
	"leave":                    {"", "", nil},
}

// These stand for a userId.
const (
	another = "ANOTHER"
	oneself = "ONESELF"
)

// sayable is everything that a client may say, as permissions names it.
func sayable() (all []string) {
	for kind, f := range requests {
		switch {
		case slices.Contains(f.must, "target"):
			all = append(all, kind+" of another", kind+" of oneself")
		case relays[kind], kind == "message":
			all = append(all, kind, kind+" to another")
		default:
			all = append(all, kind)
		}
	}
	return all
}

// callers are all kinds of people who may do something in the room house.
func callers() map[string]*auth.Grant {
	all := map[string]*auth.Grant{
		"watches h264 alone":     {Role: auth.Viewer, Rooms: []string{"house"}, Streams: []string{"h264"}},
		"hosts h264 alone":       {Role: auth.Host, Rooms: []string{"house", "hall"}, Streams: []string{"h264"}},
		"administers h264 alone": {Role: auth.Admin, Rooms: []string{"*"}, Streams: []string{"h264"}},
	}
	for _, role := range auth.Roles {
		all[string(role)] = &auth.Grant{Role: role, Rooms: []string{"house", "hall"}}
		all[string(role)+" elsewhere, viewer here"] = &auth.Grant{Role: role, Can: []auth.Action{auth.Watch}, Rooms: []string{"house"}}
	}
	for _, action := range auth.Actions {
		all["only "+string(action)] = &auth.Grant{Role: auth.Viewer, Can: []auth.Action{action}, Rooms: []string{"house", "hall"}}
	}
	return all
}

func TestEveryMessageTakesWhatItShould(t *testing.T) {
	for _, kind := range sayable() {
		if _, ok := permissions[kind]; !ok {
			t.Errorf("%s has no row in permissions: say who may", kind)
		}
	}
	last := []string{"move of another", "remove of another", "set-role of oneself", "move of oneself", "remove of oneself", "leave", "close-room"} // end the caller, the target or their roles
	var kinds []string
	for kind := range permissions {
		if !slices.Contains(last, kind) {
			kinds = append(kinds, kind)
		}
	}
	kinds = append(slices.Sorted(slices.Values(kinds)), last...)
	for name, grant := range callers() {
		t.Run(name, func(t *testing.T) {
			g := newRoomGateway(t, tokens{"caller": grant})
			c, joined := g.as(t, "caller", "house")
			other := ""
			for _, kind := range kinds {
				row := permissions[kind]
				if slices.Contains(last, kind) { // the one before may be gone
					c, joined = g.as(t, "caller", "house")
				}
				message, _, _ := strings.Cut(kind, " ")
				m := map[string]any{"type": message, "requestId": kind}
				for k, v := range row.fields {
					switch {
					case v == oneself:
						v = joined["userId"]
					case v == another && other == "":
						_, j := g.as(t, "publisher", "house")
						other = j["userId"].(string)
						fallthrough
					case v == another:
						v = other
					}
					m[k] = v
				}
				may := row.action == "" || grant.May(row.action, "house", row.stream)
				if got := c.forbidden(m); got != !may {
					t.Errorf("%s is forbidden: %v", kind, got)
				}
				if may && (kind == "move of another" || kind == "remove of another") {
					other = ""
				}
			}
		})
	}
}

// behindDoors is what each request behind /whep/ and /whip/ takes, "" nothing, by method and path. What
// isn't here fails the test. A Location is a secret itself: nothing else leads to its session.
var behindDoors = map[string]struct {
	action       auth.Action
	room, stream string
}{
	"POST /whep/house":         {auth.Watch, "house", "house"},
	"POST /whep/house/test":    {auth.Watch, "house", "test"},
	"PATCH /whep/house/id":     {},
	"DELETE /whep/house/id":    {},
	"PATCH /whep/house/a/id":   {},
	"DELETE /whep/house/a/id":  {},
	"POST /whip/hall":          {auth.Publish, "hall", "hall"},
	"POST /whip/hall/cam":      {auth.Publish, "hall", "cam"},
	"PATCH /whip/hall/id":      {},
	"DELETE /whip/hall/id":     {},
	"PATCH /whip/hall/a/id":    {},
	"DELETE /whip/hall/a/id":   {},
	"OPTIONS /whep/house":      {},
	"OPTIONS /whep/house/a":    {},
	"OPTIONS /whep/house/a/id": {},
	"OPTIONS /whip/hall":       {},
	"OPTIONS /whip/hall/a":     {},
	"OPTIONS /whip/hall/a/id":  {},
}

func TestEveryDoorTakesWhatItShould(t *testing.T) {
	depthOf := func(path string) int { return strings.Count(path, "/") - 1 }
	for depth, methods := range behind {
		for _, method := range append(slices.Collect(maps.Keys(methods)), http.MethodOptions) {
			for _, door := range []string{" /whep/", " /whip/"} {
				if !slices.ContainsFunc(slices.Collect(maps.Keys(behindDoors)), func(request string) bool {
					return strings.HasPrefix(request, method+door) && depthOf(request) == depth
				}) {
					t.Errorf("%s%s with %d parts has no row in behindDoors: say who may", method, door, depth)
				}
			}
		}
	}
	known := tokens(callers())
	g := newRoomGateway(t, known)
	known["nobody"] = nil
	for request, row := range behindDoors {
		method, path, _ := strings.Cut(request, " ")
		if behind[depthOf(path)][method] == nil && method != http.MethodOptions {
			t.Errorf("%s is in behindDoors, and isn't served", request)
		}
		header := map[string]string{"Content-Type": "application/sdp"}
		if method == http.MethodPatch {
			header = fragmentBody()
		}
		for name, grant := range known {
			if delete(header, "Authorization"); grant != nil {
				header["Authorization"] = "Bearer " + name
			}
			resp, want := g.do(t, method, path, header, "v=0"), 0
			switch {
			case row.action == "":
			case grant == nil:
				want = http.StatusUnauthorized
			case !grant.May(row.action, row.room, row.stream):
				want = http.StatusForbidden
			}
			if row.action == "" && method != http.MethodOptions && resp.status != http.StatusNotFound { // whoever asks
				t.Errorf("%s as %s: %d %s", request, name, resp.status, resp.body)
			}
			if refused := resp.status == http.StatusUnauthorized || resp.status == http.StatusForbidden; refused != (want != 0) || refused && resp.status != want {
				t.Errorf("%s as %s: %d %s, want %d", request, name, resp.status, resp.body, want)
			}
		}
		for _, other := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
			if behind[depthOf(path)][other] != nil {
				continue
			}
			if resp := g.do(t, other, path, nil, ""); resp.status != http.StatusMethodNotAllowed || resp.header.Get("Allow") == "" {
				t.Errorf("%s %s: %d", other, path, resp.status)
			}
		}
	}
	for _, path := range []string{"/whep/house/a/b/c", "/whip/hall/a/b/c", "/whip/hall/a/b/"} {
		if resp := g.do(t, "DELETE", path, nil, ""); resp.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.status)
		}
	}
}

// Who has a session's Location owns the session, by its own door only. That of a path that ends in a
// slash had two in a row, and led nowhere.
func TestALocationLeadsToItsSession(t *testing.T) {
	g := newRoomGateway(t)
	for path, want := range map[string]string{
		"/whep/test": "/whep/test/", "/whep/test/": "/whep/test/", "/whep/house/test": "/whep/house/test/", "/whep/h%6fuse/test": "/whep/house/test/",
		"/whip/hall": "/whip/hall/", "/whip/hall/": "/whip/hall/", "/whip/hall/cam": "/whip/hall/cam/",
	} {
		offer, token := newPeer(t).offer(video), "viewer"
		if strings.HasPrefix(path, "/whip/") {
			offer, token = publishing(t), "publisher"
		}
		resp := g.do(t, "POST", path, map[string]string{"Content-Type": "application/sdp", "Authorization": "Bearer " + token}, offer)
		location := resp.header.Get("Location")
		id, ok := strings.CutPrefix(location, want)
		if resp.status != http.StatusCreated || !ok || strings.Contains(id, "/") {
			t.Errorf("%s: %d, at %q: %s", path, resp.status, location, resp.body)
			continue
		}
		swapped := strings.NewReplacer("/whep/", "/whip/", "/whip/", "/whep/").Replace(location)
		for _, wrong := range []string{swapped, location + "x", location + "/", strings.Replace(location, "/h", "/x/h", 1) + "/"} {
			if resp := g.do(t, "DELETE", wrong, map[string]string{"Authorization": "Bearer admin"}, ""); resp.status != http.StatusNotFound {
				t.Errorf("%s of %s: %d", wrong, location, resp.status)
			}
		}
		if resp := g.do(t, "PATCH", location, fragmentBody(), "a=end-of-candidates\r\n"); resp.status != http.StatusNoContent {
			t.Errorf("PATCH %s: %d %s", location, resp.status, resp.body)
		}
		if resp := g.do(t, "DELETE", location, nil, ""); resp.status != http.StatusOK {
			t.Errorf("DELETE %s: %d %s", location, resp.status, resp.body)
		}
	}
}

// forbidden says something and tells whether the answer is that code.
func (c *conversation) forbidden(m map[string]any) bool {
	c.t.Helper()
	c.say(m)
	if kind := m["type"]; kind != "close-room" && kind != "leave" && m["requestId"] != "remove of oneself" { // these end the socket
		c.say(map[string]any{"type": "ping", "requestId": fmt.Sprint("after ", m["requestId"])})
	}
	deadline := time.After(patience)
	for {
		var got map[string]any
		select {
		case got = <-c.got:
		case <-deadline:
		}
		switch {
		case got == nil:
			c.t.Fatalf("no answer to %v: %v", m["type"], c.end)
		case got["type"] == "error" && got["requestId"] == m["requestId"]:
			return got["code"] == string(forbidden) || m["type"] == "watch" && got["code"] == string(notFound) // a stream that may not be seen isn't there
		case got["type"] == "left", got["type"] == "pong" && got["requestId"] == fmt.Sprint("after ", m["requestId"]):
			return false
		}
	}
}
