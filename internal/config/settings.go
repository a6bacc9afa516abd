package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Settings is the stream as YAML text: what the file says, and the defaults where
// it says nothing. Secrets are left out; but for those the text gives the same
// stream.
func (s *Stream) Settings() string {
	var top yamlMap
	top.text("title", s.Title)
	if s.Launch != "" {
		top.text("launch", Redact(s.Launch))
	} else if s.Source != "" {
		top.text("source", Redact(s.Source))
	}
	top.flag("loop", s.Loop)
	top.flag("on_demand", s.OnDemand)
	top.word("linger", formatDuration(s.Linger))
	top.word("sync", s.Sync)
	top.section("watchdog", s.Watchdog.settings())
	if s.Video != nil {
		top.section("video", s.Video.settings())
	}
	if s.Audio != nil {
		top.section("audio", s.Audio.settings(s.Launch != ""))
	}
	top.word("isolation", s.Isolation)
	if s.Worker != nil {
		top.section("worker", s.Worker.settings())
	}
	text, err := yaml.Marshal(top.node())
	if err != nil {
		return "# " + err.Error() + "\n"
	}
	return string(text)
}

func (w Watchdog) settings() yamlMap {
	var m yamlMap
	m.word("start", formatDuration(w.Start))
	for _, k := range []struct {
		name string
		d    time.Duration
	}{{"frames", w.Frames}, {"frozen", w.Frozen}, {"black", w.Black}} {
		if k.d > 0 {
			m.word(k.name, formatDuration(k.d))
		}
	}
	return m
}

func (v *Video) settings() yamlMap {
	first := v.Renditions[0]
	if len(v.Renditions) == 1 && first.Name == VideoTrack && !v.listed {
		return first.settings()
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, r := range v.Renditions {
		var m yamlMap
		m.text("name", r.Name)
		list.Content = append(list.Content, append(m, r.settings()...).node())
	}
	var m yamlMap
	m.put("renditions", list)
	return m
}

func (r *Rendition) settings() yamlMap {
	var m yamlMap
	launched := r.KeyframeInterval == 0 // the launch text decides the rest
	m.word("codec", string(r.Codec))
	if !launched {
		m.word("encoder", r.Encoder)
	}
	m.number("width", r.Width)
	m.number("height", r.Height)
	if r.FPS > 0 {
		m.word("framerate", strings.TrimSuffix(fraction(r.FPS), "/1"))
	}
	if b := r.Bitrate; b.Start > 0 {
		var bitrates yamlMap
		bitrates.word("min", FormatBitrate(b.Min))
		bitrates.word("start", FormatBitrate(b.Start))
		bitrates.word("max", FormatBitrate(b.Max))
		n := bitrates.node()
		n.Style = yaml.FlowStyle
		m.put("bitrate", n)
	}
	if launched || r.Copy() {
		return m
	}
	m.word("keyframe_interval", formatDuration(r.KeyframeInterval))
	m.flag("degrade", r.Degrade)
	m.word("profile", r.Profile)
	m.options(r.Options)
	return m
}

func (a *Audio) settings(launched bool) yamlMap {
	var m yamlMap
	if !launched {
		m.text("source", Redact(a.Source))
	}
	m.word("codec", string(a.Codec))
	if a.Codec.ClockRate() == 48000 && a.Bitrate > 0 { // G.711 has no other
		m.word("bitrate", FormatBitrate(a.Bitrate))
	}
	if launched {
		return m
	}
	m.number("channels", a.Channels)
	if a.Codec.ClockRate() == 48000 {
		m.flag("fec", a.FEC)
		m.flag("dtx", a.DTX)
	}
	m.options(a.Options)
	return m
}

// yamlMap is a mapping in the making: keys and values in turn.
type yamlMap []*yaml.Node

func (m yamlMap) node() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Content: m} }

func (m *yamlMap) put(name string, v *yaml.Node) {
	*m = append(*m, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, v)
}

func (m *yamlMap) section(name string, v yamlMap) { m.put(name, v.node()) }

// text puts any text, quoted where YAML would read something else.
func (m *yamlMap) text(name, value string) {
	n := &yaml.Node{}
	n.SetString(value)
	m.put(name, n)
}

// word puts a text that is fit to stand as it is; an empty one not at all.
func (m *yamlMap) word(name, value string) {
	if value != "" {
		m.put(name, &yaml.Node{Kind: yaml.ScalarNode, Value: value})
	}
}

func (m *yamlMap) flag(name string, value bool) { m.word(name, strconv.FormatBool(value)) }

// number puts a number; 0 not at all.
func (m *yamlMap) number(name string, value int) {
	if value != 0 {
		m.word(name, strconv.Itoa(value))
	}
}

func (m *yamlMap) options(options map[string]string) {
	if len(options) == 0 {
		return
	}
	var sub yamlMap
	for _, name := range slices.Sorted(maps.Keys(options)) {
		sub.text(name, options[name])
	}
	m.section("options", sub)
}
