package gst

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/randr"
	"github.com/jezek/xgb/xproto"

	"gateway/internal/config"
)

// painter opens windows on a display.
type painter struct {
	t    *testing.T
	x    *xgb.Conn
	root xproto.Window
}

func newPainter(t *testing.T, display string) *painter {
	t.Helper()
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return &painter{t, x, xproto.Setup(x).DefaultScreen(x).Root}
}

func (p *painter) window(parent xproto.Window, width, height uint16, popup bool) xproto.Window {
	p.t.Helper()
	w, err := xproto.NewWindowId(p.x)
	if err != nil {
		p.t.Fatal(err)
	}
	override := uint32(0)
	if popup {
		override = 1
	}
	if err := xproto.CreateWindowChecked(p.x, xproto.WindowClassCopyFromParent, w, parent, 10, 10, width, height, 0,
		xproto.WindowClassInputOutput, 0, xproto.CwOverrideRedirect, []uint32{override}).Check(); err != nil {
		p.t.Fatal(err)
	}
	if err := xproto.MapWindowChecked(p.x, w).Check(); err != nil {
		p.t.Fatal(err)
	}
	return w
}

func (p *painter) set(w xproto.Window, name, kind string, format byte, value string) {
	p.t.Helper()
	err := xproto.ChangePropertyChecked(p.x, xproto.PropModeReplace, w, p.atom(name), p.atom(kind), format,
		uint32(len(value)/int(format/8)), []byte(value)).Check()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *painter) atom(name string) xproto.Atom {
	p.t.Helper()
	a, err := xproto.InternAtom(p.x, false, uint16(len(name)), name).Reply()
	if err != nil {
		p.t.Fatal(err)
	}
	return a.Atom
}

// find lists the devices of a display alone.
func find(t *testing.T, display string) *Devices {
	t.Helper()
	t.Setenv("DISPLAY", display)
	return FindDevices(t.Context())
}

func displayOf(t *testing.T, d *Devices, name string) Display {
	t.Helper()
	i := slices.IndexFunc(d.Displays, func(x Display) bool { return x.Name == name })
	if i < 0 {
		t.Fatalf("display %s isn't listed: %+v", name, d.Displays)
	}
	return d.Displays[i]
}

func windowsOf(d *Devices, display string) []Window {
	return slices.DeleteFunc(slices.Clone(d.Windows), func(w Window) bool { return w.Display != display })
}

// delivers tells the size that a source comes with.
func delivers(t *testing.T, source string) string {
	t.Helper()
	formats, err := NewRegistry().Formats(source)
	if err != nil || len(formats) == 0 {
		t.Fatalf("%s: %v %v", source, formats, err)
	}
	return fmt.Sprintf("%dx%d", formats[0].MaxWidth, formats[0].MaxHeight)
}

