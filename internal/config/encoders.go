package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// Encoder is what is known about one encoder: a row of the table in
// encoders.yaml, which explains the fields.
type Encoder struct {
	Name        string          `yaml:"name"`
	Factory     string          `yaml:"factory"`
	Codec       media.Codec     `yaml:"codec"`
	Rank        int             `yaml:"rank"`
	Hardware    bool            `yaml:"hardware"`
	Package     string          `yaml:"package"`
	SpareCores  int             `yaml:"spare_cores"`
	Element     string          `yaml:"element"`
	Bitrate     BitrateProperty `yaml:"bitrate"`
	VBV         int             `yaml:"vbv"`
	Format      string          `yaml:"format"`
	Colorimetry string          `yaml:"colorimetry"`
	Profiles    []string        `yaml:"profiles"`
	Caps        string          `yaml:"caps"`
	Parser      string          `yaml:"parser"`
	CapsOut     string          `yaml:"caps_out"` // caps in front of the appsink
	Payloader   string          `yaml:"payloader"`
	Needs       []string        `yaml:"needs"`
}

// BitrateProperty is how an encoder is told its bitrate.
type BitrateProperty struct {
	Property string `yaml:"property"`
	Unit     int    `yaml:"unit"` // bit/s that 1 means: 1000 for kbit/s
	Live     bool   `yaml:"live"` // it may be set while playing
}

// Value is a bitrate in the encoder's unit, at least 1.
func (b BitrateProperty) Value(bps int) int {
	return max((bps+b.Unit/2)/b.Unit, 1)
}

//go:embed encoders.yaml
var encodersYAML []byte

var encoders = func() []Encoder {
	var rows []Encoder
	dec := yaml.NewDecoder(bytes.NewReader(encodersYAML))
	dec.KnownFields(true)
	if err := dec.Decode(&rows); err != nil {
		panic(fmt.Sprintf("config: encoders.yaml: %v", err)) // embedded, and read by every test
	}
	return rows
}()

// Encoders lists the rows for a codec, best first; all rows for "". The rows are
// shared: read only.
func Encoders(codec media.Codec) []Encoder {
	var rows []Encoder
	for _, e := range encoders {
		if codec == "" || e.Codec == codec {
			rows = append(rows, e)
		}
	}
	slices.SortStableFunc(rows, func(a, b Encoder) int { return b.Rank - a.Rank })
	return rows
}

// FindEncoder finds the row of that name or factory.
func FindEncoder(name string) (Encoder, bool) {
	for _, match := range []func(Encoder) bool{
		func(e Encoder) bool { return e.Name == name },
		func(e Encoder) bool { return e.Factory == name },
	} {
		if i := slices.IndexFunc(encoders, match); i >= 0 {
			return encoders[i], true
		}
	}
	return Encoder{}, false
}

// missing lists the elements of the row that are not installed.
func (e Encoder) missing(r Registry) []string {
	var gone []string
	for _, f := range append([]string{e.Factory, firstWord(e.Parser), firstWord(e.Payloader)}, e.Needs...) {
		if f != "" && !r.Installed(f) {
			gone = append(gone, f)
		}
	}
	return gone
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

func encoderNames(codec media.Codec) []string {
	names := []string{"auto"}
	for _, e := range Encoders(codec) {
		names = append(names, e.Name)
	}
	return names
}
