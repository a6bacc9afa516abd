package stream

import (
	"testing"

	"gateway/internal/config"
	"gateway/internal/media"
)

// Everybody who watches is told of a change: a process could have had the gateway do
// nothing else.
func TestTrackThatIsDescribedAgainIsNoChange(t *testing.T) {
	s := &Stream{conf: &config.Stream{}, notice: newNotice()}
	e := &encoding{ring: newRing(media.Track{}), track: media.Track{Name: "video", Bps: 7}}
	r := &run{capture: &capture{stream: s}, byID: map[string]*encoding{"1": e}}
	changes := 0
	s.Watch(func(Info) { changes++ })
	for width := range 2 {
		for range 5 {
			r.Describe("1", media.Track{Name: "x", Width: 320 + width})
		}
	}
	if changes != 2 || e.track.Width != 321 || e.track.Bps != 7 || e.track.Name != "video" {
		t.Errorf("%d changes, %+v", changes, e.track)
	}
}
