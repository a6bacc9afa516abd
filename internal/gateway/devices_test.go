package gateway

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
)

// camera is a machine where the sources deliver what a test says.
type camera struct {
	*gst.Registry
	formats []config.Format
}

func (c camera) Formats(string) ([]config.Format, error) { return c.formats, nil }

// size is a fixed one.
func size(kind string, width, height int, rates ...float64) config.Format {
	return config.Format{MediaType: kind, MinWidth: width, MaxWidth: width, MinHeight: height, MaxHeight: height, Rates: rates}
}

// installed are encoders that are there.
var installed = []encoder{{ID: "encoder:x264enc", Name: "x264enc", Codec: media.H264, Installed: true}}

// compiled reads and compiles a pipeline file as the gateway does.
func compiled(t *testing.T, text []byte, r config.Registry) (*config.Stream, *config.Plan) {
	t.Helper()
	s, err := config.ParseStream("mine", "mine.yaml", text, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	plan, err := config.Compile(s, r)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return s, plan
}

func TestSuggestedSizeOfACamera(t *testing.T) {
	const raw, jpeg, h264 = "video/x-raw", "image/jpeg", "video/x-h264"
	for name, c := range map[string]struct {
		formats []config.Format
		want    string
	}{
		"raw pictures are slow, JPEG is not": {
			[]config.Format{size(raw, 1920, 1080, 5), size(raw, 640, 480, 30), size(jpeg, 1920, 1080, 30, 15)},
			"  width: 1920\n  height: 1080\n  framerate: 30\n  bitrate: 4M\n",
		},
		"a slow large one": {
			[]config.Format{size(raw, 1920, 1080, 5), size(raw, 1280, 720, 10), size(raw, 640, 480, 30)},
			"  width: 640\n  height: 480\n  framerate: 30\n  bitrate: 1M\n",
		},
		"more than 1080p60": {
			[]config.Format{size(jpeg, 3840, 2160, 30), size(jpeg, 1920, 1080, 60)},
			"  width: 1920\n  height: 1080\n  framerate: 30\n  bitrate: 4M\n",
		},
		"only more than 1080p, of another shape": {
			[]config.Format{size(raw, 4056, 3040, 10)},
			"  width: 1440\n  height: 1080\n  framerate: 10\n  bitrate: 4M\n",
		},
		"NTSC": {
			[]config.Format{size(raw, 720, 480, 30000/1001.)},
			"  width: 720\n  height: 480\n  framerate: 30\n  bitrate: 1M\n",
		},
		"any size": {
			[]config.Format{{MediaType: raw, MinWidth: 2, MaxWidth: 8192, MinHeight: 1, MaxHeight: 8192, MaxFPS: 25}},
			"  width: 1920\n  height: 1080\n  framerate: 25\n  bitrate: 4M\n",
		},
		"H.264 alone":      {[]config.Format{size(h264, 1920, 1080, 30)}, "  encoder: copy\n"},
		"nothing is known": {nil, "  bitrate: 2.5M\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := camera{gst.NewRegistry(), c.formats}
			d := devices{&gst.Devices{Cameras: []gst.Camera{{ID: "camera:1", Name: "Cam", Source: "v4l2src device=/dev/v4l/by-id/usb-Cam"}}}, installed}
			f, err := d.suggest("camera:1", r)
			if err != nil {
				t.Fatal(err)
			}
			text := f.yaml("")
			if _, after, _ := strings.Cut(string(text), "  codec: h264\n"); after != c.want {
				t.Errorf("%s\nwant\n%s", text, c.want)
			}
			compiled(t, text, r)
		})
	}
}

// Names come from devices, from windows and so from web pages.
func TestSuggestedFileKeepsHostileNamesInTheirPlace(t *testing.T) {
	for _, name := range []string{
		"Front: door # 1", `"quoted" \ 'and' not`, "- list", "yes", "", "日本語", "{a: b}", "*alias", "!tag", "title:", "<b>&", strings.Repeat("長", 120),
	} {
		d := devices{&gst.Devices{Windows: []gst.Window{{
			ID: "window::0:0x1", Display: ":0", XID: "0x1", Title: name, Width: 801, Height: 599, Source: "ximagesrc display-name=:0 xid=0x1 use-damage=false",
		}}}, installed}
		f, err := d.suggest("window::0:0x1", nil)
		if err != nil {
			t.Fatal(err)
		}
		s, _ := compiled(t, f.yaml("../docs/pipeline.schema.json"), gst.NewRegistry())
		if want := name; s.Title != want && want != "" && !strings.HasPrefix(want, s.Title) {
			t.Errorf("title %q, want %q", s.Title, want)
		}
		if s.Source != d.Windows[0].Source || s.Video == nil || s.Audio != nil {
			t.Errorf("%q: source %q", name, s.Source)
		}
	}
}

