package signal

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/room"
)

// tokens is an authority by a table.
type tokens map[string]*auth.Grant

func (a tokens) Authenticate(_ context.Context, token string) (*auth.Grant, error) {
	if g := a[token]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("%w: the token %q is unknown", auth.ErrUnauthorized, token)
}

func (a tokens) FromRequest(r *http.Request) (*auth.Grant, error) {
	token, err := auth.TokenOf(r)
	if err != nil {
		return nil, err
	}
	return a.Authenticate(r.Context(), token)
}

func (a tokens) Revoked(*auth.Grant) bool { return false }

// newRoomGateway has the rooms house (streams test and h264), hall (none) and tiny
// (one participant), and a token of each role's name.
func newRoomGateway(t *testing.T, more ...tokens) *gateway {
	t.Helper()
	g := newGateway(t)
	known := tokens{}
	for _, role := range auth.Roles {
		known[string(role)] = &auth.Grant{Subject: string(role), Name: "a " + string(role), Role: role, Rooms: []string{"*"}, Create: role == auth.Host}
	}
	for _, m := range more {
		for token, grant := range m {
			known[token] = grant
		}
	}
	g.auth = known
	g.rooms = room.New(room.Options{
		Rooms: []config.Room{
			{Name: "house", Title: "The house", Streams: []string{"test", "h264"}, DepartureTimeout: 30 * time.Second},
			{Name: "hall", DepartureTimeout: 30 * time.Second},
			{Name: "tiny", MaxParticipants: 1, DepartureTimeout: 30 * time.Second},
		},
		Default: config.Room{EmptyTimeout: time.Minute, DepartureTimeout: 30 * time.Second}, Made: 3,
		Pipelines: Pipelines{g, nil}, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(g.rooms.Close)
	return g
}

// as joins a room with a token.
func (g *gateway) as(t *testing.T, token, room string) (c *conversation, joined map[string]any) {
	t.Helper()
	c = g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": room, "version": 1, "token": token, "name": strings.ToUpper(token)})
	return c, c.hear("joined")
}

// refusedAs joins with a token, in vain.
func (g *gateway) refusedAs(t *testing.T, token, room string) (code string) {
	t.Helper()
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": room, "version": 1, "token": token})
	return c.hear("error")["code"].(string)
}

// refused says something that is refused, and not fatally.
func (c *conversation) refused(m map[string]any) (code string) {
	c.t.Helper()
	m["requestId"] = fmt.Sprint("refused-", m["type"])
	c.say(m)
	for {
		e := c.hear("error")
		if e["requestId"] != m["requestId"] {
			continue
		}
		if e["fatal"] == true {
			c.t.Errorf("%v is fatal: %v", m["type"], e)
		}
		return e["code"].(string)
	}
}

// about waits for a message of a type about a participant.
func (c *conversation) about(kind string, user any) map[string]any {
	c.t.Helper()
	for {
		m := c.hear(kind)
		if p, _ := m["participant"].(map[string]any); p["userId"] == user {
			return p
		}
	}
}

func words(list any) []string {
	var all []string
	for _, v := range list.([]any) {
		switch v := v.(type) {
		case string:
			all = append(all, v)
		case map[string]any:
			if name, ok := v["name"].(string); ok {
				all = append(all, name)
			}
		}
	}
	return all
}

func TestThoseWhoTakePartSeeWhoComesAndGoes(t *testing.T) {
	g := newRoomGateway(t)
	host, j := g.as(t, "host", "house")
	if got := words(j["streams"]); !reflect.DeepEqual(got, []string{"test", "h264"}) {
		t.Errorf("the house has %v", got)
	}
	if j["role"] != "host" || j["stream"] != nil || !reflect.DeepEqual(words(j["can"]), []string{"watch", "publish", "relay", "control", "moderate"}) ||
		!reflect.DeepEqual(j["room"], map[string]any{"roomId": "house", "title": "The house", "state": "active", "locked": false}) ||
		!reflect.DeepEqual(words(j["participants"]), []string{"HOST"}) || j["resumeWithin"] != 30.0 {
		t.Errorf("joined is %v", j)
	}
	publisher, p := g.as(t, "publisher", "house")
	viewer, v := g.as(t, "viewer", "house")
	if v["participants"] != nil {
		t.Errorf("a viewer sees %v", v["participants"])
	}
	if f := host.about("participant-joined", p["userId"]); f["role"] != "publisher" || f["name"] != "PUBLISHER" {
		t.Errorf("the host sees %v", f)
	}
	for _, c := range []*conversation{host, publisher} {
		c.about("participant-joined", v["userId"])
	}
	viewer.say(map[string]any{"type": "leave"})
	viewer.hear("left")
	host.about("participant-left", v["userId"])
	publisher.conn.Close()
	if f := host.about("participant-changed", p["userId"]); f["absent"] != true {
		t.Errorf("the host sees %v of one whose socket is lost", f)
	}
	back := g.dial(t)
	back.say(map[string]any{"type": "join", "roomId": "house", "version": 1, "resume": p["session"], "seq": 0})
	if m := back.hear("joined"); m["resumed"] != true || len(words(m["participants"])) != 2 {
		t.Errorf("got %v", m)
	}
	if f := host.about("participant-changed", p["userId"]); f["absent"] != nil {
		t.Errorf("the host sees %v of one who came back", f)
	}
	back.say(map[string]any{"type": "leave"})
	if f := host.about("participant-left", p["userId"]); f["name"] != "PUBLISHER" {
		t.Errorf("the host sees %v", f)
	}
}

func TestARoomIsWatchedByStreams(t *testing.T) {
	g := newRoomGateway(t, tokens{"few": {Subject: "few", Role: auth.Viewer, Rooms: []string{"house"}, Streams: []string{"test"}}})
	c, j := g.as(t, "few", "house")
	if got := words(j["streams"]); !reflect.DeepEqual(got, []string{"test"}) {
		t.Errorf("who may watch one sees %v", got)
	}
	if code := c.refused(map[string]any{"type": "watch", "stream": "h264"}); code != "not-found" {
		t.Errorf("watching another is %s", code)
	}
	c.say(map[string]any{"type": "watch", "stream": "test"})
	c.hear("watching")
	p := newTiles(t)
	offer := c.hear("offer")
	p.negotiate(c, offer)
	p.shows("video/VP8", places(offer)["test video"])
	if code := g.refusedAs(t, "few", "test"); code != "forbidden" {
		t.Errorf("the room of the stream's own name is %s", code)
	}
}

func TestOnlyWhoIsKnownJoins(t *testing.T) {
	expired := &auth.Grant{Role: auth.Viewer, Rooms: []string{"*"}, Expires: time.Now().Add(-time.Second)}
	g := newRoomGateway(t, tokens{"expired": expired})
	for _, token := range []string{"", "wrong", "expired"} {
		c := g.dial(t)
		join := map[string]any{"type": "join", "roomId": "house", "version": 1, "token": token}
		if token == "" {
			delete(join, "token")
		}
		c.say(join)
		if e := c.hear("error"); e["code"] != "unauthorized" || e["fatal"] != true {
			t.Errorf("%q: %v", token, e)
		}
		if status, reason := c.closed(); status != 1008 || reason != "unauthorized" {
			t.Errorf("%q: closed with %d %s", token, status, reason)
		}
	}
	resp := g.do(t, "POST", "/whep/test", sdpBody(), newPeer(t).offer(video))
	if resp.status != http.StatusUnauthorized || resp.header.Get("WWW-Authenticate") == "" {
		t.Errorf("WHEP without a token: %d %v", resp.status, resp.header)
	}
	header := sdpBody()
	header["Authorization"] = "Bearer viewer"
	if resp := g.do(t, "POST", "/whep/house/h264", header, newPeer(t).offer(video)); resp.status != http.StatusCreated || !strings.HasPrefix(resp.header.Get("Location"), "/whep/house/h264/") {
		t.Errorf("WHEP of a stream of a room: %d %v %s", resp.status, resp.header, resp.body)
	}
	if resp := g.do(t, "POST", "/whep/hall/h264", header, newPeer(t).offer(video)); resp.status != http.StatusNotFound {
		t.Errorf("WHEP of a stream of another room: %d", resp.status)
	}
}

func TestRoomsAreMadeForWhoMayAndAsks(t *testing.T) {
	g := newRoomGateway(t)
	if code := g.refusedAs(t, "host", "new"); code != "not-found" {
		t.Errorf("a room that nobody asked to be made: %s", code)
	}
	for _, x := range [][2]string{{"publisher", "error"}, {"host", "joined"}} {
		c := g.dial(t)
		c.say(map[string]any{"type": "join", "roomId": "new", "version": 1, "token": x[0], "create": true})
		c.hear(x[1])
	}
	g.as(t, "viewer", "new")
}

func TestHostsModerate(t *testing.T) {
	g := newRoomGateway(t)
	host, h := g.as(t, "host", "house")
	publisher, p := g.as(t, "publisher", "house")
	viewer, v := g.as(t, "viewer", "house")
	_, a := g.as(t, "admin", "house")

	for _, deed := range []map[string]any{
		{"type": "remove", "target": h["userId"]}, {"type": "mute", "target": h["userId"], "kind": "audio", "on": true},
		{"type": "set-role", "target": p["userId"], "role": "host"}, {"type": "move", "target": h["userId"], "to": "hall"},
		{"type": "lock", "on": true}, {"type": "close-room"},
	} {
		if code := publisher.refused(deed); code != "forbidden" {
			t.Errorf("a publisher's %s is %s", deed["type"], code)
		}
	}
	if code := host.refused(map[string]any{"type": "remove", "target": a["userId"]}); code != "forbidden" {
		t.Errorf("removing an admin is %s", code)
	}
	if code := host.refused(map[string]any{"type": "remove", "target": "nobody"}); code != "unknown-target" {
		t.Errorf("removing nobody is %s", code)
	}

	host.say(map[string]any{"type": "mute", "target": p["userId"], "kind": "audio", "on": true})
	if m := publisher.hear("muted"); m["kind"] != "audio" || m["on"] != true {
		t.Errorf("got %v", m)
	}
	if f := host.about("participant-changed", p["userId"]); !reflect.DeepEqual(f["muted"], []any{"audio"}) {
		t.Errorf("got %v", f)
	}

	// a viewer who is made publisher sees who is there, and what he may
	host.say(map[string]any{"type": "set-role", "target": v["userId"], "role": "publisher"})
	m := viewer.hear("participant-changed")
	if f := m["participant"].(map[string]any); f["role"] != "publisher" || !reflect.DeepEqual(words(m["can"]), []string{"watch", "publish", "relay"}) {
		t.Errorf("got %v", m)
	}
	viewer.about("participant-joined", h["userId"])

	host.say(map[string]any{"type": "lock", "on": true})
	if m := viewer.hear("room"); m["room"].(map[string]any)["locked"] != true {
		t.Errorf("got %v", m)
	}
	if code := g.refusedAs(t, "viewer", "house"); code != "room-locked" {
		t.Errorf("a locked room is %s", code)
	}

	host.say(map[string]any{"type": "move", "target": v["userId"], "to": "hall"})
	if m := viewer.hear("moved"); m["roomId"] != "hall" || m["room"].(map[string]any)["roomId"] != "hall" || m["session"] != v["session"] || m["role"] != "viewer" {
		t.Errorf("got %v", m)
	}
	host.about("participant-left", v["userId"])
	_, tiny := g.as(t, "viewer", "tiny")
	_ = tiny
	if code := host.refused(map[string]any{"type": "move", "target": p["userId"], "to": "tiny"}); code != "room-full" {
		t.Errorf("moving into a full room is %s", code)
	}
	if code := g.refusedAs(t, "viewer", "tiny"); code != "room-full" {
		t.Errorf("a full room is %s", code)
	}

	host.say(map[string]any{"type": "remove", "target": p["userId"]})
	if m := publisher.hear("left"); m["reason"] != "removed" {
		t.Errorf("got %v", m)
	}
	if status, reason := publisher.closed(); status != 1000 || reason != "removed" {
		t.Errorf("closed with %d %s", status, reason)
	}

	host.say(map[string]any{"type": "close-room"})
	if m := host.hear("left"); m["reason"] != "room-closed" {
		t.Errorf("got %v", m)
	}
	if code := g.refusedAs(t, "admin", "house"); code != "room-closed" {
		t.Errorf("a closed room is %s", code)
	}
	if err := g.rooms.OpenRoom("house", auth.Open()); err != nil {
		t.Error(err)
	}
	g.as(t, "viewer", "house")
}

// A viewer who is moved watches no more what he watched, and the room's own stream
// at once, on the PeerConnection that he has.
func TestMovedViewerWatchesThere(t *testing.T) {
	g := newRoomGateway(t)
	host, _ := g.as(t, "host", "house")
	viewer, v := g.as(t, "viewer", "house")
	p := newTiles(t)
	viewer.say(map[string]any{"type": "watch", "stream": "h264"})
	offer := viewer.hear("offer")
	p.negotiate(viewer, offer)
	p.shows("video/H264", places(offer)["h264 video"])
	host.say(map[string]any{"type": "move", "target": v["userId"], "to": "test"})
	if m := p.hear(viewer, "moved"); m["stream"].(map[string]any)["name"] != "test" {
		t.Errorf("got %v", m)
	}
	p.shows("video/VP8", p.settle(viewer, "test")["test video"])
}

// Two peers build a data channel between them: the gateway hands their offer,
// answer and candidates on, and takes no part in it.
func TestPeersBuildADirectConnectionByRelay(t *testing.T) {
	g := newRoomGateway(t)
	ann, a := g.as(t, "publisher", "hall")
	bob, b := g.as(t, "host", "hall")
	eve, e := g.as(t, "viewer", "hall")
	left, right := newPeer(t).pc, newPeer(t).pc
	offered, answered := make(chan struct{}), make(chan struct{}) // no candidate comes before what it belongs to
	trickle := func(from *webrtc.PeerConnection, c *conversation, to any, said chan struct{}) {
		from.OnICECandidate(func(found *webrtc.ICECandidate) {
			<-said
			m := map[string]any{"type": "ice-candidate", "target": to, "candidate": nil}
			if found != nil {
				m["candidate"] = found.ToJSON()
			}
			c.try(m)
		})
	}
	trickle(left, ann, b["userId"], offered)
	trickle(right, bob, a["userId"], answered)
	heard := make(chan string, 1)
	right.OnDataChannel(func(d *webrtc.DataChannel) {
		d.OnMessage(func(m webrtc.DataChannelMessage) { heard <- string(m.Data) })
	})
	channel, err := left.CreateDataChannel("direct", nil)
	if err != nil {
		t.Fatal(err)
	}
	channel.OnOpen(func() { channel.SendText("hello") })

	offer, err := left.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	ann.say(map[string]any{"type": "offer", "target": b["userId"], "sdp": offer.SDP})
	close(offered)
	m := bob.hear("offer")
	if m["userId"] != a["userId"] || m["roomId"] != "hall" || m["target"] != b["userId"] || m["timestamp"] == nil {
		t.Errorf("bob got %v", m)
	}
	if err := right.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m["sdp"].(string)}); err != nil {
		t.Fatal(err)
	}
	answer, err := right.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := right.SetLocalDescription(answer); err != nil {
		t.Fatal(err)
	}
	bob.say(map[string]any{"type": "answer", "target": a["userId"], "sdp": answer.SDP})
	close(answered)
	if err := left.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: ann.hear("answer")["sdp"].(string)}); err != nil {
		t.Fatal(err)
	}
	relay := func(c *conversation, to *webrtc.PeerConnection) {
		for { // until no more come
			found, _ := c.hear("ice-candidate")["candidate"].(map[string]any)
			if found == nil {
				return
			}
			mid, line := found["sdpMid"].(string), uint16(found["sdpMLineIndex"].(float64))
			if err := to.AddICECandidate(webrtc.ICECandidateInit{Candidate: found["candidate"].(string), SDPMid: &mid, SDPMLineIndex: &line}); err != nil {
				t.Error(err)
			}
		}
	}
	relay(bob, right)
	relay(ann, left)
	select {
	case got := <-heard:
		if got != "hello" {
			t.Errorf("heard %q", got)
		}
	case <-time.After(patience):
		t.Fatalf("no direct connection: %s, %s", left.ICEConnectionState(), right.ICEConnectionState())
	}

	// messages: to one, to all who take part, to nobody
	ann.say(map[string]any{"type": "message", "target": b["userId"], "data": map[string]any{"x": []any{1.0, nil, "<b>"}}})
	if m := bob.hear("message"); !reflect.DeepEqual(m["data"], map[string]any{"x": []any{1.0, nil, "<b>"}}) {
		t.Errorf("bob got %v", m)
	}
	bob.say(map[string]any{"type": "message", "data": nil})
	if m := ann.hear("message"); m["userId"] != b["userId"] || m["target"] != nil {
		t.Errorf("ann got %v", m)
	} else if data, ok := m["data"]; !ok || data != nil {
		t.Errorf("ann got %v", m)
	}
	for _, c := range []struct {
		by     *conversation
		target any
		code   string
	}{{ann, "nobody", "unknown-target"}, {ann, e["userId"], "forbidden"}, {eve, a["userId"], "forbidden"}} {
		if code := c.by.refused(map[string]any{"type": "message", "target": c.target, "data": 1}); code != c.code {
			t.Errorf("a message to %v is %s, want %s", c.target, code, c.code)
		}
	}
	if code := ann.refused(map[string]any{"type": "message", "data": strings.Repeat("x", maxData)}); code != "bad-message" {
		t.Errorf("a message of %d bytes is %s", maxData+2, code)
	}
}

