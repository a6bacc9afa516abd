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
	peer *webrtc.PeerConnection
	mu   sync.Mutex // held while it negotiates; guards below
	all  []*Publication
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

// only has a track offered in its own codec: the gateway takes the first that it can.
func only(t *webrtc.RTPTransceiver, track webrtc.TrackLocal) error {
	coded, ok := track.(interface {
		Codec() webrtc.RTPCodecCapability
	})
	if !ok {
		return nil
	}
	var codecs []webrtc.RTPCodecParameters
	for _, c := range t.Sender().GetParameters().Codecs {
		if strings.EqualFold(c.MimeType, coded.Codec().MimeType) {
			codecs = append(codecs, c)
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
	c.sender = &publisher{peer: peer}
	return c.sender, nil
}

// offer negotiates what is sent. The publisher's mu is held.
func (c *Client) offer(ctx context.Context, s *publisher) error {
	offer, err := s.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(s.peer)
	if err := s.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return ctx.Err()
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
	got, err := c.request(ctx, map[string]any{"type": "offer", "sdp": s.peer.LocalDescription().SDP, "streams": streams})
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
	return s.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: got.SDP})
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
