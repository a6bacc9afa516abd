package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gateway/internal/config"
	"gateway/internal/media"
)

// trackRules look at the chain that makes a track.
var trackRules = []func(*track, Facts) config.Errors{
	hurry, bFrames, lookahead, gop, headers, parser, profile, pictureFormat, converter, queues, appsink,
}

// longestGOP is from where a keyframe distance counts as long, in seconds.
const longestGOP = 10 // what x264enc does when it isn't told

// hurry: an encoder must be told not to wait.
func hurry(tr *track, f Facts) config.Errors {
	if tr.encoder < 0 {
		return nil
	}
	name := tr.node(tr.encoder).Name
	want, ok := realtime[name]
	if !ok {
		return nil
	}
	value, given, ok := tr.setting(f, tr.encoder, want.property)
	if !ok || hurries(want.value, value) {
		return nil
	}
	if !given {
		return config.Errors{tr.warn(tr.encoder, "", "no "+want.property+"="+want.value+" for "+name+": "+want.otherwise,
			"add "+tr.assign(want.property, want.value))}
	}
	return config.Errors{tr.warn(tr.encoder, want.property,
		want.property+" of "+name+" is not "+want.value+": "+want.otherwise, "write "+tr.assign(want.property, want.value))}
}

// hurries tells whether a value is the wanted one, holds it among others, or is
// its number: of x264enc's and x265enc's tune, zerolatency is 4; av1enc's
// realtime is 1.
func hurries(want, value string) bool {
	if value == want || slices.Contains(strings.FieldsFunc(value, func(r rune) bool { return r == '+' || r == ' ' || r == ',' }), want) {
		return true
	}
	n, err := strconv.ParseInt(value, 0, 64)
	return err == nil && (want == "zerolatency" && n&4 != 0 || want == "realtime" && n == 1)
}

// bFrames: they come out of order, each after a frame that is later than it.
func bFrames(tr *track, f Facts) config.Errors {
	return tr.atMost(f, bframeProperties, func(property string, n int) (string, string) {
		return fmt.Sprintf("%s=%d makes B-frames: each frame waits for later ones, and browsers show them jerkily or not at all", property, n),
			"write " + tr.assign(property, "0")
	})
}

// lookahead: frames that are waited for are delay.
func lookahead(tr *track, f Facts) config.Errors {
	return tr.atMost(f, lookaheadProperties, func(property string, n int) (string, string) {
		fps := tr.fps
		if fps == 0 {
			fps = 30
		}
		return fmt.Sprintf("%s=%d holds back as many frames: %.2g s of delay at %.4g frames a second", property, n, float64(n)/fps, fps),
			"write " + tr.assign(property, "0")
	})
}

// atMost finds properties of the encoder, or words of its option-string, that are
// not 0. Defaults count, but for encoders whose tune decides on them.
func (tr *track) atMost(f Facts, properties []string, say func(property string, n int) (message, remedy string)) (found config.Errors) {
	if tr.encoder < 0 {
		return nil
	}
	tuned := realtime[tr.node(tr.encoder).Name].property == "tune"
	for _, property := range properties {
		n, given, ok := tr.number(f, tr.encoder, property)
		if ok && n > 0 && (given || !tuned) {
			message, remedy := say(property, n)
			found = append(found, tr.warn(tr.encoder, property, message, remedy))
		}
	}
	options, _ := tr.node(tr.encoder).Prop("option-string")
	for word := range strings.SplitSeq(options, ":") {
		name, value, _ := strings.Cut(word, "=")
		if n, err := strconv.Atoi(value); err == nil && n > 0 && slices.Contains(properties, name) {
			message, remedy := say(name, n)
			found = append(found, tr.warn(tr.encoder, "option-string", message, remedy+" in option-string"))
		}
	}
	return found
}

