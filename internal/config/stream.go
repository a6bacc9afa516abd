package config

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"

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
	Loop     bool          // default true: a source that comes to its end begins anew
	OnDemand bool          // default true: capture runs only while someone watches
	Linger   time.Duration // default 10s: how long capture goes on after the last viewer
	Sync     string        // SyncAV (default) or SyncVideoFirst
	Watchdog Watchdog
	Video    *Video // nil: no video
	Audio    *Audio // nil: no audio

	Isolation string  // where it runs: IsolationProcess or IsolationNone; "": as the gateway says
	Worker    *Worker // nil: as the gateway says

	data  []byte // the file's text
	at    map[string]position
	table *Encoders
}

// Watchdog is after how long what doesn't work is started again.
type Watchdog struct {
	Start  time.Duration // default 10s: from launching to playing, and from that to the first frame
	Frames time.Duration // without a frame; 0: what suits the source, see Feed.Silence
	Pictures
}

// Pictures is for how long a picture may be what a fault makes of it; 0: that isn't
// looked for.
type Pictures struct {
	Frozen time.Duration // the same to the last bit
	Black  time.Duration
}

// Encoders is the table that the stream was checked against.
func (s *Stream) Encoders() *Encoders { return s.table }

// How picture and sound are shown.
const (
	SyncAV         = "av"          // together: the browser delays the earlier one
	SyncVideoFirst = "video-first" // each as soon as it is there
)

// Video is what a stream's video is encoded to.
type Video struct {
	Renditions []Rendition // best first, at least one; a file without a list has one of the name VideoTrack

	listed bool // under renditions
}

// Rendition is one encoding of a stream's video. In the launch form it tells
// what the launch text makes, as far as that is known.
type Rendition struct {
	Name             string            // of its track; in the launch form also of its appsink
	Codec            media.Codec       // default h264; "" for a copy whose codec the source tells
	Encoder          string            // "auto" (default), "copy", or the name of a row of the encoder table; launch form: the row in the text, or ""
	Width, Height    int               // pixels, even; 0: as the source has them
	FPS              float64           // frames a second; 0: the source's, at most 30
	Bitrate          Bitrate           // launch form: zeros while unknown
	KeyframeInterval time.Duration     // default 2s
	Profile          string            // h264: "constrained-baseline" (default) or "main"
	Degrade          bool              // default true: less is made of the picture rather than nothing; false in the launch form and for a copy
	Options          map[string]string // extra encoder properties
}

// Bitrate is in bit/s: Min ≤ Start ≤ Max.
type Bitrate struct{ Min, Start, Max int }

// Copy tells whether what the source has encoded is passed on as it is.
func (r *Rendition) Copy() bool { return r.Encoder == copyEncoder }

// Words that take the place of an encoder's name.
const (
	autoEncoder = "auto"
	copyEncoder = "copy"
)

// Audio is what a stream's audio is encoded to.
type Audio struct {
	Source   string            // everyday form: launch text of the source, one chain
	Codec    media.Codec       // default opus
	Bitrate  int               // bit/s; default 96k; launch form: 0 while unknown
	Channels int               // default 2, for PCMU and PCMA 1
	FEC      bool              // Opus: in-band forward error correction (RFC 6716 §2.1.7); default true
	DTX      bool              // Opus: discontinuous transmission (RFC 6716 §2.1.9); default false
	Options  map[string]string // extra encoder properties
}

// Names of tracks; in the launch form also of its appsinks. Every other name is
// a rendition's.
const (
	VideoTrack = "video" // the only rendition of a file that lists none
	AudioTrack = "audio"
)

// Bounds of what a pipeline may ask for.
const (
	minVideoBitrate, maxVideoBitrate = 30_000, 100_000_000
	minAudioBitrate, maxAudioBitrate = 6_000, 510_000 // RFC 6716 §2.1.1
	minSide, maxSide                 = 16, 8192
	maxFPS                           = 240
	maxText                          = 16 << 10
	maxRenditions                    = 8
	defaultBitrate                   = 2_500_000 // at 1280x720 and 30 frames a second
	defaultAudioBitrate              = 96_000
	defaultFPS                       = 30
)

