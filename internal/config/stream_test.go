package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
)

// values is a stream without what only places findings.
func values(s *Stream) Stream {
	v := *s
	v.at, v.data = nil, nil
	return v
}

func wantStream(t *testing.T, got, want *Stream) {
	t.Helper()
	if g := values(got); !reflect.DeepEqual(g, *want) {
		t.Errorf("got  %+v %+v %+v\nwant %+v %+v %+v", g, g.Video, g.Audio, want, want.Video, want.Audio)
	}
}

func TestEverydayFormHasDefaults(t *testing.T) {
	wantStream(t, stream(t, "door", "source: v4l2src\nvideo: {}\naudio: {source: pulsesrc}"), &Stream{
		Name: "door", Title: "door", Path: "door.yaml", Source: "v4l2src", Loop: true, OnDemand: true, Linger: 10 * time.Second, Sync: SyncAV,
		Watchdog: Watchdog{Start: 10 * time.Second},
		Video: &Video{Renditions: []Rendition{{Name: "video", Codec: media.H264, Encoder: "auto", Bitrate: Bitrate{500_000, 2_500_000, 2_500_000},
			KeyframeInterval: 2 * time.Second, Profile: "constrained-baseline", Degrade: true}}},
		Audio: &Audio{Source: "pulsesrc", Codec: media.Opus, Bitrate: 96_000, Channels: 2, FEC: true},
	})
}

func TestEverydayFormReadsEveryKey(t *testing.T) {
	wantStream(t, stream(t, "door", `
title: Front door
source: >
  v4l2src device=/dev/video0
  ! videoflip method=clockwise
loop: false
on_demand: false
linger: 1m30s
sync: video-first
watchdog: {start: 30s, frames: 1500ms, frozen: 1m, black: 20s}
isolation: none
worker: {memory: 1.5G, nice: 5}
video: {codec: vp8, encoder: vp8enc, width: 640, height: 360, framerate: 30000/1001, bitrate: {min: 100k, start: 800k, max: 1M}, keyframe_interval: 500ms, options: {cpu-used: -4}}
audio: {source: alsasrc, codec: opus, bitrate: 32000, channels: 1, fec: false, dtx: true, options: {frame-size: 10}}
`), &Stream{
		Name: "door", Title: "Front door", Path: "door.yaml", Source: "v4l2src device=/dev/video0 ! videoflip method=clockwise",
		Linger: 90 * time.Second, Sync: SyncVideoFirst, Watchdog: Watchdog{Start: 30 * time.Second, Frames: 1500 * time.Millisecond, Pictures: Pictures{time.Minute, 20 * time.Second}},
		Video: &Video{Renditions: []Rendition{{Name: "video", Codec: media.VP8, Encoder: "vp8enc", Width: 640, Height: 360, FPS: 30000.0 / 1001,
			Bitrate: Bitrate{100_000, 800_000, 1_000_000}, KeyframeInterval: 500 * time.Millisecond, Degrade: true, Options: map[string]string{"cpu-used": "-4"}}}},
		Audio: &Audio{Source: "alsasrc", Codec: media.Opus, Bitrate: 32_000, Channels: 1, DTX: true, Options: map[string]string{"frame-size": "10"}},

		Isolation: IsolationNone, Worker: &Worker{Memory: 3 << 29, Files: 1024, Nice: 5, Scheduler: "normal"},
	})
}

// What is said under video holds for every rendition that doesn't say otherwise.
func TestRenditionsInheritFromVideo(t *testing.T) {
	s := stream(t, "x", `
source: v4l2src
video:
  framerate: 25
  encoder: x264enc
  bitrate: 1M
  profile: main
  options: {speed-preset: veryfast}
  renditions:
    - {name: high, width: 1280, height: 720, bitrate: {min: 600k, max: 3M}}
    - {name: low, width: 640, height: 360, framerate: 15, options: {threads: 1}}
    - {name: firefox, codec: vp8}
    - {name: vp9, encoder: vp9enc, bitrate: {start: 1M, max: 1.2M}}
    - {name: auto264, encoder: auto}
`)
	second, all := 2*time.Second, Bitrate{200_000, 1_000_000, 1_000_000}
	fast := map[string]string{"speed-preset": "veryfast"}
	want := []Rendition{
		{"high", media.H264, "x264enc", 1280, 720, 25, Bitrate{600_000, 2_200_000, 3_000_000}, second, "main", true, fast},
		{"low", media.H264, "x264enc", 640, 360, 15, all, second, "main", true, map[string]string{"threads": "1"}},
		{"firefox", media.VP8, "auto", 0, 0, 25, all, second, "", true, nil},
		{"vp9", media.VP9, "vp9enc", 0, 0, 25, Bitrate{200_000, 1_000_000, 1_200_000}, second, "", true, nil},
		{"auto264", media.H264, "auto", 0, 0, 25, all, second, "main", true, nil},
	}
	for i, w := range want {
		if got := s.Video.Renditions[i]; !reflect.DeepEqual(got, w) {
			t.Errorf("got  %+v\nwant %+v", got, w)
		}
	}
	for key, want := range map[string][2]int{
		"video.renditions[1].width": {11, 26}, "video.renditions[1].codec": {11, 7}, "video.bitrate": {6, 12}, "video.renditions[0].bitrate.max": {10, 72}, "audio.bitrate": {0, 0},
	} {
		if line, column := s.Position(key); line != want[0] || column != want[1] {
			t.Errorf("%s is at %d:%d, want %v", key, line, column, want)
		}
	}
}

func TestLaunchFormIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		name, text string
		video      []Rendition
		audio      *Audio
	}{
		{
			"from the elements",
			"v4l2src ! video/x-raw, width=1280, height=(int)720, framerate=30/1 ! videoconvert ! x264enc name=encoder bitrate=2500 ! video/x-h264,profile=main ! h264parse ! rtph264pay ! appsink name=video",
			[]Rendition{{Name: "video", Codec: media.H264, Encoder: "x264enc", Width: 1280, Height: 720, FPS: 30, Bitrate: Bitrate{500_000, 2_500_000, 2_500_000}, Profile: "main"}}, nil,
		},
		{
			"through a tee",
			"videotestsrc ! video/x-raw,width=64,height=36,framerate=30000/1001 ! tee name=t t. ! queue ! vp8enc target-bitrate = 500000 ! rtpvp8pay ! appsink name=video  t. ! queue ! fakesink",
			[]Rendition{{Name: "video", Codec: media.VP8, Encoder: "vp8enc", Width: 64, Height: 36, FPS: 30000.0 / 1001, Bitrate: Bitrate{500_000, 500_000, 500_000}}}, nil,
		},
		{
			"caps of packets that come from outside",
			"udpsrc port=5000 caps=\"application/x-rtp,media=video,encoding-name=VP9\" ! application/x-rtp,encoding-name=(string)VP9 ! appsink name=video",
			[]Rendition{{Name: "video", Codec: media.VP9}}, nil,
		},
		{
			"a ladder of appsinks",
			"videotestsrc ! tee name=t t. ! queue ! x264enc name=e bitrate=900 ! rtph264pay ! appsink name=high t. ! queue ! v4l2h264enc name=low-enc extra-controls=\"controls,video_bitrate=250000,h264_level=10\" ! rtph264pay ! appsink name=low",
			[]Rendition{
				{Name: "high", Codec: media.H264, Encoder: "x264enc", Bitrate: Bitrate{180_000, 900_000, 900_000}},
				{Name: "low", Codec: media.H264, Encoder: "v4l2h264enc", Bitrate: Bitrate{50_000, 250_000, 250_000}},
			}, nil,
		},
		{
			"sound",
			"audiotestsrc ! audio/x-raw,channels=1 ! opusenc bitrate=24000 ! rtpopuspay ! appsink name=audio",
			nil, &Audio{Codec: media.Opus, Bitrate: 24_000, Channels: 1, FEC: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stream(t, "x", "launch: '"+c.text+"'")
			var video []Rendition
			if s.Video != nil {
				video = s.Video.Renditions
			}
			if !reflect.DeepEqual(video, c.video) || !reflect.DeepEqual(s.Audio, c.audio) {
				t.Errorf("got %+v, %+v\nwant %+v, %+v", video, s.Audio, c.video, c.audio)
			}
		})
	}
	s := stream(t, "x", "launch: mysrc ! appsink name=video\nvideo: {codec: h264, width: 640, height: 480, framerate: 25, bitrate: 1M}")
	if want := ([]Rendition{{Name: "video", Codec: media.H264, Width: 640, Height: 480, FPS: 25, Bitrate: Bitrate{1_000_000, 1_000_000, 1_000_000}}}); !reflect.DeepEqual(s.Video.Renditions, want) {
		t.Errorf("stated facts: got %+v, want %+v", s.Video, want)
	}
}

