package config

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

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
	// Try runs an encoder for a moment and tells what went wrong: launch takes raw
	// video of that size and rate, in whatever format, to packets. It blocks up to
	// a few seconds the first time; what came out is remembered for the row at
	// that size.
	Try(row Encoder, launch string, width, height int, fps float64) error
	// Blamed is why a row's encoder lately failed in use; nil: it didn't.
	Blamed(row string) error
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

// sinkProps are the properties of every appsink: it never waits (sync, wait-on-eos),
// holds no memory (enable-last-sample), and when its reader stalls the oldest
// packets go instead of blocking the pipeline (max-buffers, drop).
var sinkProps = []struct{ name, value string }{
	{"sync", "false"}, {"max-buffers", "256"}, {"drop", "true"}, {"buffer-list", "true"},
	{"enable-last-sample", "false"}, {"wait-on-eos", "false"},
}

// encoderElement is the name of the encoder in a branch.
const encoderElement = "encoder"

// Compile makes the launch texts of a stream and tells what its tracks carry. It
// asks the registry for what is installed, for what the sources can deliver and
// for which encoders work. A source that can't be opened now is its feed's
// Absent; the error is Errors when the file asks for what can't be had.
func Compile(s *Stream, r Registry) (*Plan, error) {
	return compile(s, r, runtime.NumCPU())
}

func compile(s *Stream, r Registry, cores int) (*Plan, error) {
	c := &compiler{s: s, r: r, cores: cores, plan: &Plan{}}
	if s.Launch != "" {
		c.compileFeed("launch", c.launchForm)
	} else {
		if s.Video != nil {
			c.compileFeed(VideoTrack, c.video)
		}
		if s.Audio != nil {
			c.compileFeed(AudioTrack, c.audio)
		}
	}
	if err := c.errs.orNil(); err != nil {
		return nil, err
	}
	return c.plan, nil
}

func (c *compiler) compileFeed(name string, compile func()) {
	c.feed = &Feed{Name: name, Isolation: c.s.Isolation, Worker: c.s.Worker, Announced: true}
	compile()
	if name != AudioTrack {
		c.feed.Pictures = c.s.Watchdog.Pictures
		c.checkPictures()
	}
	c.feed.Loop, c.feed.Once = c.feed.Loop && c.s.Loop, c.feed.Loop && !c.s.Loop
	c.plan.Feeds = append(c.plan.Feeds, *c.feed)
}

// checkPictures makes sure that what is asked of the pictures can be seen.
func (c *compiler) checkPictures() {
	if c.feed.Whole || c.feed.Pictures == (Pictures{}) || len(c.feed.Branches) == 0 || slices.ContainsFunc(c.feed.Branches, func(b Branch) bool { return !b.Copy }) {
		return
	}
	for key, d := range map[string]time.Duration{"watchdog.frozen": c.feed.Pictures.Frozen, "watchdog.black": c.feed.Pictures.Black} {
		if d > 0 {
			c.fault(key, "what the source has encoded isn't decoded, and so isn't looked at", "remove it, or use encoder: auto")
		}
	}
}

type compiler struct {
	s     *Stream
	r     Registry
	cores int
	plan  *Plan
	feed  *Feed // being compiled
	errs  Errors
}

func (c *compiler) fault(key, message, remedy string) {
	e := &Error{File: c.s.Path, Key: key, Message: message, Remedy: remedy, Severity: Fault}
	e.Line, e.Column = c.s.Position(key)
	c.errs = append(c.errs, e)
}

func (c *compiler) note(format string, args ...any) {
	c.plan.Notes = append(c.plan.Notes, fmt.Sprintf(format, args...))
}

// rendition is a rendition on its way to a branch.
type rendition struct {
	*Rendition
	key     string // of its part of the file
	row     Encoder
	picture picture // to encode
	threads int
}

// branch is the rendition's launch text with a row, given what the capture yields.
func (c *compiler) branch(r *rendition, row Encoder, from picture) string {
	to := r.picture
	to.format, to.colorimetry, to.memory = row.Format, row.Colorimetry, row.Memory
	fps := to.fps
	if from.limit > 0 {
		fps = min(fps, from.limit)
	}
	element := row.Convert
	if element == "" {
		element = softConvert(to)
	}
	level := float64(media.H264Level(to.width, to.height, fps, r.Bitrate.Max, 0)) / 10
	encode := row.chain(settings{
		bps: r.Bitrate.Start, keyint: max(int(r.KeyframeInterval.Seconds()*fps+0.5), 1),
		threads: max(min(r.threads, c.cores-row.SpareCores), 1),
		profile: r.Profile, level: strconv.FormatFloat(level, 'f', -1, 64),
	}, r.Options)
	return strings.Join(append(convert(from, to, element), encode...), " ! ")
}

