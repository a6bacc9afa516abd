// Command bare is the shortest chain from an X screen to a browser that go-gst
// and pion allow: one pipeline, one track, one page. It has none of what a
// product needs, so what it measures is the floor that bench-latency compares
// the gateway with.
//
//	bare -listen 127.0.0.1:9000 -display :7 [-fps 30] [-bitrate 2500]
//
// It prints "listening" when it serves. The page is / and plays at once.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/go-gst/go-gst/gst"
	"github.com/go-gst/go-gst/gst/app"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// playoutDelay is the header extension that tells a browser how long to hold a
// frame; three zero bytes say not at all.
const playoutDelay = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

const page = `<!doctype html><meta charset="utf-8"><title>bare</title>
<video autoplay muted playsinline style="width:100%"></video>
<script type="module">
  const video = document.querySelector('video')
  const pc = new RTCPeerConnection()
  pc.addTransceiver('video', { direction: 'recvonly' })
  pc.ontrack = (e) => { video.srcObject = new MediaStream([e.track]) }
  await pc.setLocalDescription()
  await new Promise((done) => {
    const check = () => pc.iceGatheringState === 'complete' && done()
    pc.onicegatheringstatechange = check
    check()
  })
  const response = await fetch('offer', { method: 'POST', body: JSON.stringify(pc.localDescription) })
  await pc.setRemoteDescription(await response.json())
</script>`

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address to serve on")
	display := flag.String("display", os.Getenv("DISPLAY"), "X display to capture")
	fps := flag.Int("fps", 30, "frames a second")
	bitrate := flag.Int("bitrate", 2500, "kbit/s")
	launch := flag.String("launch", "", "launch text with an appsink named video, instead of the built-in one")
	flag.Parse()
	if *launch == "" {
		*launch = fmt.Sprintf("ximagesrc display-name=%s use-damage=false ! video/x-raw,framerate=%d/1 ! videoconvert ! video/x-raw,format=I420 "+
			"! x264enc tune=zerolatency speed-preset=superfast bitrate=%d key-int-max=%d ! video/x-h264,profile=constrained-baseline "+
			"! h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency mtu=1200 "+
			"! appsink name=video sync=false buffer-list=true max-buffers=200 drop=true", *display, *fps, *bitrate, 2**fps)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *launch); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, launch string) error {
	gst.Init(nil)
	api, err := newAPI()
	if err != nil {
		return err
	}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}, "video", "bare")
	if err != nil {
		return err
	}
	c := &chain{api: api, track: track}
	pipeline, err := gst.NewPipelineFromString(launch)
	if err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	element, err := pipeline.GetElementByName("video")
	if err != nil {
		return err
	}
	app.SinkFromElement(element).SetCallbacks(&app.SinkCallbacks{NewSampleFunc: c.send})
	if err := pipeline.SetState(gst.StatePlaying); err != nil {
		return err
	}
	defer pipeline.SetState(gst.StateNull)
	defer c.close()

	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	})
	http.HandleFunc("POST /offer", c.offer)
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	server := new(http.Server)
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newAPI() (*webrtc.API, error) {
	engine := new(webrtc.MediaEngine)
	if err := engine.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	if err := engine.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: playoutDelay}, webrtc.RTPCodecTypeVideo,
		webrtc.RTPTransceiverDirectionSendonly); err != nil {
		return nil, err
	}
	registry := new(interceptor.Registry)
	if err := webrtc.RegisterDefaultInterceptors(engine, registry); err != nil {
		return nil, err
	}
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(setting)), nil
}

// chain is the one track and the peers that watch it.
type chain struct {
	api   *webrtc.API
	track *webrtc.TrackLocalStaticRTP

	mu    sync.Mutex // guards what follows
	peers []*webrtc.PeerConnection
	delay uint8 // id of the playout delay extension; 0: not negotiated
}

// send runs on the pipeline's streaming thread.
func (c *chain) send(sink *app.Sink) gst.FlowReturn {
	sample := sink.PullSample()
	if sample == nil {
		return gst.FlowEOS
	}
	// a sample holds a buffer or a list, and GetBufferList complains of a buffer
	if buffer := sample.GetBuffer(); buffer != nil {
		c.write(buffer.Bytes())
		return gst.FlowOK
	}
	if list := sample.GetBufferList(); list != nil {
		list.ForEach(func(buffer *gst.Buffer, _ uint) bool {
			c.write(buffer.Bytes())
			return true
		})
	}
	return gst.FlowOK
}

func (c *chain) write(raw []byte) {
	packet := new(rtp.Packet)
	if err := packet.Unmarshal(raw); err != nil {
		fmt.Fprintln(os.Stderr, "bare: packet:", err)
		return
	}
	c.mu.Lock()
	delay := c.delay
	c.mu.Unlock()
	if delay != 0 {
		if err := packet.SetExtension(delay, []byte{0, 0, 0}); err != nil {
			fmt.Fprintln(os.Stderr, "bare: playout delay:", err)
		}
	}
	if err := c.track.WriteRTP(packet); err != nil {
		fmt.Fprintln(os.Stderr, "bare: write:", err)
	}
}

func (c *chain) offer(w http.ResponseWriter, r *http.Request) {
	answer, err := c.answer(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

func (c *chain) answer(r *http.Request) (*webrtc.SessionDescription, error) {
	var offer webrtc.SessionDescription
	if err := json.NewDecoder(r.Body).Decode(&offer); err != nil {
		return nil, err
	}
	peer, err := c.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.peers = append(c.peers, peer)
	c.mu.Unlock()
	sender, err := peer.AddTrack(c.track)
	if err != nil {
		return nil, err
	}
	go func() { // interceptors work on what is read; it ends with the peer
		for {
			if _, _, err := sender.ReadRTCP(); err != nil {
				return
			}
		}
	}()
	if err := peer.SetRemoteDescription(offer); err != nil {
		return nil, err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return nil, err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(answer); err != nil {
		return nil, err
	}
	<-gathered
	for _, extension := range sender.GetParameters().HeaderExtensions {
		if extension.URI == playoutDelay {
			c.mu.Lock()
			c.delay = uint8(extension.ID)
			c.mu.Unlock()
		}
	}
	return peer.LocalDescription(), nil
}

func (c *chain) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, peer := range c.peers {
		peer.Close()
	}
}
