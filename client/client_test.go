package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"gateway/client"
	"gateway/internal/gateway"
)

func TestMain(m *testing.M) {
	gateway.WorkerMain()
	goleak.VerifyTestMain(m)
}

const (
	picture = "source: videotestsrc is-live=true\nvideo: {codec: vp8, width: 160, height: 120, framerate: 15, bitrate: 200k}\n"
	ladder  = `source: videotestsrc is-live=true pattern=ball
video:
  codec: vp8
  framerate: 15
  renditions:
    - {name: high, width: 320, height: 240, bitrate: 300k}
    - {name: low, width: 160, height: 120, bitrate: 100k}
audio: {source: audiotestsrc is-live=true, codec: opus}
`
)

// start runs the product with these streams and lines of configuration, and tells
// its address.
func start(t *testing.T, lines string, pipelines map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "gateway.yaml")
	if !strings.Contains(lines, "state:") {
		lines += "state: " + dir + "\n"
	}
	check(t, os.WriteFile(conf, []byte("limits: {shutdown_timeout: 8s}\n"+lines), 0o600))
	check(t, os.Mkdir(filepath.Join(dir, "pipelines"), 0o700))
	for name, text := range pipelines {
		check(t, os.WriteFile(filepath.Join(dir, "pipelines", name+".yaml"), []byte(text), 0o600))
	}
	settings, err := gateway.Load(conf, filepath.Join(dir, "pipelines"), "127.0.0.1:0", nil)
	check(t, err)
	g, err := gateway.New(gateway.Options{Settings: settings, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	scheme, _, _ := strings.Cut(g.URL(), ":")
	return scheme + "://" + g.Addr().String()
}

const open = "auth: {mode: none}\n"

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dial connects a client that ends with the test, without a fault.
func dial(ctx context.Context, t *testing.T, address string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(ctx, address, o)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// plays reads packets of a codec from a track.
func plays(ctx context.Context, t *testing.T, track *client.Track, codec string) {
	t.Helper()
	for range 20 {
		p, err := track.Read(ctx)
		check(t, err)
		if !strings.EqualFold(p.Codec.MimeType, codec) {
			t.Errorf("%s of %s is %s, want %s", track.Kind, track.Stream, p.Codec.MimeType, codec)
		}
	}
}

// tracks takes n tracks of a watch, by kind.
func tracks(ctx context.Context, t *testing.T, w *client.Watch, n int) map[webrtc.RTPCodecType]*client.Track {
	t.Helper()
	got := make(map[webrtc.RTPCodecType]*client.Track)
	for range n {
		track, err := w.Track(ctx)
		check(t, err)
		if track.Stream != w.Stream || got[track.Kind] != nil {
			t.Errorf("a track of %s of %s", track.Kind, track.Stream)
		}
		got[track.Kind] = track
	}
	return got
}

func TestClientWatchesSeveralStreams(t *testing.T) {
	ctx := patience(t)
	address := start(t, open+"rooms: {hall: {streams: [ladder, picture]}}\n", map[string]string{"ladder": ladder, "picture": picture})
	c := dial(ctx, t, address, client.Options{})
	_, err := c.Join(ctx, "hall")
	check(t, err)
	first, err := c.Watch(ctx, "ladder", "low")
	check(t, err)
	got := tracks(ctx, t, first, 2)
	plays(ctx, t, got[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
	plays(ctx, t, got[webrtc.RTPCodecTypeAudio], webrtc.MimeTypeOpus)
	check(t, got[webrtc.RTPCodecTypeVideo].RequestKeyframe())

	second, err := c.Watch(ctx, "picture", "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, second, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
	check(t, first.Select(ctx, "high"))
	check(t, first.View(ctx, 320, 240))
	var refused *client.Error
	if err := first.Select(ctx, "best"); !errors.As(err, &refused) || refused.Code != "not-found" || refused.Fatal {
		t.Errorf("a rendition that isn't there: %v", err)
	}
	if _, err := c.Watch(ctx, "nothing", ""); !errors.As(err, &refused) || refused.Code != "not-found" || refused.TraceID == "" {
		t.Errorf("a stream that isn't there: %v", err)
	}

	check(t, first.Close(ctx))
	if _, err := first.Track(ctx); err != io.EOF {
		t.Errorf("a stream that isn't watched any more: %v", err)
	}
	for { // what had come is there still
		if _, err := got[webrtc.RTPCodecTypeVideo].Read(ctx); err == io.EOF {
			break
		} else {
			check(t, err)
		}
	}
	again, err := c.Watch(ctx, "ladder", "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, again, 2)[webrtc.RTPCodecTypeAudio], webrtc.MimeTypeOpus)
}

func TestRefusalsCarryTheirCode(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, map[string]string{"picture": picture})
	c, err := client.Dial(ctx, address, client.Options{})
	check(t, err)
	var refused *client.Error
	if _, err := c.Join(ctx, "nowhere"); !errors.As(err, &refused) || refused.Code != "not-found" || !refused.Fatal {
		t.Errorf("join: %v", err)
	}
	<-c.Done()
	if _, err := c.Watch(ctx, "picture", ""); !errors.As(err, &refused) {
		t.Errorf("watch after the end: %v", err)
	}
	if err := c.Close(); !errors.As(err, &refused) || refused.Code != "not-found" {
		t.Errorf("close: %v", err)
	}
	for _, address := range []string{"ftp://a", "http://", "://"} {
		if _, err := client.Dial(ctx, address, client.Options{}); err == nil {
			t.Errorf("dialled %q", address)
		}
	}
}

// heard waits for an event of a type.
func heard(ctx context.Context, t *testing.T, events <-chan client.Event, kind string) client.Event {
	t.Helper()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("no %s before the end", kind)
			}
			if e.Type == kind {
				return e
			}
		case <-ctx.Done():
			t.Fatalf("no %s", kind)
		}
	}
}

func TestClientsHearOfEachOther(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, nil)
	a := dial(ctx, t, address, client.Options{Name: "Anna", Create: true})
	inA, err := a.Join(ctx, "meeting")
	check(t, err)
	if inA.Room.ID != "meeting" || inA.Role != "admin" || len(inA.Can) == 0 || inA.ResumeWithin == 0 {
		t.Errorf("joined %+v", inA)
	}
	heardA := a.Events()
	b, err := client.Dial(ctx, address, client.Options{Name: "Bob"})
	check(t, err)
	inB, err := b.Join(ctx, "meeting")
	check(t, err)
	heardB := b.Events()
	guest := dial(ctx, t, address, client.Options{Role: "viewer"})
	if in, err := guest.Join(ctx, "meeting"); err != nil || in.Role != "viewer" || in.Participants != nil {
		t.Errorf("who asked for less joined as %+v, %v", in, err)
	}
	if e := heard(ctx, t, heardA, "participant-joined"); e.Participant == nil || e.Participant.Name != "Bob" || e.Participant.UserID != inB.UserID {
		t.Errorf("%s", e.Raw)
	}
	if len(inB.Participants) == 0 {
		t.Error("nobody is there")
	}
	check(t, a.Relay(ctx, inB.UserID, map[string]int{"n": 7}))
	if e := heard(ctx, t, heardB, "message"); string(e.Data) != `{"n":7}` || e.UserID != inA.UserID || e.Target != inB.UserID {
		t.Errorf("%s", e.Raw)
	}
	check(t, b.Relay(ctx, "", "to all"))
	if e := heard(ctx, t, heardA, "message"); string(e.Data) != `"to all"` {
		t.Errorf("%s", e.Raw)
	}
	var refused *client.Error
	if err := a.Relay(ctx, "nobody", 1); !errors.As(err, &refused) || refused.Code != "unknown-target" || refused.Fatal {
		t.Errorf("to nobody: %v", err)
	}
	check(t, a.Moderate(ctx, "remove", map[string]any{"target": inB.UserID}))
	heard(ctx, t, heardA, "participant-left")
	<-b.Done()
	var left *client.Left
	if err := b.Close(); !errors.As(err, &left) || left.Reason != "removed" {
		t.Errorf("who was removed is told %v", err)
	}
	for range heardB { // it is closed
	}
}

func TestClientComesWithATokenOverHTTPS(t *testing.T) {
	ctx := patience(t)
	dir := t.TempDir()
	address := start(t, "https: {self_signed: true}\nstate: "+dir+"\n", map[string]string{"picture": picture})
	if _, err := client.Dial(ctx, address, client.Options{}); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
	pem, err := os.ReadFile(filepath.Join(dir, "self-signed.pem"))
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	trusting := &tls.Config{RootCAs: roots}
	for _, token := range []string{"", "nonsense"} {
		c, err := client.Dial(ctx, address, client.Options{TLS: trusting, Token: token})
		if err == nil {
			_, err = c.Join(ctx, "picture")
			c.Close()
		}
		var refused *client.Error
		if !errors.As(err, &refused) || refused.Code != "unauthorized" {
			t.Errorf("token %q: %v", token, err)
		}
	}
	token, err := os.ReadFile(filepath.Join(dir, "admin-token"))
	check(t, err)
	c := dial(ctx, t, address, client.Options{TLS: trusting, Token: strings.TrimSpace(string(token))})
	_, err = c.Join(ctx, "picture")
	check(t, err)
	w, err := c.Watch(ctx, "picture", "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, w, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
}

// A client that is just taking up its session closes all the same.
func TestCloseWhileTheSessionIsTakenUp(t *testing.T) {
	var upgrader websocket.Upgrader
	joins, end := make(chan int32, 10), make(chan struct{})
	var connections atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer socket.Close()
		var join struct{ RequestID string }
		if socket.ReadJSON(&join) != nil {
			return
		}
		n := connections.Add(1)
		joins <- n
		if n == 1 {
			socket.WriteJSON(map[string]any{"type": "joined", "requestId": join.RequestID, "roomId": "hall", "session": "s", "resumeWithin": 300})
			return
		}
		<-end // it says nothing
	}))
	defer server.Close()
	defer close(end)
	ctx := patience(t)
	c, err := client.Dial(ctx, server.URL, client.Options{})
	check(t, err)
	_, err = c.Join(ctx, "hall")
	check(t, err)
	for n := range joins {
		if n == 2 {
			break
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		check(t, err)
	case <-ctx.Done():
		t.Error("Close waits for the gateway")
	}
}

// Lost is true where it is worth to come again.
func TestLostIsAGatewayThatIsGone(t *testing.T) {
	for want, errs := range map[bool][]error{
		true: {
			fmt.Errorf("connection lost: %w", errors.Join(io.EOF, &client.Error{Code: "resume-failed"})), &client.Error{Code: "shutting-down"}, io.ErrUnexpectedEOF,
		},
		false: {nil, client.ErrClosed, client.ErrSlow, &client.Left{Reason: "removed"}, &client.Error{Code: "forbidden"}},
	} {
		for _, err := range errs {
			if client.Lost(err) != want {
				t.Errorf("Lost(%v) is not %v", err, want)
			}
		}
	}
}
