package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gateway/internal/config"
)

// textRules look at a launch text word by word.
var textRules = []func(*text, Facts) config.Errors{unknownElements, properties, unlinked, capsFields, leftoverSinks}

// unknownElements: each element must be installed.
func unknownElements(t *text, f Facts) (found config.Errors) {
	for i, n := range t.nodes {
		if n.Kind != config.LaunchElement {
			continue
		}
		if _, ok := f.Element(n.Name); ok {
			continue
		}
		if strings.TrimSpace(n.Name) == "\\" {
			found = append(found, t.fault(i, "a backslash stands at the end of a line, as in a shell", "remove it: lines go on by themselves"))
			continue
		}
		if strings.HasPrefix(n.Name, "-") && strings.HasPrefix(t.nodes[0].Name, "gst-launch") {
			continue // "unlinked" tells of the whole command
		}
		installed := f.Elements()
		if slices.Contains(installed, n.Name) {
			found = append(found, t.fault(i, "the plugin of the element "+quote(n.Name)+" cannot be loaded",
				"see what `gst-inspect-1.0 "+n.Name+"` says"))
			continue
		}
		message, remedy := "the element "+quote(n.Name)+" is not installed", ""
		o, ok := whence(n.Name)
		near := config.Nearest(n.Name, slices.Concat(installed, knownElements()))
		switch {
		case ok && o.debian() && o.hardware:
			remedy = "it is in the package " + o.name + ", and there only where its hardware and driver are: try `gst-inspect-1.0 " + n.Name + "`"
		case ok && o.debian():
			remedy = "install the package " + o.name
		case ok:
			message, remedy = message+", and no package of Debian 12 has it", "it is of "+o.name
		case slices.Contains(installed, near):
			message, remedy = "there is no element "+quote(n.Name), "did you mean "+near+"?"
		case near != "":
			o, _ := whence(near)
			message, remedy = "there is no element "+quote(n.Name), "did you mean "+near+" of "+o.words()+"?"
		default:
			message, remedy = "there is no element "+quote(n.Name), "`gst-inspect-1.0` lists those that are installed"
		}
		found = append(found, t.fault(i, message, remedy))
	}
	return found
}

// unlinked: what a reference names must be there, and an element that takes
// something must get it: without a "!" between two elements, or a reference to the
// second, nothing flows.
func unlinked(t *text, f Facts) (found config.Errors) {
	for i, n := range t.nodes {
		switch {
		case n.Kind == config.LaunchRef && strings.HasPrefix(n.Name, "gst-launch"):
			found = append(found, t.fault(i, "the command "+n.Name+" and its flags are no part of a pipeline", "begin with the first element"))
		case n.Kind == config.LaunchRef && named(t.nodes, n.Name) < 0:
			name, _, _ := strings.Cut(n.Name, ".")
			found = append(found, t.fault(i, "no element has the name "+quote(name), "give it one, such as \"tee name="+name+"\", or correct this"))
		case n.Kind == config.LaunchElement && !n.Linked && !referred(t.nodes, i):
			e, _ := f.Element(n.Name)
			needs := func(p config.PadTemplate) bool { return !p.Source && p.Presence == "always" }
			if slices.ContainsFunc(e.Pads, needs) {
				found = append(found, t.fault(i, "nothing is linked to "+n.Name+", which needs something", "put a \"!\" before it"))
			}
		}
	}
	return found
}

// referred tells whether a reference links something to an element ("… ! mux.").
func referred(nodes []config.LaunchNode, i int) bool {
	return slices.ContainsFunc(nodes, func(n config.LaunchNode) bool {
		return n.Kind == config.LaunchRef && n.Linked && named(nodes, n.Name) == i
	})
}

// properties: each must exist, be writable, and take the value.
func properties(t *text, f Facts) (found config.Errors) {
	for i, n := range t.nodes {
		e, ok := f.Element(n.Name)
		if n.Kind != config.LaunchElement || !ok {
			continue
		}
		for j, p := range n.Props {
			if e.Children && strings.Contains(p.Name, "::") {
				continue
			}
			if message, remedy := propertyFault(e, p, f); message != "" {
				found = append(found, t.finding(config.Fault, t.place(i, j), message, remedy))
			} else if facts, _ := property(e, p.Name); facts.Deprecated {
				found = append(found, t.finding(config.Warning, t.place(i, j),
					p.Name+" of "+e.Name+" is deprecated: a newer GStreamer may not have it", "see `gst-inspect-1.0 "+e.Name+"`"))
			}
		}
	}
	return found
}

