package media

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestKeyframeReadsThePayload(t *testing.T) {
	for _, c := range []struct {
		name    string
		codec   Codec
		payload string
		want    bool
	}{
		{"IDR slice", H264, "65b804", true},
		{"SPS", H264, "6742c01f", true},
		{"slice", H264, "419a02", false},
		{"PPS", H264, "68ce3c80", false},
		{"SEI", H264, "0605ff", false},
		{"STAP-A of SPS and PPS", H264, "780004" + "6742c01f" + "0002" + "68ce", true},
		{"STAP-A of PPS and IDR", H264, "78" + "000268ce" + "000365b804", true},
		{"STAP-A of slices", H264, "78" + "0002419a" + "0002419a", false},
		{"STAP-A with a size beyond its end", H264, "78" + "ffff65b804", false},
		{"STAP-A with an empty unit", H264, "78" + "0000" + "000365b804", false},
		{"FU-A that begins an IDR", H264, "7c85b804", true},
		{"FU-A inside an IDR", H264, "7c05b804", true},
		{"FU-A of a slice", H264, "7c81b804", false},
		{"cut FU-A", H264, "7c85", false},
		{"empty", H264, "", false},

		{"IDR slice", H265, "2601af", true},
		{"CRA slice", H265, "2a01af", true},
		{"VPS", H265, "40010c", true},
		{"PPS", H265, "4401c1", false},
		{"slice", H265, "0201d0", false},
		{"AP of VPS and SPS", H265, "6001" + "000340010c" + "0003420101", true},
		{"AP of slices", H265, "6001" + "00030201d0" + "00030201d0", false},
		{"AP with a size beyond its end", H265, "6001" + "ffff2601af", false},
		{"FU inside an IDR", H265, "620113af", true},
		{"FU of a slice", H265, "620181af", false},
		{"cut", H265, "6201", false},

		{"no extension", VP8, "10" + "9012009d", true},
		{"no extension, P frame", VP8, "10" + "9112009d", false},
		{"continuation", VP8, "00" + "9012", false},
		{"second partition", VP8, "11" + "9012", false},
		{"picture id of 7 bits", VP8, "908011" + "10", true},
		{"picture id of 15 bits", VP8, "90808011" + "10", true},
		{"picture id of 15 bits, P frame", VP8, "90808011" + "11", false},
		{"all of the extension", VP8, "90f0801122" + "33" + "10", true},
		{"cut in the extension", VP8, "90f080", false},
		{"empty", VP8, "", false},

		{"begins an intra frame", VP9, "0849", true},
		{"rtpvp9pay", VP9, "0a1849834200", true},
		{"inside an intra frame", VP9, "0049", false},
		{"predicted", VP9, "4849", false},
		{"picture id of 15 bits", VP9, "88801149", true},
		{"lowest spatial layer", VP9, "28000049", true},
		{"upper spatial layer", VP9, "28020049", false},
		{"cut", VP9, "88", false},
		{"only a descriptor", VP9, "8811", false},

		{"new coded video sequence", AV1, "180a0b", true},
		{"continues one", AV1, "100a0b", false},
		{"empty", AV1, "", false},

		{"any", Opus, "fc", true},
	} {
		payload, err := hex.DecodeString(c.payload)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got := Keyframe(c.codec, payload); got != c.want {
			t.Errorf("%s %s: keyframe %v, want %v", c.codec, c.name, got, c.want)
		}
	}
}

func TestH264SPSIsFound(t *testing.T) {
	sps, _ := hex.DecodeString("6742c01fda014016ec")
	stap := append([]byte{0x78, 0, 2, 0x06, 0x05, 0, byte(len(sps))}, sps...)
	stap = append(stap, 0, 2, 0x68, 0xce)
	for name, payload := range map[string][]byte{"whole": sps, "in a STAP-A": stap} {
		if got := H264SPS(payload); !bytes.Equal(got, sps) {
			t.Errorf("%s: found %x, want %x", name, got, sps)
		}
	}
	for name, payload := range map[string][]byte{"IDR": {0x65, 0xb8}, "FU-A of an SPS": {0x7c, 0x87, 1, 2}, "empty": nil} {
		if got := H264SPS(payload); got != nil {
			t.Errorf("%s: found %x in it", name, got)
		}
	}
}

func TestPayloadFactsDoNotAllocate(t *testing.T) {
	payload, _ := hex.DecodeString("78000268ce000365b804")
	n := testing.AllocsPerRun(100, func() {
		for _, c := range []Codec{H264, VP8, VP9, AV1, Opus} {
			Keyframe(c, payload)
		}
		H264SPS(payload)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzKeyframe(f *testing.F) {
	for _, s := range []string{"7800046742c01f000268ce", "7c85b804", "90f080112233", "28000049", "180a0b"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		for _, c := range []Codec{H264, H265, VP8, VP9, AV1, Opus} {
			Keyframe(c, payload)
		}
		if sps := H264SPS(payload); sps != nil {
			if !bytes.Contains(payload, sps) || sps[0]&0x1f != nalSPS {
				t.Errorf("%x is no SPS of %x", sps, payload)
			}
			ParseSPS(sps)
		}
		if !bytes.Equal(before, payload) {
			t.Error("the payload was changed")
		}
	})
}
