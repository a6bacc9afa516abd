package lint

import (
	"slices"
	"strconv"
	"strings"

	"gateway/internal/config"
	"gateway/internal/media"
)

// track is the chain that ends in an appsink.
type track struct {
	t         *text
	name      string
	path      []int // nodes from source to appsink
	encoder   int   // index in path; -1: straight through, or unknown
	payloader int   // likewise
	parser    int   // behind the encoder; likewise
	codec     media.Codec
	fps       float64 // as the text or the file says; 0: unknown
	width     int
	height    int
}

// tracks are the chains of a text that end in appsinks.
func tracks(t *text, f Facts) []*track {
	var all []*track
	for i, n := range t.nodes {
		if n.Kind != config.LaunchElement || n.Name != "appsink" {
			continue
		}
		tr := &track{t: t, path: upstream(t.nodes, i), encoder: -1, payloader: -1, parser: -1}
		tr.name, _ = n.Prop("name")
		for k, at := range tr.path {
			n := t.nodes[at]
			e, ok := f.Element(n.Name)
			switch {
			case n.Kind == config.LaunchCaps:
				tr.readCaps(n.Name)
			case !ok:
			case strings.Contains(e.Class, "Encoder/") && !strings.Contains(e.Class, "Image"): // openh264enc is no "Codec/…"
				tr.encoder, tr.parser, tr.payloader, tr.codec = k, -1, -1, codecOf(e)
			case strings.Contains(e.Class, "Decoder"):
				tr.encoder, tr.parser, tr.payloader = -1, -1, -1
			case strings.Contains(e.Class, "Payloader"):
				tr.payloader = k
				if c, ok := payloaderCodecs[n.Name]; ok {
					tr.codec = c
				}
			case strings.Contains(e.Class, "Parser"):
				tr.parser = k
			}
		}
		if r := rendition(t.stream, tr.name); r != nil && t.branch == nil {
			tr.codec = r.Codec
			if r.FPS > 0 {
				tr.fps = r.FPS
			}
		}
		if b := t.branch; b != nil {
			tr.codec, tr.width, tr.height = b.Codec, b.Width, b.Height
			if b.FPS > 0 {
				tr.fps = b.FPS
			}
		}
		all = append(all, tr)
	}
	return all
}

var payloaderCodecs = map[string]media.Codec{
	"rtph264pay": media.H264, "rtph265pay": media.H265, "rtpvp8pay": media.VP8, "rtpvp9pay": media.VP9, "rtpav1pay": media.AV1,
	"rtpopuspay": media.Opus, "rtppcmupay": media.PCMU, "rtppcmapay": media.PCMA,
}

var mediaTypeCodecs = map[string]media.Codec{
	"video/x-h264": media.H264, "video/x-h265": media.H265, "video/x-vp8": media.VP8, "video/x-vp9": media.VP9, "video/x-av1": media.AV1,
	"audio/x-opus": media.Opus, "audio/x-mulaw": media.PCMU, "audio/x-alaw": media.PCMA,
}

// codecOf is what an encoder makes.
func codecOf(e config.Element) media.Codec {
	for _, p := range e.Pads {
		if p.Source {
			for _, c := range splitCaps(p.Caps) {
				if codec, ok := mediaTypeCodecs[c.mediaType]; ok {
					return codec
				}
			}
		}
	}
	return ""
}

func (tr *track) readCaps(text string) {
	for _, c := range splitCaps(text) {
		if r := rate(c.field("framerate")); r > 0 {
			tr.fps = r
		}
		w, _ := strconv.Atoi(c.field("width"))
		h, _ := strconv.Atoi(c.field("height"))
		if w > 0 && h > 0 {
			tr.width, tr.height = w, h
		}
	}
}

// rate reads "30/1"; 0 if it isn't one.
func rate(text string) float64 {
	num, den, ok := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(num, 64)
	d, err2 := strconv.ParseFloat(den, 64)
	if !ok || err != nil || err2 != nil || d <= 0 {
		return 0
	}
	return n / d
}

