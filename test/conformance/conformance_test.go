// Package conformance drives a running gateway by docs/protocol.schema.json alone:
// what the schema allows is taken, or refused by a code that it names; what it doesn't
// allow is refused by bad-message; and all that the gateway says fits.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"gateway/test/rig"
)

func TestMain(m *testing.M) {
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

type object = map[string]any

// protocol is the schema, and the definitions that the test reads from it.
type protocol struct {
	gateway *jsonschema.Schema
	client  *jsonschema.Schema
	defs    object
}

func load(t *testing.T) *protocol {
	t.Helper()
	root, err := rig.Root()
	rig.Check(t, err)
	data, err := os.ReadFile(filepath.Join(root, "docs", "protocol.schema.json"))
	rig.Check(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	rig.Check(t, err)
	c := jsonschema.NewCompiler()
	rig.Check(t, c.AddResource("protocol.json", doc))
	p := &protocol{defs: doc.(object)["$defs"].(object)}
	p.gateway, err = c.Compile("protocol.json#/$defs/gateway")
	rig.Check(t, err)
	p.client, err = c.Compile("protocol.json#/$defs/client")
	rig.Check(t, err)
	return p
}

// messages are the definitions of what a client may say, by type.
func (p *protocol) messages() map[string]object {
	all := make(map[string]object)
	for name, def := range p.defs {
		if kind, ok := strings.CutPrefix(name, "client-"); ok {
			all[kind] = def.(object)
		}
	}
	return all
}

// talk is a socket whose every message is checked.
type talk struct {
	t      *testing.T
	p      *protocol
	socket *websocket.Conn
}

func open(t *testing.T, p *protocol, g *rig.Gateway) *talk {
	t.Helper()
	socket, _, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(g.URL("/ws"), "http", "ws", 1), nil)
	rig.Check(t, err)
	t.Cleanup(func() { socket.Close() })
	return &talk{t, p, socket}
}

func (c *talk) say(m object) {
	c.t.Helper()
	data, err := json.Marshal(m)
	rig.Check(c.t, err)
	rig.Check(c.t, c.socket.WriteMessage(websocket.TextMessage, data))
}

// hear reads until a message fits; each on the way has to fit the schema.
func (c *talk) hear(what string, fits func(object) bool) object {
	c.t.Helper()
	c.socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		_, data, err := c.socket.ReadMessage()
		if err != nil {
			c.t.Fatalf("no %s: %v", what, err)
		}
		m, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		rig.Check(c.t, err)
		if err := c.p.gateway.Validate(m); err != nil {
			c.t.Errorf("the gateway's %s\ndoesn't fit: %v", data, err)
		}
		if fits(m.(object)) {
			return m.(object)
		}
	}
}

// outcome is the code by which a message is refused, "" where it is taken: a ping
// behind it is answered.
func (c *talk) outcome(m object, id string) (code string, fatal bool) {
	c.t.Helper()
	m = maps.Clone(m)
	m["requestId"] = id
	c.say(m)
	if m["type"] != "leave" {
		c.say(object{"type": "ping", "requestId": id + "-ping"})
	}
	got := c.hear("answer to "+fmt.Sprint(m["type"]), func(got object) bool {
		return got["type"] == "error" && (got["requestId"] == id || got["fatal"] == true) || got["requestId"] == id+"-ping" || got["type"] == "left"
	})
	if got["type"] != "error" {
		return "", got["type"] == "left"
	}
	return got["code"].(string), got["fatal"] == true
}

func (c *talk) join(room string) {
	c.t.Helper()
	c.say(object{"type": "join", "roomId": room, "version": 1, "create": true})
	c.hear("joined", func(m object) bool { return m["type"] == "joined" })
}

func start(t *testing.T) *rig.Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{
		"picture": "source: videotestsrc is-live=true\nvideo: {codec: vp8, width: 160, height: 120, framerate: 10, bitrate: 100k}\n",
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	return g
}

