package config

import (
	_ "embed"
	"fmt"
	"maps"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"gateway/internal/media"
)

// Encoder is what is known about one encoder: a row of the table in
// encoders.yaml, which explains the fields.
type Encoder struct {
	Name        string
	Factory     string
	Codec       media.Codec
	Rank        int
	Hardware    bool
	Package     string
	SpareCores  int
	Element     string
	Bitrate     BitrateProperty
	Keyframe    KeyframeProperty
	VBV         int
	Format      string
	Colorimetry string
	Convert     string
	Memory      string
	Profiles    []string
	Caps        string
	Parser      string
	CapsOut     string
	Payloader   string
	Needs       []string

	own bool // an operator's row, or one that an operator changed
}

// BitrateProperty is how an encoder is told its bitrate.
type BitrateProperty struct {
	Property string // "" if it can't be told
	In       string // field of that property's structure (such as extra-controls); "" if the property itself is the number
	Unit     int    // bit/s that 1 means: 1000 for kbit/s
	Live     bool   // it may be set while playing
}

// KeyframeProperty is how an encoder that takes no GstForceKeyUnit is asked for a
// keyframe: with that value every frame is one. Empty: it takes the event.
type KeyframeProperty struct {
	Property string
	Value    string
}

// Value is a bitrate in the encoder's unit, at least 1.
func (b BitrateProperty) Value(bps int) int {
	unit := max(b.Unit, 1)
	return max((bps+unit/2)/unit, 1)
}

// Text is a bitrate in bit/s as the number that the property, or its field, takes.
func (b BitrateProperty) Text(bps int) string { return strconv.Itoa(b.Value(bps)) }

// Setting is what the property of a running encoder is set to for a bitrate in bit/s:
// the number, or a structure of that field alone.
func (b BitrateProperty) Setting(bps int) string {
	if b.In == "" {
		return b.Text(bps)
	}
	return setField("controls", b.In, b.Text(bps))
}

// Encoders is a table of encoders: the gateway's own, with what an operator's
// file adds and changes. It is read only. A nil table is the gateway's own.
type Encoders struct {
	rows     []Encoder
	elements *Elements // that pipelines may have; nil: DefaultElements
}

//go:embed encoders.yaml
var encodersYAML []byte

var ownEncoders = func() *Encoders {
	t, err := parseEncoders("encoders.yaml", encodersYAML, &Encoders{})
	if err != nil {
		panic("config: " + err.Error()) // embedded, and read by every test
	}
	for i := range t.rows {
		t.rows[i].own = false
	}
	return t
}()

// LoadEncoders reads an operator's file of rows in the shape of encoders.yaml, and
// puts them over the gateway's own: a row of a known name changes the fields that
// it gives, another is added. An empty path gives the gateway's own table. The
// error is Errors: all findings at once.
func LoadEncoders(path string) (*Encoders, error) {
	if path == "" {
		return ownEncoders, nil
	}
	data, fault := readFile(path)
	if fault != nil {
		return nil, Errors{fault}
	}
	return parseEncoders(path, data, ownEncoders)
}

// Allowing is the table for pipelines that may have those elements, which is what
// [ParseStream] holds them to.
func (t *Encoders) Allowing(e Elements) *Encoders { return &Encoders{t.all(), &e} }

func (t *Encoders) all() []Encoder {
	if t == nil {
		return ownEncoders.rows
	}
	return t.rows
}

// For lists the rows for a codec, best first; all rows for "".
func (t *Encoders) For(codec media.Codec) []Encoder {
	var rows []Encoder
	for _, e := range t.all() {
		if codec == "" || e.Codec == codec {
			rows = append(rows, e)
		}
	}
	slices.SortStableFunc(rows, func(a, b Encoder) int { return b.Rank - a.Rank })
	return rows
}

// Find finds the row of that name, or else of that factory.
func (t *Encoders) Find(name string) (Encoder, bool) {
	rows := t.all()
	for _, match := range []func(Encoder) bool{
		func(e Encoder) bool { return e.Name == name },
		func(e Encoder) bool { return e.Factory == name },
	} {
		if i := slices.IndexFunc(rows, match); i >= 0 {
			return rows[i], true
		}
	}
	return Encoder{}, false
}

