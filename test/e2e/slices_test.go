package e2e

import (
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

// slicedPipeline is encoded in two threads, so in two slices a frame, of which all
// parts move: most frames have packets that are padded to one size.
const slicedPipeline = `title: Sliced
source: videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=1
video:
  codec: h264
  width: 640
  height: 360
  framerate: 30
  bitrate: 1500k
  options: {threads: 2}
audio:
  source: audiotestsrc is-live=true wave=ticks
  codec: opus
`

// TestPaddedSlicesPlayEverywhere has makes of receivers that share no code read packets
// with RTP padding, which is no part of the picture.
func TestPaddedSlicesPlayEverywhere(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"sliced": slicedPipeline}})
	t.Run("chromium", func(t *testing.T) {
		b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script})
		rig.Check(t, err)
		rig.End(t, "chromium", b.Close)
		before, err := g.Metrics(ctx)
		rig.Check(t, err)
		page, err := b.Open(ctx, g.URL("/watch/sliced"))
		rig.Check(t, err)
		defer page.Close()
		rig.Check(t, strip.WaitVideo(ctx, page))
		goesOn(ctx, t, page, 90)
		r := receivedBy(ctx, t, page)
		m, err := g.Metrics(ctx)
		rig.Check(t, err)
		since := func(name string) float64 { return m[name] - before[name] }
		segments, messages := since(`gateway_rtc_datagrams_sent_total{how="gso"}`), since("gateway_rtc_gso_messages_total")
		t.Logf("%+v; %v packets in %v messages", r, segments, messages)
		if r.Video.Packets < 3*r.Video.Frames || messages > 1.7*r.Video.Frames {
			t.Errorf("%v frames went out in %v messages", r.Video.Frames, messages)
		}
		if plis := since("gateway_rtc_plis_received_total"); plis > 2 { // one to begin with
			t.Errorf("Chromium asked for %v keyframes: it can't read what it gets", plis)
		}
	})
	for _, c := range []struct {
		name, needs, remedy, want string
		args                      []string
	}{
		{"aiortc", "import aiortc", "apt-get install python3-aiortc", `{"left": 200}`, []string{"whep_aiortc.py", g.URL("/whep/sliced"), "60", "640"}},
		{"webrtcbin", "import gi; gi.require_version('GstWebRTC', '1.0')", "apt-get install python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice",
			`{"frames": 60, "left": 200}`, []string{"whep_webrtcbin.py", g.URL("/whep/sliced"), "60", "H264"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			otherMake(ctx, t, c.name, c.needs, c.remedy, c.want, c.args)
		})
	}
}
