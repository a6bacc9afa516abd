package media

import (
	"encoding/hex"
	"testing"
)

// realSPS are sequence parameter sets of Debian 12's encoders at 2.5 Mbit/s.
var realSPS = []struct {
	encoder, nal  string
	width, height int
	fps           float64
	id            string
}{
	{"x264enc", "6742c015da05067e7c05a808080a000003000200000300791e2c5d40", 320, 180, 30, "42c015"},
	{"x264enc", "6742c01eda0280bfe5c05a808080a0000003002000000791e2c5d4", 640, 360, 30, "42c01e"},
	{"x264enc", "6742c01eda0280f6c05a808080a0000003002000000791e2c5d4", 640, 480, 30, "42c01e"},
	{"x264enc", "6742c01fda014016ec05a808080a000003000200000300791e306540", 1280, 720, 30, "42c01f"},
	{"x264enc", "6742c020da014016ec05a808080a000003000200000300f11e306540", 1280, 720, 60, "42c020"},
	{"x264enc", "6742c028da01e0089f97016a02020280000003008000001e478c1950", 1920, 1080, 30, "42c028"},
	{"x264enc", "6742c02ada01e0089f97016a02020280000003008000003c478c1950", 1920, 1080, 60, "42c02a"},
	{"x264enc", "674d401fda014016ec05a808080a000003000200000300791e306540", 1280, 720, 30, "4d401f"},
	{"x264enc", "6764001facb402802dd80b50101014000003000400000300f23c60ca80", 1280, 720, 30, "64001f"},
	{"openh264enc", "6742c0158c8d40a0cbcf00f08846a0", 320, 180, 30, "42c015"},
	{"openh264enc", "6742c01e8c8d405017fcb00f08846a", 640, 360, 30, "42c01e"},
	{"openh264enc", "6742c0288c8d403c0113f2c03c2211a8", 1920, 1080, 30, "42c028"},
	{"openh264enc", "67640c20ac191a805005ba01e1108d40", 1280, 720, 60, "640c20"},
}

func TestParseSPSReadsWhatEncodersWrite(t *testing.T) {
	for _, c := range realSPS {
		nal, err := hex.DecodeString(c.nal)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSPS(nal)
		if err != nil {
			t.Errorf("%s %s: %v", c.encoder, c.id, err)
			continue
		}
		if s.Width != c.width || s.Height != c.height || s.ProfileLevelID() != c.id {
			t.Errorf("%s: read %dx%d %s, want %dx%d %s", c.encoder, s.Width, s.Height, s.ProfileLevelID(), c.width, c.height, c.id)
		}
	}
}

// What is promised in SDP before the first frame must hold for the SPS that comes.
func TestLevelIsTheOneThatEncodersChoose(t *testing.T) {
	for _, c := range realSPS {
		nal, _ := hex.DecodeString(c.nal)
		s, err := ParseSPS(nal)
		if err != nil {
			t.Fatal(err)
		}
		if got := H264Level(c.width, c.height, c.fps, 2_500_000, 500_000); got != s.Level {
			t.Errorf("%s %dx%d at %g: level %d, the encoder says %d", c.encoder, c.width, c.height, c.fps, got, s.Level)
		}
	}
}

func TestLevelHeedsEveryBound(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		fps           float64
		bps, cpb      int
		want          byte
	}{
		{"smallest", 160, 90, 15, 60_000, 0, 10},
		{"bitrate", 160, 90, 15, 5_000_000, 0, 30},
		{"buffer", 160, 90, 15, 60_000, 3_000_000, 21},
		{"macroblock rate", 1280, 720, 31, 2_500_000, 0, 32},
		{"frame size", 1920, 1088, 1, 2_500_000, 0, 40},
		// 4096 x 64 is 1024 macroblocks, but 256 wide: level 3.1 allows 169 a side
		{"side", 4096, 64, 1, 1_000_000, 0, 40},
		{"beyond all", 16384, 16384, 240, 2_000_000_000, 0, 62},
		{"unknown rate", 1280, 720, 0, 0, 0, 31},
	} {
		if got := H264Level(c.width, c.height, c.fps, c.bps, c.cpb); got != c.want {
			t.Errorf("%s: level %d, want %d", c.name, got, c.want)
		}
	}
}

func TestParseSPSRefusesWhatIsNone(t *testing.T) {
	good, _ := hex.DecodeString(realSPS[3].nal)
	for name, nal := range map[string][]byte{
		"empty": nil, "header only": good[:1], "cut": good[:6], "another NAL": append([]byte{0x68}, good[1:]...),
		"endless zeros": append(append([]byte{}, good[:4]...), make([]byte, 64)...),
	} {
		if s, err := ParseSPS(nal); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

func FuzzParseSPS(f *testing.F) {
	for _, c := range realSPS {
		nal, _ := hex.DecodeString(c.nal)
		f.Add(nal)
	}
	f.Fuzz(func(t *testing.T, nal []byte) {
		if s, err := ParseSPS(nal); err == nil && (s.Width <= 0 || s.Height <= 0 || s.Width > 1<<16 || s.Height > 1<<17) {
			t.Errorf("read a picture of %dx%d", s.Width, s.Height)
		}
	})
}

// What Debian 12's x264enc writes of 320x180 at 15 frames a second.
func TestUnplayableStreamsAreTold(t *testing.T) {
	for _, c := range []struct{ what, nal, unplayable string }{
		{"main, zerolatency", "674d401fda014016ec05a808080a000003000200000300791e306540", ""},
		{"high, zerolatency", "67640014acb202833f3e02d418181a940000030004000003007a3c50a920", ""},
		{"main, openh264enc", "674d4c0c8c8d40a0cbcf00f08846a0", ""},
		{"main, bframes=2", "674d4015e880a0cfcf80b5060606a50000030001000003001e8f162d12", "it has B-frames, which browsers show out of order"},
		{"high, b-pyramid", "67640014acd901419f9f016a0c0c0d4a0000030002000003003d1e28532c", "it has B-frames, which browsers show out of order"},
		{"high-10", "676e000da6cb202833f3e02d418181a9400000030040000007a3c50a9200", "browsers don't play H.264 of the profile High 10"},
		{"high-4:2:2", "677a000db6cb202833f1b80b506060640000030004000003007a3c50a920", "browsers don't play H.264 of the profile High 4:2:2"},
		{"high-4:4:4", "67f4000d90d96405067e37016a0c0c0c80000003008000000f478a1524", "browsers don't play H.264 of the profile High 4:4:4 Predictive"},
	} {
		nal, err := hex.DecodeString(c.nal)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSPS(nal)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		} else if got := s.Unplayable(); got != c.unplayable {
			t.Errorf("%s: %q, want %q", c.what, got, c.unplayable)
		}
	}
}

// A camera that cuts its SPS off behind the picture's size is played: whether it
// has B-frames is not said.
func TestParseSPSBearsACutEnd(t *testing.T) {
	nal, _ := hex.DecodeString("674d4015e880a0cfcf80b506")
	if s, err := ParseSPS(nal); err != nil || s.Reorder != -1 || s.Width != 320 || s.Unplayable() != "" {
		t.Errorf("%+v, %v", s, err)
	}
}
