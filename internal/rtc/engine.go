package rtc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/config"
)

const (
	closeTimeout = 5 * time.Second

	iceDisconnected = 5 * time.Second
	iceFailed       = 25 * time.Second // after disconnected: pion adds the two up, docs/protocol.md says 30 s
	iceKeepalive    = 2 * time.Second
	dtlsRetransmit  = 250 * time.Millisecond

	// pion makes certificates that are good for a month.
	certificateAge = 24 * time.Hour
)

// Options are what an engine is made of.
type Options struct {
	UDPPort    int // 0: any free port, see Port
	ICE        config.ICE
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: metrics are not exported
}

// Engine owns the UDP port and the sending goroutines.
//
// The gateway's own ICE agents gather host candidates on that port only, or the
// public addresses in their stead. STUN and TURN servers of the configuration
// are handed to the viewers and not used here: a reflexive candidate of pion's would be a socket for
// each viewer on a port of its own, and a relay on the gateway's side helps
// nobody whom a relay on the viewer's side doesn't.
type Engine struct {
	log       *slog.Logger
	metrics   *metrics
	sockets   *sockets
	settings  webrtc.SettingEngine // without what is a viewer's own
	codecs    *webrtc.MediaEngine
	shards    []*shard
	lite      bool // viewers that may are served without a PeerConnection
	relayOnly bool // viewers are reached through their relays only
	unpaced   bool // packets go as they come: what tests compare pacing with

	mu          sync.Mutex // guards what follows
	viewers     map[*Viewer]struct{}
	publishers  map[*Publisher]struct{}
	closed      bool
	certificate *certificate
	certified   time.Time
}

// New opens the UDP port on every local address, IPv4 and IPv6. A port that is
// taken is an error that names it.
func New(o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	e := &Engine{log: o.Logger, lite: o.ICE.Lite && !o.ICE.RelayOnly, relayOnly: o.ICE.RelayOnly, viewers: map[*Viewer]struct{}{}, publishers: map[*Publisher]struct{}{}}
	var err error
	if e.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if e.codecs, err = nominalCodecs(); err != nil {
		return nil, err
	}
	pion := pionLog{o.Logger}
	shards := runtime.GOMAXPROCS(0)
	e.sockets, err = openSockets(o.UDPPort, shards, o.ICE.Interfaces, o.ICE.PublicAddresses, o.Logger, pion.NewLogger("mux"), e.metrics)
	if err != nil {
		return nil, err
	}
	if e.settings, err = settings(o.ICE, pion); err != nil {
		e.sockets.Close()
		return nil, err
	}
	if len(o.ICE.Servers) > 0 && len(o.ICE.PublicAddresses) == 0 && e.sockets.private() {
		o.Logger.Warn("all addresses are private: viewers beyond the NAT need a forwarded port named by ice.public_addresses, " +
			"or a TURN server that reaches this machine; ice.servers are for the viewers' side")
	}
	for i := range shards {
		e.shards = append(e.shards, newShard(i))
	}
	return e, nil
}

// nominalCodecs are what pion believes to negotiate; see sdp.go.
func nominalCodecs() (*webrtc.MediaEngine, error) {
	m := &webrtc.MediaEngine{}
	video, audio := webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio
	return m, errors.Join(
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: nominalVideo, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}, video),
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: nominalVideoRTX, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", nominalVideo)}}, video),
		m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: nominalAudio, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}}, audio),
	)
}

func settings(o config.ICE, log pionLog) (webrtc.SettingEngine, error) {
	var s webrtc.SettingEngine
	s.LoggerFactory = log
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.DisableActiveTCP(true)
	// Resolving a browser's mDNS candidates takes two sockets for each viewer (and
	// pion leaves one open where IPv6 is missing). Nothing is lost without: the
	// browser's checks reach the gateway's candidates and make it a peer-reflexive one.
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	// So peer-reflexive is what a browser next door looks like: don't make it wait
	// (pion would for 1 s). A relay gives the direct way a moment.
	s.SetHostAcceptanceMinWait(0)
	s.SetPrflxAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(0)
	if !o.RelayOnly {
		s.SetRelayAcceptanceMinWait(300 * time.Millisecond)
	} else {
		s.SetRelayAcceptanceMinWait(0)
	}

	s.SetICEMaxBindingRequests(maxBindingRequests)
	s.SetSCTPMaxReceiveBufferSize(sctpReceives)
	s.SetSCTPMaxMessageSize(MaxData)

	if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return s, err
	}
	s.SetSRTPProtectionProfiles(profiles...)
	s.SetDTLSInsecureSkipHelloVerify(true) // ICE has verified the peer's address: saves a round trip
	s.SetDTLSRetransmissionInterval(dtlsRetransmit)

	s.SetIncludeLoopbackCandidate(len(o.PublicAddresses) == 0)
	if len(o.PublicAddresses) > 0 {
		for _, a := range o.PublicAddresses {
			if _, err := netip.ParseAddr(a); err != nil {
				return s, fmt.Errorf("public address %q: %w", a, err)
			}
		}
		if err := s.SetICEAddressRewriteRules(webrtc.ICEAddressRewriteRule{
			External:        o.PublicAddresses,
			AsCandidateType: webrtc.ICECandidateTypeHost,
			Mode:            webrtc.ICEAddressRewriteReplace,
		}); err != nil {
			return s, fmt.Errorf("public addresses: %w", err)
		}
	}
	return s, nil
}

