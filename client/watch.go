package client

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// waitingPackets is how many packets a track keeps for a reader that is behind.
const waitingPackets = 1024

// Watch is one stream that is watched.
type Watch struct {
	Stream string
	client *Client
	tracks chan *Track
	ended  chan struct{} // closed by finish
	err    error         // set before ended is closed
}

// Track is one kind of media of a watched stream, as it comes: a switch to another
// rendition or codec goes on in the same track.
type Track struct {
	Stream  string
	Kind    webrtc.RTPCodecType
	ssrc    webrtc.SSRC
	peer    *webrtc.PeerConnection
	packets chan Packet
	ended   chan struct{} // closed when the stream has left the m-line, or the connection is closed
	dropped atomic.Int64
}

// Packet is an RTP packet with the codec that its payload type stands for.
type Packet struct {
	*rtp.Packet
	Codec webrtc.RTPCodecCapability
}

// Watch has a stream of the room sent, in a rendition, "" for what the gateway finds
// best. To watch what is watched already changes the rendition; in the room of a
// pipeline its stream is watched from the start. It returns when the gateway has
// agreed; the tracks come after that.
func (c *Client) Watch(ctx context.Context, stream, rendition string) (*Watch, error) {
	c.mu.Lock()
	if stream == c.atOnce && stream != "" && rendition == "" {
		defer c.mu.Unlock()
		return c.watch(stream), nil
	}
	c.mu.Unlock()
	m := map[string]any{"type": "watch", "stream": stream}
	if rendition != "" {
		m["rendition"] = rendition
	}
	if _, err := c.request(ctx, m); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watch(stream), nil
}

// watch is what is kept of a stream, from the moment on at which the gateway says
// that it is watched: its packets may be here before whoever asked. The caller holds mu.
func (c *Client) watch(stream string) *Watch {
	w := c.watches[stream]
	if w == nil {
		w = &Watch{Stream: stream, client: c, tracks: make(chan *Track, 16), ended: make(chan struct{})}
		c.watches[stream] = w
		if err := context.Cause(c.ctx); err != nil {
			w.finish(err)
		}
	}
	return w
}

// finish ends a watch. The client's mu is held.
func (w *Watch) finish(err error) {
	select {
	case <-w.ended:
	default:
		w.err = err
		close(w.ended)
	}
}

// Track waits for the next track of the stream: one a kind, and another when the
// gateway has put it in another place. When the stream isn't watched any more the
// error tells why: io.EOF after Close.
func (w *Watch) Track(ctx context.Context) (*Track, error) {
	select {
	case t := <-w.tracks:
		return t, nil
	case <-w.ended:
		return nil, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Select asks for a rendition by name, or "auto".
func (w *Watch) Select(ctx context.Context, rendition string) error {
	_, err := w.client.request(ctx, map[string]any{"type": "select", "stream": w.Stream, "rendition": rendition})
	return err
}

// View tells how large the picture is shown, in pixels, so that no more is sent than
// that is worth; 0 for one that isn't seen now.
func (w *Watch) View(ctx context.Context, width, height int) error {
	return w.client.order(ctx, map[string]any{"type": "view", "stream": w.Stream, "width": width, "height": height, "visible": width > 0 && height > 0})
}

// Close ends the stream's being sent.
func (w *Watch) Close(ctx context.Context) error {
	_, err := w.client.request(ctx, map[string]any{"type": "unwatch", "stream": w.Stream})
	return err
}

// unwatched ends a watch, by its own Close or because it can't go on.
func (c *Client) unwatched(m message) {
	why := error(io.EOF)
	if m.Reason != "" {
		why = &Error{Code: m.Reason, Message: m.Message}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stream := m.streamOf()
	if stream == c.atOnce {
		c.atOnce = ""
	}
	if w := c.watches[stream]; w != nil {
		w.finish(why)
		delete(c.watches, stream)
	}
}

// Read waits for the next packet. io.EOF: the track has ended; perhaps another one
// carries the stream on. A reader that is more than about a thousand packets behind
// loses what comes; Dropped counts it.
func (t *Track) Read(ctx context.Context) (Packet, error) {
	select {
	case p := <-t.packets:
		return p, nil
	default:
	}
	select {
	case p := <-t.packets:
		return p, nil
	case <-t.ended:
		return Packet{}, io.EOF
	case <-ctx.Done():
		return Packet{}, ctx.Err()
	}
}

// Dropped is how many packets the reader was too slow for.
func (t *Track) Dropped() int64 { return t.dropped.Load() }

// RequestKeyframe asks for a picture that needs no other (RFC 4585 §6.3.1).
func (t *Track) RequestKeyframe() error {
	return t.peer.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(t.ssrc)}})
}

// receive answers an offer of the gateway, on the reader's goroutine: the candidates
// that come behind it need it.
func (c *Client) receive(m message) {
	peer, err := c.receiving()
	if err == nil {
		err = c.answer(peer, m)
	}
	if err != nil && c.ctx.Err() == nil {
		c.end(err)
	}
}

