package gst

import (
	"slices"
	"strings"
	"testing"
)

func TestNegotiateTellsWhatPasses(t *testing.T) {
	links, dot, err := NewRegistry().Negotiate(t.Context(),
		"videotestsrc is-live=true ! video/x-raw,width=320,height=240 ! vp8enc name=encoder deadline=1 ! rtpvp8pay ! appsink name=video")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(links, func(l Negotiated) bool { return l.From == "encoder" })
	if len(links) != 4 || i != 2 || !strings.HasPrefix(links[i].Caps, "video/x-vp8") || !strings.Contains(links[i].Caps, "width=320") {
		t.Errorf("links %+v", links)
	}
	if !strings.HasPrefix(dot, "digraph") {
		t.Errorf("graph %.80q", dot)
	}
}

func TestNegotiateSaysWhyNothingPasses(t *testing.T) {
	links, _, err := NewRegistry().Negotiate(t.Context(), "filesrc location=/does/not/exist ! appsink name=video")
	if err == nil || !strings.Contains(err.Error(), "filesrc") {
		t.Errorf("%v, %+v", err, links)
	}
}
