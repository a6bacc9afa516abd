package config

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
)

// gstreamer is the installed GStreamer, asked through its tools.
type gstreamer struct{}

func (gstreamer) Installed(factory string) bool {
	return exec.Command("gst-inspect-1.0", "--exists", factory).Run() == nil
}

func (gstreamer) Formats(string) ([]Format, error) { return []Format{anySize}, nil }

func (gstreamer) Blamed(string) error                          { return nil }
func (gstreamer) Try(Encoder, string, int, int, float64) error { return nil }

func needGStreamer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("gst-launch-1.0"); err != nil {
		t.Skip("gst-launch-1.0 is not installed (package gstreamer1.0-tools)")
	}
}

// launch runs a text to its end and returns what the elements wrote to stdout.
func launch(t *testing.T, text string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// a shell, because the text is promised to be fit for pasting into one
	cmd := exec.CommandContext(ctx, "bash", "-c", "exec gst-launch-1.0 -q "+text)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gst-launch-1.0: %v\n%s\n%s", err, text, stderr.String())
	}
	return out
}

// lossless is the text of a branch of the first feed, as fast as it can: all
// frames are wanted here, and a live queue may drop.
func lossless(p *Plan, branch int) string {
	text := p.Feeds[0].Text(p.Feeds[0].Branches[branch])
	return strings.NewReplacer("queue leaky=downstream", "queue", "is-live=true", "is-live=false").Replace(text)
}

// toStdout replaces a track's appsink, so that its RTP packets can be read here.
func toStdout(t *testing.T, text, track string) string {
	t.Helper()
	sink := SinkText(track)
	if !strings.Contains(text, sink) {
		t.Fatalf("no %q in %s", sink, text)
	}
	return strings.Replace(text, sink, "rtpstreampay ! fdsink sync=false", 1)
}

// packets splits RTP as rtpstreampay frames it (RFC 4571).
func packets(t *testing.T, b []byte) []*rtp.Packet {
	t.Helper()
	var ps []*rtp.Packet
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		if n > len(b)-2 {
			t.Fatal("RTP stream is cut")
		}
		p := &rtp.Packet{}
		if err := p.Unmarshal(b[2 : 2+n]); err != nil {
			t.Fatal(err)
		}
		ps, b = append(ps, p), b[2+n:]
	}
	return ps
}

// Every encoder that is installed makes every frame, keyframes where they were
// asked for, and what the plan promises in SDP.
func TestPlansRunInGStreamer(t *testing.T) {
	needGStreamer(t)
	const frames, every = 60, 20
	for _, row := range ownEncoders.rows {
		if row.Codec.Kind() != media.Video || row.Hardware {
			continue
		}
		profiles := row.Profiles
		if len(profiles) == 0 {
			profiles = []string{""}
		}
		for _, profile := range profiles {
			t.Run(row.Name+profile, func(t *testing.T) {
				text := "source: videotestsrc num-buffers=60 horizontal-speed=2\nvideo:\n  codec: " + string(row.Codec) + "\n  encoder: " + row.Name +
					"\n  width: 320\n  height: 180\n  framerate: 20\n  bitrate: 500k\n  keyframe_interval: 1s\n"
				if profile != "" {
					text += "  profile: " + profile + "\n"
				}
				if gone := row.missing(gstreamer{}); len(gone) > 0 {
					t.Skipf("not installed: %v", gone)
				}
				p, err := Compile(stream(t, "run", text), gstreamer{})
				if err != nil {
					t.Fatal(err)
				}
				text = lossless(p, 0)
				if row.Payloader == "" {
					out := launch(t, strings.Replace(text, SinkText("video"), "fdsink sync=false", 1))
					if units := temporalUnits(t, out); units != frames {
						t.Errorf("%d temporal units of %d frames", units, frames)
					}
					return
				}
				got, keys := 0, []int{}
				started, key := uint32(0), false
				for i, pkt := range packets(t, launch(t, toStdout(t, text, "video"))) {
					if i == 0 || pkt.Timestamp != started {
						started, key = pkt.Timestamp, false
						got++
					}
					if media.Keyframe(row.Codec, pkt.Payload) && !key {
						key = true
						keys = append(keys, got-1)
					}
					if len(pkt.Payload) > 1200 {
						t.Errorf("a payload of %d bytes", len(pkt.Payload))
					}
					if nal := media.H264SPS(pkt.Payload); row.Codec == media.H264 && nal != nil {
						sps, err := media.ParseSPS(nal)
						if err != nil || sps.Width != 320 || sps.Height != 180 {
							t.Fatalf("SPS %x: %+v, %v", nal, sps, err)
						}
						fmtp := p.Tracks()[0].Fmtp
						promised := fmtp[len(fmtp)-6:]
						if id := sps.ProfileLevelID(); id[:2] != promised[:2] || id[4:] > promised[4:] {
							t.Errorf("the SPS says %s, SDP promises %s", id, promised)
						}
					}
				}
				if got != frames {
					t.Errorf("%d frames came out, %d went in", got, frames)
				}
				if len(keys) != frames/every || keys[0] != 0 || keys[1] != every {
					t.Errorf("keyframes at %v, want every %d frames", keys, every)
				}
			})
		}
	}
}