func TestWindowsAndMonitorsOfADisplayAreListed(t *testing.T) {
	display, _ := startXvfb(t)
	p := newPainter(t, display)
	shown := p.window(p.root, 300, 200, false)
	p.set(shown, "_NET_WM_NAME", "UTF8_STRING", 8, "Prüf\x1b[31m\nstand")
	p.set(shown, "WM_CLASS", "STRING", 8, "bench\x00Bench\x00")
	p.window(p.root, 300, 200, true) // a menu
	p.window(p.root, 8, 8, false)    // a helper of a toolkit
	frame := p.window(p.root, 220, 140, false)
	framed := p.window(frame, 200, 100, false)
	p.set(framed, "WM_STATE", "WM_STATE", 32, "\x01\x00\x00\x00\x00\x00\x00\x00")
	p.set(framed, "WM_NAME", "STRING", 8, "framed")
	hidden := p.window(p.root, 300, 200, false)
	xproto.UnmapWindow(p.x, hidden)
	if err := randr.Init(p.x); err != nil {
		t.Fatal(err)
	}
	if err := randr.SetMonitorChecked(p.x, p.root, randr.MonitorInfo{
		Name: p.atom("LEFT-1"), Primary: true, X: 40, Y: 20, Width: 320, Height: 240,
	}).Check(); err != nil {
		t.Fatal(err)
	}

	d := find(t, display)
	if x := displayOf(t, d, display); x.ID != "display:"+display || x.Width != 640 || x.Height != 480 || x.Problem != "" {
		t.Errorf("display %+v", x)
	} else if size := delivers(t, x.Source); size != "640x480" {
		t.Errorf("%s delivers %s", x.Source, size)
	}
	windows := windowsOf(d, display)
	if len(windows) != 2 {
		t.Fatalf("windows %+v, want the one with a title and the framed one", windows)
	}
	if w := windows[0]; w.XID != fmt.Sprintf("0x%x", shown) || w.ID != "window:"+display+":"+w.XID ||
		w.Title != "Prüf [31m stand" || w.Class != "Bench" || w.Width != 300 || w.Height != 200 {
		t.Errorf("window %+v", w)
	}
	if w := windows[1]; w.XID != fmt.Sprintf("0x%x", framed) || w.Title != "framed" {
		t.Errorf("window in a frame %+v", w)
	}
	if size := delivers(t, windows[0].Source); size != "300x200" {
		t.Errorf("%s delivers %s", windows[0].Source, size)
	}
	i := slices.IndexFunc(d.Monitors, func(m Monitor) bool { return m.Display == display && m.Name == "LEFT-1" })
	if i < 0 {
		t.Fatalf("monitors %+v", d.Monitors)
	}
	if m := d.Monitors[i]; m.X != 40 || m.Y != 20 || m.Width != 320 || m.Height != 240 || !m.Primary || m.ID != "monitor:"+display+":LEFT-1" {
		t.Errorf("monitor %+v", m)
	} else if size := delivers(t, m.Source); size != "320x240" {
		t.Errorf("%s delivers %s", m.Source, size)
	}
}

// Where a window manager tells which windows are its clients, nothing else is one.
func TestWindowManagersListIsTaken(t *testing.T) {
	display, _ := startXvfb(t)
	p := newPainter(t, display)
	listed := p.window(p.root, 100, 100, false)
	p.window(p.root, 640, 480, false) // the wallpaper
	value := binary.LittleEndian.AppendUint32(nil, uint32(listed))
	value = binary.LittleEndian.AppendUint32(value, 0x7fffff) // and one that is gone
	p.set(p.root, "_NET_CLIENT_LIST", "WINDOW", 32, string(value))
	if windows := windowsOf(find(t, display), display); len(windows) != 1 || windows[0].XID != fmt.Sprintf("0x%x", listed) {
		t.Errorf("windows %+v, want 0x%x alone", windows, listed)
	}
}

func TestDisplayThatRefusesSaysWhatHelps(t *testing.T) {
	// one entry for every host and display: family, then address, number, name and data
	entry := []byte{0xff, 0xff, 0, 0, 0, 0}
	for _, field := range []string{"MIT-MAGIC-COOKIE-1", "0123456789abcdef"} {
		entry = append(binary.BigEndian.AppendUint16(entry, uint16(len(field))), field...)
	}
	cookie := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(cookie, entry, 0o600); err != nil {
		t.Fatal(err)
	}
	display, _ := startXvfb(t, "-auth", cookie)
	t.Setenv("XAUTHORITY", filepath.Join(t.TempDir(), "none"))
	if x := displayOf(t, find(t, display), display); x.Problem != "the X server doesn't let this user in" || !strings.Contains(x.Remedy, "XAUTHORITY") {
		t.Errorf("without the cookie: %+v", x)
	}
	t.Setenv("XAUTHORITY", cookie)
	if x := displayOf(t, find(t, display), display); x.Problem != "" || x.Width != 640 {
		t.Errorf("with the cookie: %+v", x)
	}
}