// node is the node at an index of the path.
func (tr *track) node(k int) *config.LaunchNode { return &tr.t.nodes[tr.path[k]] }

// warn is a finding at an index of the path.
func (tr *track) warn(k int, property, message, remedy string) *config.Error {
	return tr.t.warn(tr.path[k], property, message, remedy)
}

// setting is a property of the element at an index of the path: what the text
// says, else its default. given tells which.
func (tr *track) setting(f Facts, k int, name string) (value string, given, ok bool) {
	n := tr.node(k)
	e, found := f.Element(n.Name)
	if !found {
		return "", false, false
	}
	p, ok := property(e, name)
	if v, given := n.Prop(name); given {
		return v, true, ok
	}
	return p.Default, false, ok
}

// number is a setting as a whole number; ok is false if it isn't one.
func (tr *track) number(f Facts, k int, name string) (n int, given, ok bool) {
	v, given, ok := tr.setting(f, k, name)
	if !ok {
		return 0, false, false
	}
	i, err := strconv.ParseInt(v, 0, 64)
	return int(i), given, err == nil
}

// capsBetween are the caps that filters let through between two indexes of the path.
func (tr *track) capsBetween(from, to int) (all []caps) {
	for k := from; k < to; k++ {
		if written := capsOf(tr.node(k)); written != "" {
			all = append(all, splitCaps(written)...)
		}
	}
	return all
}

// assign is an assignment to a property of the encoder as the file has to say it.
func (tr *track) assign(property, value string) string {
	if tr.t.branch == nil {
		return property + "=" + value
	}
	return property + ": " + value
}

// hasHeaders tells whether the track's codec sends parameter sets.
func (tr *track) hasHeaders() bool { return tr.codec == media.H264 || tr.codec == media.H265 }

// short is the name of an element at an index, or what stands for the source.
func (tr *track) short(k int) string {
	if k < 0 {
		return "the source"
	}
	return tr.node(k).Name
}

// gopProperties are what encoders call the longest distance between keyframes, in frames.
var gopProperties = []string{"key-int-max", "gop-size", "keyframe-max-dist", "keyframe-period", "iframeinterval", "intra-period-length", "gop"}

// lookaheadProperties are what encoders call how many frames they wait for.
var lookaheadProperties = []string{"rc-lookahead", "lag-in-frames", "lookahead", "look-ahead-depth", "lookahead-distance", "future-frames"}

// bframeProperties are what encoders call how many B-frames they put between others.
var bframeProperties = []string{"bframes", "b-frames", "max-bframes", "num-B-Frames", "num-b-frames"}

// realtime are properties that make an encoder hurry, and what becomes of it else.
var realtime = map[string]struct{ property, value, otherwise string }{
	"x264enc": {"tune", "zerolatency", "it looks up to 50 frames ahead, with B-frames: 1 s of delay and more"},
	"x265enc": {"tune", "zerolatency", "it looks 20 frames ahead, with B-frames: 1 s of delay and more"},
	"vp8enc":  {"deadline", "1", "it takes its time for each frame: frames come late and are dropped"},
	"vp9enc":  {"deadline", "1", "it takes its time for each frame: frames come late and are dropped"},
	"av1enc":  {"usage-profile", "realtime", "it takes seconds for each second of video"},
}

// repeats are encoders that put SPS and PPS before each keyframe by themselves.
func repeats(name string) bool {
	for _, prefix := range []string{"openh264enc", "va", "qsv", "msdk", "amf"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// eightBit420 are the raw formats of what every browser decodes.
var eightBit420 = []string{"I420", "NV12", "YV12", "NV21", "GRAY8"}

// playable are the profiles that browsers decode; nil: all, or not known.
var playable = map[media.Codec][]string{
	media.H264: {"constrained-baseline", "baseline", "main", "high", "constrained-high", "progressive-high"},
	media.H265: {"main", "main-10", "main-still-picture"},
	media.VP9:  {"0", "2"},
	media.AV1:  {"main"},
}

func playableProfile(codec media.Codec, profile string) bool {
	known := playable[codec]
	return known == nil || profile == "" || slices.Contains(known, profile)
}