// receiving is the connection on which the gateway sends, made with the first offer.
func (c *Client) receiving() (*webrtc.PeerConnection, error) {
	c.mu.Lock()
	peer := c.receiver
	c.mu.Unlock()
	if peer != nil {
		return peer, nil
	}
	peer, err := c.options.API.NewPeerConnection(c.configuration())
	if err != nil {
		return nil, err
	}
	peer.OnICECandidate(c.trickle)
	peer.OnDataChannel(c.channel)
	peer.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateDisconnected || s == webrtc.ICEConnectionStateFailed {
			c.send(map[string]any{"type": "restart-ice"}) // the network has changed, perhaps
			_ = c.begin(func() { c.probe(c.ctx) })        // which has ended, else
		}
	})
	peer.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		c.mu.Lock()
		ended := c.ctx.Err() != nil
		if !ended {
			c.wait.Add(1)
		}
		c.mu.Unlock()
		if !ended {
			defer c.wait.Done()
			c.carry(peer, remote, receiver)
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, errors.Join(context.Cause(c.ctx), peer.Close())
	}
	c.receiver = peer
	return peer, nil
}

func (c *Client) configuration() webrtc.Configuration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var conf webrtc.Configuration
	if c.joined == nil {
		return conf
	}
	for _, s := range c.joined.ICEServers {
		conf.ICEServers = append(conf.ICEServers, webrtc.ICEServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	if c.joined.ICEPolicy == "relay" {
		conf.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	return conf
}

func (c *Client) answer(peer *webrtc.PeerConnection, m message) error {
	plan := make(map[string]place)
	for _, p := range m.Tracks {
		plan[p.Mid] = p
	}
	c.mu.Lock()
	c.plan = plan
	c.mu.Unlock()
	if err := peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: resting(peer, m.SDP)}); err != nil {
		return err
	}
	for _, t := range peer.GetTransceivers() {
		if err := t.SetCodecPreferences(nil); err != nil { // pion keeps to those of the first offer, browsers don't
			return err
		}
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := peer.SetLocalDescription(answer); err != nil {
		return err
	}
	c.send(map[string]any{"type": "answer", "sdp": answer.SDP}) // a socket that is broken is the reader's
	return nil
}

// resting is an offer in which m-lines that carry nothing now only receive. pion stops the
// receiver of one that is inactive, for good if it is so in two offers, one after the other;
// the gateway takes such lines again for other streams.
func resting(peer *webrtc.PeerConnection, offer string) string {
	sections := strings.Split(offer, "\r\nm=")
	for _, t := range peer.GetTransceivers() {
		for i, section := range sections {
			if strings.Contains(section+"\r\n", "\r\na=mid:"+t.Mid()+"\r\n") {
				sections[i] = strings.Replace(section, "\r\na=inactive", "\r\na=recvonly", 1)
			}
		}
	}
	return strings.Join(sections, "\r\nm=")
}

// trickle sends a candidate of the receiving connection.
func (c *Client) trickle(candidate *webrtc.ICECandidate) {
	m := map[string]any{"type": "ice-candidate", "candidate": nil}
	if candidate != nil {
		m["candidate"] = candidate.ToJSON()
	}
	c.send(m)
}

// candidate takes one of the gateway's.
func (c *Client) candidate(m message) {
	if m.Candidate == nil {
		return
	}
	c.mu.Lock()
	peer, sender := c.receiver, c.sender
	c.mu.Unlock()
	if m.Connection == "publish" {
		if sender != nil {
			sender.take(*m.Candidate)
		}
		return
	}
	if peer != nil && peer.RemoteDescription() != nil {
		peer.AddICECandidate(*m.Candidate) // one that isn't understood is as one that doesn't lead anywhere
	}
}

// carry reads a track of the connection until it ends, and gives its packets to the
// stream that has its m-line: the gateway may use that for another one later.
func (c *Client) carry(peer *webrtc.PeerConnection, remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	var current *Track
	var whose *Watch
	defer func() {
		if current != nil {
			close(current.ended)
		}
	}()
	c.wait.Go(func() { // RTCP is for pion's interceptors
		b := make([]byte, 1500)
		for {
			if _, _, err := receiver.Read(b); err != nil {
				return
			}
		}
	})
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		transceiver := receiver.RTPTransceiver()
		if transceiver == nil {
			return // another receiver has its place
		}
		mid := transceiver.Mid()
		c.mu.Lock()
		watch := c.watches[c.plan[mid].Stream]
		if watch == nil {
			c.mu.Unlock()
			continue
		}
		if watch != whose {
			if current != nil {
				close(current.ended)
			}
			whose = watch
			current = &Track{
				Stream: watch.Stream, Kind: remote.Kind(), ssrc: remote.SSRC(), peer: peer,
				packets: make(chan Packet, waitingPackets), ended: make(chan struct{}),
			}
			select {
			case watch.tracks <- current:
			default: // nobody has taken the last sixteen
			}
		}
		c.mu.Unlock()
		select {
		case current.packets <- Packet{p, remote.Codec().RTPCodecCapability}:
		default:
			current.dropped.Add(1)
		}
	}
}
