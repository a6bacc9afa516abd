// Package receiver is a viewer that cares for the network as a browser does and
// costs little: it sends transport-wide feedback ten times a second, asks for lost
// packets again, takes retransmissions, asks for a keyframe when it can't go on, and
// decodes nothing. It tells when frames were complete that a decoder could have
// shown. H.264 by WHEP.
//
// A Receiver has pion's goroutines and one of its own; Close ends them.
package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// Payload types of the offer.
const (
	MediaType = 102
	RTXType   = 103
)

// Options says what to watch, and where from.
type Options struct {
	URL       string         // of the WHEP endpoint
	Namespace *rig.Namespace // nil: the process's own
	IP        string         // the address there
	OnFrame   func(Frame)    // called for each frame; it must not block. May be nil
}

// Seen is what a receiver has seen until now.
type Seen struct {
	Packets, Bytes int // of media, payload bytes without retransmissions and padding
	Again          int // packets by RTX that filled a gap
	Useless        int // packets by RTX that came already, or are padding
	Frames         int // that a decoder could have shown
	Keyframes      int // of those
	NACKs, PLIs    int // packets asked for, keyframes asked for
}

// Receiver is one viewer.
type Receiver struct {
	peer    *webrtc.PeerConnection
	mux     *ice.UDPMuxDefault
	onFrame func(Frame)
	stop    chan struct{}
	wait    sync.WaitGroup
	closing sync.Once

	state chan struct{} // closed and made anew when the connection's state changes

	mu     sync.Mutex // guards what follows
	ssrc   uint32
	frames assembler
	ask    requester
	asked  time.Time // a keyframe, last
	seen   Seen
	since  time.Time // when the receiver began to wait for its next frame
	failed bool
}

// Watch connects and returns when it has.
func Watch(ctx context.Context, o Options) (*Receiver, error) {
	r := &Receiver{onFrame: o.OnFrame, stop: make(chan struct{}), state: make(chan struct{}), since: time.Now()}
	if err := r.connect(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("receive %s: %w", o.URL, err), r.Close())
	}
	return r, nil
}

var feedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}

func (r *Receiver) connect(ctx context.Context, o Options) error {
	engine, registry := new(webrtc.MediaEngine), new(interceptor.Registry)
	for _, p := range []webrtc.RTPCodecParameters{
		{PayloadType: MediaType, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: feedback,
			SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
		}},
		{PayloadType: RTXType, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", MediaType),
		}},
	} {
		if err := engine.RegisterCodec(p, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	if err := webrtc.ConfigureTWCCSender(engine, registry); err != nil { // each 100 ms
		return err
	}
	reports, err := report.NewReceiverInterceptor()
	if err != nil {
		return err
	}
	registry.Add(reports)
	registry.Add(factory{r})

	var conn net.PacketConn
	listen := func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp4", o.IP+":0")
		return err
	}
	if o.Namespace != nil {
		err = o.Namespace.Do(listen)
	} else {
		err = listen()
	}
	if err != nil {
		return err
	}
	conn.(*net.UDPConn).SetReadBuffer(4 << 20) // no losses but those of the network
	r.mux = ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn})
	setting := webrtc.SettingEngine{}
	setting.SetICEUDPMux(r.mux)
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(setting), webrtc.WithInterceptorRegistry(registry))
	if r.peer, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return err
	}
	r.peer.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = r.failed || s == webrtc.PeerConnectionStateFailed
		close(r.state)
		r.state = make(chan struct{})
	})
	r.peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		r.mu.Lock()
		r.ssrc = uint32(track.SSRC())
		r.mu.Unlock()
		b := make([]byte, 2000)
		for { // pion's own goroutine; the interceptor sees what is read here
			if _, _, err := track.Read(b); err != nil {
				return
			}
		}
	})
	if err := r.negotiate(ctx, o); err != nil {
		return err
	}
	r.wait.Go(r.tick)
	return r.connected(ctx)
}

func (r *Receiver) negotiate(ctx context.Context, o Options) error {
	receive := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	if _, err := r.peer.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, receive); err != nil {
		return err
	}
	offer, err := r.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(r.peer)
	if err := r.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered // a socket that is open already
	client := &http.Client{Transport: &http.Transport{DialContext: o.Namespace.Dial, DisableKeepAlives: true}}
	answer, _, err := viewer.Post(ctx, client, o.URL, r.peer.LocalDescription().SDP)
	if err != nil {
		return err
	}
	return r.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

