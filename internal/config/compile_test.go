package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gateway/internal/media"
)

var update = flag.Bool("update", false, "write the golden launch texts")

// boxRegistry stands for a machine with certain elements and devices.
type boxRegistry struct {
	missing []string            // factories that are not installed
	formats map[string][]Format // by source element text, or its factory
	absent  map[string]error
}

func (r boxRegistry) Installed(factory string) bool { return !slices.Contains(r.missing, factory) }

func (r boxRegistry) Formats(source string) ([]Format, error) {
	for _, k := range []string{source, firstWord(source)} {
		if err := r.absent[k]; err != nil {
			return nil, err
		}
		if f, ok := r.formats[k]; ok {
			return f, nil
		}
	}
	return nil, nil
}

func raw(w, h int, fps float64) Format  { return sized("video/x-raw", w, h, fps) }
func jpeg(w, h int, fps float64) Format { return sized("image/jpeg", w, h, fps) }
func sized(kind string, w, h int, fps float64) Format {
	return Format{MediaType: kind, MinWidth: w, MaxWidth: w, MinHeight: h, MaxHeight: h, MaxFPS: fps}
}

var anySize = Format{MediaType: "video/x-raw", MinWidth: 1, MaxWidth: 1<<31 - 1, MinHeight: 1, MaxHeight: 1<<31 - 1, MaxFPS: 1<<31 - 1}

// box is a machine with a 1080p screen and a camera that has 720p30 as JPEG only.
var box = boxRegistry{formats: map[string][]Format{
	"videotestsrc": {anySize},
	"ximagesrc":    {{MediaType: "video/x-raw", MinWidth: 1920, MaxWidth: 1920, MinHeight: 1080, MaxHeight: 1080, MaxFPS: 1<<31 - 1}},
	"v4l2src":      {raw(1280, 720, 10), raw(640, 480, 30), jpeg(1920, 1080, 30), jpeg(1280, 720, 30)},
}}

func stream(t *testing.T, name, text string) *Stream {
	t.Helper()
	s, err := ParseStream(name, name+".yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLaunchTextsAreAsReviewed(t *testing.T) {
	cases := map[string]string{
		"vp8":           "source: videotestsrc is-live=true\nvideo: {codec: vp8, width: 640, height: 360, framerate: 15, bitrate: 800k, keyframe_interval: 10s}",
		"vp9":           "source: videotestsrc is-live=true\nvideo: {codec: vp9, width: 640, height: 360}",
		"av1":           "source: videotestsrc is-live=true\nvideo: {codec: av1, width: 640, height: 360}",
		"openh264":      "source: videotestsrc is-live=true\nvideo: {encoder: openh264enc, profile: main, width: 640, height: 360}",
		"options":       "source: videotestsrc is-live=true\nvideo: {options: {speed-preset: veryfast, noise-reduction: 100, option-string: \"scenecut=0 ! filesink\"}}",
		"source-size":   "source: ximagesrc\nvideo: {}",
		"unknown":       "source: rtspsrc location=rtsp://camera/ ! decodebin\nvideo: {framerate: 25, width: 640, height: 360}",
		"own-caps":      "source: v4l2src ! image/jpeg,width=1280,height=720,framerate=60/1\nvideo: {framerate: 30}",
		"audio-only":    "audio: {source: pulsesrc, bitrate: 48k, channels: 1}",
		"camera-25":     "source: v4l2src\nvideo: {width: 640, height: 480, framerate: 25}",
		"camera-flip":   "source: v4l2src device=/dev/video0 ! videoflip method=clockwise\nvideo: {width: 1280, height: 720}",
		"launch-minded": "launch: videotestsrc ! vp8enc target-bitrate=500000 ! rtpvp8pay ! appsink name=video drop=false pulsesrc ! opusenc ! rtpopuspay ! appsink name=audio",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) { golden(t, name, stream(t, name, text)) })
	}
	shipped, err := LoadStreams("../../pipelines")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shipped {
		t.Run("shipped-"+s.Name, func(t *testing.T) { golden(t, "shipped-"+s.Name, s) })
	}
}

func golden(t *testing.T, name string, s *Stream) {
	p, err := compile(s, box, 2)
	if err != nil {
		t.Fatal(err)
	}
	got := describePlan(p)
	path := filepath.Join("testdata", "plans", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("plan differs from %s (go test -update writes it anew):\n got %s\nwant %s", path, got, want)
	}
}

func describePlan(p *Plan) string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(p.Launch, " ! ", "\n  ! ") + "\n")
	for _, t := range p.Tracks {
		b.WriteString("\ntrack " + strings.Join([]string{
			t.Name, string(t.Codec), "size " + sizeText(t), "fps " + fraction(t.FPS), FormatBitrate(t.Bps), "encoder " + p.Encoder[t.Name], t.Fmtp}, ", "))
	}
	for _, s := range p.Sources {
		b.WriteString("\nsource " + s)
	}
	for _, n := range p.Notes {
		b.WriteString("\nnote " + n)
	}
	return b.String() + "\n"
}

func sizeText(t media.Track) string {
	if t.Width == 0 {
		return "unknown"
	}
	return strconv.Itoa(t.Width) + "x" + strconv.Itoa(t.Height)
}

func TestAbsentSourceIsToldApartFromAMistake(t *testing.T) {
	gone := errors.New("no such device")
	for name, text := range map[string]string{
		"everyday":       "source: v4l2src device=/dev/video7\nvideo: {}",
		"with own caps":  "source: v4l2src device=/dev/video7 ! video/x-raw,width=640\nvideo: {}",
		"audio":          "audio: {source: v4l2src device=/dev/video7}",
		"launch":         "launch: v4l2src device=/dev/video7 ! x264enc ! rtph264pay ! appsink name=video",
		"second of both": "source: videotestsrc\nvideo: {}\naudio: {source: v4l2src device=/dev/video7}",
	} {
		_, err := Compile(stream(t, "cam", text), boxRegistry{absent: map[string]error{"v4l2src": gone}})
		var absent *AbsentError
		if !errors.As(err, &absent) || absent.Source != "v4l2src device=/dev/video7" || !errors.Is(err, gone) || !errors.Is(err, media.ErrAbsent) {
			t.Errorf("%s: error is %v, want an AbsentError for the device", name, err)
		}
		if err != nil && err.Error() != gone.Error() {
			t.Errorf("%s: people read %q", name, err)
		}
	}
}
