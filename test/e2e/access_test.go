package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

var printed = regexp.MustCompile(`gateway: open (http://localhost:[0-9]+/#token=[A-Za-z0-9_-]+)\n`)

// TestClosedGatewayOpensByItsAddress goes the way of somebody who has just started
// it: nothing is to be had without a token, from this machine neither; the address
// that was printed opens the page; and all of it outlasts a restart.
func TestClosedGatewayOpensByItsAddress(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	state := filepath.Join(t.TempDir(), "state")
	options := rig.GatewayOptions{
		Pipelines: map[string]string{"test": testPipeline}, Auth: "token", Env: []string{"GATEWAY_STATE=" + state, "JOURNAL_STREAM="},
	}
	g, err := rig.StartGateway(ctx, options)
	rig.Check(t, err)
	defer g.Close()
	for _, path := range []string{"/api/streams", "/api/streams/test", "/api/streams/test/snapshot.jpg", "/api/rooms", "/api/session", "/metrics"} {
		if status, body := fetch(ctx, t, http.MethodGet, g.URL(path), "", ""); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := fetch(ctx, t, http.MethodPost, g.URL("/api/reload"), "", ""); status != http.StatusUnauthorized {
		t.Errorf("reload: %d %s", status, body)
	}
	c := dial(ctx, t, g)
	c.send(`{"type":"join","roomId":"test","version":1}`)
	if m := c.until("error"); m.Code != "unauthorized" {
		t.Errorf("the socket was told %+v", m)
	}

	address := printed.FindStringSubmatch(string(g.Log()))
	if address == nil {
		t.Fatalf("no address was printed:\n%s", g.Log())
	}
	_, admin, _ := strings.Cut(address[1], "#token=")
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, address[1])
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, rig.WaitTrue(ctx, page, `!location.hash && document.cookie === '' && document.body.textContent.includes('test')`))
	watch := strings.Replace(g.URL("/watch/test"), "127.0.0.1", "localhost", 1) // whose cookie it is
	rig.Check(t, page.Navigate(ctx, watch))
	rig.Check(t, strip.WaitVideo(ctx, page))

	token := command(ctx, t, options, "token", "-role", "viewer", "-room", "test", "-name", "Desk")
	if status, body := fetch(ctx, t, http.MethodGet, g.URL("/api/streams/test"), token, ""); status != http.StatusOK {
		t.Errorf("by a token of the command line: %d %s", status, body)
	}
	if status, body := fetch(ctx, t, http.MethodGet, g.URL("/metrics"), token, ""); status != http.StatusForbidden {
		t.Errorf("metrics for a viewer: %d %s", status, body)
	}
	link := command(ctx, t, options, "token", "-once", "-room", "test")
	redeem := `{"token": "` + link + `"}`
	if status, body := fetch(ctx, t, http.MethodPost, g.URL("/api/session"), "", redeem); status != http.StatusNoContent {
		t.Errorf("a link: %d %s", status, body)
	}

	port := g.Port
	rig.Check(t, g.Close())
	options.Port = port
	g = startGateway(ctx, t, options)
	if status, body := fetch(ctx, t, http.MethodPost, g.URL("/api/session"), "", redeem); status != http.StatusUnauthorized {
		t.Errorf("a used link after a restart: %d %s", status, body)
	}
	for _, secret := range []string{token, admin} {
		if status, body := fetch(ctx, t, http.MethodGet, g.URL("/api/streams/test"), secret, ""); status != http.StatusOK {
			t.Errorf("a token after a restart: %d %s", status, body)
		}
	}
	rig.Check(t, page.Navigate(ctx, watch)) // by the cookie
	rig.Check(t, strip.WaitVideo(ctx, page))
	if strings.Contains(string(g.Log()), token) || strings.Contains(string(g.Log()), link) {
		t.Error("the log has a token")
	}
}

// fetch asks for a path with a token, "" for none, and a body of JSON, if any.
func fetch(ctx context.Context, t *testing.T, method, url, token, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	rig.Check(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	rig.Check(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	rig.Check(t, err)
	return resp.StatusCode, string(data)
}

// command runs the gateway's program with the environment of o and returns what it
// prints on standard output.
func command(ctx context.Context, t *testing.T, o rig.GatewayOptions, args ...string) string {
	t.Helper()
	path, err := rig.Binary()
	rig.Check(t, err)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir() // without a configuration
	cmd.Env = append(os.Environ(), o.Env...)
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("gateway %q: %v\n%s", args, err, exit.Stderr)
	}
	rig.Check(t, err)
	return strings.TrimSpace(string(out))
}

// TestGatewayDoesNotStartOpenByMistake has it say why, with a remedy.
func TestGatewayDoesNotStartOpenByMistake(t *testing.T) {
	ctx := bounded(t, time.Minute)
	path, err := rig.Binary()
	rig.Check(t, err)
	for name, c := range map[string]struct {
		config string
		env    []string
		want   string
	}{
		"open to the network": {"listen: 0.0.0.0:0\nauth: {mode: none}\n", nil, "set auth.mode: token"},
		"nowhere for keys":    {"listen: 127.0.0.1:0\nstate: /dev/null/state\n", nil, "set state to a folder that this user may write"},
		"no home":             {"listen: 127.0.0.1:0\n", []string{"HOME=", "XDG_STATE_HOME=", "STATE_DIRECTORY="}, "set state"},
		"a password in clear": {"listen: 127.0.0.1:0\nauth: {users: {anna: {password: hunter2}}}\n", nil, "gateway token -hash"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "gateway.yaml")
		rig.Check(t, os.WriteFile(file, []byte(c.config), 0o600))
		cmd := exec.CommandContext(ctx, path, "-config", file, "-pipelines", dir)
		cmd.Env = append(os.Environ(), c.env...)
		var said bytes.Buffer
		cmd.Stderr = &said
		err := cmd.Run()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.String(), c.want) || strings.Contains(said.String(), "hunter2") {
			t.Errorf("%s: %v\n%s", name, err, &said)
		}
	}
}