// Port is the UDP port on which all viewers are served.
func (e *Engine) Port() int { return e.sockets.port }

// NewViewer makes a viewer without tracks. It counts until it is closed.
func (e *Engine) NewViewer(o ViewerOptions) (*Viewer, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, fmt.Errorf("engine: %w", ErrClosed)
	}
	certificate, err := e.currentCertificate()
	if o.Succeeds != nil && o.Succeeds.shaken() {
		// The peer takes an offer with another fingerprint for a DTLS association of its
		// own (RFC 8842 §4); with the same it stays with the one that has failed.
		certificate, err = newCertificate()
	}
	if err != nil {
		e.mu.Unlock()
		return nil, fmt.Errorf("DTLS certificate: %w", err)
	}
	s := slices.MinFunc(e.shards, func(a, b *shard) int { return a.load - b.load })
	s.load++
	e.mu.Unlock()

	v := newViewer(e, s, o)
	if e.lite && !o.FullICE {
		v.conn = newLite(v, e.sockets.peers, certificate)
	} else if v.conn, err = e.newPeerConnection(v, certificate); err != nil {
		e.forget(v)
		return nil, err
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		go v.conn.close()
		return nil, fmt.Errorf("engine: %w", ErrClosed)
	}
	e.viewers[v] = struct{}{}
	s.add(v)
	e.metrics.viewers.WithLabelValues(StateNew.String()).Inc()
	return v, nil
}

// currentCertificate is shared by the viewers of a day; e.mu is held.
func (e *Engine) currentCertificate() (*certificate, error) {
	if e.certificate != nil && time.Since(e.certified) < certificateAge {
		return e.certificate, nil
	}
	c, err := newCertificate()
	if err != nil {
		return nil, err
	}
	e.certificate, e.certified = c, time.Now()
	return c, nil
}

func newCertificate() (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c, err := selfsign.SelfSign(key)
	if err != nil {
		return nil, err
	}
	return &certificate{c, fingerprintOf(c.Certificate[0])}, nil
}

func (e *Engine) forget(v *Viewer) {
	v.shard.remove(v)
	e.mu.Lock()
	v.shard.load--
	delete(e.viewers, v)
	e.mu.Unlock()
}

// Alive returns when every goroutine that sends to viewers has been seen to move, or
// with ctx's error.
func (e *Engine) Alive(ctx context.Context) error {
	e.mu.Lock() // so that who holds it for ever is noticed, too
	shards := e.shards
	e.mu.Unlock()
	for _, s := range shards {
		select {
		case s.asked <- struct{}{}:
		case <-s.done:
		case <-ctx.Done():
			return fmt.Errorf("shard %d doesn't move: %w", s.index, ctx.Err())
		}
	}
	return nil
}

// Close closes all viewers, publishers and the port, and waits at most 5 s for them. Idempotent.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	var ended []<-chan struct{}
	var ends []func(error)
	for v := range e.viewers {
		ends, ended = append(ends, v.end), append(ended, v.done)
	}
	for p := range e.publishers {
		ends, ended = append(ends, p.end), append(ended, p.done)
	}
	e.mu.Unlock()

	for _, end := range ends {
		end(ErrClosed)
	}
	var err error
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
wait:
	for i, done := range ended {
		select {
		case <-done:
		case <-timeout.C:
			err = fmt.Errorf("%d peers did not close within %v", len(ended)-i, closeTimeout)
			break wait
		}
	}
	for _, s := range e.shards {
		s.close()
	}
	return errors.Join(err, e.sockets.Close())
}