// temporalUnits counts the temporal delimiters in an AV1 OBU stream (AV1
// specification §5.3).
func temporalUnits(t *testing.T, b []byte) int {
	t.Helper()
	n := 0
	for len(b) > 0 {
		kind, head := b[0]>>3&0x0f, 1
		if b[0]&0x04 != 0 {
			head++
		}
		size, used := binary.Uvarint(b[head:]) // leb128 is Go's varint
		if b[0]&0x02 == 0 || used <= 0 || int(size) > len(b)-head-used {
			t.Fatal("not an OBU stream")
		}
		if kind == 2 {
			n++
		}
		b = b[head+used+int(size):]
	}
	return n
}

func TestAudioPlanRunsInGStreamer(t *testing.T) {
	needGStreamer(t)
	p, err := Compile(stream(t, "run", "audio: {source: audiotestsrc num-buffers=100 samplesperbuffer=480}"), gstreamer{})
	if err != nil {
		t.Fatal(err)
	}
	ps := packets(t, launch(t, toStdout(t, lossless(p, 0), "audio")))
	if len(ps) < 49 || len(ps) > 52 {
		t.Errorf("%d packets of 20 ms for one second", len(ps))
	}
	// the first packet is shorter by the encoder's lookahead (RFC 7845 §4.2, pre-skip)
	for i := 2; i < len(ps); i++ {
		if d := ps[i].Timestamp - ps[i-1].Timestamp; d != 960 {
			t.Fatalf("packet %d comes %d samples after the one before it, want 960", i, d)
		}
	}
}

// A value that holds launch syntax, or a shell's, stays a value.
func TestOptionsCannotLeaveTheirValue(t *testing.T) {
	needGStreamer(t)
	t.Chdir(t.TempDir())
	value := "a\"b ! fakesink \\ c='d $(touch owned) `touch owned`"
	s := stream(t, "run", "source: videotestsrc num-buffers=2\nvideo: {codec: vp8, width: 320, height: 180, options: {multipass-cache-file: "+strconv.Quote(value)+"}}")
	p, err := Compile(s, gstreamer{})
	if err != nil {
		t.Fatal(err)
	}
	branch := p.Feeds[0].Branches[0].WithBitrate(300_000)
	nodes, err := ParseLaunch(branch.Launch)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := nodes[0].Prop("multipass-cache-file"); got != value || len(nodes) != 2 {
		t.Errorf("the value became %q in %s", got, branch.Launch)
	}
	// gst-launch-1.0 itself puts its arguments together without the quotes: none of those here
	text := strings.NewReplacer(SinkText("video"), "fakesink", `a\"b`, "ab", "c='d", "c=d").Replace(lossless(p, 0))
	launch(t, text)
	if _, err := os.Stat("owned"); err == nil {
		t.Error("a shell ran what the value says")
	}
}

// frames counts the frames of a track in RTP packets, and those that begin with a
// keyframe.
func frames(t *testing.T, codec media.Codec, ps []*rtp.Packet) (n, keys int) {
	t.Helper()
	key := false
	for i, p := range ps {
		if i == 0 || p.Timestamp != ps[i-1].Timestamp {
			n, key = n+1, false
		}
		if media.Keyframe(codec, p.Payload) && !key {
			keys, key = keys+1, true
		}
	}
	return n, keys
}

