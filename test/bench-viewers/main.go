// Command bench-viewers measures the whole gateway with N whole WebRTC clients
// over loopback. The gateway has the first core, the clients (package crowd), which
// are one other process, the second.
//
//	loss    many viewers of a stream that the gateway encodes itself: what they
//	        miss, and whether it was the gateway's fault or the clients' sockets'
//	curve   the same with fewer viewers: CPU as their number grows
//	packet  viewers of a 720p30 stream of 2.5 Mbit/s that another process sends as
//	        RTP and the gateway passes on (encoder: copy): CPU time for each packet
//	        that is delivered and memory for each viewer, of the whole process
//
//	go run ./test/bench-viewers [-n 0,50,100,200,300] [-packet 200] [-seconds 10] [-split] [-v]
//	go run ./test/bench-viewers -whep URL -pid PID [-feed PORT] [-packet 200] [-seconds 10] [-split]
//
// The second measures packet at another WHEP server, which was started before on the
// first core (taskset -c 0) and is given the same stream, as RTP to a UDP port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gateway/test/crowd"
	"gateway/test/rig"
)

// own is 720p30 that x264enc holds to 1 Mbit/s.
const own = `source: videotestsrc is-live=true pattern=smpte horizontal-speed=2 ! timecodestamper ! timeoverlay time-mode=time-code font-desc=Mono,28
on_demand: false
video: {codec: h264, width: 1280, height: 720, framerate: 30, bitrate: 1M}
`

// sent is what the other process sends: 720p30 of 2.5 Mbit/s as the gateway's own
// encoder table makes it.
const sent = `videotestsrc is-live=true pattern=smpte horizontal-speed=2 ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1
! timecodestamper ! timeoverlay time-mode=time-code font-desc=Mono,28
! x264enc tune=zerolatency speed-preset=superfast bitrate=2500 vbv-buf-capacity=200 key-int-max=60 bframes=0 rc-lookahead=0 threads=2 byte-stream=true aud=false
! video/x-h264,profile=constrained-baseline ! h264parse config-interval=-1 ! rtph264pay pt=96 aggregate-mode=zero-latency mtu=1200
! udpsink host=127.0.0.1 port=%d`

const taken = `source: udpsrc port=%d caps="application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000"
on_demand: false
video: {encoder: copy}
`

// The cores of the gateway, and of all others.
const gatewayCPU, otherCPU = "0", "1"

func main() {
	rig.ServeChild(new(crowd.Crowd))
	numbers := flag.String("n", "0,50,100,200,300", "numbers of viewers of the encoded stream")
	packet := flag.Int("packet", 200, "viewers of the stream that is passed on; 0: none")
	seconds := flag.Int("seconds", 10, "how long each is measured")
	split := flag.Bool("split", false, "the clients' sockets take single datagrams, into which the kernel cuts the gateway's messages in the gateway's time")
	whep := flag.String("whep", "", "WHEP endpoint of another server, which is measured instead")
	pid := flag.Int("pid", 0, "of that server")
	feed := flag.Int("feed", 0, "UDP port of 127.0.0.1 that the stream for that server is sent to; 0: it has one")
	verbose := flag.Bool("v", false, "print what the gateway logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{span: time.Duration(*seconds) * time.Second, split: *split}
	if *verbose {
		b.log = os.Stderr
	}
	var err error
	if *whep != "" {
		err = b.peer(ctx, *whep, *pid, *feed, *packet)
	} else if err = b.curve(ctx, *numbers); err == nil && *packet > 0 {
		err = b.packet(ctx, *packet)
	}
	if err = errors.Join(err, rig.RemoveBinary()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-viewers:", err)
		os.Exit(1)
	}
}

type bench struct {
	span  time.Duration
	split bool // the clients take single datagrams
	log   io.Writer
}

// curve measures the gateway with more and more viewers.
func (b *bench) curve(ctx context.Context, numbers string) (err error) {
	h, err := b.house(ctx, own)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	fmt.Printf("a: 720p30, 1 Mbit/s, encoded by the gateway; gateway on core %s, clients on core %s; %s each\n\n", gatewayCPU, otherCPU, b.span)
	fmt.Println(header)
	var points []point
	for _, field := range strings.Split(numbers, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < h.viewers {
			return fmt.Errorf("-n: %q isn't a number that grows", field)
		}
		m, err := h.measure(ctx, n, b.span)
		if err != nil {
			return err
		}
		fmt.Println(m)
		points = append(points, point{float64(n), 100 * (m.cpu - m.gstreamer).Seconds() / m.span.Seconds()})
	}
	slope, start, fit := line(points)
	fmt.Printf("\nCPU without GStreamer's threads as a line: %.1f %% of a core + %.3f %% a viewer, R² %.4f; from point to point:", start, slope, fit)
	for i := 1; i < len(points); i++ {
		fmt.Printf(" %.3f", (points[i].y-points[i-1].y)/(points[i].x-points[i-1].x))
	}
	fmt.Print(" % a viewer\n\n")
	return nil
}

// packet measures a stream that is passed on.
func (b *bench) packet(ctx context.Context, n int) (err error) {
	port, err := rig.Port()
	if err != nil {
		return err
	}
	sender, err := send(port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	h, err := b.house(ctx, fmt.Sprintf(taken, port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	return b.passedOn(ctx, h, n)
}

// send starts the process that sends the stream to a port.
func send(port int) (*rig.Process, error) {
	launch, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	if err != nil {
		return nil, err
	}
	return rig.Start(rig.Command{Path: launch, Args: append([]string{"-q"}, strings.Fields(fmt.Sprintf(sent, port))...), CPUs: otherCPU})
}

// peer measures a stream that another server passes on.
func (b *bench) peer(ctx context.Context, whep string, pid, port, n int) (err error) {
	if port != 0 {
		sender, err := send(port)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sender.Close()) }()
	}
	h, err := b.other(ctx, whep, pid)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	return b.passedOn(ctx, h, n)
}

// passedOn measures a house without viewers and with n.
func (b *bench) passedOn(ctx context.Context, h *house, n int) error {
	fmt.Printf("b: 720p30, 2.5 Mbit/s, encoded by another process on core %s, passed on by %s\n\n", otherCPU, h.threads)
	fmt.Println(header)
	none, err := h.measure(ctx, 0, b.span)
	if err != nil {
		return err
	}
	fmt.Println(none)
	all, err := h.measure(ctx, n, b.span)
	if err != nil {
		return err
	}
	fmt.Println(all)
	perPacket := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(all.seen.Packets) }
	fmt.Printf("\n%.2f µs of CPU for each packet delivered, whole process (%.2f in GStreamer's threads); %.3f MB for each viewer (resident, %d against none)\n",
		perPacket(all.cpu), perPacket(all.gstreamer), float64(all.rss-none.rss)/float64(n)/(1<<20), n)
	return nil
}
