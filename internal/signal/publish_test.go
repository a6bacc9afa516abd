package signal

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// studio is a publisher: a PeerConnection on which a picture (VP8, frames of two
// packets) and a sound go out, 50 a second, until the test ends.
type studio struct {
	t     *testing.T
	pc    *webrtc.PeerConnection
	plis  atomic.Int64
	tasks sync.WaitGroup
	stop  chan struct{}
	ready chan struct{} // connected
}

func newStudio(t *testing.T) *studio {
	t.Helper()
	return newStudioOf(t, codecsOfBrowsers(t))
}

func newStudioOf(t *testing.T, codecs *webrtc.MediaEngine) *studio {
	t.Helper()
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(codecs), webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	s := &studio{t: t, pc: pc, stop: make(chan struct{}), ready: make(chan struct{})}
	var once sync.Once
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(s.ready) })
		}
	})
	t.Cleanup(func() { close(s.stop); pc.GracefulClose(); s.tasks.Wait() })
	return s
}

// shot is the payload of a packet: of frame n the first or the second.
func shot(n uint32, second, key bool) []byte {
	p := make([]byte, 40)
	switch {
	case second:
	case key:
		p[0] = 0x10
	default:
		p[0], p[1] = 0x10, 1
	}
	binary.BigEndian.PutUint32(p[20:], n)
	p[30] = p[0] ^ byte(n)
	return p
}

// video sends a picture, with a keyframe when asked; id tells it from others.
func (s *studio) video(id string) *webrtc.RTPSender {
	asked := make(chan struct{}, 1)
	return s.send(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, id, func(p rtcp.Packet) {
		if _, ok := p.(*rtcp.PictureLossIndication); ok {
			s.plis.Add(1)
			poke(asked)
		}
	}, func(n uint32) [][]byte {
		key := n == 0
		select {
		case <-asked:
			key = true
		default:
		}
		return [][]byte{shot(n, false, key), shot(n, true, key)}
	})
}

func (s *studio) audio(id string) *webrtc.RTPSender {
	return s.send(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, id, nil, func(n uint32) [][]byte {
		return [][]byte{{0xfc, byte(n), byte(n >> 8)}}
	})
}

func (s *studio) send(codec webrtc.RTPCodecCapability, id string, hear func(rtcp.Packet), frame func(n uint32) [][]byte) *webrtc.RTPSender {
	s.t.Helper()
	track, err := webrtc.NewTrackLocalStaticRTP(codec, id, "studio")
	if err != nil {
		s.t.Fatal(err)
	}
	transceiver, err := s.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		s.t.Fatal(err)
	}
	s.tasks.Go(func() {
		for {
			packets, _, err := transceiver.Sender().ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range packets {
				if hear != nil {
					hear(p)
				}
			}
		}
	})
	s.write(track, codec.ClockRate, frame, nil)
	return transceiver.Sender()
}

// write sends a track's frames, 50 a second, from when the connection is there; dress
// may change a packet's header.
func (s *studio) write(track *webrtc.TrackLocalStaticRTP, rate uint32, frame func(n uint32) [][]byte, dress func(*rtp.Header) error) {
	s.tasks.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		select {
		case <-s.ready:
		case <-s.stop:
			return
		}
		seq := uint16(65000)
		for n := uint32(0); ; n++ {
			payloads := frame(n)
			for i, p := range payloads {
				h := rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: n * rate / 50, Marker: i == len(payloads)-1}
				if dress != nil {
					if err := dress(&h); err != nil {
						s.t.Error(err)
					}
				}
				_ = track.WriteRTP(&rtp.Packet{Header: h, Payload: p}) // an error says that the connection is closed
				seq++
			}
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	})
}

// offer makes an offer with all candidates.
func (s *studio) offer(o *webrtc.OfferOptions) string {
	s.t.Helper()
	d, err := s.pc.CreateOffer(o)
	if err != nil {
		s.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(d); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-gathered:
	case <-time.After(patience):
		s.t.Fatal("no candidates")
	}
	return s.pc.LocalDescription().SDP
}

func (s *studio) accept(answer string) {
	s.t.Helper()
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		s.t.Fatalf("answer: %v\n%s", err, answer)
	}
}

// mid is the m-line of a sender.
func (s *studio) mid(sender *webrtc.RTPSender) string {
	for _, tr := range s.pc.GetTransceivers() {
		if tr.Sender() == sender {
			return tr.Mid()
		}
	}
	return ""
}

// until waits for something to become so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !so(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never was so that %s", what)
		}
	}
}

