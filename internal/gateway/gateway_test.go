package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"image/jpeg"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/config"
)

func TestMain(m *testing.M) {
	WorkerMain()
	goleak.VerifyTestMain(m)
}

// testMachine asks children of the test.
func testMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(&config.Gateway{
		Isolation: config.IsolationProcess, Confine: config.Confine{Enabled: true}, Elements: config.Elements{Allow: config.DefaultElements},
	}, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

const small = `
source: videotestsrc is-live=true pattern=red
video: {width: 320, height: 240, framerate: 15, bitrate: 300k}
`

// start runs the product in this process with the given pipeline files.
func start(t *testing.T, pipelines map[string]string) (url string, stop func() error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range pipelines {
		write(t, filepath.Join(dir, name), text)
	}
	return run(t, dir)
}

// startIn runs the product in this process with a folder of pipeline files.
func startIn(t *testing.T, dir string) (url string) {
	t.Helper()
	url, _ = run(t, dir)
	return url
}

func run(t *testing.T, dir string) (url string, stop func() error) {
	t.Helper()
	return runWith(t, dir, "")
}

// runWith is run with more lines of configuration.
func runWith(t *testing.T, dir, lines string) (url string, stop func() error) {
	t.Helper()
	g, stop := runAs(t, dir, lines)
	return "http://" + g.Addr().String(), stop
}

// runAs is runWith, for who needs the gateway itself.
func runAs(t *testing.T, dir, lines string) (g *Gateway, stop func() error) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "gateway.conf")
	if err := os.WriteFile(conf, []byte("auth: {mode: none}\nlimits: {shutdown_timeout: 8s}\n"+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := Load(conf, dir, "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err = New(Options{Settings: settings, Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	stopped := false
	stop = func() error {
		cancel()
		stopped = true
		return <-served
	}
	t.Cleanup(func() {
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return g, stop
}

// do makes a request with headers (name, value, …) and returns the answer, its body
// read.
func do(t *testing.T, c *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(data)
}

func get(t *testing.T, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	answer, body := do(t, http.DefaultClient, http.MethodGet, url, "", header...)
	return answer, []byte(body)
}

func TestStreamsAreListedAndPictured(t *testing.T) {
	url, _ := start(t, map[string]string{"red.yaml": small, "bad.yaml": "sauce: videotestsrc\n"})
	var list struct {
		Streams  []struct{ Name, State string }
		Problems []string
	}
	_, body := get(t, url+"/api/streams")
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Streams) != 1 || list.Streams[0].Name != "red" {
		t.Errorf("streams %+v", list.Streams)
	}
	if len(list.Problems) == 0 || !strings.Contains(list.Problems[0], "bad.yaml:1:1") {
		t.Errorf("problems %q", list.Problems)
	}
	answer, body := get(t, url+"/api/streams/red/snapshot.jpg")
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("snapshot: %s: %s", answer.Status, body)
	}
	picture, err := jpeg.Decode(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, b, _ := picture.At(160, 120).RGBA(); r>>8 < 200 || g>>8 > 60 || b>>8 > 60 {
		t.Errorf("colour %d %d %d, want red", r>>8, g>>8, b>>8)
	}
	if answer.Header.Get("X-Trace-ID") == "" {
		t.Error("no trace id")
	}
	_, body = get(t, url+"/metrics")
	for _, metric := range []string{`gateway_stream_state{state="live",stream="red"} 1`, "gateway_track_frames_total", `gateway_track_dropped_frames_total{stream="red",track="video"}`, "gateway_build_info", "process_open_fds"} {
		if !strings.Contains(string(body), metric) {
			t.Errorf("metrics lack %s", metric)
		}
	}
}

func TestRequestsOfOthersAreRefused(t *testing.T) {
	url, _ := start(t, map[string]string{"red.yaml": small})
	for _, c := range []struct {
		path   string
		header []string
		status int
	}{
		{"/api/streams", nil, 200},
		{"/api/streams", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"/api/streams/red/snapshot.jpg", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"/api/streams", []string{"Host", "attacker.example"}, 421},
		{"/", []string{"Host", "attacker.example:8080"}, 421},
		{"/healthz", []string{"Host", "10.1.2.3:8080"}, 200},
		{"/readyz", []string{"Host", "localhost"}, 200},
		{"/api/streams", []string{"Host", "[::1]:8080"}, 200},
		{"/api/streams/nosuch", nil, 404},
		{"/api/streams/nosuch/snapshot.jpg", nil, 404},
		{"/api/nothing", nil, 404},
		{"/nothing", nil, 404},
	} {
		answer, body := get(t, url+c.path, c.header...)
		if answer.StatusCode != c.status {
			t.Errorf("%s %v: %s: %s", c.path, c.header, answer.Status, body)
		}
	}
}

// A request that announces a body and doesn't send it once blocked the pictures of
// its stream, and then the shutdown.
func TestHalfARequestHoldsUpNobody(t *testing.T) {
	url, stop := start(t, map[string]string{"red.yaml": small})
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /api/streams/red/snapshot.jpg HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if answer, body := get(t, url+"/api/streams/red/snapshot.jpg"); answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", answer.Status, body)
		}
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Load(filepath.Join(t.TempDir(), "none"), t.TempDir(), l.Addr().String(), nil); err == nil {
		t.Fatal("a configuration that isn't there was loaded")
	}
	settings, err := Load(DefaultConfig, t.TempDir(), l.Addr().String(), []string{"GATEWAY_AUTH_MODE=none"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Settings: settings, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err == nil || !strings.Contains(err.Error(), "-listen") {
		t.Errorf("said %v", err)
	}
}
