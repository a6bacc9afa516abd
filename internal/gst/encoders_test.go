package gst

import (
	"fmt"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// encoding is a feed that tests an encoder of the table, as a stream's file has it.
// Its picture has a good deal of noise.
func encoding(t *testing.T, row config.Encoder, bps int) *config.Feed {
	t.Helper()
	text := fmt.Sprintf("source: videotestsrc\nvideo: {codec: %s, encoder: %s, width: 320, height: 240, framerate: 30, bitrate: %d, keyframe_interval: 60s}\n",
		row.Codec, row.Name, bps)
	if row.Codec.Kind() == media.Audio {
		rate := ""
		if row.Bitrate.Property != "" {
			rate = fmt.Sprintf(", bitrate: %d", bps)
		}
		text = fmt.Sprintf("source: videotestsrc\nvideo: {}\naudio: {source: audiotestsrc is-live=true wave=pink-noise samplesperbuffer=480, codec: %s%s}\n", row.Codec, rate)
	}
	s, err := config.ParseStream("test", "test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := config.Compile(s, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	f := plan.Feeds[len(plan.Feeds)-1]
	if row.Codec.Kind() == media.Video {
		f.Capture = "videotestsrc is-live=true pattern=smpte horizontal-speed=7 ! video/x-raw,format=" + row.Format +
			",width=320,height=240,framerate=30/1,colorimetry=" + row.Colorimetry
	}
	return &f
}

// rate measures what a branch yields in bit/s over a time of capturing.
func rate(t *testing.T, s *split, id string, over time.Duration) int {
	t.Helper()
	bytes, first := 0, time.Duration(-1)
	for {
		b := s.next(t, id)
		at, size := b.Capture, b.Size()
		b.Release()
		if first < 0 {
			first = at
		}
		if at-first >= over {
			return int(float64(8*bytes) / (at - first).Seconds())
		}
		bytes += size
	}
}

// Every encoder of the table that is installed does what its row says.
func TestEncodersDoAsTheTableSays(t *testing.T) {
	for _, row := range (*config.Encoders)(nil).For("") {
		t.Run(row.Name, func(t *testing.T) {
			if !NewRegistry().Installed(row.Factory) {
				t.Skip("not installed: " + row.Factory + " (package " + row.Package + ")")
			}
			high, low := 1_000_000, 300_000
			if row.Codec.Kind() == media.Audio {
				high, low = 128_000, 32_000
			}
			f := encoding(t, row, high)
			b := f.Branches[0]
			p, s := capture(t, f)
			start(t, p, "it", &b)
			if _, _, key := s.frame(t, "it"); !key {
				t.Error("it doesn't begin with a keyframe")
			}
			first := s.next(t, "it")
			if timed := first.Encoding >= first.Capture && first.Encoded > first.Encoding && first.Arrived >= first.Encoded; timed != (row.Codec.Kind() == media.Video) {
				t.Errorf("captured at %v, encoded from %v to %v, arrived at %v", first.Capture, first.Encoding, first.Encoded, first.Arrived)
			}
			first.Release()
			holds := func(bps int) {
				t.Helper()
				if b.Bitrate.Property == "" {
					return
				}
				v, err := p.branches["it"].encoder.GetProperty(b.Bitrate.Property)
				if err != nil || fmt.Sprint(v) != b.Bitrate.Text(bps) {
					t.Errorf("%s is %v after it was set to %s (%v)", b.Bitrate.Property, v, b.Bitrate.Text(bps), err)
				}
			}
			holds(high)
			before := rate(t, s, "it", time.Second)

			if row.Codec.Kind() == media.Video {
				p.RequestKeyframe("it")
				for i := 0; ; i++ {
					if _, _, key := s.frame(t, "it"); key {
						t.Logf("a keyframe %d frames after the request", i+1)
						break
					}
					if i == 10 {
						t.Error("no keyframe among ten frames after the request")
						break
					}
				}
			}
			keys := 0
			for range 20 {
				if _, _, key := s.frame(t, "it"); key && row.Codec.Kind() == media.Video {
					keys++
				}
			}
			if keys > 3 { // by a property it may be more than one
				t.Errorf("%d more keyframes", keys)
			}
			if !row.Bitrate.Live {
				if err := p.SetBitrate("it", low, false); err == nil {
					t.Error("its bitrate was set while it runs")
				}
				return
			}
			if err := p.SetBitrate("it", low, false); err != nil {
				t.Fatal(err)
			}
			holds(low)
			rate(t, s, "it", 500*time.Millisecond)
			after := rate(t, s, "it", time.Second)
			t.Logf("asked for %d then %d bit/s, got %d then %d", high, low, before, after)
			if after > before*2/3 || after > low*3/2 {
				t.Errorf("asked for %d then %d bit/s, got %d then %d", high, low, before, after)
			}
		})
	}
}
