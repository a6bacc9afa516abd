package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// sink is an appsink of a launch text.
type sink struct {
	name string
	node int // in the text
}

// readSinks finds the tracks of a launch text by the names of its appsinks: audio
// is the sound, all others are renditions.
func readSinks(m *mapping, nodes []LaunchNode) []sink {
	var sinks []sink
	for i, n := range nodes {
		if n.Kind != LaunchElement || n.Name != "appsink" {
			continue
		}
		name, _ := n.Prop("name")
		switch {
		case name == "":
			m.fault("launch", "an appsink has no name", "write \"appsink name=video\", \"appsink name=audio\", or the name of a rendition")
			continue
		case slices.ContainsFunc(sinks, func(s sink) bool { return s.name == name }):
			m.fault("launch", "two appsinks have the name "+quote(name), "keep one")
			continue
		case name == autoEncoder:
			m.fault("launch", "the name "+quote(name)+" of an appsink means something else", "choose another name, such as high")
		case !renditionName.MatchString(name):
			m.fault("launch", "the name "+quote(name)+" of an appsink is not allowed", renditionNameRemedy)
		}
		sinks = append(sinks, sink{name, i})
	}
	if nodes != nil && len(sinks) == 0 && len(m.d.errs) == 0 {
		m.fault("launch", "there is no appsink", "end the pipeline with \"! appsink name=video\"")
	}
	return sinks
}

// readLaunchForm reads what a launch text's tracks are. What the text doesn't
// show, video, video.renditions and audio say.
func readLaunchForm(m *mapping, s *Stream) {
	if m.has("source") {
		m.fault("source", "launch is given too", "keep one of source and launch")
	}
	var nodes []LaunchNode
	s.Launch, nodes = launchText(m, "launch")
	sinks := readSinks(m, nodes)

	video := m.d.mapping(m.value("video"), "video")
	video.only("codec", "width", "height", "framerate", "bitrate", "renditions")
	base := Rendition{Codec: video.codec("")}
	video.picture(&base)
	if video.has("bitrate") {
		base.Bitrate = video.bitrates()
	}
	described := map[string]*mapping{}
	for _, it := range video.renditions() {
		var others []Rendition
		for name := range described {
			others = append(others, Rendition{Name: name})
		}
		name := it.renditionName(others)
		if name != "" && nodes != nil && !slices.ContainsFunc(sinks, func(s sink) bool { return s.name == name }) {
			it.fault("name", "the launch text has no appsink of the name "+name, "name its appsink "+name+", or remove the rendition")
		}
		it.only("name", "codec", "width", "height", "framerate", "bitrate")
		described[name] = it
	}
	v := &Video{listed: len(described) > 0}
	for _, sink := range sinks {
		if sink.name == AudioTrack {
			s.Audio = readLaunchAudio(m, s.table, nodes, sink)
			continue
		}
		own := described[sink.name]
		if own == nil {
			own = &mapping{d: m.d, path: "video", values: map[string]*yaml.Node{}}
		}
		v.Renditions = append(v.Renditions, readLaunchRendition(m, own, base, chainFacts(s.table, nodes, sink.node), sink.name))
	}
	if len(v.Renditions) > 0 {
		s.Video = v
	} else if m.has("video") && nodes != nil {
		m.fault("video", "the launch text has no appsink for it", "name its appsink video, or remove the key")
	}
	if m.has("audio") && nodes != nil && s.Audio == nil {
		m.fault("audio", "the launch text has no appsink of the name audio", "name its appsink audio, or remove the key")
	}
	if len(v.Renditions) > maxRenditions {
		m.fault("launch", fmt.Sprintf("there are %d renditions", len(v.Renditions)), fmt.Sprintf("at most %d", maxRenditions))
	}
}

// only refuses the keys that the launch text decides.
func (m *mapping) only(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(m.values)) {
		if !slices.Contains(names, name) {
			m.fault(name, "in the launch form the launch text decides it", "remove it, and write it in the launch text")
		}
	}
}

