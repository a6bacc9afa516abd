package adapt

import (
	"fmt"
	"slices"
	"time"
)

const (
	fitsStill   = 0.95 // of a rendition's bitrate that must be carried to stay on it
	fitsBarely  = 0.7  // but only for so long as an estimate takes to drain a queue, if it is at least this
	barelyFor   = 500 * time.Millisecond
	fitsAbove   = 1.2              // of a better rendition's bitrate, to move up to it
	crowdedFor  = time.Second      // a picture gets nothing when there was no room for it for that long
	upHold      = 2 * time.Second  // for that long, to begin with
	upHoldMost  = 60 * time.Second // after moves up that did not last
	upProven    = 15 * time.Second // that a move up must last so that the next one isn't held back longer
	stretchable = 1.25             // times its size that a rendition may be shown at
)

// Rendition is one of those that a viewer could be given.
type Rendition struct {
	Name          string
	Bps           int // that its encoder would run at with this viewer, in bit/s
	Width, Height int // pixels; 0 if unknown
}

// Screen is how a viewer's page shows the picture. The zero value is unknown.
type Screen struct {
	Width, Height int // device pixels of the video element; 0 if unknown
	Hidden        bool
}

// Situation is what the choice of a viewer's rendition depends on.
type Situation struct {
	Renditions []Rendition // those that its browser decodes, best first
	Playing    string      // the one that it is given, or is about to be; "" if none
	Carries    int         // bit/s that its network carries for video; 0 if unknown
	Screen     Screen
	Pinned     string // the one that was chosen by hand; "" if none
	Crowded    bool   // sound and more important pictures leave it less than it needs
}

// Choice is a rendition for a viewer, and why it isn't the one before.
type Choice struct {
	Rendition string // "": none, the viewer sees nothing anyway
	Reason    string
	Ahead     string // the rendition that may be next: a keyframe of it is best asked for now; "" if none
}

// Viewer chooses a viewer's rendition:
//
//   - none while its page is hidden,
//   - the one that was chosen by hand, if there is one,
//   - none while its network has no room for it beside more important ones,
//   - at most the smallest that covers the video element,
//   - of these the best that its network carries: down at once when the one that
//     plays is carried no longer (a little less than all of it, for a moment, is
//     a queue that drains); up when a better one has been carried, with a
//     margin, for a while, which doubles with each move up that did not last.
//
// That the network carries more than is sent it knows from the estimator's probes
// only, so each move up has been tried with as many bits before.
//
// The zero value is ready. It isn't safe for concurrent use.
type Viewer struct {
	better string        // rendition that has been carried with the margin
	since  time.Duration // since then
	hold   time.Duration // that this must last; 0: upHold
	wentUp time.Duration // when the last move up was made; 0: none, or it was proven
	short  time.Duration // since when the one that plays isn't carried; 0: it is
	cover  string        // the rendition that covers the element, of the last step
	ousted bool          // there was no room for it
	turned time.Duration // since when that is otherwise; 0: it isn't
}

