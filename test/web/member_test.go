package web_test

import (
	"slices"

	"github.com/gorilla/websocket"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// member is a participant, over all of its sockets.
type member struct {
	hall          *hall
	id, name      string
	role, session string
	muted         []string
	conn          *websocket.Conn
	seq           int
	sent          []map[string]any
	watch, pub    *webrtc.PeerConnection
	senders       map[string][]*webrtc.RTPSender
	offers        int               // that were sent to it
	mids          map[string]string // of its publishing connection: the streams
	open          bool
	again         bool
	sockets       int
	heard         int // messages of its
}

// tell sends a message of the session; hall.mu is held.
func (m *member) tell(message map[string]any) {
	m.seq++
	numbered := map[string]any{"seq": m.seq, "roomId": "hall", "userId": m.id}
	for key, value := range message {
		numbered[key] = value
	}
	m.sent = append(m.sent, numbered)
	if m.conn != nil {
		m.conn.WriteJSON(numbered)
	}
}

func (m *member) send(message map[string]any) {
	m.hall.mu.Lock()
	defer m.hall.mu.Unlock()
	m.tell(message)
}

// about is how others see a member; hall.mu is held.
func (m *member) about() map[string]any {
	streams := []string{}
	for name, f := range m.hall.feeds {
		if f.Publisher == m.id {
			streams = append(streams, name)
		}
	}
	return map[string]any{"userId": m.id, "name": m.name, "role": m.role, "streams": streams, "muted": append([]string{}, m.muted...)}
}

// hear does what a message says; false when the member has left.
func (me *member) hear(m hallMessage) bool {
	h := me.hall
	switch m.Type {
	case "ping":
		h.mu.Lock()
		defer h.mu.Unlock()
		if me.conn != nil {
			me.conn.WriteJSON(map[string]any{"type": "pong"})
		}
	case "leave":
		h.remove(me, "leave")
		return false
	case "view":
		h.mu.Lock()
		h.views[me.name+" "+m.Stream] = m.sight
		h.mu.Unlock()
	case "watch":
		h.mu.Lock()
		f := h.feeds[m.Stream]
		if m.View != nil {
			h.views[me.name+" "+m.Stream] = *m.View
		}
		h.mu.Unlock()
		if f == nil {
			me.send(map[string]any{"type": "error", "code": "not-found", "message": "no such stream", "requestId": m.RequestID, "fatal": false})
			break
		}
		me.send(map[string]any{"type": "watching", "stream": m.Stream, "requestId": m.RequestID})
		me.watchFeed(f)
	case "unwatch":
		me.unwatch(m.Stream)
	case "answer":
		me.watch.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.SDP})
		h.mu.Lock()
		again := me.again
		me.open, me.again = false, false
		for _, f := range h.feeds {
			if f.wish != nil {
				f.wish()
			}
		}
		h.mu.Unlock()
		if again {
			me.offer(false)
		}
	case "restart-ice":
		me.offer(true)
	case "ice-candidate":
		pc := me.watch
		if m.Connection == "publish" {
			pc = me.pub
		}
		if pc != nil && m.Candidate != nil {
			pc.AddICECandidate(*m.Candidate)
		}
	case "offer":
		me.publish(m)
	case "unpublish":
		h.end(m.Stream)
		h.changed(me)
	case "mute":
		other := h.member(m.Target)
		if other == nil {
			break
		}
		h.mu.Lock()
		other.muted = slices.DeleteFunc(other.muted, func(kind string) bool { return kind == m.Kind })
		if m.On {
			other.muted = append(other.muted, m.Kind)
		}
		other.tell(map[string]any{"type": "muted", "kind": m.Kind, "on": m.On})
		h.mu.Unlock()
		h.changed(other)
	case "remove":
		if other := h.member(m.Target); other != nil {
			h.remove(other, "removed")
		}
	case "set-role":
		if other := h.member(m.Target); other != nil {
			h.mu.Lock()
			other.role = m.Role
			h.mu.Unlock()
			h.changed(other)
		}
	case "lock":
		h.mu.Lock()
		h.locked = m.On
		h.mu.Unlock()
		h.all(map[string]any{"type": "room", "room": map[string]any{"roomId": "hall", "title": "The hall", "state": "active", "locked": m.On}})
	case "close-room":
		h.mu.Lock()
		all := slices.Clone(h.members)
		h.mu.Unlock()
		for _, m := range all {
			h.remove(m, "room-closed")
		}
		return false
	}
	return true
}

func (h *hall) member(id string) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.members, func(m *member) bool { return m.id == id })
	if i < 0 {
		return nil
	}
	return h.members[i]
}

func (me *member) trickle(pc *webrtc.PeerConnection, connection string) {
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		message := map[string]any{"type": "ice-candidate", "session": me.session, "candidate": nil}
		if c != nil {
			message["candidate"] = c.ToJSON()
		}
		if connection != "" {
			message["connection"] = connection
		}
		me.send(message)
	})
}

