package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/cc"
	"github.com/pion/interceptor/pkg/gcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
)

// baseline is a server as pion's examples have it, fed by the same pipeline text as
// the gateway, launched by the same package:
//
//	fixed  one encoder and one TrackLocalStaticRTP for all viewers, pion's default
//	       interceptors, the bitrate that the file says
//	gcc    an encoder for each viewer, whose bitrate follows pion's estimator
//	       (interceptor/pkg/gcc, with its pacer)
//
// It speaks WHEP at /whep/test and has a page at /.
type baseline struct {
	gcc      bool
	plan     *config.Feed
	pipeline *gst.Pipeline
	rates    config.Bitrate
	api      *webrtc.API
	created  chan cc.BandwidthEstimator // by the interceptor of the peer that is being made

	making  sync.Mutex // held while a peer is made
	viewers atomic.Int64

	mu    sync.Mutex       // guards feeds
	feeds map[string]*feed // by the id of the branch
}

// feed is an encoder and the track that it writes to. Only the pipeline's goroutine
// of the branch uses header.
type feed struct {
	track  *webrtc.TrackLocalStaticRTP
	header rtp.Header
	asked  time.Time // the last keyframe; guarded by baseline.mu
}

// The estimator begins with this, bit/s, or with what the file says if that is less.
const gccStart = 1_000_000

// serveBaseline is the program's other main.
func serveBaseline(args []string) error {
	flags := flag.NewFlagSet("baseline", flag.ExitOnError)
	kind := flags.String("kind", "fixed", "fixed or gcc")
	listen := flags.String("listen", "", "address of HTTP, and of ICE on UDP")
	file := flags.String("file", "", "the pipeline's file")
	flags.Parse(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	b, err := newBaseline(ctx, *kind == "gcc", string(text), *listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whep/test", b.whep)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, page)
	})
	server := &http.Server{Addr: *listen, Handler: mux}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	fmt.Println("ready")
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return b.pipeline.Close()
}

func newBaseline(ctx context.Context, adaptive bool, text, listen string) (*baseline, error) {
	conf, err := config.ParseStream("test", "test.yaml", []byte(text), nil)
	if err != nil {
		return nil, err
	}
	gst.Init()
	plan, err := config.Compile(conf, gst.NewRegistry())
	if err != nil {
		return nil, err
	}
	b := &baseline{gcc: adaptive, plan: &plan.Feeds[0], feeds: make(map[string]*feed), created: make(chan cc.BandwidthEstimator, 1)}
	b.rates = conf.Video.Renditions[0].Bitrate
	if b.api, err = b.newAPI(listen); err != nil {
		return nil, err
	}
	if b.pipeline, err = gst.Launch(ctx, "test", b.plan, b, slog.Default()); err != nil {
		return nil, err
	}
	return b, nil
}

// newAPI sets pion up as the documentation of gcc says.
func (b *baseline) newAPI(listen string) (*webrtc.API, error) {
	engine, registry := new(webrtc.MediaEngine), new(interceptor.Registry)
	if err := engine.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	if b.gcc {
		factory, err := cc.NewInterceptor(func() (cc.BandwidthEstimator, error) {
			return gcc.NewSendSideBWE(gcc.SendSideBWEInitialBitrate(min(gccStart, b.rates.Start)),
				gcc.SendSideBWEMinBitrate(b.rates.Min), gcc.SendSideBWEMaxBitrate(b.rates.Max))
		})
		if err != nil {
			return nil, err
		}
		factory.OnNewPeerConnection(func(_ string, e cc.BandwidthEstimator) { b.created <- e })
		registry.Add(factory)
		if err := webrtc.ConfigureTWCCHeaderExtensionSender(engine, registry); err != nil {
			return nil, err
		}
	}
	if err := webrtc.RegisterDefaultInterceptors(engine, registry); err != nil {
		return nil, err
	}
	conn, err := net.ListenPacket("udp4", listen)
	if err != nil {
		return nil, err
	}
	setting := webrtc.SettingEngine{}
	setting.SetICEUDPMux(webrtc.NewICEUDPMux(nil, conn))
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(setting)), nil
}

