package rtc

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// dataPeer opens a viewer's data channels and collects what its peer is sent.
func dataPeer(t *testing.T, s *session) (fromPeer chan Data, channels chan *webrtc.DataChannel, got chan webrtc.DataChannelMessage) {
	t.Helper()
	fromPeer, channels, got = make(chan Data, 1000), make(chan *webrtc.DataChannel, 100), make(chan webrtc.DataChannelMessage, 1000)
	s.peer.pc.OnDataChannel(func(c *webrtc.DataChannel) {
		c.OnMessage(func(m webrtc.DataChannelMessage) { got <- m })
		c.OnOpen(func() { channels <- c })
	})
	if err := s.OpenData(func(d Data) { fromPeer <- d }); err != nil {
		t.Fatal(err)
	}
	return fromPeer, channels, got
}

func fullICE(t *testing.T) *Engine {
	if overLite {
		t.Skip("data channels need full ICE")
	}
	return newEngine(t, Options{})
}

func TestDataChannels(t *testing.T) {
	for _, c := range []struct {
		name  string
		first bool // the channels are in the first offer
		video bool
	}{{"alone", true, false}, {"with video", true, true}, {"later", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			src := newSource()
			var tracks []any
			if c.video {
				tracks = []any{videoTrack, src}
			}
			s := newSession(t, fullICE(t), peerOptions{}, tracks...)
			if !c.first {
				s.connect(t)
			}
			fromPeer, channels, got := dataPeer(t, s)
			if !s.OfferDue() {
				t.Error("no offer is due")
			}
			if err := s.SendData(Data{}); !errors.Is(err, ErrBadState) {
				t.Errorf("sent before they are open: %v", err)
			}
			if c.first {
				s.connect(t)
			} else {
				s.negotiate(t, false)
			}
			if s.OfferDue() {
				t.Error("an offer is due")
			}
			byLabel := map[string]*webrtc.DataChannel{}
			for range 2 {
				ch := receive(t, channels, "a channel")
				byLabel[ch.Label()] = ch
			}
			reliable, lossy := byLabel[reliableLabel], byLabel[lossyLabel]
			if reliable == nil || lossy == nil || !reliable.Ordered() || reliable.MaxRetransmits() != nil ||
				lossy.Ordered() || lossy.MaxRetransmits() == nil || *lossy.MaxRetransmits() != 0 {
				t.Fatalf("channels %v", byLabel)
			}
			for _, d := range []Data{
				{Text: true, Payload: []byte("grüße")}, {Payload: []byte{0, 1, 255}}, {Lossy: true, Payload: []byte("now")},
				{Payload: bytes.Repeat([]byte{7}, MaxData)},
			} {
				if err := s.SendData(d); err != nil {
					t.Fatal(err)
				}
				if m := receive(t, got, "a message"); m.IsString != d.Text || !bytes.Equal(m.Data, d.Payload) {
					t.Errorf("the peer got %d bytes, text %t, of %d, %t", len(m.Data), m.IsString, len(d.Payload), d.Text)
				}
				ch := reliable
				if d.Lossy {
					ch = lossy
				}
				send := ch.Send
				if d.Text {
					send = func(b []byte) error { return ch.SendText(string(b)) }
				}
				if err := send(d.Payload); err != nil {
					t.Fatal(err)
				}
				if back := receive(t, fromPeer, "what the peer sent"); back.Lossy != d.Lossy || back.Text != d.Text || !bytes.Equal(back.Payload, d.Payload) {
					t.Errorf("got %d bytes, lossy %t, text %t", len(back.Payload), back.Lossy, back.Text)
				}
			}
			if err := s.SendData(Data{Payload: make([]byte, MaxData+1)}); err == nil {
				t.Error("a message beyond the limit was sent")
			}
			if c.video { // goes on as ever, also on m-lines that come behind
				src.push(true, 3)
				for range 3 {
					s.peer.next(t)
				}
				sound := newSource()
				if err := s.AddTrack("audio", audioTrack, "desk", sound); err != nil {
					t.Fatal(err)
				}
				s.negotiate(t, false)
				sound.push(true, 1)
				receive(t, s.peer.audio, "sound")
			}
		})
	}
}

func TestPeerDeclinesDataChannels(t *testing.T) {
	src := newSource()
	s := newSession(t, fullICE(t), peerOptions{}, videoTrack, src)
	dataPeer(t, s)
	ctx := context.Background()
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	answer := s.peer.answer(t, offer)
	declined := strings.Replace(answer, "m=application 9", "m=application 0", 1)
	if declined == answer {
		t.Fatalf("no application section in\n%s", answer)
	}
	if err := s.SetAnswer(ctx, strings.Replace(declined, "m=application", "m=audio", 1)); !errors.Is(err, ErrBadSDP) {
		t.Errorf("another kind of section: %v", err)
	}
	if err := s.SetAnswer(ctx, declined); err != nil {
		t.Fatal(err)
	}
	s.await(t, StateConnected)
	src.push(true, 1)
	s.peer.next(t)
	if err := s.SendData(Data{}); !errors.Is(err, ErrBadState) {
		t.Errorf("sent: %v", err)
	}
}

// Who doesn't read holds up nobody, and costs a bounded memory.
func TestSlowDataPeer(t *testing.T) {
	s := newSession(t, fullICE(t), peerOptions{})
	release := make(chan struct{})
	defer close(release)
	open := make(chan struct{}, 2)
	s.peer.pc.OnDataChannel(func(c *webrtc.DataChannel) {
		c.OnMessage(func(webrtc.DataChannelMessage) { <-release })
		c.OnOpen(func() { open <- struct{}{} })
	})
	if err := s.OpenData(func(Data) {}); err != nil {
		t.Fatal(err)
	}
	s.connect(t)
	receive(t, open, "a channel")
	receive(t, open, "a channel")
	deadline := time.Now().Add(15 * time.Second)
	for sent := 0; ; sent += MaxData {
		err := s.SendData(Data{Payload: make([]byte, MaxData)})
		if errors.Is(err, ErrSlow) {
			break
		}
		if err != nil || time.Now().After(deadline) || sent > 64<<20 {
			t.Fatalf("%d bytes were taken, then %v", sent, err)
		}
	}
	if err := s.SendData(Data{Lossy: true, Payload: []byte("x")}); err != nil {
		t.Errorf("the other channel is held up: %v", err)
	}
}

// The gateway opens what channels there are: a peer's own are closed, and many end it.
func TestForeignDataChannels(t *testing.T) {
	s := newSession(t, fullICE(t), peerOptions{})
	_, channels, _ := dataPeer(t, s)
	s.connect(t)
	receive(t, channels, "a channel")
	for range foreignData + 1 {
		if _, err := s.peer.pc.CreateDataChannel("mine", nil); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, s.Done(), "the viewer's end")
	if !errors.Is(s.Err(), errForeign) {
		t.Errorf("ended by %v", s.Err())
	}
}
