package web_test

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

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
