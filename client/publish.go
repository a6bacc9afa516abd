package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// Publication is one stream that is published. It outlives the connection that it is
// sent on: where the path is lost ICE is restarted, and where that doesn't help its tracks
// are sent on a new connection, under the same name. Viewers see the stream end and start
// again in the latter case only.
type Publication struct {
	Name      string // in the room
	Label     string
	title     string
	client    *Client
	tracks    []webrtc.TrackLocal
	keyframes chan struct{}
	ctx       context.Context // ends with the publication
	end       context.CancelCauseFunc

	// below: guarded by the publisher's mu
	on      *upstream // the connection that senders are of; nil: none yet
	senders []*webrtc.RTPTransceiver
}

// Publish sends tracks as a stream of the room, under a label of this participant's
// ([a-z0-9-]{1,32}, such as "camera"); others see it as Name. It returns when the
// gateway has agreed; what is written to the tracks while the connection doesn't stand
// is lost.
func (c *Client) Publish(ctx context.Context, label, title string, tracks ...webrtc.TrackLocal) (*Publication, error) {
	s := &c.publisher
	if err := s.begin(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Publication{Label: label, title: title, client: c, tracks: tracks, keyframes: make(chan struct{}, 1)}
	p.ctx, p.end = context.WithCancelCause(c.ctx)
	s.all = append(s.all, p)
	if err := s.negotiate(ctx, false); err != nil {
		p.end(err)
		s.all = slices.DeleteFunc(s.all, func(q *Publication) bool { return p == q })
		return nil, fmt.Errorf("publish %s: %w", label, errors.Join(err, p.stop(), s.tidy()))
	}
	return p, nil
}

// attach has a connection send the tracks.
func (p *Publication) attach(u *upstream) error {
	p.on, p.senders = u, nil
	for _, track := range p.tracks {
		t, err := u.peer.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return err
		}
		p.senders = append(p.senders, t)
		if err := only(t, track); err != nil {
			return err
		}
		if err := p.client.begin(func() { p.listen(t.Sender()) }); err != nil {
			return err
		}
	}
	return nil
}

// stop has nothing sent any more.
func (p *Publication) stop() (err error) {
	for _, t := range p.senders {
		err = errors.Join(err, t.Stop())
	}
	p.senders = nil
	return err
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

// Done is closed when the stream has ended for good. Err tells why.
func (p *Publication) Done() <-chan struct{} { return p.ctx.Done() }

// Err is why the stream has ended: io.EOF after Close, an *Error where the gateway doesn't
// take it any more ("forbidden": a host has taken that back, for one), or what ended the
// client. nil while it goes on.
func (p *Publication) Err() error { return context.Cause(p.ctx) }

// Close ends the stream.
func (p *Publication) Close(ctx context.Context) error {
	s := &p.client.publisher
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.all, p) {
		return nil
	}
	s.all = slices.DeleteFunc(s.all, func(q *Publication) bool { return p == q })
	p.end(io.EOF)
	err := p.client.order(ctx, map[string]any{"type": "unpublish", "stream": p.Name})
	return errors.Join(err, p.stop(), s.tidy())
}
