package e2e

import (
	"context"
	"image/color"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/strip"
)

// browser is what both browsers do for a test.
type browser interface {
	Open(ctx context.Context, url string) (rig.Page, error)
}

func TestChromiumPlaysDesktop(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	playsAll(ctx, t, startChromium(ctx, t, rig.ChromiumOptions{}), "h264", "vp8", "vp9")
}

// Debian's Firefox has no H.264.
func TestFirefoxPlaysDesktop(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	b, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script})
	rig.Check(t, err)
	rig.End(t, "firefox", b.Close)
	playsAll(ctx, t, b, "vp8", "vp9")
}

// playsAll plays one desktop in each codec.
func playsAll(ctx context.Context, t *testing.T, b browser, codecs ...string) {
	display := paintedScreen(ctx, t)
	pipelines := make(map[string]string)
	for _, codec := range codecs {
		pipelines[codec] = desktopPipeline(display, codec)
	}
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: pipelines})
	for _, codec := range codecs {
		t.Run(codec, func(t *testing.T) {
			before, err := g.Metrics(ctx)
			rig.Check(t, err)
			plays(ctx, t, b, g, codec)
			tellsOfPackets(ctx, t, g, before)
			inSegments(ctx, t, g, before)
		})
	}
}

// tellsOfPackets waits until the gateway has been told ten times which packets
// arrived (transport-wide congestion control), all of it sound.
func tellsOfPackets(ctx context.Context, t *testing.T, g *rig.Gateway, before map[string]float64) {
	t.Helper()
	const received, refused = "gateway_rtc_transport_feedbacks_received_total", "gateway_rtc_transport_feedbacks_refused_total"
	rig.Check(t, rig.Until(ctx, "the browser to tell of packets", func() (bool, error) {
		m, err := g.Metrics(ctx)
		if n := m[refused] - before[refused]; n > 0 {
			t.Fatalf("%v feedback messages were refused", n)
		}
		return m[received]-before[received] >= 10, err
	}))
}

// inSegments checks that the kernel was given several packets in one message,
// unless it takes none.
func inSegments(ctx context.Context, t *testing.T, g *rig.Gateway, before map[string]float64) {
	t.Helper()
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	const gso, alone = `gateway_rtc_datagrams_sent_total{how="gso"}`, `gateway_rtc_datagrams_sent_total{how="alone"}`
	segments, messages := m[gso]-before[gso], m["gateway_rtc_gso_messages_total"]-before["gateway_rtc_gso_messages_total"]
	t.Logf("%v packets in %v messages that were cut up, %v alone", segments, messages, m[alone]-before[alone])
	if refused := m[`gateway_rtc_send_fallbacks_total{scope="socket",to="mmsg"}`]; refused == 0 && (messages == 0 || segments < 2*messages) {
		t.Errorf("%v packets went out in %v messages", segments, messages)
	}
}

// plays opens a stream's page and checks by its pixels that the picture is live
// and right.
func plays(ctx context.Context, t *testing.T, b browser, g *rig.Gateway, name string) {
	page, err := b.Open(ctx, g.URL("/watch/"+name))
	rig.Check(t, err)
	defer page.Close()
	live(ctx, t, page)
	shot, err := page.Screenshot(ctx)
	rig.Check(t, err)
	keep(t, name+".png", shot)
}

// live checks that a page's video shows the painted screen, now and in its own
// colours.
func live(ctx context.Context, t *testing.T, page rig.Page) {
	t.Helper()
	rig.Check(t, strip.WaitVideo(ctx, page))
	const count = 60
	frames, err := strip.Watch(ctx, page, strip.ReadOptions{ScreenWidth: screenWidth, Frames: count, Patches: true})
	rig.Check(t, err)
	var ages []float64
	times := make(map[float64]bool)
	for _, f := range frames {
		if f.Painted >= 0 {
			ages = append(ages, f.Seen)
			times[f.Painted] = true
		}
	}
	last := frames[len(frames)-1]
	t.Logf("%d frames of %dx%d, %d readable, %d distinct, age p50 %.0f ms, p95 %.0f ms", len(frames), last.Width, last.Height,
		len(ages), len(times), stat.Quantile(ages, 0.5), stat.Quantile(ages, 0.95))
	if last.Width != screenWidth || last.Height != screenHeight {
		t.Errorf("the video is %dx%d, the screen %dx%d", last.Width, last.Height, screenWidth, screenHeight)
	}
	// a frame that an encoder had few bits for may show a strip that can't be read, and is live all the same
	if len(ages) < count*3/4 || len(times) < count*2/3 {
		t.Errorf("of %d frames %d show a strip, %d different ones: the picture is not live", count, len(ages), len(times))
	}
	if p95 := stat.Quantile(ages, 0.95); p95 < 0 || p95 > 1000 {
		t.Errorf("the picture is %.0f ms old", p95)
	}
	for i, want := range strip.Patches {
		if got := last.Patches[i]; !near(got, want) {
			t.Errorf("patch %d is %v, painted %v", i, got, want)
		}
	}
}

