package rtc

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"gateway/internal/media"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const h264Fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"

var (
	videoTrack = media.Track{Name: "video", Kind: media.Video, Codec: media.H264, Fmtp: h264Fmtp, Width: 640, Height: 360, FPS: 30}
	audioTrack = media.Track{Name: "audio", Kind: media.Audio, Codec: media.Opus, Fmtp: "minptime=10;useinbandfec=1"}
)

// fakeSource stands for a stream's subscription: a ring that never forgets, with
// the gate that lets a reader begin at a keyframe.
type fakeSource struct {
	mu      sync.Mutex
	packets []media.Packet
	cursor  int
	begun   bool
	taken   int
	wake    func()
	closed  bool

	mark      byte // tells its payloads from other sources'
	ragged    bool // every third of its packets is a little smaller, and padded
	keyframes atomic.Int64
	asked     chan struct{}                 // one token for each RequestKeyframe, as far as there is room
	block     atomic.Pointer[chan struct{}] // Next waits for it, if set
}

func newSource() *fakeSource { return &fakeSource{asked: make(chan struct{}, 100)} }

// push adds a frame of n packets whose payloads tell their index.
func (s *fakeSource) push(keyframe bool, n int) { s.pushAt(media.Now(), keyframe, n) }

func (s *fakeSource) pushAt(at time.Duration, keyframe bool, n int) {
	s.pushPart(at, keyframe, true, true, n)
}

// pushPart adds a part of a frame.
func (s *fakeSource) pushPart(at time.Duration, keyframe, start, end bool, n int) {
	b := media.NewBuffer(n * 1000)
	b.Capture, b.Arrived, b.Start, b.End, b.Keyframe = at, media.Now(), start, end, keyframe
	s.mu.Lock()
	for i := range n {
		p := make([]byte, 1000)
		if s.ragged && i%3 == 1 {
			p, b.Level = p[:1000-i], 1000
		}
		index := len(s.packets) + i
		nal := byte(1)
		if keyframe {
			nal = 5
		}
		p[0], p[1], p[2], p[3], p[4], p[5] = 0x60|nal, byte(index>>24), byte(index>>16), byte(index>>8), byte(index), s.mark
		b.Append(p)
	}
	for i := range n {
		s.packets = append(s.packets, media.Packet{Buffer: b, I: i, Index: uint64(len(s.packets)), Start: start && i == 0})
	}
	wake := s.wake
	s.mu.Unlock()
	if wake != nil {
		wake()
	}
}

func (s *fakeSource) Next(dst []media.Packet) []media.Packet {
	if block := s.block.Load(); block != nil {
		<-*block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(dst) < cap(dst) && s.cursor < len(s.packets) && !s.closed {
		p := s.packets[s.cursor]
		s.cursor++
		if s.begun = s.begun || p.Buffer.Keyframe; s.begun {
			p.Buffer.Retain()
			s.taken++
			dst = append(dst, p)
		}
	}
	return dst
}

func (s *fakeSource) Find(index uint64) (media.Packet, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index >= uint64(len(s.packets)) { // also after Close
		return media.Packet{}, false
	}
	s.packets[index].Buffer.Retain()
	return s.packets[index], true
}

func (s *fakeSource) Notify(wake func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = wake
}

func (s *fakeSource) RequestKeyframe() {
	s.keyframes.Add(1)
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// Skip leaves out what there is, like a stream's subscription.
func (s *fakeSource) Skip() {
	s.mu.Lock()
	s.cursor, s.begun = len(s.packets), false
	s.mu.Unlock()
	s.RequestKeyframe()
}

func (s *fakeSource) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *fakeSource) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// run pushes frames at a rate until the test ends: each second begins with a keyframe.
func (s *fakeSource) run(t *testing.T, fps, packets int) {
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / time.Duration(fps))
		defer tick.Stop()
		for n := 0; ; n++ {
			s.push(n%fps == 0, packets)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
}

func testLog(t testing.TB) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("RTC_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	if o.Logger == nil {
		o.Logger = testLog(t)
	}
	o.ICE.Lite = o.ICE.Lite || overLite
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// peer is a receiver as pion makes it, with its default interceptors.
type peer struct {
	pc      *webrtc.PeerConnection
	packets chan *rtp.Packet // of the video track, as far as there is room
	audio   chan *rtp.Packet
	tracks  sync.WaitGroup
}

type peerOptions struct {
	settings func(*webrtc.SettingEngine)
	media    func(*webrtc.MediaEngine) error
	silent   bool                        // without the default interceptors
	registry func(*interceptor.Registry) // added before the default interceptors: nearer to the wire
}

func newPeer(t testing.TB, o peerOptions) *peer {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if o.media == nil {
		o.media = func(m *webrtc.MediaEngine) error { return m.RegisterDefaultCodecs() }
	}
	if err := o.media(m); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo} {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: delayURI}, kind); err != nil {
			t.Fatal(err)
		}
	}
	registry := &interceptor.Registry{}
	if o.registry != nil {
		o.registry(registry)
	}
	if !o.silent {
		if err := webrtc.RegisterDefaultInterceptors(m, registry); err != nil {
			t.Fatal(err)
		}
	}
	var s webrtc.SettingEngine
	s.LoggerFactory = pionLog{testLog(t)}
	s.SetIncludeLoopbackCandidate(true)
	// pion is DTLS server to who is ICE-lite, browsers are not
	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleClient); err != nil {
		t.Fatal(err)
	}
	if o.settings != nil {
		o.settings(&s)
	}
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{pc: pc, packets: make(chan *rtp.Packet, 10000), audio: make(chan *rtp.Packet, 10000)}
	pc.OnTrack(func(tr *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		p.tracks.Add(2)
		go func() { // runs the interceptors on what comes as RTCP
			defer p.tracks.Done()
			for {
				if _, _, err := r.ReadRTCP(); err != nil {
					return
				}
			}
		}()
		defer p.tracks.Done()
		out := p.packets
		if tr.Kind() == webrtc.RTPCodecTypeAudio {
			out = p.audio
		}
		for {
			packet, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			select {
			case out <- packet:
			default:
			}
		}
	})
	t.Cleanup(func() { p.close(t) })
	return p
}

