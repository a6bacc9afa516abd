package client

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
)

const (
	mendEvery  = 5 * time.Second  // as long as a connection is down
	mendWithin = 30 * time.Second // an offer is answered, perhaps on another socket
	probing    = 5 * time.Second  // a ping's answer is waited for
)

// publisher is what the client sends, on one connection after the other. From the first
// stream on a goroutine looks after the connection.
type publisher struct {
	client *Client
	once   sync.Once     // begins the goroutine
	stir   chan struct{} // takes one: a connection's state has changed

	mu  sync.Mutex // held while it negotiates; guards below
	all []*Publication
}

// upstream is one connection on which the client sends.
type upstream struct {
	client *Client
	peer   *webrtc.PeerConnection
	lost   atomic.Bool // the gateway has given it up, or it is in no known state
	stood  atomic.Bool // ICE was connected once
	tried  time.Time   // when the last offer was made; guarded by the publisher's mu

	trickle sync.Mutex // guards below; held while candidates are sent or taken
	out     bool       // an offer is out, or there was none yet: candidates of both sides belong behind its answer
	found   []*webrtc.ICECandidate
	come    []webrtc.ICECandidateInit
}

// begin begins the goroutine that looks after the connection.
func (s *publisher) begin() (err error) {
	s.once.Do(func() { err = s.client.begin(s.tend) })
	return err
}

// tend looks after the connection until the client ends.
func (s *publisher) tend() {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stir:
		case <-tick.C:
		case <-s.client.ctx.Done():
			return
		}
		if s.mend() {
			tick.Reset(mendEvery)
		}
	}
}

// mend does what the connection needs, if it needs something: another path by an ICE
// restart (RFC 8445 §9), or, where ICE has failed or the gateway has given it up, another
// connection. What fails for the moment is tried again.
func (s *publisher) mend() (busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.well() {
		return false
	}
	ctx, cancel := context.WithTimeout(s.client.ctx, mendWithin)
	defer cancel()
	s.client.probe(ctx) // what has cut the media may have cut the socket
	if s.well() {
		return true // by itself
	}
	err := s.negotiate(ctx, true)
	var refused *Error
	if errors.As(err, &refused) && !passing(refused) && refused.Code != "bad-state" { // which is told while ICE is just beginning
		for _, p := range s.all {
			p.end(err)
		}
		s.all = nil
		s.tidy()
	}
	return true
}

// well tells whether there is nothing to mend. The caller holds mu.
func (s *publisher) well() bool {
	u := s.client.upstream()
	if u == nil {
		return len(s.all) == 0
	}
	return !u.dead() && !u.astray()
}

// negotiate offers all that is published on the connection that there is, with an ICE
// restart if that is asked for, or on a new one where there is none or it is dead. The
// caller holds mu.
func (s *publisher) negotiate(ctx context.Context, restart bool) error {
	u := s.client.upstream()
	if u == nil || u.dead() {
		var err error
		if u, err = s.connect(ctx); err != nil {
			return err
		}
		restart = false
	}
	for _, p := range s.all {
		if p.on != u {
			if err := p.attach(u); err != nil {
				return err
			}
		}
	}
	err := s.offer(ctx, u, restart)
	if err != nil && u.peer.RemoteDescription() == nil {
		err = errors.Join(err, s.client.hangUp(u)) // the gateway doesn't know of it
	}
	return err
}

// connect makes another connection, in the place of the one that there is.
func (s *publisher) connect(ctx context.Context) (*upstream, error) {
	c := s.client
	if err := c.hangUp(c.upstream()); err != nil {
		return nil, err
	}
	for _, p := range s.all { // of which the gateway may think still that they come by the other
		if p.Name != "" {
			var refused *Error
			if err := c.order(ctx, map[string]any{"type": "unpublish", "stream": p.Name}); err != nil && !errors.As(err, &refused) {
				return nil, err
			}
		}
	}
	peer, err := c.options.API.NewPeerConnection(c.configuration())
	if err != nil {
		return nil, err
	}
	u := &upstream{client: c, peer: peer, out: true}
	peer.OnICECandidate(u.candidate)
	peer.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		if state == webrtc.ICEConnectionStateConnected {
			u.stood.Store(true)
		}
		s.poke()
	})
	peer.OnConnectionStateChange(func(webrtc.PeerConnectionState) { s.poke() })
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := context.Cause(c.ctx); err != nil {
		return nil, errors.Join(err, peer.Close())
	}
	c.sender = u
	return u, nil
}

func (s *publisher) poke() {
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// tidy lets a connection go that nothing is sent on. The caller holds mu.
func (s *publisher) tidy() error {
	if len(s.all) > 0 {
		return nil
	}
	return s.client.hangUp(s.client.upstream())
}

// upstream is the connection on which the client sends; nil: none.
func (c *Client) upstream() *upstream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sender
}