// Each file in testdata/bad is wrong in some way; its findings are in its .txt.
func TestBadFilesAreExplained(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			_, err := LoadStream(path, nil)
			if err == nil {
				t.Fatal("it was accepted")
			}
			var es Errors
			if !errors.As(err, &es) {
				t.Fatalf("the error is a %T", err)
			}
			got := strings.ReplaceAll(err.Error(), path, filepath.Base(path)) + "\n"
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("findings:\n%s\nwant (go test -update writes them anew):\n%s", got, want)
			}
		})
	}
}

func TestFilesThatAreNoneAreRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := filepath.Join(dir, "folder.yaml")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "does not exist",
		folder:                          "not a regular file",
		write("big.yaml", "# "+strings.Repeat("x", maxFile)):                   "larger than 64 KiB",
		write("a b.yaml", "source: videotestsrc\nvideo: {}"):                   "is not allowed",
		write(strings.Repeat("n", 65)+".yaml", "source: a\nvideo: {}"):         "is not allowed",
		write("noend", "source: videotestsrc"):                                 "ends in .yaml",
		write("bomb.yaml", bomb()):                                             "aliases are not supported",
		write("binary.yaml", "title: \x01"):                                    "control character",
		write("nul.yaml", "title: \"a\\0b\"\nsource: videotestsrc\nvideo: {}"): "control character",
	} {
		begin := time.Now()
		_, err := LoadStream(path, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", filepath.Base(path), err, want)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("%s took %v", filepath.Base(path), d)
		}
	}
}

// bomb is a "billion laughs": each line is ten times the one before.
func bomb() string {
	b := strings.Builder{}
	b.WriteString("title: &a [x, x, x, x, x, x, x, x, x]\n")
	for c := 'a'; c < 'z'; c++ {
		b.WriteString("video: &" + string(c+1) + " [" + strings.Repeat("*"+string(c)+",", 9) + "]\n")
	}
	b.WriteString("source: *z\n")
	return b.String()
}

func TestGoodFilesAreLoadedBesideBadOnes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "source: videotestsrc\nvideo: {}", "a.yaml": "source: videotestsrc\nvideo: {}",
		"bad.yaml": "sorce: videotestsrc", "worse.yaml": "{", ".hidden.yaml": "{", "notes.txt": "{", "old.yml": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read, err := readFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	var good []string
	files := map[string]bool{}
	for _, f := range read {
		s, err := f.Parse(nil)
		var es Errors
		switch {
		case err == nil:
			good = append(good, s.Name)
		case !errors.As(err, &es):
			t.Fatalf("error is %T %v", err, err)
		default:
			files[filepath.Base(es[0].File)] = true
		}
	}
	if !reflect.DeepEqual(good, []string{"a", "b"}) {
		t.Errorf("loaded %v", good)
	}
	if want := (map[string]bool{"bad.yaml": true, "worse.yaml": true, "old.yml": true}); !reflect.DeepEqual(files, want) {
		t.Errorf("findings are in %v, want %v", files, want)
	}
	if _, err := readFolder(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that isn't there was loaded")
	}
	if err := os.Symlink(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadStream(filepath.Join(dir, "link.yaml"), nil); err != nil {
		t.Errorf("a symbolic link: %v", err)
	}
}