// names are the words that "encoder:" may say for a codec; usual leaves out those
// that few machines have.
func (t *Encoders) names(codec media.Codec, usual bool) []string {
	names := []string{autoEncoder, copyEncoder}
	for _, e := range t.For(codec) {
		if !usual || !e.Hardware {
			names = append(names, e.Name)
		}
	}
	return names
}

// uncertain tells whether only a trial shows that the encoder works here: what
// hardware and driver can do isn't seen from what is installed, and an operator's
// row may be anything.
func (e Encoder) uncertain() bool { return e.Hardware || e.own }

// missing lists the elements of the row that are not installed.
func (e Encoder) missing(r Registry) []string {
	var gone []string
	wanted := slices.Clone(e.Needs)
	for _, text := range []string{e.Element, e.Convert, e.Parser, e.Payloader} {
		nodes, err := ParseLaunch(text)
		if err != nil {
			continue // a row's texts were checked when it was read
		}
		for _, n := range nodes {
			if n.Kind == LaunchElement {
				wanted = append(wanted, n.Name)
			}
		}
	}
	for _, f := range wanted {
		if !slices.Contains(gone, f) && !r.Installed(f) {
			gone = append(gone, f)
		}
	}
	return gone
}

// encoderSchema is a file of encoder rows.
var encoderSchema = &schema{
	what: "encoder table",
	keys: []key{
		{path: "[].name", kind: ofText, example: "x264enc", meaning: "what \"encoder:\" in a pipeline says; unique"},
		{path: "[].factory", kind: ofText, example: "x264enc", meaning: "the GStreamer element"},
		{path: "[].codec", kind: ofWord, words: append(codecWords(media.Video), codecWords(media.Audio)...), example: "h264", meaning: "what it makes"},
		{path: "[].rank", kind: ofCount, def: "0", least: 0, most: 1000, example: "300", meaning: "\"encoder: auto\" tries the highest first. The gateway's own: software 100 to 200, hardware from 300"},
		{path: "[].hardware", kind: ofFlag, def: "false", meaning: "the work is done outside the CPU"},
		{path: "[].package", kind: ofText, example: "gstreamer1.0-plugins-bad", meaning: "the Debian package that has it"},
		{path: "[].spare_cores", kind: ofCount, def: "0", least: 0, most: 64, meaning: "{threads} is at most the number of cores less these"},
		{path: "[].element", kind: ofLaunch, example: "x264enc name={name} bitrate={bitrate}", meaning: "launch text of the encoder with placeholders"},
		{path: "[].bitrate", kind: ofSection, meaning: "how it is told its bitrate"},
		{path: "[].bitrate.property", kind: ofText, example: "bitrate", meaning: "the property"},
		{path: "[].bitrate.in", kind: ofText, example: "video_bitrate", meaning: "the field, where the property is a structure"},
		{path: "[].bitrate.unit", kind: ofCount, def: "1", least: 1, most: 1_000_000, example: "1000", meaning: "bit/s that 1 means"},
		{path: "[].bitrate.live", kind: ofFlag, def: "false", meaning: "it follows while playing"},
		{path: "[].keyframe", kind: ofSection, meaning: "how it is asked for a keyframe, where it takes no GstForceKeyUnit"},
		{path: "[].keyframe.property", kind: ofText, example: "keyframe-max-dist", meaning: "the property that is set until a keyframe has come"},
		{path: "[].keyframe.value", kind: ofText, example: "\"0\"", meaning: "its value meanwhile"},
		{path: "[].vbv", kind: ofCount, def: "0", least: 0, most: 10_000, unit: "ms", meaning: "decoder buffer that the element text allows"},
		{path: "[].format", kind: ofText, example: "NV12", meaning: "raw format to feed it"},
		{path: "[].colorimetry", kind: ofText, example: "bt709", meaning: "colours to feed it; empty: as they are"},
		{path: "[].convert", kind: ofLaunch, example: "vapostproc", meaning: "converts and scales in front of it; without it videoconvertscale, shared by all renditions"},
		{path: "[].memory", kind: ofText, example: "VAMemory", meaning: "caps feature of what convert yields; empty: system memory"},
		{path: "[].profiles", kind: ofTexts, example: "[constrained-baseline, main]", meaning: "those that it can make"},
		{path: "[].caps", kind: ofLaunch, example: "video/x-h264,profile={profile}", meaning: "behind the encoder"},
		{path: "[].parser", kind: ofLaunch, example: "h264parse config-interval=-1", meaning: "behind the caps"},
		{path: "[].caps_out", kind: ofLaunch, meaning: "behind the parser"},
		{path: "[].payloader", kind: ofLaunch, example: "rtph264pay aggregate-mode=zero-latency mtu=1200", meaning: "makes RTP packets; without it the gateway does"},
		{path: "[].needs", kind: ofTexts, meaning: "elements that must be installed beside those in the texts"},
	},
}