// gop: whoever comes between two keyframes, or has lost a packet for good, waits.
func gop(tr *track, f Facts) config.Errors {
	if tr.encoder < 0 {
		return nil
	}
	fps, at := tr.fps, ""
	if fps == 0 {
		fps, at = 30, " at 30 frames a second"
	}
	name := tr.node(tr.encoder).Name
	for _, property := range gopProperties {
		n, given, ok := tr.number(f, tr.encoder, property)
		if !ok {
			continue
		}
		remedy := fmt.Sprintf("write %s=%d for one every 2 s", property, int(2*fps+0.5))
		if tr.t.branch != nil {
			remedy = "write keyframe_interval: 2s"
		}
		consequence := "a viewer whose picture breaks may wait as long for the next whole one"
		switch { // what the libraries choose by themselves
		case n == 0 && name == "x264enc":
			n = int(10 * fps)
		case n == 0 && name == "x265enc":
			n = 250
		}
		unset := n <= 0
		switch seconds := float64(n) / fps; {
		case unset && !given:
			return config.Errors{tr.warn(tr.encoder, "", property+" of "+name+" is not set: who has lost a keyframe may wait for ever for the next", remedy)}
		case unset:
			return config.Errors{tr.warn(tr.encoder, property, property+" of "+name+" sets no limit: who has lost a keyframe may wait for ever for the next", remedy)}
		case n > 1 && seconds >= longestGOP: // in a time lapse each frame is one
			return config.Errors{tr.warn(tr.encoder, property,
				fmt.Sprintf("%.3g s%s between keyframes: %s", seconds, at, consequence), remedy)}
		}
		return nil
	}
	return nil
}

// headers: without SPS and PPS before each keyframe, who joins later has no
// picture.
func headers(tr *track, f Facts) config.Errors {
	if !tr.hasHeaders() || tr.payloader < 0 {
		return nil
	}
	for _, k := range []int{tr.parser, tr.payloader} {
		if k < 0 {
			continue
		}
		if n, _, ok := tr.number(f, k, "config-interval"); ok && n != 0 {
			return nil
		}
	}
	if tr.encoder >= 0 {
		if repeats(tr.node(tr.encoder).Name) {
			return nil
		}
		for _, c := range tr.capsBetween(tr.encoder, tr.payloader) {
			if c.field("stream-format") == "byte-stream" { // x264enc's byte-stream alone is overruled by what takes avc too
				return nil
			}
		}
	}
	parserName := "h264parse"
	if tr.codec == media.H265 {
		parserName = "h265parse"
	}
	consequence := "SPS and PPS are not repeated before keyframes: who joins later may get no picture"
	if tr.parser < 0 {
		return config.Errors{tr.warn(tr.payloader, "", "no "+parserName+" before "+tr.short(tr.payloader)+", and no config-interval: "+consequence,
			"put \""+parserName+" config-interval=-1\" before it")}
	}
	return config.Errors{tr.warn(tr.parser, "config-interval", "no config-interval: "+consequence,
		"write \""+tr.node(tr.parser).Name+" config-interval=-1\"")}
}

// parser: what comes neither of an encoder nor of a depayloader isn't cut into frames.
func parser(tr *track, f Facts) config.Errors {
	if !tr.hasHeaders() || tr.payloader < 0 || tr.parser >= 0 || tr.encoder >= 0 {
		return nil
	}
	if len(headers(tr, f)) > 0 {
		return nil
	}
	for k := tr.payloader - 1; k >= 0; k-- {
		n := tr.node(k)
		if written := capsOf(n); written != "" {
			if slices.ContainsFunc(splitCaps(written), func(c caps) bool { return c.field("alignment") == "au" }) {
				return nil
			}
			continue
		}
		e, _ := f.Element(n.Name)
		if strings.Contains(e.Class, "Depayloader") {
			return nil
		}
		if !strings.HasPrefix(e.Class, "Generic") {
			break
		}
	}
	return config.Errors{tr.warn(tr.payloader, "", "no parser before "+tr.short(tr.payloader)+": frames may be cut in the wrong place",
		"put h264parse before it")}
}

