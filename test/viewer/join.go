package viewer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
)

// conversation is a viewer's WebSocket (docs/protocol.md).
type conversation struct {
	socket *websocket.Conn
	begun  chan struct{} // closed when the first offer is answered
	ended  chan struct{} // closed when nothing is read any more
	err    error         // why, once ended is closed; nil: the gateway said "left"

	mu sync.Mutex // held across a write
}

// said is a message of the gateway, as far as a viewer cares.
type said struct {
	Type, SDP, Code, Message, Reason string
	Fatal                            bool
	Candidate                        *webrtc.ICECandidateInit
}

// Join watches a stream as the gateway's page does: over the WebSocket of o.URL,
// whose further offers are answered too, so that the viewer stays through a change
// of codec. It returns when the first offer has been answered.
func Join(ctx context.Context, o Options, stream string) (*Viewer, error) {
	v, err := newViewer(&o)
	if err != nil {
		return nil, err
	}
	if err := v.join(ctx, o, stream); err != nil {
		return nil, errors.Join(fmt.Errorf("join %s: %w", stream, err), v.Close())
	}
	return v, nil
}

func (v *Viewer) join(ctx context.Context, o Options, stream string) error {
	dialer := websocket.Dialer{NetDialContext: o.Dial}
	socket, _, err := dialer.DialContext(ctx, o.URL, nil)
	if err != nil {
		return err
	}
	c := &conversation{socket: socket, begun: make(chan struct{}), ended: make(chan struct{})}
	v.conversation = c
	go func() {
		defer close(c.ended)
		c.err = c.listen(v)
	}()
	offered := map[string][]string{}
	for _, codec := range o.Codecs {
		kind := codec.Kind().String()
		offered[kind] = append(offered[kind], codecs[codec][0].MimeType)
	}
	v.Posted = time.Now()
	if err := c.say(map[string]any{"type": "join", "roomId": stream, "version": 1, "codecs": offered}); err != nil {
		return err
	}
	select {
	case <-c.begun:
		return nil
	case <-c.ended:
		return fmt.Errorf("it ended: %w", c.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *conversation) say(message any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.socket.WriteJSON(message)
}

// listen reads until the conversation ends.
func (c *conversation) listen(v *Viewer) error {
	for {
		var m said
		if err := c.socket.ReadJSON(&m); err != nil {
			return err
		}
		switch m.Type {
		case "joined":
			v.Joined = time.Now()
		case "offer":
			if err := c.answer(v, m.SDP); err != nil {
				return err
			}
		case "ice-candidate":
			if m.Candidate == nil {
				continue
			}
			if err := v.peer.AddICECandidate(*m.Candidate); err != nil {
				return err
			}
		case "error":
			if m.Fatal {
				return fmt.Errorf("%s: %s", m.Code, m.Message)
			}
		case "left":
			if m.Reason == "leave" {
				return nil
			}
			return fmt.Errorf("left: %s", m.Reason)
		}
	}
}

func (c *conversation) answer(v *Viewer, offer string) error {
	if err := v.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return err
	}
	for _, t := range v.peer.GetTransceivers() {
		if err := t.SetCodecPreferences(nil); err != nil { // pion keeps to those of the first offer, browsers don't
			return err
		}
	}
	answer, err := v.peer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(v.peer)
	if err := v.peer.SetLocalDescription(answer); err != nil {
		return err
	}
	<-gathered // host candidates only, and none a second time
	if err := c.say(map[string]any{"type": "answer", "sdp": v.peer.LocalDescription().SDP}); err != nil {
		return err
	}
	select {
	case <-c.begun:
	default:
		v.Answered = time.Now()
		close(c.begun)
	}
	return nil
}

// close leaves, and ends the goroutine that listens.
func (c *conversation) close() error {
	defer c.socket.Close()
	select {
	case <-c.ended:
		return c.err
	default:
	}
	c.socket.SetReadDeadline(time.Now().Add(5 * time.Second))
	c.say(map[string]any{"type": "leave"}) // listen tells what is wrong with the socket
	<-c.ended
	return c.err
}
