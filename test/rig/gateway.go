package rig

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// GatewayOptions says how a test wants its gateway.
type GatewayOptions struct {
	Pipelines map[string]string // stream name → text of its YAML file
	Config    string            // text of gateway.yaml; empty: defaults
	Auth      string            // auth.mode; empty: none
	HTTPS     bool              // with a self-signed certificate
	Host      string            // host of the listen address; empty: 127.0.0.1
	Port      int               // 0: a free one
	Env       []string          // added to the environment; DISPLAY is empty unless named here
	Args      []string          // further arguments
	Namespace *Namespace        // network namespace; nil: the test's
	CPUs      string            // cores that it may use, such as "0"; empty: all
	Log       io.Writer         // gets the log as it is written
	Grace     time.Duration     // how long the shutdown may take; 0: 15 s
}

// Gateway is the product as a process, with a folder of pipelines of its own.
type Gateway struct {
	*Process
	Dir    string // holds gateway.yaml and pipelines/
	Host   string
	Port   int
	scheme string
	client *http.Client
	run    func(ctx context.Context) error // starts the process
}

// Binary is the gateway's binary, built from this module once a test process,
// with Go's own cache. The environment's GATEWAY_BINARY names a built one
// instead.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("GATEWAY_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "gateway-rig-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gateway")
	build := exec.Command("go", "build", "-o", path, "./cmd/gateway")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	// Text files of running programs can be removed: the first gateway opens it,
	// so the folder stays until the test process ends, see RemoveBinary.
	built = dir
	return path, nil
})

// built is the folder that Binary made.
var built string

// RemoveBinary removes what Binary built. For TestMain, after all tests.
func RemoveBinary() error {
	if built == "" {
		return nil
	}
	return os.RemoveAll(built)
}

// StartGateway starts the gateway and returns when /readyz says 200.
func StartGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	path, err := Binary()
	if err != nil {
		return nil, err
	}
	g := &Gateway{Host: o.Host, Port: o.Port, scheme: "http"}
	if g.Host == "" {
		g.Host = "127.0.0.1"
	}
	if g.Port == 0 {
		if g.Port, err = Port(); err != nil {
			return nil, err
		}
	}
	if g.Dir, err = os.MkdirTemp("", "gateway-rig-"); err != nil {
		return nil, err
	}
	// a connection a request: none is left open to be counted among the gateway's files
	transport := &http.Transport{DialContext: o.Namespace.Dial, DisableKeepAlives: true}
	if o.HTTPS {
		g.scheme = "https"
		o.Env = append([]string{"GATEWAY_HTTPS_SELF_SIGNED=true"}, o.Env...)
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // it is our own
	}
	g.client = &http.Client{Timeout: 20 * time.Second, Transport: transport}
	if err := g.start(ctx, path, o); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) start(ctx context.Context, path string, o GatewayOptions) error {
	if err := os.Mkdir(filepath.Join(g.Dir, "pipelines"), 0o755); err != nil {
		return err
	}
	for name, text := range o.Pipelines {
		if err := g.WritePipeline(name, text); err != nil {
			return err
		}
	}
	config := filepath.Join(g.Dir, "gateway.yaml")
	if err := os.WriteFile(config, []byte(o.Config), 0o644); err != nil {
		return err
	}
	g.run = func(ctx context.Context) error { return g.runs(ctx, path, config, o) }
	return g.run(ctx)
}

// Restart starts a gateway again that has ended, as it was: its folder and its port.
func (g *Gateway) Restart(ctx context.Context) error {
	select {
	case <-g.Done():
		g.Process.Close() // what it left behind
		return g.run(ctx)
	default:
		return errors.New("the gateway runs")
	}
}

// runs starts the process and waits until it is ready.
func (g *Gateway) runs(ctx context.Context, path, config string, o GatewayOptions) error {
	grace := o.Grace
	if grace == 0 {
		grace = 15 * time.Second
	}
	args := append([]string{"run", "-config", config, "-pipelines", filepath.Join(g.Dir, "pipelines"),
		"-listen", g.Host + ":" + strconv.Itoa(g.Port)}, o.Args...)
	p, err := Start(Command{
		Path: path, Args: args, Dir: g.Dir, Namespace: o.Namespace, CPUs: o.CPUs, Log: o.Log, Grace: grace,
		// a registry scan by each gateway would cost seconds: the user's is shared
		Env: append([]string{"DISPLAY=", "WAYLAND_DISPLAY=", "GATEWAY_STATE=" + filepath.Join(g.Dir, "state"), "GATEWAY_AUTH_MODE=" + cmp.Or(o.Auth, "none")}, o.Env...),
	})
	if err != nil {
		return err
	}
	g.Process = p
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return Until(ctx, "the gateway's /readyz", func() (bool, error) {
		select {
		case <-p.Done():
			cancel()
			return false, fmt.Errorf("the gateway ended: %v\n%s", p.err, tail(p.Log()))
		default:
		}
		status, body, err := g.Get(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("readyz: %d %s", status, body)
		}
		return err == nil, err
	})
}

