// Package gap measures what a viewer misses while something changes: the longest
// interval between frames that a browser presents, less the usual one. It also
// holds the page to its word that nothing was made anew meanwhile.
package gap

import (
	"context"
	_ "embed"
	"fmt"

	"gateway/test/rig"
)

// Script is for a page, to run before the page's own scripts. Its head says what
// it defines.
//
//go:embed gap.js
var Script string

// Seen is what a page's video presented since a mark. Times are in ms.
type Seen struct {
	Frames  int     // presented
	Longest float64 // interval between two frames
	Usual   float64 // median interval; where the frame rate changed, the longer one of before and after
	Same    bool    // the connection and the video element are those of the mark, and connected
	Joins   int     // sockets that the page has opened, ever
	Width   int     // of the video now, pixels
	Codec   string  // of the last frames, as in "video/H264"
}

// Gap is how much longer than usual nothing came, in ms, at least 0.
func (s Seen) Gap() float64 { return max(0, s.Longest-s.Usual) }

// Missed is the gap in frames.
func (s Seen) Missed() float64 { return s.Gap() / s.Usual }

// String is a line of a report.
func (s Seen) String() string {
	return fmt.Sprintf("%d frames, %d wide, %s, gap %.0f ms (%.1f frames)", s.Frames, s.Width, s.Codec, s.Gap(), s.Missed())
}

// Mark begins to count. The page must have run [Script] and play.
func Mark(ctx context.Context, page rig.Page) error {
	return page.Eval(ctx, "gap.mark()", nil)
}

// Since tells what was seen since the mark, and after ms more.
func Since(ctx context.Context, page rig.Page, ms int) (Seen, error) {
	var s Seen
	err := page.Eval(ctx, fmt.Sprintf("gap.since(%d)", ms), &s)
	return s, err
}