// readLaunchRendition is what is known of an appsink's rendition: what is said of
// it, else of all, else what its chain shows.
func readLaunchRendition(m, own *mapping, base Rendition, seen facts, name string) Rendition {
	r := base
	r.Name, r.Encoder, r.Profile = name, seen.encoder, seen.profile
	if r.Codec = own.codec(base.Codec); r.Codec == "" {
		r.Codec = seen.codec
	}
	switch {
	case r.Codec == "":
		m.fault("launch", "the codec of the appsink "+quote(name)+" cannot be seen", "say it as video.codec")
	case r.Codec.Kind() != media.Video:
		m.fault("launch", "the appsink "+quote(name)+" gets "+string(r.Codec), "name the appsink audio")
	}
	own.picture(&r)
	if r.Width == 0 {
		r.Width, r.Height = seen.width, seen.height
	}
	if r.FPS == 0 {
		r.FPS = seen.fps
	}
	if own.has("bitrate") {
		r.Bitrate = own.bitrates()
	}
	if r.Bitrate.Start == 0 {
		r.Bitrate.Start = cmp.Or(seen.bitrate, r.Bitrate.Max)
	}
	r.Bitrate.Max = max(r.Bitrate.Max, r.Bitrate.Start)
	if r.Bitrate.Min == 0 && seen.element != "" { // it has a name, by which it is set
		r.Bitrate.Min = leastOf(r.Bitrate.Start)
	}
	if r.Bitrate.Min == 0 || r.Bitrate.Min > r.Bitrate.Start {
		r.Bitrate.Min = r.Bitrate.Start
	}
	return r
}

func readLaunchAudio(m *mapping, table *Encoders, nodes []LaunchNode, sink sink) *Audio {
	sub := m.d.mapping(m.value("audio"), "audio")
	sub.only("codec", "bitrate")
	seen := chainFacts(table, nodes, sink.node)
	codec := sub.codec(seen.codec)
	switch {
	case sub.has("codec"):
	case codec == "":
		m.fault("launch", "the codec of the appsink "+quote(AudioTrack)+" cannot be seen", "say it as audio.codec")
	case codec.Kind() != media.Audio:
		m.fault("launch", "the appsink "+quote(AudioTrack)+" gets "+string(codec), "name the appsink video")
	}
	return &Audio{Codec: codec, Bitrate: sub.bitrate("bitrate", seen.bitrate), Channels: seen.channels, FEC: codec == media.Opus}
}

// facts is what a launch text says about the track of an appsink.
type facts struct {
	codec         media.Codec
	encoder       string // row of the encoder table
	element       string // the encoder's name in the text
	profile       string
	width, height int
	fps           float64
	bitrate       int
	channels      int
}

var payloadCodecs = map[string]media.Codec{
	"rtph264pay": media.H264, "rtph265pay": media.H265, "rtpvp8pay": media.VP8, "rtpvp9pay": media.VP9,
	"rtpav1pay": media.AV1, "av1parse": media.AV1, "rtpopuspay": media.Opus, "rtppcmupay": media.PCMU, "rtppcmapay": media.PCMA,
}

// chainFacts walks from an appsink up its chain. Where the chain begins at a
// reference ("t. ! queue ! …") it goes on at the end of the chain of that name.
func chainFacts(table *Encoders, nodes []LaunchNode, i int) facts {
	f := facts{channels: 2}
	seen := map[int]bool{}
	for i >= 0 && !seen[i] {
		seen[i] = true
		n := &nodes[i]
		switch n.Kind {
		case LaunchCaps:
			f.caps(n.Name)
		case LaunchElement:
			f.take(table, n)
		}
		switch {
		case n.Linked:
			i--
		case n.Kind == LaunchRef:
			name, _, _ := strings.Cut(n.Name, ".")
			i = slices.IndexFunc(nodes, func(o LaunchNode) bool {
				given, _ := o.Prop("name")
				return name != "" && given == name
			})
		default:
			i = -1
		}
	}
	return f
}

