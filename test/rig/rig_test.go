package rig_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/test/rig"
)

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCloseEndsTheWholeProcessGroup(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx := bounded(t, 20*time.Second)
	p, err := rig.Start(rig.Command{Path: "/bin/sh", Args: []string{"-c", `sleep 600 & echo child $!; trap "" HUP; wait`}})
	rig.Check(t, err)
	m, err := p.WaitLog(ctx, regexp.MustCompile(`child (\d+)`))
	rig.Check(t, err)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	rig.Check(t, rig.Until(ctx, "the child to end", func() (bool, error) {
		stat, err := os.ReadFile(filepath.Join("/proc", m[1], "stat"))
		return errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z "), nil
	}))
}

func TestCloseKillsWhatIgnoresTerm(t *testing.T) {
	defer goleak.VerifyNone(t)
	p, err := rig.Start(rig.Command{Path: "/bin/sh", Args: []string{"-c", `trap "" TERM; echo ready; while :; do sleep 600; done`}, Grace: 100 * time.Millisecond})
	rig.Check(t, err)
	_, err = p.WaitLog(bounded(t, 10*time.Second), regexp.MustCompile("ready"))
	rig.Check(t, err)
	if err := p.Close(); err == nil {
		t.Error("Close reports no error for a process that ignores SIGTERM")
	}
	select {
	case <-p.Done():
	default:
		t.Error("the process runs on")
	}
}

func TestPortIsFreeForBoth(t *testing.T) {
	port, err := rig.Port()
	rig.Check(t, err)
	tcp, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	rig.Check(t, err)
	tcp.Close()
	udp, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
	rig.Check(t, err)
	udp.Close()
}

// browser is what both browsers do for a test.
type browser interface {
	Open(ctx context.Context, url string) (rig.Page, error)
	Close() error
}

func TestBrowsersRunPages(t *testing.T) {
	for name, start := range map[string]func(context.Context) (browser, error){
		"chromium": func(ctx context.Context) (browser, error) { return rig.StartChromium(ctx, rig.ChromiumOptions{}) },
		"firefox":  func(ctx context.Context) (browser, error) { return rig.StartFirefox(ctx, rig.FirefoxOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t, 90*time.Second)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Security-Policy", "default-src 'self'")
				fmt.Fprint(w, "<!doctype html><title>a page</title><p id=p>text")
			}))
			defer server.Close()
			b, err := start(ctx)
			rig.Check(t, err)
			defer func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}()
			page, err := b.Open(ctx, server.URL)
			rig.Check(t, err)
			var title string
			rig.Check(t, page.Eval(ctx, `new Promise(r => setTimeout(() => r(document.title), 10))`, &title))
			if title != "a page" {
				t.Errorf("title %q", title)
			}
			if err := page.Eval(ctx, `Promise.reject(new Error("so it is"))`, nil); err == nil || !strings.Contains(err.Error(), "so it is") {
				t.Errorf("a rejected promise says %v", err)
			}
			rig.Check(t, page.Resize(ctx, 390, 844))
			shot, err := page.Screenshot(ctx)
			rig.Check(t, err)
			config, err := png.DecodeConfig(bytes.NewReader(shot))
			rig.Check(t, err)
			if config.Width != 390 || config.Height != 844 {
				t.Errorf("screenshot of %dx%d, want 390x844", config.Width, config.Height)
			}
			rig.Check(t, page.Close())
		})
	}
}

// TestNamespaceWithoutUDP shows that the rig really takes UDP away and leaves
// TCP: what the relay test stands on.
func TestNamespaceWithoutUDP(t *testing.T) {
	ctx := bounded(t, 30*time.Second)
	server, client := rig.Pair(ctx, t, "10.97.1.1/24", "10.97.1.2/24")

	const script = `
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("10.97.1.1", 7000))
t = socket.create_server(("10.97.1.1", 7000)); print("ready", flush=True)
def tcp():
    c, _ = t.accept(); c.sendall(b"tcp"); c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    data, peer = u.recvfrom(100); u.sendto(data, peer)
`
	p, err := rig.Start(rig.Command{Path: "/usr/bin/python3", Args: []string{"-c", script}, Namespace: server})
	rig.Check(t, err)
	rig.End(t, "server", p.Close)
	_, err = p.WaitLog(ctx, regexp.MustCompile("ready"))
	rig.Check(t, err)

	echo := func() error {
		conn, err := client.Dial(ctx, "udp", "10.97.1.1:7000")
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte("udp")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 10))
		return err
	}
	rig.Check(t, echo())
	rig.Check(t, client.BlockUDP(ctx))
	if err := echo(); err == nil {
		t.Error("UDP passes though it is blocked")
	}
	conn, err := client.Dial(ctx, "tcp", "10.97.1.1:7000")
	rig.Check(t, err)
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "tcp" {
		t.Errorf("TCP says %q, %v", got, err)
	}
}