// parseEncoders reads rows over those of a table.
func parseEncoders(path string, data []byte, over *Encoders) (*Encoders, error) {
	d := &document{file: path, schema: encoderSchema, at: map[string]position{}}
	t := &Encoders{rows: slices.Clone(over.rows)}
	top := d.root(data)
	switch {
	case top == nil && len(d.errs) > 0:
		return nil, d.errs.orNil()
	case top == nil:
		return t, nil
	case top.Kind != yaml.SequenceNode:
		d.fault(top, "", "expected a list of encoders, found "+describe(top), "begin each with \"- name: …\"")
		return nil, d.errs.orNil()
	}
	seen := map[string]bool{}
	for i, n := range top.Content {
		m := d.mapping(n, "["+strconv.Itoa(i)+"]")
		if m.node == nil {
			continue
		}
		name := m.text("name", "", 64)
		switch {
		case name == "":
			d.fault(m.node, joinPath(m.path, "name"), "it is missing", "name the encoder, such as \"name: x264enc\"")
			continue
		case !propertyName.MatchString(name) || name == autoEncoder || name == copyEncoder:
			m.fault("name", quote(name)+" cannot name an encoder", "write letters, digits, - and _, such as the element's name")
			continue
		case seen[name]:
			m.fault("name", "another row has the name "+quote(name), "keep one")
			continue
		}
		seen[name] = true
		at := slices.IndexFunc(t.rows, func(e Encoder) bool { return e.Name == name })
		if at < 0 {
			t.rows = append(t.rows, Encoder{Name: name})
			at = len(t.rows) - 1
		}
		t.rows[at] = m.encoderRow(t.rows[at])
	}
	if err := d.errs.orNil(); err != nil {
		return nil, err
	}
	return t, nil
}

// encoderRow reads a row over what is known of that encoder.
func (m *mapping) encoderRow(e Encoder) Encoder {
	line := func(name, def string) string {
		return strings.Join(strings.Fields(m.text(name, def, 2048)), " ")
	}
	words := func(name string, def []string) []string {
		if !m.has(name) {
			return def
		}
		var ws []string
		for _, n := range m.list(name) {
			ws = append(ws, n.Value)
		}
		return ws
	}
	e.own = true
	e.Factory = m.text("factory", e.Factory, 64)
	e.Codec = m.codec(e.Codec)
	e.Rank = m.integer("rank", e.Rank, "")
	e.Hardware = m.boolean("hardware", e.Hardware)
	e.Package = m.text("package", e.Package, 200)
	e.SpareCores = m.integer("spare_cores", e.SpareCores, "cores")
	e.Element = line("element", e.Element)
	if m.has("bitrate") {
		b := m.d.mapping(m.value("bitrate"), joinPath(m.path, "bitrate"))
		e.Bitrate = BitrateProperty{
			Property: b.text("property", e.Bitrate.Property, 64), In: b.text("in", e.Bitrate.In, 64),
			Unit: b.integer("unit", max(e.Bitrate.Unit, 1), "bit/s"), Live: b.boolean("live", e.Bitrate.Live),
		}
	}
	if m.has("keyframe") {
		k := m.d.mapping(m.value("keyframe"), joinPath(m.path, "keyframe"))
		e.Keyframe = KeyframeProperty{Property: k.text("property", e.Keyframe.Property, 64), Value: k.text("value", e.Keyframe.Value, 64)}
	}
	e.VBV = m.integer("vbv", e.VBV, "ms")
	e.Format = m.text("format", e.Format, 32)
	e.Colorimetry = m.text("colorimetry", e.Colorimetry, 64)
	e.Convert = line("convert", e.Convert)
	e.Memory = m.text("memory", e.Memory, 64)
	e.Profiles = words("profiles", e.Profiles)
	e.Caps = line("caps", e.Caps)
	e.Parser = line("parser", e.Parser)
	e.CapsOut = line("caps_out", e.CapsOut)
	e.Payloader = line("payloader", e.Payloader)
	e.Needs = words("needs", e.Needs)
	m.checkRow(e)
	return e
}

