package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// publisher is the connection on which the client sends.
type publisher struct {
	client *Client
	peer   *webrtc.PeerConnection
	mu     sync.Mutex // held while it negotiates; guards below
	all    []*Publication

	trickle sync.Mutex // guards below; held while candidates are sent or taken
	offered bool       // the gateway has the first offer: candidates may follow
	found   []*webrtc.ICECandidate
	come    []webrtc.ICECandidateInit // of the gateway, before its answer was taken
}

// candidate sends a candidate of the client's, once the gateway knows of the connection.
// nil: there are no more.
func (s *publisher) candidate(found *webrtc.ICECandidate) {
	s.trickle.Lock()
	defer s.trickle.Unlock()
	if s.offered {
		s.send(found)
	} else {
		s.found = append(s.found, found)
	}
}

// send is candidate for one that may go. The caller holds trickle.
func (s *publisher) send(found *webrtc.ICECandidate) {
	m := map[string]any{"type": "ice-candidate", "connection": "publish", "candidate": nil}
	if found != nil {
		m["candidate"] = found.ToJSON()
	}
	s.client.send(m)
}

// sent takes note that the gateway has been sent an offer.
func (s *publisher) sent() {
	s.trickle.Lock()
	defer s.trickle.Unlock()
	for _, one := range s.found {
		s.send(one)
	}
	s.offered, s.found = true, nil
}

// take takes a candidate of the gateway's.
func (s *publisher) take(candidate webrtc.ICECandidateInit) {
	s.trickle.Lock()
	defer s.trickle.Unlock()
	if s.peer.RemoteDescription() == nil {
		s.come = append(s.come, candidate)
		return
	}
	s.peer.AddICECandidate(candidate) // one that isn't understood is as one that doesn't lead anywhere
}

// answered takes the gateway's answer, and what came before it was taken.
func (s *publisher) answered(sdp string) error {
	s.trickle.Lock()
	defer s.trickle.Unlock()
	if err := s.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}); err != nil {
		return err
	}
	for _, candidate := range s.come {
		s.peer.AddICECandidate(candidate) // likewise
	}
	s.come = nil
	return nil
}

// Publication is one stream that is published.
type Publication struct {
	Name      string // in the room
	Label     string
	title     string
	client    *Client
	senders   []*webrtc.RTPTransceiver
	keyframes chan struct{}
}

// Publish sends tracks as a stream of the room, under a label of this participant's
// ([a-z0-9-]{1,32}, such as "camera"); others see it as Name. It returns when the
// gateway has agreed; what is written to the tracks before the connection stands is
// lost.
func (c *Client) Publish(ctx context.Context, label, title string, tracks ...webrtc.TrackLocal) (*Publication, error) {
	s, err := c.sending()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Publication{Label: label, title: title, client: c, keyframes: make(chan struct{}, 1)}
	for _, track := range tracks {
		t, err := s.peer.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return nil, fmt.Errorf("publish %s: %w", label, err)
		}
		if err := only(t, track); err != nil {
			return nil, fmt.Errorf("publish %s: %w", label, err)
		}
		p.senders = append(p.senders, t)
		c.wait.Go(func() { p.listen(t.Sender()) })
	}
	s.all = append(s.all, p)
	if err := c.offer(ctx, s); err != nil {
		for _, t := range p.senders {
			err = errors.Join(err, t.Stop())
		}
		s.all = slices.DeleteFunc(s.all, func(q *Publication) bool { return p == q })
		return nil, fmt.Errorf("publish %s: %w", label, err)
	}
	return p, nil
}

// only has a track offered in its own codec, with its retransmissions (RFC 4588): the
// gateway takes the first that it can.
func only(t *webrtc.RTPTransceiver, track webrtc.TrackLocal) error {
	coded, ok := track.(interface {
		Codec() webrtc.RTPCodecCapability
	})
	if !ok {
		return nil
	}
	var codecs []webrtc.RTPCodecParameters
	all := t.Sender().GetParameters().Codecs
	for _, c := range all {
		if !strings.EqualFold(c.MimeType, coded.Codec().MimeType) {
			continue
		}
		codecs = append(codecs, c)
		for _, again := range all {
			if strings.EqualFold(again.MimeType, webrtc.MimeTypeRTX) && again.SDPFmtpLine == fmt.Sprintf("apt=%d", c.PayloadType) {
				codecs = append(codecs, again)
			}
		}
	}
	return t.SetCodecPreferences(codecs)
}

// sending is the connection on which the client sends, made with the first stream.
func (c *Client) sending() (*publisher, error) {
	conf := c.configuration()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := context.Cause(c.ctx); err != nil {
		return nil, err
	}
	if c.sender != nil {
		return c.sender, nil
	}
	peer, err := c.options.API.NewPeerConnection(conf)
	if err != nil {
		return nil, err
	}
	c.sender = &publisher{client: c, peer: peer}
	peer.OnICECandidate(c.sender.candidate)
	return c.sender, nil
}

// offer negotiates what is sent. The publisher's mu is held.
func (c *Client) offer(ctx context.Context, s *publisher) error {
	offer, err := s.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := s.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	type stream struct {
		Label string   `json:"label"`
		Title string   `json:"title,omitempty"`
		Mids  []string `json:"mids"`
	}
	streams := []stream{}
	for _, p := range s.all {
		mids := []string{}
		for _, t := range p.senders {
			mids = append(mids, t.Mid())
		}
		streams = append(streams, stream{p.Label, p.title, mids})
	}
	got, err := c.ask(ctx, s.sent, map[string]any{"type": "offer", "sdp": s.peer.LocalDescription().SDP, "streams": streams})
	if err != nil {
		return errors.Join(err, s.peer.SetLocalDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeRollback}))
	}
	var names struct {
		Streams []struct{ Label, Name string }
	}
	if err := json.Unmarshal(got.raw, &names); err != nil {
		return err
	}
	for _, p := range s.all {
		for _, n := range names.Streams {
			if n.Label == p.Label {
				p.Name = n.Name
			}
		}
	}
	return s.answered(got.SDP)
}

// listen waits for wishes of the gateway until the sender ends.
func (p *Publication) listen(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, m := range packets {
			switch m.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				select {
				case p.keyframes <- struct{}{}:
				default:
				}
			}
		}
	}
}

// Keyframes has a value when a viewer needs a keyframe. One that waits stands for
// all that came since.
func (p *Publication) Keyframes() <-chan struct{} { return p.keyframes }

// Close ends the stream.
func (p *Publication) Close(ctx context.Context) error {
	p.client.mu.Lock()
	s := p.client.sender
	p.client.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.all, p) {
		return nil
	}
	s.all = slices.DeleteFunc(s.all, func(q *Publication) bool { return p == q })
	err := p.client.order(ctx, map[string]any{"type": "unpublish", "stream": p.Name})
	for _, t := range p.senders {
		err = errors.Join(err, t.Stop())
	}
	return err
}