func TestEverySuggestionPassesCheck(t *testing.T) {
	table, r := (*config.Encoders)(nil), gst.NewRegistry()
	d := devices{&gst.Devices{
		Cameras:  []gst.Camera{{ID: "camera:1", Name: "Cam", Device: "/dev/video63", Source: "v4l2src device=/dev/video63", Fault: gst.Fault{Problem: "busy", Remedy: "wait"}}},
		Displays: []gst.Display{{ID: "display::63", Name: ":63", Source: "ximagesrc display-name=:63"}},
		Monitors: []gst.Monitor{{ID: "monitor::63:A", Display: ":63", Name: "A", Width: 2560, Height: 1440, Source: "ximagesrc display-name=:63 startx=1 starty=0 endx=2560 endy=1439"}},
		Audio: []gst.Audio{
			{ID: "audio:mic", Name: "Mic", API: "pulse", Source: "pulsesrc device=mic"},
			{ID: "audio:out.monitor", Name: "Out", API: "pipewire", Source: `pipewiresrc target-object=out stream-properties="props,stream.capture.sink=true"`},
			{ID: "audio:hw:CARD=PCH,DEV=0", Name: "Card", API: "alsa", Source: "alsasrc device=hw:CARD=PCH,DEV=0"},
		},
	}, encoders(table, r)}
	ids := []string{"camera:1", "display::63", "monitor::63:A", "audio:mic", "audio:out.monitor", "audio:hw:CARD=PCH,DEV=0"}
	for _, e := range d.Encoders {
		if e.Installed {
			ids = append(ids, e.ID)
		}
	}
	dir := t.TempDir()
	var files []string
	for i, id := range ids {
		f, err := d.suggest(id, r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, string(rune('a'+i))+".yaml")
		write(t, path, string(f.yaml("")))
		files = append(files, path)
	}
	settings, err := Load(DefaultConfig, dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := settings.Check(files, CheckOptions{}, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := settings.Check([]string{dir}, CheckOptions{}, &out); err != nil { // the folder, likewise
		t.Error(err)
	}
	if _, err := d.suggest("camera:2", r); err == nil || !strings.Contains(err.Error(), `"camera:2"`) {
		t.Errorf("an id that isn't there: %v", err)
	}
}

// People name a display as DISPLAY has it and a window by its title. A title can be
// anything, also another thing's id.
func TestThingsAreFoundByTheirNames(t *testing.T) {
	d := devices{&gst.Devices{
		Cameras:  []gst.Camera{{ID: "camera:1", Name: "Cam", Device: "/dev/video63", Path: "/dev/v4l/by-id/cam"}},
		Displays: []gst.Display{{ID: "display::0", Name: ":0"}},
		Windows: []gst.Window{
			{ID: "window::0:0x1", XID: "0x1", Title: "Mail"}, {ID: "window::0:0x2", XID: "0x2", Title: "display::0"},
			{ID: "window::0:0x3", XID: "0x3", Title: "Two"}, {ID: "window::0:0x4", XID: "0x4", Title: "Two"},
		},
		Audio: []gst.Audio{{ID: "audio:mic", Name: "Mic"}},
	}, installed}
	for word, id := range map[string]string{
		"camera:1": "camera:1", "/dev/video63": "camera:1", "/dev/v4l/by-id/cam": "camera:1", ":0": "display::0", "display::0": "display::0",
		"Mail": "window::0:0x1", "0x2": "window::0:0x2", "Mic": "audio:mic", "nothing": "nothing",
	} {
		if got, err := d.find(word); got != id || err != nil {
			t.Errorf("%s: %q, %v", word, got, err)
		}
	}
	if _, err := d.find("Two"); err == nil || !strings.Contains(err.Error(), "window::0:0x3 or window::0:0x4") {
		t.Errorf("two windows of one title: %v", err)
	}
}

func TestDevicesAsJSON(t *testing.T) {
	t.Setenv("DISPLAY", "")
	settings, err := Load(DefaultConfig, t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := settings.Devices(t.Context(), true, "", &out); err != nil {
		t.Fatal(err)
	}
	var lists map[string][]json.RawMessage
	if err := json.Unmarshal(out.Bytes(), &lists); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, name := range []string{"cameras", "displays", "windows", "monitors", "audio", "encoders", "notes"} {
		if lists[name] == nil {
			t.Errorf("%s is no list: %s", name, &out)
		}
	}
	var found struct{ Encoders []encoder }
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found.Encoders, func(e encoder) bool { return e.Name == "x264enc" })
	if i < 0 {
		t.Fatal("no x264enc")
	}
	if e := found.Encoders[i]; !e.Installed || e.Hardware || e.FPS < 1 || e.Problem != "" || e.Package != "gstreamer1.0-plugins-ugly" {
		t.Errorf("%+v", e)
	}
}

func TestDevicesAsYAMLNamesTheSchemaBesideThePipelines(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"docs", "pipelines"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	settings, err := Load(DefaultConfig, filepath.Join(dir, "pipelines"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	const line = "# yaml-language-server: $schema=../docs/pipeline.schema.json\n"
	for _, there := range []bool{false, true} {
		if there {
			write(t, filepath.Join(dir, "docs", "pipeline.schema.json"), "{}")
		}
		var out bytes.Buffer
		if err := settings.Devices(t.Context(), false, "encoder:vp8enc", &out); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(out.String(), line) != there {
			t.Errorf("schema there: %v\n%s", there, &out)
		}
	}
}

func TestFormatsOfTheSameSizesShareALine(t *testing.T) {
	all := []gst.VideoSize{{Width: 640, Height: 480, Rates: []float64{30, 15}}}
	d := devices{&gst.Devices{Cameras: []gst.Camera{{
		ID: "camera:1", Name: "vivid", Driver: "vivid", Device: "/dev/video0", Source: "v4l2src device=/dev/video0",
		Formats: []gst.VideoFormat{{Name: "YUYV", Sizes: all}, {Name: "MJPG", Sizes: []gst.VideoSize{{Width: 1920, Height: 1080, MinWidth: 2, MinHeight: 1, Rates: []float64{29.97}, MinRate: 1}}}, {Name: "NV12", Sizes: all}},
		Fault:   gst.Fault{Problem: "busy", Remedy: "wait"},
	}}}, nil}
	want := `cameras
  camera:1
    vivid, /dev/video0
    v4l2src device=/dev/video0
    ! busy: wait
    YUYV NV12  640x480 30/15
    MJPG  2x1 to 1920x1080 29.97-1
`
	if text := string(d.text()); !strings.HasPrefix(text, want) {
		t.Errorf("%s\nwant\n%s", text, want)
	}
}
