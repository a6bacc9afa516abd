package config

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"gateway/internal/media"
)

// Registry is what Compile asks of the installed GStreamer.
type Registry interface {
	// Installed tells whether there is an element of that factory.
	Installed(factory string) bool
	// Formats lists what a source element (launch text of one element) can
	// deliver, best first. An empty list means that it can't be known before the
	// pipeline runs; an error, why the source can't be opened now. It blocks up to
	// a few seconds.
	Formats(source string) ([]Format, error)
}

// Format is one thing that a source can deliver.
type Format struct {
	MediaType          string    // "video/x-raw", "image/jpeg", "video/x-h264" …
	MinWidth, MaxWidth int       // pixels; equal for a fixed size
	MinHeight          int       // pixels
	MaxHeight          int       // pixels
	MaxFPS             float64   // frames a second; 0: unknown
	Rates              []float64 // the only rates there are; empty: any up to MaxFPS
}

// Plan is a stream compiled for one machine: a launch text and what its appsinks
// carry.
type Plan struct {
	Launch  string            // complete launch text for gst-launch-1.0; appsinks have their track's name
	Tracks  []media.Track     // one for each appsink; video first
	Sources []string          // launch texts of the source elements, to look whether they are there
	Encoder map[string]string // track → row of the encoder table; no entry where the row isn't known. The element is named "encoder" (video) or "encoder_audio" in the everyday form
	Notes   []string          // what was chosen and why, for people
}

// sinkProps are the properties of every appsink: it never waits (sync, wait-on-eos),
// holds no memory (enable-last-sample), and when its reader stalls the oldest
// packets go instead of blocking the pipeline (max-buffers, drop).
var sinkProps = []struct{ name, value string }{
	{"sync", "false"}, {"max-buffers", "256"}, {"drop", "true"}, {"buffer-list", "true"},
	{"enable-last-sample", "false"}, {"wait-on-eos", "false"},
}

// Compile makes the launch text of a stream and tells what its appsinks carry.
// It asks the registry for what is installed and for what the source can
// deliver; the error is *AbsentError when the source can't be opened now, and
// Errors when the file asks for what can't be had.
func Compile(s *Stream, r Registry) (*Plan, error) {
	return compile(s, r, runtime.NumCPU())
}

func compile(s *Stream, r Registry, cores int) (*Plan, error) {
	c := &compiler{s: s, r: r, cores: cores, plan: &Plan{Encoder: map[string]string{}}}
	if s.Launch != "" {
		c.launchForm()
	} else {
		if s.Video != nil {
			c.video()
		}
		if s.Audio != nil {
			c.audio()
		}
	}
	if err := c.errs.orNil(); err != nil {
		return nil, err
	}
	if c.absent != nil {
		return nil, c.absent
	}
	return c.plan, nil
}

type compiler struct {
	s      *Stream
	r      Registry
	cores  int
	plan   *Plan
	errs   Errors
	absent error
}

func (c *compiler) fault(key, message, remedy string) {
	e := &Error{File: c.s.Path, Key: key, Message: message, Remedy: remedy, Severity: Fault}
	for at := key; at != ""; at, _ = splitPath(at) {
		if p, ok := c.s.at[at]; ok {
			e.Line, e.Column = p.line, p.column
			break
		}
	}
	c.errs = append(c.errs, e)
}

func (c *compiler) note(format string, args ...any) {
	c.plan.Notes = append(c.plan.Notes, fmt.Sprintf(format, args...))
}

// encoder chooses the row that encodes a track.
func (c *compiler) encoder(track, wanted string, codec media.Codec) (Encoder, bool) {
	if row, ok := FindEncoder(wanted); ok {
		if gone := row.missing(c.r); len(gone) > 0 {
			c.fault(track+".encoder", row.Name+" needs "+strings.Join(gone, ", ")+", not installed here",
				"install the package "+row.Package+", or use encoder: auto")
			return Encoder{}, false
		}
		c.note("%s: encoder %s, as the file says", track, row.Name)
		return row, true
	}
	var tried, packages []string
	for _, row := range Encoders(codec) {
		gone := row.missing(c.r)
		if len(gone) == 0 {
			c.note("%s: encoder %s, the best installed one for %s", track, row.Name, codec)
			return row, true
		}
		c.note("%s: not %s: %s not installed", track, row.Name, strings.Join(gone, ", "))
		tried = append(tried, row.Name)
		if !slices.Contains(packages, row.Package) {
			packages = append(packages, row.Package)
		}
	}
	c.fault(track+".codec", fmt.Sprintf("no encoder for %s is installed (%s)", codec, strings.Join(tried, ", ")),
		"install the package "+orList(packages))
	return Encoder{}, false
}