func TestDisplayThatIsGoneIsSaid(t *testing.T) {
	display, kill := startXvfb(t)
	kill()
	if x := displayOf(t, find(t, display), display); x.Problem != "no X server answers" {
		t.Errorf("%+v", x)
	}
}

// fakeServer listens as an X server would and answers each connection's first
// bytes; nil leaves them unanswered.
func fakeServer(t *testing.T, answer []byte) (display string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "x") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s:0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			c.Write(answer)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	})
	return filepath.Join(dir, "s:0")
}

func TestHungDisplayIsGivenUp(t *testing.T) {
	display := fakeServer(t, nil)
	t.Setenv("DISPLAY", display)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	d := FindDevices(ctx)
	if took := time.Since(began); took > devicesTimeout {
		t.Errorf("it took %v", took)
	}
	if x := displayOf(t, d, display); x.Problem != "the X server doesn't answer" {
		t.Errorf("%+v", x)
	}
}

func TestHostileDisplayEndsNothing(t *testing.T) {
	for name, answer := range map[string][]byte{
		"short setup":    {1, 0, 11, 0, 0, 0, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		"no protocol":    []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"endless reason": {0, 255, 11, 0, 0, 0, 1, 0, 'n', 'o', 'p', 'e'},
	} {
		t.Run(name, func(t *testing.T) {
			display := fakeServer(t, answer)
			if x := displayOf(t, find(t, display), display); x.Problem == "" || x.Remedy == "" {
				t.Errorf("%+v", x)
			}
		})
	}
}

// startSound starts a PulseAudio with a null sink, which this process finds.
func startSound(t *testing.T) (ctx context.Context) {
	t.Helper()
	path, err := exec.LookPath("pulseaudio")
	if err != nil {
		t.Skip("skipped: there is no PulseAudio here (package pulseaudio)")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	cmd := exec.Command(path, "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no",
		"-L", "module-null-sink sink_name=rig", "-L", "module-native-protocol-unix auth-anonymous=1 socket="+socket)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "PULSE_RUNTIME_PATH="+dir+"/pulse", "PULSE_STATE_PATH="+dir+"/state")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Setenv("PULSE_SERVER", "unix:"+socket)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	for ctx.Err() == nil {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return ctx
		}
	}
	t.Fatal("PulseAudio takes no connections")
	return nil
}

func TestSoundSourcesAreListed(t *testing.T) {
	ctx := startSound(t)
	for _, a := range FindDevices(ctx).Audio {
		if a.API != "pulse" {
			continue
		}
		if a.ID != "audio:rig.monitor" || !a.Monitor || a.Source != "pulsesrc device=rig.monitor" {
			t.Errorf("%+v", a)
		}
		if _, err := NewRegistry().Formats(a.Source); err != nil {
			t.Error(err)
		}
		return
	}
	t.Error("PulseAudio's null sink isn't listed")
}

