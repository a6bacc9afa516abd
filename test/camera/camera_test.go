// Package camera tests the gateway with a real V4L2 device. Run on a machine
// without one, as CI is, it boots a virtual machine (vm.sh) that has the kernel's
// vivid camera and a v4l2loopback device, and runs itself in there.
package camera

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// inGuest tells whether this is the run inside of the virtual machine.
var inGuest = os.Getenv("CAMERA_VM") == "1"

func TestMain(m *testing.M) {
	if !inGuest {
		flag.Parse()
		flag.Set("test.skip", "^TestGuest") // TestCameraVM tells how they came out
	}
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

// TestCameraVM boots the virtual machine and runs all TestGuest… in it.
func TestCameraVM(t *testing.T) {
	if inGuest {
		t.Skip("skipped: this is the virtual machine")
	}
	if testing.Short() {
		t.Skip("skipped: -short, and it takes minutes")
	}
	binary, err := rig.Binary()
	rig.Check(t, err)
	self, err := os.Executable()
	rig.Check(t, err)
	script, err := filepath.Abs("vm.sh")
	rig.Check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute)
	defer cancel()
	p, err := rig.Start(rig.Command{
		Path: "/bin/bash",
		Args: []string{script, "-l", "-m", "snd-aloop", "-t", "780", "--", "env", "GATEWAY_BINARY=" + binary, self, "-test.v", "-test.run=^TestGuest", "-test.timeout=720s"},
		Log:  os.Stdout, Grace: 20 * time.Second,
	})
	rig.Check(t, err)
	rig.End(t, "virtual machine", p.Close)
	ended := p.Wait(ctx)
	for _, name := range []string{
		"MJPEGCamera", "H264CameraStraightThrough", "CameraReturns", "CameraReturnsToItsProcess", "CameraIsFoundAgain", "CameraComesBackAsAnother", "BusyCameraNamesItsHolder", "CamerasAreListed", "CameraIsEditedUnderAViewer", "SoundCard", "MemoryIsLimited",
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(p.Log(), "--- PASS: TestGuest"+name+" (") {
				t.Error("it didn't pass in the virtual machine")
			}
		})
	}
	if ended != nil {
		t.Errorf("in the virtual machine: %v", ended)
	}
}

