package config

import (
	"errors"
	"strings"
	"testing"

	"gateway/internal/media"
)

func TestCamerasAreLocated(t *testing.T) {
	at := map[string]string{"usb-046d_C920": "/dev/video2", "HD Cam": "/dev/video 3", "/dev/video0": "/dev/video1", "/dev/video5": "/dev/video5"}
	find := func(name string) (string, error) {
		if node, ok := at[name]; ok {
			return node, nil
		}
		return "", errors.New("no camera: " + name)
	}
	for text, want := range map[string]string{
		"v4l2src device=usb-046d_C920 io-mode=mmap ! jpegdec":       "v4l2src device=/dev/video2 io-mode=mmap ! jpegdec",
		`v4l2src device="HD Cam"`:                                   `v4l2src device="/dev/video 3"`,
		"v4l2src":                                                   "v4l2src device=/dev/video1", // the default has another number now
		"v4l2src ! x264enc ! appsink name=video":                    "v4l2src device=/dev/video1 ! x264enc ! appsink name=video",
		"v4l2src device=/dev/video5":                                "v4l2src device=/dev/video5",
		"videotestsrc name=usb-046d_C920 ! v4l2sink device=usb-046": "videotestsrc name=usb-046d_C920 ! v4l2sink device=usb-046",
		"v4l2src device=/dev/video0 ! m. v4l2src device=usb-046d_C920 ! m. compositor name=m": "v4l2src device=/dev/video1 ! m. v4l2src device=/dev/video2 ! m. compositor name=m",
		`v4l2src device="open`: `v4l2src device="open`,
	} {
		if got, err := locateCameras(text, find); got != want || err != nil {
			t.Errorf("%s\n got %s, %v\nwant %s", text, got, err, want)
		}
	}
	got, err := locateCameras("v4l2src device=usb-gone ! m. v4l2src ! m. compositor name=m", find)
	if !strings.Contains(got, "device=usb-gone ! m. v4l2src device=/dev/video1 !") || !errors.Is(err, media.ErrAbsent) || err.Error() != "no camera: usb-gone" {
		t.Errorf("one that is gone: %s, %v", got, err)
	}
}

// A camera that is named by what stays is absent like any other, in both forms.
func TestCameraThatIsNotThereIsAbsent(t *testing.T) {
	for _, text := range []string{
		"source: v4l2src device=usb-Nobody_Has_This_Camera\nvideo: {codec: h264}\n",
		"launch: v4l2src device=usb-Nobody_Has_This_Camera ! x264enc ! rtph264pay ! appsink name=video\n",
	} {
		s, err := ParseStream("cam", "cam.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Compile(s, boxRegistry{missing: noHardware})
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Feeds[0].Absent; !errors.Is(err, media.ErrAbsent) || !strings.Contains(err.Error(), `no "usb-Nobody_Has_This_Camera"`) {
			t.Errorf("absent: %v", err)
		}
	}
}