// The sound server tells of a source that comes, as a Bluetooth microphone does.
func TestDevicesOfASoundServerAreAwaited(t *testing.T) {
	ctx := startSound(t)
	pactl, err := exec.LookPath("pactl")
	if err != nil {
		t.Skip("skipped: there is no pactl here (package pulseaudio-utils)")
	}
	has := func(devices []string, name string) bool {
		return slices.ContainsFunc(devices, func(d string) bool { return strings.Contains(d, name) })
	}
	known, err := AwaitDevices(ctx, nil)
	if err != nil || !has(known, "Monitor of Null Output") {
		t.Fatalf("%q, %v", known, err)
	}
	came := make(chan []string, 1)
	go func() {
		now := known
		for len(now) <= len(known) && ctx.Err() == nil {
			now, _ = AwaitDevices(ctx, now)
		}
		came <- now
	}()
	if out, err := exec.CommandContext(ctx, pactl, "load-module", "module-null-sink", "sink_name=bt").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if now := <-came; len(now) <= len(known) { // it is called like the first
		t.Errorf("%q", now)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := AwaitDevices(ended, nil); err != nil {
		t.Errorf("when nobody waits: %v", err)
	}
}

func TestSourcesAreNamedByWhatStays(t *testing.T) {
	for _, c := range []struct {
		api  string
		d    provided
		want string
	}{
		{"pulse", provided{class: "Audio/Source", launch: "pulsesrc device=mic"}, "pulsesrc device=mic"},
		{"pulse", provided{class: "Audio/Sink", launch: "pulsesink device=out"}, ""},
		{"pipewire", provided{class: "Audio/Source", node: "mic", launch: "pipewiresrc target-object=42"}, "pipewiresrc target-object=mic"},
		{"pipewire", provided{class: "Audio/Sink", node: "out", launch: "pipewiresink target-object=43"},
			`pipewiresrc target-object=out stream-properties="props,stream.capture.sink=true"`},
		{"alsa", provided{class: "Audio/Source", node: "hw:31,1", launch: "alsasrc device=hw:31,1"}, "alsasrc device=hw:31,1"}, // no such card now
	} {
		if c.d.takeStableName(c.api); c.d.launch != c.want {
			t.Errorf("%s: %s, want %s", c.api, c.d.launch, c.want)
		}
	}
}

func TestStableLinkOfACamera(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "video2")
	id, place := filepath.Join(dir, "by-id"), filepath.Join(dir, "by-path")
	for _, f := range []string{id, place} {
		if err := os.Mkdir(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(node, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{filepath.Join(place, "pci-0000:00:14.0-usb-0:1:1.0-video-index0"), filepath.Join(id, "usb-Cam_42-video-index0"), filepath.Join(id, "gone")} {
		target := "../video2"
		if filepath.Base(link) == "gone" {
			target = "../video9"
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	links := stableLinks(id, place, filepath.Join(dir, "none"))
	if len(links) != 1 || links[node] != filepath.Join(id, "usb-Cam_42-video-index0") {
		t.Errorf("%v", links)
	}
}

func TestCameraIDs(t *testing.T) {
	for want, c := range map[string]struct {
		camera      Camera
		name, index string
	}{
		"camera:usb-Cam_42-video-index0": {Camera{Path: "/dev/v4l/by-id/usb-Cam_42-video-index0", Bus: "usb-1"}, "usb-Cam-video-index0", "0"},
		"camera:usb-Cam_43-video-index0": {Camera{Bus: "usb-1", Device: "/dev/video0"}, "usb-Cam_43-video-index0", "0"},
		"camera:usb-1":                   {Camera{Bus: "usb-1", Device: "/dev/video0"}, "", "0"},
		"camera:usb-1-index2":            {Camera{Bus: "usb-1", Device: "/dev/video2"}, "", "2"},
		"camera:video0":                  {Camera{Device: "/dev/video0"}, "", ""},
	} {
		if got := cameraID(&c.camera, c.name, c.index); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestDisplayNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"X0", "X10", "X2", "Xsomething", "X1_"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for environ, want := range map[string]string{
		"": ":0 :2 :10", ":2": ":2 :0 :10", ":0.0": ":0.0 :2 :10", "far:1": "far:1 :0 :2 :10",
	} {
		if got := strings.Join(displayNames(environ, dir), " "); got != want {
			t.Errorf("DISPLAY=%s: %s, want %s", environ, got, want)
		}
	}
}

func TestPropertyIsOneValueOfALaunchText(t *testing.T) {
	for _, value := range []string{"/dev/video0", ":0", "a b", `"quoted" \ !`, "", "hw:CARD=PCH,DEV=0", "x=1 ! fakesink"} {
		nodes, err := config.ParseLaunch("v4l2src " + property("device", value))
		if err != nil || len(nodes) != 1 {
			t.Errorf("%q: %v, %d nodes", value, err, len(nodes))
		}
	}
}