func (b *baseline) whep(w http.ResponseWriter, r *http.Request) {
	offer, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err == nil {
		var answer string
		if answer, err = b.answer(r.Context(), string(offer)); err == nil {
			w.Header().Set("Content-Type", "application/sdp")
			w.Header().Set("Location", "/whep/test/0")
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, answer)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func (b *baseline) answer(ctx context.Context, offer string) (string, error) {
	peer, estimator, err := b.peer()
	if err != nil {
		return "", err
	}
	id := "video"
	if b.gcc {
		id = fmt.Sprintf("video%d", b.viewers.Add(1))
	}
	f, err := b.feed(id, estimator)
	if err != nil {
		return "", err
	}
	sender, err := peer.AddTrack(f.track)
	if err != nil {
		return "", err
	}
	go func() { // ends with the peer
		for {
			packets, _, err := sender.ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range packets {
				switch p.(type) {
				case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
					b.keyframe(id)
				}
			}
		}
	}()
	peer.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			b.keyframe(id)
		case webrtc.PeerConnectionStateFailed:
			peer.Close()
		case webrtc.PeerConnectionStateClosed:
			if b.gcc {
				b.pipeline.Stop(id)
			}
		}
	})
	if err := peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(answer); err != nil {
		return "", err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return peer.LocalDescription().SDP, nil
}

// peer makes a connection, and its estimator if there are any.
func (b *baseline) peer() (*webrtc.PeerConnection, cc.BandwidthEstimator, error) {
	b.making.Lock()
	defer b.making.Unlock()
	peer, err := b.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil || !b.gcc {
		return peer, nil, err
	}
	return peer, <-b.created, nil
}

// feed starts an encoder, or finds the one that runs.
func (b *baseline) feed(id string, estimator cc.BandwidthEstimator) (*feed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.feeds[id]; f != nil {
		return f, nil
	}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}, "video", "test")
	if err != nil {
		return nil, err
	}
	f := &feed{track: track, header: rtp.Header{Version: 2}}
	b.feeds[id] = f
	branch := b.plan.Branches[0]
	if estimator != nil {
		branch = branch.WithBitrate(estimator.GetTargetBitrate())
	}
	// beside the lock: the branch delivers while it starts
	go func() {
		if err := b.pipeline.Start(context.Background(), id, &branch); err != nil {
			fmt.Fprintln(os.Stderr, "baseline:", err)
			return
		}
		if estimator != nil {
			follow(b.pipeline, id, estimator, b.rates)
		}
	}()
	return f, nil
}

// follow gives the encoder what the estimator says.
func follow(p *gst.Pipeline, id string, estimator cc.BandwidthEstimator, rates config.Bitrate) {
	set := func(bps int) {
		if err := p.SetBitrate(id, min(max(bps, rates.Min), rates.Max), true); err != nil {
			fmt.Fprintln(os.Stderr, "baseline:", err)
		}
	}
	var latest atomic.Int64
	changed := make(chan struct{}, 1)
	estimator.OnTargetBitrateChange(func(bps int) {
		latest.Store(int64(bps))
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for range changed {
		set(int(latest.Load()))
	}
}

// keyframe asks the encoder for one, at most two a second.
func (b *baseline) keyframe(id string) {
	b.mu.Lock()
	f := b.feeds[id]
	due := f != nil && time.Since(f.asked) > 500*time.Millisecond
	if due {
		f.asked = time.Now()
	}
	b.mu.Unlock()
	if due {
		b.pipeline.RequestKeyframe(id)
	}
}

// Deliver implements gst.Sink.
func (b *baseline) Deliver(id string, buffer *media.Buffer) {
	defer buffer.Release()
	b.mu.Lock()
	f := b.feeds[id]
	b.mu.Unlock()
	if f == nil {
		return
	}
	f.header.Timestamp = media.RTPTime(buffer.Capture, 90000)
	for i := range buffer.Len() {
		f.header.Marker = buffer.End && i == buffer.Len()-1
		f.header.SequenceNumber++
		f.track.WriteRTP(&rtp.Packet{Header: f.header, Payload: buffer.Payload(i)}) // to those that are connected
	}
}

// The rest of gst.Sink.

func (b *baseline) Describe(string, media.Track) {}
func (b *baseline) Dropped(string, int)          {}
func (b *baseline) Ended(id string, err error)   { fmt.Fprintln(os.Stderr, "baseline:", id, err) }
func (b *baseline) Fail(err error)               { fmt.Fprintln(os.Stderr, "baseline:", err) }

// page plays the baseline's stream, without a jitter buffer as the gateway asks for.
const page = `<!doctype html><meta charset=utf-8><title>baseline</title><video autoplay muted playsinline></video><script type=module>
const pc = new RTCPeerConnection(), video = document.querySelector('video')
pc.addTransceiver('video', {direction: 'recvonly'}).receiver.jitterBufferTarget = 0
pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]) }
await pc.setLocalDescription()
while (pc.iceGatheringState !== 'complete') await new Promise((done) => setTimeout(done, 20))
const response = await fetch('/whep/test', {method: 'POST', body: pc.localDescription.sdp, headers: {'Content-Type': 'application/sdp'}})
await pc.setRemoteDescription({type: 'answer', sdp: await response.text()})
</script>`
