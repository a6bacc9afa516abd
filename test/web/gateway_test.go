package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"

	"gateway/internal/web"
	"gateway/test/rig"
)

// stream is what the far side tells of a stream.
type stream struct {
	Name    string  `json:"name"`
	Title   string  `json:"title"`
	State   string  `json:"state"`
	Reason  string  `json:"reason,omitempty"`
	Tracks  []track `json:"tracks"`
	Viewers int     `json:"viewers"`
}

type track struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Codec   string  `json:"codec"`
	Width   int     `json:"width,omitempty"`
	Height  int     `json:"height,omitempty"`
	FPS     float64 `json:"fps,omitempty"`
	Bitrate int     `json:"bitrate,omitempty"`
}

// script is a gateway that says what a test wants to see the pages answer: it
// speaks docs/protocol.md, and sends a recorded picture by a real peer. It
// stands in for the states that a real gateway can't be brought into at will.
type script struct {
	server *httptest.Server
	frames [][]byte // VP8, the first one a keyframe

	mu       sync.Mutex // guards what follows
	streams  []stream
	problems []string
	refuse   map[string][2]string // room → code and message of a fatal error
	sessions map[*session]bool
	away     bool // refuses every request, as a gateway that isn't there
	deaf     bool // answers no ping
	joins    int  // joins that were granted
	reports  []float64
	seen     []string // types of all messages of clients
}

func start(t *testing.T) *script {
	t.Helper()
	s := &script{frames: recorded(t), refuse: map[string][2]string{}, sessions: map[*session]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", s.talk)
	mux.HandleFunc("GET /api/streams", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"streams": s.streams, "problems": s.problems})
	})
	mux.HandleFunc("GET /api/streams/{name}/snapshot.jpg", s.snapshot)
	mux.Handle("/", web.Handler())
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		away := s.away
		s.mu.Unlock()
		if away {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.drop()
		s.server.Close()
	})
	return s
}

func (s *script) url(path string) string { return s.server.URL + path }

// set changes what is listed and tells whoever watches.
func (s *script) set(streams ...stream) {
	s.mu.Lock()
	s.streams = streams
	var watching []*session
	for v := range s.sessions {
		watching = append(watching, v)
	}
	s.mu.Unlock()
	for _, v := range watching {
		if st, ok := s.stream(v.room); ok {
			v.tell(st)
		}
	}
}

func (s *script) stream(name string) (stream, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.streams, func(st stream) bool { return st.Name == name })
	if i < 0 {
		return stream{}, false
	}
	return s.streams[i], true
}

// leave makes the gateway unreachable, or reachable again.
func (s *script) leave(away bool) {
	s.mu.Lock()
	s.away = away
	s.mu.Unlock()
	if away {
		s.drop()
	}
}

// drop closes every socket and connection without a word.
func (s *script) drop() {
	s.mu.Lock()
	var all []*session
	for v := range s.sessions {
		all = append(all, v)
	}
	s.mu.Unlock()
	for _, v := range all {
		v.close()
	}
}

// freeze holds the frames of every viewer back, or lets them go on.
func (s *script) freeze(still bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.sessions {
		v.mu.Lock()
		v.still = still
		v.mu.Unlock()
	}
}

