// Package crowd is many WebRTC clients in one process that cost little: whole
// peers with ICE, DTLS and RTCP on a socket each, which count their media by its
// headers and don't decrypt it. So hundreds of them fit on one core, and what
// they tell is what came out of the kernel.
//
// A [Crowd] runs in a process of its own (rig.Child), by [Start]. Each client has
// pion's goroutines; one reads the sockets of all, one sends their receiver reports.
package crowd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"gateway/test/rig"
	"gateway/test/viewer"
)

const (
	joining        = 20 // clients that join at a time
	joinTimeout    = 30 * time.Second
	reportInterval = time.Second
)

// Crowd is the clients of one process. Its exported methods are called by
// net/rpc; use [Start] from elsewhere.
type Crowd struct {
	once        sync.Once
	err         error // of setUp
	certificate *webrtc.Certificate

	mu      sync.Mutex // guards what follows
	split   bool       // new sockets take datagrams only
	clients []*client
	taps    []*tap // of all clients, also those that are joining
}

// client is one viewer; without a peer it is a plain UDP socket.
type client struct {
	tap  *tap
	mux  *ice.UDPMuxDefault
	peer *webrtc.PeerConnection
}

// JoinArgs say what to watch.
type JoinArgs struct {
	URL string // of the WHEP endpoint
	N   int    // clients more
}

// Join adds clients and returns when all are connected.
func (c *Crowd) Join(a JoinArgs, _ *struct{}) error {
	c.once.Do(c.setUp)
	if c.err != nil {
		return c.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinTimeout+time.Duration(a.N)*100*time.Millisecond)
	defer cancel()
	var wait sync.WaitGroup
	turns := make(chan struct{}, joining)
	errs := make(chan error, a.N)
	for range a.N {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			client, err := c.join(ctx, a.URL)
			if err != nil {
				errs <- err
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.clients = append(c.clients, client)
		})
	}
	wait.Wait()
	close(errs)
	return <-errs
}

func (c *Crowd) setUp() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		c.certificate, err = webrtc.GenerateCertificate(key)
	}
	c.err = err
	go c.read()
	go c.report()
}

func (c *Crowd) join(ctx context.Context, url string) (*client, error) {
	tap, err := c.tap()
	if err != nil {
		return nil, err
	}
	v := &client{tap: tap, mux: ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: tap})}
	if err := v.connect(ctx, url, *c.certificate); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *client) connect(ctx context.Context, url string, certificate webrtc.Certificate) error {
	engine := new(webrtc.MediaEngine)
	for _, p := range codecs {
		if err := engine.RegisterCodec(p, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	setting := webrtc.SettingEngine{}
	setting.SetICEUDPMux(v.mux)
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(setting),
		webrtc.WithInterceptorRegistry(new(interceptor.Registry)))
	var err error
	if v.peer, err = api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{certificate}}); err != nil {
		return err
	}
	connected, failed := make(chan struct{}), make(chan struct{})
	v.peer.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			close(connected)
		case webrtc.PeerConnectionStateFailed:
			close(failed)
		}
	})
	receive := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	if _, err := v.peer.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, receive); err != nil {
		return err
	}
	offer, err := v.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(v.peer)
	if err := v.peer.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	answer, _, err := viewer.Post(ctx, http.DefaultClient, url, v.peer.LocalDescription().SDP)
	if err != nil {
		return err
	}
	if err := v.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: onLoopback(answer)}); err != nil {
		return err
	}
	select {
	case <-connected:
		return nil
	case <-failed:
		return errors.New("connection failed")
	case <-ctx.Done():
		return fmt.Errorf("connection is %s: %w", v.peer.ConnectionState(), ctx.Err())
	}
}

var feedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}

// codecs is what a client takes: the H.264 that every browser does, with RTX.
var codecs = []webrtc.RTPCodecParameters{
	{PayloadType: mediaType, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000, RTCPFeedback: feedback,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
	}},
	{PayloadType: rtxType, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", mediaType),
	}},
}