// Every branch of a ladder yields what its track says, alone.
func TestLadderRunsInGStreamer(t *testing.T) {
	needGStreamer(t)
	p, err := Compile(stream(t, "run", `
source: videotestsrc num-buffers=60 horizontal-speed=2
video:
  framerate: 30
  renditions:
    - {name: high, width: 640, height: 360}
    - {name: slow, width: 640, height: 360, framerate: 10}
    - {name: low, width: 320, height: 180, framerate: 15}
    - {name: vp8, codec: vp8, width: 320, height: 180}
`), gstreamer{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{60, 20, 30, 60} {
		track := p.Feeds[0].Branches[i].Track
		ps := packets(t, launch(t, toStdout(t, lossless(p, i), track.Name)))
		n, keys := frames(t, track.Codec, ps)
		if n != want || keys < 1 || !media.Keyframe(track.Codec, ps[0].Payload) { // x264 adds some where the scene changes
			t.Errorf("%s: %d frames, %d of them keyframes; want %d, the first one at least", track.Name, n, keys, want)
		}
		if nal := media.H264SPS(ps[0].Payload); track.Codec == media.H264 {
			if sps, err := media.ParseSPS(nal); err != nil || sps.Width != track.Width || sps.Height != track.Height {
				t.Errorf("%s: %+v, %v", track.Name, sps, err)
			}
		}
	}
}

// A file is decoded, or passed on as it is; what came over the network likewise.
func TestSourcesRunInGStreamer(t *testing.T) {
	needGStreamer(t)
	t.Chdir(t.TempDir())
	for _, element := range []string{"x264enc", "mp4mux", "avdec_h264", "rtph264depay"} {
		if !(gstreamer{}).Installed(element) {
			t.Skip("not installed: " + element)
		}
	}
	launch(t, "videotestsrc num-buffers=30 ! video/x-raw,width=320,height=180,framerate=30/1 ! x264enc bframes=0 key-int-max=10 ! video/x-h264,profile=baseline ! mp4mux name=mux ! filesink location=clip.mp4 "+
		"audiotestsrc num-buffers=44 ! audio/x-raw,rate=44100 ! audioresample ! opusenc ! mux.")
	fast := strings.NewReplacer(" ! clocksync", "") // as fast as it can
	for text, want := range map[string]struct{ frames, keys int }{
		"source: filesrc location=clip.mp4\nvideo: {codec: vp8, width: 160, height: 90, framerate: 30}": {30, 1},
		"source: filesrc location=clip.mp4\nvideo: {encoder: copy, codec: h264}":                        {30, 3},
		"source: uridecodebin uri=file://" + mustAbs(t, "clip.mp4") + "\nvideo: {codec: vp8}":           {30, 1},
	} {
		p, err := Compile(stream(t, "run", text), fileRegistry{})
		if err != nil {
			t.Fatal(err)
		}
		b := p.Feeds[0].Branches[0]
		n, keys := frames(t, b.Track.Codec, packets(t, launch(t, toStdout(t, fast.Replace(lossless(p, 0)), "video"))))
		if n != want.frames || keys != want.keys {
			t.Errorf("%s: %d frames, %d keyframes; want %+v", text, n, keys, want)
		}
	}
	for _, codec := range []string{"opus", "pcmu", "pcma"} {
		p, err := Compile(stream(t, "run", "audio: {source: filesrc location=clip.mp4, codec: "+codec+"}"), fileRegistry{})
		if err != nil {
			t.Fatal(err)
		}
		ps := packets(t, launch(t, toStdout(t, fast.Replace(lossless(p, 0)), "audio")))
		if len(ps) < 49 || len(ps) > 54 {
			t.Errorf("%s: %d packets of 20 ms for 1.02 s", codec, len(ps))
		}
	}
}

// fileRegistry is gstreamer for sources whose formats can't be asked.
type fileRegistry struct{ gstreamer }

func (fileRegistry) Formats(string) ([]Format, error) { return nil, nil }

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// An RTP sender on the network: copied as it is, and encoded anew.
func TestPacketsFromTheNetworkRunInGStreamer(t *testing.T) {
	needGStreamer(t)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port)
	conn.Close()
	ctx, stop := context.WithCancel(t.Context())
	sender := exec.CommandContext(ctx, "bash", "-c", "exec gst-launch-1.0 -q videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! x264enc tune=zerolatency key-int-max=10 ! h264parse config-interval=-1 ! rtph264pay ! udpsink host=127.0.0.1 port="+port)
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	defer sender.Wait()
	defer stop()
	source := "udpsrc num-buffers=150 port=" + port + ` caps=\"application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000\"`
	for _, video := range []string{"{encoder: copy}", "{codec: vp8}"} {
		p, err := Compile(stream(t, "run", "source: \""+source+"\"\nvideo: "+video), fileRegistry{})
		if err != nil {
			t.Fatal(err)
		}
		b := p.Feeds[0].Branches[0]
		if n, keys := frames(t, b.Track.Codec, packets(t, launch(t, toStdout(t, lossless(p, 0), "video")))); n < 10 || keys < 1 {
			t.Errorf("%s: %d frames, %d keyframes", video, n, keys)
		}
	}
}
