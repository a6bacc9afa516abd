package config

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// readVideo reads the renditions of the everyday form. The keys under video are
// what each of them has that doesn't say otherwise.
func readVideo(m *mapping, table *Encoders) *Video {
	base := m.rendition(Rendition{Encoder: autoEncoder, KeyframeInterval: 2 * time.Second, Degrade: true}, table)
	items := m.renditions()
	if items == nil {
		base.Name = VideoTrack
		return &Video{Renditions: []Rendition{m.complete(base)}}
	}
	v := &Video{listed: true}
	for _, it := range items {
		r := it.rendition(base, table)
		r.Name = it.renditionName(v.Renditions)
		if r.Copy() && slices.ContainsFunc(v.Renditions, func(o Rendition) bool { return o.Copy() }) {
			it.fault("encoder", "another rendition is a copy too", "keep one: they would be the same")
		}
		v.Renditions = append(v.Renditions, it.complete(r))
	}
	return v
}

// renditions reads the list of that key; nil if it isn't given or can't be read.
func (m *mapping) renditions() []*mapping {
	n := m.value("renditions")
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		found := describe(n)
		if n.Kind == yaml.SequenceNode {
			found = "an empty one"
		}
		m.fault("renditions", "expected a list of renditions, found "+found, "write each below it as \"- name: …\", best first")
		return nil
	}
	if len(n.Content) > maxRenditions {
		m.fault("renditions", fmt.Sprintf("there are %d renditions", len(n.Content)), fmt.Sprintf("at most %d; two or three serve most networks", maxRenditions))
		return nil
	}
	var items []*mapping
	for i, it := range n.Content {
		path := joinPath(m.path, "renditions["+strconv.Itoa(i)+"]")
		m.d.at[path] = position{it.Line, it.Column}
		if it.Kind == yaml.AliasNode {
			m.d.fault(it, path, "aliases are not supported", "write the keys out")
			it = nil
		}
		items = append(items, m.d.mapping(it, path))
	}
	return items
}

var renditionName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

const renditionNameRemedy = "write at most 32 letters a to z, digits, - and _, beginning with a letter, such as high"

// renditionName reads the name of a rendition that comes after others.
func (m *mapping) renditionName(others []Rendition) string {
	name := m.text("name", "", 64)
	switch {
	case m.node == nil: // not a mapping: it has its finding
	case !m.has("name"):
		m.d.fault(m.node, joinPath(m.path, "name"), "it is missing", "name it, such as \"name: high\"")
	case name == AudioTrack || name == autoEncoder:
		m.fault("name", quote(name)+" means something else", "choose another name, such as high")
	case !renditionName.MatchString(name):
		m.fault("name", quote(name)+" is not allowed", renditionNameRemedy)
	case slices.ContainsFunc(others, func(o Rendition) bool { return o.Name == name }):
		m.fault("name", "another rendition has the name "+quote(name), "give each its own")
	}
	return name
}

// codec reads a codec.
func (m *mapping) codec(def media.Codec) media.Codec {
	return media.Codec(m.one("codec", string(def)))
}

// rendition reads the keys that a rendition may have. What isn't given stays as
// in r. Zero values mean that nobody has said it.
func (m *mapping) rendition(r Rendition, table *Encoders) Rendition {
	inherited := r
	r.Codec = m.codec(r.Codec)
	m.picture(&r)
	m.encoder(&r, table)
	if m.has("bitrate") {
		r.Bitrate = m.bitrates()
	}
	r.KeyframeInterval = m.duration("keyframe_interval", r.KeyframeInterval)
	r.Degrade = m.boolean("degrade", r.Degrade)
	r.Profile = m.one("profile", r.Profile)
	if m.has("profile") && r.Codec != media.H264 && r.Codec != "" {
		m.fault("profile", "only h264 has profiles here", "remove it")
	}
	switch {
	case m.has("options"):
		r.Options = m.options()
	case r.Encoder != inherited.Encoder || r.Codec != inherited.Codec:
		r.Options = nil // they were another encoder's
	}
	if r.Copy() {
		for _, name := range []string{"keyframe_interval", "degrade", "profile", "options"} {
			if m.has(name) {
				m.fault(name, "with encoder: copy the source decides it", "remove it")
			}
		}
	}
	return r
}

// encoder reads which encoder is wanted. One that is named decides the codec
// unless that is given too; one that is inherited yields to it.
func (m *mapping) encoder(r *Rendition, table *Encoders) {
	r.Encoder = m.text("encoder", r.Encoder, 64)
	if r.Encoder == autoEncoder || r.Copy() {
		return
	}
	codec := r.Codec
	if codec == "" {
		codec = media.H264
	}
	row, ok := table.Find(r.Encoder)
	switch {
	case !ok && m.has("encoder"):
		remedy := "use " + orList(table.names(codec, true))
		if near := nearest(r.Encoder, table.names("", false)); near != "" {
			remedy = "did you mean " + near + "?"
		}
		m.fault("encoder", quote(r.Encoder)+" is not a known encoder", remedy)
		return
	case row.Codec == codec:
	case m.has("encoder") && !m.has("codec"):
		r.Codec = row.Codec
	case m.has("encoder"):
		m.fault("encoder", fmt.Sprintf("%s makes %s, and %s is %s", row.Name, row.Codec, joinPath(m.path, "codec"), codec),
			"use "+orList(table.names(codec, true)))
	default:
		r.Encoder = autoEncoder
		return
	}
	if ok {
		r.Encoder = row.Name
	}
}

