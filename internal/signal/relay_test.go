package signal

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

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