// expand fills the placeholders of a row's texts.
func (c *compiler) expand(row Encoder, name string, bps, keyint int, profile string) *strings.Replacer {
	threads := max(min(c.cores-row.SpareCores, 4), 1) // more slices or tiles than 4 cost bitrate and gain little
	tiles := bits.Len(uint(threads)) - 1
	return strings.NewReplacer(
		"{name}", name,
		"{bitrate}", strconv.Itoa(row.Bitrate.Value(bps)),
		"{keyint}", strconv.Itoa(keyint),
		"{threads}", strconv.Itoa(threads),
		"{slices}", strconv.Itoa(1<<tiles),
		"{tiles}", strconv.Itoa(tiles),
		"{profile}", profile)
}

func (c *compiler) video() {
	v := c.s.Video
	row, ok := c.encoder(VideoTrack, v.Encoder, v.Codec)
	if v.Profile != "" && ok && !slices.Contains(row.Profiles, v.Profile) {
		c.fault("video.profile", row.Name+" cannot make "+v.Profile, "use "+orList(row.Profiles))
	}
	shot, ok2 := c.capture(c.s.Source, v)
	if !ok || !ok2 {
		return
	}
	width, height := v.Width, v.Height
	if width == 0 { // the source's, made even
		width, height = shot.width&^1, shot.height&^1
		if width != shot.width || height != shot.height {
			c.note("video: the source's %dx%d is odd; encoded as %dx%d", shot.width, shot.height, width, height)
		}
	}
	want := v.FPS
	if want == 0 {
		want = defaultFPS
	}
	fps := want
	if shot.fps > 0 {
		fps = min(shot.fps, want)
	}

	chain := []string{shot.text, "queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0"}
	caps := "video/x-raw,format=" + row.Format
	switch {
	case shot.fps == 0:
		// max-rate drops what is too much and otherwise passes frames on at once
		chain = append(chain, fmt.Sprintf("videorate max-rate=%d", int(math.Ceil(want))))
	case shot.fps > want*rateSlack:
		chain = append(chain, "videorate drop-only=true")
	}
	// one element for both: 3.2 ms a frame from 1080p BGRx to 720p I420 on two
	// cores, where videoscale and videoconvert take 4.3 (November 2026)
	chain = append(chain, "videoconvertscale n-threads=2")
	if width > 0 {
		caps += fmt.Sprintf(",width=%d,height=%d,pixel-aspect-ratio=1/1", width, height)
	}
	if shot.fps > want*rateSlack {
		caps += ",framerate=" + fraction(want)
	}
	chain = append(chain, caps+",colorimetry="+row.Colorimetry)

	keyint := max(int(v.KeyframeInterval.Seconds()*fps+0.5), 1)
	element := c.expand(row, "encoder", v.Bitrate, keyint, v.Profile).Replace(row.Element)
	if len(v.Options) > 0 {
		element = setProps(element, slices.Sorted(maps.Keys(v.Options)), v.Options)
	}
	chain = append(chain, element)
	for _, part := range []string{row.Caps, row.Parser, row.CapsOut, row.Payloader} {
		if part != "" {
			chain = append(chain, strings.ReplaceAll(part, "{profile}", v.Profile))
		}
	}
	c.finish(append(chain, sinkText(VideoTrack)), row, media.Track{
		Name: VideoTrack, Kind: media.Video, Codec: v.Codec, Width: width, Height: height, FPS: fps, Bps: v.Bitrate,
		Fmtp: videoFmtp(v.Codec, v.Profile, width, height, fps, v.Bitrate, row.VBV),
	})
}

func (c *compiler) audio() {
	a := c.s.Audio
	row, ok := c.encoder(AudioTrack, "auto", a.Codec)
	first, _ := firstElement(a.Source)
	c.plan.Sources = append(c.plan.Sources, first)
	if !ok || !c.installed("audio.source", a.Source) {
		return
	}
	if _, ok := c.probe(first); !ok {
		return
	}
	chain := []string{
		a.Source,
		"queue leaky=downstream max-size-buffers=0 max-size-bytes=0 max-size-time=100000000",
		"audioconvert", "audioresample",
		fmt.Sprintf("audio/x-raw,rate=%d,channels=%d", a.Codec.ClockRate(), a.Channels),
		c.expand(row, "encoder_audio", a.Bitrate, 0, "").Replace(row.Element),
	}
	for _, part := range []string{row.Caps, row.Parser, row.CapsOut, row.Payloader} {
		if part != "" {
			chain = append(chain, part)
		}
	}
	c.finish(append(chain, sinkText(AudioTrack)), row, media.Track{
		Name: AudioTrack, Kind: media.Audio, Codec: a.Codec, Bps: a.Bitrate, Fmtp: audioFmtp(a.Codec, a.Channels),
	})
}

