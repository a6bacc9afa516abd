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
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

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

// session is one socket and the peer behind it.
type session struct {
	script  *script
	conn    *websocket.Conn
	id      string
	room    string
	numbers rtp.Sequencer

	mu       sync.Mutex // guards what follows, and writes to conn
	pc       *webrtc.PeerConnection
	picture  *webrtc.RTPTransceiver
	out      *webrtc.TrackLocalStaticRTP
	packets  rtp.Packetizer
	frames   [][]byte // that are played, from next on
	next     int
	playing  track
	selected string
	settled  func() // what is to be done once the offer is answered
	still    bool
	hidden   bool // the picture is out of sight: frames are held back too
	observed bool
	done     chan struct{}
	ended    bool
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
			s.mu.Lock()
			s.reports = append(s.reports, m.FirstFrameMs)
			s.mu.Unlock()
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
		v.playing = st.video()[0]
		for _, t := range st.video() {
			if t.Name == v.selected {
				v.playing = t
			}
		}
		v.offer(false)
		v.tellRendition("")
	}
}

func (v *session) tellRendition(requestID string) {
	v.mu.Lock()
	m := map[string]any{"type": "rendition", "rendition": v.playing.Name, "selected": v.selected}
	v.mu.Unlock()
	if m["selected"] == "" {
		m["selected"] = "auto"
	}
	if requestID != "" {
		m["requestId"] = requestID
	}
	v.send(m)
}

// choose answers a select. A rendition in H.265 is one that the browser can't
// have.
func (v *session) choose(name, requestID string) {
	st, _ := v.script.stream(v.room)
	to := st.video()[0]
	if name != "auto" {
		i := slices.IndexFunc(st.video(), func(t track) bool { return t.Name == name })
		if i < 0 {
			v.send(map[string]any{"type": "error", "code": "not-found", "message": "there is no rendition " + name, "fatal": false, "requestId": requestID})
			return
		}
		if to = st.video()[i]; to.Codec == "h265" {
			v.send(map[string]any{"type": "error", "code": "codec-unsupported", "message": "rendition " + name + " is video/H265; the browser receives video/VP8", "fatal": false, "requestId": requestID})
			return
		}
	}
	v.mu.Lock()
	v.selected = name
	v.mu.Unlock()
	v.tellRendition(requestID)
	v.turn(to)
}

// turn switches to another rendition: with an offer where the codec is another
// one.
func (v *session) turn(to track) {
	v.mu.Lock()
	from := v.playing
	v.mu.Unlock()
	if from == to {
		return
	}
	if from.Codec == to.Codec {
		v.put(to, nil)
		return
	}
	out, err := webrtc.NewTrackLocalStaticRTP(capability(to.Codec), "video", "s")
	if err != nil {
		panic(err)
	}
	v.mu.Lock()
	v.settled = func() {
		if err := v.picture.Sender().ReplaceTrack(out); err != nil {
			panic(err)
		}
		v.put(to, out)
	}
	v.mu.Unlock()
	v.prefer(to.Codec)
	v.offer(false)
}

// replace ends the video's m-line and offers another one in its place.
func (v *session) replace(to track) {
	out, err := webrtc.NewTrackLocalStaticRTP(capability(to.Codec), "video-2", "s")
	if err != nil {
		panic(err)
	}
	if err := v.picture.Stop(); err != nil {
		panic(err)
	}
	picture, err := v.pc.AddTransceiverFromTrack(out, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		panic(err)
	}
	v.mu.Lock()
	v.picture = picture
	v.settled = func() { v.put(to, out) }
	v.mu.Unlock()
	v.offer(false)
}

// put plays a rendition from its keyframe on, into out unless that is nil.
func (v *session) put(to track, out *webrtc.TrackLocalStaticRTP) {
	list, err := frames(to)
	if err != nil {
		panic(err)
	}
	v.mu.Lock()
	v.playing, v.frames, v.next = to, list, 0
	if out != nil {
		v.out, v.packets = out, v.packetizer(to.Codec)
	}
	v.mu.Unlock()
	v.tellRendition("")
}

// packetizer continues the numbers of the one before.
func (v *session) packetizer(codec string) rtp.Packetizer {
	var payloader rtp.Payloader = &codecs.VP8Payloader{}
	if codec == "h264" {
		payloader = &codecs.H264Payloader{}
	}
	return rtp.NewPacketizer(1200, 0, 0, payloader, v.numbers, 90000) // the track writes type and SSRC
}

// prefer leaves one codec of video in the next offer. The first one has all: pion
// keeps to what was negotiated first.
func (v *session) prefer(codec string) {
	var list []webrtc.RTPCodecParameters
	for _, c := range v.picture.Sender().GetParameters().Codecs {
		if strings.EqualFold(c.MimeType, capability(codec).MimeType) {
			list = append(list, c)
		}
	}
	if err := v.picture.SetCodecPreferences(list); err != nil {
		panic(err)
	}
}

func capability(codec string) webrtc.RTPCodecCapability {
	if codec == "h264" {
		return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}
	}
	return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}
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
	list, err := frames(v.playing)
	if err != nil {
		return nil, err
	}
	video, err := webrtc.NewTrackLocalStaticRTP(capability(v.playing.Codec), "video", "s")
	if err != nil {
		return nil, err
	}
	audio, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "s")
	if err != nil {
		return nil, err
	}
	sending := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}
	picture, err := pc.AddTransceiverFromTrack(video, sending)
	if err != nil {
		return nil, err
	}
	if _, err := pc.AddTransceiverFromTrack(audio, sending); err != nil {
		return nil, err
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
			once.Do(func() { go v.play(audio) })
		}
	})
	v.mu.Lock()
	v.pc, v.picture, v.out, v.packets, v.frames = pc, picture, video, v.packetizer(v.playing.Codec), list
	v.mu.Unlock()
	return pc, nil
}

// play sends the recorded frames again and again, with silence.
func (v *session) play(audio *webrtc.TrackLocalStaticSample) {
	const frame = time.Second / 30
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for at := uint32(0); ; at += 90000 / 30 {
		select {
		case <-v.done:
			return
		case <-tick.C:
		}
		v.mu.Lock()
		still, video := v.still || v.hidden, v.out
		var packets []*rtp.Packet
		if !still {
			packets = v.packets.Packetize(v.frames[v.next%len(v.frames)], 0)
			v.next++
		}
		v.mu.Unlock()
		if still {
			continue
		}
		for _, p := range packets {
			p.Timestamp = at
			video.WriteRTP(p)
		}
		audio.WriteSample(media.Sample{Data: []byte{0xf8, 0xff, 0xfe}, Duration: frame})
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