func (r *Receiver) connected(ctx context.Context) error {
	for {
		r.mu.Lock()
		changed := r.state
		r.mu.Unlock()
		switch s := r.peer.ConnectionState(); s {
		case webrtc.PeerConnectionStateConnected:
			return nil
		case webrtc.PeerConnectionStateFailed:
			return errors.New("connection failed")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("connection is %s: %w", r.peer.ConnectionState(), ctx.Err())
		}
	}
}

// Seen is what was seen until now.
func (r *Receiver) Seen() Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// SSRC is that of the media; 0 before the first packet.
func (r *Receiver) SSRC() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ssrc
}

// Kept tells whether the connection has never failed.
func (r *Receiver) Kept() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.failed && r.peer.ConnectionState() != webrtc.PeerConnectionStateClosed
}

// Close leaves as browsers do, by closing the connection.
func (r *Receiver) Close() (err error) {
	r.closing.Do(func() {
		close(r.stop)
		if r.peer != nil {
			err = r.peer.GracefulClose()
		}
		r.wait.Wait()
		if r.mux != nil {
			err = errors.Join(err, r.mux.Close())
		}
	})
	return err
}

// factory makes the interceptor that sees each packet when it comes, before pion
// puts retransmissions in line with the rest.
type factory struct{ r *Receiver }

func (f factory) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &tap{r: f.r}, nil
}

type tap struct {
	interceptor.NoOp
	r *Receiver
}

func (t *tap) BindRemoteStream(_ *interceptor.StreamInfo, reader interceptor.RTPReader) interceptor.RTPReader {
	return interceptor.RTPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := reader.Read(b, a)
		if err == nil {
			t.r.take(b[:n], time.Now())
		}
		return n, a, err
	})
}

// take reads a packet.
func (r *Receiver) take(b []byte, now time.Time) {
	var p rtp.Packet
	if p.Unmarshal(b) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	again := p.PayloadType == RTXType
	if again {
		if len(p.Payload) < 2 {
			r.seen.Useless++
			return
		}
		p.SequenceNumber = uint16(p.Payload[0])<<8 | uint16(p.Payload[1]) // RFC 4588 §4
		p.Payload = p.Payload[2:]
	} else {
		r.seen.Packets++
		r.seen.Bytes += len(p.Payload)
	}
	seq, fresh := r.frames.add(&p, now, again)
	if again && fresh {
		r.seen.Again++
	} else if again {
		r.seen.Useless++
	}
	r.nack(r.ask.arrived(seq, now))
	for _, f := range r.frames.complete(now) {
		r.seen.Frames++
		if f.Keyframe {
			r.seen.Keyframes++
		}
		r.since = now
		r.ask.forget(r.frames.next)
		if r.onFrame != nil {
			r.onFrame(f)
		}
	}
}

func (r *Receiver) nack(seqs []uint16) {
	if len(seqs) == 0 || r.ssrc == 0 {
		return
	}
	r.seen.NACKs += len(seqs)
	m := &rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: r.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)}
	r.peer.WriteRTCP([]rtcp.Packet{m})
}

// When a keyframe is asked for (libwebrtc: video/video_receive_stream2.cc).
const (
	firstWait = 200 * time.Millisecond // for one that was asked for
	frameWait = 3 * time.Second        // for any frame
)

func (r *Receiver) tick() {
	tick := time.NewTicker(retryTick)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.mu.Lock()
			ask, lost := r.ask.due(now)
			r.nack(ask)
			if lost {
				r.frames.broken = true
			}
			needed := !r.frames.begun || r.frames.broken || now.Sub(r.since) > frameWait
			if needed && r.ssrc != 0 && now.Sub(r.asked) > firstWait {
				r.asked = now
				r.seen.PLIs++
				r.peer.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: r.ssrc}})
			}
			r.mu.Unlock()
		case <-r.stop:
			return
		}
	}
}

// begins tells whether a payload begins a keyframe: parameter sets stand before each
// (h264parse config-interval=-1).
func begins(payload []byte) bool { return media.H264SPS(payload) != nil }