// take learns from an element.
func (f *facts) take(table *Encoders, n *LaunchNode) {
	if c, ok := payloadCodecs[n.Name]; ok && f.codec == "" {
		f.codec = c
	}
	if caps, ok := n.Prop("caps"); ok && n.Name == "capsfilter" {
		f.caps(caps)
	}
	row, ok := table.Find(n.Name)
	if !ok || f.encoder != "" {
		return
	}
	f.encoder = row.Name
	f.element, _ = n.Prop("name")
	if f.codec == "" {
		f.codec = row.Codec
	}
	v, ok := n.Prop(row.Bitrate.Property)
	if row.Bitrate.In != "" {
		v = capsField("x,"+v, row.Bitrate.In)
	}
	if bps, err := parsePositive(v); ok && err == nil && bps <= math.MaxInt32/row.Bitrate.Unit {
		f.bitrate = bps * row.Bitrate.Unit
	}
}

func parsePositive(s string) (int, error) {
	var n int
	_, err := fmt.Sscanf(s, "%d", &n)
	if err == nil && n <= 0 {
		err = errors.New("not positive")
	}
	return n, err
}

func (f *facts) caps(text string) {
	kind, _, _ := strings.Cut(text, ",")
	kind = strings.TrimSpace(kind)
	switch kind {
	case "application/x-rtp":
		if c, err := media.ParseCodec(capsField(text, "encoding-name")); err == nil && f.codec == "" {
			f.codec = c
		}
	case "video/x-h264":
		if f.profile == "" {
			f.profile = capsField(text, "profile")
		}
	case "video/x-av1":
		if f.codec == "" {
			f.codec = media.AV1
		}
	case "audio/x-raw", "audio/x-opus":
		if n := capsInt(text, "channels"); n == 1 || n == 2 {
			f.channels = n
		}
	}
	if strings.HasPrefix(kind, "video/") || strings.HasPrefix(kind, "image/") {
		if w, h := capsInt(text, "width"), capsInt(text, "height"); f.width == 0 && w > 0 && h > 0 && w <= maxSide && h <= maxSide {
			f.width, f.height = w, h
		}
		if r := capsRate(text); f.fps == 0 && r <= maxFPS {
			f.fps = r
		}
	}
}

// launchForm takes the text as it is, with the missing properties of its appsinks.
func (c *compiler) launchForm() {
	s := c.s
	if !c.installed("launch", s.Launch) {
		return
	}
	text := c.located(s.Launch)
	nodes, _ := ParseLaunch(text) // installed has parsed it
	c.feed.Whole = true
	c.note("launch form: the text is the file's own")
	var b strings.Builder
	done := 0
	sinks := map[string]facts{}
	for i := range nodes {
		n := &nodes[i]
		if n.Kind != LaunchElement {
			continue
		}
		if !n.Linked && i+1 < len(nodes) && nodes[i+1].Linked {
			c.probe(text[n.Start:n.End])
			c.held(n)
		}
		if n.Name != "appsink" {
			continue
		}
		b.WriteString(text[done:n.End])
		done = n.End
		for _, p := range sinkProps {
			if _, said := n.Prop(p.name); !said {
				b.WriteString(" " + p.name + "=" + p.value)
			}
		}
		name, _ := n.Prop("name")
		sinks[name] = chainFacts(s.table, nodes, i)
	}
	b.WriteString(text[done:])
	c.feed.Capture = b.String()
	branch := func(t media.Track) Branch {
		seen := sinks[t.Name]
		row, _ := s.table.Find(seen.encoder)
		return Branch{Track: t, Encoder: seen.encoder, Element: seen.element, Bitrate: row.Bitrate, Keyframe: row.Keyframe}
	}
	if s.Video != nil {
		for _, r := range s.Video.Renditions {
			b := branch(media.Track{
				Name: r.Name, Kind: media.Video, Codec: r.Codec, Width: r.Width, Height: r.Height, FPS: r.FPS,
				Bps: r.Bitrate.Start, MinBps: r.Bitrate.Min, MaxBps: r.Bitrate.Max,
			})
			row, _ := s.table.Find(r.Encoder)
			b.Track.Fmtp = videoFmtp(b.Track, r.Profile, row.VBV)
			c.feed.Branches = append(c.feed.Branches, b)
		}
	}
	if a := s.Audio; a != nil {
		c.feed.Branches = append(c.feed.Branches, branch(media.Track{
			Name: AudioTrack, Kind: media.Audio, Codec: a.Codec, Bps: a.Bitrate, Fmtp: audioFmtp(a),
		}))
	}
}
