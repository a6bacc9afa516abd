package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// Stream is one pipelines/NAME.yaml, checked, with defaults. It has either
// Source and Audio.Source (everyday form) or Launch.
type Stream struct {
	Name     string        // file name without .yaml; matches [a-zA-Z0-9][a-zA-Z0-9_-]{0,63}
	Title    string        // default: the name
	Path     string        // file it was read from
	Source   string        // everyday form: launch text of the video source, one chain
	Launch   string        // launch form: the whole pipeline
	OnDemand bool          // default true: capture runs only while someone watches
	Linger   time.Duration // default 10s: how long capture goes on after the last viewer
	Video    *Video        // nil: no video
	Audio    *Audio        // nil: no audio

	at map[string]position
}

// Video is what a stream's video is encoded to. In the launch form it tells what
// the launch text makes, as far as that is known.
type Video struct {
	Codec            media.Codec       // default h264
	Encoder          string            // "auto" (default), or the name of a row of the encoder table; launch form: the row in the text, or ""
	Width, Height    int               // pixels, even; 0: as the source has them
	FPS              float64           // frames a second; 0: the source's, at most 30
	Bitrate          int               // bit/s; default 2.5M; launch form: 0 while unknown
	KeyframeInterval time.Duration     // default 2s
	Profile          string            // h264: "constrained-baseline" (default) or "main"
	Options          map[string]string // extra encoder properties
}

// Audio is what a stream's audio is encoded to.
type Audio struct {
	Source   string      // everyday form: launch text of the source, one chain
	Codec    media.Codec // default opus
	Bitrate  int         // bit/s; default 96k; launch form: 0 while unknown
	Channels int         // default 2
}

// Names of the tracks that a stream has; in the launch form also the names of
// its appsinks.
const (
	VideoTrack = "video"
	AudioTrack = "audio"
)

var streamSchema = &schema{
	what: "pipeline",
	keys: []key{
		{"title", "the file's name"},
		{"source", ""},
		{"launch", ""},
		{"on_demand", "true"},
		{"linger", "10s"},
		{"video", ""},
		{"video.codec", "h264"},
		{"video.encoder", "auto"},
		{"video.width", "the source's"},
		{"video.height", "the source's"},
		{"video.framerate", "the source's, at most 30"},
		{"video.bitrate", "2.5M"},
		{"video.keyframe_interval", "2s"},
		{"video.profile", "constrained-baseline"},
		{"video.options", ""},
		{"audio", ""},
		{"audio.source", ""},
		{"audio.codec", "opus"},
		{"audio.bitrate", "96k"},
		{"audio.channels", "2"},
	},
	later: map[string]string{
		"renditions":       "give one size and bitrate under video",
		"video.renditions": "give one size and bitrate under video",
		"video.sync":       "remove it",
		"audio.options":    "remove it",
		"audio.fec":        "remove it; in-band FEC is on",
		"audio.dtx":        "remove it; DTX is off",
		"audio.encoder":    "remove it",
		"sync":             "remove it",
		"isolation":        "remove it; the pipeline runs in the gateway's process",
		"limits":           "remove it",
		"room":             "remove it; every stream is its own room",
		"rooms":            "remove it; every stream is its own room",
		"placeholder":      "remove it",
		"watchdog":         "remove it",
		"record":           "remove it",
	},
}

// Bounds of what a pipeline may ask for.
const (
	minVideoBitrate, maxVideoBitrate = 30_000, 100_000_000
	minAudioBitrate, maxAudioBitrate = 6_000, 510_000 // RFC 6716 §2.1.1
	minSide, maxSide                 = 16, 8192
	maxFPS                           = 240
	maxText                          = 16 << 10
	defaultBitrate                   = 2_500_000
	defaultAudioBitrate              = 96_000
	defaultFPS                       = 30
)

var streamName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// ValidStreamName tells whether name can be a stream's.
func ValidStreamName(name string) bool { return streamName.MatchString(name) }

// LoadStream reads and checks one pipeline file. The error is Errors: all
// findings at once.
func LoadStream(path string) (*Stream, error) {
	name, ok := strings.CutSuffix(filepath.Base(path), ".yaml")
	if !ok {
		return nil, Errors{{File: path, Message: "a pipeline file ends in .yaml", Remedy: "rename it", Severity: Fault}}
	}
	data, fault := readFile(path)
	if fault != nil {
		return nil, Errors{fault}
	}
	return ParseStream(name, path, data)
}

