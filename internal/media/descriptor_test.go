package media

import (
	"bytes"
	"testing"
)

func TestPlainDropsPictureNumbers(t *testing.T) {
	for _, c := range []struct {
		name     string
		codec    Codec
		in, want []byte
		layered  bool
	}{
		{"VP8 without extension", VP8, []byte{0x10, 1, 2, 3}, []byte{0x10, 1, 2, 3}, false},
		{"VP8, 7 bits", VP8, []byte{0x90, 0x80, 0x11, 1, 2}, []byte{0x10, 1, 2}, false},
		{"VP8, 15 bits, TL0PICIDX, TID", VP8, []byte{0xb0, 0xe0, 0x81, 0x11, 7, 0x40, 1, 2}, []byte{0x30, 1, 2}, false},
		{"VP8, cut", VP8, []byte{0x90, 0xe0, 0x81, 0x11}, nil, false},
		{"VP9, key, 15 bits, one layer's structure", VP9, []byte{0x8a, 0x81, 0x11, 0x18, 1, 64, 0, 36, 1, 0x04, 1, 0xaa, 0xbb}, []byte{0x08, 0xaa, 0xbb}, false},
		{"VP9, delta, layer indices", VP9, []byte{0xe8, 0x81, 0x11, 0x00, 9, 0xaa}, []byte{0x48, 0xaa}, false},
		{"VP9, delta, flexible", VP9, []byte{0xf4, 0x81, 0x11, 0x00, 0x03, 0x04, 0xaa}, []byte{0x44, 0xaa}, false},
		{"VP9, the end of a frame", VP9, []byte{0xe4, 0x81, 0x11, 0x00, 9, 0xaa}, []byte{0x44, 0xaa}, false},
		{"VP9, second spatial layer", VP9, []byte{0xa8, 0x81, 0x11, 0x02, 9, 0xaa}, []byte{0xa8, 0x81, 0x11, 0x02, 9, 0xaa}, true},
		{"VP9, structure of three layers", VP9, []byte{0x8a, 0x81, 0x11, 0x40, 0xaa}, []byte{0x8a, 0x81, 0x11, 0x40, 0xaa}, true},
		{"VP9, cut", VP9, []byte{0x8a, 0x81, 0x11, 0x18, 1, 64}, nil, false},
		{"H.264", H264, []byte{0x65, 1, 2}, []byte{0x65, 1, 2}, false},
		{"Opus", Opus, []byte{1}, []byte{1}, false},
	} {
		key := Keyframe(c.codec, c.in)
		got, layered := Plain(c.codec, bytes.Clone(c.in))
		if !bytes.Equal(got, c.want) || layered != c.layered {
			t.Errorf("%s: % x, layered %v", c.name, got, layered)
		}
		if got != nil && Keyframe(c.codec, got) != key {
			t.Errorf("%s: keyframe %v becomes %v", c.name, key, !key)
		}
	}
}

func TestPictureSizeOfAKeyframe(t *testing.T) {
	vp8 := []byte{0x90, 0x80, 5, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0, 0}
	if w, h, ok := PictureSize(VP8, vp8); w != 640 || h != 360 || !ok {
		t.Errorf("VP8: %d×%d, %v", w, h, ok)
	}
	vp8[3] |= 1 // a delta frame
	if _, _, ok := PictureSize(VP8, vp8); ok {
		t.Error("VP8: a delta frame has a size")
	}
	// frame_marker 10, profile 00, existing 0, key 0, show 1, resilient 0; sync code; color_space 001, range 0; 319, 179
	vp9 := []byte{0x08, 0x82, 0x49, 0x83, 0x42, 0x20, 0x13, 0xf0, 0x0b, 0x30, 0}
	if w, h, ok := PictureSize(VP9, vp9); w != 320 || h != 180 || !ok {
		t.Errorf("VP9: %d×%d, %v", w, h, ok)
	}
}

// The sequence headers are those of av1enc (GStreamer 1.22), of 320×180 and of 1280×720
// with timing information.
func TestPictureSizeOfAV1(t *testing.T) {
	small := []byte{0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcf, 0x81, 0xb5, 0xf2, 0x00, 0x80}
	large := []byte{0x00, 0x00, 0x00, 0x2d, 0x4c, 0xff, 0xb3, 0xf8, 0x1b, 0x5f, 0x20, 0x08}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name          string
		payload       []byte
		width, height int // 0: none
	}{
		{"two elements", join([]byte{0x28, 13, 0x08}, small, []byte{0x30, 1, 2}), 320, 180},
		{"one", join([]byte{0x18, 0x08}, large), 1280, 720},
		{"each with its length", join([]byte{0x08, 13, 0x08}, large, []byte{3, 0x30, 1, 2}), 1280, 720},
		{"behind a delimiter", join([]byte{0x38, 1, 0x10, 13, 0x08}, small, []byte{0x30}), 320, 180},
		{"with extension and size", join([]byte{0x18, 0x0e, 0x00, 12}, small), 320, 180},
		{"no new sequence", join([]byte{0x20, 13, 0x08}, small, []byte{0x30}), 0, 0},
		{"goes on", join([]byte{0xa8, 13, 0x08}, small, []byte{0x30}), 0, 0},
		{"another one first", []byte{0x18, 0x30, 1, 2, 3}, 0, 0},
		{"cut off", join([]byte{0x18, 0x08}, small[:5]), 0, 0},
		{"longer than it is", join([]byte{0x28, 99, 0x08}, small), 0, 0},
		{"no length", []byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, 0},
	} {
		if w, h, ok := PictureSize(AV1, c.payload); ok != (c.width > 0) || ok && (w != c.width || h != c.height) {
			t.Errorf("%s: %d×%d, %v", c.name, w, h, ok)
		}
	}
}

func FuzzDescriptor(f *testing.F) {
	f.Add([]byte{0x8a, 0x81, 0x11, 0x18, 1, 64, 0, 36, 1, 0x04, 1, 0xaa, 0xbb})
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, c := range append(Codecs(Video), Opus) {
			key, begins := Keyframe(c, p), Begins(c, p)
			PictureSize(c, p)
			plain, layered := Plain(c, bytes.Clone(p))
			if len(plain) > len(p) || layered && !bytes.Equal(plain, p) {
				t.Fatalf("%s: % x becomes % x", c, p, plain)
			}
			if c == VP8 && plain != nil && (Keyframe(c, plain) != key || Begins(c, plain) != begins) {
				t.Fatalf("%s: % x isn't what % x was", c, plain, p)
			}
			if plain != nil && !layered {
				if again, _ := Plain(c, bytes.Clone(plain)); !bytes.Equal(again, plain) {
					t.Fatalf("%s: % x becomes % x", c, plain, again)
				}
			}
		}
	})
}
