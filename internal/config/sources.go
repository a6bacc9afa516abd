package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// source is what is known about a source element: a row of sources.yaml, which
// explains the fields.
type source struct {
	Factory string            `yaml:"factory"`
	Set     map[string]string `yaml:"set"`
	Video   map[string]string `yaml:"video"`
	Needs   map[string]string `yaml:"needs"`
	Device  *struct {
		Property string   `yaml:"property"`
		Default  string   `yaml:"default"`
		Only     []string `yaml:"only"`
		Camera   bool     `yaml:"camera"`
	} `yaml:"device"`
	Open   string `yaml:"open"`
	Decode string `yaml:"decode"`
	Copy   string `yaml:"copy"`
	Loop   bool   `yaml:"loop"`
	What   string `yaml:"what"`

	Silence   time.Duration `yaml:"silence"`
	Announced bool          `yaml:"announced"`
}

// format is how a codec is carried: a row of sources.yaml.
type format struct {
	Media     string `yaml:"media"`
	Decode    string `yaml:"decode"`
	Depay     string `yaml:"depay"`
	Parse     string `yaml:"parse"`
	Parser    string `yaml:"parser"`
	Payloader string `yaml:"payloader"`
	CapsOut   string `yaml:"caps_out"`
}

//go:embed sources.yaml
var sourcesYAML []byte

var (
	sources []source
	formats map[media.Codec]format
	images  map[string]string // media type of still pictures → decoder
)

func init() {
	var file struct {
		Sources []source               `yaml:"sources"`
		Codecs  map[media.Codec]format `yaml:"codecs"`
		Images  map[string]string      `yaml:"images"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(sourcesYAML))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		panic(fmt.Sprintf("config: sources.yaml: %v", err)) // embedded, and read by every test
	}
	sources, formats, images = file.Sources, file.Codecs, file.Images
}

// findSource is what is known about an element, of one that nothing is known of to be
// patient with it.
func findSource(factory string) source {
	if i := slices.IndexFunc(sources, func(s source) bool { return s.Factory == factory }); i >= 0 {
		return sources[i]
	}
	return source{Factory: factory, Silence: 10 * time.Second}
}

// mediaCodec is the codec of a media type, "" if it is none.
func mediaCodec(mediaType string) media.Codec {
	for codec, f := range formats {
		if f.Media == mediaType {
			return codec
		}
	}
	return ""
}

// decoder is what makes raw video of a media type: "" for raw video itself, false
// if nothing does.
func decoder(mediaType string) (string, bool) {
	if mediaType == "video/x-raw" {
		return "", true
	}
	if d, ok := images[mediaType]; ok {
		return d, true
	}
	f, ok := formats[mediaCodec(mediaType)]
	return f.Decode, ok && f.Decode != ""
}

// text is the element's launch text with the properties that the recipe adds.
func (s source) text(n *LaunchNode, launch string, kind media.Kind) string {
	text := launch[n.Start:n.End]
	set := map[string]string{}
	maps.Copy(set, s.Set)
	if kind == media.Video {
		maps.Copy(set, s.Video)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if _, said := n.Prop(name); !said {
			text += " " + name + "=" + quoteLaunch(set[name])
		}
	}
	return text
}

// device names what only one pipeline can hold at a time; "" if others may have it
// too. Links such as /dev/v4l/by-id/… are followed where they exist.
func (s source) device(n *LaunchNode) string {
	if s.Device == nil {
		return ""
	}
	device, ok := n.Prop(s.Device.Property)
	if !ok {
		device = s.Device.Default
	}
	if len(s.Device.Only) > 0 && !slices.ContainsFunc(s.Device.Only, func(p string) bool { return strings.HasPrefix(device, p) }) {
		return ""
	}
	if real, err := filepath.EvalSymlinks(device); err == nil && strings.HasPrefix(device, "/") {
		device = real
	}
	return strings.TrimSpace(s.Factory + " " + device)
}

// behind fills a recipe's text for a codec and kind. Parts that the codec doesn't
// need vanish.
func behind(recipe string, kind media.Kind, codec media.Codec) []string {
	f := formats[codec]
	var chain []string
	for part := range strings.SplitSeq(recipe, " ! ") {
		part = strings.NewReplacer("{kind}", kind.String(), "{media}", f.Media, "{depay}", f.Depay, "{parse}", f.Parse).Replace(part)
		if part != "" {
			chain = append(chain, part)
		}
	}
	return chain
}
