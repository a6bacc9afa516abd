package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

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
	Reload  *reload `json:"reload,omitempty"`
}

// video are the stream's renditions.
func (s stream) video() []track {
	return slices.DeleteFunc(slices.Clone(s.Tracks), func(t track) bool { return t.Kind != "video" })
}

type reload struct {
	At       int64    `json:"at"` // Unix milliseconds
	OK       bool     `json:"ok"`
	Message  string   `json:"message"`
	Findings []string `json:"findings,omitempty"`
}

type track struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Codec   string  `json:"codec"`
	Width   int     `json:"width,omitempty"`
	Height  int     `json:"height,omitempty"`
	FPS     float64 `json:"fps,omitempty"`
	Bitrate int     `json:"bitrate,omitempty"`
	Encoder string  `json:"encoder,omitempty"`
	Launch  string  `json:"launch,omitempty"`
	Refused string  `json:"refused,omitempty"`
}

// script is a gateway that says what a test wants to see the pages answer: it
// speaks docs/protocol.md, and sends a recorded picture by a real peer. It
// stands in for the states that a real gateway can't be brought into at will.
type script struct {
	server *httptest.Server

	mu       sync.Mutex // guards what follows
	streams  []stream
	problems []string
	refuse   map[string][2]string // room → code and message of a fatal error
	sessions map[*session]bool
	away     bool // refuses every request, as a gateway that isn't there
	deaf     bool // answers no ping
	joins    int  // joins that were granted
	reports  []float64
	seen     []string  // types of all messages of clients
	asked    []string  // renditions of all joins and selects
	sights   []sight   // of all view messages
	quality  []quality // that whoever observes is told at first
}

func start(t *testing.T) *script {
	t.Helper()
	_, err := frames(standard)
	rig.Check(t, err)
	s := &script{refuse: map[string][2]string{}, sessions: map[*session]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", s.talk)
	mux.HandleFunc("GET /api/streams", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"streams": s.streams, "problems": s.problems})
	})
	mux.HandleFunc("GET /api/streams/{name}", func(w http.ResponseWriter, r *http.Request) {
		st, ok := s.stream(r.PathValue("name"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		st.Tracks = slices.Clone(st.Tracks)
		for i := range st.Tracks {
			t := &st.Tracks[i]
			t.Encoder, t.Launch = t.Codec+"enc", "videotestsrc ! <"+t.Name+">"
		}
		json.NewEncoder(w).Encode(struct {
			stream
			Settings string   `json:"settings"`
			Notes    []string `json:"notes"`
		}{st, "title: " + st.Title + "\nvideo:\n  codec: vp8\n", []string{"encoder vp8enc: the best that is installed"}})
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

type message struct {
	Type         string                   `json:"type"`
	RoomID       string                   `json:"roomId"`
	SDP          string                   `json:"sdp"`
	Candidate    *webrtc.ICECandidateInit `json:"candidate"`
	FirstFrameMs float64                  `json:"firstFrameMs"`
	Rendition    string                   `json:"rendition"`
	RequestID    string                   `json:"requestId"`
	On           bool                     `json:"on"`
	sight
}

// sight is what a view message says.
type sight struct {
	Width   int  `json:"width"`
	Height  int  `json:"height"`
	Visible bool `json:"visible"`
	Audible bool `json:"audible"`
}

func (s *script) talk(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	v := &session{script: s, conn: conn, numbers: rtp.NewRandomSequencer(), done: make(chan struct{})}
	defer v.close()
	for {
		var m message
		if err := conn.ReadJSON(&m); err != nil {
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, m.Type)
		if m.Type == "join" || m.Type == "select" {
			s.asked = append(s.asked, m.Rendition)
		}
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
			v.selected = m.Rendition
			s.sessions[v] = true
			s.mu.Unlock()
			v.send(map[string]any{"type": "joined", "roomId": v.room, "userId": "u", "session": v.id, "traceId": "t", "version": 1, "iceServers": []any{}, "stream": st})
			v.tell(st)
		case "answer":
			v.peer().SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.SDP})
			v.mu.Lock()
			settled := v.settled
			v.settled = nil
			v.mu.Unlock()
			if settled != nil {
				settled()
			}
		case "select":
			v.choose(m.Rendition, m.RequestID)
		case "ice-candidate":
			if pc := v.peer(); pc != nil && m.Candidate != nil {
				pc.AddICECandidate(*m.Candidate)
			}
		case "restart-ice":
			v.offer(true)
		case "report":
			if m.FirstFrameMs != 0 { // else it tells of frames
				s.mu.Lock()
				s.reports = append(s.reports, m.FirstFrameMs)
				s.mu.Unlock()
			}
		case "view":
			s.mu.Lock()
			s.sights = append(s.sights, m.sight)
			s.mu.Unlock()
			v.mu.Lock()
			if v.hidden && m.Visible {
				v.next = 0 // the keyframe
			}
			v.hidden = !m.Visible
			v.mu.Unlock()
		case "observe":
			v.mu.Lock()
			v.observed = m.On
			v.mu.Unlock()
			s.mu.Lock()
			history := s.quality
			s.mu.Unlock()
			for _, q := range history {
				v.tellQuality(q)
			}
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

// standard is what most streams show.
var standard = track{Codec: "vp8", Width: 640, Height: 360}

var (
	recording sync.Mutex // guards recorded
	recorded  = map[string][][]byte{}
)

// frames is a recorded picture in a track's codec and size, two seconds of it;
// the first frame is a keyframe.
func frames(t track) ([][]byte, error) {
	recording.Lock()
	defer recording.Unlock()
	key := fmt.Sprint(t.Codec, t.Width)
	if list := recorded[key]; list != nil {
		return list, nil
	}
	launch, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gateway-web-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	encode := "vp8enc deadline=1 keyframe-max-dist=60 target-bitrate=800000"
	switch t.Codec {
	case "vp9":
		encode = "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=800000"
	case "h264":
		encode = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=800 ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au"
	}
	text := fmt.Sprintf("videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=%d,height=%d,framerate=30/1 ! %s ! multifilesink location=%s/%%05d",
		t.Width, t.Height, encode, dir)
	if out, err := exec.Command(launch, append([]string{"-q"}, strings.Fields(text)...)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("record a picture: %w: %s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	var list [][]byte
	for _, name := range names { // Glob sorts
		frame, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list = append(list, frame)
	}
	recorded[key] = list
	return list, nil
}
