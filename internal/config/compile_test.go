package config

import (
	"errors"
	"flag"
	"fmt"
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
	broken  map[string]error // rows that don't work
	tried   *[]string
}

// noHardware is what a machine without any lacks.
var noHardware = func() []string {
	var gone []string
	for _, row := range ownEncoders.rows {
		if row.Hardware {
			gone = append(gone, row.Factory)
		}
	}
	return slices.Clip(gone)
}()

func (r boxRegistry) Installed(factory string) bool { return !slices.Contains(r.missing, factory) }

func (r boxRegistry) Blamed(string) error { return nil }

func (r boxRegistry) Try(row Encoder, launch string, width, height int, fps float64) error {
	if r.tried != nil {
		*r.tried = append(*r.tried, fmt.Sprintf("%s %dx%d %.4g: %s", row.Name, width, height, fps, launch))
	}
	return r.broken[row.Name]
}

func (r boxRegistry) Formats(source string) ([]Format, error) {
	for _, k := range []string{source, strings.Fields(source)[0]} {
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
var box = boxRegistry{missing: noHardware, formats: map[string][]Format{
	"videotestsrc":             {anySize},
	"ximagesrc":                {{MediaType: "video/x-raw", MinWidth: 1920, MaxWidth: 1920, MinHeight: 1080, MaxHeight: 1080, MaxFPS: 1<<31 - 1}},
	"v4l2src device=/dev/h264": {raw(1280, 720, 10), sized("video/x-h264", 1280, 720, 30), sized("video/x-h264", 640, 480, 30)},
	"v4l2src":                  {raw(1280, 720, 10), raw(640, 480, 30), jpeg(1920, 1080, 30), jpeg(1280, 720, 30)},
}}

func stream(t *testing.T, name, text string) *Stream {
	t.Helper()
	s, err := ParseStream(name, name+".yaml", []byte(text), nil)
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
	ladder := "source: ximagesrc\nvideo:\n  framerate: 30\n  renditions:\n    - {name: high, width: 1280, height: 720}\n    - {name: low, width: 640, height: 360, framerate: 15}\n"
	for name, text := range map[string]string{
		"ladder":          ladder + "    - {name: vp8, codec: vp8, width: 640, height: 360}\n",
		"ladder-same":     "source: videotestsrc\nvideo: {width: 640, height: 360, renditions: [{name: good, bitrate: 1M}, {name: poor, bitrate: 200k}]}",
		"ladder-shapes":   ladder + "    - {name: square, width: 480, height: 480}\n",
		"ladder-source":   "source: ximagesrc\nvideo: {renditions: [{name: full}, {name: low, width: 640, height: 360}]}",
		"ladder-unknown":  "source: rtspsrc location=rtsp://camera/\nvideo: {renditions: [{name: full}, {name: low, width: 640, height: 360, framerate: 5}]}",
		"copy-camera":     "source: v4l2src device=/dev/h264\nvideo: {encoder: copy, width: 1280, height: 720}",
		"copy-other-size": "source: v4l2src device=/dev/h264\nvideo: {encoder: copy, width: 1920, height: 1080}",
		"copy-and-encode": "source: rtspsrc location=rtsp://camera/ protocols=udp\nvideo: {renditions: [{name: full, encoder: copy}, {name: low, codec: vp8, width: 640, height: 360}]}",
		"copy-own-caps":   "source: v4l2src device=/dev/h264 ! video/x-h264,width=640,height=480\nvideo: {encoder: copy}",
		"file":            "source: filesrc location=clip.mp4\nvideo: {width: 640, height: 360}\naudio: {source: filesrc location=clip.mp4, codec: pcma}",
		"file-copy":       "source: filesrc location=clip.webm\nloop: false\nvideo: {encoder: copy, codec: vp9}",
		"udp":             "source: udpsrc port=5000 ! application/x-rtp,media=video,encoding-name=H264\nvideo: {}",
		"pi-camera":       "source: libcamerasrc\nvideo: {width: 1280, height: 720}",
		"portal-sound":    "audio: {source: pipewiresrc, codec: pcmu}",
		"portal":          "source: pipewiresrc path=42\nvideo: {}\naudio: {source: alsasrc device=hw:1, dtx: true, fec: false}",
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, stream(t, name, text)) })
	}
	everything := box
	everything.missing = nil
	for name, text := range map[string]string{
		"va":         "source: ximagesrc\nvideo: {encoder: vah264enc, width: 1280, height: 720, framerate: 25}",
		"va-and-vp8": "source: ximagesrc\nvideo: {width: 1280, height: 720, renditions: [{name: high, encoder: vah264enc}, {name: firefox, encoder: vp8enc, framerate: 15}]}",
		"cuda":       "source: v4l2src\nvideo: {encoder: nvcudah264enc, width: 1280, height: 720}",
		"raspberry":  "source: libcamerasrc\nvideo: {encoder: v4l2h264enc, width: 1280, height: 720, options: {capture-io-mode: 4}}",
		"jetson":     "source: nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1\nvideo: {encoder: nvv4l2h264enc, width: 1280, height: 720}",
	} {
		t.Run(name, func(t *testing.T) { goldenOn(t, everything, name, stream(t, name, text)) })
	}
	shipped, err := readFolder("../../pipelines")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range shipped {
		s, err := f.Parse(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("shipped-"+s.Name, func(t *testing.T) { golden(t, "shipped-"+s.Name, s) })
	}
}