const (
	leastReduced    = 90 // pixels of the shorter side of a reduced picture
	leastReducedFPS = 5
)

// reduced are the rendition's pictures for networks and CPUs that can't do its own,
// which has fps frames a second: half of them, and then half and a quarter of width
// and height.
func (c *compiler) reduced(r *rendition, from picture, fps float64, decode string) (all [Reductions]Reduced) {
	n := 0
	rate := fps
	if fps/2 >= leastReducedFPS {
		rate = fps / 2
	}
	for i, part := range []int{1, 2, 4} {
		width, height := r.picture.width/part&^1, r.picture.height/part&^1
		if i == 0 && rate == fps || i > 0 && min(width, height) < leastReduced {
			continue
		}
		small := *r
		small.picture.width, small.picture.height, small.picture.fps = width, height, rate
		all[n] = Reduced{decode + c.branch(&small, r.row, from), width, height, rate}
		n++
	}
	return all
}

func (c *compiler) video() {
	var rs []*rendition
	for i := range c.s.Video.Renditions {
		key := "video"
		if c.s.Video.listed {
			key = "video.renditions[" + strconv.Itoa(i) + "]"
		}
		rs = append(rs, &rendition{Rendition: &c.s.Video.Renditions[i], key: key})
	}
	shot, ok := c.capture(rs)
	if !ok {
		return
	}
	for _, r := range rs {
		p := &r.picture
		p.width, p.height = r.Width, r.Height
		if p.width == 0 { // the source's, made even
			p.width, p.height = shot.width&^1, shot.height&^1
			if p.width != shot.width || p.height != shot.height {
				c.note("%s: the source's %dx%d is odd; encoded as %dx%d", r.Name, shot.width, shot.height, p.width, p.height)
			}
		}
		if p.fps = r.FPS; p.fps == 0 {
			p.fps = defaultFPS
		}
	}
	c.shareThreads(rs)
	for _, r := range rs {
		if !r.Copy() {
			r.row, ok = c.encoder(r)
		}
		if !ok {
			return
		}
	}
	shared := c.share(rs, shot)
	for _, r := range rs {
		b := Branch{Track: media.Track{
			Name: r.Name, Kind: media.Video, Codec: r.Codec, Width: r.picture.width, Height: r.picture.height, FPS: r.picture.fps,
			Bps: r.Bitrate.Start, MinBps: r.Bitrate.Min, MaxBps: r.Bitrate.Max,
		}}
		if shot.fps > 0 {
			b.Track.FPS = min(b.Track.FPS, shot.fps)
		}
		if r.Copy() {
			f := formats[shot.codec]
			b.Copy, b.Track.Codec = true, shot.codec
			b.Track.FPS, b.Track.Width, b.Track.Height = shot.fps, shot.width, shot.height
			b.Launch = strings.Join(parts(f.Parser, f.CapsOut, f.Payloader), " ! ")
			c.note("%s: %s as the source has encoded it", r.Name, shot.codec)
		} else {
			decode := ""
			b.Encoder, b.Element, b.Bitrate, b.Keyframe = r.row.Name, encoderElement, r.row.Bitrate, r.row.Keyframe
			if shot.codec != "" { // each that isn't a copy decodes for itself
				decode = formats[shot.codec].Decode + " ! "
			}
			b.Launch = decode + c.branch(r, r.row, shared)
			if r.Degrade {
				b.Reduced = c.reduced(r, shared, b.Track.FPS, decode)
			}
		}
		b.Track.Fmtp = videoFmtp(b.Track, r.Profile, r.row.VBV)
		c.feed.Branches = append(c.feed.Branches, b)
	}
}

// share makes the capture's text of what the renditions have in common, and tells
// what it then yields: conversion to the largest of them, where all are made in
// system memory and have one shape; else the source's pictures at the highest
// rate.
func (c *compiler) share(rs []*rendition, shot captured) picture {
	yields := picture{width: shot.width, height: shot.height, fps: shot.fps, limit: shot.fps}
	if shot.codec != "" {
		c.feed.Capture = shot.text
		return yields
	}
	first := rs[0]
	want := picture{format: first.row.Format, colorimetry: first.row.Colorimetry, width: first.picture.width, height: first.picture.height}
	common := true
	for _, r := range rs {
		p := r.picture
		want.fps = max(want.fps, p.fps)
		common = common && r.row.Convert == "" && r.row.Memory == "" && sameShape(p, want)
		if p.width == 0 || want.width == 0 {
			want.width, want.height = 0, 0 // as the source has it
		} else if p.width*p.height > want.width*want.height {
			want.width, want.height = p.width, p.height
		}
	}
	element := ""
	if common {
		element = softConvert(want)
		if want.width == 0 {
			element = "videoconvertscale n-threads=2"
		}
	} else if strings.Contains(shot.text, "memory:") {
		want.fps = 0 // plain caps would not fit; the branches do it
	}
	queue := queueText
	if c.feed.Loop { // a file is read as fast as it can be: what leaks would be most of it
		queue = "queue max-size-buffers=2"
	}
	chain := append([]string{shot.text, queue}, convert(yields, want, element)...)
	c.feed.Capture = strings.Join(chain, " ! ")
	if yields.limit == 0 || yields.limit > want.fps*rateSlack && want.fps > 0 {
		yields.limit = want.fps
		if yields.fps > 0 {
			yields.fps = want.fps
		}
	}
	if common {
		yields.format, yields.colorimetry, yields.width, yields.height = want.format, want.colorimetry, want.width, want.height
	}
	return yields
}

