package gst

import (
	"slices"
	"strings"
	"testing"

	"gateway/internal/config"
)

func TestElementsAreDescribed(t *testing.T) {
	r := &Registry{}
	if names := r.Elements(); !slices.Contains(names, "videotestsrc") || slices.Contains(names, "video/x-h264") {
		t.Errorf("%d elements, videotestsrc among them: %v", len(names), slices.Contains(names, "videotestsrc"))
	}
	if _, ok := r.Element("no-such"); ok {
		t.Error("an element that isn't installed is described")
	}
	e, ok := r.Element("x264enc")
	if !ok {
		t.Skip("x264enc is not installed")
	}
	if e.Class != "Codec/Encoder/Video" || len(e.Pads) != 2 {
		t.Errorf("class %q, pads %v", e.Class, e.Pads)
	}
	property := func(name string) config.Property {
		i := slices.IndexFunc(e.Properties, func(p config.Property) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("no property %q", name)
		}
		return e.Properties[i]
	}
	if p := property("bitrate"); p.Type != "whole number" || p.Min != "1" || p.Max != "2048000" || p.Default != "2048" || !p.Writable {
		t.Errorf("bitrate: %+v", p)
	}
	if p := property("speed-preset"); p.Type != "word" || !slices.Contains(p.Values, "superfast") {
		t.Errorf("speed-preset: %+v", p)
	}
	if p := property("tune"); p.Type != "words" || !slices.Contains(p.Values, "zerolatency") {
		t.Errorf("tune: %+v", p)
	}
}

func TestPropertyValuesAreJudgedAsALaunchTextIs(t *testing.T) {
	for value, want := range map[string]bool{
		"queue max-size-buffers 2": true, "queue max-size-buffers two": false,
		"queue leaky downstream": true, "queue leaky 2": true, "queue leaky 7": false, "queue leaky nostream": false,
		"videotestsrc is-live true": true, "videotestsrc is-live 1": true, "videotestsrc is-live perhaps": false,
		"videotestsrc pattern ball": true, "x264enc tune zerolatency": true, "x264enc tune fastdecode+zerolatency": true,
		"x264enc bitrate 3000000": false, "x264enc no-such 1": false, "udpsrc caps application/x-rtp,media=video": true,
		"multifilesrc caps video/x-raw,width=": false, "appsink name anything": true,
	} {
		w := strings.SplitN(value, " ", 3)
		if got := (&Registry{}).Accepts(w[0], w[1], w[2]); got != want {
			t.Errorf("%s=%s of %s: %v", w[1], w[2], w[0], got)
		}
	}
}

func TestCapsFieldsAreThoseOfThePads(t *testing.T) {
	if f := (&Registry{}).CapsFields("video/x-raw"); !slices.Contains(f, "framerate") || slices.Contains(f, "channels") {
		t.Error(f)
	}
}

func TestLinkFaultsSayWhatDisagrees(t *testing.T) {
	for chain, want := range map[string]string{
		"videotestsrc ! videoconvert ! x264enc ! h264parse ! rtph264pay ! appsink":               "",
		"v4l2src device=/dev/nothing ! image/jpeg ! jpegdec ! videoconvert ! vp8enc ! rtpvp8pay": "",
		"udpsrc ! application/x-rtp,media=video,encoding-name=H264 ! rtph264depay ! avdec_h264":  "",
		"rtspsrc location=rtsp://127.0.0.1:9/ ! rtph264depay ! h264parse ! rtph264pay ! appsink": "",
		"filesrc location=/nothing ! decodebin ! videoconvert ! x264enc":                         "",
		"videotestsrc ! tee ! queue ! videoconvert":                                              "",
		"ximagesrc display-name=:77 ! x264enc":                                                   "", // its pads don't say which formats
		"videotestsrc ! video/x-raw,format=RGB ! queue ! x264enc":                                "3 format",
		"videotestsrc ! x264enc ! rtpvp8pay":                                                     "2 ",
		"videotestsrc ! video/x-raw,format=Y444 ! x264enc ! video/x-h264,profile=main":           "2 format",
		"videotestsrc ! video/x-raw(memory:NVMM) ! fakesink":                                     "1 memory",
		"videotestsrc ! video/x-raw,width=no ! fakesink":                                         "1 width",
		"videotestsrc ! video/x-raw,width= ! fakesink":                                           "1 message",
		"videotestsrc ! fakesink ! fakesink":                                                     "2 message",
		"rtpbin ! rtpvp8depay":                                                                   "", // it has pads on request too, of RTCP
		"filesrc ! subparse ! textoverlay":                                                       "", // not its first pad, which takes pictures
		"audiotestsrc ! textoverlay":                                                             "1 ",
		"audiotestsrc ! vp8enc":                                                                  "1 ",
	} {
		got := ""
		if f := (&Registry{}).Link(strings.Split(chain, " ! ")); f != nil {
			t.Logf("%s: %+v", chain, *f)
			got = string(rune('0'+f.At)) + " " + f.Field
			if f.Message != "" {
				got += "message"
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", chain, got, want)
		}
	}
}

// Whatever is installed can be described: a boxed default of NULL once crashed it.
func TestEveryElementIsDescribed(t *testing.T) {
	r := &Registry{}
	for _, name := range r.Elements() {
		if strings.HasPrefix(name, "ladspa") || strings.HasPrefix(name, "avdec") || strings.HasPrefix(name, "avenc") {
			continue // hundreds that are alike
		}
		if e, ok := r.Element(name); ok && (e.Class == "" || len(e.Properties) < 2) {
			t.Errorf("%s: class %q, %d properties", name, e.Class, len(e.Properties))
		}
	}
}
