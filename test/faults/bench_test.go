package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gateway/test/rig"
	"gateway/test/strip"
)

// The screen, and what it becomes.
const (
	width, height           = 1280, 720
	otherWidth, otherHeight = 1024, 768
)

const (
	sigKill = syscall.SIGKILL
	sigSegv = syscall.SIGSEGV
	sigStop = syscall.SIGSTOP
)

// bench is a gateway with the sources of its streams.
type bench struct {
	gateway *rig.Gateway
	screen  *screen
	camera  *rig.RTSPServer
	mixer   *rig.Process // sends the screen by RTP
	port    int          // to which
	fifo    string
	writer  *os.File // keeps the FIFO open; nil: it isn't
	drain   *drain
}

// screen is an X screen on which the strip is painted, as long as it is there.
type screen struct {
	*rig.Xvfb
	painter *strip.Painter
	stop    context.CancelFunc
	painted chan struct{} // closed when nothing is painted any more
}

func startScreen(ctx context.Context, display string, width, height int) (*screen, error) {
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: width, Height: height, Display: display})
	if err != nil {
		return nil, err
	}
	p, err := strip.NewPainter(x.Display)
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	s := &screen{Xvfb: x, painter: p}
	s.paint()
	return s, nil
}

// paint begins to paint.
func (s *screen) paint() {
	painting, stop := context.WithCancel(context.Background())
	painted := make(chan struct{})
	s.stop, s.painted = stop, painted
	go func() {
		defer close(painted)
		s.painter.Run(painting, 30) // ends with the X server too
	}()
}

// freeze ends the painting; the picture stays.
func (s *screen) freeze() {
	s.stop()
	<-s.painted
}

// end ends the X server, and waits.
func (s *screen) end(sig syscall.Signal) error {
	s.Signal(syscall.SIGCONT) // if it stands
	if err := s.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.Done()
	s.freeze()
	s.painter.Close()
	return s.Close()
}

// launch is a pipeline of the launch form that captures a display; with is put between.
func launch(display, with, beside string) string {
	return fmt.Sprintf("linger: 0s\nlaunch: >\n  ximagesrc display-name=%s use-damage=false ! video/x-raw,framerate=30/1 ! videoconvert ! videoscale\n"+
		"  ! video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1 ! %s\n"+
		"  x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=60 ! video/x-h264,profile=constrained-baseline\n"+
		"  ! h264parse config-interval=-1 ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! appsink name=video %s\n", display, with, beside)
}

// brittle is an encoder whose branch errs after some seconds.
const brittle = `- name: brittle
  factory: x264enc
  codec: h264
  element: >-
    x264enc name={name} tune=zerolatency speed-preset=ultrafast bitrate={bitrate} key-int-max={keyint} bframes=0 threads={threads}
    byte-stream=true aud=false
  bitrate: {property: bitrate, unit: 1000, live: true}
  format: I420
  profiles: [constrained-baseline]
  caps: video/x-h264,profile={profile}
  parser: h264parse config-interval=-1 ! identity error-after=240
  payloader: rtph264pay aggregate-mode=zero-latency mtu=1200
`