// guest is how long a test may take in the virtual machine.
func guest(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestGuestMJPEGCamera(t *testing.T) {
	ctx := guest(t)
	shell(ctx, t, "camera_loop MJPG 320 240")
	feed(t, "video/x-raw,width=320,height=240,framerate=15/1 ! jpegenc")
	g := start(ctx, t, "/dev/video9", 320, 240)
	begin(ctx, t, g).wait(ctx, t, 20)
	s, err := g.Stream(ctx, "webcam")
	rig.Check(t, err)
	if !strings.Contains(s.Track("video").Launch, "jpegdec") {
		t.Errorf("the launch text decodes no JPEG: %s", s.Track("video").Launch)
	}
}

// feed gives /dev/video9 moving pictures, until the test ends.
func feed(t *testing.T, behind string) {
	t.Helper()
	p, err := rig.Start(rig.Command{Path: "gst-launch-1.0", Args: append([]string{"-q"}, strings.Fields(
		"videotestsrc is-live=true pattern=smpte horizontal-speed=4 ! "+behind+
			" ! filesink location=/dev/video9 buffer-mode=unbuffered append=true sync=false")...)})
	rig.Check(t, err)
	rig.End(t, "feed", p.Close)
}

// TestGuestCameraReturns takes a camera of raw pictures away under a viewer and
// gives it back.
//
// The pipeline names it by a link, as udev makes them under /dev/v4l/by-id:
// v4l2src of GStreamer 1.22 leaves a descriptor of a vanished device open (seen
// with gst-launch's elements alone, November 2026), so the camera that returns
// gets another number.
func TestGuestCameraReturns(t *testing.T) {
	ctx := guest(t)
	const relink = `ln -sfn "$(ls /dev/video[0-8])" /dev/webcam`
	shell(ctx, t, relink+" && v4l2-ctl -d /dev/webcam -c horizontal_movement=5")
	g := start(ctx, t, "/dev/webcam", 320, 180)
	w := begin(ctx, t, g)
	w.wait(ctx, t, 10)

	shell(ctx, t, "camera_yank && rm /dev/webcam")
	rig.Check(t, g.WaitState(ctx, "webcam", "absent"))
	shell(ctx, t, "camera_back && "+relink+" && v4l2-ctl -d /dev/webcam -c horizontal_movement=5")
	rig.Check(t, g.WaitState(ctx, "webcam", "live"))
	w.wait(ctx, t, 10) // the same viewer, the same connection
}

// TestGuestCamerasAreListed asks `gateway devices` about a camera that is free, busy
// and forbidden, and checks the pipeline file that it suggests.
func TestGuestCamerasAreListed(t *testing.T) {
	ctx := guest(t)
	shell(ctx, t, `mkdir -p /dev/v4l/by-id && ln -sfn "$(ls /dev/video[0-8])" /dev/v4l/by-id/usb-Vivid_1-video-index0`)
	const id = "camera:usb-Vivid_1-video-index0"
	free := cameraOf(t, id, devices(ctx, t, nil))
	if free.Name != "vivid" || free.Driver != "vivid" || free.Bus != "platform:vivid-000" || free.Problem != "" ||
		free.Source != "v4l2src device=/dev/v4l/by-id/usb-Vivid_1-video-index0" {
		t.Errorf("%+v", free)
	}
	sizes := map[string][]float64{}
	for _, f := range free.Formats {
		for _, s := range f.Sizes {
			sizes[fmt.Sprintf("%s %dx%d", f.Name, s.Width, s.Height)] = s.Rates
		}
	}
	if got := fmt.Sprint(sizes["YUYV 640x480"]); got != "[25 15 12.5 10 5 4 2 1]" {
		t.Errorf("YUYV 640x480 at %s of %v", got, sizes)
	}

	pipeline := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(pipeline, run(ctx, t, nil, nil, "devices", "-yaml", id), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(ctx, t, nil, nil, "check", pipeline); strings.Contains(string(out), "absent") {
		t.Errorf("%s", out)
	}

	busy, err := rig.Start(rig.Command{Path: "gst-launch-1.0", Args: strings.Fields(
		"-v v4l2src device=/dev/v4l/by-id/usb-Vivid_1-video-index0 ! video/x-raw,width=320,height=180 ! identity silent=false ! fakesink silent=true")})
	rig.Check(t, err)
	rig.End(t, "capture", busy.Close)
	_, err = busy.WaitLog(ctx, regexp.MustCompile("chain"))
	rig.Check(t, err)
	if c := cameraOf(t, id, devices(ctx, t, nil)); !strings.HasPrefix(c.Problem, "busy: it is held by gst-launch-1.0 (pid ") || len(c.Formats) == 0 {
		t.Errorf("captured from: %+v", c)
	}
	rig.Check(t, busy.Close())

	shell(ctx, t, "chgrp video /dev/video* && chmod 660 /dev/video*")
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if c := cameraOf(t, id, devices(ctx, t, nobody)); !strings.Contains(c.Remedy, "usermod -aG video nobody") {
		t.Errorf("without the group: %+v", c)
	}
}

// everybodys is a copy of the gateway that any user may run.
const everybodys = "/run/gateway"

// listed is a camera in the list.
type listed struct {
	ID, Name, Driver, Bus, Source, Problem, Remedy string
	Formats                                        []struct {
		Name  string
		Sizes []struct {
			Width, Height int
			Rates         []float64
		}
	}
}

// devices lists the cameras. It hides the encoders, each of which would be tried:
// that takes a quarter of a minute here.
func devices(ctx context.Context, t *testing.T, as *syscall.SysProcAttr) []listed {
	t.Helper()
	shell(ctx, t, "mkdir -p "+fewPlugins+" && ln -sf /usr/lib/*/gstreamer-1.0/libgst{coreelements,video4linux2}.so "+fewPlugins)
	var d struct{ Cameras []listed }
	rig.Check(t, json.Unmarshal(run(ctx, t, as, []string{"GST_PLUGIN_SYSTEM_PATH_1_0=" + fewPlugins, "GST_REGISTRY=" + fewPlugins + "/registry"}, "devices", "-json"), &d))
	return d.Cameras
}

const fewPlugins = "/run/plugins"

func cameraOf(t *testing.T, id string, all []listed) listed {
	t.Helper()
	i := slices.IndexFunc(all, func(c listed) bool { return c.ID == id })
	if i < 0 {
		t.Fatalf("no %s: %+v", id, all)
	}
	return all[i]
}

// run returns what a command of the gateway prints.
func run(ctx context.Context, t *testing.T, as *syscall.SysProcAttr, env []string, args ...string) []byte {
	t.Helper()
	if _, err := os.Stat(everybodys); err != nil {
		binary, err := rig.Binary()
		rig.Check(t, err)
		shell(ctx, t, "install -m 755 "+binary+" "+everybodys)
	}
	cmd := exec.CommandContext(ctx, everybodys, args...)
	cmd.SysProcAttr, cmd.Env = as, append(os.Environ(), env...)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gateway %s: %v\n%s%s", strings.Join(args, " "), err, out, &faults)
	}
	return out
}

// start runs the gateway with one camera, as pipelines/webcam.yaml has it but
// small: the virtual machine's processor is emulated.
func start(ctx context.Context, t *testing.T, device string, width, height int) *rig.Gateway {
	t.Helper()
	return startFile(ctx, t, "webcam", edition{"v4l2src device=" + device, "h264", width, height, 15}.String())
}

// edition is a pipeline file.
type edition struct {
	source, codec      string
	width, height, fps int
}

func (e edition) String() string {
	return fmt.Sprintf("source: %s\nvideo:\n  codec: %s\n  width: %d\n  height: %d\n  framerate: %d\n  bitrate: 400k\n", e.source, e.codec, e.width, e.height, e.fps)
}

// startFile runs the gateway with one file, which it plays in its own process: in the
// emulated machine one takes 10 s to begin.
func startFile(ctx context.Context, t *testing.T, name, text string) *rig.Gateway {
	t.Helper()
	return startWith(ctx, t, name, text, "isolation: none\n")
}

// startWith runs the gateway with one file and a configuration.
func startWith(ctx context.Context, t *testing.T, name, text, config string) *rig.Gateway {
	t.Helper()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{name: text}, Config: config})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.Log())
		}
	})
	begun := time.Now() // a viewer isn't let wait for as long as GStreamer needs here to begin
	rig.Check(t, rig.Until(ctx, "what there is to capture", func() (bool, error) {
		s, err := g.Stream(ctx, name)
		return err == nil && len(s.Tracks) > 0, err
	}))
	t.Logf("the stream is known after %s", time.Since(begun).Round(time.Millisecond))
	return g
}

