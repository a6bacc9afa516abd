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
	fifo    string
	writer  *os.File // keeps the FIFO open; nil: it isn't
}

// screen is an X screen on which the strip is painted, as long as it is there.
type screen struct {
	*rig.Xvfb
	stop    context.CancelFunc
	painted chan struct{} // closed when the painter has ended
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
	painting, stop := context.WithCancel(context.Background())
	s := &screen{x, stop, make(chan struct{})}
	go func() {
		defer close(s.painted)
		p.Run(painting, 30) // ends with the X server too
		p.Close()
	}()
	return s, nil
}

// end ends the X server, and waits.
func (s *screen) end(sig syscall.Signal) error {
	s.Signal(syscall.SIGCONT) // if it stands
	if err := s.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	s.stop()
	<-s.Done()
	<-s.painted
	return s.Close()
}

// launch is a pipeline of the launch form that captures a display; with is put between.
func launch(display, with, beside string) string {
	return fmt.Sprintf("linger: 0s\nlaunch: >\n  ximagesrc display-name=%s use-damage=false ! video/x-raw,framerate=30/1 ! videoconvert ! videoscale\n"+
		"  ! video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1 ! %s\n"+
		"  x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=60 ! video/x-h264,profile=constrained-baseline\n"+
		"  ! h264parse config-interval=-1 ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! appsink name=video %s\n", display, with, beside)
}

func newBench(ctx context.Context, t *testing.T) *bench {
	b := new(bench)
	var err error
	b.screen, err = startScreen(ctx, "", width, height)
	rig.Check(t, err)
	t.Cleanup(func() { b.screen.end(syscall.SIGTERM) })
	b.fifo = filepath.Join(t.TempDir(), "fifo")
	rig.Check(t, syscall.Mkfifo(b.fifo, 0o600))
	rig.Check(t, b.unhang(ctx))
	t.Cleanup(func() { b.hang(context.Background()) })
	rig.Check(t, b.startCamera(ctx))
	t.Cleanup(func() { b.camera.Close() })

	display := b.screen.Display
	desk := "linger: 0s\nsource: ximagesrc use-damage=false display-name=" + display + "\nvideo:\n  codec: h264\n  framerate: 30\n  bitrate: 1500k\n"
	b.gateway, err = rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{
		"desk":   desk + "  width: 640\n  height: 360\n",
		"screen": desk,
		"rtsp":   "linger: 0s\nsource: rtspsrc latency=50 location=" + b.camera.URL("camera") + "\nwatchdog: {frames: 3s}\nvideo: {encoder: copy}\n",
		"errs":   launch(display, "identity error-after=240 !", ""),
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

// workers are the processes of the gateway's pipelines that run.
func (b *bench) workers() (pids []int) {
	for _, pid := range rig.Family(b.gateway.Pid())[1:] {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(words), "\x00"); err == nil && len(args) > 2 && args[1] == "worker" && strings.Contains(args[2], "/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalWorker sends a signal to the process of the one pipeline that runs.
func signalWorker(sig syscall.Signal) func(*bench, context.Context) error {
	return func(b *bench, _ context.Context) error {
		pids := b.workers()
		if len(pids) != 1 {
			return fmt.Errorf("%d pipelines have a process, want 1", len(pids))
		}
		return syscall.Kill(pids[0], sig)
	}
}

// hang has what opens the FIFO wait for ever, and the pipeline begin anew.
func (b *bench) hang(ctx context.Context) error {
	if b.writer != nil {
		b.writer.Close()
		b.writer = nil
	}
	if ctx.Done() == nil { // at the end
		return nil
	}
	return signalWorker(sigKill)(b, ctx)
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

func (b *bench) resizeScreen(ctx context.Context) (err error) {
	b.screen, err = startScreen(ctx, b.screen.Display, otherWidth, otherHeight)
	return err
}

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
	orphans := b.workers()
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
		return errors.Join(b.unhang(ctx), b.continueScreen(ctx))
	}
}
