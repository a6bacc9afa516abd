package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// captured is a source's launch text, completed by what the gateway chose, and
// what then comes out of it.
type captured struct {
	text          string
	width, height int     // 0: unknown
	fps           float64 // 0: unknown
}

const (
	// rateSlack keeps a camera's 30000/1001 or 30.02 from counting as another rate
	// than the 30 that was asked for.
	rateSlack = 1.01
	// anyRate is from where a source's highest rate means that it makes frames at
	// whatever rate it is asked for (videotestsrc, ximagesrc).
	anyRate = 500
	// largest area that a source of many sizes is opened with when none is asked for
	defaultArea = 1920 * 1080
)

// capture chooses what a source is to deliver: of the formats that it has, the
// one that costs least to bring to the wanted size and rate.
func (c *compiler) capture(source string, v *Video) (captured, bool) {
	first, rest := firstElement(source)
	c.plan.Sources = append(c.plan.Sources, first)
	if !c.installed("source", source) {
		return captured{}, false
	}
	nodes, _ := parseLaunch(source) // installed has parsed it
	formats, ok := c.probe(first)
	if !ok {
		return captured{}, false
	}
	for i := range nodes {
		if nodes[i].kind == launchCaps {
			return c.ownCaps(source, nodes)
		}
	}
	if len(formats) == 0 {
		c.note("video: what the source delivers is seen when it runs")
		return captured{text: source}, true
	}
	want := v.FPS
	if want == 0 {
		want = defaultFPS
	}
	best, cost := -1, math.Inf(1)
	for i, f := range formats {
		if x := f.cost(v.Width, v.Height, want); x < cost {
			best, cost = i, x
		}
	}
	if best < 0 {
		c.fault("source", "it delivers only "+mediaTypes(formats)+", and the gateway encodes from video/x-raw or image/jpeg",
			"decode it in the source (\"… ! decodebin\"), or write the whole pipeline under launch")
		return captured{}, false
	}
	f := formats[best]
	shot := captured{}
	caps := ""
	choice := false // does the source have a size to choose?
	for _, o := range formats {
		choice = choice || o.MinWidth != o.MaxWidth || o.MinHeight != o.MaxHeight || o.MaxWidth != f.MaxWidth || o.MaxHeight != f.MaxHeight
	}
	switch {
	case v.Width > 0:
		shot.width, shot.height = clamp(v.Width, f.MinWidth, f.MaxWidth), clamp(v.Height, f.MinHeight, f.MaxHeight)
	case f.MinWidth == f.MaxWidth && f.MinHeight == f.MaxHeight:
		shot.width, shot.height = f.MaxWidth, f.MaxHeight
	}
	if choice && shot.width > 0 {
		caps += fmt.Sprintf(",width=%d,height=%d", shot.width, shot.height)
	}
	var rate string
	shot.fps, rate = f.rate(want)
	if rate != "" {
		caps += ",framerate=" + rate
	}
	shot.text = first
	if caps != "" || f.MediaType != "video/x-raw" {
		shot.text += " ! " + f.MediaType + caps
	}
	if f.MediaType == "image/jpeg" {
		if !c.r.Installed("jpegdec") {
			c.fault("source", "it delivers JPEG, and jpegdec is not installed", "install the package gstreamer1.0-plugins-good")
			return captured{}, false
		}
		shot.text += " ! jpegdec"
	}
	c.note("video: capture %s%s", f.MediaType, caps)
	if v.Width > 0 && (shot.width != v.Width || shot.height != v.Height) {
		c.note("video: the source has no %dx%d; its %dx%d is scaled", v.Width, v.Height, shot.width, shot.height)
	}
	if v.FPS > 0 && shot.fps > 0 && shot.fps*rateSlack < v.FPS {
		c.note("video: the source gives at most %.4g frames a second of the %.4g asked for", shot.fps, v.FPS)
	}
	if rest != "" {
		shot.text += " ! " + rest
		shot.width, shot.height = 0, 0 // a videocrop or videoflip changes it
	}
	return shot, true
}

// probe asks what a source element can deliver, and remembers why it can't be
// opened if so.
func (c *compiler) probe(source string) ([]Format, bool) {
	formats, err := c.r.Formats(source)
	if err != nil && c.absent == nil {
		c.absent = &AbsentError{Source: source, Err: err}
	}
	return formats, err == nil
}

