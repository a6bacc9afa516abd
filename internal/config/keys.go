package config

import (
	"regexp"
	"slices"
	"strings"

	"gateway/internal/media"
)

// valueKind is what a key holds.
type valueKind uint8

const (
	ofSection  valueKind = iota // keys of its own
	ofSections                  // a list of such
	ofText                      // a string
	ofLaunch                    // gst-launch syntax
	ofWord                      // one of some words
	ofName                      // a word of which some are known
	ofFlag                      // true or false
	ofCount                     // a whole number
	ofRate                      // frames a second: a number or a fraction
	ofBitrate                   // bit/s, with k or M
	ofSize                      // bytes, with k, M or G
	ofDuration                  // Go's spelling: 10s, 500ms
	ofTexts                     // a list of strings
	ofPairs                     // any keys with values
	ofNamed                     // sections by names of the operator's, each with keys of another schema
)

// key is one key that a kind of file may hold. The tables of keys are what the
// decoders check values against, what the JSON Schemas are made of, and what the
// documentation's tables are written from.
type key struct {
	path        string // "video.renditions[].name"
	kind        valueKind
	def         string  // default as a file would say it; "" means none
	otherwise   string  // the default in words, where it is no fixed value
	unit        string  // "pixels"
	least, most float64 // bounds of a number, in bit/s, s, or its unit; both 0: none
	words       []string
	of          *schema        // what each of ofNamed holds
	names       *regexp.Regexp // and what it may be called
	example     string
	meaning     string // for the documentation and editors, in Markdown
	each        bool   // a key of video that a rendition may have too
}

// schema is what a kind of file may hold.
type schema struct {
	what  string            // "pipeline", "gateway configuration"
	keys  []key             // in the order of the documentation
	later map[string]string // keys that a later version has: path → what to do meanwhile
}

var itemIndex = regexp.MustCompile(`\[\d+\]`)

// find returns the key of a path, whose indices don't matter; nil if there is none.
func (s *schema) find(path string) *key {
	path = itemIndex.ReplaceAllString(path, "[]")
	if i := slices.IndexFunc(s.keys, func(k key) bool { return k.path == path }); i >= 0 {
		return &s.keys[i]
	}
	return nil
}

// children lists the keys directly under path.
func (s *schema) children(path string) []string {
	path = itemIndex.ReplaceAllString(path, "[]")
	var names []string
	for _, k := range s.keys {
		parent, name := splitPath(k.path)
		if parent == path {
			names = append(names, name)
		}
	}
	return names
}