// profile: what no browser decodes, and what few do.
func profile(tr *track, f Facts) (found config.Errors) {
	for k := max(tr.encoder, 0); k < len(tr.path); k++ {
		written, start := tr.t.caps(tr.path[k])
		for _, c := range splitCaps(written) {
			codec, ok := mediaTypeCodecs[c.mediaType]
			for _, field := range c.fields {
				if field.name != "profile" || !ok || playableProfile(codec, c.field("profile")) {
					continue
				}
				found = append(found, tr.t.finding(config.Fault, tr.t.placeIn(tr.path[k], start+field.offset),
					fmt.Sprintf("no browser plays %s of the profile %s", codec, field.value), "use "+playable[codec][0]))
			}
		}
	}
	return found
}

// pictureFormat: an encoder that takes 4:4:4 or 10 bits is given them by a
// converter that isn't told otherwise.
func pictureFormat(tr *track, f Facts) config.Errors {
	if tr.encoder < 0 || tr.codec.Kind() != media.Video {
		return nil
	}
	name := tr.node(tr.encoder).Name
	e, _ := f.Element(name)
	var beyond []string
	for _, format := range rawFormats(e, false) {
		if !slices.Contains(eightBit420, format) {
			beyond = append(beyond, format)
		}
	}
	if len(beyond) == 0 || strings.Contains(e.Class, "Hardware") {
		return nil
	}
	for k := range tr.encoder {
		for _, c := range splitCaps(capsOf(tr.node(k))) {
			format := c.field("format")
			if c.mediaType != "video/x-raw" || format == "" {
				continue
			}
			converted := false // by what comes behind the caps
			for j := k + 1; j < tr.encoder; j++ {
				e, _ := f.Element(tr.node(j).Name)
				converted = converted || strings.Contains(e.Class, "Converter") && strings.Contains(e.Class, "Colorspace")
			}
			switch {
			case slices.Contains(eightBit420, format) && !converted:
				return nil
			case slices.Contains(beyond, format) && !converted:
				return config.Errors{tr.t.finding(config.Fault, tr.t.place(tr.path[k], -1),
					"no browser plays what "+name+" makes of "+format, "write format=I420")}
			}
		}
	}
	end := len(tr.path)
	if tr.payloader >= 0 {
		end = tr.payloader
	}
	for _, c := range tr.capsBetween(tr.encoder, end) {
		if c.field("profile") != "" {
			return nil // which profile says which formats; rule profile looks at it
		}
	}
	return config.Errors{tr.warn(tr.encoder, "",
		"the picture format is left open: "+name+" may be given "+brief(strings.Join(beyond, ", "))+", which browsers don't play",
		"put \"video/x-raw,format=I420\" before it")}
}