// onLoopback leaves of a description's candidates those on 127.0.0.1: the same
// way for all, and no checks of others.
func onLoopback(sdp string) string {
	var b strings.Builder
	for line := range strings.Lines(sdp) {
		if !strings.HasPrefix(line, "a=candidate:") || strings.Contains(line, " 127.0.0.1 ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// tap opens a socket that read looks after.
func (c *Crowd) tap() (*tap, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := newTap(c.split)
	if err != nil {
		return nil, err
	}
	c.taps = append(c.taps, t)
	return t, nil
}

// read empties all sockets again and again.
func (c *Crowd) read() {
	b := new(batch)
	for range time.Tick(pollInterval) {
		c.mu.Lock()
		taps := c.taps
		c.mu.Unlock()
		for _, t := range taps {
			t.empty(b)
		}
	}
}

// report sends each client's receiver report once a second, spread over it.
func (c *Crowd) report() {
	for {
		c.mu.Lock()
		clients := c.clients
		c.mu.Unlock()
		if len(clients) == 0 {
			time.Sleep(reportInterval)
			continue
		}
		for _, v := range clients {
			v.report()
			time.Sleep(reportInterval / time.Duration(len(clients)))
		}
	}
}

func (v *client) report() {
	ssrc, highest, lost, ok := v.tap.receiver()
	if !ok || v.peer == nil {
		return
	}
	v.peer.WriteRTCP([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: ssrc + 1, Reports: []rtcp.ReceptionReport{{
		SSRC: ssrc, LastSequenceNumber: highest, TotalLost: uint32(lost),
	}}}}) // one that can't be sent is no loss
}

// Split has the kernel cut up messages of many datagrams for the clients that come
// after, at the expense of a sender on the same machine.
func (c *Crowd) Split(struct{}, *struct{}) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.split = true
	return nil
}

// Listen adds plain UDP sockets, whose packets are counted alike, and returns
// their addresses.
func (c *Crowd) Listen(n int, addrs *[]string) error {
	c.once.Do(c.setUp)
	for range n {
		tap, err := c.tap()
		if err != nil {
			return err
		}
		*addrs = append(*addrs, tap.LocalAddr().String())
		c.mu.Lock()
		c.clients = append(c.clients, &client{tap: tap})
		c.mu.Unlock()
	}
	return nil
}

// Counts is what a crowd has seen until now.
type Counts struct {
	Seen             // of all clients
	Frames  []uint64 // of each
	Dropped uint64   // that came and found a socket's buffer full: datagrams, or messages of several
}

// Since is what was seen between two counts, of the clients that were there at
// the first. Lost may be the less: gaps are filled late.
func (c Counts) Since(o Counts) Counts {
	c.Packets -= o.Packets
	c.Bytes -= o.Bytes
	c.RTX -= o.RTX
	c.Lost -= min(o.Lost, c.Lost)
	c.Late -= o.Late
	c.Ends -= o.Ends
	c.Dropped -= o.Dropped
	frames := make([]uint64, len(o.Frames))
	for i, before := range o.Frames {
		frames[i] = c.Frames[i] - before
	}
	c.Frames = frames
	return c
}

// Count counts.
func (c *Crowd) Count(_ struct{}, out *Counts) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ports := make(map[uint16]bool)
	for _, v := range c.clients {
		v.tap.mu.Lock()
		seen := v.tap.seen
		v.tap.mu.Unlock()
		out.add(seen)
		out.Frames = append(out.Frames, seen.Ends)
		ports[uint16(v.tap.addr.Port)] = true
	}
	out.Dropped, err = drops(ports)
	return err
}

// Leave ends all clients, closing their connections as browsers do.
func (c *Crowd) Leave(struct{}, *struct{}) error {
	c.mu.Lock()
	clients := c.clients
	c.clients, c.taps = nil, nil
	c.mu.Unlock()
	var errs []error
	for _, v := range clients {
		errs = append(errs, v.close())
	}
	return errors.Join(errs...)
}

func (v *client) close() error {
	var err error
	if v.peer != nil {
		err = v.peer.Close()
	}
	if v.mux != nil {
		return errors.Join(err, v.mux.Close())
	}
	return errors.Join(err, v.tap.Close())
}

// Remote is a Crowd in a process of its own.
type Remote struct{ *rig.Child }

// Start starts it on some cores. The program's main must give rig.ServeChild a Crowd.
func Start(cpus string) (Remote, error) {
	child, err := rig.StartChild(cpus)
	return Remote{child}, err
}

// Split is [Crowd.Split].
func (r Remote) Split(ctx context.Context) error {
	return r.Call(ctx, "Crowd.Split", struct{}{}, &struct{}{})
}

// Join is [Crowd.Join].
func (r Remote) Join(ctx context.Context, url string, n int) error {
	return r.Call(ctx, "Crowd.Join", JoinArgs{url, n}, &struct{}{})
}

// Listen is [Crowd.Listen].
func (r Remote) Listen(ctx context.Context, n int) (addrs []string, err error) {
	err = r.Call(ctx, "Crowd.Listen", n, &addrs)
	return addrs, err
}

// Count is [Crowd.Count].
func (r Remote) Count(ctx context.Context) (c Counts, err error) {
	err = r.Call(ctx, "Crowd.Count", struct{}{}, &c)
	return c, err
}

// Leave is [Crowd.Leave].
func (r Remote) Leave(ctx context.Context) error {
	return r.Call(ctx, "Crowd.Leave", struct{}{}, &struct{}{})
}