// LoadStreams reads every pipeline file of a folder, in the order of their names;
// files whose names begin with a dot are left out. The good ones are returned
// together with the findings (Errors) of the others.
func LoadStreams(dir string) ([]*Stream, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		message, remedy := bare(err), "make it readable for the gateway's user"
		if errors.Is(err, os.ErrNotExist) {
			message, remedy = "the folder of pipelines does not exist", "create it, or name another by -pipelines or the key pipelines"
		}
		return nil, Errors{{File: dir, Message: message, Remedy: remedy, Severity: Fault}}
	}
	var streams []*Stream
	var errs Errors
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case strings.HasSuffix(e.Name(), ".yml"):
			errs = append(errs, &Error{File: path, Message: "a pipeline file ends in .yaml", Remedy: "rename it", Severity: Fault})
		case strings.HasSuffix(e.Name(), ".yaml"):
			s, err := LoadStream(path)
			var found Errors
			if errors.As(err, &found) {
				errs = append(errs, found...)
				continue
			}
			streams = append(streams, s)
		}
	}
	return streams, errs.orNil()
}

// ParseStream checks the text of a pipeline file. The path only names the file in
// findings. The error is Errors: all findings at once.
func ParseStream(name, path string, data []byte) (*Stream, error) {
	d := &document{file: path, schema: streamSchema, at: map[string]position{}}
	s := &Stream{Name: name, Path: path, at: d.at}
	if !ValidStreamName(name) {
		d.fault(nil, "", "the stream name "+quote(name)+" is not allowed",
			"rename the file: letters, digits, - and _, at most 64, beginning with a letter or digit")
	}
	top := d.parse(data)
	if top == nil {
		if len(d.errs) == 0 {
			d.fault(nil, "", "the file is empty", "say at least what to capture: \"source: videotestsrc is-live=true\" and \"video: {codec: h264}\"")
		}
		return nil, d.errs.orNil()
	}
	m := d.mapping(top, "")
	s.Title = strings.TrimSpace(m.text("title", name, 200))
	if s.Title == "" {
		s.Title = name
	}
	s.OnDemand = m.boolean("on_demand", true)
	s.Linger = m.duration("linger", 10*time.Second, 0, 24*time.Hour)
	if m.has("launch") {
		readLaunchForm(m, s)
	} else {
		readEverydayForm(m, s)
	}
	if err := d.errs.orNil(); err != nil {
		return nil, err
	}
	return s, nil
}

// launchText reads a text in launch syntax and puts it on one line.
func launchText(m *mapping, name string) (string, []launchNode) {
	if m.value(name) == nil {
		return "", nil
	}
	before := len(m.d.errs)
	text := strings.TrimSpace(strings.NewReplacer("\r", " ", "\n", " ", "\t", " ").Replace(m.text(name, "", maxText)))
	if len(m.d.errs) > before {
		return "", nil
	}
	if text == "" {
		m.fault(name, "it is empty", "write elements in gst-launch syntax")
		return "", nil
	}
	nodes, err := parseLaunch(text)
	if err != nil {
		m.fault(name, err.Error(), "write it as for gst-launch-1.0")
		return "", nil
	}
	return text, nodes
}

// sourceText reads a source: one chain that begins with an element and whose
// end the gateway links.
func sourceText(m *mapping, name string) string {
	text, nodes := launchText(m, name)
	if nodes == nil {
		return ""
	}
	for i, n := range nodes {
		switch {
		case i == 0 && n.kind != launchElement:
			m.fault(name, quote(n.name)+" is not an element", "begin with a source element such as v4l2src")
			return ""
		case n.kind == launchRef:
			m.fault(name, "the reference "+quote(n.name)+" is not allowed in a source", "write the whole pipeline under launch")
			return ""
		case n.kind == launchElement && n.name == "appsink":
			m.fault(name, "a source has no appsink: the gateway adds encoder and appsink", "leave it out, or write the whole pipeline under launch")
			return ""
		case i > 0 && !n.linked:
			m.fault(name, quote(n.name)+" is not linked to what comes before it", "put a \"!\" between them")
			return ""
		}
	}
	return text
}

func readEverydayForm(m *mapping, s *Stream) {
	video, audio := m.has("video"), m.has("audio")
	if !video && !audio {
		m.d.fault(m.node, "", "neither video nor audio is given", "add \"video: {codec: h264}\" or audio with a source")
	}
	s.Source = sourceText(m, "source")
	if video {
		if !m.has("source") {
			m.d.fault(m.node, "source", "it is missing", "say what to capture, such as \"source: v4l2src device=/dev/video0\"")
		}
		s.Video = readVideo(m.d.mapping(m.value("video"), "video"))
	} else if m.has("source") {
		m.fault("source", "it is the source of video, and video is not given", "add \"video: {codec: h264}\", or move it to audio.source")
	}
	if audio {
		s.Audio = readAudio(m.d.mapping(m.value("audio"), "audio"))
	}
}

