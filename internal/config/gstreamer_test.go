package config

import (
	"context"
	"encoding/binary"
	"os/exec"
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

// toStdout replaces a track's appsink, so that its RTP packets can be read here.
func toStdout(t *testing.T, text, track string) string {
	t.Helper()
	sink := sinkText(track)
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
	for _, row := range Encoders("") {
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
				// all frames are wanted here; a live queue may drop
				text = strings.Replace(p.Launch, "queue leaky=downstream", "queue", 1)
				if row.Payloader == "" {
					out := launch(t, strings.Replace(text, sinkText("video"), "fdsink sync=false", 1))
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
						promised := p.Tracks[0].Fmtp[len(p.Tracks[0].Fmtp)-6:]
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
	ps := packets(t, launch(t, toStdout(t, strings.Replace(p.Launch, "queue leaky=downstream", "queue", 1), "audio")))
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

// A value that holds launch syntax stays a value.
func TestOptionsCannotLeaveTheirValue(t *testing.T) {
	needGStreamer(t)
	s := stream(t, "run", `
source: videotestsrc num-buffers=2
video:
  codec: vp8
  width: 320
  height: 180
  options: {multipass-cache-file: "a\"b ! fakesink \\ c='d"}
`)
	p, err := Compile(s, gstreamer{})
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := parseLaunch(p.Launch)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.name == "fakesink" {
			t.Errorf("the value became an element: %s", p.Launch)
		}
	}
}
