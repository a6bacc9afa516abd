package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gateway/internal/media"
)

func encodersFile(t *testing.T, text string) (*Encoders, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "encoders.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadEncoders(path)
}

// An operator's file changes fields of known rows and adds others.
func TestOperatorsRowsAreLaidOverTheTable(t *testing.T) {
	table, err := encodersFile(t, `
- name: x264enc
  rank: 500
  element: x264enc name={name} tune=zerolatency bitrate={bitrate}
- name: lab
  factory: labenc
  codec: h264
  rank: 900
  element: labenc name={name} target="controls,rate={bitrate},gop={keyint}"
  bitrate: {property: target, in: rate, unit: 1000}
  format: NV12
  profiles: [constrained-baseline]
  parser: h264parse
  payloader: rtph264pay
`)
	if err != nil {
		t.Fatal(err)
	}
	was, _ := (*Encoders)(nil).Find("x264enc")
	now, _ := table.Find("x264enc")
	want := was
	want.Rank, want.Element, want.own = 500, "x264enc name={name} tune=zerolatency bitrate={bitrate}", true
	if !reflect.DeepEqual(now, want) {
		t.Errorf("got  %+v\nwant %+v", now, want)
	}
	s, err := ParseStream("x", "x.yaml", []byte("source: videotestsrc\nvideo: {encoder: labenc, bitrate: 700k}"), table)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(s, box)
	if err != nil {
		t.Fatal(err)
	}
	b := p.Feeds[0].Branches[0]
	text := `labenc name=encoder target="controls,rate=700,gop=60" ! h264parse ! rtph264pay`
	if b.Encoder != "lab" || b.Launch != text {
		t.Errorf("%s: %s, want %s", b.Encoder, b.Launch, text)
	}
	lower := b.WithBitrate(300_000)
	if want := strings.Replace(text, "700", "300", 1); lower.Launch != want || lower.Track.Bps != 300_000 || b.Launch != text {
		t.Errorf("at 300k: %s, want %s", lower.Launch, want)
	}
	if same, err := LoadEncoders(""); err != nil || same != ownEncoders {
		t.Error("no file gives another table", err)
	}
}

