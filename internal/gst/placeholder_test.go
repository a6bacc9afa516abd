package gst

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"testing"

	"gateway/internal/config"
	"gateway/internal/media"
)

// placeholderOf makes a placeholder and decodes it again.
func placeholderOf(t *testing.T, p config.Placeholder) image.Image {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	keyframes, err := Placeholder(ctx, &p)
	if err != nil {
		t.Fatal(err)
	}
	var picture image.Image
	for _, payloads := range keyframes {
		size, key := 0, false
		for _, payload := range payloads {
			size += len(payload)
			key = key || media.Keyframe(p.Codec, payload)
			if len(payload) > maxPayload {
				t.Errorf("a payload of %d bytes", len(payload))
			}
		}
		if !key {
			t.Error("no keyframe")
		}
		data, err := Snapshot(ctx, p.Codec, payloads, p.Width)
		if err != nil {
			t.Fatal(err)
		}
		if picture, err = jpeg.Decode(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if s := picture.Bounds().Size(); s.X != p.Width || s.Y != p.Height {
			t.Errorf("size %v", s)
		}
		t.Logf("%s %dx%d: %d keyframes, %d bytes in %d packets", p.Codec, p.Width, p.Height, len(keyframes), size, len(payloads))
	}
	return picture
}

// words tells how many pixels of a picture's middle are as bright as words are.
func words(picture image.Image) (bright int) {
	b := picture.Bounds()
	for y := b.Dy() / 4; y < b.Dy()*3/4; y++ {
		for x := range b.Dx() {
			if r, g, b, _ := picture.At(x, y).RGBA(); min(r, g, b)>>8 > 200 {
				bright++
			}
		}
	}
	return bright
}

func TestPlaceholderIsTheLastPictureDimmed(t *testing.T) {
	for codec, encoder := range encoders {
		if codec == media.Opus {
			continue
		}
		t.Run(string(codec), func(t *testing.T) {
			_, c := launch(t, "videotestsrc pattern=blue is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! "+encoder+sink, codec)
			p := (*config.Encoders)(nil).Placeholder(media.Track{Codec: codec, Width: 640, Height: 360})
			p.Last, p.Title, p.Text = keyframe(t, c), "Front door", "camera unplugged, back soon"
			picture := placeholderOf(t, p)
			r, g, b, _ := picture.At(20, 20).RGBA()
			if r, g, b = r>>8, g>>8, b>>8; b < r+15 || b < g+15 || b > 140 {
				t.Errorf("a blue picture is %d %d %d, want a darker blue", r, g, b)
			}
			if words(picture) < 100 {
				t.Error("no words are seen")
			}
		})
	}
}

// Without a last picture, or with one that can't be decoded, it is a card.
func TestPlaceholderIsACardWithoutAPicture(t *testing.T) {
	for name, last := range map[string][][]byte{"none": nil, "garbage": {{0x65, 1, 2, 3}}} {
		t.Run(name, func(t *testing.T) {
			p := (*config.Encoders)(nil).Placeholder(media.Track{Codec: media.H264})
			p.Last, p.Title, p.Text = last, `<b>& "Tor"`, string([]byte{'a', 0xff, '<', '&'})
			picture := placeholderOf(t, p)
			if r, g, b, _ := picture.At(20, 20).RGBA(); max(r, g, b)>>8 > 70 || min(r, g, b)>>8 < 15 {
				t.Errorf("the card is %d %d %d", r>>8, g>>8, b>>8)
			}
			if words(picture) < 100 {
				t.Error("no words are seen")
			}
		})
	}
}

// The codec of a source may be one that nothing here encodes.
func TestPlaceholderNeedsAnEncoder(t *testing.T) {
	for name, p := range map[string]config.Placeholder{
		"no row":        (*config.Encoders)(nil).Placeholder(media.Track{Codec: "mjpeg"}),
		"not installed": {Codec: media.VP8, Width: 320, Height: 180, Launches: []string{"nosuchenc ! rtpvp8pay"}},
	} {
		if keyframes, err := Placeholder(t.Context(), &p); err == nil {
			t.Errorf("%s: made %d keyframes", name, len(keyframes))
		}
	}
}

// Two IDR pictures in a row differ in their idr_pic_id (ITU-T H.264 §7.4.3).
func TestPlaceholdersKeyframesDiffer(t *testing.T) {
	p := (*config.Encoders)(nil).Placeholder(media.Track{Codec: media.H264, Width: 320, Height: 180})
	keyframes, err := Placeholder(t.Context(), &p)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keyframes {
		next := keyframes[(i+1)%len(keyframes)]
		if bytes.Equal(bytes.Join(k, nil), bytes.Join(next, nil)) {
			t.Errorf("keyframes %d and %d of %d are the same", i, i+1, len(keyframes))
		}
	}
}
