package config

import (
	"strings"

	"gateway/internal/media"
)

// Element is a type of elements, as the installed GStreamer describes it. The
// linter's rules read it, package gst fills it.
type Element struct {
	Name       string        // factory, such as "x264enc"
	Class      string        // "Codec/Encoder/Video", "Sink/Video" …
	Pads       []PadTemplate // what it can be linked by
	Properties []Property
	Children   bool // properties of children can be set: "name::property=value"
}

// PadTemplate is one kind of pads of an element.
type PadTemplate struct {
	Name     string // "sink", "src_%u" …
	Source   bool   // buffers come out of it
	Presence string // "always", "sometimes" or "request"
	Caps     string // what can pass; "ANY" for everything
}

// Property is a property of an element.
type Property struct {
	Name       string
	Type       string   // "whole number", "number", "truth value", "text", "word", "words", "fraction", "caps", or the GType's name
	Min, Max   string   // of a number; else ""
	Values     []string // of a word or of words, those that may be written
	Default    string   // as it is written in launch text
	Writable   bool
	Deprecated bool
}

// LinkFault is why neighbours of a launch text cannot be linked.
type LinkFault struct {
	At      int    // index of the node that what comes before it cannot be linked to
	Message string // for a node that can't be made at all: GStreamer's words
	Field   string // field of the caps that disagrees; "" where nothing is in common, or where there is no pad left
	Up      string // what comes from upstream: the field's value, or media types
	Down    string // what the node takes: likewise
}

// Rehearsal is the launch text of a branch with a test source in the place of what
// is captured; "" where there is none: for a whole feed and for a copy.
func (f Feed) Rehearsal(b Branch) string {
	if f.Whole || b.Copy {
		return ""
	}
	chain := []string{"videotestsrc is-live=true", softConvert(picture{})}
	if b.Track.Kind == media.Audio {
		chain = []string{"audiotestsrc is-live=true", "audioconvert", "audioresample"}
	}
	nodes, err := ParseLaunch(f.Capture)
	if err != nil {
		return ""
	}
	for i := len(nodes) - 1; i >= 0; i-- { // what the capture yields in the end
		n := nodes[i]
		if n.Kind == LaunchCaps && strings.HasPrefix(n.Name, b.Track.Kind.String()+"/x-raw") {
			chain = append(chain, n.Name)
			break
		}
	}
	return strings.Join(append(chain, b.Launch, SinkText(b.Track.Name)), " ! ")
}

// QuoteLaunch is a property value as a launch text spells it: it stays one value
// whatever it holds.
func QuoteLaunch(value string) string { return quoteLaunch(value) }
