package signal

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// peer is a real PeerConnection that counts what it receives.
type peer struct {
	t       *testing.T
	pc      *webrtc.PeerConnection
	started chan struct{} // ICE has begun
	packets map[webrtc.RTPCodecType]chan struct{}
	reads   func(webrtc.RTPCodecType, *rtp.Packet)                 // called with each packet; set before the first offer
	from    func(mid string, t *webrtc.TrackRemote, p *rtp.Packet) // likewise
}

// newPeer makes one; options are func(*webrtc.API) or func(*webrtc.SettingEngine).
func newPeer(t *testing.T, options ...any) *peer {
	t.Helper()
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	if err := settings.SetAnsweringDTLSRole(webrtc.DTLSRoleClient); err != nil { // as browsers, also to an ICE-lite gateway
		t.Fatal(err)
	}
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	api := []func(*webrtc.API){webrtc.WithMediaEngine(codecsOfBrowsers(t))}
	for _, o := range options {
		switch o := o.(type) {
		case func(*webrtc.API):
			api = append(api, o)
		case func(*webrtc.SettingEngine):
			o(&settings)
		}
	}
	pc, err := webrtc.NewAPI(append(api, webrtc.WithSettingEngine(settings))...).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, pc: pc, started: make(chan struct{}), packets: map[webrtc.RTPCodecType]chan struct{}{
		webrtc.RTPCodecTypeVideo: make(chan struct{}, 1), webrtc.RTPCodecTypeAudio: make(chan struct{}, 1),
	}}
	var begun sync.Once
	pc.OnICEConnectionStateChange(func(webrtc.ICEConnectionState) { begun.Do(func() { close(p.started) }) })
	var readers sync.WaitGroup
	pc.OnTrack(func(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		readers.Add(2)
		defer readers.Done()
		go func() { // what comes as RTCP is for interceptors
			defer readers.Done()
			for {
				if _, _, err := receiver.ReadRTCP(); err != nil {
					return
				}
			}
		}()
		for {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			if p.reads != nil {
				p.reads(track.Kind(), packet)
			}
			if p.from != nil {
				p.from(receiver.RTPTransceiver().Mid(), track, packet)
			}
			poke(p.packets[track.Kind()])
		}
	})
	t.Cleanup(func() { pc.GracefulClose(); readers.Wait() })
	return p
}

func codecsOfBrowsers(t *testing.T) *webrtc.MediaEngine {
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	return m
}

// answer takes an offer and returns the answer with all candidates.
func (p *peer) answer(offer string) string {
	p.t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		p.t.Fatalf("offer: %v\n%s", err, offer)
	}
	for _, tr := range p.pc.GetTransceivers() {
		if err := tr.SetCodecPreferences(nil); err != nil { // pion keeps to those of the first offer, browsers don't
			p.t.Fatal(err)
		}
	}
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.pc.SetLocalDescription(answer); err != nil {
		p.t.Fatal(err)
	}
	return answer.SDP
}

// offer makes an offer that receives, with all its candidates.
func (p *peer) offer(kinds ...webrtc.RTPCodecType) string {
	p.t.Helper()
	for _, k := range kinds {
		if _, err := p.pc.AddTransceiverFromKind(k, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			p.t.Fatal(err)
		}
	}
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(offer); err != nil {
		p.t.Fatal(err)
	}
	p.await(gathered, "candidates")
	return p.pc.LocalDescription().SDP
}

// accept takes the answer to its offer.
func (p *peer) accept(answer string) {
	p.t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		p.t.Fatalf("answer: %v\n%s", err, answer)
	}
}

// sees waits for a packet of a kind that comes from now on.
func (p *peer) sees(kind webrtc.RTPCodecType) {
	p.t.Helper()
	select { // one that came earlier
	case <-p.packets[kind]:
	default:
	}
	p.await(p.packets[kind], kind.String())
}

func (p *peer) await(c <-chan struct{}, what string) {
	p.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		p.t.Fatalf("no %s", what)
	}
}

// watch joins a room over a WebSocket and stays until media comes.
func (g *gateway) watch(t *testing.T, room string) (*conversation, *peer) {
	t.Helper()
	c, p := g.dial(t), newPeer(t)
	c.join(room)
	p.negotiate(c, c.hear("offer"))
	p.sees(webrtc.RTPCodecTypeVideo)
	return c, p
}

// negotiate answers an offer and trickles both ways.
func (p *peer) negotiate(c *conversation, offer map[string]any) {
	p.t.Helper()
	var early []webrtc.ICECandidateInit
	var mu sync.Mutex
	answered := false
	say := func(i webrtc.ICECandidateInit) {
		c.try(map[string]any{"type": "ice-candidate", "candidate": i, "session": offer["session"]}) // the test may be over
	}
	p.pc.OnICECandidate(func(i *webrtc.ICECandidate) {
		if i == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !answered {
			early = append(early, i.ToJSON())
			return
		}
		say(i.ToJSON())
	})
	sdp := p.answer(offer["sdp"].(string))
	mu.Lock()
	c.say(map[string]any{"type": "answer", "sdp": sdp, "session": offer["session"]})
	for _, i := range early {
		say(i)
	}
	answered = true
	mu.Unlock()
	p.candidates(c)
}

// candidates takes the gateway's candidates.
func (p *peer) candidates(c *conversation) {
	p.t.Helper()
	for {
		m := c.hear("ice-candidate")
		if m["candidate"] == nil {
			return
		}
		data, _ := json.Marshal(m["candidate"])
		var init webrtc.ICECandidateInit
		if err := json.Unmarshal(data, &init); err != nil {
			p.t.Fatal(err)
		}
		if err := p.pc.AddICECandidate(init); err != nil {
			p.t.Fatal(err)
		}
	}
}