// Step chooses at a moment of any clock that goes forward.
func (v *Viewer) Step(now time.Duration, s Situation) Choice {
	if s.Screen.Hidden {
		v.better, v.wentUp = "", 0
		return Choice{Reason: "the page is hidden"}
	}
	index := func(name string) int {
		return slices.IndexFunc(s.Renditions, func(r Rendition) bool { return r.Name == name })
	}
	if index(s.Pinned) >= 0 {
		v.better, v.wentUp = "", 0
		return Choice{Rendition: s.Pinned, Reason: "chosen by hand"}
	}
	if v.yields(now, s.Crowded) {
		v.better, v.wentUp = "", 0
		return Choice{Reason: "the network has no room for it beside what is larger"}
	}
	if len(s.Renditions) == 0 {
		return Choice{Rendition: s.Playing}
	}
	cover := covering(s.Renditions, s.Screen)
	grown := index(v.cover) > cover
	v.cover = s.Renditions[cover].Name
	playing := index(s.Playing)
	if playing < 0 { // the beginning, or back from a pause
		return v.begin(s, cover)
	}
	if v.wentUp != 0 && now-v.wentUp >= upProven {
		v.wentUp, v.hold = 0, 0
	}
	switch {
	case playing < cover:
		v.better = ""
		return Choice{Rendition: v.cover, Reason: fmt.Sprintf("shown at %d×%d", s.Screen.Width, s.Screen.Height)}
	case s.Carries == 0 && playing > cover:
		return Choice{Rendition: v.cover, Reason: "nothing is known against it"}
	case s.Carries == 0:
		return Choice{Rendition: s.Playing}
	case playing < len(s.Renditions)-1 && v.slips(now, s.carries(playing, fitsStill), s.carries(playing, fitsBarely)):
		if v.wentUp != 0 {
			v.hold, v.wentUp = min(2*max(v.hold, upHold), upHoldMost), 0
		}
		v.better = ""
		to := playing + 1
		for to < len(s.Renditions)-1 && !s.carries(to, 1) {
			to++
		}
		return Choice{Rendition: s.Renditions[to].Name, Reason: fmt.Sprintf("the network carries %s, %s has %s", rate(s.Carries), s.Playing, rate(s.Renditions[playing].Bps))}
	}
	up := cover
	for up < playing && !s.carries(up, fitsAbove) {
		up++
	}
	if up >= playing {
		v.better = ""
		c := Choice{Rendition: s.Playing}
		if playing < len(s.Renditions)-1 && !s.carries(playing, 1) {
			c.Ahead = s.Renditions[playing+1].Name
		}
		return c
	}
	if was := index(v.better); was < 0 {
		v.better, v.since = s.Renditions[up].Name, now
		if grown {
			v.since -= upHoldMost // what was too good for the screen until now needn't be carried for long
		}
	} else if was < up {
		v.better = s.Renditions[up].Name
	}
	if held := now - v.since; held >= max(v.hold, upHold) || grown {
		to := v.better
		v.better, v.wentUp = "", now
		if grown {
			return Choice{Rendition: to, Reason: fmt.Sprintf("shown at %d×%d", s.Screen.Width, s.Screen.Height)}
		}
		return Choice{Rendition: to, Reason: fmt.Sprintf("the network has carried %s for %v", rate(s.Carries), held.Round(time.Second))}
	}
	return Choice{Rendition: s.Playing}
}

// yields tells whether there is no room for the picture, or hasn't been until lately.
func (v *Viewer) yields(now time.Duration, crowded bool) bool {
	if crowded == v.ousted {
		v.turned = 0
		return v.ousted
	}
	if v.turned == 0 {
		v.turned = max(now, 1)
	}
	if held := now - v.turned; held >= upHold || crowded && held >= crowdedFor {
		v.ousted, v.turned = crowded, 0
	}
	return v.ousted
}

// slips tells whether a rendition is not to be kept that is carried still, or barely.
func (v *Viewer) slips(now time.Duration, still, barely bool) bool {
	switch {
	case still:
		v.short = 0
		return false
	case v.short == 0:
		v.short = max(now, 1)
	}
	if barely && now-v.short < barelyFor {
		return false
	}
	v.short = 0
	return true
}

// begin is the choice of a viewer that has nothing yet: the best that its network
// carries, as far as that is known.
func (v *Viewer) begin(s Situation, cover int) Choice {
	to := cover
	for s.Carries > 0 && to < len(s.Renditions)-1 && !s.carries(to, 1) {
		to++
	}
	reason := "the best there is"
	switch {
	case to > cover:
		reason = fmt.Sprintf("the network carries %s", rate(s.Carries))
	case to > 0:
		reason = fmt.Sprintf("shown at %d×%d", s.Screen.Width, s.Screen.Height)
	}
	return Choice{Rendition: s.Renditions[to].Name, Reason: reason}
}

// carries tells whether the network carries a rendition with a margin.
func (s *Situation) carries(i int, margin float64) bool {
	return float64(s.Carries) >= margin*float64(s.Renditions[i].Bps)
}

// Covering is the name of the smallest rendition that covers the screen as it shows
// it; "" if there is none.
func Covering(renditions []Rendition, s Screen) string {
	if len(renditions) == 0 {
		return ""
	}
	return renditions[covering(renditions, s)].Name
}

// covering is the last rendition that is as large as the screen shows it, or nearly.
func covering(renditions []Rendition, s Screen) int {
	if s.Width == 0 || s.Height == 0 {
		return 0
	}
	for i := len(renditions) - 1; i > 0; i-- {
		r := renditions[i]
		if r.Width == 0 || r.Height == 0 {
			continue
		}
		// a picture of another shape than the element leaves borders
		if float64(r.Width)*stretchable >= float64(s.Width) || float64(r.Height)*stretchable >= float64(s.Height) {
			return i
		}
	}
	return 0
}

// rate is a bitrate in words: "640 kbit/s", "2.5 Mbit/s".
func rate(bps int) string {
	if bps < 995_000 {
		return fmt.Sprintf("%d kbit/s", (bps+500)/1000)
	}
	return fmt.Sprintf("%.1f Mbit/s", float64(bps)/1e6)
}
