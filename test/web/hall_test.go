package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"gateway/internal/web"
	"gateway/test/rig"
)

// hall is a gateway with one room, as script is one with streams: it says what
// a test wants to see the room page answer, and forwards what is published.
type hall struct {
	server *httptest.Server
	api    *webrtc.API

	mu       sync.Mutex // guards what follows, and what is in the members and feeds
	members  []*member
	feeds    map[string]*feed
	locked   bool
	token    string // that a join has to be made with; "" is open
	refuse   [2]string
	received []string // types of all messages, with the name of the sender
	views    map[string]sight
	posted   []map[string]any // to api/session and api/shares
	done     chan struct{}
}

// feed is a stream of the room.
type feed struct {
	Name      string  `json:"name"`
	Title     string  `json:"title"`
	State     string  `json:"state"`
	Reason    string  `json:"reason,omitempty"`
	Publisher string  `json:"publisher,omitempty"`
	Label     string  `json:"label,omitempty"`
	Tracks    []track `json:"tracks"`

	media []*webrtc.TrackLocalStaticRTP
	wish  func() // asks the publisher for a keyframe
}

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

func startHall(t *testing.T) *hall {
	t.Helper()
	_, err := frames(standard)
	rig.Check(t, err)
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetPrflxAcceptanceMinWait(0)
	var m webrtc.MediaEngine
	var i interceptor.Registry
	for _, err := range []error{m.RegisterDefaultCodecs(), webrtc.RegisterDefaultInterceptors(&m, &i)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := &hall{
		api:   webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&m), webrtc.WithInterceptorRegistry(&i)),
		feeds: map[string]*feed{}, views: map[string]sight{}, done: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", h.talk)
	post := func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		json.NewDecoder(r.Body).Decode(&body)
		h.mu.Lock()
		h.posted = append(h.posted, body)
		known := body["token"] == h.token || (body["user"] == "ann" && body["password"] == "secret")
		h.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/api/shares" {
			fmt.Fprintf(w, `{"token": "once", "path": "/room/%s#token=once"}`, body["room"])
			return
		}
		if !known {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"code": "unauthorized", "detail": "no such token"}`)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: h.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		fmt.Fprint(w, `{}`)
	}
	mux.HandleFunc("POST /api/session", post)
	mux.HandleFunc("GET /api/session", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"subject": "ann", "name": "Ann", "role": "host", "can": ["watch", "publish"], "create": true}`)
	})
	mux.HandleFunc("POST /api/shares", post)
	mux.Handle("/", web.Handler())
	h.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		close(h.done)
		h.mu.Lock()
		all := slices.Clone(h.members)
		h.mu.Unlock()
		for _, m := range all {
			h.remove(m, "")
		}
		h.server.CloseClientConnections()
		h.server.Close()
	})
	return h
}

func (h *hall) url(path string) string { return h.server.URL + path }

// camera is a stream of a pipeline: the recorded picture.
func (h *hall) camera(t *testing.T, name, title string, picture track) {
	list, err := frames(picture)
	rig.Check(t, err)
	media, err := webrtc.NewTrackLocalStaticRTP(capability(picture.Codec), "video", name)
	rig.Check(t, err)
	f := &feed{Name: name, Title: title, State: "live", Tracks: []track{{Name: "video", Kind: "video", Codec: picture.Codec, Width: picture.Width, Height: picture.Height, FPS: 30}}, media: []*webrtc.TrackLocalStaticRTP{media}}
	go func() {
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		packets := rtp.NewPacketizer(1200, 0, 0, &codecs.VP8Payloader{}, rtp.NewRandomSequencer(), 90000)
		for n := 0; ; n++ {
			select {
			case <-h.done:
				return
			case <-tick.C:
			}
			for _, p := range packets.Packetize(list[n%len(list)], 3000) {
				media.WriteRTP(p)
			}
		}
	}()
	h.start(f)
}

// absent is a stream whose source isn't there.
func (h *hall) absent(name, title, reason string) {
	h.start(&feed{Name: name, Title: title, State: "absent", Reason: reason, Tracks: []track{}})
}

func (h *hall) start(f *feed) {
	h.mu.Lock()
	h.feeds[f.Name] = f
	h.mu.Unlock()
	h.all(map[string]any{"type": "stream-started", "stream": f})
}

func (h *hall) end(name string) {
	h.mu.Lock()
	f := h.feeds[name]
	delete(h.feeds, name)
	all := slices.Clone(h.members)
	h.mu.Unlock()
	if f == nil {
		return
	}
	h.all(map[string]any{"type": "stream-ended", "stream": f})
	for _, m := range all {
		m.unwatch(name)
	}
}

// all tells every member.
func (h *hall) all(message map[string]any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.members {
		m.tell(message)
	}
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

// who finds a member by its name.
func (h *hall) who(name string) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.members, func(m *member) bool { return m.name == name })
	if i < 0 {
		return nil
	}
	return h.members[i]
}