func TestWhatTheSchemaAllowsIsTaken(t *testing.T) {
	p, g := load(t), start(t)
	for kind, def := range p.messages() {
		for _, example := range def["examples"].([]any) {
			m := example.(object)
			if err := p.client.Validate(m); err != nil {
				t.Errorf("example of %s: %v", kind, err)
			}
			var codes []string
			for _, c := range def["x-codes"].([]any) {
				codes = append(codes, c.(string))
			}
			t.Run(kind, func(t *testing.T) {
				early := open(t, p, g)
				code, fatal := early.outcome(m, "early")
				if before := def["x-before-join"].(bool); !before && (code != "bad-state" || fatal) || before && code != "" && !slices.Contains(codes, code) {
					t.Errorf("before join: %q, fatal %v", code, fatal)
				}
				late := open(t, p, g)
				room := "picture"
				if kind == "close-room" { // others go on in theirs
					room = "elsewhere"
				}
				late.join(room)
				code, _ = late.outcome(m, "late")
				if code != "" && !slices.Contains(codes, code) {
					t.Errorf("after join: %q, which the schema doesn't name", code)
				}
			})
		}
	}
}

func TestWhatTheSchemaForbidsIsRefused(t *testing.T) {
	p, g := load(t), start(t)
	for kind, def := range p.messages() {
		t.Run(kind, func(t *testing.T) {
			example := def["examples"].([]any)[0].(object)
			var c *talk
			said := 0
			for n, bad := range mutations(def, example) {
				if p.client.Validate(plain(t, bad)) == nil {
					continue // it is allowed, as another kind of the same
				}
				if said%8 == 0 { // the tenth refusal of a socket is fatal
					c = open(t, p, g)
				}
				said++
				code, fatal := c.outcome(bad, fmt.Sprint("bad-", n))
				if want := expected(bad); code != want || fatal != (want != "bad-message") {
					t.Errorf("%.300v: %q, fatal %v, want %s", bad, code, fatal, want)
				}
				if fatal {
					said = 0
				}
			}
		})
	}
}

// expected is the code for a message that the schema forbids: another version is
// read, but not spoken.
func expected(m object) string {
	if m["version"] == 2 {
		return "unsupported-version"
	}
	return "bad-message"
}

// plain is a value as the validator has it.
func plain(t *testing.T, m object) any {
	data, err := json.Marshal(m)
	rig.Check(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	rig.Check(t, err)
	return v
}

// mutations are messages that are wrong in one thing each.
func mutations(def, example object) (all []object) {
	with := func(name string, v any) {
		m := maps.Clone(example)
		m[name] = v
		all = append(all, m)
	}
	for _, name := range def["required"].([]any) {
		if name != "type" {
			m := maps.Clone(example)
			delete(m, name.(string))
			all = append(all, m)
		}
	}
	properties := def["properties"].(object)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if name == "type" || name == "requestId" { // without it the answer can't be told from others
			continue
		}
		for _, wrong := range []any{nil, true, -1.5, 1e300, "no such thing", []any{1}, object{"nothing": 1}} {
			with(name, wrong)
		}
		if name == "version" {
			with(name, 2)
		}
		if most, ok := properties[name].(object)["maxLength"].(json.Number); ok {
			if n, err := most.Int64(); err == nil && n < 60_000 {
				with(name, strings.Repeat("x", int(n)+1))
			}
		}
	}
	with("unknown", 1)
	with("Type", example["type"])
	return all
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	p, g := load(t), start(t)
	for text, want := range map[string]string{
		"": "bad-message", "nonsense": "bad-message", "[]": "bad-message", "null": "bad-message", `"ping"`: "bad-message", "{}": "bad-message",
		`{"type":"nothing"}`: "bad-message", `{"type":7}`: "bad-message", `{"type":"ping"}{}`: "bad-message", `{"type":"ping","type":"ping"}`: "bad-message",
		`{"type":"ping","requestId":"` + strings.Repeat("x", 64<<10) + `"}`: "message-too-large",
	} {
		c := open(t, p, g)
		rig.Check(t, c.socket.WriteMessage(websocket.TextMessage, []byte(text)))
		if got := c.hear("error", func(m object) bool { return m["type"] == "error" }); got["code"] != want {
			t.Errorf("%.40q: %v, want %s", text, got["code"], want)
		}
	}
}
