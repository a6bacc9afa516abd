package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/media"
	"gateway/internal/rtc"
)

// publication is a stream that a client publishes, as it describes it.
type publication struct {
	Label string
	Title string
	Mids  []string // of its m-lines; nil: all that send
	name  string   // of the stream
}

type publishedName struct {
	Label string `json:"label"`
	Name  string `json:"name"`
}

// lines are the m-lines of a publication among what comes.
func (w publication) lines(incoming []rtc.Incoming) (lines []rtc.Incoming) {
	for _, in := range incoming {
		has := w.Mids == nil || slices.Contains(w.Mids, in.Mid)
		if has && !slices.ContainsFunc(lines, func(o rtc.Incoming) bool { return o.Kind == in.Kind }) {
			lines = append(lines, in)
		}
	}
	return lines
}

// trackName is what a layer is called as a rendition.
func trackName(in rtc.Incoming, layer string) string {
	switch layer {
	case "":
		return in.Kind.String()
	case auto, media.Audio.String():
		return "layer-" + layer
	}
	return layer
}

// readPublications reads the streams of an offer.
func readPublications(v json.RawMessage) ([]publication, error) {
	var list []json.RawMessage
	if isNull(v) || json.Unmarshal(v, &list) != nil {
		return nil, errors.New("not a list")
	}
	if len(list) > maxPublications {
		return nil, fmt.Errorf("more than %d", maxPublications)
	}
	publications := []publication{}
	for _, v := range list {
		p, err := readPublication(v)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(publications, func(o publication) bool { return o.Label == p.Label }) {
			return nil, fmt.Errorf("label %q is there twice", p.Label)
		}
		publications = append(publications, p)
	}
	return publications, nil
}

func readPublication(v json.RawMessage) (p publication, err error) {
	object, err := readObject(v)
	if err != nil {
		return p, err
	}
	if err := text(&p.Label, object["label"], maxLabel); err != nil {
		return p, fmt.Errorf("label: %w", err)
	}
	if p.Label == "" || strings.Trim(p.Label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return p, errors.New("label: not of a to z, 0 to 9 and -")
	}
	for name, v := range object {
		switch name {
		case "label":
		case "title":
			if err := displayName(&p.Title, v); err != nil {
				return p, fmt.Errorf("title: %w", err)
			}
		case "mids":
			var mids []json.RawMessage
			if isNull(v) || json.Unmarshal(v, &mids) != nil || len(mids) > 2*maxPublications {
				return p, errors.New("mids: not a list, or too long")
			}
			p.Mids = []string{}
			for _, v := range mids {
				var mid string
				if err := text(&mid, v, 64); err != nil {
					return p, fmt.Errorf("mids: %w", err)
				}
				p.Mids = append(p.Mids, mid)
			}
		default:
			return p, fmt.Errorf("field %.64q is unknown", name)
		}
	}
	return p, nil
}