// rawFormats are the raw formats of an element's pads.
func rawFormats(e config.Element, source bool) (formats []string) {
	for _, p := range e.Pads {
		if p.Source != source {
			continue
		}
		for _, c := range splitCaps(p.Caps) {
			for _, field := range c.fields {
				if c.mediaType == "video/x-raw" && field.name == "format" {
					formats = append(formats, strings.FieldsFunc(field.value, func(r rune) bool { return strings.ContainsRune("{}, ", r) })...)
				}
			}
		}
	}
	return slices.DeleteFunc(formats, func(s string) bool { return strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") })
}

// converter: a source that may deliver many formats needs one before an encoder
// that takes few.
func converter(tr *track, f Facts) config.Errors {
	if tr.encoder < 1 || tr.codec.Kind() != media.Video {
		return nil
	}
	source, ok := f.Element(tr.node(0).Name)
	if !ok || !strings.HasPrefix(source.Class, "Source/Video") {
		return nil
	}
	for k := 1; k < tr.encoder; k++ {
		n := tr.node(k)
		e, _ := f.Element(n.Name)
		if written := capsOf(n); written != "" {
			if slices.ContainsFunc(splitCaps(written), func(c caps) bool { return c.field("format") != "" || c.mediaType != "video/x-raw" }) {
				return nil // the file knows what it delivers
			}
		} else if strings.Contains(e.Class, "Converter") || !strings.HasPrefix(e.Class, "Generic") && !strings.HasPrefix(e.Class, "Filter") {
			return nil
		}
	}
	if tr.node(0).Name == "videotestsrc" {
		return nil // it makes what is asked for
	}
	name := tr.node(tr.encoder).Name
	return config.Errors{tr.warn(tr.encoder, "", "no videoconvert between "+tr.node(0).Name+" and "+name+
		": the pipeline starts only if the source delivers a format that "+name+" takes", "put videoconvert before "+name)}
}

// queues: one that doesn't leak lets old frames pile up.
func queues(tr *track, f Facts) (found config.Errors) {
	if source, _ := f.Element(tr.node(0).Name); strings.HasPrefix(source.Class, "Source/File") || tr.codec.Kind() != media.Video {
		return nil // nothing is late
	}
	decoded := false // before it, nothing may be dropped
	for k := range tr.path {
		n := tr.node(k)
		if n.Kind != config.LaunchElement || !tr.t.own(tr.path[k]) {
			continue
		}
		e, _ := f.Element(n.Name)
		if !strings.HasPrefix(n.Name, "queue") {
			decoded = decoded || strings.HasPrefix(e.Class, "Source/Video") || strings.Contains(e.Class, "Decoder") ||
				strings.HasPrefix(e.Class, "Source/Audio") || n.Name == "decodebin" || n.Name == "decodebin3" || n.Name == "uridecodebin"
			continue
		}
		if leaky, _, _ := tr.setting(f, k, "leaky"); leaky == "downstream" || leaky == "2" || leaky == "upstream" || leaky == "1" {
			continue
		}
		if n.Name == "queue2" {
			found = append(found, tr.warn(k, "", "queue2 is for downloads: it holds up to 2 s back", "use \"queue leaky=downstream max-size-buffers=2\""))
			continue
		}
		last := k+1 < len(tr.path) && tr.node(k+1).Name == "appsink"
		switch {
		case last || tr.encoder >= 0 && k > tr.encoder:
			found = append(found, tr.warn(k, "", "a queue that does not leak stands between "+tr.short(tr.encoder)+" and the appsink: it can hold "+tr.holds(f, k)+" back",
				"remove it: the appsink never waits"))
		case tr.encoder >= 0 && decoded:
			found = append(found, tr.warn(k, "", "the queue does not leak: when the encoder is late, it holds "+tr.holds(f, k)+" back",
				"write \"queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0\""))
		}
	}
	return found
}

// holds is what fits into a queue.
func (tr *track) holds(f Facts, k int) string {
	buffers, _, _ := tr.number(f, k, "max-size-buffers")
	ns, _, _ := tr.number(f, k, "max-size-time")
	switch {
	case ns > 0:
		return strconv.FormatFloat(float64(ns)/1e9, 'g', 3, 64) + " s"
	case buffers > 0:
		return strconv.Itoa(buffers) + " buffers"
	}
	return "any number of frames"
}

// appsink: it must neither wait for a frame's time nor stop the pipeline.
func appsink(tr *track, f Facts) (found config.Errors) {
	k := len(tr.path) - 1
	for property, bad := range map[string]struct{ values, consequence, remedy string }{
		"sync":        {"true 1 yes", "each frame is held until its time: delay", "remove it"},
		"drop":        {"false 0 no", "the pipeline stops whenever the gateway is busy", "remove it"},
		"max-buffers": {"0", "packets pile up without limit when the gateway is busy", "remove it"},
	} {
		if v, ok := tr.node(k).Prop(property); ok && slices.Contains(strings.Fields(bad.values), strings.ToLower(v)) {
			found = append(found, tr.warn(k, property, property+"="+v+" on the appsink: "+bad.consequence, bad.remedy))
		}
	}
	return found
}
