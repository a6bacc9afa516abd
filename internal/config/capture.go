package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gateway/internal/media"
)

// captured is a source's launch text, completed by what the gateway chose, and
// what then comes out of it.
type captured struct {
	text          string
	codec         media.Codec // "" for raw pictures
	width, height int         // 0: unknown
	fps           float64     // 0: unknown
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

// wanted is what the renditions need of a source.
type wanted struct {
	width, height int // 0: as the source has it
	fps           float64
	exact         bool        // the file gives the rate
	copied        bool        // encoded already
	codec         media.Codec // of the copy; "" for whatever there is
	key           string      // of the copy
}

func want(rs []*rendition) wanted {
	w := wanted{width: rs[0].Width, height: rs[0].Height}
	for _, r := range rs {
		if r.Copy() {
			w.copied, w.codec, w.key = true, r.Codec, r.key
		}
		if r.Width == 0 || w.width == 0 {
			w.width, w.height = 0, 0
		} else if r.Width*r.Height > w.width*w.height {
			w.width, w.height = r.Width, r.Height
		}
		w.exact = w.exact || r.FPS > 0
		if fps := r.FPS; fps > 0 {
			w.fps = max(w.fps, fps)
		} else {
			w.fps = max(w.fps, defaultFPS)
		}
	}
	return w
}

// capture chooses what the video source is to deliver, and puts behind it what
// its recipe says.
func (c *compiler) capture(rs []*rendition) (captured, bool) {
	w := want(rs)
	source := c.located(c.s.Source)
	nodes, recipe, first, ok := c.sourceElement("source", source, media.Video)
	if !ok {
		return captured{}, false
	}
	found := c.probe(first)
	rest := source[nodes[0].End:] // begins with " ! " if there is anything
	said := ""                    // the last caps of the text, if they end it
	caps := false
	for i, n := range nodes {
		if n.Kind == LaunchCaps {
			caps = true
			if i == len(nodes)-1 {
				said = n.Name
			}
		}
	}
	shot := captured{text: first + rest}
	switch {
	case caps:
		shot.width, shot.height, shot.fps = capsInt(said, "width"), capsInt(said, "height"), capsRate(said)
		if shot.width == 0 || shot.height == 0 || shot.width > maxSide || shot.height > maxSide {
			shot.width, shot.height = 0, 0
		}
		c.note("video: capture as the source's own caps say")
	case len(found) > 0:
		return c.choose(w, first, rest, found)
	default:
		if c.feed.Absent == nil {
			c.note("video: what the source delivers is seen when it runs")
		}
	}
	if recipe.Open != "" && !caps {
		size := ",framerate=" + fraction(w.fps)
		if w.width > 0 {
			shot.width, shot.height, shot.fps = w.width, w.height, w.fps
			size = fmt.Sprintf(",width=%d,height=%d", w.width, w.height) + size
		}
		shot.text = first + " ! " + strings.ReplaceAll(recipe.Open, "{size}", size) + rest
		if rest != "" {
			shot.width, shot.height = 0, 0
		}
	}
	return c.finish(w, recipe, shot, said, rest == "" || said != "")
}

// finish puts behind a source what makes raw pictures of it, or frames what it has
// encoded. bare says that the file leaves that to the recipe.
func (c *compiler) finish(w wanted, recipe source, shot captured, said string, bare bool) (captured, bool) {
	kind, _, _ := strings.Cut(said, ",")
	kind = strings.TrimSpace(kind)
	var chain []string
	switch {
	case w.copied:
		shot.codec = cmp.Or(w.codec, mediaCodec(kind), media.H264)
		if bare && recipe.Copy == "" && mediaCodec(kind) == "" {
			c.fault(w.key+".encoder", "what "+recipe.Factory+" yields isn't encoded", "use encoder: auto")
			return shot, false
		}
		if bare {
			if recipe.Decode == "" && said == "" { // a device: it may have other things too
				chain = append(chain, formats[shot.codec].Media)
			}
			chain = append(chain, behind(recipe.Copy, media.Video, shot.codec)...)
		}
	case kind == "application/x-rtp" || bare && said == "":
		chain = behind(recipe.Decode, media.Video, "")
	default:
		if d, ok := decoder(kind); ok {
			chain = parts(d)
		}
	}
	text := strings.Join(chain, " ! ")
	if text == "" {
		return shot, true
	}
	shot.text += " ! " + text
	return shot, c.installed("source", text)
}

// sourceElement checks a source's text, and completes its first element.
func (c *compiler) sourceElement(key, text string, kind media.Kind) (nodes []LaunchNode, recipe source, first string, ok bool) {
	if !c.installed(key, text) {
		return nil, source{}, "", false
	}
	nodes, _ = ParseLaunch(text) // installed has parsed it
	recipe = findSource(nodes[0].Name)
	for _, name := range slices.Sorted(maps.Keys(recipe.Needs)) {
		_, given := nodes[0].Prop(name)
		inCaps := name == "caps" && len(nodes) > 1 && nodes[1].Kind == LaunchCaps
		if !given && !inCaps {
			c.fault(key, recipe.Factory+" needs "+name, "write "+recipe.Needs[name])
			return nil, source{}, "", false
		}
	}
	c.held(&nodes[0])
	return nodes, recipe, recipe.text(&nodes[0], text, kind), true
}

// captureAudio completes an audio source.
func (c *compiler) captureAudio(text string) (string, bool) {
	nodes, recipe, first, ok := c.sourceElement("audio.source", text, media.Audio)
	if !ok {
		return "", false
	}
	c.probe(first)
	chain := []string{first + text[nodes[0].End:]}
	if len(nodes) == 1 {
		decode := behind(recipe.Decode, media.Audio, "")
		if len(decode) == 0 {
			// Without it a source would be asked for anything, and pipewiresrc 0.3.65 then
			// agrees on what it can't deliver. What is raw passes as it is.
			decode = []string{"audioconvert"}
		}
		chain = append(chain, decode...)
	}
	whole := strings.Join(chain, " ! ")
	return whole, c.installed("audio.source", whole)
}

// choose takes of the formats that a source has the one that costs least to bring
// to the wanted size and rate.
func (c *compiler) choose(w wanted, first, rest string, found []Format) (captured, bool) {
	best, cost := -1, math.Inf(1)
	for i, f := range found {
		x := f.cost(w.width, w.height, w.fps)
		if codec := mediaCodec(f.MediaType); w.copied && (codec == "" || w.codec != "" && codec != w.codec) {
			x = math.Inf(1)
		}
		if x < cost {
			best, cost = i, x
		}
	}
	switch {
	case best < 0 && w.copied:
		wanted := "nothing that is encoded"
		if w.codec != "" {
			wanted = "no " + string(w.codec)
		}
		c.fault(w.key+".encoder", "there is "+wanted+" to copy: the source delivers "+mediaTypes(found), "use encoder: auto")
		return captured{}, false
	case best < 0:
		c.fault("source", "it delivers only "+mediaTypes(found)+", which nothing here decodes",
			"decode it in the source (\"… ! decodebin\"), or write the whole pipeline under launch")
		return captured{}, false
	}
	f := found[best]
	shot := captured{}
	caps := ""
	choice := false // does the source have a size to choose?
	for _, o := range found {
		choice = choice || o.MinWidth != o.MaxWidth || o.MinHeight != o.MaxHeight || o.MaxWidth != f.MaxWidth || o.MaxHeight != f.MaxHeight
	}
	switch {
	case w.width > 0:
		shot.width, shot.height = clamp(w.width, f.MinWidth, f.MaxWidth), clamp(w.height, f.MinHeight, f.MaxHeight)
	case f.MinWidth == f.MaxWidth && f.MinHeight == f.MaxHeight:
		shot.width, shot.height = f.MaxWidth, f.MaxHeight
	}
	if choice && shot.width > 0 {
		caps += fmt.Sprintf(",width=%d,height=%d", shot.width, shot.height)
	}
	var rate string
	shot.fps, rate = f.rate(w.fps)
	if rate != "" {
		caps += ",framerate=" + rate
	}
	shot.text = first
	if caps != "" || f.MediaType != "video/x-raw" {
		shot.text += " ! " + f.MediaType + caps
	}
	behindIt, _ := decoder(f.MediaType)
	if w.copied {
		shot.codec = mediaCodec(f.MediaType)
		behindIt = formats[shot.codec].Parse
	}
	if behindIt != "" {
		if !c.installed("source", behindIt) {
			return captured{}, false
		}
		shot.text += " ! " + behindIt
	}
	c.note("video: capture %s%s", f.MediaType, caps)
	if w.width > 0 && (shot.width != w.width || shot.height != w.height) {
		done := "scaled"
		if w.copied {
			done = "passed on"
		}
		c.note("video: the source has no %dx%d; its %dx%d is %s", w.width, w.height, shot.width, shot.height, done)
	}
	if w.exact && shot.fps > 0 && shot.fps*rateSlack < w.fps {
		c.note("video: the source gives at most %.4g frames a second of the %.4g asked for", shot.fps, w.fps)
	}
	if rest != "" {
		shot.text += rest
		shot.width, shot.height = 0, 0 // a videocrop or videoflip changes it
	}
	return shot, true
}

// cost is how far a format is from what is wanted: doublings of area and rate
// that lack, and a little for work to be done (something to decode, pixels to scale
// away). Infinite for what can't be used.
func (f Format) cost(width, height int, fps float64) float64 {
	cost := 0.0
	switch d, ok := decoder(f.MediaType); {
	case !ok:
		return math.Inf(1)
	case mediaCodec(f.MediaType) != "":
		cost = 0.2
	case d != "":
		cost = 0.05
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