func newBench(ctx context.Context, t *testing.T) *bench {
	b := new(bench)
	encoders := filepath.Join(t.TempDir(), "encoders.yaml")
	var err error
	b.drain, err = newDrain(filepath.Join(t.TempDir(), "drain"))
	rig.Check(t, err)
	t.Cleanup(b.drain.close)
	rig.Check(t, os.WriteFile(encoders, []byte(brittle+sticky(b.drain.file.Name())), 0o600))
	b.port, err = rig.Port()
	rig.Check(t, err)
	b.screen, err = startScreen(ctx, "", width, height)
	rig.Check(t, err)
	t.Cleanup(func() { b.screen.end(syscall.SIGTERM) })
	b.fifo = filepath.Join(t.TempDir(), "fifo")
	rig.Check(t, syscall.Mkfifo(b.fifo, 0o600))
	rig.Check(t, b.unhang(ctx))
	t.Cleanup(b.closeFIFO)
	rig.Check(t, b.startCamera(ctx))
	t.Cleanup(func() { b.camera.Close() })
	rig.Check(t, b.startMixer())
	t.Cleanup(func() { b.mixer.Close() })

	display := b.screen.Display
	screen := "linger: 0s\nsource: ximagesrc use-damage=false display-name=" + display + "\nvideo:\n  codec: h264\n  framerate: 30\n  bitrate: 1500k\n"
	desk := screen + "  width: 640\n  height: 360\n"
	b.gateway, err = rig.StartGateway(ctx, rig.GatewayOptions{Config: "encoders: " + encoders + "\n" + b.drain.config(), Pipelines: map[string]string{
		"desk":    desk,
		"screen":  screen,
		"still":   desk + "watchdog: {frozen: 2s, black: 2s}\n",
		"brittle": desk + "  encoder: brittle\n",
		"pair": "linger: 0s\nwatchdog: {frames: 2s, start: 5s}\nsource: ximagesrc use-damage=false display-name=" + display + "\nvideo:\n  codec: h264\n  framerate: 30\n" +
			"  width: 640\n  height: 360\n  bitrate: 1500k\n  renditions: [{name: good}, {name: sticky, encoder: sticky}]\n",
		"mixer": fmt.Sprintf("linger: 0s\nsource: udpsrc port=%d caps=\"application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000\"\n"+
			"watchdog: {frames: 2s}\nvideo: {encoder: copy}\n", b.port),
		"rtsp": "linger: 0s\nsource: rtspsrc latency=50 location=" + b.camera.URL("camera") + "\nwatchdog: {frames: 3s}\nvideo: {encoder: copy}\n",
		"errs": launch(display, "identity error-after=240 !", ""),
		"leaks": "worker: {memory: 500M}\n" + launch(display, "tee name=split ! queue !",
			"split. ! queue ! videoconvert ! videoscale ! video/x-raw,format=BGRx,width=1280,height=720\n"+
				"  ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! identity sleep-time=1000000000 ! fakesink async=false"),
		"hangs": "watchdog: {start: 3s}\n" + launch(display, "", "filesrc location="+b.fifo+" ! fakesink async=false"),
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", func() error { return b.gateway.Close() })
	t.Cleanup(func() { keepLog(t, b.gateway) })
	return b
}

// workers are the processes of a stream's pipelines that run; stream may be empty: of all.
func (b *bench) workers(stream string) (pids []int) {
	for _, pid := range rig.Family(b.gateway.Pid())[1:] {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(words), "\x00"); err == nil && len(args) > 2 && args[1] == "worker" && strings.Contains(args[2], "/") &&
			(stream == "" || strings.HasPrefix(args[2], stream+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalWorker sends a signal to the process of the one pipeline that runs.
func signalWorker(sig syscall.Signal) func(*bench, context.Context) error {
	return func(b *bench, _ context.Context) error {
		pids := b.workers("")
		if len(pids) != 1 {
			return fmt.Errorf("%d pipelines have a process, want 1", len(pids))
		}
		return syscall.Kill(pids[0], sig)
	}
}

// hang has what opens the FIFO wait for ever, and the pipeline begin anew.
func (b *bench) hang(context.Context) error {
	b.closeFIFO()
	for _, pid := range b.workers("hangs") {
		if err := syscall.Kill(pid, sigKill); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	return nil
}

func (b *bench) closeFIFO() {
	if b.writer != nil {
		b.writer.Close()
		b.writer = nil
	}
}

func (b *bench) unhang(context.Context) (err error) {
	if b.writer == nil {
		b.writer, err = os.OpenFile(b.fifo, os.O_RDWR, 0)
	}
	return err
}

func (b *bench) stopScreen(context.Context) error     { return b.screen.Signal(syscall.SIGSTOP) }
func (b *bench) continueScreen(context.Context) error { return b.screen.Signal(syscall.SIGCONT) }
func (b *bench) killScreen(context.Context) error     { return b.screen.end(sigKill) }

func (b *bench) freezeScreen(context.Context) error {
	b.screen.freeze()
	return nil
}

func (b *bench) paintScreen(context.Context) error {
	b.screen.freeze()
	b.screen.paint()
	return b.screen.painter.Show()
}

func (b *bench) blackenScreen(context.Context) error {
	b.screen.freeze()
	return b.screen.painter.Hide()
}

func (b *bench) resizeScreen(ctx context.Context) (err error) {
	b.screen, err = startScreen(ctx, b.screen.Display, otherWidth, otherHeight)
	return err
}

// startMixer has another program send the screen.
func (b *bench) startMixer() error {
	path, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	if err != nil {
		return err
	}
	b.mixer, err = rig.Start(rig.Command{Path: path, Args: strings.Fields(fmt.Sprintf("-q ximagesrc use-damage=false display-name=%s ! video/x-raw,framerate=30/1"+
		" ! videoconvert ! videoscale ! video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1"+
		" ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=15 ! video/x-h264,profile=constrained-baseline"+
		" ! h264parse config-interval=-1 ! rtph264pay pt=96 ! udpsink host=127.0.0.1 port=%d", b.screen.Display, b.port))})
	return err
}

func (b *bench) stopMixer(context.Context) error     { return b.mixer.Signal(syscall.SIGSTOP) }
func (b *bench) continueMixer(context.Context) error { return b.mixer.Signal(syscall.SIGCONT) }

func (b *bench) killCamera(context.Context) error {
	if err := b.camera.Signal(sigKill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-b.camera.Done()
	return b.camera.Close()
}

func (b *bench) startCamera(ctx context.Context) (err error) {
	port := 0
	if b.camera != nil {
		port = b.camera.Port
	}
	b.camera, err = rig.StartRTSP(ctx, rig.RTSPOptions{Port: port, Streams: map[string]string{
		"camera": "ximagesrc use-damage=false display-name=" + b.screen.Display + " ! video/x-raw,framerate=30/1 ! videoconvert ! videoscale" +
			" ! video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=30" +
			" ! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96 config-interval=1",
	}})
	return err
}

// killGateway kills it and checks that the processes of its pipelines end too.
func (b *bench) killGateway(ctx context.Context) error {
	orphans := b.workers("")
	if err := b.gateway.Signal(sigKill); err != nil {
		return err
	}
	<-b.gateway.Done()
	return rig.Until(ctx, "its pipelines' processes to end", func() (bool, error) {
		for _, pid := range orphans {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(stat), ") Z ") {
				return false, nil
			}
		}
		return true, nil
	})
}

func (b *bench) restartGateway(ctx context.Context) error { return b.gateway.Restart(ctx) }

// restore brings back what a row that failed has left.
func (b *bench) restore(ctx context.Context) error {
	select {
	case <-b.gateway.Done():
		if err := b.gateway.Restart(ctx); err != nil {
			return err
		}
	default:
	}
	select {
	case <-b.camera.Done():
		if err := b.startCamera(ctx); err != nil {
			return err
		}
	default:
	}
	select {
	case <-b.screen.Done():
		return b.sameScreen(ctx)
	default:
		b.drain.open()
		return errors.Join(b.unhang(ctx), b.continueScreen(ctx), b.continueMixer(ctx), b.paintScreen(ctx))
	}
}
