package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gateway/test/rig"
)

// nameServer is the DNS of a namespace: it has one address for all names, or knows none.
type nameServer struct {
	conn  net.PacketConn
	knows atomic.Bool
}

// startNameServer serves on the port that resolv.conf(5) can't change, and has the
// processes that are started in the namespace from now on ask there (ip-netns(8), /etc/netns).
func startNameServer(t *testing.T, n *rig.Namespace) *nameServer {
	t.Helper()
	dir := filepath.Join("/etc/netns", n.Name)
	rig.Check(t, os.MkdirAll(dir, 0o755))
	t.Cleanup(func() {
		os.RemoveAll(dir)
		os.Remove("/etc/netns") // if nobody else has something there
	})
	rig.Check(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644))
	s := new(nameServer)
	rig.Check(t, n.Do(func() (err error) {
		s.conn, err = net.ListenPacket("udp4", "127.0.0.1:53")
		return err
	}))
	served := make(chan struct{})
	go func() {
		defer close(served)
		b := make([]byte, 512)
		for {
			k, from, err := s.conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer := s.answer(b[:k]); err == nil && answer != nil {
				s.conn.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		s.conn.Close()
		<-served
	})
	return s
}

// answer is a message of RFC 1035 §4.1: to one for IPv4 addresses (type A) 127.0.0.1, to
// others that there is none, and to all that there is no such name unless it knows it.
func (s *nameServer) answer(query []byte) []byte {
	const header = 12
	end := header
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	if end += 5; end > len(query) {
		return nil
	}
	answer := append([]byte(nil), query[:end]...)
	answer[2], answer[3] = 0x81, 0x80
	clear(answer[6:header])
	switch {
	case !s.knows.Load():
		answer[3] |= 3 // NXDOMAIN
	case binary.BigEndian.Uint16(query[end-4:]) == 1:
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}

// TestCameraWhoseNameIsUnknownIsTriedAgain has the DNS not know a camera's name at first, and again while
// the camera restarts: it is said in words, and the picture comes when the name does.
func TestCameraWhoseNameIsUnknownIsTriedAgain(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	n, err := rig.NewNamespace(ctx)
	rig.Check(t, err)
	rig.End(t, "namespace", n.Close)
	names := startNameServer(t, n)
	camera := startCamera(ctx, t, n, 0)
	g := startGateway(ctx, t, rig.GatewayOptions{Namespace: n, Pipelines: map[string]string{
		"yard": fmt.Sprintf("source: rtspsrc latency=50 location=rtsp://yard.test:%d/camera\nwatchdog: {frames: 3s}\nvideo: {encoder: copy}\n", camera.Port),
	}})
	binary, err := rig.Binary()
	rig.Check(t, err)
	watch, err := rig.Start(rig.Command{Path: binary, Args: []string{"watch", g.URL("/watch/yard")}, Namespace: n})
	rig.Check(t, err)
	defer watch.Close()

	unknown := func() {
		t.Helper()
		rig.Check(t, rig.Until(ctx, "the name to be told of", func() (bool, error) {
			s, err := g.Stream(ctx, "yard")
			if err == nil && s.State != "live" && strings.Contains(s.Reason, "yard.test") {
				t.Logf("%s: %s", s.State, s.Reason)
				return true, nil
			}
			if err == nil {
				err = fmt.Errorf("it is %s (%s)", s.State, s.Reason)
			}
			return false, err
		}))
	}
	unknown()
	names.knows.Store(true)
	begun := time.Now()
	rig.Check(t, g.WaitState(ctx, "yard", "live"))
	t.Logf("live %v after its name was known", time.Since(begun).Round(10*time.Millisecond))

	names.knows.Store(false)
	rig.Check(t, camera.Signal(syscall.SIGKILL))
	<-camera.Done()
	startCamera(ctx, t, n, camera.Port)
	unknown()
	names.knows.Store(true)
	begun = time.Now()
	rig.Check(t, g.WaitState(ctx, "yard", "live"))
	t.Logf("live %v after its name was known again", time.Since(begun).Round(10*time.Millisecond))
}

func startCamera(ctx context.Context, t *testing.T, n *rig.Namespace, port int) *rig.RTSPServer {
	t.Helper()
	camera, err := rig.StartRTSP(ctx, rig.RTSPOptions{Port: port, Namespace: n, Streams: map[string]string{
		"camera": "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15" +
			" ! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96 config-interval=1",
	}})
	rig.Check(t, err)
	t.Cleanup(func() { camera.Close() })
	return camera
}
