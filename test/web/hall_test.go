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

func (h *hall) changed(m *member) {
	h.mu.Lock()
	about := m.about()
	h.mu.Unlock()
	h.all(map[string]any{"type": "participant-changed", "participant": about})
}