// near allows for what encoding in 4:2:0 and limited range costs a flat patch,
// not for a wrong matrix (BT.601 for BT.709 is off by 20 and more) or range.
func near(got [3]int, want color.RGBA) bool {
	const most = 12
	for i, w := range []uint8{want.R, want.G, want.B} {
		if d := got[i] - int(w); d > most || d < -most {
			return false
		}
	}
	return true
}

// TestAbsentDesktopAppears opens the page of a display that isn't there: it says
// so in words, and plays once the X server has come.
func TestAbsentDesktopAppears(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	// a display number that is free: one that a server had a moment ago
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: screenWidth, Height: screenHeight})
	rig.Check(t, err)
	display := x.Display
	rig.Check(t, x.Close())

	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"desktop": desktopPipeline(display, "h264")}})
	rig.Check(t, g.WaitState(ctx, "desktop", "absent"))
	s, err := g.Stream(ctx, "desktop")
	rig.Check(t, err)
	if s.Reason == "" {
		t.Error("the stream doesn't say why it is absent")
	}
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, rig.WaitTrue(ctx, page, pageText+`.toLowerCase().includes(`+quote(strings.ToLower(s.Reason))+`)`))
	shot, err := page.Screenshot(ctx)
	rig.Check(t, err)
	keep(t, "absent.png", shot)

	x, err = rig.StartXvfb(ctx, rig.XOptions{Width: screenWidth, Height: screenHeight, Display: display})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	paint(ctx, t, display)
	begun := time.Now()
	live(ctx, t, page)
	t.Logf("live %s after the X server came", time.Since(begun).Round(time.Millisecond))
}

// TestDesktopThatDiesReturns ends the X server under a viewer: the page shows the last
// picture dimmed, as does who comes meanwhile, and plays the next one by itself on the
// same connection.
func TestDesktopThatDiesReturns(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: screenWidth, Height: screenHeight})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	painting, stop := context.WithCancel(ctx)
	p, err := strip.NewPainter(x.Display)
	rig.Check(t, err)
	done := make(chan error, 1)
	go func() { done <- p.Run(painting, 60) }()

	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"desktop": desktopPipeline(x.Display, "h264")}})
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer page.Close()
	live(ctx, t, page)
	var alive, away look
	rig.Check(t, page.Eval(ctx, lookAt, &alive))
	rig.Check(t, page.Eval(ctx, `void (window.first = document.querySelector('gateway-player').peerConnection)`, nil))

	stop()
	<-done
	p.Close()
	rig.Check(t, x.Close())
	rig.Check(t, rig.Until(ctx, "the stream to see it", func() (bool, error) {
		s, err := g.Stream(ctx, "desktop")
		return err == nil && s.State != "live", err
	}))
	late, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer late.Close()
	for _, p := range []rig.Page{page, late} {
		rig.Check(t, rig.Until(ctx, "the placeholder", func() (bool, error) {
			err := p.Eval(ctx, lookAt, &away)
			return away.Placeholder && away.Mean < 0.8*alive.Mean && away.Words > alive.Words, err
		}))
		t.Logf("alive %+v, away %+v", alive, away)
		shot, err := p.Screenshot(ctx)
		rig.Check(t, err)
		keep(t, "placeholder.png", shot)
	}
	again, err := rig.StartXvfb(ctx, rig.XOptions{Width: screenWidth, Height: screenHeight, Display: x.Display})
	rig.Check(t, err)
	rig.End(t, "Xvfb", again.Close)
	paint(ctx, t, x.Display)
	rig.Check(t, g.WaitState(ctx, "desktop", "live"))
	live(ctx, t, page)
	live(ctx, t, late)
	rig.Check(t, page.Eval(ctx, lookAt, &away))
	if away.Placeholder || !away.Same {
		t.Errorf("afterwards: %+v", away)
	}
}

// look is what is seen of a page's video.
type look struct {
	Placeholder bool    // the gateway says that it is one
	Mean        float64 // brightness, 0 to 255
	Words       float64 // pixels of the middle that are as bright as words, in percent
	Same        bool    // the connection is the first one
}

const lookAt = `(() => {
	const player = document.querySelector('gateway-player');
	const canvas = document.createElement('canvas'), width = canvas.width = 640, height = canvas.height = 360;
	const g = canvas.getContext('2d');
	g.drawImage(player.video, 0, 0, width, height);
	const sum = (y, rows, f) => g.getImageData(0, y, width, rows).data.reduce((s, v, i) => s + (i % 4 === 1 ? f(v) : 0), 0) / (width * rows);
	return {
		Placeholder: !!player.stream?.placeholder, Mean: sum(0, height, (v) => v), Words: 100 * sum(120, 120, (v) => v > 200),
		Same: player.peerConnection === window.first,
	};
})()`
