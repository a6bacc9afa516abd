// Package viewer watches a stream as a client of its own: by WHEP ([Watch]) or as
// the page does, by WebSocket ([Join]), with pion's default peer, nothing shared
// with the gateway's sending side. It tells when packets came; a Decoder makes
// pictures of them.
//
// A Viewer has pion's goroutines, one that reads each track and, if it has joined,
// one that reads the WebSocket; Close ends them.
package viewer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/client"
	"gateway/internal/media"
)

// Options says what to watch and how.
type Options struct {
	URL    string                                  // of the WHEP endpoint; of the gateway to join
	Codecs []media.Codec                           // what the viewer can receive; empty: H.264, VP8 and Opus
	OnRTP  func(c media.Codec, packet *rtp.Packet) // called for each packet, on its track's goroutine; may be nil
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	IPv4   bool // media come by IPv4 only
}

// Viewer is one peer that watches one stream.
type Viewer struct {
	Begun    time.Time // when Watch was called
	Posted   time.Time // when the offer was ready and the gateway was asked
	Joined   time.Time // when the gateway said so; of Join alone
	Answered time.Time // when the answer had come
	Answer   string    // the gateway's SDP, by WHEP

	session string // URL of the WHEP session
	client  *http.Client
	peer    *webrtc.PeerConnection // nil over the WebSocket
	joined  *client.Client         // nil by WHEP
	reading sync.WaitGroup

	mu        sync.Mutex // guards what follows
	seen      Seen
	keyframes chan struct{} // closed at the first packet of a video keyframe
	closed    bool
}

// Seen is what a viewer has received of video.
type Seen struct {
	Codec         media.Codec // of the last packet
	Connected     time.Time   // zero: not yet, as all of these
	FirstPacket   time.Time
	FirstKeyframe time.Time // first packet of the first keyframe
	Packets       int
	Lost          int // gaps in the sequence numbers, not made good later
	Frames        int // markers
	Keyframes     int
}

// codecs is how the viewer offers each codec.
var codecs = map[media.Codec][]webrtc.RTPCodecParameters{
	media.H264: {
		h264(102, "42001f"), h264(104, "42e01f"), h264(106, "4d001f"), h264(108, "64001f"),
	},
	media.VP8: {{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: feedback}, PayloadType: 96}},
	media.VP9: {{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP9, ClockRate: 90000, SDPFmtpLine: "profile-id=0", RTCPFeedback: feedback}, PayloadType: 98}},
	media.Opus: {{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
		SDPFmtpLine: "minptime=10;useinbandfec=1"}, PayloadType: 111}},
	media.PCMU: {{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: 8000}, PayloadType: 0}},
	media.PCMA: {{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMA, ClockRate: 8000}, PayloadType: 8}},
}

var feedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}

func h264(pt webrtc.PayloadType, profile string) webrtc.RTPCodecParameters {
	return webrtc.RTPCodecParameters{PayloadType: pt, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: feedback,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profile,
	}}
}

// Watch asks for a stream and returns when the gateway has answered; media come
// after that.
func Watch(ctx context.Context, o Options) (*Viewer, error) {
	v, err := newViewer(&o)
	if err != nil {
		return nil, err
	}
	if err := v.negotiate(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", o.URL, err), v.Close())
	}
	return v, nil
}

// newAPI knows the codecs that are wanted.
func newAPI(o *Options) (*webrtc.API, error) {
	if len(o.Codecs) == 0 {
		o.Codecs = []media.Codec{media.H264, media.VP8, media.Opus}
	}
	engine := new(webrtc.MediaEngine)
	for _, c := range o.Codecs {
		kind := webrtc.RTPCodecTypeVideo
		if c.Kind() == media.Audio {
			kind = webrtc.RTPCodecTypeAudio
		}
		for _, p := range codecs[c] {
			if err := engine.RegisterCodec(p, kind); err != nil {
				return nil, err
			}
		}
	}
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	if o.IPv4 {
		setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(setting)), nil
}

// newViewer makes the peer, which reads each track that comes.
func newViewer(o *Options) (*Viewer, error) {
	v := &Viewer{Begun: time.Now(), keyframes: make(chan struct{})}
	v.client = &http.Client{Transport: &http.Transport{DialContext: o.Dial}}
	api, err := newAPI(o)
	if err != nil {
		return nil, err
	}
	if v.peer, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return nil, err
	}
	v.peer.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			v.mu.Lock()
			v.seen.Connected = time.Now()
			v.mu.Unlock()
		}
	})
	v.peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if !v.closed {
			v.reading.Add(1)
			go v.read(track, o.OnRTP)
		}
	})
	return v, nil
}

