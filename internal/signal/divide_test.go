package signal

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// narrowLink is a UDP socket behind a link of some bit/s, with a queue of half a
// second in front of it. What doesn't fit is lost.
type narrowLink struct {
	net.PacketConn
	bps  int
	out  chan linkPacket
	done chan struct{}
	once sync.Once
}

type linkPacket struct {
	data []byte
	from net.Addr
	due  time.Time
}

func newNarrowLink(t *testing.T, bps int) *narrowLink {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &narrowLink{PacketConn: conn, bps: bps, out: make(chan linkPacket, 4096), done: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.queue()
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l
}

// queue takes what comes and says when it has come through the link.
func (l *narrowLink) queue() {
	defer close(l.out)
	var free time.Time
	for {
		b := make([]byte, 2000)
		n, from, err := l.PacketConn.ReadFrom(b)
		if err != nil {
			return
		}
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if free.Sub(now) > time.Second/2 {
			continue
		}
		free = free.Add(time.Duration(n) * 8 * time.Second / time.Duration(l.bps))
		select {
		case l.out <- linkPacket{b[:n], from, free}:
		default:
		}
	}
}

func (l *narrowLink) ReadFrom(b []byte) (int, net.Addr, error) {
	p, ok := <-l.out
	if !ok {
		return 0, nil, net.ErrClosed
	}
	wait := time.NewTimer(time.Until(p.due))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-l.done:
		return 0, nil, net.ErrClosed
	}
	return copy(b, p.data), p.from, nil
}

func (l *narrowLink) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.PacketConn.Close()
}

// newNarrowTiles is a peer behind a narrow link that tells what arrives when.
func newNarrowTiles(t *testing.T, bps int) *tiles {
	feedback := new(interceptor.Registry)
	m := codecsOfBrowsers(t)
	if err := webrtc.ConfigureTWCCSender(m, feedback); err != nil {
		t.Fatal(err)
	}
	if err := webrtc.ConfigureRTCPReports(feedback); err != nil {
		t.Fatal(err)
	}
	mux := webrtc.NewICEUDPMux(nil, newNarrowLink(t, bps))
	t.Cleanup(func() { mux.Close() })
	return newTiles(t, func(s *webrtc.SettingEngine) { s.SetICEUDPMux(mux) }, webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(feedback))
}

// What a narrow link carries goes to the picture that is largest on screen, and moves
// when that is another one.
func TestLargestPictureHasTheNarrowLink(t *testing.T) {
	g := newGateway(t)
	for _, name := range []string{"left", "right"} {
		g.add(t, name,
			media.Track{Name: "high", Kind: media.Video, Codec: media.VP8, Width: 1280, Height: 720, FPS: 50, Bps: 1_200_000},
			media.Track{Name: "low", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180, FPS: 50, Bps: 150_000})
	}
	g.openPlan()
	c, p := g.dial(t), newNarrowTiles(t, 2_000_000) // one high and one low rendition, not two high ones
	large := map[string]any{"width": 1280, "height": 720, "visible": true}
	medium := map[string]any{"width": 640, "height": 360, "visible": true} // more than the low rendition covers
	c.say(map[string]any{"type": "join", "roomId": "house", "stream": "left", "version": 1, "view": large})
	p.negotiate(c, c.hear("offer"))
	c.say(map[string]any{"type": "watch", "stream": "right", "view": medium})
	play := func(left, right string) {
		t.Helper()
		playing := p.playing
		if playing["left"] == left && playing["right"] == right {
			return
		}
		// an estimate takes its time, the more so on a machine that is busy
		p.within(6*patience, c, fmt.Sprintf("%q and %q", left, right), func(m map[string]any) bool {
			if m["type"] == "rendition" {
				playing[m["stream"].(string)] = m["rendition"].(string)
			}
			return playing["left"] == left && playing["right"] == right
		})
	}
	// most of what arrives is the large picture's
	gets := func(large, small string) {
		t.Helper()
		bytes := map[string]int{}
		for len(p.packets) > 0 {
			<-p.packets
		}
		for deadline := time.After(patience); bytes[p.at[small+" video"]] < 20_000; {
			select {
			case got := <-p.packets:
				bytes[got.mid] += got.size
			case <-deadline:
				t.Fatalf("only %v bytes come", bytes)
			}
		}
		if l, s := bytes[p.at[large+" video"]], bytes[p.at[small+" video"]]; l < 2*s { // eight times as much is encoded
			t.Errorf("%s has %d bytes, %s %d", large, l, small, s)
		}
	}
	play("high", "low")
	gets("left", "right")
	c.say(map[string]any{"type": "view", "stream": "right", "width": 1280, "height": 720, "visible": true})
	c.say(map[string]any{"type": "view", "stream": "left", "width": 640, "height": 360, "visible": true})
	play("low", "high")
	gets("right", "left")

	// what isn't seen has no share
	c.say(map[string]any{"type": "view", "stream": "right", "width": 1280, "height": 720, "visible": false})
	play("high", "")
	if g.watched(t, "right") {
		t.Error("a hidden picture is read")
	}
}

// What a link carries that is too narrow for two pictures goes to the larger one: the
// other is paused, the viewer is told why, and it comes back when it is looked at.
func TestPictureThatALinkHasNoRoomForIsPaused(t *testing.T) {
	g := newGateway(t)
	for _, name := range []string{"left", "right"} {
		g.add(t, name, media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 640, Height: 360, FPS: 50, Bps: 800_000, MinBps: 800_000})
	}
	g.openPlan()
	c, p := g.dial(t), newNarrowTiles(t, 1_100_000) // one, not two
	c.say(map[string]any{"type": "join", "roomId": "house", "stream": "left", "version": 1, "view": map[string]any{"width": 1280, "height": 720, "visible": true}})
	p.negotiate(c, c.hear("offer"))
	c.say(map[string]any{"type": "watch", "stream": "right", "view": map[string]any{"width": 640, "height": 360, "visible": true}})
	paused := func(stream string) {
		t.Helper()
		p.within(6*patience, c, "the end of "+stream, func(m map[string]any) bool {
			return m["type"] == "rendition" && m["stream"] == stream && m["rendition"] == "" && m["reason"] == "the network has no room for it beside what is larger"
		})
	}
	paused("right")
	c.say(map[string]any{"type": "view", "stream": "right", "width": 1280, "height": 720, "visible": true})
	c.say(map[string]any{"type": "view", "stream": "left", "width": 640, "height": 360, "visible": true})
	seen := map[string]bool{}
	p.within(6*patience, c, "right instead of left", func(m map[string]any) bool {
		if m["type"] == "rendition" {
			seen[m["stream"].(string)+" "+m["rendition"].(string)] = true
		}
		return seen["right video"] && seen["left "]
	})
}

// A thumbnail begins with the small rendition: no large one is encoded for it.
func TestThumbnailBeginsSmall(t *testing.T) {
	g := newGateway(t)
	c, p := g.dial(t), newPeer(t)
	c.say(map[string]any{"type": "join", "roomId": "ladder", "version": 1, "codecs": map[string]any{"video": []string{"video/VP8"}},
		"view": map[string]any{"width": 160, "height": 90, "visible": true}})
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "auto")
	p.sees(video)
	for _, track := range g.streams["ladder"].Info().Tracks {
		if track.Name == "high" && track.Running {
			t.Error("the high rendition is encoded")
		}
	}
}