func (s *script) snapshot(w http.ResponseWriter, r *http.Request) {
	st, ok := s.stream(r.PathValue("name"))
	if !ok || st.State == "absent" {
		http.Error(w, "none", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Write(landscape(len(st.Name)))
}

// landscape is a picture for a card.
func landscape(seed int) []byte {
	m := image.NewRGBA(image.Rect(0, 0, 640, 360))
	for y := range 360 {
		for x := range 640 {
			ridge := 190 + (x*(seed+3)/7)%90 - (x*seed/11)%60
			c := color.RGBA{uint8(90 + y/3), uint8(130 + y/4), uint8(190 - y/6), 255}
			if y > ridge {
				c = color.RGBA{uint8(30 + seed*9%60), uint8(60 + (y-ridge)/4), uint8(50 + seed*5%50), 255}
			}
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	jpeg.Encode(&b, m, nil)
	return b.Bytes()
}

// session is one socket and the peer behind it.
type session struct {
	script *script
	conn   *websocket.Conn
	id     string
	room   string

	mu    sync.Mutex // guards what follows, and writes to conn
	pc    *webrtc.PeerConnection
	still bool
	done  chan struct{}
	ended bool
}

type message struct {
	Type         string                   `json:"type"`
	RoomID       string                   `json:"roomId"`
	SDP          string                   `json:"sdp"`
	Candidate    *webrtc.ICECandidateInit `json:"candidate"`
	FirstFrameMs float64                  `json:"firstFrameMs"`
}

func (s *script) talk(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	v := &session{script: s, conn: conn, done: make(chan struct{})}
	defer v.close()
	for {
		var m message
		if err := conn.ReadJSON(&m); err != nil {
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, m.Type)
		refusal, refused := s.refuse[m.RoomID]
		deaf := s.deaf
		s.mu.Unlock()
		switch m.Type {
		case "join":
			if refused {
				v.send(map[string]any{"type": "error", "code": refusal[0], "message": refusal[1], "traceId": "0af7651916cd43dd8448eb211c80319c", "fatal": true})
				return
			}
			st, ok := s.stream(m.RoomID)
			if !ok {
				v.send(map[string]any{"type": "error", "code": "not-found", "message": "no such stream", "fatal": true})
				return
			}
			v.room = m.RoomID
			s.mu.Lock()
			s.joins++
			v.id = fmt.Sprint("session-", s.joins)
			s.sessions[v] = true
			s.mu.Unlock()
			v.send(map[string]any{"type": "joined", "roomId": v.room, "userId": "u", "session": v.id, "traceId": "t", "version": 1, "iceServers": []any{}, "stream": st})
			v.tell(st)
		case "answer":
			v.peer().SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.SDP})
		case "ice-candidate":
			if pc := v.peer(); pc != nil && m.Candidate != nil {
				pc.AddICECandidate(*m.Candidate)
			}
		case "restart-ice":
			v.offer(true)
		case "report":
			s.mu.Lock()
			s.reports = append(s.reports, m.FirstFrameMs)
			s.mu.Unlock()
		case "ping":
			if !deaf {
				v.send(map[string]any{"type": "pong"})
			}
		case "leave":
			v.send(map[string]any{"type": "left", "reason": "left"})
			return
		}
	}
}

func (v *session) peer() *webrtc.PeerConnection {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pc
}

func (v *session) send(m map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m["timestamp"] = time.Now().UnixMilli()
	v.conn.WriteJSON(m)
}

// tell describes the stream, and offers it as soon as it is there.
func (v *session) tell(st stream) {
	v.send(map[string]any{"type": "stream", "stream": st})
	if st.State == "live" && v.peer() == nil {
		v.offer(false)
	}
}

func (v *session) offer(restart bool) {
	pc := v.peer()
	if pc == nil {
		var err error
		if pc, err = v.connect(); err != nil {
			panic(err)
		}
	}
	offer, err := pc.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
		return
	}
	v.send(map[string]any{"type": "offer", "session": v.id, "sdp": offer.SDP})
	pc.SetLocalDescription(offer)
}

func (v *session) connect() (*webrtc.PeerConnection, error) {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetPrflxAcceptanceMinWait(0) // a browser hides its addresses: its candidates are seen first as peer reflexive
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	video, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "s")
	if err != nil {
		return nil, err
	}
	audio, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "s")
	if err != nil {
		return nil, err
	}
	for _, t := range []webrtc.TrackLocal{video, audio} {
		if _, err := pc.AddTrack(t); err != nil {
			return nil, err
		}
	}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		var candidate any
		if c != nil {
			candidate = c.ToJSON()
		}
		v.send(map[string]any{"type": "ice-candidate", "session": v.id, "candidate": candidate})
	})
	var once sync.Once
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			once.Do(func() { go v.play(video, audio) })
		}
	})
	v.mu.Lock()
	v.pc = pc
	v.mu.Unlock()
	return pc, nil
}

// play sends the recorded frames again and again, with silence.
func (v *session) play(video, audio *webrtc.TrackLocalStaticSample) {
	const frame = time.Second / 30
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-v.done:
			return
		case <-tick.C:
		}
		v.mu.Lock()
		still := v.still
		v.mu.Unlock()
		if still {
			continue
		}
		video.WriteSample(media.Sample{Data: v.script.frames[i%len(v.script.frames)], Duration: frame})
		audio.WriteSample(media.Sample{Data: []byte{0xf8, 0xff, 0xfe}, Duration: frame})
		i++
	}
}

func (v *session) close() {
	v.mu.Lock()
	ended := v.ended
	v.ended = true
	pc := v.pc
	v.mu.Unlock()
	if ended {
		return
	}
	close(v.done)
	v.script.mu.Lock()
	delete(v.script.sessions, v)
	v.script.mu.Unlock()
	v.conn.Close()
	if pc != nil {
		pc.Close()
	}
}

var record = sync.OnceValues(func() ([][]byte, error) {
	launch, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gateway-web-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "test.ivf")
	out, err := exec.Command(launch, "-q", "videotestsrc", "num-buffers=60", "!", "video/x-raw,width=640,height=360,framerate=30/1", "!",
		"vp8enc", "deadline=1", "keyframe-max-dist=60", "target-bitrate=800000", "!", "avmux_ivf", "!", "filesink", "location="+name).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("record a picture: %w: %s", err, out)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, _, err := ivfreader.NewWith(f)
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	for {
		frame, _, err := r.ParseNextFrame()
		if err == io.EOF {
			return frames, nil
		}
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
})

func recorded(t *testing.T) [][]byte {
	t.Helper()
	frames, err := record()
	rig.Check(t, err)
	return frames
}