// sameShape tells whether scaling one to the other gives no borders worth seeing.
func sameShape(a, b picture) bool {
	if a.width == 0 || b.width == 0 {
		return true
	}
	ratio := float64(a.width*b.height) / float64(b.width*a.height)
	return ratio > 0.99 && ratio < 1.01
}

func (c *compiler) audio() {
	a := c.s.Audio
	row, ok := c.audioEncoder(a.Codec)
	shot, ok2 := c.captureAudio(a.Source)
	if !ok || !ok2 {
		return
	}
	c.feed.Capture = shot
	chain := append([]string{
		"audioconvert", "audioresample",
		fmt.Sprintf("audio/x-raw,rate=%d,channels=%d", a.Codec.ClockRate(), a.Channels),
	}, row.chain(settings{bps: a.Bitrate, fec: a.FEC, dtx: a.DTX}, a.Options)...)
	c.feed.Branches = append(c.feed.Branches, Branch{
		Launch: strings.Join(chain, " ! "), Encoder: row.Name, Element: encoderElement, Bitrate: row.Bitrate, Keyframe: row.Keyframe,
		Track: media.Track{Name: AudioTrack, Kind: media.Audio, Codec: a.Codec, Bps: a.Bitrate, Fmtp: audioFmtp(a)},
	})
}

// SinkText is the appsink that ends a branch.
func SinkText(name string) string {
	text := "appsink name=" + name
	for _, p := range sinkProps {
		text += " " + p.name + "=" + p.value
	}
	return text
}

// videoFmtp is the fmtp line of a video track (RFC 6184 §8.1, RFC 9628 §7). vbv is
// the decoder's buffer in ms.
func videoFmtp(t media.Track, profile string, vbv int) string {
	switch t.Codec {
	case media.H264:
		level := byte(31)
		if t.Width > 0 && t.Height > 0 {
			fps, bps := t.FPS, max(t.Bps, t.MaxBps)
			if fps == 0 {
				fps = defaultFPS
			}
			level = media.H264Level(t.Width, t.Height, fps, bps, bps/1000*vbv)
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
func audioFmtp(a *Audio) string {
	if a.Codec != media.Opus {
		return ""
	}
	fmtp := "minptime=10"
	if a.FEC {
		fmtp += ";useinbandfec=1"
	}
	if a.DTX {
		fmtp += ";usedtx=1"
	}
	if a.Channels == 2 {
		fmtp += ";stereo=1;sprop-stereo=1"
	}
	return fmtp
}

// installed checks that the elements of a text are there.
func (c *compiler) installed(key, text string) bool {
	nodes, err := ParseLaunch(text)
	if err != nil {
		c.fault(key, err.Error(), "write it as for gst-launch-1.0")
		return false
	}
	ok := true
	for _, n := range nodes {
		if n.Kind == LaunchElement && !c.r.Installed(n.Name) {
			c.fault(key, "the element "+quote(n.Name)+" is not installed", "check its name, or install its package")
			ok = false
		}
	}
	return ok
}

// probe asks what a source element can deliver, and remembers why it can't be
// opened if so.
func (c *compiler) probe(source string) []Format {
	c.feed.Sources = append(c.feed.Sources, source)
	formats, err := c.r.Formats(source)
	if err != nil && c.feed.Absent == nil {
		var absent *AbsentError
		if !errors.As(err, &absent) {
			absent = &AbsentError{Source: source, Err: err}
		}
		c.feed.Absent = absent
	}
	return formats
}

// held remembers what only one pipeline can hold, and whether the source ends.
func (c *compiler) held(n *LaunchNode) {
	s := findSource(n.Name)
	if d := s.device(n); d != "" {
		c.feed.Devices = append(c.feed.Devices, d)
	}
	c.feed.Loop = c.feed.Loop || s.Loop
	c.feed.Announced = c.feed.Announced && s.Announced
	c.feed.Silence = max(c.feed.Silence, s.Silence)
	if c.feed.What == "" {
		c.feed.What = s.What
	}
}