// codec reads a codec of a kind.
func (m *mapping) codec(kind media.Kind, def media.Codec) media.Codec {
	var names []string
	for _, c := range media.Codecs(kind) {
		names = append(names, string(c))
	}
	c := media.Codec(m.one("codec", string(def), names...))
	if !m.has("codec") || len(Encoders(c)) > 0 {
		return c
	}
	supported := []string{}
	for _, n := range names {
		if len(Encoders(media.Codec(n))) > 0 {
			supported = append(supported, n)
		}
	}
	m.fault("codec", string(c)+" is not supported yet", "use "+orList(supported))
	return ""
}

func readVideo(m *mapping) *Video {
	v := &Video{Codec: m.codec(media.Video, media.H264)}
	readPicture(m, v)
	v.Encoder = m.text("encoder", "auto", 64)
	if row, ok := FindEncoder(v.Encoder); ok {
		v.Encoder = row.Name
		if row.Codec != v.Codec {
			m.fault("encoder", fmt.Sprintf("%s makes %s, and video.codec is %s", row.Name, row.Codec, v.Codec),
				"use "+orList(encoderNames(v.Codec)))
		}
	} else if v.Encoder != "auto" {
		remedy := "use " + orList(encoderNames(v.Codec))
		if near := nearest(v.Encoder, encoderNames("")); near != "" {
			remedy = "did you mean " + near + "?"
		}
		m.fault("encoder", quote(v.Encoder)+" is not a known encoder", remedy)
	}
	v.Bitrate = m.bitrate("bitrate", defaultBitrate, minVideoBitrate, maxVideoBitrate)
	v.KeyframeInterval = m.duration("keyframe_interval", 2*time.Second, 100*time.Millisecond, 5*time.Minute)
	if m.has("profile") && v.Codec != media.H264 {
		m.fault("profile", "only h264 has profiles here", "remove it")
	}
	v.Profile = m.one("profile", "constrained-baseline", "constrained-baseline", "main")
	if v.Codec != media.H264 {
		v.Profile = ""
	}
	v.Options = readOptions(m)
	return v
}

// readPicture reads size and frame rate, which both forms have.
func readPicture(m *mapping, v *Video) {
	v.Width = m.integer("width", 0, minSide, maxSide, "pixels")
	v.Height = m.integer("height", 0, minSide, maxSide, "pixels")
	for name, n := range map[string]int{"width": v.Width, "height": v.Height} {
		if n%2 != 0 {
			m.fault(name, fmt.Sprintf("%d is odd", n), fmt.Sprintf("encoders need even sizes: write %d", n-1))
		}
	}
	if m.has("width") != m.has("height") {
		given, other := "width", "height"
		if m.has("height") {
			given, other = other, given
		}
		m.fault(given, other+" is not given", "give both, or none for the source's size")
	}
	v.FPS = m.rate("framerate", 1, maxFPS)
}

var propertyName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,63}$`)

// readOptions reads extra encoder properties.
func readOptions(m *mapping) map[string]string {
	n := m.value("options")
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		m.fault("options", "expected encoder properties, found "+describe(n), "write each as \"name: value\"")
		return nil
	}
	options := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		full := joinPath("video.options", k.Value)
		switch _, twice := options[k.Value]; {
		case k.Kind != yaml.ScalarNode || !propertyName.MatchString(k.Value):
			m.d.fault(k, "video.options", quote(k.Value)+" is not a property name", "see gst-inspect-1.0 of the encoder")
		case twice:
			m.d.fault(k, full, "the key was already given", "remove one of them")
		case k.Value == "name":
			m.d.fault(k, full, "the gateway names the encoder", "remove it")
		case v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null":
			m.d.fault(v, full, "expected a value, found "+describe(v), "write one value, in quotes if it is a text with spaces")
		case len(v.Value) > 1024 || strings.ContainsFunc(v.Value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			m.d.fault(v, full, "the value is too long or holds a control character", "shorten it to 1024 bytes on one line")
		default:
			options[k.Value] = v.Value
		}
	}
	return options
}

func readAudio(m *mapping) *Audio {
	a := &Audio{Codec: m.codec(media.Audio, media.Opus)}
	a.Source = sourceText(m, "source")
	if m.node != nil && !m.has("source") {
		m.d.fault(m.node, "audio.source", "it is missing", "say what to capture, such as \"source: pulsesrc\"")
	}
	a.Bitrate = m.bitrate("bitrate", defaultAudioBitrate, minAudioBitrate, maxAudioBitrate)
	a.Channels = m.integer("channels", 2, 1, 2, "channels")
	return a
}
