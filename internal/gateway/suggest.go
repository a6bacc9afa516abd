package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
)

// suggestion is a pipeline file to be.
type suggestion struct {
	comment       []string
	title         string
	source        string // of video
	audio         string // source of audio
	codec         media.Codec
	encoder       string
	width, height int
	fps           float64
}

const (
	mostWidth, mostHeight   = 1920, 1080 // that a suggested file asks for
	trialWidth, trialHeight = 1280, 720
	usualFPS                = 30
)

// find is the id of what people call so: its id, a camera's path or device, a
// display's name, a window's title or number, or the name of a monitor or sound.
func (d devices) find(word string) (string, error) {
	var ids []string
	exact := false
	add := func(id string, names ...string) {
		exact = exact || id == word // whatever else has that for its name, such as a window's title
		if slices.Contains(names, word) {
			ids = append(ids, id)
		}
	}
	for _, c := range d.Cameras {
		add(c.ID, c.Path, c.Device, c.Name)
	}
	for _, x := range d.Displays {
		add(x.ID, x.Name)
	}
	for _, m := range d.Monitors {
		add(m.ID, m.Name)
	}
	for _, w := range d.Windows {
		add(w.ID, w.Title, w.XID)
	}
	for _, a := range d.Audio {
		add(a.ID, a.Name)
	}
	for _, e := range d.Encoders {
		add(e.ID, e.Name)
	}
	switch {
	case exact || len(ids) == 0:
		return word, nil
	case len(ids) == 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("%q may be %s: give one of these ids", word, strings.Join(ids, " or "))
}

// suggest tells how to stream what has that id, or is called so.
func (d devices) suggest(id string, r config.Registry) (*suggestion, error) {
	id, err := d.find(id)
	if err != nil {
		return nil, err
	}
	codec := d.codec()
	for _, c := range d.Cameras {
		if c.ID == id {
			f := &suggestion{comment: []string{"Camera " + list(c.Name, c.Driver, c.Bus)}, title: c.Name, source: c.Source, codec: codec}
			if c.Path == "" && c.Device != "" {
				f.comment = append(f.comment, "udev made no link to it under /dev/v4l: its number may be another after a restart.")
			}
			f.fault(c.Fault)
			f.choose(c.Source, r)
			return f, nil
		}
	}
	for _, x := range d.Displays {
		if x.ID == id {
			f := &suggestion{comment: []string{"X display " + x.Name}, title: "Desktop " + x.Name, source: x.Source, codec: codec}
			f.fault(x.Fault)
			f.fit(x.Width, x.Height)
			return f, nil
		}
	}
	for _, m := range d.Monitors {
		if m.ID == id {
			f := &suggestion{comment: []string{"Monitor " + m.Name + " of X display " + m.Display}, title: m.Name, source: m.Source, codec: codec}
			f.fit(m.Width, m.Height)
			return f, nil
		}
	}
	for _, w := range d.Windows {
		if w.ID == id {
			f := &suggestion{comment: []string{
				"Window " + list(w.Title, w.Class) + " on X display " + w.Display,
				"The number is the window's as long as it is open. When it isn't there at start,",
				"ximagesrc shows the whole screen.",
			}, title: cmp.Or(w.Title, w.Class, id), source: w.Source, codec: codec}
			f.fit(w.Width, w.Height)
			return f, nil
		}
	}
	for _, a := range d.Audio {
		if a.ID == id {
			return &suggestion{comment: []string{"Audio of " + list(a.Name, a.API)}, title: a.Name, audio: a.Source}, nil
		}
	}
	for _, e := range d.Encoders {
		if e.ID == id {
			return e.suggest(), nil
		}
	}
	return nil, fmt.Errorf("there is no %q here: gateway devices lists the ids", id)
}

// suggest is a test picture, or a tone, by that encoder.
func (e encoder) suggest() *suggestion {
	f := &suggestion{comment: []string{"Encoder " + e.Name}, title: e.Name, codec: e.Codec}
	if !e.Installed {
		f.comment = append(f.comment, "It isn't installed: the package "+e.Package+" has it.")
	}
	if e.Codec.Kind() == media.Audio {
		f.audio = "audiotestsrc is-live=true volume=0.1"
		return f
	}
	f.source, f.encoder = "videotestsrc is-live=true horizontal-speed=2", e.Name
	f.width, f.height, f.fps = trialWidth, trialHeight, usualFPS
	return f
}

// codec is the first that something installed encodes, in the order of how many
// browsers play it.
func (d devices) codec() media.Codec {
	for _, codec := range []media.Codec{media.H264, media.VP8, media.VP9, media.AV1} {
		for _, e := range d.Encoders {
			if e.Codec == codec && e.Installed {
				return codec
			}
		}
	}
	return media.H264
}

func (f *suggestion) fault(fault gst.Fault) {
	if fault.Problem != "" {
		f.comment = append(f.comment, "Now: "+fault.Problem+": "+fault.Remedy)
	}
}

// fit takes a picture's size, scaled to what is sensible to encode.
func (f *suggestion) fit(width, height int) {
	if width < 16 || height < 16 {
		return // unknown, or too small for encoders
	}
	f.width, f.height = fit(width, height)
	f.fps = usualFPS
}

func fit(width, height int) (int, int) {
	scale := min(1, float64(mostWidth)/float64(width), float64(mostHeight)/float64(height))
	even := func(n int) int { return max(int(float64(n)*scale+0.5)/2*2, 16) }
	return even(width), even(height)
}

// choose takes the best size and rate of a camera up to 1080p30, or passes on
// what only it encodes.
func (f *suggestion) choose(source string, r config.Registry) {
	formats, err := r.Formats(source)
	if err != nil {
		return // absent: the gateway chooses when it comes
	}
	best := 0.0
	for _, o := range formats {
		if o.MediaType != "video/x-raw" && o.MediaType != "image/jpeg" || o.MaxWidth < 16 || o.MaxHeight < 16 {
			continue
		}
		width, height := fit(o.MaxWidth, o.MaxHeight)
		if o.MinWidth < o.MaxWidth {
			width, height = min(o.MaxWidth, mostWidth)/2*2, min(o.MaxHeight, mostHeight)/2*2
		}
		fps := o.MaxFPS
		for _, rate := range o.Rates {
			fps = max(fps, rate)
		}
		if fps <= 0 || fps*1.01 > usualFPS { // 29.97 is as good as 30
			fps = usualFPS
		}
		moves := min(1, fps/24) // below the cinema's rate, size counts less and less
		if score := float64(width*height) * moves * moves; fps >= 1 && score > best {
			best, f.width, f.height, f.fps = score, width, height, fps
		}
	}
	for _, o := range formats {
		if o.MediaType != "video/x-h264" {
			continue
		}
		if best > 0 {
			f.comment = append(f.comment, "It makes H.264 by itself too: \"encoder: copy\" passes that on.")
		} else {
			f.codec, f.encoder = media.H264, "copy"
		}
		return
	}
}

// bitrate is a middling one for the size.
func (f *suggestion) bitrate() string {
	switch area := f.width * f.height; {
	case area > 1280*720*3/2:
		return "4M"
	case area > 640*480*3/2, area == 0:
		return "2.5M"
	}
	return "1M"
}

// yaml writes the file; schema is where editors find its schema, "" for nowhere.
func (f *suggestion) yaml(schema string) []byte {
	var b bytes.Buffer
	if schema != "" {
		fmt.Fprintf(&b, "# yaml-language-server: $schema=%s\n", schema)
	}
	for _, c := range f.comment {
		fmt.Fprintf(&b, "# %s\n", c)
	}
	fmt.Fprintf(&b, "title: %s\n", scalar(clip(f.title, 200)))
	if f.source != "" {
		fmt.Fprintf(&b, "source: %s\nvideo:\n  codec: %s\n", scalar(f.source), f.codec)
		if f.encoder != "" {
			fmt.Fprintf(&b, "  encoder: %s\n", scalar(f.encoder))
		}
		if f.encoder != "copy" {
			if f.width > 0 {
				fmt.Fprintf(&b, "  width: %d\n  height: %d\n", f.width, f.height)
			}
			if f.fps > 0 {
				fmt.Fprintf(&b, "  framerate: %s\n", number(f.fps))
			}
			fmt.Fprintf(&b, "  bitrate: %s\n", f.bitrate())
		}
	}
	if f.audio != "" {
		fmt.Fprintf(&b, "audio:\n  source: %s\n  codec: %s\n", scalar(f.audio), cmp.Or(f.codec, media.Opus))
	}
	return b.Bytes()
}

// clip cuts a text to n bytes at the end of a character.
func clip(s string, n int) string {
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_/.,=:@+-]*( [A-Za-z0-9_/.,=:@+-]+)*$`)

// scalar writes a YAML string: plain where it can't be taken for anything else,
// else as JSON writes it, which YAML reads as the same.
func scalar(s string) string {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
	default:
		if plainScalar.MatchString(s) && !strings.Contains(s, ": ") && !strings.HasSuffix(s, ":") {
			return s
		}
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.Encode(s) // a string never fails
	return strings.TrimSpace(b.String())
}