// finish adds a chain and its track to the plan.
func (c *compiler) finish(chain []string, row Encoder, t media.Track) {
	if c.plan.Launch != "" {
		c.plan.Launch += " "
	}
	c.plan.Launch += strings.Join(chain, " ! ")
	c.plan.Encoder[t.Name] = row.Name
	c.plan.Tracks = append(c.plan.Tracks, t)
}

func sinkText(name string) string {
	text := "appsink name=" + name
	for _, p := range sinkProps {
		text += " " + p.name + "=" + p.value
	}
	return text
}

// videoFmtp is the fmtp line of a video track (RFC 6184 §8.1, RFC 9628 §7).
func videoFmtp(codec media.Codec, profile string, width, height int, fps float64, bps, vbv int) string {
	switch codec {
	case media.H264:
		level := byte(31)
		if width > 0 && height > 0 {
			if fps == 0 {
				fps = defaultFPS
			}
			level = media.H264Level(width, height, fps, bps, bps/1000*vbv)
		}
		id := media.H264ProfileLevelID(media.H264Baseline, 0xe0, level)
		switch profile {
		case "main":
			id = media.H264ProfileLevelID(media.H264Main, 0, level)
		case "high":
			id = media.H264ProfileLevelID(media.H264High, 0, level)
		}
		return "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + id
	case media.VP9:
		return "profile-id=0"
	case media.AV1:
		return "level-idx=5;profile=0;tier=0"
	}
	return ""
}

// audioFmtp is the fmtp line of an audio track (RFC 7587 §6.1).
func audioFmtp(codec media.Codec, channels int) string {
	switch {
	case codec != media.Opus:
		return ""
	case channels == 2:
		return "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"
	}
	return "minptime=10;useinbandfec=1"
}

// firstElement splits a source into its first element and what is linked to it.
func firstElement(source string) (first, rest string) {
	nodes, err := parseLaunch(source)
	if err != nil || len(nodes) == 0 {
		return source, ""
	}
	return source[:nodes[0].end], strings.TrimSpace(strings.TrimLeft(source[nodes[0].end:], " !"))
}

// installed checks that the elements of a text are there.
func (c *compiler) installed(key, text string) bool {
	nodes, err := parseLaunch(text)
	if err != nil {
		c.fault(key, err.Error(), "write it as for gst-launch-1.0")
		return false
	}
	ok := true
	for _, n := range nodes {
		if n.kind == launchElement && !c.r.Installed(n.name) {
			c.fault(key, "the element "+quote(n.name)+" is not installed", "check its name, or install its package")
			ok = false
		}
	}
	return ok
}

// launchForm takes the text as it is, with the missing properties of its appsinks.
func (c *compiler) launchForm() {
	s := c.s
	if !c.installed("launch", s.Launch) {
		return
	}
	nodes, _ := parseLaunch(s.Launch) // installed has parsed it
	var b strings.Builder
	done := 0
	for i, n := range nodes {
		if n.kind != launchElement {
			continue
		}
		if !n.linked && i+1 < len(nodes) && nodes[i+1].linked {
			source := s.Launch[n.start:n.end]
			c.plan.Sources = append(c.plan.Sources, source)
			c.probe(source)
		}
		if n.name != "appsink" {
			continue
		}
		b.WriteString(s.Launch[done:n.end])
		done = n.end
		for _, p := range sinkProps {
			if _, said := n.prop(p.name); !said {
				b.WriteString(" " + p.name + "=" + p.value)
			}
		}
	}
	b.WriteString(s.Launch[done:])
	c.plan.Launch = b.String()
	c.note("launch form: the text is the file's own")
	for i, n := range nodes {
		if name, ok := n.prop("name"); ok && n.name == "appsink" {
			if row := chainFacts(nodes, i).encoder; row != "" {
				c.plan.Encoder[name] = row
			}
		}
	}
	if v := s.Video; v != nil {
		vbv := 0
		if row, ok := FindEncoder(v.Encoder); ok {
			vbv = row.VBV
		}
		c.plan.Tracks = append(c.plan.Tracks, media.Track{
			Name: VideoTrack, Kind: media.Video, Codec: v.Codec, Width: v.Width, Height: v.Height, FPS: v.FPS, Bps: v.Bitrate,
			Fmtp: videoFmtp(v.Codec, v.Profile, v.Width, v.Height, v.FPS, v.Bitrate, vbv),
		})
	}
	if a := s.Audio; a != nil {
		c.plan.Tracks = append(c.plan.Tracks, media.Track{
			Name: AudioTrack, Kind: media.Audio, Codec: a.Codec, Bps: a.Bitrate, Fmtp: audioFmtp(a.Codec, a.Channels),
		})
	}
}