func TestRelayIsLimitedInBytes(t *testing.T) {
	g := newRoomGateway(t)
	ann, _ := g.as(t, "publisher", "hall")
	long := map[string]any{"type": "message", "data": strings.Repeat("x", maxData-2)}
	for range relayBurst / maxData {
		ann.say(long)
	}
	var e map[string]any
	for deadline := time.Now().Add(patience); e["type"] != "error" && time.Now().Before(deadline); {
		ann.say(long) // a busy machine may have been allowed more meanwhile
		select {
		case e = <-ann.got:
		case <-time.After(10 * time.Millisecond):
		}
	}
	if e["code"] != "rate-limited" || e["fatal"] != false {
		t.Errorf("got %v", e)
	}
	ann.say(map[string]any{"type": "ping"})
	ann.hear("pong")
}

func TestTokensAreRenewedAndExpire(t *testing.T) {
	soon := time.Now().Add(2 * time.Second)
	brief := &auth.Grant{Subject: "ann", Role: auth.Publisher, Rooms: []string{"*"}, Expires: soon}
	long := &auth.Grant{Subject: "ann", Role: auth.Viewer, Rooms: []string{"*"}, Expires: time.Now().Add(time.Hour)}
	g := newRoomGateway(t, tokens{"brief": brief, "long": long})
	ann, j := g.as(t, "brief", "hall")
	if j["expires"] != float64(soon.UnixMilli()) {
		t.Errorf("expires is %v", j["expires"])
	}
	bob, _ := g.as(t, "brief", "hall")
	if code := ann.refused(map[string]any{"type": "token", "token": "admin"}); code != "forbidden" {
		t.Errorf("another's token is %s", code)
	}
	if code := ann.refused(map[string]any{"type": "token", "token": "wrong"}); code != "unauthorized" {
		t.Errorf("no token at all is %s", code)
	}
	ann.say(map[string]any{"type": "token", "token": "long", "requestId": "t"})
	if m := ann.hear("token"); m["expires"] != float64(long.Expires.UnixMilli()) || m["requestId"] != "t" {
		t.Errorf("got %v", m)
	}
	if e := bob.hear("error"); e["code"] != "token-expired" || e["fatal"] != true {
		t.Errorf("got %v", e)
	}
	ann.say(map[string]any{"type": "ping"})
	ann.hear("pong")
	// a notice comes a minute before
	next := &auth.Grant{Subject: "cid", Role: auth.Viewer, Rooms: []string{"*"}, Expires: time.Now().Add(expiryNotice + 500*time.Millisecond)}
	g.auth.(tokens)["next"] = next
	cid, _ := g.as(t, "next", "hall")
	if m := cid.hear("token-expiring"); m["expires"] != float64(next.Expires.UnixMilli()) {
		t.Errorf("got %v", m)
	}
}