// publishing is an offer that sends a picture.
func publishing(t *testing.T) string {
	s := newStudio(t)
	s.video("video")
	return s.offer(nil)
}

// publish offers streams over a WebSocket, each of a list of senders.
func (s *studio) publish(c *conversation, streams map[string][]*webrtc.RTPSender) (answer map[string]any) {
	s.t.Helper()
	sdp := s.offer(nil)
	list := []map[string]any{}
	for label, senders := range streams {
		var mids []string
		for _, sender := range senders {
			mids = append(mids, s.mid(sender))
		}
		list = append(list, map[string]any{"label": label, "title": "The " + label, "mids": mids})
	}
	c.say(map[string]any{"type": "offer", "sdp": sdp, "streams": list})
	answer = c.hear("answer")
	s.accept(answer["sdp"].(string))
	for {
		m := c.hear("ice-candidate")
		if m["candidate"] == nil {
			return answer
		}
		if m["connection"] != "publish" {
			s.t.Errorf("candidate of another connection: %v", m)
		}
		data, _ := json.Marshal(m["candidate"])
		var init webrtc.ICECandidateInit
		if err := json.Unmarshal(data, &init); err != nil {
			s.t.Fatal(err)
		}
		if err := s.pc.AddICECandidate(init); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Two streams of one participant, watched by another; then one ends, and the other
// goes on.
func TestParticipantPublishesStreams(t *testing.T) {
	g := newRoomGateway(t)
	watcher, _ := g.as(t, "viewer", "hall")
	c, joined := g.as(t, "publisher", "hall")
	user := joined["userId"].(string)
	s := newStudio(t)
	camera, sound, screen := s.video("camera"), s.audio("sound"), s.video("screen")
	answer := s.publish(c, map[string][]*webrtc.RTPSender{"camera": {camera, sound}, "screen": {screen}})
	if n := len(answer["streams"].([]any)); n != 2 || answer["connection"] != "publish" {
		t.Errorf("answer %v", answer)
	}
	names := map[string]bool{}
	for range 2 {
		st := watcher.hear("stream-started")["stream"].(map[string]any)
		names[st["name"].(string)] = true
		if st["publisher"] != user || !strings.HasPrefix(st["title"].(string), "The ") {
			t.Errorf("stream %v", st)
		}
	}
	if !names[user+"-camera"] || !names[user+"-screen"] {
		t.Errorf("streams %v", names)
	}
	p := newPeer(t)
	watcher.say(map[string]any{"type": "watch", "stream": user + "-camera"})
	p.negotiate(watcher, watcher.hear("offer"))
	p.sees(video)
	p.sees(audio)
	lost := &rtcp.PictureLossIndication{MediaSSRC: uint32(p.pc.GetReceivers()[0].Track().SSRC())}
	if err := p.pc.WriteRTCP([]rtcp.Packet{lost}); err != nil {
		t.Fatal(err)
	}
	who := g.Publishers(t.Context(), "hall")
	if len(who) != 1 || who[0].User != user || len(who[0].Streams) != 2 || who[0].Streams[0].Tracks[0].Depth < 20 {
		t.Errorf("publishers %+v", who)
	}
	if n := len(g.Publishers(t.Context(), "house")); n != 0 {
		t.Errorf("%d publishers in another room", n)
	}
	until(t, "the viewer's PLI reaches the publisher", func() bool { return s.plis.Load() > 0 })

	c.say(map[string]any{"type": "unpublish", "stream": user + "-screen"})
	if m := watcher.hear("stream-ended"); m["stream"] != user+"-screen" {
		t.Errorf("ended: %v", m)
	}
	p.sees(video)

	c.say(map[string]any{"type": "leave"})
	if m := watcher.hear("stream-ended"); m["stream"] != user+"-camera" {
		t.Errorf("ended: %v", m)
	}
	if m := watcher.hear("unwatched"); m["reason"] != "stream-closed" {
		t.Errorf("unwatched: %v", m)
	}
}

// Who may not publish is told so, and stays; an offer that can't be answered likewise.
func TestPublishingIsRefusedMildly(t *testing.T) {
	g := newRoomGateway(t)
	offer := publishing(t)
	c, _ := g.as(t, "viewer", "hall")
	c.say(map[string]any{"type": "offer", "sdp": offer})
	if m := c.hear("error"); m["code"] != "forbidden" || m["fatal"] != false {
		t.Errorf("%v", m)
	}
	c, joined := g.as(t, "publisher", "hall")
	for code, m := range map[string]map[string]any{
		"bad-sdp":           {"type": "offer", "sdp": "v=0"},
		"codec-unsupported": {"type": "offer", "sdp": strings.NewReplacer("VP8/", "X8/", "VP9/", "X9/", "AV1/", "X1/", "H264/", "X4/", "H265/", "X5/").Replace(offer)},
		"not-found":         {"type": "unpublish", "stream": "nothing"},
		"bad-message":       {"type": "offer", "sdp": offer, "streams": []any{map[string]any{"label": "Not Good"}}},
		"bad-state":         {"type": "ice-candidate", "connection": "publish", "candidate": nil},
	} {
		c.say(m)
		if m := c.hear("error"); m["code"] != code || m["fatal"] != false {
			t.Errorf("%s: %v", code, m)
		}
	}
	s := newStudio(t)
	s.publish(c, map[string][]*webrtc.RTPSender{"camera": {s.video("video")}})
	until(t, "it is offered after all", func() bool {
		o, err := g.rooms.Offer("hall", joined["userId"].(string)+"-camera", g.auth.(tokens)["viewer"])
		return err == nil && slices.ContainsFunc(o.Info().Tracks, func(t stream.TrackInfo) bool { return t.Running })
	})
}

// A host mutes who publishes: the packets end at the gateway.
func TestMutedPublisherIsNotForwarded(t *testing.T) {
	g := newRoomGateway(t)
	host, _ := g.as(t, "host", "hall")
	c, joined := g.as(t, "publisher", "hall")
	user := joined["userId"].(string)
	s := newStudio(t)
	s.publish(c, map[string][]*webrtc.RTPSender{"camera": {s.video("video"), s.audio("audio")}})
	p := newPeer(t)
	host.say(map[string]any{"type": "watch", "stream": user + "-camera"})
	p.negotiate(host, host.hear("offer"))
	p.sees(video)
	p.sees(audio)
	host.say(map[string]any{"type": "mute", "target": user, "kind": "video", "on": true})
	if m := c.hear("muted"); m["kind"] != "video" || m["on"] != true {
		t.Errorf("muted: %v", m)
	}
	until(t, "no picture comes", func() bool {
		for range 20 { // of sound
			p.sees(audio)
		}
		select {
		case <-p.packets[video]:
			return false
		default:
			return true
		}
	})
	host.say(map[string]any{"type": "mute", "target": user, "kind": "video", "on": false})
	p.sees(video)
}

// An m-line may go from one stream to another.
func TestStreamTakesAnothersMLine(t *testing.T) {
	g := newRoomGateway(t)
	watcher, _ := g.as(t, "viewer", "hall")
	c, joined := g.as(t, "publisher", "hall")
	s := newStudio(t)
	picture := s.video("picture")
	s.publish(c, map[string][]*webrtc.RTPSender{"camera": {picture}})
	watcher.hear("stream-started")
	c.say(map[string]any{"type": "offer", "sdp": s.offer(nil), "streams": []any{map[string]any{"label": "screen", "mids": []string{s.mid(picture)}}}})
	s.accept(c.hear("answer")["sdp"].(string))
	screen := joined["userId"].(string) + "-screen"
	if st := watcher.hear("stream-started")["stream"].(map[string]any); st["name"] != screen {
		t.Errorf("started %v", st)
	}
	p := newPeer(t)
	watcher.say(map[string]any{"type": "watch", "stream": screen})
	p.negotiate(watcher, watcher.hear("offer"))
	p.sees(video)
}

// What was told of a publishing connection that is gone isn't taken for the next one's.
func TestNextPublisherBeginsWithoutTheLastOnesNews(t *testing.T) {
	g := newRoomGateway(t)
	c, joined := g.as(t, "publisher", "hall")
	offer, x := publishing(t), g.onlySession(t)
	_, err := call(t.Context(), x, func(ctx context.Context) (none, error) {
		for range 2 {
			if err := x.publish(ctx, request{SDP: offer}); err != nil {
				return none{}, err
			}
			x.up.states <- rtc.StateDisconnected
			x.up.candidates <- nil
			x.stopPublishing()
			if len(x.up.states)+len(x.up.candidates) > 0 {
				t.Errorf("%d states and %d candidates are left", len(x.up.states), len(x.up.candidates))
			}
		}
		return none{}, x.publish(ctx, request{SDP: offer})
	})
	if err != nil {
		t.Fatal(err)
	}
	for c.hear("ice-candidate")["candidate"] != nil {
	}
	o, err := g.rooms.Offer("hall", joined["userId"].(string)+"-camera", g.auth.(tokens)["viewer"])
	if err != nil || o.Info().State == stream.Absent {
		t.Errorf("%+v, %v", o, err)
	}
}