// picture reads size and frame rate, which both forms have.
func (m *mapping) picture(r *Rendition) {
	r.Width = m.integer("width", r.Width, "pixels")
	r.Height = m.integer("height", r.Height, "pixels")
	for name, n := range map[string]int{"width": r.Width, "height": r.Height} {
		if n%2 != 0 && m.has(name) {
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
	r.FPS = m.rate("framerate", r.FPS)
}

// bitrates reads a bitrate key that holds a number, the start, or a mapping. What
// isn't given is 0.
func (m *mapping) bitrates() Bitrate {
	n := m.value("bitrate")
	if n == nil || n.Kind != yaml.MappingNode {
		return Bitrate{Start: m.bitrate("bitrate", 0)}
	}
	sub := m.d.mapping(n, joinPath(m.path, "bitrate"))
	b := Bitrate{sub.bitrate("min", 0), sub.bitrate("start", 0), sub.bitrate("max", 0)}
	for _, pair := range []struct {
		low, high   string
		least, most int
	}{{"min", "start", b.Min, b.Start}, {"start", "max", b.Start, b.Max}, {"min", "max", b.Min, b.Max}} {
		if pair.least > pair.most && pair.most > 0 {
			sub.fault(pair.low, fmt.Sprintf("%s is above %s, which is %s", FormatBitrate(pair.least), pair.high, FormatBitrate(pair.most)),
				"lower it, or raise "+pair.high)
			break
		}
	}
	return b
}

// complete puts the defaults into what nobody has said.
func (m *mapping) complete(r Rendition) Rendition {
	if r.Codec == "" && !r.Copy() {
		r.Codec = media.H264
	}
	if r.Profile == "" {
		r.Profile = "constrained-baseline"
	}
	if r.Codec != media.H264 || r.Copy() {
		r.Profile = ""
	}
	r.Degrade = r.Degrade && !r.Copy()
	b := &r.Bitrate
	if r.Copy() { // it is what the source makes it
		b.Start = cmp.Or(b.Start, b.Max, b.Min)
		b.Min, b.Max = b.Start, b.Start
		return r
	}
	if b.Start == 0 {
		b.Start = max(usualBitrate(r.Width, r.Height, r.FPS), b.Min)
		if b.Max > 0 {
			b.Start = min(b.Start, b.Max)
		}
	}
	if b.Max == 0 {
		b.Max = b.Start
	}
	if b.Min == 0 {
		b.Min = leastOf(b.Start)
	}
	return r
}

// leastOf is the min that a start has when none is given.
func leastOf(start int) int { return min(max(start/5, minVideoBitrate), start) }

// usualBitrate is what a picture of that size and rate needs to look as good as
// 1280x720 at 30 frames a second does with the default: it grows by less than the
// number of pixels. Unknown is 0, and counts as that size and rate.
func usualBitrate(width, height int, fps float64) int {
	if width == 0 || height == 0 {
		return defaultBitrate
	}
	if fps == 0 {
		fps = defaultFPS
	}
	bps := defaultBitrate * math.Pow(float64(width*height)*fps/(1280*720*defaultFPS), 0.75)
	step := 10_000.0
	if bps >= 500_000 {
		step = 50_000
	}
	return int(min(max(math.Round(bps/step)*step, 100_000), 20_000_000))
}

var propertyName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,63}$`)

// options reads extra encoder properties.
func (m *mapping) options() map[string]string {
	n := m.value("options")
	if n == nil {
		return nil
	}
	path := joinPath(m.path, "options")
	if n.Kind != yaml.MappingNode {
		m.fault("options", "expected encoder properties, found "+describe(n), "write each as \"name: value\"")
		return nil
	}
	options := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		full := joinPath(path, k.Value)
		switch _, twice := options[k.Value]; {
		case k.Kind != yaml.ScalarNode || !propertyName.MatchString(k.Value):
			m.d.fault(k, path, quote(k.Value)+" is not a property name", "see gst-inspect-1.0 of the encoder")
		case twice:
			m.d.fault(k, full, "the key was already given", "remove one of them")
		case k.Value == "name":
			m.d.fault(k, full, "the gateway names the encoder", "remove it")
		case v.Kind != yaml.ScalarNode || v.ShortTag() == "!!null":
			m.d.fault(v, full, "expected a value, found "+describe(v), "write one value, in quotes if it is a text with spaces")
		case len(v.Value) > 1024 || hasControl(v.Value):
			m.d.fault(v, full, "the value is too long or holds a control character", "shorten it to 1024 bytes on one line")
		default:
			options[k.Value] = v.Value
			m.d.at[full] = position{v.Line, v.Column}
		}
	}
	return options
}

func readAudio(m *mapping) *Audio {
	a := &Audio{Codec: m.codec(media.Opus)}
	a.Source = sourceText(m, "source")
	if m.node != nil && !m.has("source") {
		m.d.fault(m.node, "audio.source", "it is missing", "say what to capture, such as \"source: pulsesrc\"")
	}
	m.audio(a)
	a.Bitrate = m.bitrate("bitrate", defaultAudioBitrate)
	if a.Codec != media.Opus {
		a.Bitrate = 64_000 * a.Channels // RFC 3551 §4.5.14: 8 bit, 8 kHz
	}
	a.Options = m.options()
	return a
}

// audio reads what only Opus leaves open.
func (m *mapping) audio(a *Audio) {
	opus := a.Codec == media.Opus
	channels := 1
	if opus {
		channels = 2
	}
	a.Channels = m.integer("channels", channels, "channels")
	a.FEC = m.boolean("fec", opus)
	a.DTX = m.boolean("dtx", false)
	if opus {
		return
	}
	for _, name := range []string{"bitrate", "fec", "dtx"} {
		if m.has(name) {
			m.fault(name, "only opus has it", "remove it")
		}
	}
	if a.Channels != 1 {
		m.fault("channels", string(a.Codec)+" is mono in browsers", "remove it")
	}
}
