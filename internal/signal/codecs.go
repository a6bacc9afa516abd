package signal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/media"
)

const maxCodecs = 64 // in each list of a join's codecs

// codecs is what a client can decode, best first. A kind that it says nothing
// about is nil: anything goes that it hasn't declined.
type codecs struct {
	video, audio []media.Codec
	declined     []media.Codec // in an answer
}

func (c *codecs) of(k media.Kind) []media.Codec {
	if k == media.Video {
		return c.video
	}
	return c.audio
}

// takes tells whether the client can decode a track.
func (c *codecs) takes(t media.Track) bool {
	list := c.of(t.Kind)
	return (list == nil || slices.Contains(list, t.Codec)) && !slices.Contains(c.declined, t.Codec)
}

// String names what the client can decode, for people.
func (c *codecs) String() string {
	var able []string
	for _, k := range []media.Kind{media.Video, media.Audio} {
		for _, codec := range c.of(k) {
			if !slices.Contains(c.declined, codec) {
				able = append(able, codec.MimeType())
			}
		}
	}
	if len(able) == 0 && len(c.declined) > 0 {
		return "not " + mimeTypes(c.declined)
	}
	return cmp.Or(strings.Join(able, ", "), "none that the gateway has")
}

func mimeTypes(list []media.Codec) string {
	var types []string
	for _, c := range list {
		if !slices.Contains(types, c.MimeType()) {
			types = append(types, c.MimeType())
		}
	}
	return strings.Join(types, ", ")
}

// readCodecs reads a join's codecs. MIME types that the gateway doesn't carry
// (rtx, red, ...) are passed over.
func readCodecs(v json.RawMessage) (*codecs, error) {
	object, err := readObject(v)
	if err != nil {
		return nil, err
	}
	c := new(codecs)
	for kind, v := range object {
		var types []string
		if len(v) == 0 || v[0] != '[' || json.Unmarshal(v, &types) != nil {
			return nil, fmt.Errorf("%.64s: not a list of strings", kind)
		}
		if len(types) > maxCodecs {
			return nil, fmt.Errorf("%.64s: more than %d", kind, maxCodecs)
		}
		switch kind {
		case "video":
			c.video = parseCodecs(media.Video, types)
		case "audio":
			c.audio = parseCodecs(media.Audio, types)
		default:
			return nil, fmt.Errorf("%.64q is no kind of media", kind)
		}
	}
	return c, nil
}

// parseCodecs keeps the codecs of a kind that the gateway carries. It is never nil.
func parseCodecs(k media.Kind, types []string) []media.Codec {
	known := []media.Codec{}
	for _, t := range types {
		if c, err := media.ParseCodec(t); err == nil && c.Kind() == k && !slices.Contains(known, c) {
			known = append(known, c)
		}
	}
	return known
}

// choose takes one track of each kind, the first that the client can decode; of
// video the selected rendition, if that is one. A client that can't decode the
// stream's video, or nothing at all, is refused.
func choose(tracks []media.Track, can *codecs, selected string) ([]media.Track, error) {
	var chosen []media.Track
	var offered []media.Codec
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		has := false
		first, wanted := -1, -1
		for i, t := range tracks {
			if t.Kind != kind {
				continue
			}
			has = true
			offered = append(offered, t.Codec)
			if can.takes(t) && first < 0 {
				first = i
			}
			if can.takes(t) && kind == media.Video && t.Name == selected {
				wanted = i
			}
		}
		switch {
		case wanted >= 0:
			chosen = append(chosen, tracks[wanted])
		case first >= 0:
			chosen = append(chosen, tracks[first])
		case kind == media.Video && has, kind == media.Audio && len(chosen) == 0:
			return nil, refuse(codecUnsupported, "the stream is in %s; the client decodes %s", mimeTypes(offered), can)
		}
	}
	return chosen, nil
}