func (me *member) watchFeed(f *feed) {
	me.hall.mu.Lock()
	if me.watch == nil {
		pc, err := me.hall.api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			panic(err)
		}
		me.watch = pc
		me.trickle(pc, "")
	}
	if me.senders[f.Name] == nil {
		for _, media := range f.media {
			transceiver, err := me.watch.AddTransceiverFromTrack(media, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
			if err != nil {
				panic(err)
			}
			me.senders[f.Name] = append(me.senders[f.Name], transceiver.Sender())
		}
	}
	me.hall.mu.Unlock()
	if len(f.media) > 0 {
		me.offer(false)
	}
}

func (me *member) unwatch(name string) {
	me.hall.mu.Lock()
	senders := me.senders[name]
	delete(me.senders, name)
	me.hall.mu.Unlock()
	if len(senders) == 0 {
		return
	}
	for _, sender := range senders {
		me.watch.RemoveTrack(sender)
	}
	me.offer(false)
}

// offer makes one offer after the other.
func (me *member) offer(restart bool) {
	me.hall.mu.Lock()
	if me.open {
		me.again = true
		me.hall.mu.Unlock()
		return
	}
	me.open = true
	me.offers++
	me.hall.mu.Unlock()
	offer, err := me.watch.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
		return
	}
	me.watch.SetLocalDescription(offer)
	me.send(map[string]any{"type": "offer", "session": me.session, "sdp": offer.SDP})
}

// publish answers an offer, and makes streams of what comes.
func (me *member) publish(m hallMessage) {
	h := me.hall
	if me.pub == nil {
		pc, err := h.api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			panic(err)
		}
		me.pub = pc
		me.trickle(pc, "publish")
		pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) { me.forward(pc, remote, receiver) })
	}
	h.mu.Lock()
	me.mids = map[string]string{}
	for _, s := range m.Streams {
		for _, mid := range s.Mids {
			me.mids[mid] = me.id + "-" + s.Label
		}
	}
	h.mu.Unlock()
	if err := me.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.SDP}); err != nil {
		me.send(map[string]any{"type": "error", "code": "bad-sdp", "message": err.Error(), "requestId": m.RequestID, "fatal": false})
		return
	}
	answer, err := me.pub.CreateAnswer(nil)
	if err != nil {
		panic(err)
	}
	me.pub.SetLocalDescription(answer)
	names := []map[string]any{}
	for _, s := range m.Streams {
		name := me.id + "-" + s.Label
		names = append(names, map[string]any{"label": s.Label, "name": name})
		h.mu.Lock()
		if h.feeds[name] == nil {
			h.feeds[name] = &feed{Name: name, Title: s.Title, State: "starting", Publisher: me.id, Label: s.Label, Tracks: []track{}}
		}
		h.mu.Unlock()
	}
	me.send(map[string]any{"type": "answer", "connection": "publish", "sdp": answer.SDP, "streams": names, "requestId": m.RequestID})
	h.changed(me)
}

// forward makes a track of the stream that its mid belongs to; of several sizes
// the least one is forwarded: a browser may hold the others back.
func (me *member) forward(pc *webrtc.PeerConnection, remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	if remote.RID() != "" && remote.RID() != "low" {
		return
	}
	h := me.hall
	h.mu.Lock()
	mid := ""
	for _, t := range pc.GetTransceivers() {
		if t.Receiver() == receiver {
			mid = t.Mid()
		}
	}
	f := h.feeds[me.mids[mid]]
	h.mu.Unlock()
	if f == nil {
		return
	}
	local, err := webrtc.NewTrackLocalStaticRTP(remote.Codec().RTPCodecCapability, remote.Kind().String(), f.Name)
	if err != nil {
		panic(err)
	}
	h.mu.Lock()
	f.media = append(f.media, local)
	f.State = "live"
	f.Tracks = append(f.Tracks, track{Name: remote.Kind().String(), Kind: remote.Kind().String(), Codec: remote.Codec().MimeType[6:]})
	if remote.Kind() == webrtc.RTPCodecTypeVideo {
		f.wish = func() { pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(remote.SSRC())}}) }
	}
	told := *f
	h.mu.Unlock()
	if len(told.Tracks) == 1 {
		h.all(map[string]any{"type": "stream-started", "stream": told})
	} else {
		h.all(map[string]any{"type": "stream", "stream": told})
		h.mu.Lock()
		all := slices.Clone(h.members)
		h.mu.Unlock()
		for _, m := range all {
			m.add(f, local)
		}
	}
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		p.Extension, p.Extensions = false, nil
		local.WriteRTP(p)
	}
}

// add offers one more track of a stream that is watched.
func (me *member) add(f *feed, media *webrtc.TrackLocalStaticRTP) {
	me.hall.mu.Lock()
	senders, watched := me.senders[f.Name]
	if watched && !slices.ContainsFunc(senders, func(s *webrtc.RTPSender) bool { return s.Track() == media }) {
		transceiver, err := me.watch.AddTransceiverFromTrack(media, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			panic(err)
		}
		me.senders[f.Name] = append(senders, transceiver.Sender())
	} else {
		watched = false
	}
	me.hall.mu.Unlock()
	if watched {
		me.offer(false)
	}
}