// ownCaps is a source that says by itself what it delivers.
func (c *compiler) ownCaps(source string, nodes []launchNode) (captured, bool) {
	shot := captured{text: source}
	if last := nodes[len(nodes)-1]; last.kind == launchCaps {
		kind, _, _ := strings.Cut(last.name, ",")
		if strings.TrimSpace(kind) == "image/jpeg" {
			shot.text += " ! jpegdec"
		}
		shot.width, shot.height, shot.fps = capsInt(last.name, "width"), capsInt(last.name, "height"), capsRate(last.name)
		if shot.width == 0 || shot.height == 0 || shot.width > maxSide || shot.height > maxSide {
			shot.width, shot.height = 0, 0
		}
	}
	c.note("video: capture as the source's own caps say")
	return shot, true
}

// cost is how far a format is from what is wanted: doublings of area and rate
// that lack, and a little for work to be done (a JPEG to decode, pixels to scale
// away). Infinite for what can't be used.
func (f Format) cost(width, height int, fps float64) float64 {
	cost := 0.0
	switch f.MediaType {
	case "video/x-raw":
	case "image/jpeg":
		cost = 0.05
	default:
		return math.Inf(1)
	}
	if f.MaxWidth <= 0 || f.MaxHeight <= 0 {
		return cost
	}
	if top, _ := f.rate(fps); top > 0 {
		cost += math.Max(0, math.Log2(fps/(top*rateSlack)))
	}
	if width == 0 {
		// the largest up to defaultArea; above it, the smallest
		off := math.Log2(defaultArea / float64(f.MaxWidth*f.MaxHeight))
		if f.MinWidth == f.MaxWidth {
			cost += math.Abs(off) / 4
		}
		return cost
	}
	w, h := clamp(width, f.MinWidth, f.MaxWidth), clamp(height, f.MinHeight, f.MaxHeight)
	// what lacks is judged by the worse side, what is too much by the area
	lack := math.Max(math.Log2(float64(width)/float64(w)), math.Log2(float64(height)/float64(h)))
	cost += 2 * math.Max(0, lack)
	cost += math.Max(0, math.Log2(float64(w*h)/float64(width*height))) / 10
	return cost
}

// rate is the rate to open a format with, and its caps text ("" leaves it to the
// source): the lowest that is enough, else the highest.
func (f Format) rate(want float64) (fps float64, caps string) {
	if len(f.Rates) > 0 {
		for _, r := range f.Rates {
			enough, had := r*rateSlack >= want, fps*rateSlack >= want
			if fps == 0 || enough && (!had || r < fps) || !enough && !had && r > fps {
				fps = r
			}
		}
		return fps, fraction(fps)
	}
	switch {
	case f.MaxFPS <= 0:
		return 0, ""
	case f.MaxFPS >= anyRate:
		return want, fraction(want)
	case f.MaxFPS*rateSlack < want || f.MaxFPS < want*rateSlack:
		return f.MaxFPS, fraction(f.MaxFPS)
	}
	// which rates there are below the highest isn't known: let the source choose
	return f.MaxFPS, "[" + fraction(want) + "," + fraction(f.MaxFPS) + "]"
}

// fraction writes a rate as caps have it; the rates of NTSC get their exact form.
func fraction(fps float64) string {
	if whole := math.Round(fps); math.Abs(fps-whole) < 1e-4 {
		return strconv.Itoa(int(whole)) + "/1"
	}
	if ntsc := math.Round(fps * 1.001); math.Abs(fps-ntsc/1.001) < 0.005 {
		return strconv.Itoa(int(ntsc)*1000) + "/1001"
	}
	num, den := int(math.Round(fps*1000)), 1000
	for a, b := num, den; ; a, b = b, a%b {
		if b == 0 {
			return fmt.Sprintf("%d/%d", num/a, den/a)
		}
	}
}

func clamp(v, least, most int) int { return max(min(v, most), least, 1) }

func mediaTypes(formats []Format) string {
	var names []string
	seen := map[string]bool{}
	for _, f := range formats {
		if !seen[f.MediaType] {
			seen[f.MediaType] = true
			names = append(names, f.MediaType)
		}
	}
	return strings.Join(names, ", ")
}
