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
// about is nil: anything goes.
type codecs struct {
	video, audio []media.Codec
}

func (c *codecs) of(k media.Kind) []media.Codec {
	switch {
	case c == nil:
		return nil
	case k == media.Video:
		return c.video
	}
	return c.audio
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

// choose takes one track of each kind: the first that the client can decode. A
// client that can't decode the stream's video, or nothing at all, is refused.
func choose(tracks []media.Track, can *codecs) ([]media.Track, error) {
	var chosen []media.Track
	var offered []string
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		accepts := can.of(kind)
		has := false
		i := slices.IndexFunc(tracks, func(t media.Track) bool {
			if t.Kind == kind {
				has = true
				offered = append(offered, t.Codec.MimeType())
			}
			return t.Kind == kind && (accepts == nil || slices.Contains(accepts, t.Codec))
		})
		switch {
		case i >= 0:
			chosen = append(chosen, tracks[i])
		case kind == media.Video && has, kind == media.Audio && len(chosen) == 0:
			var able []string
			for _, c := range append(slices.Clone(can.of(media.Video)), can.of(media.Audio)...) {
				able = append(able, c.MimeType())
			}
			return nil, refuse(codecUnsupported, "the stream is in %s; the client decodes %s",
				strings.Join(offered, ", "), cmp.Or(strings.Join(able, ", "), "none that the gateway has"))
		}
	}
	return chosen, nil
}