func splitPath(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func joinPath(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

func codecWords(k media.Kind) []string {
	var words []string
	for _, c := range media.Codecs(k) {
		words = append(words, string(c))
	}
	return words
}

var streamSchema = &schema{
	what: "pipeline",
	keys: streamKeys(),
	later: map[string]string{
		"renditions":    "write it under video",
		"video.sync":    "write sync at the top",
		"audio.encoder": "remove it; the codec decides",
		"limits":        "remove it",
		"room":          "remove it; every stream is its own room",
		"rooms":         "remove it; every stream is its own room",
		"placeholder":   "remove it; there is one whenever the source is away",
		"record":        "remove it",
	},
}

// streamKeys are the keys of a pipeline file. Those of video that a rendition may
// have are there for it too.
func streamKeys() []key {
	keys := []key{
		{path: "title", kind: ofText, otherwise: "the file's name", unit: "at most 200 bytes", example: "Front door", meaning: "what people see"},
		{path: "source", kind: ofLaunch, example: "v4l2src device=/dev/video0", meaning: "the video source: elements in the syntax of gst-launch-1.0, in one chain. Needs `video`"},
		{path: "launch", kind: ofLaunch, example: "videotestsrc ! vp8enc ! rtpvp8pay ! appsink name=video", meaning: "the whole pipeline, instead of `source`"},
		{path: "loop", kind: ofFlag, def: "true", example: "false", meaning: "begin a source anew when it comes to its end (a file). Without it the stream has ended then, and plays again for the next viewer once all have left, or when this file is edited"},
		{path: "on_demand", kind: ofFlag, def: "true", example: "false", meaning: "capture only while someone watches; `false`: always"},
		{path: "linger", kind: ofDuration, def: "10s", unit: "0s to 24h", least: 0, most: 24 * 3600, example: "1m", meaning: "how long capture goes on after the last viewer"},
		{path: "sync", kind: ofWord, def: "av", words: []string{SyncAV, SyncVideoFirst}, example: "video-first", meaning: "`av`: picture and sound are shown together; `video-first`: the picture as soon as it is there. See [Sound and picture](#sound-and-picture)"},
		{path: "watchdog", kind: ofSection, meaning: "after how long what doesn't work is started again. See [Watchdogs](#watchdogs)"},
		{path: "watchdog.start", kind: ofDuration, def: "10s", unit: "1s to 5m", least: 1, most: 300, example: "30s", meaning: "from launching the source to playing, and from that to the first frame"},
		{path: "watchdog.frames", kind: ofDuration, otherwise: "3s; of a network source and of sound 10s", unit: "500ms to 5m", least: 0.5, most: 300, example: "5s", meaning: "without a frame of a running pipeline; in any case ten times as long as the frame rate has it"},
		{path: "watchdog.frozen", kind: ofDuration, otherwise: "not looked for", unit: "1s to 1h", least: 1, most: 3600, example: "30s", meaning: "of pictures that are the same to the last bit, as of a source that repeats its last one; a screen may stand still"},
		{path: "watchdog.black", kind: ofDuration, otherwise: "not looked for", unit: "1s to 1h", least: 1, most: 3600, example: "30s", meaning: "of black pictures"},
		{path: "video", kind: ofSection, meaning: "the video; without it there is none"},
		{path: "video.codec", kind: ofWord, def: "h264", words: codecWords(media.Video), example: "vp8", each: true, meaning: "see [Codecs](#codecs)"},
		{path: "video.encoder", kind: ofName, def: "auto", example: "x264enc", each: true, meaning: "`auto`: the best for the codec that works here; `copy`: what the source has encoded, as it is; or one by its name, see [Encoders](#encoders)"},
		{path: "video.width", kind: ofCount, otherwise: "the source's", unit: "pixels, even, 16 to 8192", least: minSide, most: maxSide, example: "1280", each: true, meaning: "together with `height`"},
		{path: "video.height", kind: ofCount, otherwise: "the source's", unit: "pixels, even, 16 to 8192", least: minSide, most: maxSide, example: "720", each: true, meaning: "together with `width`. Another shape than the source's gets black borders"},
		{path: "video.framerate", kind: ofRate, otherwise: "the source's, at most 30", unit: "frames a second, 1 to 240", least: 1, most: maxFPS, example: "30000/1001", each: true, meaning: "a number or a fraction. Frames are dropped to reach it, never doubled"},
		{path: "video.bitrate", kind: ofBitrate, otherwise: "by size and rate: 2.5M for 1280x720 at 30", unit: "bit/s with `k` or `M`, 30k to 100M", least: minVideoBitrate, most: maxVideoBitrate, example: "800k", each: true, meaning: "a number, or `min`, `start` and `max`. A number is `start` alone"},
		{path: "video.bitrate.min", kind: ofBitrate, otherwise: "a fifth of `start`", unit: "as above", least: minVideoBitrate, most: maxVideoBitrate, example: "300k", each: true, meaning: "what the picture needs at least: for networks that carry less, frame rate and size go down. See [Networks](#networks)"},
		{path: "video.bitrate.start", kind: ofBitrate, otherwise: "by size and rate, within `min` and `max`", unit: "as above", least: minVideoBitrate, most: maxVideoBitrate, example: "800k", each: true, meaning: "what it begins with, until is known what viewers' networks carry"},
		{path: "video.bitrate.max", kind: ofBitrate, otherwise: "`start`", unit: "as above", least: minVideoBitrate, most: maxVideoBitrate, example: "1.5M", each: true, meaning: "the most that it is raised to. With `min` the same it stays there"},
		{path: "video.keyframe_interval", kind: ofDuration, def: "2s", unit: "100ms to 5m", least: 0.1, most: 300, example: "10s", each: true, meaning: "the longest time between keyframes. Viewers don't wait for it: a keyframe is made when one joins"},
		{path: "video.degrade", kind: ofFlag, def: "true", example: "false", each: true, meaning: "for a network that carries less than `bitrate.min`, and a CPU that is too slow, half of the frames and then a half and a quarter of the width and height are encoded; `false`: never. See [Networks](#networks)"},
		{path: "video.profile", kind: ofWord, def: "constrained-baseline", words: []string{"constrained-baseline", "main"}, example: "main", each: true, meaning: "for h264: `constrained-baseline`, which everything plays, or `main`, which needs some percent less bitrate"},
		{path: "video.options", kind: ofPairs, example: "{speed-preset: veryfast}", each: true, meaning: "properties of the encoder, which replace what the gateway sets"},
		{path: "video.renditions", kind: ofSections, unit: "at most 8", example: "[{name: high}, {name: low, width: 640, height: 360}]", meaning: "several encodings of the source, best first: see [Renditions](#renditions). Without it there is one, of the name `video`"},
		{path: "video.renditions[].name", kind: ofText, unit: "at most 32 letters a to z, digits, `-`, `_`", example: "low", meaning: "what people and `select` name it; begins with a letter, not `audio` or `auto`"},
	}
	for _, k := range slices.Clone(keys) {
		if k.each {
			if k.def, k.each = "", false; !strings.Contains(k.path, "bitrate.") {
				k.otherwise = "`" + k.path + "`"
			}
			k.meaning, k.unit = "of this rendition", ""
			k.path = strings.Replace(k.path, "video.", "video.renditions[].", 1)
			keys = append(keys, k)
		}
	}
	keys = append(keys,
		key{path: "audio", kind: ofSection, meaning: "the sound; without it there is none"},
		key{path: "audio.source", kind: ofLaunch, example: "pulsesrc", meaning: "the source: elements in the syntax of gst-launch-1.0, in one chain"},
		key{path: "audio.codec", kind: ofWord, def: "opus", words: codecWords(media.Audio), example: "pcmu", meaning: "every browser plays all three; `pcmu` and `pcma` are telephone quality"},
		key{path: "audio.bitrate", kind: ofBitrate, def: "96k", unit: "bit/s with `k`, 6k to 510k", least: minAudioBitrate, most: maxAudioBitrate, example: "48k", meaning: "for opus; pcmu and pcma always have 64k"},
		key{path: "audio.channels", kind: ofCount, otherwise: "2; 1 for pcmu and pcma", unit: "1 or 2", least: 1, most: 2, example: "1", meaning: "mono or stereo"},
		key{path: "audio.fec", kind: ofFlag, def: "true", example: "false", meaning: "opus: each packet repeats the one before it coarsely, so that a lost one is hardly heard; costs up to a fifth of the bitrate"},
		key{path: "audio.dtx", kind: ofFlag, def: "false", example: "true", meaning: "opus: send next to nothing while it is silent"},
		key{path: "audio.options", kind: ofPairs, example: "{frame-size: 10}", meaning: "properties of the encoder, which replace what the gateway sets"},
	)
	return append(keys, workerKeys(true)...)
}
