package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The schemas in docs/ are those of the code.
func TestSchemasAreThoseOfTheCode(t *testing.T) {
	for path, want := range map[string][]byte{
		"../../docs/pipeline.schema.json": Schema(), "../../docs/gateway.schema.json": GatewaySchema(), "../../docs/encoders.schema.json": EncodersSchema(),
	} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code has (go test -update writes it anew): %v", path, err)
		}
	}
}

// valid checks a value against the parts of JSON Schema that are used here.
func valid(schema map[string]any, v any) error {
	for _, sub := range asList(schema["anyOf"]) {
		if valid(sub.(map[string]any), v) == nil {
			return nil
		}
	}
	if schema["anyOf"] != nil {
		return fmt.Errorf("%v is none of what is allowed", v)
	}
	if c, ok := schema["const"]; ok && fmt.Sprint(c) != fmt.Sprint(v) {
		return fmt.Errorf("%v is not %v", v, c)
	}
	if words := asList(schema["enum"]); words != nil && !slices.Contains(words, v) {
		return fmt.Errorf("%v is none of %v", v, words)
	}
	kinds := asList(schema["type"])
	if kinds == nil && schema["type"] != nil {
		kinds = []any{schema["type"]}
	}
	if kinds != nil && !slices.ContainsFunc(kinds, func(k any) bool { return isA(v, k.(string)) }) {
		return fmt.Errorf("%v (%T) is no %v", v, v, kinds)
	}
	switch v := v.(type) {
	case string:
		if p, ok := schema["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			return fmt.Errorf("%q does not match %s", v, p)
		}
	case int:
		if least, ok := schema["minimum"].(float64); ok && (float64(v) < least || float64(v) > schema["maximum"].(float64)) {
			return fmt.Errorf("%d is out of range", v)
		}
	case []any:
		if most, ok := schema["maxItems"].(float64); ok && len(v) > int(most) {
			return fmt.Errorf("%d items", len(v))
		}
		for _, it := range v {
			if err := valid(schema["items"].(map[string]any), it); err != nil {
				return err
			}
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, it := range v {
			sub, ok := properties[name].(map[string]any)
			if !ok {
				if sub, ok = schema["additionalProperties"].(map[string]any); !ok {
					return fmt.Errorf("unknown key %s", name)
				}
			}
			if err := valid(sub, it); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func asList(v any) []any { l, _ := v.([]any); return l }

func isA(v any, kind string) bool {
	switch v.(type) {
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case int:
		return kind == "integer" || kind == "number"
	case float64:
		return kind == "number"
	case []any:
		return kind == "array"
	case map[string]any:
		return kind == "object"
	}
	return false
}

// What is shipped is valid, what the schema can see as wrong is not.
func TestSchemasFitWhatIsShipped(t *testing.T) {
	schemaOf := func(data []byte) map[string]any {
		var s map[string]any
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(schema []byte, path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		return valid(schemaOf(schema), v)
	}
	shipped, err := filepath.Glob("../../pipelines/*.yaml")
	if err != nil || len(shipped) < 4 {
		t.Fatal(shipped, err)
	}
	const modeline = "# yaml-language-server: $schema="
	for _, path := range append(shipped, "../../configs/gateway.yaml") {
		schema, name := Schema(), "../docs/pipeline.schema.json"
		if strings.Contains(path, "configs") {
			schema, name = GatewaySchema(), "../docs/gateway.schema.json"
		}
		if err := check(schema, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if data, _ := os.ReadFile(path); !strings.HasPrefix(string(data), modeline+name+"\n") {
			t.Errorf("%s does not begin with %q", path, modeline+name)
		}
	}
	if err := check(EncodersSchema(), "encoders.yaml"); err != nil {
		t.Errorf("encoders.yaml: %v", err)
	}
	for _, name := range []string{"typos", "ranges", "types", "later", "renditions", "nulls"} {
		if check(Schema(), "testdata/bad/"+name+".yaml") == nil {
			t.Errorf("%s.yaml is valid", name)
		}
	}
}

// The table of keys in docs/pipelines.md is written from the code.
func TestPipelineKeysAreDocumented(t *testing.T) {
	const path, begin, end = "../../docs/pipelines.md", "<!-- keys: written by go test ./internal/config -update -->\n", "<!-- end of keys -->"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", path, begin, end)
	}
	want := keyTable(streamSchema)
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("the table in %s is not what the code has (go test -update writes it anew)", path)
	}
}

func keyTable(s *schema) string {
	var b strings.Builder
	b.WriteString("| key | default | unit, range | example | meaning |\n| --- | --- | --- | --- | --- |\n")
	code := func(s string) string {
		if s == "" {
			return "-"
		}
		return "`" + s + "`"
	}
	for _, k := range s.keys {
		def, unit := k.otherwise, k.unit
		if def == "" {
			def = code(k.def)
		}
		if unit == "" && len(k.words) > 0 {
			unit = "`" + strings.Join(k.words, "`, `") + "`"
		}
		if unit == "" {
			unit = "-"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.path, def, unit, code(k.example), k.meaning)
	}
	return b.String()
}

// Every default and example of the tables is what the reader takes.
func TestDefaultsAndExamplesAreTaken(t *testing.T) {
	bare := stream(t, "x", "source: videotestsrc\nvideo: {}\naudio: {source: audiotestsrc}")
	var settings map[string]any
	if err := yaml.Unmarshal([]byte(bare.Settings()), &settings); err != nil {
		t.Fatal(err)
	}
	for _, k := range streamSchema.keys {
		if k.def == "" {
			continue
		}
		v := any(settings)
		for part := range strings.SplitSeq(k.path, ".") {
			m, _ := v.(map[string]any)
			v = m[part]
		}
		if fmt.Sprint(v) != k.def {
			t.Errorf("%s is %v without the key, and documented as %s", k.path, v, k.def)
		}
	}
	for _, k := range streamSchema.keys {
		if k.example == "" || k.path == "source" || k.path == "launch" || k.path == "audio.source" {
			continue
		}
		// a file that has this key only, beside what is needed
		codec := map[bool]string{true: "", false: "codec: h264"}[strings.HasSuffix(k.path, ".codec") || strings.HasSuffix(k.path, ".encoder")]
		video, audio, top := codec, "", ""
		section, name := splitPath(k.path)
		entry := name + ": " + k.example
		switch {
		case strings.HasSuffix(name, "width"), strings.HasSuffix(name, "height"):
			entry = "width: 1280, height: 720"
		case strings.Contains(k.path, "bitrate."):
			entry = "bitrate: {" + entry + "}"
		}
		switch {
		case strings.HasPrefix(k.path, "video.renditions[]") && name == "name":
			video = "renditions: [{" + entry + "}]"
		case strings.HasPrefix(k.path, "video.renditions[]"):
			video = "renditions: [{name: low, " + entry + "}]"
		case strings.HasPrefix(k.path, "video."):
			video = strings.TrimPrefix(codec+", "+entry, ", ")
		case strings.HasPrefix(k.path, "audio."):
			audio = ", " + entry
		case section != "":
			top = section + ": {" + entry + "}"
		default:
			top = entry
		}
		text := top + "\nsource: videotestsrc\nvideo: {" + video + "}\naudio: {source: audiotestsrc" + audio + "}\n"
		if _, err := ParseStream("x", "x.yaml", []byte(text), nil); err != nil {
			t.Errorf("the example of %s: %v\n%s", k.path, err, text)
		}
	}
}

// The settings of a stream give the same stream, but for secrets.
func TestSettingsGiveTheSameStream(t *testing.T) {
	texts := []string{
		"source: v4l2src\nvideo: {}\naudio: {source: pulsesrc}",
		"title: 'yes: {a}'\nsource: >\n  videotestsrc\n  ! videoflip\nloop: false\non_demand: false\nlinger: 0s\nsync: video-first\nwatchdog: {start: 30s, frames: 700ms, frozen: 1m30s, black: 5s}\nisolation: process\nworker: {memory: 700M, files: 64, nice: -1, scheduler: batch, cpus: '0,1'}\nvideo: {codec: vp8, width: 640, height: 360, framerate: 30000/1001, bitrate: 812345, options: {a: 'true', b: '1', c: ''}}",
		"source: v4l2src\nvideo: {renditions: [{name: full, encoder: copy}, {name: low, codec: vp9, width: 320, height: 180, bitrate: {min: 50k, max: 1M}}]}",
		"source: v4l2src\nvideo: {encoder: copy, codec: h264, bitrate: 3M}\naudio: {source: alsasrc, codec: pcmu, options: {a: b}}",
		"audio: {source: alsasrc, dtx: true, fec: false, channels: 1}",
		"launch: videotestsrc ! tee name=t t. ! x264enc bitrate=900 ! rtph264pay ! appsink name=high t. ! vp8enc ! rtpvp8pay ! appsink name=low pulsesrc ! opusenc ! rtpopuspay ! appsink name=audio\nvideo: {framerate: 25, renditions: [{name: low, bitrate: 100k}]}",
		"launch: videotestsrc ! x264enc ! rtph264pay ! appsink name=video",
	}
	for _, text := range texts {
		s := stream(t, "x", text)
		again := stream(t, "x", s.Settings())
		a, b := values(s), values(again)
		for _, v := range []*Stream{&a, &b} {
			if v.Video != nil {
				v.Video.listed = false
			}
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s\ngives\n%s\nwhich is %+v %+v, not %+v %+v", text, s.Settings(), b, b.Video, a, a.Video)
		}
	}
	secret := stream(t, "x", "source: rtspsrc location=rtsp://admin:hunter2@192.0.2.9/ user-pw=hunter2\nvideo: {}\naudio: {source: rtspsrc location=rtsp://admin:hunter2@192.0.2.9/}")
	if strings.Contains(secret.Settings(), "hunter2") {
		t.Error(secret.Settings())
	}
}

// A place in a launch text is found in the file however it is written there.
func TestPlacesInLaunchTextsAreFound(t *testing.T) {
	for text, want := range map[string][2]int{
		"source: videotestsrc ! x264enc bad=1 ! queue\nvideo: {}":                               {1, 32},
		"title: ü\nsource: >-  # folded\n  videotestsrc\n\n    ! x264enc\n    bad=1\nvideo: {}": {6, 5},
		"source: |\n  videotestsrc ! x264enc\n  bad=1\nvideo: {}":                               {3, 3},
		"source: 'videotestsrc name=''a'' ! x264enc bad=1'\nvideo: {}":                          {1, 44},
		"source: \"videotestsrc name=\\\"ä\\\" ! x264enc\n  bad=1\"\nvideo: {}":                 {2, 3},
		"source: \"videotestsrc name=\\x41 ! x264enc bad=1\"\nvideo: {}":                        {1, 9}, // an escape: the whole text
		"source: videotestsrc !\n  x264enc\n  bad=1\nvideo: {}":                                 {3, 3},
	} {
		s, err := ParseStream("x", "x.yaml", []byte(text), nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		line, column := s.Locate("source", strings.Index(s.Source, "bad=1"))
		if line != want[0] || column != want[1] {
			t.Errorf("%q: at %d:%d, want %v", text, line, column, want)
		}
	}
	s := stream(t, "x", "audio:\n  source: >\n    pulsesrc\n    ! volume")
	if line, column := s.Locate("audio.source", strings.Index(s.Audio.Source, "volume")); line != 4 || column != 7 {
		t.Errorf("at %d:%d", line, column)
	}
	if line, column := s.Locate("source", 3); line != 0 || column != 0 {
		t.Errorf("a key that isn't given is at %d:%d", line, column)
	}
}
