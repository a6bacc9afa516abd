package lint

import (
	"fmt"
	"slices"
	"strings"

	"gateway/internal/config"
	"gateway/internal/media"
)

// upstream is the chain from a source down to a node. Where it begins at a
// reference ("t. ! queue ! …") it goes on at the element of that name.
func upstream(nodes []config.LaunchNode, i int) []int {
	var path []int
	seen := map[int]bool{}
	for i >= 0 && !seen[i] {
		seen[i] = true
		n := &nodes[i]
		if n.Kind != config.LaunchRef {
			path = append(path, i)
		}
		switch {
		case n.Kind == config.LaunchRef && !n.Linked:
			i = named(nodes, n.Name)
		case n.Linked:
			i--
		default:
			i = -1
		}
	}
	slices.Reverse(path)
	return path
}

// named is the element that a reference is to; -1 if there is none.
func named(nodes []config.LaunchNode, ref string) int {
	name, _, _ := strings.Cut(ref, ".")
	return slices.IndexFunc(nodes, func(o config.LaunchNode) bool {
		given, _ := o.Prop("name")
		return name != "" && given == name
	})
}

// chains are the ways from a source, or from a reference, to where a chain ends.
func chains(nodes []config.LaunchNode) [][]int {
	var all [][]int
	for i, n := range nodes {
		if i+1 < len(nodes) && nodes[i+1].Linked {
			continue
		}
		path := upstream(nodes, i)
		if n.Kind == config.LaunchRef && n.Linked {
			if to := named(nodes, n.Name); to >= 0 && !slices.Contains(path, to) {
				path = append(path, to)
			}
		}
		all = append(all, path)
	}
	return all
}

// links: neighbours must have something in common. A chain with a word that is
// wrong already can't be made and isn't looked at.
func links(t *text, f Facts, sofar config.Errors) (found config.Errors) {
	if faulty(sofar) {
		return nil
	}
	for _, path := range chains(t.nodes) {
		var chain []string
		var at []int
		for k, i := range path {
			n := t.nodes[i]
			if n.Name == "appsink" && k == len(path)-1 {
				chain = append(chain, takes(t, n)) // it would take anything
				at = append(at, i)
				break
			}
			chain = append(chain, t.text[n.Start:n.End])
			at = append(at, i)
		}
		if fault := f.Link(chain); fault != nil {
			found = append(found, linkFault(t, f, at, fault))
		}
	}
	return found
}

// takes is the caps that the gateway can send from an appsink.
func takes(t *text, n config.LaunchNode) string {
	name, _ := n.Prop("name")
	if r := rendition(t.stream, name); r != nil && r.Codec == media.AV1 {
		return "application/x-rtp;video/x-av1"
	}
	return "application/x-rtp"
}

func linkFault(t *text, f Facts, at []int, fault *config.LinkFault) *config.Error {
	i := at[fault.At]
	n := t.nodes[i]
	if n.Kind == config.LaunchCaps && strings.HasPrefix(fault.Message, "these caps") {
		return t.fault(i, "the caps "+quote(n.Name)+" can't be read", "write them as \"video/x-raw,width=1280,height=720\"")
	}
	if fault.Message != "" {
		return t.fault(i, quote(n.Name)+" cannot be linked: "+fault.Message, "check what stands before it")
	}
	before := 0
	for k := fault.At - 1; k >= 0; k-- {
		if before = at[k]; t.nodes[before].Kind == config.LaunchElement {
			break
		}
	}
	up := "what comes before"
	if o := t.nodes[before]; o.Kind == config.LaunchElement {
		up = o.Name
	}
	down, verb := n.Name, "takes"
	place := t.place(i, -1)
	if n.Kind == config.LaunchCaps {
		down, verb = "the caps", "ask for"
		for _, c := range splitCaps(n.Name) {
			for _, field := range c.fields {
				if field.name == fault.Field {
					place = t.placeIn(i, field.offset)
				}
			}
		}
	}
	if n.Name == "appsink" {
		verb = "must get"
	}
	message := fmt.Sprintf("%s gives %s, and %s %s %s", up, fault.Up, down, verb, fault.Down)
	switch fault.Field {
	case "":
	case "memory":
		message = fmt.Sprintf("%s gives pictures in %s, and %s %s them in %s", up, memory(fault.Up), down, verb, memory(fault.Down))
	default:
		message = fmt.Sprintf("%s gives %s %s, and %s %s %s", up, fault.Field, brief(fault.Up), down, verb, brief(fault.Down))
	}
	return t.finding(config.Fault, place, "cannot be linked: "+message, linkRemedy(f, n, fault))
}

// memory is a caps feature without its prefix.
func memory(feature string) string { return strings.ReplaceAll(feature, "memory:", "") }

// linkRemedy is what usually stands between the two.
func linkRemedy(f Facts, n config.LaunchNode, fault *config.LinkFault) string {
	audio := strings.HasPrefix(fault.Up, "audio/")
	switch fault.Field {
	case "format":
		if e, ok := f.Element(n.Name); ok && strings.Contains(e.Class, "Audio") {
			return "put audioconvert between them"
		}
		return "put videoconvert between them"
	case "rate", "channels":
		return "put \"audioconvert ! audioresample\" between them"
	case "width", "height", "pixel-aspect-ratio":
		return "put videoscale between them, or ask for another size"
	case "framerate":
		return "put videorate between them, or ask for another rate"
	case "stream-format", "alignment":
		return "put the parser between them, such as h264parse"
	case "memory":
		return "put the element between them that moves pictures there, such as vapostproc, glupload or cudaupload"
	case "":
	default:
		return "make the two agree on " + fault.Field
	}
	e, _ := f.Element(n.Name)
	up, _, several := strings.Cut(fault.Up, ",")
	if several {
		up = ""
	}
	switch raw := up == "video/x-raw" || up == "audio/x-raw"; {
	case raw && (n.Name == "appsink" || strings.Contains(e.Class, "Payloader") || strings.Contains(e.Class, "Parser")):
		if audio {
			return "put an encoder and its payloader between them: \"opusenc ! rtpopuspay\""
		}
		return "put an encoder between them, such as x264enc, and its payloader"
	case n.Name == "appsink" || strings.Contains(e.Class, "Payloader"):
		if pay := payloaders[up]; pay != "" {
			return "put " + pay + " there"
		}
		return "put a payloader there, such as rtph264pay"
	case up != "" && !raw && (strings.Contains(e.Class, "Encoder") || strings.Contains(e.Class, "Converter") || strings.Contains(fault.Down, "/x-raw")):
		return "decode it first, with decodebin or a decoder of " + up
	}
	return "put what converts between them, or leave one out"
}

// payloaders are those of the media types that browsers play.
var payloaders = map[string]string{
	"video/x-h264": "rtph264pay", "video/x-h265": "rtph265pay", "video/x-vp8": "rtpvp8pay", "video/x-vp9": "rtpvp9pay",
	"audio/x-opus": "rtpopuspay", "audio/x-mulaw": "rtppcmupay", "audio/x-alaw": "rtppcmapay",
}

// placeIn is the place of a byte inside a node.
func (t *text) placeIn(node, offset int) place {
	if t.offset != nil {
		return t.offset(t.nodes[node].Start + offset)
	}
	return t.place(node, -1)
}

// brief cuts a long list of values.
func brief(values string) string {
	words := strings.Split(values, ", ")
	if len(words) > 6 {
		return strings.Join(words[:6], ", ") + " …"
	}
	return values
}