func (p *peer) close(t testing.TB) {
	if err := p.pc.GracefulClose(); err != nil {
		t.Error(err)
	}
	p.tracks.Wait()
}

// next is the next packet of the video track.
func (p *peer) next(t testing.TB) *rtp.Packet {
	t.Helper()
	return receive(t, p.packets, "a video packet")
}

func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("waited 15 s for %s", what)
		panic("unreachable")
	}
}

// answer makes the peer's answer to an offer, with all its candidates.
func (p *peer) answer(t testing.TB, offer string) string {
	t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		t.Fatalf("peer refuses the offer: %v\n%s", err, offer)
	}
	for _, tr := range p.pc.GetTransceivers() {
		if err := tr.SetCodecPreferences(nil); err != nil { // pion keeps to those of the first offer, browsers don't
			t.Fatal(err)
		}
	}
	a, err := p.pc.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(a); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	return p.pc.LocalDescription().SDP
}

// add passes the gateway's candidates on; it is a ViewerOptions.OnCandidate.
func (p *peer) add(c *Candidate) {
	if c != nil {
		_ = p.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex})
	}
}

// session is a viewer with its peer.
type session struct {
	*Viewer
	peer   *peer
	states chan State
	queue  chan *Candidate
	played chan string // OnSwitch: slot and rendition
}

func newSession(t testing.TB, e *Engine, o peerOptions, tracks ...any) *session {
	t.Helper()
	s := &session{peer: newPeer(t, o), states: make(chan State, 100), queue: make(chan *Candidate, 100), played: make(chan string, 1000)}
	v, err := e.NewViewer(ViewerOptions{
		ID: t.Name(), OnState: func(st State) { s.states <- st }, OnCandidate: func(c *Candidate) { s.queue <- c },
		OnSwitch: func(slot string, t media.Track) { s.played <- slot + " " + t.Name },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Viewer = v
	t.Cleanup(func() { v.Close() })
	for i := 0; i < len(tracks); i += 2 {
		if err := v.AddTrack(tracks[i].(media.Track).Name, tracks[i].(media.Track), "desk", tracks[i+1].(Source)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// negotiate goes once through offer, answer and candidates.
func (s *session) negotiate(t testing.TB, restart bool) (offer string) {
	t.Helper()
	ctx := context.Background()
	offer, err := s.Offer(ctx, restart)
	if err != nil {
		t.Fatal(err)
	}
	answer := s.peer.answer(t, offer)
	if err := s.SetAnswer(ctx, answer); err != nil {
		t.Fatal(err)
	}
	for draining := true; draining; {
		select {
		case c := <-s.queue:
			s.peer.add(c)
		default:
			draining = false
		}
	}
	return offer
}

// connect negotiates and waits for the connection.
func (s *session) connect(t testing.TB) (offer string) {
	t.Helper()
	offer = s.negotiate(t, false)
	s.await(t, StateConnected)
	return offer
}

func (s *session) await(t testing.TB, want State) {
	t.Helper()
	for {
		select {
		case got := <-s.states:
			if got == want {
				return
			}
		case c := <-s.queue:
			s.peer.add(c)
		case <-time.After(15 * time.Second):
			t.Fatalf("waited 15 s for state %v, is %v, error %v", want, s.Stats().State, s.Err())
		}
	}
}

// playing is a track that sends a source in a format, without a peer: to w.
func playing(v *Viewer, spec media.Track, src Source, f format, w webrtc.TrackLocalWriter) *track {
	f.codec, f.fmtp = spec.Codec, spec.Fmtp
	t := newTrack(v, "video", spec.Kind, "desk")
	t.ssrc, t.rtxSSRC, t.out = 7, 8, w
	t.next = &encoding{spec: spec, src: src}
	t.agree([]format{f}, []format{f})
	t.advance(0)
	return t
}

func attribute(t testing.TB, text, prefix string) string {
	t.Helper()
	for _, line := range strings.Split(text, "\r\n") {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return rest
		}
	}
	t.Fatalf("no line %q in\n%s", prefix, text)
	return ""
}
