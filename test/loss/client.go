package loss

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"gateway/test/viewer"
)

// kind is what a client is like.
type kind struct {
	rtx  bool // it takes retransmissions on a stream of their own (RFC 4588)
	pion bool // pion's generator asks for what is missing, instead of requester
	plis bool // while something is missing it asks for a keyframe ten times a second too
}

// client watches a stream over a path and asks again for what is missing; for a
// keyframe only if it is of that kind.
type client struct {
	kind kind
	path *path
	mux  *ice.UDPMuxDefault
	peer *webrtc.PeerConnection
	wait sync.WaitGroup
	stop chan struct{}

	connected chan struct{}
	playing   chan struct{} // closed with the first packet

	mu       sync.Mutex // guards what follows
	received map[uint16]time.Time
	ask      requester
	ssrc     uint32
}

func watch(ctx context.Context, url string, gatewayPort int, w weather, k kind) (*client, error) {
	path, err := newPath(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: gatewayPort}, w)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		path.close()
		return nil, err
	}
	conn.SetReadBuffer(4 << 20)
	c := &client{
		kind: k, path: path, mux: ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn}), stop: make(chan struct{}),
		connected: make(chan struct{}), playing: make(chan struct{}),
		received: map[uint16]time.Time{}, ask: requester{rtt: 2 * w.delay, missing: map[uint16]*missing{}},
	}
	if err := c.connect(ctx, url); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

var feedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}

func (c *client) connect(ctx context.Context, url string) error {
	engine := new(webrtc.MediaEngine)
	err := engine.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: mediaType, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: feedback,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
	}}, webrtc.RTPCodecTypeVideo)
	if err == nil && c.kind.rtx {
		err = engine.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: rtxType, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", mediaType),
		}}, webrtc.RTPCodecTypeVideo)
	}
	if err != nil {
		return err
	}
	reports, err := report.NewReceiverInterceptor() // from which the gateway knows the round trip
	if err != nil {
		return err
	}
	registry := new(interceptor.Registry)
	registry.Add(reports)
	if c.kind.pion {
		generator, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(2*c.path.delay), nack.GeneratorMaxNacksPerPacket(maxRetries))
		if err != nil {
			return err
		}
		registry.Add(generator)
	}
	setting := webrtc.SettingEngine{}
	setting.SetICEUDPMux(c.mux)
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(setting), webrtc.WithInterceptorRegistry(registry))
	if c.peer, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return err
	}
	var once sync.Once
	c.peer.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(c.connected) })
		}
	})
	c.peer.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-c.stop:
		default:
			c.ssrc = uint32(t.SSRC())
			c.wait.Go(func() { c.read(t) })
			c.wait.Go(c.request)
		}
	})
	receive := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	if _, err := c.peer.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, receive); err != nil {
		return err
	}
	offer, err := c.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := c.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	// without candidates: the gateway is to know the path's address only
	answer, _, err := viewer.Post(ctx, http.DefaultClient, url, offer.SDP)
	if err != nil {
		return err
	}
	answer = throughPath(answer, c.path.front.LocalAddr().(*net.UDPAddr).Port)
	if err := c.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return err
	}
	for _, event := range []chan struct{}{c.connected, c.playing} {
		select {
		case <-event:
		case <-ctx.Done():
			return fmt.Errorf("connection is %s: %w", c.peer.ConnectionState(), ctx.Err())
		}
	}
	return nil
}

// candidate is foundation, component, transport, priority, address, port (RFC 8839 §5.1).
var candidate = regexp.MustCompile(`^(a=candidate:\S+ \d+ udp \d+ 127\.0\.0\.1) \d+( typ host.*\r\n)$`)

// throughPath leaves one of the gateway's candidates, at the path's port.
func throughPath(sdp string, port int) string {
	var b strings.Builder
	for line := range strings.Lines(sdp) {
		if !strings.HasPrefix(line, "a=candidate:") {
			b.WriteString(line)
		} else if m := candidate.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&b, "%s %d%s", m[1], port, m[2])
		}
	}
	return b.String()
}

// read notes what comes. pion hands out what came by RTX with the next media packet
// only: by that much repairs seem later than they are.
func (c *client) read(t *webrtc.TrackRemote) {
	for first := true; ; first = false {
		p, _, err := t.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		c.mu.Lock()
		if _, again := c.received[p.SequenceNumber]; !again {
			c.received[p.SequenceNumber] = now
		}
		ask := c.ask.arrived(p.SequenceNumber, now)
		c.mu.Unlock()
		c.nack(ask)
		if first {
			close(c.playing)
		}
	}
}

// request asks again for what hasn't come.
func (c *client) request() {
	tick := time.NewTicker(retryTick)
	defer tick.Stop()
	for ticks := 0; ; ticks++ {
		select {
		case <-tick.C:
			c.mu.Lock()
			ask := c.ask.due(time.Now())
			gaps := len(c.ask.missing) > 0
			c.mu.Unlock()
			c.nack(ask)
			if c.kind.plis && gaps && ticks%pliTicks == 0 {
				c.peer.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: c.ssrc}})
			}
		case <-c.stop:
			return
		}
	}
}

func (c *client) nack(seqs []uint16) {
	if len(seqs) > 0 && !c.kind.pion {
		c.peer.WriteRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
			SenderSSRC: 1, MediaSSRC: c.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs),
		}})
	}
}

func (c *client) close() error {
	c.mu.Lock()
	close(c.stop)
	c.mu.Unlock()
	var err error
	if c.peer != nil {
		err = c.peer.GracefulClose()
	}
	c.wait.Wait()
	err = errors.Join(err, c.mux.Close())
	c.path.close()
	return err
}

// What libwebrtc does (modules/video_coding/nack_requester.cc).
const (
	retryTick  = 20 * time.Millisecond
	maxRetries = 10
	pliTicks   = 5 // between two requests for a keyframe: more than browsers send
)

// requester decides what to ask for: what is missing at once, and again each round
// trip, ten times at most.
type requester struct {
	rtt     time.Duration
	begun   bool
	next    uint16
	missing map[uint16]*missing
}

type missing struct {
	asked time.Time
	tries int
}

func (r *requester) arrived(seq uint16, now time.Time) (ask []uint16) {
	if !r.begun {
		r.begun, r.next = true, seq
	}
	if int16(seq-r.next) < 0 {
		delete(r.missing, seq)
		return nil
	}
	for ; r.next != seq; r.next++ {
		r.missing[r.next] = &missing{now, 1}
		ask = append(ask, r.next)
	}
	r.next++
	return ask
}

func (r *requester) due(now time.Time) (ask []uint16) {
	for seq, m := range r.missing {
		switch {
		case now.Sub(m.asked) < r.rtt:
		case m.tries == maxRetries:
			delete(r.missing, seq)
		default:
			m.asked = now
			m.tries++
			ask = append(ask, seq)
		}
	}
	return ask
}