// Position is where the value of a key such as "video.bitrate" or
// "video.renditions[1].codec" is in the file, from 1. A key that isn't given is
// where the mapping is that would hold it; 0, 0 if that isn't given either.
func (s *Stream) Position(key string) (line, column int) {
	for ; key != ""; key, _ = splitPath(key) {
		if p, ok := s.at[key]; ok {
			return p.line, p.column
		}
	}
	return 0, 0
}

var streamName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// ValidStreamName tells whether name can be a stream's.
func ValidStreamName(name string) bool { return streamName.MatchString(name) }

// LoadStream reads and checks one pipeline file against a table of encoders (nil:
// the gateway's own). The error is Errors: all findings at once.
func LoadStream(path string, table *Encoders) (*Stream, error) {
	name, ok := strings.CutSuffix(filepath.Base(path), ".yaml")
	if !ok {
		return nil, Errors{{File: path, Message: "a pipeline file ends in .yaml", Remedy: "rename it", Severity: Fault}}
	}
	data, fault := readFile(path)
	if fault != nil {
		return nil, Errors{fault}
	}
	return ParseStream(name, path, data, table)
}

// ParseStream checks the text of a pipeline file. The path only names the file in
// findings. The error is Errors: all findings at once.
func ParseStream(name, path string, data []byte, table *Encoders) (*Stream, error) {
	d := &document{file: path, schema: streamSchema, at: map[string]position{}}
	s := &Stream{Name: name, Path: path, data: data, at: d.at, table: table}
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
	s.Loop = m.boolean("loop", true)
	s.OnDemand = m.boolean("on_demand", true)
	s.Linger = m.duration("linger", 10*time.Second)
	s.Sync = m.one("sync", SyncAV)
	s.Watchdog = readWatchdog(m.d.mapping(m.value("watchdog"), "watchdog"))
	s.Isolation = m.one("isolation", "")
	if m.has("worker") {
		w := readWorker(d.mapping(m.value("worker"), "worker"))
		s.Worker = &w
	}
	if m.has("launch") {
		readLaunchForm(m, s)
	} else {
		readEverydayForm(m, s)
	}
	allowed := Elements{DefaultElements}
	if table != nil && table.elements != nil {
		allowed = *table.elements
	}
	d.errs = append(d.errs, allowed.refused(s)...)
	if err := d.errs.orNil(); err != nil {
		return nil, err
	}
	return s, nil
}

func readWatchdog(m *mapping) Watchdog {
	return Watchdog{
		Start: m.duration("start", 10*time.Second), Frames: m.duration("frames", 0),
		Pictures: Pictures{Frozen: m.duration("frozen", 0), Black: m.duration("black", 0)},
	}
}

// launchText reads a text in launch syntax and puts it on one line.
func launchText(m *mapping, name string) (string, []LaunchNode) {
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
	nodes, err := ParseLaunch(text)
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
		case i == 0 && n.Kind != LaunchElement:
			m.fault(name, quote(n.Name)+" is not an element", "begin with a source element such as v4l2src")
			return ""
		case n.Kind == LaunchRef:
			m.fault(name, "the reference "+quote(n.Name)+" is not allowed in a source", "write the whole pipeline under launch")
			return ""
		case n.Kind == LaunchElement && n.Name == "appsink":
			m.fault(name, "a source has no appsink: the gateway adds encoder and appsink", "leave it out, or write the whole pipeline under launch")
			return ""
		case i > 0 && !n.Linked:
			m.fault(name, quote(n.Name)+" is not linked to what comes before it", "put a \"!\" between them")
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
		s.Video = readVideo(m.d.mapping(m.value("video"), "video"), s.table)
	} else if m.has("source") {
		m.fault("source", "it is the source of video, and video is not given", "add \"video: {codec: h264}\", or move it to audio.source")
	}
	if audio {
		s.Audio = readAudio(m.d.mapping(m.value("audio"), "audio"))
	}
}