func TestBadEncoderFilesAreExplained(t *testing.T) {
	_, err := LoadEncoders("testdata/encoders/bad.yaml")
	want := `bad.yaml:2:12: [0].element: there is no placeholder {bitrat}; use {name}, {bitrate}, {keyint}, {threads}, {slices}, {tiles}, {profile}, {level}, {fec} or {dtx}
bad.yaml:2:12: [0].element: it must be one element, x264enc; write caps and other elements under caps, parser and payloader
bad.yaml:3:9: [1].name: another row has the name "x264enc"; keep one
bad.yaml:4:3: [2].name: it is missing; name the encoder, such as "name: x264enc"
bad.yaml:5:9: [3].name: "auto" cannot name an encoder; write letters, digits, - and _, such as the element's name
bad.yaml:11:10: [5].codec: "h246" is not one of h264, vp8, vp9, av1, h265, opus, pcmu, pcma; did you mean h264?
bad.yaml:12:3: [5].rnk: unknown key; did you mean [5].rank?
bad.yaml:13:12: [5].bitrate: expected keys and values, found the text "fast"; indent its keys below it
bad.yaml:14:3: [6]: expected keys and values, found the text "just words"; indent its keys below it`
	if got := strings.ReplaceAll(errorText(err), "testdata/encoders/", ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for text, want := range map[string]string{
		"name: x":                  "expected a list of encoders",
		"- {name: x, codec: h264}": "[0].factory: it is missing",
		"- {name: x, codec: h264, factory: xenc, format: I420, element: 'yenc name={name}'}": "it must be one element, xenc",
		"- {name: x, codec: h264, factory: xenc, element: 'xenc name={name}'}":               "[0].format: it is missing",
		"- {name: x, codec: h264, factory: xenc, format: I420, element: xenc}":               "the encoder has no name",
		"- {name: vp8enc, bitrate: {property: other}}":                                       "it does not set other",
		"- {name: vp8enc, payloader: '! x'}":                                                 `nothing comes before a "!"`,
	} {
		if _, err := encodersFile(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if table, err := encodersFile(t, "# nothing yet\n"); err != nil || len(table.rows) != len(ownEncoders.rows) {
		t.Errorf("an empty file: %v", err)
	}
}

// Every row makes a launch text in which its encoder is found again, without
// placeholders, and whose bitrate can be changed.
func TestEveryRowMakesALaunchText(t *testing.T) {
	for _, row := range ownEncoders.rows {
		t.Run(row.Name, func(t *testing.T) {
			text := "source: videotestsrc\nvideo: {encoder: " + row.Name + ", width: 1280, height: 720, bitrate: 1M}"
			if row.Codec.Kind() == media.Audio {
				text = "audio: {source: audiotestsrc, codec: " + string(row.Codec) + "}"
			}
			p, err := Compile(stream(t, "x", text), boxRegistry{})
			if err != nil {
				t.Fatal(err)
			}
			b := p.Feeds[0].Branches[0]
			whole := p.Feeds[0].Text(b)
			nodes, err := ParseLaunch(whole)
			if err != nil || strings.ContainsAny(strings.ReplaceAll(whole, "(memory:", ""), "{}") {
				t.Fatalf("%v: %s", err, whole)
			}
			i := slices.IndexFunc(nodes, func(n LaunchNode) bool { name, _ := n.Prop("name"); return name == b.Element })
			if i < 0 || nodes[i].Name != row.Factory {
				t.Fatalf("no encoder in %s", whole)
			}
			if row.Codec.Kind() == media.Video && row.Convert != "" && !strings.Contains(b.Launch, row.Convert+` ! capsfilter caps="video/x-raw(memory:`+row.Memory+`),format=NV12,width=1280,height=720`) {
				t.Errorf("no conversion in hardware: %s", b.Launch)
			}
			if f := chainFacts(nil, nodes, len(nodes)-1); f.encoder != row.Name || f.codec != row.Codec || row.Bitrate.Property != "" && f.bitrate != b.Track.Bps {
				t.Errorf("read back as %+v", f)
			}
			if row.Bitrate.Property == "" {
				return
			}
			back := b.WithBitrate(123_000).WithBitrate(b.Track.Bps)
			if again := b.WithBitrate(123_000); again.Launch == b.Launch || back.WithBitrate(123_000).Launch != again.Launch {
				t.Errorf("at 123 kbit/s: %s", again.Launch)
			}
		})
	}
}

func TestAutoTriesWhatMayNotWork(t *testing.T) {
	s := stream(t, "x", "source: ximagesrc\nvideo: {width: 640, height: 360, bitrate: 400k}")
	var tried []string
	r := box
	r.missing = nil
	r.tried = &tried
	r.broken = map[string]error{"nvv4l2h264enc": errors.New("no device"), "mpph264enc": errors.New("no frame in 2 s"), "nvcudah264enc": errors.New("not negotiated")}
	p, err := compile(s, r, 4)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Feeds[0].Branches[0].Encoder; got != "nvh264enc" {
		t.Errorf("took %s", got)
	}
	want := []string{
		"video: not nvv4l2h264enc: no device", "video: not mpph264enc: no frame in 2 s", "video: not nvcudah264enc: not negotiated",
		"video: encoder nvh264enc, the best one that works here for h264",
	}
	for _, w := range want {
		if !slices.Contains(p.Notes, w) {
			t.Errorf("no note %q in %q", w, p.Notes)
		}
	}
	first := `nvv4l2h264enc 640x360 30: nvvidconv ! capsfilter caps="video/x-raw(memory:NVMM),format=NV12,width=640,height=360,pixel-aspect-ratio=1/1" ! nvv4l2h264enc name=encoder`
	if len(tried) != 4 || !strings.HasPrefix(tried[0], first) {
		t.Errorf("tried %q", tried)
	}
	if last := "nvh264enc 640x360 30: videoconvertscale n-threads=1 ! video/x-raw,format=NV12,width=640,height=360,pixel-aspect-ratio=1/1,colorimetry=bt709 ! nvh264enc"; !strings.HasPrefix(tried[3], last) {
		t.Errorf("tried %q", tried[3])
	}

	// all hardware broken: software, which isn't tried
	tried = nil
	for _, row := range ownEncoders.rows {
		if row.Hardware {
			r.broken[row.Name] = errors.New("broken")
		}
	}
	if p, err = compile(s, r, 4); err != nil || p.Feeds[0].Branches[0].Encoder != "x264enc" {
		t.Errorf("%v, %v", p, err)
	}
	if len(tried) < 8 || slices.ContainsFunc(tried, func(s string) bool { return strings.HasPrefix(s, "x264enc") }) {
		t.Errorf("tried %q", tried)
	}

	// an operator's row is tried too; a named one never
	table, err := encodersFile(t, "- {name: x264enc, rank: 999}")
	if err != nil {
		t.Fatal(err)
	}
	s.table, tried = table, nil
	r.broken["x264enc"] = errors.New("changed badly")
	if p, err = compile(s, r, 4); err != nil || p.Feeds[0].Branches[0].Encoder != "openh264enc" {
		t.Errorf("%v, %v", p, err)
	}
	s = stream(t, "x", "source: ximagesrc\nvideo: {encoder: vah264enc}")
	tried = nil
	if _, err := compile(s, r, 4); err != nil || len(tried) > 0 {
		t.Errorf("%v, tried %q", err, tried)
	}

	// nobody tries encoders while the source is away
	s = stream(t, "x", "source: ximagesrc\nvideo: {}")
	r.absent = map[string]error{"ximagesrc": errors.New("no desktop")}
	if p, err := compile(s, r, 4); err != nil || len(tried) > 0 || p.Feeds[0].Absent == nil {
		t.Errorf("%v, tried %q", err, tried)
	}
}
