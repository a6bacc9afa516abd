package lint

import (
	"slices"

	"gateway/internal/config"
	"gateway/internal/media"
)

// text is a launch text with the place in the file of all that stands in it.
type text struct {
	stream *config.Stream
	key    string // of the file; "" where it isn't the file's own
	text   string
	nodes  []config.LaunchNode
	place  func(node, prop int) place // prop -1: the element itself
	offset func(offset int) place     // of a byte of the text; nil where it isn't the file's own

	source bool         // one chain whose end the gateway links on
	branch *media.Track // everyday form: the track that the text is compiled for
	ours   func(node int) bool
}

// place is where in the file something is.
type place struct {
	key          string
	line, column int
}

// finding is one at a place.
func (t *text) finding(severity config.Severity, p place, message, remedy string) *config.Error {
	return &config.Error{
		File: t.stream.Path, Line: p.line, Column: p.column, Key: p.key,
		Message: message, Remedy: remedy, Severity: severity,
	}
}

// fault is a finding at a node: the file can't be used.
func (t *text) fault(node int, message, remedy string) *config.Error {
	return t.finding(config.Fault, t.place(node, -1), message, remedy)
}

// warn is a finding at a node, or at its property where that is given: the file
// can be used, with the consequence that the message names.
func (t *text) warn(node int, property, message, remedy string) *config.Error {
	at := -1
	for i, p := range t.nodes[node].Props {
		if p.Name == property {
			at = i
		}
	}
	return t.finding(config.Warning, t.place(node, at), message, remedy)
}

// own tells whether a node stands in the file.
func (t *text) own(node int) bool { return t.ours == nil || !t.ours(node) }

// check runs the rules over the text, then over the chains of its tracks.
func (t *text) check(f Facts) config.Errors {
	var found config.Errors
	for _, rule := range textRules {
		found = append(found, rule(t, f)...)
	}
	found = append(found, links(t, f, found)...)
	if faulty(found) || t.source {
		return found
	}
	for _, tr := range tracks(t, f) {
		for _, rule := range trackRules {
			found = append(found, rule(tr, f)...)
		}
	}
	return found
}

// writtenTexts are the launch texts of a file.
func writtenTexts(s *config.Stream) []*text {
	var texts []*text
	add := func(key, launch string, source bool) {
		nodes, err := config.ParseLaunch(launch)
		if launch == "" || err != nil {
			return
		}
		offset := func(offset int) place {
			line, column := s.Locate(key, offset)
			return place{key, line, column}
		}
		texts = append(texts, &text{stream: s, key: key, text: launch, nodes: nodes, source: source, offset: offset, place: func(node, prop int) place {
			if prop >= 0 {
				return offset(nodes[node].Props[prop].Start)
			}
			return offset(nodes[node].Start)
		}})
	}
	add("launch", s.Launch, false)
	add("source", s.Source, true)
	if s.Audio != nil {
		add("audio.source", s.Audio.Source, true)
	}
	return texts
}

// compiledTexts are the launch texts that the gateway makes of the everyday form.
// What stands in them has the place of the key that it comes from.
func compiledTexts(s *config.Stream, plan *config.Plan, written []*text) []*text {
	var texts []*text
	for _, f := range plan.Feeds {
		for _, b := range f.Branches {
			launch := f.Text(b)
			nodes, err := config.ParseLaunch(launch)
			if f.Whole || err != nil {
				continue
			}
			source := sourceNodes(nodes, written, f)
			key := trackKey(s, b.Track)
			ours := func(node int) bool { _, ok := source[node]; return !ok }
			texts = append(texts, &text{stream: s, text: launch, nodes: nodes, branch: &b.Track, ours: ours, place: func(node, prop int) place {
				if origin, ok := source[node]; ok {
					if prop < 0 {
						return origin("")
					}
					return origin(nodes[node].Props[prop].Name)
				}
				at, property := key, ""
				if name, _ := nodes[node].Prop("name"); name == b.Element && name != "" {
					if prop >= 0 {
						property = nodes[node].Props[prop].Name
					}
					at = optionKey(s, key, b, property)
				}
				line, column := s.Position(at)
				return place{at, line, column}
			}})
		}
	}
	return texts
}

// optionKey isthe key that decides on a property of the encoder, or on which encoder
// it is: under the track's key, or for all renditions.
func optionKey(s *config.Stream, track string, b config.Branch, property string) string {
	names := []string{"options." + property, "encoder"}
	switch {
	case property == "":
		names = []string{"encoder"}
	case property == b.Bitrate.Property:
		names = []string{"options." + property, "bitrate"}
	case slices.Contains(gopProperties, property):
		names = []string{"options." + property, "keyframe_interval"}
	}
	for _, name := range names {
		for _, holder := range []string{track, b.Track.Kind.String()} {
			if key := holder + "." + name; given(s, key) {
				return key
			}
		}
	}
	return track
}

// sourceNodes finds the nodes of a compiled text that stand in the file's source,
// and where there: the element, or a property of it.
func sourceNodes(nodes []config.LaunchNode, written []*text, f config.Feed) map[int]func(property string) place {
	origin := map[int]func(string) place{}
	for _, t := range written {
		if t.key != feedKey(t.stream, f) {
			continue
		}
		next := 0
		for i, n := range nodes {
			if next == len(t.nodes) || n.Name != t.nodes[next].Name || n.Kind != t.nodes[next].Kind {
				continue
			}
			at := next
			origin[i] = func(property string) place {
				return t.place(at, slices.IndexFunc(t.nodes[at].Props, func(p config.LaunchProp) bool { return p.Name == property }))
			}
			next++
		}
	}
	return origin
}
