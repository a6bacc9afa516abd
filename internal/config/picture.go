package config

import (
	"fmt"
	"math"
	"strconv"
)

// picture is what raw video is like at some point of a chain. Zero values are
// unknown, or don't matter.
type picture struct {
	format, colorimetry string
	memory              string // caps feature; "" for system memory
	width, height       int
	fps                 float64 // frames a second
	limit               float64 // frames a second that it has at most
}

// convert is the launch text that makes one picture of another by an element:
// none where they are the same.
func convert(from, to picture, element string) []string {
	var chain []string
	rated := ""
	switch want := to.fps; {
	case want == 0 || from.limit > 0 && from.limit <= want*rateSlack:
	case from.fps == 0:
		// max-rate drops what is too much and otherwise passes frames on at once
		chain = append(chain, fmt.Sprintf("videorate max-rate=%d", int(math.Ceil(want))))
	default:
		chain = append(chain, "videorate drop-only=true")
		rated = ",framerate=" + fraction(want)
	}
	same := from.format == to.format && from.memory == to.memory && (to.colorimetry == "" || from.colorimetry == to.colorimetry) &&
		(to.width == 0 || from.width == to.width && from.height == to.height)
	if same || element == "" {
		if rated != "" {
			chain = append(chain, "video/x-raw"+rated)
		}
		return chain
	}
	caps := ",format=" + to.format
	if to.width > 0 {
		caps += fmt.Sprintf(",width=%d,height=%d,pixel-aspect-ratio=1/1", to.width, to.height)
	}
	caps += rated
	if to.colorimetry != "" {
		caps += ",colorimetry=" + to.colorimetry
	}
	if to.memory != "" { // in quotes, because a shell would take the brackets
		return append(chain, element, `capsfilter caps="video/x-raw(memory:`+to.memory+`)`+caps+`"`)
	}
	return append(chain, element, "video/x-raw"+caps)
}

// softConvert is the element that converts and scales in system memory: 3.2 ms a
// frame from 1080p BGRx to 720p I420 on two cores, where videoscale and
// videoconvert take 4.3 (November 2026).
func softConvert(to picture) string {
	threads := 2
	if to.width > 0 && to.width*to.height <= 640*360 {
		threads = 1
	}
	return "videoconvertscale n-threads=" + strconv.Itoa(threads)
}
