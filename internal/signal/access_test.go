package signal

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"gateway/internal/auth"
)

// everybody is an authority that lets everybody do everything.
type everybody struct{}

func (everybody) Authenticate(context.Context, string) (*auth.Grant, error) { return auth.Open(), nil }
func (everybody) FromRequest(*http.Request) (*auth.Grant, error)            { return auth.Open(), nil }
func (everybody) Revoked(*auth.Grant) bool                                  { return false }

// permissions is what each message of a client takes of who has joined, "" nothing,
// and one of its kind (with another name where "type" is a field), about another participant where it has a target. A type that
// isn't here fails the test.
var permissions = map[string]struct {
	action auth.Action
	fields map[string]any
}{
	"watch":         {auth.Watch, map[string]any{"stream": "test"}},
	"unwatch":       {"", map[string]any{"stream": "test"}},
	"answer":        {"", map[string]any{"sdp": "v=0"}},
	"ice-candidate": {"", map[string]any{"candidate": nil}},
	"restart-ice":   {"", nil},
	"select":        {"", map[string]any{"rendition": "auto"}},
	"report":        {"", map[string]any{"firstFrameMs": 1}},
	"view":          {"", map[string]any{"width": 1, "height": 1, "visible": true}},
	"observe":       {"", map[string]any{"on": false}},
	"open-data":     {auth.Relay, nil},
	"unpublish":     {"", map[string]any{"stream": "nothing"}},
	"publish":       {auth.Publish, map[string]any{"type": "offer", "sdp": "v=0"}},
	"publish none":  {auth.Publish, map[string]any{"type": "offer", "sdp": "v=0", "streams": []any{}}},
	"message all":   {auth.Relay, map[string]any{"type": "message", "data": 1}},
	"offer":         {auth.Relay, map[string]any{"sdp": "v=0", "target": target}},
	"message":       {auth.Relay, map[string]any{"data": 1, "target": target}},
	"mute":          {auth.Moderate, map[string]any{"target": target, "kind": "audio", "on": true}},
	"set-role":      {auth.Moderate, map[string]any{"target": target, "role": "viewer"}},
	"token":         {"", map[string]any{"token": "wrong"}},
	"ping":          {"", nil},
	"lock":          {auth.Moderate, map[string]any{"on": false}},
	"move":          {auth.Moderate, map[string]any{"target": target, "to": "hall"}},
	"remove":        {auth.Moderate, map[string]any{"target": target}},
	"close-room":    {auth.Moderate, nil},
	"join":          {"", map[string]any{"roomId": "house"}},
	"leave":         {"", nil},
}

const target = "TARGET" // stands for another participant's id

func TestEveryMessageTakesWhatItShould(t *testing.T) {
	for kind := range requests {
		if _, ok := permissions[kind]; !ok {
			t.Errorf("%s has no row in permissions: say who may", kind)
		}
	}
	callers := map[string]*auth.Grant{
		"watches h264 alone": {Role: auth.Viewer, Rooms: []string{"house"}, Streams: []string{"h264"}},
	}
	for _, role := range auth.Roles {
		callers[string(role)] = &auth.Grant{Role: role, Rooms: []string{"house", "hall"}}
		callers[string(role)+" elsewhere, viewer here"] = &auth.Grant{Role: role, Can: []auth.Action{auth.Watch}, Rooms: []string{"house"}}
	}
	for _, action := range auth.Actions {
		callers["only "+string(action)] = &auth.Grant{Role: auth.Viewer, Can: []auth.Action{action}, Rooms: []string{"house", "hall"}}
	}
	last := []string{"move", "remove", "close-room", "leave"} // end the target or the caller
	var kinds []string
	for kind := range permissions {
		if !slices.Contains(last, kind) {
			kinds = append(kinds, kind)
		}
	}
	kinds = append(slices.Sorted(slices.Values(kinds)), last...)
	for name, grant := range callers {
		t.Run(name, func(t *testing.T) {
			g := newRoomGateway(t, tokens{"caller": grant})
			c, _ := g.as(t, "caller", "house")
			other := ""
			for _, kind := range kinds {
				row := permissions[kind]
				m := map[string]any{"type": kind, "requestId": kind}
				for k, v := range row.fields {
					if v == target {
						if other == "" {
							_, j := g.as(t, "publisher", "house")
							other = j["userId"].(string)
						}
						v = other
					}
					m[k] = v
				}
				may := row.action == "" || grant.May(row.action, "house", "")
				if kind == "watch" {
					may = grant.May(auth.Watch, "house", "test")
				}
				if got := c.forbidden(m); got != !may {
					t.Errorf("%s is forbidden: %v", kind, got)
				}
				switch {
				case !may:
				case kind == "move", kind == "remove":
					other = ""
				case kind == "close-room":
					return // with all who were there
				}
			}
		})
	}
}

// forbidden says something and tells whether the answer is that code.
func (c *conversation) forbidden(m map[string]any) bool {
	c.t.Helper()
	c.say(m)
	if kind := m["type"]; kind != "close-room" && kind != "leave" {
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
