package config

import (
	"slices"
	"strings"
	"time"

	"gateway/internal/media"
)

// Plan is a stream compiled for one machine: what is captured, and what is made
// of it.
type Plan struct {
	Feeds []Feed   // video first
	Notes []string // what was chosen and why, for people
}

// Feed is one capture and its encodings. The feeds of a stream run and fail
// apart.
type Feed struct {
	Name string // "video", "audio"; "launch" in the launch form

	// Capture is launch text. It ends open: what it yields is handed to the
	// branches. Of a whole feed it is the complete pipeline, whose appsinks have
	// their tracks' names.
	Capture string
	Sources []string // launch texts of its source elements, to look whether they are there
	What    string   // what its source is to people: "camera", "screen"; "" if nothing is known
	Devices []string // what only one pipeline can hold at a time, such as "v4l2src /dev/video0"; links are followed
	Whole   bool     // launch form: the branches are part of Capture and run with it
	Loop    bool     // begin anew when the source comes to its end
	Once    bool     // its source comes to an end, and that is the feed's

	// Announced: that its source is there again is told, by the kernel or GStreamer's
	// device providers.
	Announced bool

	// Silence is after how long without a frame the feed counts as stuck, unless the
	// file says.
	Silence   time.Duration
	Pictures  Pictures // what is looked for in what its encoders are given
	Isolation string   // as the stream's
	Worker    *Worker  // likewise

	// Absent is why the source can't be opened now, an *AbsentError. What the feed
	// holds is then made without knowing what the source delivers: compile again
	// before it is launched.
	Absent error

	Branches []Branch
}

// Branch is one encoding of what a feed captures: a track.
type Branch struct {
	Track    media.Track
	Launch   string              // from what the capture yields to packets (or, without a payloader, whole frames); "" in a whole feed
	Encoder  string              // row of the encoder table; "" where it isn't known, and for a copy
	Element  string              // name of the encoder element, by which its bitrate is set; "" where there is none (or, in a whole feed, it has no name)
	Bitrate  BitrateProperty     // of that element
	Keyframe KeyframeProperty    // likewise
	Copy     bool                // not encoded here: keyframes come when the source makes them
	Scarce   bool                // its viewers' networks carry less than what it is configured to make
	Reduced  [Reductions]Reduced // ever less to encode, for what a network or a CPU can't do; those after the last are empty
}

// Reductions is how often a picture can be reduced at most.
const Reductions = 3

// Reduced is a branch that makes less of the same pictures.
type Reduced struct {
	Launch        string  // in place of the branch's
	Width, Height int     // pixels; 0: as the branch's
	FPS           float64 // frames a second
}

// Levels is how many pictures the branch can make: its own, and the reduced ones.
func (b Branch) Levels() int {
	n := 1
	for _, r := range b.Reduced {
		if r.Launch != "" {
			n++
		}
	}
	return n
}

// At is the branch with the picture of a level: 0 is its own, Levels()-1 the least.
// What is said to viewers in SDP stays as it is.
func (b Branch) At(level int) Branch {
	if level = min(level, b.Levels()-1); level > 0 {
		r := b.Reduced[level-1]
		b.Launch, b.Track.FPS = r.Launch, r.FPS
		if r.Width > 0 {
			b.Track.Width, b.Track.Height = r.Width, r.Height
		}
	}
	return b
}

// Adjustable tells whether the branch's bitrate can be set while it runs.
func (b Branch) Adjustable() bool {
	return b.Element != "" && b.Bitrate.Property != "" && b.Bitrate.Live
}

// queueText takes the place of the hand-over between capture and branch in a
// text for gst-launch-1.0.
const queueText = "queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0"

// Text is the whole launch text of one branch, for gst-launch-1.0 and for people.
// It can be pasted into a shell.
func (f Feed) Text(b Branch) string {
	if f.Whole {
		return shellCaps(f.Capture)
	}
	pace, queue := "", queueText
	if f.Loop {
		pace = "clocksync" // as package gst does for what isn't live
	}
	for _, o := range f.Branches {
		if o.Copy {
			queue = "queue" // of frames that depend on each other none may go
		}
	}
	return shellCaps(strings.Join(parts(f.Capture, pace, queue, b.Launch, SinkText(b.Track.Name)), " ! "))
}

// shellCaps writes caps that a shell would not leave alone, such as
// video/x-raw(memory:NVMM), as the property of a capsfilter.
func shellCaps(text string) string {
	nodes, err := ParseLaunch(text)
	if err != nil {
		return text
	}
	for _, n := range slices.Backward(nodes) {
		if n.Kind == LaunchCaps && strings.ContainsAny(n.Name, "();&<>$ ") {
			text = text[:n.Start] + "capsfilter caps=" + quoteLaunch(n.Name) + text[n.End:]
		}
	}
	return text
}

// Tracks are the tracks of all feeds, in order.
func (p *Plan) Tracks() []media.Track {
	var tracks []media.Track
	for _, f := range p.Feeds {
		for _, b := range f.Branches {
			tracks = append(tracks, b.Track)
		}
	}
	return tracks
}

// WithBitrate is the branch at another bitrate in bit/s, as it would be compiled.
// One whose encoder can't be told a bitrate, or isn't known, stays as it is.
func (b Branch) WithBitrate(bps int) Branch {
	if b.Element == "" || b.Bitrate.Property == "" {
		return b
	}
	launch, ok := b.rated(b.Launch, bps)
	if !ok {
		return b
	}
	b.Launch, b.Track.Bps = launch, bps
	for i := range b.Reduced {
		b.Reduced[i].Launch, _ = b.rated(b.Reduced[i].Launch, bps)
	}
	return b
}

// rated is a launch text of the branch at another bitrate.
func (b Branch) rated(launch string, bps int) (text string, ok bool) {
	nodes, err := ParseLaunch(launch)
	if err != nil {
		return launch, false
	}
	for _, n := range nodes {
		if name, _ := n.Prop("name"); n.Kind != LaunchElement || name != b.Element {
			continue
		}
		value := b.Bitrate.Text(bps)
		if b.Bitrate.In != "" {
			structure, _ := n.Prop(b.Bitrate.Property)
			value = setField(structure, b.Bitrate.In, value)
		}
		values := map[string]string{b.Bitrate.Property: value}
		return launch[:n.Start] + setProps(launch[n.Start:n.End], []string{b.Bitrate.Property}, values) + launch[n.End:], true
	}
	return launch, false
}

// setField puts the value of a field into the text of a structure, such as
// "controls,video_bitrate=2500000,h264_profile=1".
func setField(structure, field, value string) string {
	fields := strings.Split(structure, ",")
	for i, f := range fields {
		if name, _, ok := strings.Cut(f, "="); ok && strings.TrimSpace(name) == field {
			fields[i] = field + "=" + value
			return strings.Join(fields, ",")
		}
	}
	return structure + "," + field + "=" + value
}
