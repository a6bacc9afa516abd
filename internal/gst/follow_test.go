package gst

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-gst/go-gst/gst"
	"github.com/go-gst/go-gst/gst/app"
	"github.com/pion/rtp"

	"gateway/internal/config"
	"gateway/internal/media"
)

// noisy is what the encoders' following is measured with: a moving pattern under
// noise of 3.7 of 255 (standard deviation), as cameras have in a dim room. It runs as
// fast as the encoder takes it, so that what comes out is the same on any machine. It has
// 25 frames a second for av1enc's sake, whose row tells why.
const noisy = "videotestsrc pattern=zone-plate kx2=20 ky2=20 kt=1 ! video/x-raw,format=I420,width=640,height=360,framerate=25/1 ! mix.sink_0" +
	" videotestsrc pattern=snow ! video/x-raw,format=I420,width=640,height=360,framerate=25/1 ! mix.sink_1" +
	" compositor name=mix background=black sink_1::alpha=0.05 ! video/x-raw,format=I420,width=640,height=360,framerate=25/1,colorimetry=%s" +
	" ! %s ! appsink name=out sync=false max-buffers=1 drop=false buffer-list=false"

// shot is a frame of an encoder.
type shot struct {
	at   time.Duration // PTS
	size int           // bytes of payload
	key  bool
}

// studio encodes the noisy picture by a row of the table, frame by frame.
type studio struct {
	t      *testing.T
	branch config.Branch
	graph  *graph
	coder  *gst.Element
	out    *app.Sink
	next   shot // read already
}

func newStudio(t *testing.T, row config.Encoder, bps int) *studio {
	t.Helper()
	Init()
	text := fmt.Sprintf("source: videotestsrc\nvideo: {codec: %s, encoder: %s, width: 640, height: 360, framerate: 25, bitrate: %d, keyframe_interval: 60s}\n", row.Codec, row.Name, bps)
	s, err := config.ParseStream("test", "test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := config.Compile(s, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	st := &studio{t: t, branch: plan.Feeds[0].Branches[0], graph: &graph{}}
	launch := st.branch.Launch[strings.LastIndex(st.branch.Launch[:strings.Index(st.branch.Launch, row.Factory+" ")], "!")+1:]
	if err := st.graph.parse(fmt.Sprintf(noisy, row.Colorimetry, launch)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.graph.close() })
	if st.coder, err = st.graph.named(st.branch.Element); err != nil {
		t.Fatal(err)
	}
	out, err := st.graph.named("out")
	if err != nil {
		t.Fatal(err)
	}
	st.out = app.SinkFromElement(out)
	if _, err := st.graph.changeState(gst.StatePlaying); err != nil {
		t.Fatal(err)
	}
	st.next = st.pull()
	return st
}

// pull takes what the appsink has next: a packet, or a whole frame of AV1.
func (st *studio) pull() shot {
	st.t.Helper()
	sample := st.out.TryPullSample(gst.ClockTime(30 * time.Second))
	if sample == nil {
		st.t.Fatal("nothing comes")
	}
	b := sample.GetBuffer()
	data := b.Bytes()
	got := shot{at: time.Duration(b.PresentationTimestamp()), size: len(data)}
	if st.branch.Track.Codec == media.AV1 {
		got.key = !b.HasFlags(gst.BufferFlagDeltaUnit)
		return got
	}
	var p rtp.Packet
	if err := p.Unmarshal(data); err != nil {
		st.t.Fatal(err)
	}
	got.size, got.key = len(p.Payload), media.Keyframe(st.branch.Track.Codec, p.Payload)
	return got
}

// shots are the next frames, over a time of the picture.
func (st *studio) shots(over time.Duration) (all []shot) {
	st.t.Helper()
	for {
		f := st.next
		for st.next = st.pull(); st.next.at == f.at; st.next = st.pull() {
			f.size, f.key = f.size+st.next.size, f.key || st.next.key
		}
		if all = append(all, f); f.at-all[0].at >= over {
			return all
		}
	}
}

func (st *studio) set(bps int) {
	st.t.Helper()
	if err := setText(st.coder, st.branch.Bitrate.Property, st.branch.Bitrate.Text(bps)); err != nil {
		st.t.Fatal(err)
	}
}

// bitrate is that of frames in bit/s.
func bitrate(all []shot) int {
	bytes := 0
	for _, f := range all[:len(all)-1] {
		bytes += f.size
	}
	return int(float64(8*bytes) / (all[len(all)-1].at - all[0].at).Seconds())
}

