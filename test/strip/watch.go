package strip

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gateway/test/rig"
)

// ReadOptions says how Watch reads.
type ReadOptions struct {
	ScreenWidth int           // of the painted screen, pixels
	Frames      int           // how many frames to read; 0: those of For
	For         time.Duration // how long to read, when Frames is 0
	Patches     bool          // read the colours too
}

// WaitVideo waits until a page's video has rendered a frame. The page must have
// run Script.
func WaitVideo(ctx context.Context, page rig.Page) error {
	return rig.WaitTrue(ctx, page, "globalThis.firstFrame !== undefined && findVideo()?.videoWidth")
}

// Watch reads the strip from the frames that a page's video renders.
func Watch(ctx context.Context, page rig.Page, o ReadOptions) ([]Frame, error) {
	bound := fmt.Sprintf("count: %d", o.Frames)
	if o.Frames == 0 {
		bound = fmt.Sprintf("ms: %d", o.For.Milliseconds())
	}
	var frames []Frame
	err := page.Eval(ctx, fmt.Sprintf("readStrip(findVideo(), {screenWidth: %d, patches: %t, %s})", o.ScreenWidth, o.Patches, bound), &frames)
	return frames, err
}

// Reported are the frames that the page reports to the gateway while it observes
// (latency.js): of each tenth of a second, by their timestamps, the first.
func Reported(frames []Frame) []Frame {
	var reported []Frame
	last := -1
	for _, f := range frames {
		if tenth := int(f.RTP) / 9000; tenth != last {
			reported, last = append(reported, f), tenth
		}
	}
	return reported
}

// Follow has a page read all frames that it renders from now on, patches too, of a screen
// of one of these widths in pixels. The page must have run Script.
func Follow(ctx context.Context, page rig.Page, screenWidths ...int) error {
	widths, err := json.Marshal(screenWidths)
	if err != nil {
		return err
	}
	return page.Eval(ctx, fmt.Sprintf("followStrip({screenWidth: %s, patches: true})", widths), nil)
}

// Followed are the frames since Follow, or since it was called last.
func Followed(ctx context.Context, page rig.Page) (frames []Frame, err error) {
	err = page.Eval(ctx, "followedStrip()", &frames)
	return frames, err
}

// Live tells whether a frame shows what was painted less than ms before it was rendered, in
// its colours: neither what has frozen nor a dimmed picture.
func (f Frame) Live(ms float64) bool {
	if f.Painted < 0 || f.Seen < -ms || f.Seen > ms || len(f.Patches) != len(Patches) {
		return false
	}
	for i, want := range Patches {
		for c, w := range []uint8{want.R, want.G, want.B} {
			if got := f.Patches[i][c]; got < int(w)-56 || got > int(w)+56 {
				return false
			}
		}
	}
	return true
}