// cut closes a member's socket without a word; its session stays.
func (h *hall) cut(name string) {
	m := h.who(name)
	h.mu.Lock()
	conn := m.conn
	m.conn = nil
	h.mu.Unlock()
	conn.Close()
}

// remove ends a session.
func (h *hall) remove(m *member, reason string) {
	h.mu.Lock()
	i := slices.Index(h.members, m)
	if i < 0 {
		h.mu.Unlock()
		return
	}
	h.members = slices.Delete(h.members, i, i+1)
	if reason != "" {
		m.tell(map[string]any{"type": "left", "reason": reason})
	}
	conn, about := m.conn, m.about()
	m.conn = nil
	peers := []*webrtc.PeerConnection{m.watch, m.pub}
	var streams []string
	for name, f := range h.feeds {
		if f.Publisher == m.id {
			streams = append(streams, name)
		}
	}
	h.mu.Unlock()
	for _, name := range streams {
		h.end(name)
	}
	h.all(map[string]any{"type": "participant-left", "participant": about})
	if conn != nil {
		conn.Close()
	}
	for _, pc := range peers {
		if pc != nil {
			pc.Close()
		}
	}
}

type hallMessage struct {
	Type, RequestID, Name, Token, Resume, Stream, SDP, Connection, Target, Kind, Role string
	Seq                                                                               int
	On                                                                                bool
	Data                                                                              any
	View                                                                              *sight
	Candidate                                                                         *webrtc.ICECandidateInit
	Streams                                                                           []struct {
		Label, Title string
		Mids         []string
	}
	sight
}

func (h *hall) talk(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	var me *member
	for {
		var m hallMessage
		if err := conn.ReadJSON(&m); err != nil {
			h.mu.Lock()
			if me != nil && me.conn == conn {
				me.conn = nil
			}
			h.mu.Unlock()
			return
		}
		if me == nil {
			if m.Type == "join" {
				me = h.join(conn, r, m)
			}
			if me == nil {
				return
			}
			continue
		}
		h.mu.Lock()
		h.received = append(h.received, me.name+" "+m.Type)
		if m.Type != "ping" {
			me.heard++
		}
		h.mu.Unlock()
		if !me.hear(m) {
			return
		}
	}
}

func (h *hall) join(conn *websocket.Conn, r *http.Request, m hallMessage) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	cookie, _ := r.Cookie("session")
	code := h.refuse
	if h.token != "" && m.Token != h.token && (cookie == nil || cookie.Value != h.token) {
		code = [2]string{"unauthorized", "a token is needed"}
	}
	if code[0] != "" {
		conn.WriteJSON(map[string]any{"type": "error", "code": code[0], "message": code[1], "traceId": "t", "fatal": true})
		return nil
	}
	var me *member
	if m.Resume != "" {
		i := slices.IndexFunc(h.members, func(m2 *member) bool { return m2.session == m.Resume })
		if i < 0 {
			conn.WriteJSON(map[string]any{"type": "error", "code": "resume-failed", "message": "no such session", "traceId": "t", "fatal": true})
			return nil
		}
		me = h.members[i]
	} else {
		n := len(h.received) + len(h.members) + 1
		me = &member{hall: h, id: fmt.Sprint("u", n), name: m.Name, session: fmt.Sprint("secret-", n), role: "publisher", senders: map[string][]*webrtc.RTPSender{}}
		switch m.Name {
		case "Host":
			me.role = "host"
		case "":
			me.name, me.role = fmt.Sprint("Guest ", n), "viewer"
		}
		h.members = append(h.members, me)
	}
	me.conn = conn
	me.sockets++
	can := map[string][]string{"viewer": {"watch"}, "publisher": {"watch", "publish", "relay"}, "host": {"watch", "publish", "relay", "control", "moderate"}}[me.role]
	streams, there := []*feed{}, []map[string]any{}
	for _, f := range h.feeds {
		streams = append(streams, f)
	}
	if me.role != "viewer" {
		for _, other := range h.members {
			there = append(there, other.about())
		}
	}
	conn.WriteJSON(map[string]any{
		"type": "joined", "roomId": "hall", "userId": me.id, "session": me.session, "version": 1, "iceServers": []any{}, "role": me.role, "can": can,
		"room": map[string]any{"roomId": "hall", "title": "The hall", "state": "active", "locked": h.locked}, "streams": streams, "participants": there,
		"resumeWithin": 30, "resumed": m.Resume != "", "received": me.heard,
	})
	if m.Resume != "" {
		for _, message := range me.sent {
			if message["seq"].(int) > m.Seq {
				conn.WriteJSON(message)
			}
		}
		return me
	}
	for _, other := range h.members {
		if other != me && other.role != "viewer" {
			other.tell(map[string]any{"type": "participant-joined", "participant": me.about()})
		}
	}
	return me
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

func (h *hall) changed(m *member) {
	h.mu.Lock()
	about := m.about()
	h.mu.Unlock()
	h.all(map[string]any{"type": "participant-changed", "participant": about})
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