// after are the frames from that long after the first on.
func after(all []shot, d time.Duration) []shot {
	return all[slices.IndexFunc(all, func(f shot) bool { return f.at-all[0].at >= d }):]
}

// fits is how long it took until half a second of frames, and all that came after it,
// were within a tenth of a bitrate; -1: never.
func fits(all []shot, bps int) time.Duration {
	fit := time.Duration(-1)
	for i := range all {
		j := i + slices.IndexFunc(all[i:], func(f shot) bool { return f.at-all[i].at >= time.Second/2 })
		switch {
		case j < i:
			return fit
		case bitrate(all[i:j+1]) > bps*11/10:
			fit = -1
		case fit < 0:
			fit = all[i].at - all[0].at
		}
	}
	return fit
}

// peak is the largest frame, compared with what one of 25 a second may have.
func peak(all []shot, bps int) float64 {
	largest := 0
	for _, f := range all {
		largest = max(largest, f.size)
	}
	return float64(8*25*largest) / float64(bps)
}

func keyframes(all []shot) (n int) {
	for _, f := range all {
		if f.key {
			n++
		}
	}
	return n
}

// The software encoders follow a bitrate to 0.3 of what they started at and back
// without making keyframes of it, and make no frame that holds up a slow link for long.
func TestEncodersFollowABitrate(t *testing.T) {
	const high, low = 1_000_000, 300_000
	for _, name := range []string{"x264enc", "openh264enc", "vp8enc", "vp9enc", "av1enc"} {
		t.Run(name, func(t *testing.T) {
			row, _ := (*config.Encoders)(nil).Find(name)
			if !NewRegistry().Installed(row.Factory) {
				t.Skip("not installed: " + row.Factory + " (package " + row.Package + ")")
			}
			st := newStudio(t, row, high)
			st.shots(time.Second)
			before := st.shots(time.Second)
			st.set(low)
			st.shots(0) // those that were on their way
			st.shots(0)
			down := st.shots(2500 * time.Millisecond)
			st.out.SendEvent(forceKey())
			keyed := st.shots(time.Second)
			st.set(high)
			up := st.shots(2 * time.Second)

			fit := fits(down, low).Round(10 * time.Millisecond).String()
			if fits(down, low) < 0 {
				fit = "never"
			}
			late := after(down, time.Second)
			t.Logf("%-11s %4dk; to %dk: fits after %5s, largest frame %.1f; then %3dk (%4.1f frames/s), largest frame %.1f, keyframe %.1f; back: after 1 s %4dk",
				name, bitrate(before)/1000, low/1000, fit, peak(down, low), bitrate(late)/1000,
				float64(len(late)-1)/(late[len(late)-1].at-late[0].at).Seconds(), peak(late, low), peak(keyed, low), bitrate(after(up, time.Second))/1000)
			if n := keyframes(before) + keyframes(down) + keyframes(up); n > 0 {
				t.Errorf("%d keyframes that nobody asked for", n)
			}
			if got := bitrate(late); got > low*5/4 { // vp8enc's buffer makes up for what it was short of
				t.Errorf("%d bit/s a second after it was set to %d", got, low)
			}
		})
	}
}

// forceKey is an upstream request for a keyframe.
func forceKey() *gst.Event {
	s := gst.NewStructureFromString("GstForceKeyUnit, all-headers=(boolean)true")
	return gst.NewCustomEvent(gst.EventTypeCustomUpstream, s)
}

// A bitrate that is a field of a structure is set as that field alone: what else was
// set has been passed on to the driver already.
func TestBitrateInAStructureIsSet(t *testing.T) {
	Init()
	e, err := gst.NewElement("v4l2src") // the encoder needs hardware; its controls are a structure likewise
	if err != nil {
		t.Skip("not installed: v4l2src (package gstreamer1.0-plugins-good)")
	}
	row, _ := (*config.Encoders)(nil).Find("v4l2h264enc")
	if err := setText(e, row.Bitrate.Property, row.Bitrate.Setting(400_000)); err != nil {
		t.Fatal(err)
	}
	v, err := e.GetProperty(row.Bitrate.Property)
	if err != nil {
		t.Fatal(err)
	}
	if got := v.(*gst.Structure).String(); !strings.Contains(got, "video_bitrate=(int)400000") {
		t.Errorf("it holds %s", got)
	}
}