func TestFindingsOfCompileHaveAPlace(t *testing.T) {
	s := stream(t, "x", "title: t\nsource: nosuchsrc\nvideo:\n  codec: vp9")
	_, err := Compile(s, boxRegistry{missing: []string{"nosuchsrc"}})
	want := `x.yaml:2:9: source: the element "nosuchsrc" is not installed; check its name, or install its package`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	s = stream(t, "x", "title: t\nsource: videotestsrc\nvideo:\n  codec: vp9")
	_, err = Compile(s, boxRegistry{missing: append(noHardware, "vp9enc")})
	want = `x.yaml:4:10: video.codec: no encoder for vp9 is installed (vp9enc); install the package gstreamer1.0-plugins-good`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAutoTakesTheBestEncoderThatIsThere(t *testing.T) {
	s := stream(t, "x", "source: videotestsrc\nvideo: {}")
	for _, c := range []struct {
		missing []string
		want    string
	}{{nil, "x264enc"}, {[]string{"x264enc"}, "openh264enc"}} {
		p, err := Compile(s, boxRegistry{missing: append(noHardware, c.missing...)})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Feeds[0].Branches[0].Encoder; got != c.want {
			t.Errorf("without %v: %s, want %s", c.missing, got, c.want)
		}
	}
	if _, err := Compile(s, boxRegistry{missing: append(noHardware, "h264parse")}); err == nil {
		t.Error("compiled without a parser")
	}
}

func TestCaptureTakesWhatIsCheapest(t *testing.T) {
	every := []float64{30, 25, 15, 5}
	cam := []Format{raw(640, 480, 30), raw(1280, 720, 10), jpeg(1280, 720, 30), jpeg(1920, 1080, 30), sized("video/x-h264", 1920, 1080, 30)}
	for _, c := range []struct {
		name, video string
		formats     []Format
		want        string
	}{
		{"raw where it gives all", "width: 640, height: 480", cam, "video/x-raw,width=640,height=480,framerate=30/1"},
		{"JPEG where raw is too slow", "width: 1280, height: 720", cam, "image/jpeg,width=1280,height=720,framerate=30/1 ! jpegdec"},
		{"raw where it is fast enough", "width: 1280, height: 720, framerate: 10", cam, "video/x-raw,width=1280,height=720,framerate=10/1"},
		{"larger than all", "width: 3840, height: 2160", cam, "image/jpeg,width=1920,height=1080,framerate=30/1 ! jpegdec"},
		{"between", "width: 1024, height: 576", cam, "image/jpeg,width=1280,height=720,framerate=30/1 ! jpegdec"},
		{"no size asked for", "framerate: 30", cam, "image/jpeg,width=1920,height=1080,framerate=30/1 ! jpegdec"},
		{"a camera beyond 1080p", "", []Format{raw(3840, 2160, 30), raw(1280, 720, 30)}, "video/x-raw,width=1280,height=720,framerate=30/1"},
		{"NTSC", "width: 640, height: 480", []Format{raw(640, 480, 30000.0/1001)}, "video/x-raw,framerate=30000/1001"},
		{"a list of rates", "width: 640, height: 480, framerate: 20", []Format{{MediaType: "video/x-raw", MinWidth: 640, MaxWidth: 640, MinHeight: 480, MaxHeight: 480, MaxFPS: 30, Rates: every}}, "video/x-raw,framerate=25/1"},
		{"faster than it can", "width: 640, height: 480, framerate: 60", cam, "video/x-raw,width=640,height=480,framerate=30/1"},
		{"stepless sizes", "width: 800, height: 450", []Format{{MediaType: "video/x-raw", MinWidth: 16, MaxWidth: 1920, MinHeight: 16, MaxHeight: 1080, MaxFPS: 60}}, "video/x-raw,width=800,height=450,framerate=[30/1,60/1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stream(t, "x", "source: v4l2src\nvideo: {"+c.video+"}")
			p, err := Compile(s, boxRegistry{formats: map[string][]Format{"v4l2src": c.formats}})
			if err != nil {
				t.Fatal(err)
			}
			got, _, _ := strings.Cut(strings.TrimPrefix(p.Feeds[0].Capture, "v4l2src ! "), " ! queue")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	for text, want := range map[string]string{
		"source: v4l2src\nvideo: {}":                                 "it delivers only video/x-bayer, which nothing here decodes",
		"source: v4l2src\nvideo: {encoder: copy}":                    "there is nothing that is encoded to copy: the source delivers video/x-bayer",
		"source: v4l2src\nvideo: {encoder: copy, codec: vp8}":        "there is no vp8 to copy",
		"source: ximagesrc\nvideo: {encoder: copy}":                  "what ximagesrc yields isn't encoded",
		"source: udpsrc port=5000\nvideo: {}":                        "udpsrc needs caps; write caps=",
		"source: uridecodebin uri=file:///a\nvideo: {encoder: copy}": "what uridecodebin yields isn't encoded",
	} {
		_, err := Compile(stream(t, "x", text), boxRegistry{formats: map[string][]Format{"v4l2src": {sized("video/x-bayer", 1280, 720, 30)}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzLoadStream(f *testing.F) {
	for _, glob := range []string{"testdata/bad/*.yaml", "../../pipelines/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			f.Fatal(glob, err)
		}
		for _, p := range files {
			b, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, data []byte) {
		begin := time.Now()
		s, err := ParseStream("fuzz", "fuzz.yaml", data, nil)
		var es Errors
		switch {
		case err != nil && (!errors.As(err, &es) || len(es) == 0):
			t.Fatalf("error is a %T: %v", err, err)
		case err == nil:
			if p, err := Compile(s, box); err == nil && len(p.Tracks()) == 0 {
				t.Errorf("a plan without tracks: %+v", p)
			}
		}
		if strings.Count(errorText(err), "\n") > strings.Count(string(data), "\n")*4+1000 {
			t.Error("too many findings")
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
