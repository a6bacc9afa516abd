// Package strip makes a moving picture that tells its own time. A Painter paints
// the wall clock on an X screen as a strip of black and white squares, with
// patches of known colours and a moving bar below; Script reads them back from
// the pixels of a video element. A test so knows that a picture is live and
// right, and how old it is, from the screen to the glass.
package strip

import (
	_ "embed"
	"fmt"
	"image"
	"image/color"
	"time"
)

// The layout, in pixels of the painted screen: 34 squares of Cell×Cell at the
// top left (white, black, 24 bits of Unix milliseconds, high first, and 8 bits
// of check sum), and from PatchTop on one square of PatchSize for each of
// Patches.
const (
	Cell      = 16
	Cells     = 2 + 24 + 8
	PatchTop  = 3 * Cell
	PatchSize = 4 * Cell
	Width     = Cells * Cell         // least width of a screen
	Height    = PatchTop + PatchSize // least height of a screen
)

// Patches are the colours painted from left to right.
var Patches = []color.RGBA{
	{R: 200, G: 30, B: 30, A: 255},
	{R: 30, G: 170, B: 30, A: 255},
	{R: 30, G: 30, B: 200, A: 255},
	{R: 210, G: 200, B: 30, A: 255},
	{R: 128, G: 128, B: 128, A: 255},
	{R: 240, G: 240, B: 240, A: 255},
}

// Script is for a page, to run before the page's own scripts. It defines
// readStrip(video, options) and more; its own head says what.
//
//go:embed strip.js
var Script string

// wrap is after how many milliseconds the painted clock starts again: 4.6 hours.
const wrap = 1 << 24

// bits are the squares for a time.
func bits(t time.Time) [Cells]bool {
	n := uint32(t.UnixMilli() % wrap)
	var b [Cells]bool
	b[0] = true
	for i := range 24 {
		b[2+i] = n>>(23-i)&1 == 1
	}
	sum := checksum(n)
	for i := range 8 {
		b[26+i] = sum>>(7-i)&1 == 1
	}
	return b
}

func checksum(n uint32) byte { return byte(n) ^ byte(n>>8) ^ byte(n>>16) ^ 0x5a }

// Read reads the painted time from a picture that shows a screen that was
// screenWidth pixels wide, in any scale. The time is the one nearest to now that
// fits.
func Read(picture image.Image, screenWidth int, now time.Time) (time.Time, error) {
	r := picture.Bounds()
	scale := float64(r.Dx()) / float64(screenWidth)
	bright := func(i int) bool {
		x, y := r.Min.X+int((float64(i)+0.5)*Cell*scale), r.Min.Y+int(Cell*scale/2)
		return color.GrayModel.Convert(picture.At(x, y)).(color.Gray).Y > 127
	}
	if !bright(0) || bright(1) {
		return time.Time{}, fmt.Errorf("strip: no strip at the top left")
	}
	var n, sum uint32
	for i := range 24 {
		n = n << 1
		if bright(2 + i) {
			n |= 1
		}
	}
	for i := range 8 {
		sum = sum << 1
		if bright(26 + i) {
			sum |= 1
		}
	}
	if byte(sum) != checksum(n) {
		return time.Time{}, fmt.Errorf("strip: check sum %#x, want %#x", sum, checksum(n))
	}
	age := (now.UnixMilli()%wrap - int64(n) + wrap + wrap/2) % wrap
	return now.Add(-time.Duration(age-wrap/2) * time.Millisecond), nil
}

// Frame is what readStrip found in one rendered frame. Times are milliseconds;
// ages are against the painted time, -1 where the browser doesn't tell.
type Frame struct {
	At        float64  `json:"at"`        // when the script had the frame, Unix time
	Painted   float64  `json:"painted"`   // Unix time that the strip shows; -1: unreadable
	Captured  *float64 `json:"captured"`  // age that it had when it was captured, by the sender's clock; nil where the browser isn't told
	Seen      float64  `json:"seen"`      // age when the script had the frame
	Shown     float64  `json:"shown"`     // age when the browser expects it on the glass
	Decode    float64  `json:"decode"`    // time the decoder took
	Received  float64  `json:"received"`  // age when its last packet had come; only where the browser tells
	Presented int      `json:"presented"` // frames rendered so far; gaps are frames that the script missed
	RTP       float64  `json:"rtp"`       // RTP timestamp
	Width     int      `json:"width"`
	Height    int      `json:"height"`
	Patches   [][3]int `json:"patches"` // colours found, in the order of Patches; only when asked for
}