// URL is the address of a path, such as "/watch/desktop".
func (g *Gateway) URL(path string) string {
	return g.scheme + "://" + g.Host + ":" + strconv.Itoa(g.Port) + path
}

// WritePipeline writes pipelines/NAME.yaml in one step, as an editor does that
// renames.
func (g *Gateway) WritePipeline(name, text string) error {
	path := filepath.Join(g.Dir, "pipelines", name+".yaml")
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Get reads a path of the gateway, up to 16 MiB.
func (g *Gateway) Get(ctx context.Context, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL(path), nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, body, err
}

// Stream is what /api/streams/NAME says of a stream.
type Stream struct {
	Name, Title, State, Reason, LastError, Settings string
	Viewers, Restarts                               int
	Placeholder                                     bool // viewers see one
	Tracks                                          []Track
	Reload                                          *Reload // nil: its file wasn't edited
}

// Track is a track in a [Stream].
type Track struct {
	Name, Kind, Codec, Encoder, Launch string
	Width, Height                      int
	FPS                                float64
	Bitrate, Viewers                   int
	Running                            bool // its encoder exists
}

// Track is the stream's track of a name, empty when it has none.
func (s *Stream) Track(name string) Track {
	for _, t := range s.Tracks {
		if t.Name == name {
			return t
		}
	}
	return Track{}
}

// Reload is what came of the last edit of a stream's file.
type Reload struct {
	At       int64 // Unix milliseconds
	OK       bool
	Message  string
	Findings []string
}

// Stream asks for one stream's state.
func (g *Gateway) Stream(ctx context.Context, name string) (*Stream, error) {
	status, body, err := g.Get(ctx, "/api/streams/"+name)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("stream %q: %d %s", name, status, body)
	}
	s := new(Stream)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("stream %q: %w", name, err)
	}
	return s, nil
}

// WaitState waits until a stream is in a state.
func (g *Gateway) WaitState(ctx context.Context, name, state string) error {
	return Until(ctx, "stream "+name+" to be "+state, func() (bool, error) {
		s, err := g.Stream(ctx, name)
		if err == nil && s.State != state {
			err = fmt.Errorf("it is %s (%s)", s.State, s.Reason)
		}
		return err == nil, err
	})
}

// Edit changes a stream's file by write and waits until the gateway has decided
// on it.
func (g *Gateway) Edit(ctx context.Context, name string, write func() error) (*Reload, error) {
	s, err := g.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if s.Reload != nil {
		before = s.Reload.At
	}
	if err := write(); err != nil {
		return nil, err
	}
	err = Until(ctx, "the gateway to reload "+name, func() (bool, error) {
		s, err = g.Stream(ctx, name)
		return err == nil && s.Reload != nil && s.Reload.At > before, err
	})
	if err != nil {
		return nil, err
	}
	return s.Reload, nil
}

// Metrics reads /metrics: "name{label="x"}" → value, as Prometheus prints them.
func (g *Gateway) Metrics(ctx context.Context) (map[string]float64, error) {
	status, body, err := g.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("metrics: %d %s", status, body)
	}
	m := make(map[string]float64)
	for s := bufio.NewScanner(bytes.NewReader(body)); s.Scan(); {
		line := s.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: line %q: %w", line, err)
		}
		m[line[:i]] = v
	}
	return m, nil
}

// Close ends the gateway by SIGTERM and removes its folder. A gateway that ends
// with another status than 0, or not in time, is an error.
func (g *Gateway) Close() error {
	defer os.RemoveAll(g.Dir)
	g.client.CloseIdleConnections()
	if g.Process == nil {
		return nil
	}
	if err := g.Process.Close(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if errors.As(g.err, &exit) {
		return fmt.Errorf("the gateway ended with %w:\n%s", exit, tail(g.Log()))
	}
	return nil
}
