package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/internal/stream"
)

// examined is what `gateway doctor -json` prints.
type examined struct {
	Checks           []checked
	Failed, Warnings int
}

// in are the checks of an area.
func (e examined) in(area string) (some []checked) {
	for _, c := range e.Checks {
		if c.Area == area {
			some = append(some, c)
		}
	}
	return some
}

func examine(t *testing.T, conf, pipelines, listen string) (examined, error) {
	t.Helper()
	settings, broken := Load(conf, pipelines, listen, nil)
	var out bytes.Buffer
	err := Doctor(context.Background(), settings, broken, true, &out)
	var e examined
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	if (e.Failed > 0) != (err != nil) {
		t.Errorf("%d failed, and the error is %v", e.Failed, err)
	}
	for _, c := range e.Checks {
		if (c.Verdict == fine) != (c.Remedy == "") {
			t.Errorf("%+v: a remedy where something is to be done, and only there", c)
		}
	}
	return e, err
}

func TestDoctorFindsAMachineFit(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	conf := filepath.Join(dir, "gateway.yaml")
	write(t, conf, "state: "+dir+"/state\n")
	write(t, filepath.Join(pipelines, "red.yaml"), small)
	e, err := examine(t, conf, pipelines, "127.0.0.1:0")
	if err != nil {
		t.Errorf("%v: %+v", err, e.Checks)
	}
	for _, area := range []string{"configuration", "gateway", "user", "state folder", "pipelines", "GStreamer", "encoders", "TCP port", "UDP port",
		"addresses", "names", "HTTPS", "clock", "disk", "memory", "open files", "UDP buffers"} {
		if len(e.in(area)) == 0 {
			t.Errorf("nothing is said of %s", area)
		}
	}
	if c := e.in("encoders")[0]; !strings.Contains(c.Finding, "x264enc (") && !strings.Contains(c.Finding, "vp8enc (") {
		t.Errorf("encoders: %+v", c)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("it made the state folder")
	}
}

func TestDoctorFindsFaults(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	write(t, filepath.Join(pipelines, "bad.yaml"), "sauce: videotestsrc\n")
	conf := filepath.Join(dir, "gateway.yaml")
	write(t, conf, "state: "+dir+"/file\nice: {interfaces: [none0]}\nhttps: {cert: "+dir+"/file, key: "+dir+"/file}\n")
	l, err := net.Listen("tcp", "127.0.0.1:0") // nothing is answered there
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "SSH-2.0-sorry\r\n")
			c.Close()
		}
	}()
	e, err := examine(t, conf, pipelines, l.Addr().String())
	if err == nil {
		t.Error("all is well")
	}
	for area, finding := range map[string]string{
		"state folder": "is no folder", "pipelines": "sauce", "TCP port": "in use", "addresses": `"none0"`, "certificate": "PEM",
	} {
		if !slices.ContainsFunc(e.in(area), func(c checked) bool { return c.Verdict == fail && strings.Contains(c.Finding, finding) }) {
			t.Errorf("%s: %+v, want a failure with %q", area, e.in(area), finding)
		}
	}
}

func TestDoctorTellsWhatIsWrongWithTheConfiguration(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, conf, "lissen: 127.0.0.1:1\nlog: {level: loud}\n")
	e, err := examine(t, conf, "", "")
	if err == nil || len(e.Checks) != 2 || e.Failed != 2 || !strings.Contains(e.Checks[0].Finding, "lissen") {
		t.Errorf("%v: %+v", err, e.Checks)
	}
}

// Beside a running gateway its ports are no fault, and it tells of its streams.
func TestDoctorWorksBesideARunningGateway(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	conf := filepath.Join(dir, "gateway.yaml")
	write(t, conf, "state: "+dir+"/state\n")
	write(t, filepath.Join(pipelines, "red.yaml"), small)
	write(t, filepath.Join(pipelines, "cam.yaml"), "source: v4l2src device=/dev/video-none\nvideo: {codec: vp8}\n")
	g := startHouse(t, dir, pipelines)
	cam, _ := g.streams.Stream("cam")
	deadline := time.Now().Add(time.Minute)
	for cam.Info().State != stream.Absent && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // its pipeline is being looked at
	}
	e, err := examine(t, conf, pipelines, g.Addr().String())
	if err != nil {
		t.Errorf("%v: %+v", err, e.Checks)
	}
	if c := e.in("gateway"); len(c) != 1 || !strings.Contains(c[0].Finding, "test serves "+g.Addr().String()) {
		t.Errorf("gateway: %+v", c)
	}
	for _, area := range []string{"TCP port", "UDP port"} {
		if c := e.in(area); len(c) != 1 || !strings.Contains(c[0].Finding, "the running gateway's") {
			t.Errorf("%s: %+v", area, c)
		}
	}
	if c := e.in("stream cam"); len(c) != 1 || !strings.Contains(c[0].Finding, "absent") {
		t.Errorf("stream cam: %+v", c)
	}
}

func TestDoctorLooksUpTheHostsThatAreNamed(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"yard": "source: rtspsrc location=rtsp://u:p@yard.invalid:554/1\nvideo: {encoder: copy}\n",
		"door": "source: rtspsrc location=rtsp://192.0.2.1/1\nvideo: {encoder: copy}\n",
		"roof": "source: tcpclientsrc host=roof.invalid port=5000 ! tsdemux\nvideo: {encoder: copy}\n",
		"file": "source: filesrc location=/srv/clip.mp4 ! decodebin\nvideo: {codec: vp8}\n",
		"self": "source: rtspsrc location=rtsp://localhost/1\nvideo: {encoder: copy}\n",
	} {
		write(t, filepath.Join(pipelines, name+".yaml"), text)
	}
	conf := filepath.Join(dir, "gateway.yaml")
	write(t, conf, "state: "+dir+"/state\nice: {servers: ['stun:stun.invalid:3478', 'stun:[2001:db8::1]', 'stun:yard.invalid']}\n"+
		"auth: {mode: jwt, jwks: 'https://login.invalid/keys', audience: gateway}\nhttps: {acme: {domains: [cam.invalid], directory: 'https://[2001:db8::2]/'}}\n")
	settings, err := Load(conf, pipelines, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{settings: settings}
	want := []named{
		{"login.invalid", "auth.jwks"}, {"stun.invalid", "ice.servers"}, {"yard.invalid", "ice.servers"},
		{"cam.invalid", "https.acme.domains"}, {"roof.invalid", "stream roof"},
	}
	if got := d.hosts(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, c := range d.names(t.Context()) {
		if c.Verdict != warn || !strings.Contains(c.Finding, ".invalid") || c.Remedy == "" {
			t.Errorf("%+v", c)
		}
	}
}