// What a user may have open and have relayed is counted over all sockets.
func TestUsersAreLimitedWhateverSocketsTheyHave(t *testing.T) {
	g := newRoomGateway(t)
	g.users.most = 2
	first, _ := g.as(t, "publisher", "hall")
	second, _ := g.as(t, "publisher", "house")
	if code := g.refusedAs(t, "publisher", "hall"); code != "too-many-viewers" {
		t.Errorf("the third is %s", code)
	}
	g.as(t, "host", "hall")
	for range relayBurst/maxData/2 + 40 { // more than comes back meanwhile
		for _, c := range []*conversation{first, second} {
			c.say(map[string]any{"type": "message", "data": strings.Repeat("x", maxData-2)})
		}
	}
	if e := second.hear("error"); e["code"] != "rate-limited" || e["fatal"] != false {
		t.Errorf("got %v", e)
	}
	first.say(map[string]any{"type": "leave"})
	first.hear("left")
	g.as(t, "publisher", "hall")
	if code := g.refusedAs(t, "publisher", "nowhere"); code != "too-many-viewers" {
		t.Errorf("the third is %s", code)
	}
	second.say(map[string]any{"type": "leave"})
	second.hear("left")
	if code := g.refusedAs(t, "publisher", "nowhere"); code != "not-found" {
		t.Errorf("a room that isn't is %s", code)
	}
	g.as(t, "publisher", "hall") // who was refused isn't counted
}
