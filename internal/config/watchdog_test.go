package config

import (
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
)

// What the source has encoded isn't decoded only to be looked at.
func TestPicturesOfACopyAreNotLookedAt(t *testing.T) {
	copied := "source: v4l2src ! video/x-h264\nwatchdog: {black: 10s}\nvideo: {renditions: [{name: full, encoder: copy}"
	_, err := Compile(stream(t, "cam", copied+"]}"), boxRegistry{})
	if err == nil || !strings.Contains(err.Error(), "cam.yaml:2:19: watchdog.black: what the source has encoded isn't decoded") {
		t.Errorf("the error is %v", err)
	}
	p, err := Compile(stream(t, "cam", copied+", {name: low, codec: vp8}]}"), boxRegistry{})
	if err != nil || p.Feeds[0].Pictures != (Pictures{Black: 10 * time.Second}) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestSourcesAreKnownToPeopleAndToWatchdogs(t *testing.T) {
	for text, want := range map[string]struct {
		what      string
		silence   time.Duration
		announced bool
	}{
		"source: v4l2src\nvideo: {}":                                       {"camera", 0, true},
		"source: ximagesrc\nvideo: {}":                                     {"screen", 0, false},
		"source: rtspsrc location=rtsp://192.0.2.1/\nvideo: {codec: h264}": {"camera", 10 * time.Second, false},
		"launch: ximagesrc ! x264enc ! rtph264pay ! appsink name=video":    {"screen", 0, false},
		"launch: v4l2src ! x264enc ! rtph264pay ! appsink name=video":      {"camera", 0, true},
		"launch: v4l2src ! compositor name=c ! x264enc ! rtph264pay ! appsink name=video rtspsrc location=rtsp://192.0.2.1/ ! decodebin ! c.": {
			"camera", 10 * time.Second, false,
		},
	} {
		p, err := Compile(stream(t, "x", text), boxRegistry{})
		if err != nil {
			t.Fatal(err)
		}
		if f := p.Feeds[0]; f.What != want.what || f.Silence != want.silence || f.Announced != want.announced {
			t.Errorf("%s: %q, %v, announced %v", text, f.What, f.Silence, f.Announced)
		}
	}
	if s := findSource("somesrc"); s.Silence != 10*time.Second {
		t.Errorf("of an unknown source %v", s.Silence)
	}
}

// A placeholder is made on the CPU, in a profile that every decoder of its codec takes.
func TestPlaceholdersAreMadeOnTheCPU(t *testing.T) {
	p := ownEncoders.Placeholder(media.Track{Codec: media.H264, Width: 1921, Height: 1081})
	if p.Width != 1920 || p.Height != 1080 || len(p.Launches) == 0 {
		t.Fatalf("%+v", p)
	}
	for _, launch := range p.Launches {
		if !strings.Contains(launch, "profile=constrained-baseline") {
			t.Error(launch)
		}
		if _, err := ParseLaunch(launch); err != nil {
			t.Error(err)
		}
	}
	for _, codec := range media.Codecs(media.Video) {
		if p := (*Encoders)(nil).Placeholder(media.Track{Codec: codec}); len(p.Launches) == 0 || p.Width == 0 {
			t.Errorf("%s: %+v", codec, p)
		}
	}
}