func propertyFault(e config.Element, p config.LaunchProp, f Facts) (message, remedy string) {
	facts, ok := property(e, p.Name)
	if !ok {
		var names []string
		for _, o := range e.Properties {
			names = append(names, o.Name)
		}
		remedy = "`gst-inspect-1.0 " + e.Name + "` lists what it has"
		if near := nearestProperty(p.Name, names); near != "" {
			remedy = "did you mean " + near + "?"
		}
		return e.Name + " has no property " + quote(p.Name), remedy
	}
	if !facts.Writable {
		return p.Name + " of " + e.Name + " can only be read", "remove it"
	}
	if strings.Contains(p.Value, `\`) || f.Accepts(e.Name, p.Name, p.Value) {
		return "", ""
	}
	is := fmt.Sprintf("%s of %s is a %s", p.Name, e.Name, facts.Type)
	switch {
	case facts.Min != "":
		if _, err := strconv.ParseFloat(p.Value, 64); err == nil {
			return p.Value + " is out of range for " + p.Name + " of " + e.Name, "allowed are " + facts.Min + " to " + facts.Max
		}
		return is + ", not " + quote(p.Value), "allowed are " + facts.Min + " to " + facts.Max
	case len(facts.Values) > 0:
		remedy = "allowed are " + shortList(facts.Values)
		if near := config.Nearest(p.Value, facts.Values); near != "" {
			remedy = "did you mean " + near + "?"
		}
		return quote(p.Value) + " is no value of " + p.Name + " of " + e.Name, remedy
	case facts.Type == "truth value":
		return is + ", not " + quote(p.Value), "write true or false"
	}
	return is + ", and " + quote(p.Value) + " can't be read as one", "see `gst-inspect-1.0 " + e.Name + "`"
}

// property is what is known about a property of an element.
func property(e config.Element, name string) (config.Property, bool) {
	i := slices.IndexFunc(e.Properties, func(p config.Property) bool { return p.Name == name })
	if i < 0 {
		return config.Property{}, false
	}
	return e.Properties[i], true
}

// nearestProperty also finds a word that is part of the name, as "interval" of
// "config-interval", if there is but one.
func nearestProperty(name string, names []string) string {
	if near := config.Nearest(strings.ReplaceAll(name, "_", "-"), names); near != "" {
		return near
	}
	var holding []string
	for _, n := range names {
		if len(name) > 3 && strings.Contains(n, name) {
			holding = append(holding, n)
		}
	}
	if len(holding) != 1 {
		return ""
	}
	return holding[0]
}

// commonFields are fields of caps that no pad has to name: GStreamer's own
// documents define them (media types, and the RTP caps of gst_rtp_payload).
var commonFields = map[string]string{
	"video/x-raw": "format width height framerate max-framerate views interlace-mode field-order chroma-site colorimetry " +
		"pixel-aspect-ratio multiview-mode multiview-flags mastering-display-info content-light-level drm-format",
	"audio/x-raw":  "format rate channels layout channel-mask",
	"video/x-h264": "parsed stream-format alignment profile level codec_data width height framerate pixel-aspect-ratio colorimetry interlace-mode chroma-format bit-depth-luma bit-depth-chroma",
	"video/x-h265": "parsed stream-format alignment profile tier level codec_data width height framerate pixel-aspect-ratio colorimetry interlace-mode chroma-format bit-depth-luma bit-depth-chroma",
	"image/jpeg":   "parsed width height framerate pixel-aspect-ratio sof-marker colorspace sampling colorimetry interlace-mode",
	"application/x-rtp": "media payload clock-rate encoding-name encoding-params ssrc timestamp-offset seqnum-offset seqnum-base clock-base " +
		"npt-start npt-stop play-speed play-scale width height framerate a-framerate a-framesize packetization-mode profile-level-id " +
		"sprop-parameter-sets sprop-vps sprop-sps sprop-pps sprop-stereo stereo maxptime ptime",
}

// capsFields: a field that nobody knows has no effect, and is mostly a slip. Only
// raw media's fields are all known; of others, those that are like a known one.
func capsFields(t *text, f Facts) (found config.Errors) {
	for i := range t.nodes {
		written, start := t.caps(i)
		for _, c := range splitCaps(written) {
			known := append(strings.Fields(commonFields[c.mediaType]), f.CapsFields(c.mediaType)...)
			for _, field := range c.fields {
				if slices.Contains(known, field.name) {
					continue
				}
				near := config.Nearest(field.name, known)
				raw := c.mediaType == "video/x-raw" || c.mediaType == "audio/x-raw"
				if near == "" && !raw {
					continue
				}
				remedy := "did you mean " + near + "?"
				if near == "" {
					remedy = "known are " + strings.Join(strings.Fields(commonFields[c.mediaType]), ", ")
				}
				p := t.placeIn(i, start+field.offset)
				found = append(found, t.finding(config.Warning, p,
					fmt.Sprintf("no element knows the field %s of %s: it has no effect", quote(field.name), c.mediaType), remedy))
			}
		}
	}
	return found
}

// leftoverSinks: what else than an appsink ends a chain is left over from trying
// the pipeline out, unless a tee feeds it.
func leftoverSinks(t *text, f Facts) (found config.Errors) {
	for i, n := range t.nodes {
		e, ok := f.Element(n.Name)
		if n.Kind != config.LaunchElement || !ok || !strings.HasPrefix(e.Class, "Sink") || n.Name == "appsink" || n.Name == "fakesink" {
			continue
		}
		path := upstream(t.nodes, i)
		teed := slices.ContainsFunc(path, func(j int) bool { return t.nodes[j].Name == "tee" })
		screen := strings.Contains(e.Class, "Sink/Video") || strings.HasPrefix(n.Name, "auto") || strings.HasPrefix(n.Name, "fps")
		switch {
		case screen:
			found = append(found, t.warn(i, "", n.Name+" opens a window or a screen on this machine, which viewers don't see",
				"remove it; what viewers get ends in an appsink"))
		case !teed:
			found = append(found, t.warn(i, "", "what goes into "+n.Name+" reaches no viewer",
				"remove it, end the chain in \"appsink name=video\", or branch off with a tee"))
		}
	}
	return found
}

// capsOf is the caps that a node lets through, written inline or as a capsfilter's;
// "" for any other node.
func capsOf(n *config.LaunchNode) string {
	switch {
	case n.Kind == config.LaunchCaps:
		return n.Name
	case n.Kind == config.LaunchElement && n.Name == "capsfilter":
		v, _ := n.Prop("caps")
		return v
	}
	return ""
}

// caps is a node's capsOf, and where in the node it begins. That is where the
// property begins if backslashes make the two texts differ.
func (t *text) caps(i int) (written string, start int) {
	n := &t.nodes[i]
	written = capsOf(n)
	if n.Kind == config.LaunchCaps {
		return written, 0
	}
	for _, p := range n.Props {
		if p.Name == "caps" {
			start = p.Start - n.Start
			start += max(strings.LastIndex(t.text[p.Start:p.End], written), 0)
		}
	}
	return written, start
}

// caps is one structure of a caps text.
type caps struct {
	mediaType string
	fields    []capsField
}

type capsField struct {
	name, value string
	offset      int // in the text
}

// splitCaps reads a caps text as far as names and plain values go.
func splitCaps(text string) []caps {
	var all []caps
	depth, quoted, start := 0, false, 0
	piece := func(end int) {
		part := text[start:end]
		offset := start + len(part) - len(strings.TrimLeftFunc(part, unicode.IsSpace))
		part = strings.TrimSpace(part)
		if len(all) == 0 {
			all = append(all, caps{})
		}
		c := &all[len(all)-1]
		name, value, assigned := strings.Cut(part, "=")
		if !assigned {
			if c.mediaType == "" {
				c.mediaType, _, _ = strings.Cut(part, "(")
			}
			return
		}
		value = strings.TrimSpace(value)
		if strings.HasPrefix(value, "(") {
			_, value, _ = strings.Cut(value, ")")
		}
		c.fields = append(c.fields, capsField{strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"'`), offset})
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.IndexByte("([{<", c) >= 0:
			depth++
		case strings.IndexByte(")]}>", c) >= 0:
			depth--
		case depth == 0 && (c == ',' || c == ';'):
			piece(i)
			if start = i + 1; c == ';' {
				all = append(all, caps{})
			}
		}
	}
	piece(len(text))
	return all
}

// field is the plain value of a caps field; "" where there is none, or several.
func (c caps) field(name string) string {
	for _, f := range c.fields {
		if f.name == name && !strings.ContainsAny(f.value, "[{") {
			return f.value
		}
	}
	return ""
}

// shortList is a list of at most a dozen words.
func shortList(words []string) string {
	if len(words) > 12 {
		return strings.Join(words[:12], ", ") + " …"
	}
	return list(words)
}

// quote is a value as a finding shows it: short, on one line.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}
