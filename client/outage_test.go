package client_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/client"
)

// cuttable is a UDP socket whose packets go nowhere as long as it is cut.
type cuttable struct {
	net.PacketConn
	cut atomic.Bool
}

func (c *cuttable) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.cut.Load() {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

func (c *cuttable) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.cut.Load() {
			return n, from, err
		}
	}
}

// hastyAPI is pion that gives a path up within seconds, on a socket that can be cut.
func hastyAPI(t *testing.T) (*webrtc.API, *cuttable) {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	check(t, err)
	way := &cuttable{PacketConn: socket}
	mux := webrtc.NewICEUDPMux(nil, way)
	t.Cleanup(func() { mux.Close() })
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetICEUDPMux(mux)
	setting.SetICETimeouts(time.Second, 2*time.Second, 200*time.Millisecond)
	return webrtc.NewAPI(webrtc.WithSettingEngine(setting)), way
}

func vp8(t *testing.T) *webrtc.TrackLocalStaticSample {
	t.Helper()
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	check(t, err)
	feed(t, track)
	return track
}

// meeting is a room with one who publishes as he likes, and one who hears of it.
func meeting(ctx context.Context, t *testing.T, o client.Options) (a, b *client.Client, events <-chan client.Event) {
	t.Helper()
	address := start(t, open, nil)
	o.Name, o.Create = "Anna", true
	a = dial(ctx, t, address, o)
	_, err := a.Join(ctx, "meeting")
	check(t, err)
	b = dial(ctx, t, address, client.Options{Name: "Bob"})
	_, err = b.Join(ctx, "meeting")
	check(t, err)
	return a, b, b.Events()
}

// sees watches what is published.
func sees(ctx context.Context, t *testing.T, b *client.Client, p *client.Publication) {
	t.Helper()
	w, err := b.Watch(ctx, p.Name, "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, w, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
}

// A connection whose path was given up was never made again: what was published went
// nowhere as long as the client lived.
func TestPublicationOutlivesItsConnection(t *testing.T) {
	ctx := patience(t)
	api, way := hastyAPI(t)
	a, b, events := meeting(ctx, t, client.Options{API: api})
	p, err := a.Publish(ctx, "camera", "", vp8(t))
	check(t, err)
	heard(ctx, t, events, "stream-started")
	sees(ctx, t, b, p)
	name := p.Name

	way.cut.Store(true)
	heard(ctx, t, events, "stream-ended") // ICE was restarted in vain
	way.cut.Store(false)
	heard(ctx, t, events, "stream-started")
	sees(ctx, t, b, p)
	if p.Name != name || p.Err() != nil {
		t.Errorf("%s is called %s, and has ended by %v", name, p.Name, p.Err())
	}
	check(t, p.Close(ctx))
	<-p.Done()
}

// What the gateway doesn't take any more has ended, and says why.
func TestPublicationEndsWhereItIsForbidden(t *testing.T) {
	ctx := patience(t)
	a, b, events := meeting(ctx, t, client.Options{})
	p, err := a.Publish(ctx, "camera", "", vp8(t))
	check(t, err)
	sees(ctx, t, b, p)
	e := heard(ctx, t, events, "stream-started")
	check(t, b.Moderate(ctx, "set-role", map[string]any{"target": e.Stream.Publisher, "role": "viewer"}))
	select {
	case <-p.Done():
	case <-ctx.Done():
		t.Fatal("it goes on")
	}
	var refused *client.Error
	if !errors.As(p.Err(), &refused) || refused.Code != "forbidden" {
		t.Errorf("it has ended by %v", p.Err())
	}
	check(t, b.Moderate(ctx, "set-role", map[string]any{"target": e.Stream.Publisher, "role": "publisher"}))
	p, err = a.Publish(ctx, "camera", "", vp8(t))
	check(t, err)
	sees(ctx, t, b, p)
}

// A refused offer left the connection unable to make another; so did the end of the last stream.
func TestPublishingGoesOnAfterARefusal(t *testing.T) {
	ctx := patience(t)
	a, b, _ := meeting(ctx, t, client.Options{})
	var refused *client.Error
	refuses := func() {
		t.Helper()
		if _, err := a.Publish(ctx, "No Label", "", vp8(t)); !errors.As(err, &refused) || refused.Code != "bad-message" {
			t.Errorf("a bad label: %v", err)
		}
	}
	refuses()
	p, err := a.Publish(ctx, "camera", "", vp8(t))
	check(t, err)
	sees(ctx, t, b, p)
	refuses()
	second, err := a.Publish(ctx, "screen", "", vp8(t))
	check(t, err)
	sees(ctx, t, b, second)
	check(t, p.Close(ctx))
	check(t, second.Close(ctx))
	p, err = a.Publish(ctx, "camera", "", vp8(t))
	check(t, err)
	sees(ctx, t, b, p) // on an m-line that was unused in two offers
}