func shell(ctx context.Context, t *testing.T, command string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, "/bin/bash", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// watcher decodes what a viewer receives.
type watcher struct {
	*viewer.Viewer
	changed chan struct{}

	mu     sync.Mutex // guards what follows
	last   *image.RGBA
	moved  int           // pictures that differ much from the one before
	frame  time.Time     // when the last frame was complete
	gap    time.Duration // the longest from one to the next, since it was asked
	begins bool          // the first packet was a keyframe's
}

// begin watches by WHEP.
func begin(ctx context.Context, t *testing.T, g *rig.Gateway) *watcher {
	t.Helper()
	return watchWith(t, []media.Codec{media.H264}, func(o viewer.Options) (*viewer.Viewer, error) {
		o.URL = g.URL("/whep/webcam")
		return viewer.Watch(ctx, o)
	})
}

// join watches as the page does, through changes of the codec.
func join(ctx context.Context, t *testing.T, g *rig.Gateway) *watcher {
	t.Helper()
	return watchWith(t, []media.Codec{media.H264, media.VP8}, func(o viewer.Options) (*viewer.Viewer, error) {
		o.URL = g.URL("/")
		return viewer.Join(ctx, o, "webcam")
	})
}

func watchWith(t *testing.T, codecs []media.Codec, open func(viewer.Options) (*viewer.Viewer, error)) *watcher {
	t.Helper()
	w := &watcher{changed: make(chan struct{}, 1)}
	decoders := make(map[media.Codec]*viewer.Decoder)
	for _, codec := range codecs {
		d, err := viewer.NewDecoder(codec, 160, 90, w.see)
		rig.Check(t, err)
		rig.End(t, "decoder", d.Close)
		decoders[codec] = d
	}
	var err error
	w.Viewer, err = open(viewer.Options{Codecs: codecs, OnRTP: func(codec media.Codec, packet *rtp.Packet) {
		if len(packet.Payload) > 0 {
			w.note(codec, packet)
			decoders[codec].Write(packet) // an error means that it has ended: no pictures then
		}
	}})
	rig.Check(t, err)
	rig.End(t, "viewer", w.Close)
	return w
}

// note looks at the packets themselves.
func (w *watcher) note(codec media.Codec, packet *rtp.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frame.IsZero() {
		w.begins, w.frame = media.Keyframe(codec, packet.Payload), time.Now()
	}
	if packet.Marker {
		w.gap, w.frame = max(w.gap, time.Since(w.frame)), time.Now()
	}
}

// longest is the longest time between two frames since it was last asked.
func (w *watcher) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := w.gap
	w.gap = 0
	return gap
}

func (w *watcher) see(picture *image.RGBA) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil && contrast(picture) > 60 && difference(picture, w.last) > 3 {
		w.moved++
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	w.last = picture
}

// wait waits for n more pictures that moved.
func (w *watcher) wait(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	begun := time.Now()
	w.mu.Lock()
	from := w.moved
	w.mu.Unlock()
	for {
		w.mu.Lock()
		moved := w.moved - from
		w.mu.Unlock()
		if moved >= n {
			t.Logf("%d moving pictures in %s", moved, time.Since(begun).Round(time.Millisecond))
			return
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			t.Fatalf("%d moving pictures of %d: %v", moved, n, ctx.Err())
		}
	}
}

// contrast is how far the brightest and the darkest green of a picture are apart.
func contrast(p *image.RGBA) int {
	low, high := 255, 0
	for i := 1; i < len(p.Pix); i += 4 {
		low, high = min(low, int(p.Pix[i])), max(high, int(p.Pix[i]))
	}
	return high - low
}

// difference is the mean difference of two pictures' bytes.
func difference(a, b *image.RGBA) float64 {
	sum := 0
	for i := range a.Pix {
		d := int(a.Pix[i]) - int(b.Pix[i])
		sum += max(d, -d)
	}
	return float64(sum) / float64(len(a.Pix))
}

// began tells whether the first packet was a keyframe's.
func (w *watcher) began() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begins
}