// settings is what the placeholders of a row's texts stand for.
type settings struct {
	bps, keyint, threads int
	profile, level       string
	fec, dtx             bool
}

var placeholders = []string{"{name}", "{bitrate}", "{keyint}", "{threads}", "{slices}", "{tiles}", "{profile}", "{level}", "{fec}", "{dtx}"}

func (v settings) fill(e Encoder) *strings.Replacer {
	threads := max(v.threads, 1)
	tiles := bits.Len(uint(threads)) - 1
	values := []string{
		encoderElement, e.Bitrate.Text(v.bps), strconv.Itoa(v.keyint), strconv.Itoa(threads),
		strconv.Itoa(1 << tiles), strconv.Itoa(tiles), v.profile, v.level, strconv.FormatBool(v.fec), strconv.FormatBool(v.dtx),
	}
	var pairs []string
	for i, p := range placeholders {
		pairs = append(pairs, p, values[i])
	}
	return strings.NewReplacer(pairs...)
}

// chain is the encoder's part of a branch, from the encoder to packets.
func (e Encoder) chain(v settings, options map[string]string) []string {
	fill := v.fill(e)
	element := fill.Replace(e.Element)
	if len(options) > 0 {
		element = setProps(element, slices.Sorted(maps.Keys(options)), options)
	}
	return parts(element, fill.Replace(e.Caps), fill.Replace(e.Parser), fill.Replace(e.CapsOut), fill.Replace(e.Payloader))
}

// parts are the texts that aren't empty.
func parts(texts ...string) []string {
	return slices.DeleteFunc(texts, func(t string) bool { return t == "" })
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// checkRow checks the texts of a row.
func (m *mapping) checkRow(e Encoder) {
	if len(m.d.errs) > 0 {
		return // what was wrong so far would be told twice
	}
	for _, f := range []struct{ name, value string }{{"factory", e.Factory}, {"codec", string(e.Codec)}, {"element", e.Element}} {
		if f.value == "" {
			m.d.fault(m.node, joinPath(m.path, f.name), "it is missing", "a new encoder needs factory, codec and element")
			return
		}
	}
	if e.Codec.Kind() == media.Video && e.Format == "" {
		m.d.fault(m.node, joinPath(m.path, "format"), "it is missing", "say which raw format it takes, such as \"format: NV12\"")
	}
	fill := settings{}.fill(e)
	for name, t := range map[string]string{"element": e.Element, "convert": e.Convert, "caps": e.Caps, "parser": e.Parser, "caps_out": e.CapsOut, "payloader": e.Payloader} {
		if rest := placeholder.FindString(fill.Replace(t)); rest != "" {
			m.fault(name, "there is no placeholder "+rest, "use "+orList(placeholders))
		}
		if _, err := ParseLaunch(fill.Replace(t)); err != nil {
			m.fault(name, err.Error(), "write it as for gst-launch-1.0")
		}
	}
	nodes, _ := ParseLaunch(fill.Replace(e.Element))
	switch {
	case len(nodes) != 1 || nodes[0].Name != e.Factory:
		m.fault("element", "it must be one element, "+e.Factory, "write caps and other elements under caps, parser and payloader")
	case !strings.Contains(e.Element, "name={name}"):
		m.fault("element", "the encoder has no name, by which it is set while it runs", "write "+e.Factory+" name={name} …")
	case e.Bitrate.Property != "":
		if _, ok := nodes[0].Prop(e.Bitrate.Property); !ok {
			m.fault("element", "it does not set "+e.Bitrate.Property, fmt.Sprintf("write %s={bitrate}", e.Bitrate.Property))
		}
	}
}
