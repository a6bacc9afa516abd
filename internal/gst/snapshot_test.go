package gst

import (
	"bytes"
	"context"
	"image/jpeg"
	"strings"
	"testing"

	"gateway/internal/media"
)

func TestSnapshotIsAPictureOfTheKeyframe(t *testing.T) {
	for codec, encoder := range encoders {
		if codec == media.Opus {
			continue
		}
		t.Run(string(codec), func(t *testing.T) {
			_, c := launch(t, strings.Replace(camera, "is-live", "pattern=red is-live", 1)+encoder+sink, codec)
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			data, err := Snapshot(ctx, codec, keyframe(t, c), 640)
			if err != nil {
				t.Fatal(err)
			}
			picture, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if size := picture.Bounds().Size(); size.X != 320 || size.Y != 240 {
				t.Errorf("size %v", size)
			}
			if r, g, b, _ := picture.At(160, 120).RGBA(); r>>8 < 240 || g>>8 > 16 || b>>8 > 16 {
				t.Errorf("colour %d %d %d, want red", r>>8, g>>8, b>>8)
			}
		})
	}
}

// With two encoder threads a frame has two slices, and some payloaders repeat the
// parameter sets between them: a decoder then saw two frames, one of them half grey.
func TestSnapshotHasAllSlices(t *testing.T) {
	_, c := launch(t, strings.Replace(camera, "is-live", "pattern=checkers-8 is-live", 1)+
		"x264enc tune=zerolatency speed-preset=ultrafast threads=2 bitrate=8000 ! h264parse config-interval=-1"+
		" ! rtph264pay config-interval=-1 aggregate-mode=zero-latency mtu=1200"+sink, media.H264)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	data, err := Snapshot(ctx, media.H264, keyframe(t, c), 640)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range []int{20, 212} { // rows of squares alternate: none must be smeared
		_, above, _, _ := picture.At(100, y).RGBA()
		_, below, _, _ := picture.At(100, y+8).RGBA()
		if diff := int(above>>8) - int(below>>8); diff > -80 && diff < 80 {
			t.Errorf("at %d the picture is smeared: %d and %d", y, above>>8, below>>8)
		}
	}
}

// keyframe collects the payloads of the first frame.
func keyframe(t *testing.T, c *catch) [][]byte {
	t.Helper()
	var payloads [][]byte
	for whole := false; !whole; {
		b := next(t, c)
		for i := range b.Len() {
			payloads = append(payloads, bytes.Clone(b.Payload(i)))
		}
		whole = b.End
		b.Release()
	}
	return payloads
}

func TestSnapshotOfGarbageFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := Snapshot(ctx, media.H264, [][]byte{{0x65, 1, 2, 3}}, 640); err == nil {
		t.Error("made a picture")
	}
	if _, err := Snapshot(ctx, media.H264, nil, 640); err == nil {
		t.Error("made a picture of nothing")
	}
}