// hangUp ends a connection, if there is one, and waits until it has ended.
func (c *Client) hangUp(u *upstream) error {
	if u == nil {
		return nil
	}
	c.mu.Lock()
	if c.sender == u {
		c.sender = nil
	}
	c.mu.Unlock()
	if err := u.peer.GracefulClose(); !errors.Is(err, webrtc.ErrConnectionClosed) {
		return err
	}
	return nil // it had ended by itself
}

// offer negotiates what is sent. What is refused changes nothing: pion knows no rollback
// (RFC 9429 §4.1.10.2), so the offer is made the connection's own once the gateway has taken
// it. The publisher's mu is held.
func (s *publisher) offer(ctx context.Context, u *upstream, restart bool) error {
	u.hold()
	defer u.release()
	u.tried = time.Now()
	offer, err := u.peer.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
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
	got, err := s.client.request(ctx, map[string]any{"type": "offer", "sdp": offer.SDP, "streams": streams})
	if err != nil {
		return err
	}
	var names struct {
		Streams []struct{ Label, Name string }
	}
	if err := json.Unmarshal(got.raw, &names); err != nil {
		return err
	}
	for _, p := range s.all {
		for _, n := range names.Streams {
			if n.Label == p.Label && n.Name != p.Name { // once: others read it
				p.Name = n.Name
			}
		}
	}
	err = u.peer.SetLocalDescription(offer)
	if err == nil {
		err = u.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: got.SDP})
	}
	if err != nil {
		u.lost.Store(true) // the gateway goes by what this connection hasn't taken
	}
	return err
}

// dead tells whether nothing can come of a connection any more: ICE has failed, the
// gateway has closed it (RFC 8446 §6.1), or says that it has given it up.
func (u *upstream) dead() bool {
	s := u.peer.ConnectionState()
	return u.lost.Load() || s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateClosed
}

// astray tells whether the connection has lost its path, and hasn't found another for
// some time. The publisher's mu is held.
func (u *upstream) astray() bool {
	switch u.peer.ICEConnectionState() {
	case webrtc.ICEConnectionStateDisconnected, webrtc.ICEConnectionStateFailed:
		return true
	case webrtc.ICEConnectionStateChecking:
		return u.stood.Load() && time.Since(u.tried) >= mendEvery
	}
	return false
}

// hold keeps candidates until release.
func (u *upstream) hold() {
	u.trickle.Lock()
	defer u.trickle.Unlock()
	u.out = true
}

// release sends and takes what was kept.
func (u *upstream) release() {
	u.trickle.Lock()
	defer u.trickle.Unlock()
	if u.peer.RemoteDescription() == nil {
		return // the first offer was refused
	}
	for _, one := range u.found {
		u.send(one)
	}
	for _, one := range u.come {
		u.peer.AddICECandidate(one) // one that isn't understood is as one that doesn't lead anywhere
	}
	u.out, u.found, u.come = false, nil, nil
}

// candidate sends a candidate of the client's, once the gateway knows of the connection.
// nil: there are no more.
func (u *upstream) candidate(found *webrtc.ICECandidate) {
	u.trickle.Lock()
	defer u.trickle.Unlock()
	if u.out {
		u.found = append(u.found, found)
	} else {
		u.send(found)
	}
}

// send is candidate for one that may go. The caller holds trickle.
func (u *upstream) send(found *webrtc.ICECandidate) {
	m := map[string]any{"type": "ice-candidate", "connection": "publish", "candidate": nil}
	if found != nil {
		m["candidate"] = found.ToJSON()
	}
	u.client.send(m)
}

// take takes a candidate of the gateway's.
func (u *upstream) take(candidate webrtc.ICECandidateInit) {
	u.trickle.Lock()
	defer u.trickle.Unlock()
	if u.out {
		u.come = append(u.come, candidate)
		return
	}
	u.peer.AddICECandidate(candidate) // as above
}

// givenUp takes note that the gateway has ended the connection. One that it hasn't
// answered yet isn't the one that it means.
func (u *upstream) givenUp() {
	u.trickle.Lock()
	defer u.trickle.Unlock()
	if u.peer.RemoteDescription() != nil {
		u.lost.Store(true)
	}
}

// probe has the socket replaced if nothing comes back by it.
func (c *Client) probe(ctx context.Context) {
	c.mu.Lock()
	socket := c.socket
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, probing)
	defer cancel()
	if _, err := c.request(ctx, map[string]any{"type": "ping"}); errors.Is(err, context.DeadlineExceeded) {
		socket.Close() // the reader takes the session up on another
	}
}
