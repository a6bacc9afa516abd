package lint

import (
	"strings"
	"testing"

	"gateway/internal/config"
)

// A word of a launch text has its own line and column, however YAML writes the text.
func TestWordsOfALaunchTextAreFoundInTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		file, word   string
		line, column int
	}{
		"plain":                {"source: a ! bb x=1\n", "x=1", 1, 16},
		"plain over two lines": {"source: a ! bb\n  x=1\n", "x=1", 2, 3},
		"folded":               {"source: >\n  a\n  ! bb x=1\n", "bb", 3, 5},
		"folded, stripped":     {"source: >-  # why\n\n    a ! bb\n\n    x=1\n", "x=1", 5, 5},
		"literal":              {"source: |\n  a\n  ! bb x=1\n", "x=1", 3, 8},
		"single quotes":        {"source: 'a ! bb y=\"it''s\" x=1'\n", "x=1", 1, 27},
		"double quotes":        {"source: \"a ! bb y=\\\"z\\\"\n  x=1\"\n", "x=1", 2, 3},
		"flow":                 {"{source: \"a ! bb x=1\", video: {}}\n", "bb", 1, 15},
		"after other letters":  {"source: a y=größer x=1\n", "x=1", 1, 20},
		"below another":        {"title: x=1\nsource: >\n  a x=1\n", "x=1", 3, 5},
		"windows line ends":    {"source: >\r\n  a\r\n  x=1\r\n", "x=1", 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			file := c.file
			if !strings.Contains(file, "video:") {
				file += "video: {codec: vp8}\n"
			}
			s, err := config.ParseStream("x", "x.yaml", []byte(file), nil)
			if err != nil {
				t.Fatal(err)
			}
			at := strings.Index(s.Source, c.word)
			line, column := s.Locate("source", at)
			if line != c.line || column != c.column {
				t.Errorf("%q at %d:%d, want %d:%d", s.Source[at:], line, column, c.line, c.column)
			}
		})
	}
}

func FuzzSplitCaps(f *testing.F) {
	f.Add("video/x-raw(memory:NVMM),format=(string){ I420, NV12 };audio/x-raw")
	f.Add(`a/b,c="d,e",f=[1,2],,=;`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range splitCaps(text) {
			for _, field := range c.fields {
				if !strings.HasPrefix(text[field.offset:], field.name) {
					t.Errorf("%q is not at %d of %q", field.name, field.offset, text)
				}
			}
		}
	})
}

func TestPackagesOfElementsAreKnown(t *testing.T) {
	for element, want := range map[string]string{
		"x264enc": "gstreamer1.0-plugins-ugly", "vah264enc": "gstreamer1.0-plugins-bad", "v4l2h264enc": "gstreamer1.0-plugins-good",
		"v4l2src": "gstreamer1.0-plugins-good", "rtspclientsink": "gstreamer1.0-rtsp", "pipewiresrc": "gstreamer1.0-pipewire",
		"libcamerasrc": "gstreamer1.0-libcamera", "nvh264enc": "gstreamer1.0-plugins-bad", "nvv4l2h264enc": "NVIDIA's Jetson Linux",
		"vaapih264enc": "gstreamer1.0-vaapi", "queue": "libgstreamer1.0-0", "avdec_h264": "gstreamer1.0-libav", "no-such": "",
	} {
		if o, _ := whence(element); o.name != want {
			t.Errorf("%s: %q, want %q", element, o.name, want)
		}
	}
	if n := len(knownElements()); n < 1400 {
		t.Errorf("only %d elements are known", n)
	}
}