func (v *Viewer) negotiate(ctx context.Context, o Options) error {
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		wanted := false
		for _, c := range o.Codecs {
			wanted = wanted || c.Kind().String() == kind.String()
		}
		if !wanted {
			continue
		}
		receive := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
		if _, err := v.peer.AddTransceiverFromKind(kind, receive); err != nil {
			return err
		}
	}
	offer, err := v.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(v.peer)
	if err := v.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return ctx.Err()
	}
	v.Posted = time.Now()
	answer, resource, err := Post(ctx, v.client, o.URL, v.peer.LocalDescription().SDP)
	if err != nil {
		return err
	}
	v.Answered, v.Answer, v.session = time.Now(), answer, resource
	return v.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

// StatusError is an answer of the endpoint that is no 201.
type StatusError struct {
	Status int
	Body   string
}

// Error has the status and the whole body.
func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Body) }

// Post makes a WHEP session by an offer. resource is its address. Another status than
// 201 is a [StatusError].
func Post(ctx context.Context, client *http.Client, endpoint, offer string) (answer, resource string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader([]byte(offer)))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/sdp")
	resp, err := client.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", "", &StatusError{resp.StatusCode, string(body)}
	}
	base, err := url.Parse(endpoint)
	if err != nil {
		return "", "", err
	}
	location, err := base.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "", "", fmt.Errorf("location: %w", err)
	}
	return string(body), location.String(), nil
}

func (v *Viewer) read(track *webrtc.TrackRemote, onRTP func(media.Codec, *rtp.Packet)) {
	defer v.reading.Done()
	var order sequence
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		codec, err := media.ParseCodec(track.Codec().MimeType) // of this packet
		if err != nil {
			return
		}
		v.take(codec, packet, &order, onRTP)
	}
}

func (v *Viewer) take(codec media.Codec, packet *rtp.Packet, order *sequence, onRTP func(media.Codec, *rtp.Packet)) {
	if codec.Kind() == media.Video && len(packet.Payload) > 0 {
		v.count(codec, packet, order)
	}
	if onRTP != nil {
		onRTP(codec, packet)
	}
}

// sequence finds gaps in 16-bit numbers.
type sequence struct {
	next  uint16
	begun bool
}

// step returns how many packets are missing before this one: negative for one
// that comes late and fills a gap.
func (s *sequence) step(n uint16) int {
	if !s.begun {
		s.begun, s.next = true, n+1
		return 0
	}
	gap := int(int16(n - s.next))
	if gap < 0 {
		return -1
	}
	s.next = n + 1
	return gap
}

func (v *Viewer) count(codec media.Codec, packet *rtp.Packet, order *sequence) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &v.seen
	if s.Packets == 0 {
		s.FirstPacket = now
	}
	s.Codec = codec
	s.Packets++
	s.Lost += order.step(packet.SequenceNumber)
	if packet.Marker {
		s.Frames++
	}
	if media.Keyframe(codec, packet.Payload) {
		if s.FirstKeyframe.IsZero() {
			s.FirstKeyframe = now
			close(v.keyframes)
		}
		s.Keyframes++
	}
}

// Seen is what came until now.
func (v *Viewer) Seen() Seen {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}

// WaitKeyframe waits for the first packet of the first video keyframe.
func (v *Viewer) WaitKeyframe(ctx context.Context) error {
	select {
	case <-v.keyframes:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no keyframe: %w (%d packets)", ctx.Err(), v.Seen().Packets)
	}
}

// Close leaves, by DELETE as WHEP says or over the WebSocket, and ends the peer. A
// WHEP session that the gateway has closed by itself is no error.
func (v *Viewer) Close() error {
	v.mu.Lock()
	closed := v.closed
	v.closed = true
	v.mu.Unlock()
	if closed {
		return nil
	}
	var err error
	if v.session != "" {
		err = v.leave()
	}
	if v.joined != nil {
		err = v.joined.Close()
		v.reading.Wait()
		return err
	}
	err = errors.Join(err, v.peer.GracefulClose())
	v.reading.Wait()
	v.client.CloseIdleConnections()
	return err
}

func (v *Viewer) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, v.session, nil)
	if err != nil {
		return err
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		return fmt.Errorf("leave: status %d", resp.StatusCode)
	}
	return nil
}
