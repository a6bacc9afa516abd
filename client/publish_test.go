package client_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"gateway/client"
)

// keyframe begins a VP8 keyframe of 320×180 (RFC 6386 §9.1): what forwards packets
// doesn't look further.
var keyframe = append([]byte{0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00}, make([]byte, 600)...)

// feed writes frames to a track until the test ends.
func feed(t *testing.T, track *webrtc.TrackLocalStaticSample) {
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				track.WriteSample(media.Sample{Data: keyframe, Duration: 20 * time.Millisecond})
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { close(done); wait.Wait() })
}

func TestWhatIsPublishedIsSeenByOthers(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, nil)
	a := dial(ctx, t, address, client.Options{Name: "Anna", Create: true})
	inA, err := a.Join(ctx, "meeting")
	check(t, err)
	b := dial(ctx, t, address, client.Options{Name: "Bob"})
	_, err = b.Join(ctx, "meeting")
	check(t, err)
	events := b.Events()

	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	check(t, err)
	feed(t, track)
	p, err := a.Publish(ctx, "camera", "Anna's", track)
	check(t, err)
	if p.Name != inA.UserID+"-camera" {
		t.Errorf("it is called %q", p.Name)
	}
	if e := heard(ctx, t, events, "stream-started"); e.Stream == nil || e.Stream.Name != p.Name || e.Stream.Publisher != inA.UserID || e.Stream.Label != "camera" {
		t.Errorf("%s", e.Raw)
	}
	w, err := b.Watch(ctx, p.Name, "")
	check(t, err)
	seen := tracks(ctx, t, w, 1)[webrtc.RTPCodecTypeVideo]
	plays(ctx, t, seen, webrtc.MimeTypeVP8)
	for asked := false; !asked; {
		check(t, seen.RequestKeyframe())
		select {
		case <-p.Keyframes():
			asked = true
		case <-time.After(time.Second): // the gateway asks at most now and then
		case <-ctx.Done():
			t.Fatal("the publisher isn't asked for a keyframe")
		}
	}

	screen, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "screen")
	check(t, err)
	feed(t, screen)
	second, err := a.Publish(ctx, "screen", "", screen)
	check(t, err)
	ws, err := b.Watch(ctx, second.Name, "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, ws, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
	plays(ctx, t, seen, webrtc.MimeTypeVP8) // the first goes on

	var refused *client.Error
	if _, err := a.Publish(ctx, "No Label", "", track); !errors.As(err, &refused) || refused.Code != "bad-message" {
		t.Errorf("a bad label: %v", err)
	}
	check(t, p.Close(ctx))
	heard(ctx, t, events, "stream-ended")
	for { // a place in the offers may have been waiting
		if _, err := w.Track(ctx); errors.As(err, &refused) {
			break
		} else {
			check(t, err)
		}
	}
}

// wire makes connections that a test can cut.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
	down  bool
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if down {
		return nil, errors.New("the wire is cut")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *wire) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func TestSessionOutlivesItsSocket(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, map[string]string{"picture": picture})
	var w wire
	a := dial(ctx, t, address, client.Options{Name: "Anna", DialContext: w.dial})
	inA, err := a.Join(ctx, "picture")
	check(t, err)
	watch, err := a.Watch(ctx, "picture", "")
	check(t, err)
	track := tracks(ctx, t, watch, 1)[webrtc.RTPCodecTypeVideo]
	plays(ctx, t, track, webrtc.MimeTypeVP8)
	heardA := a.Events()
	b := dial(ctx, t, address, client.Options{Name: "Bob"})
	_, err = b.Join(ctx, "picture")
	check(t, err)
	heardB := b.Events()

	for n := range 3 {
		w.cut(n > 0)
		check(t, b.Relay(ctx, inA.UserID, n)) // while she is away
		sent := make(chan error, 1)
		go func() { sent <- a.Relay(ctx, "", n) }()
		plays(ctx, t, track, webrtc.MimeTypeVP8) // the picture goes on
		w.mu.Lock()
		w.down = false
		w.mu.Unlock()
		if e := heard(ctx, t, heardA, "message"); string(e.Data) != string('0'+rune(n)) {
			t.Errorf("%s", e.Raw)
		}
		check(t, <-sent)
		if e := heard(ctx, t, heardB, "message"); string(e.Data) != string('0'+rune(n)) || e.UserID != inA.UserID {
			t.Errorf("%s", e.Raw)
		}
	}
	check(t, watch.View(ctx, 160, 120))

	// what can't come back ends, with the reason
	lost, err := client.Dial(ctx, address, client.Options{DialContext: w.dial})
	check(t, err)
	w.cut(false)
	<-lost.Done()
	if lost.Close() == nil {
		t.Error("a socket without a session was lost, and nobody says so")
	}
}