func golden(t *testing.T, name string, s *Stream) {
	t.Helper()
	goldenOn(t, box, name, s)
}

func goldenOn(t *testing.T, r Registry, name string, s *Stream) {
	t.Helper()
	p, err := compile(s, r, 2)
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
	lines := func(title, text string) {
		b.WriteString(title + "\n  " + strings.ReplaceAll(text, " ! ", "\n  ! ") + "\n\n")
	}
	for _, f := range p.Feeds {
		lines("feed "+f.Name, f.Capture)
		for _, br := range f.Branches {
			t := br.Track
			bps := FormatBitrate(t.MinBps) + " " + FormatBitrate(t.Bps) + " " + FormatBitrate(t.MaxBps)
			title := []string{t.Name, string(t.Codec), "size " + sizeText(t), "fps " + fraction(t.FPS), bps, "encoder " + br.Encoder, "element " + br.Element, t.Fmtp}
			if br.Copy {
				title = append(title, "copy")
			}
			for _, r := range br.Reduced {
				if r.Launch != "" {
					title = append(title, "reduced "+sizeText(media.Track{Width: r.Width, Height: r.Height})+" "+fraction(r.FPS))
				}
			}
			lines("track "+strings.Join(title, ", "), br.Launch)
		}
		for _, s := range f.Sources {
			b.WriteString("source " + s + "\n")
		}
		for _, d := range f.Devices {
			b.WriteString("device " + d + "\n")
		}
		if f.Loop {
			b.WriteString("loop\n")
		}
		if f.Once {
			b.WriteString("once\n")
		}
	}
	for _, n := range p.Notes {
		b.WriteString("note " + n + "\n")
	}
	return b.String()
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
		p, err := Compile(stream(t, "cam", text), boxRegistry{absent: map[string]error{"v4l2src": gone}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		feed := p.Feeds[len(p.Feeds)-1]
		err = feed.Absent
		var absent *AbsentError
		if !errors.As(err, &absent) || absent.Source != "v4l2src device=/dev/video7" || !errors.Is(err, gone) || !errors.Is(err, media.ErrAbsent) {
			t.Errorf("%s: error is %v, want an AbsentError for the device", name, err)
		}
		if len(feed.Branches) != 1 || len(p.Feeds) == 2 && p.Feeds[0].Absent != nil {
			t.Errorf("%s: %+v", name, p)
		}
		if err != nil && err.Error() != gone.Error() {
			t.Errorf("%s: people read %q", name, err)
		}
	}
}

// readFolder reads every pipeline file of a folder.
func readFolder(dir string) ([]File, error) {
	paths, err := ListFolder(dir)
	var files []File
	for _, path := range paths {
		files = append(files, ReadFile(path))
	}
	return files, err
}
