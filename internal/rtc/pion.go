package rtc

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/contain"
)

// peerConnection is the connection that works everywhere: pion's, with full ICE.
type peerConnection struct {
	*webrtc.PeerConnection
	viewer       *Viewer
	transceivers map[*track]*webrtc.RTPTransceiver // guarded by the negotiation lock
}

func (e *Engine) newPeerConnection(v *Viewer, c *certificate) (*peerConnection, error) {
	own := e.settings
	own.SetICEUDPMux(viewerMux{e.sockets, v, v.o.Elsewhere})
	own.BufferFactory = v.buffer
	own.LoggerFactory = sealedLog{pionLog{e.log}, v.end}
	// pion calls from a goroutine for each change, in any order
	pc, err := e.connect(own, c, v.relays, v.refresh, v.o.OnCandidate)
	if err != nil {
		return nil, err
	}
	return &peerConnection{pc, v, map[*track]*webrtc.RTPTransceiver{}}, nil
}

// connect makes a PeerConnection; refresh is called at each change of its state,
// trickle, if it isn't nil, with each candidate.
func (e *Engine) connect(own webrtc.SettingEngine, c *certificate, r *relays, refresh func(), trickle func(*Candidate)) (*webrtc.PeerConnection, error) {
	if r != nil {
		own.SetRemoteIPFilter(r.admit)
	}
	api := webrtc.NewAPI(
		webrtc.WithSettingEngine(own),
		webrtc.WithMediaEngine(e.codecs),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}),
	)
	pc, err := api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{webrtc.CertificateFromX509(c.tls.PrivateKey, c.tls.Leaf)}})
	if err != nil {
		return nil, fmt.Errorf("peer connection: %w", err)
	}
	pc.OnConnectionStateChange(func(webrtc.PeerConnectionState) { refresh() })
	if trickle == nil {
		return pc, nil
	}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		defer contain.Panic(e.log, "candidate", nil)
		if c == nil {
			trickle(nil)
			return
		}
		init := c.ToJSON()
		trickle(&Candidate{
			Candidate: init.Candidate, SDPMid: init.SDPMid, SDPMLineIndex: init.SDPMLineIndex, UsernameFragment: init.UsernameFragment,
		})
	})
	return pc, nil
}

func (p *peerConnection) join(t *track) (ssrc, rtxSSRC uint32, err error) {
	tr, err := p.AddTransceiverFromTrack(t, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return 0, 0, err
	}
	p.transceivers[t] = tr
	e := tr.Sender().GetParameters().Encodings[0]
	return uint32(e.SSRC), uint32(e.RTX.SSRC), nil
}

func (p *peerConnection) offer(restart bool) (string, error) {
	if restart {
		p.viewer.open.Store(false) // pion drops what is written until ICE is back; the source keeps it
	}
	d, err := p.CreateOffer(&webrtc.OfferOptions{
		OfferAnswerOptions: webrtc.OfferAnswerOptions{ICETricklingSupported: true}, ICERestart: restart,
	})
	if err != nil {
		return "", err
	}
	for t, tr := range p.transceivers {
		t.mid = tr.Mid()
	}
	return d.SDP, p.SetLocalDescription(d)
}

func (p *peerConnection) accept(r *remote) error {
	setup := r.setup
	if setup == "" {
		setup = "active"
	}
	d := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: r.forPion(r.sections, setup)}
	if err := p.SetRemoteDescription(d); err != nil {
		return err
	}
	p.begin()
	return nil
}

func (p *peerConnection) answer(ctx context.Context, r *remote, sections []*section, restart bool) (string, error) {
	if restart {
		p.viewer.open.Store(false) // as in offer
	}
	setup := r.setup
	if setup == "" {
		setup = "actpass"
	}
	if err := p.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: r.forPion(sections, setup)}); err != nil {
		return "", err
	}
	text, err := localAnswer(ctx, p.PeerConnection, true, p.viewer.log)
	if err != nil {
		return "", err
	}
	p.begin()
	return text, nil
}

// localAnswer makes the answer to the remote description, with all candidates that
// are found within 3 s if it is to gather.
func localAnswer(ctx context.Context, p *webrtc.PeerConnection, gather bool, log *slog.Logger) (string, error) {
	d, err := p.CreateAnswer(&webrtc.AnswerOptions{OfferAnswerOptions: webrtc.OfferAnswerOptions{ICETricklingSupported: true}})
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(p)
	if err := p.SetLocalDescription(d); err != nil {
		return "", err
	}
	if !gather {
		return d.SDP, nil
	}
	timeout := time.NewTimer(gatherTimeout)
	defer timeout.Stop()
	select {
	case <-gathered:
	case <-timeout.C:
		log.Warn("not all candidates were found in time", "waited", gatherTimeout)
	case <-ctx.Done():
		return "", ctx.Err()
	}
	local := p.LocalDescription()
	if local == nil {
		return "", ErrClosed
	}
	return local.SDP, nil
}

// begin shortens the time to the first packet of a new connection.
func (p *peerConnection) begin() {
	if !p.viewer.described && p.viewer.relays == nil { // the look's candidate would be filtered out
		v := p.viewer
		hurry(p.PeerConnection, func() bool { return v.open.Load() || v.Err() != nil })
	}
}

// restartable is false while pion's agent gathers (a data race) and before it has
// begun to connect, on another goroutine: that would bring back the last offer's
// credentials.
func (p *peerConnection) restartable() bool {
	return p.viewer.current() != StateNew && p.ICEGatheringState() != webrtc.ICEGatheringStateGathering
}

func (p *peerConnection) addCandidate(line string) error {
	return p.AddICECandidate(webrtc.ICECandidateInit{Candidate: line})
}

func (p *peerConnection) writeRTCP(packets []rtcp.Packet) error { return p.WriteRTCP(packets) }

func (p *peerConnection) close() error { return p.GracefulClose() }

func (p *peerConnection) state() State { return stateOf(p.PeerConnection) }

func stateOf(p *webrtc.PeerConnection) State {
	switch p.ConnectionState() {
	case webrtc.PeerConnectionStateConnecting:
		return StateConnecting
	case webrtc.PeerConnectionStateConnected:
		return StateConnected
	case webrtc.PeerConnectionStateDisconnected:
		return StateDisconnected
	case webrtc.PeerConnectionStateFailed:
		return StateFailed
	case webrtc.PeerConnectionStateClosed:
		return StateClosed
	}
	return StateNew
}

func (p *peerConnection) pair() (local, remote string) {
	pair, err := p.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return "", ""
	}
	return pair.Local.Typ.String(), pair.Remote.Typ.String()
}
