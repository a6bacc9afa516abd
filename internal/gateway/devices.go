package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
)

// devices is what `gateway devices -json` prints: docs/operations.md.
type devices struct {
	*gst.Devices
	Encoders []encoder `json:"encoders"`
}

// encoder is a row of the encoder table on this machine.
type encoder struct {
	ID        string      `json:"id"`
	Name      string      `json:"name"`
	Codec     media.Codec `json:"codec"`
	Hardware  bool        `json:"hardware"`
	Package   string      `json:"package"`       // of Debian, that has it
	Installed bool        `json:"installed"`     // with all that it needs
	FPS       float64     `json:"fps,omitempty"` // frames a second of 1280x720 that it managed in a trial
	gst.Fault
}

// Devices prints what this machine can capture and encode, as text or JSON; with
// an id, a pipeline file for that thing alone. It captures nothing. Without an id
// it tries the encoders out, and blocks for half a minute at most.
func (s Settings) Devices(ctx context.Context, asJSON bool, id string, stdout io.Writer) error {
	table, err := encodersOf(s.conf)
	if err != nil {
		return err
	}
	m := s.machine()
	defer m.close()
	found, err := m.devices(ctx)
	if err != nil {
		return err
	}
	q := m.inquire(ctx)
	d := devices{found, encoders(table, q)}
	if q.err != nil {
		return q.err
	}
	if id == "" {
		ctx, cancel := context.WithTimeout(ctx, trialsTimeout)
		defer cancel()
		d.try(ctx, table, q)
	}
	switch {
	case id != "":
		f, err := d.suggest(id, q)
		if err != nil {
			return err
		}
		_, err = stdout.Write(f.yaml(s.schema()))
		return err
	case asJSON:
		out := json.NewEncoder(stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(d)
	}
	_, err = stdout.Write(d.text())
	return err
}

// schema is the path of the editors' schema as a pipeline file names it; "" if
// the schema isn't beside the pipelines.
func (s Settings) schema() string {
	const path = "../docs/pipeline.schema.json"
	if _, err := os.Stat(filepath.Join(s.conf.Pipelines, path)); err != nil {
		return ""
	}
	return path
}

// encoders tells which rows of the table are installed.
func encoders(table *config.Encoders, r config.Registry) []encoder {
	rows := []encoder{}
	for _, row := range table.For("") {
		_, err := branchOf(row, table, r)
		rows = append(rows, encoder{
			ID: "encoder:" + row.Name, Name: row.Name, Codec: row.Codec, Hardware: row.Hardware, Package: row.Package, Installed: err == nil,
		})
	}
	return rows
}

// trialsTimeout bounds the trials of all encoders together: no more begin then.
const trialsTimeout = 15 * time.Second

// try runs the installed encoders, one after the other.
func (d *devices) try(ctx context.Context, table *config.Encoders, r *inquiry) {
	var untried []string
	for i := range d.Encoders {
		e := &d.Encoders[i]
		row, _ := table.Find(e.Name)
		launch, err := branchOf(row, table, r)
		switch {
		case err != nil: // not installed
		case ctx.Err() != nil:
			untried = append(untried, e.Name)
		default:
			e.try(row, launch, r)
		}
	}
	if len(untried) > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("not tried, because it took more than %v already: %s", trialsTimeout, strings.Join(untried, ", ")))
	}
}

// branchOf compiles a stream that uses the row, and returns the launch text of the
// branch. It has an error if something that the row needs isn't installed.
func branchOf(row config.Encoder, table *config.Encoders, r config.Registry) (string, error) {
	f := encoder{Name: row.Name, Codec: row.Codec}.suggest()
	s, err := config.ParseStream("trial", "trial", f.yaml(""), table)
	if err != nil {
		return "", err
	}
	plan, err := config.Compile(s, r)
	if err != nil {
		return "", err
	}
	return plan.Feeds[0].Branches[0].Launch, nil
}

func (e *encoder) try(row config.Encoder, launch string, r *inquiry) {
	width, height := trialWidth, trialHeight
	if row.Codec.Kind() == media.Audio {
		width, height = 0, 0
	}
	fps, err := r.Trial(row, launch, width, height, usualFPS)
	switch {
	case err != nil && row.Hardware:
		e.Fault = gst.Fault{Problem: "it doesn't work: " + err.Error(), Remedy: "install the hardware's driver, or let this user open it (groups video, render)"}
	case err != nil:
		e.Fault = gst.Fault{Problem: "it doesn't work: " + err.Error(), Remedy: "use another encoder"}
	case width > 0:
		e.FPS = math.Round(fps)
	}
}

// text is the list for people.
func (d devices) text() []byte {
	var b bytes.Buffer
	fault := func(f gst.Fault) {
		if f.Problem != "" {
			fmt.Fprintf(&b, "    ! %s: %s\n", f.Problem, f.Remedy)
		}
	}
	b.WriteString("cameras\n")
	for _, c := range d.Cameras {
		fmt.Fprintf(&b, "  %s\n    %s\n    %s\n", c.ID, list(c.Name, c.Driver, c.Device), c.Source)
		fault(c.Fault)
		for _, f := range alike(c.Formats) {
			fmt.Fprintf(&b, "    %s  %s\n", f.Name, sizes(f.Sizes))
		}
	}
	b.WriteString("displays\n")
	for _, x := range d.Displays {
		fmt.Fprintf(&b, "  %s", x.ID)
		if x.Width > 0 {
			fmt.Fprintf(&b, "  %dx%d", x.Width, x.Height)
		}
		fmt.Fprintf(&b, "\n    %s\n", x.Source)
		fault(x.Fault)
	}
	b.WriteString("monitors\n")
	for _, m := range d.Monitors {
		primary := ""
		if m.Primary {
			primary = "primary"
		}
		fmt.Fprintf(&b, "  %s  %s\n    %s\n", m.ID, list(fmt.Sprintf("%dx%d at %d,%d", m.Width, m.Height, m.X, m.Y), primary), m.Source)
	}
	b.WriteString("windows\n")
	for _, w := range d.Windows {
		fmt.Fprintf(&b, "  %s  %s\n    %s\n", w.ID, list(fmt.Sprintf("%dx%d", w.Width, w.Height), w.Class, w.Title), w.Source)
	}
	b.WriteString("audio\n")
	for _, a := range d.Audio {
		standard := ""
		if a.Default {
			standard = "default"
		}
		fmt.Fprintf(&b, "  %s\n    %s\n    %s\n", a.ID, list(a.Name, a.API, standard), a.Source)
	}
	b.WriteString("encoders\n")
	absent := map[string][]string{} // by what to do about it
	for _, e := range d.Encoders {
		kind, there := "software", "installed"
		switch {
		case !e.Installed && e.Hardware:
			why := "not here, needs its hardware, the driver and " + e.Package
			absent[why] = append(absent[why], e.Name)
			continue
		case !e.Installed:
			why := "not installed, in " + e.Package
			absent[why] = append(absent[why], e.Name)
			continue
		case e.FPS > 0:
			there = fmt.Sprintf("%.0f frames a second of %dx%d", e.FPS, trialWidth, trialHeight)
		}
		if e.Hardware {
			kind = "hardware"
		}
		fmt.Fprintf(&b, "  %-20s  %s, %s, %s\n", e.ID, e.Codec, kind, there)
		fault(e.Fault)
	}
	for _, why := range slices.Sorted(maps.Keys(absent)) {
		fmt.Fprintf(&b, "  %s:\n    %s\n", why, strings.Join(absent[why], " "))
	}
	for _, n := range d.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	b.WriteString("A pipeline for one of them: gateway devices -yaml ID > pipelines/NAME.yaml\n")
	return b.Bytes()
}

// alike joins the formats that have the same sizes and rates.
func alike(formats []gst.VideoFormat) []gst.VideoFormat {
	var joined []gst.VideoFormat
	for _, f := range formats {
		same := func(j gst.VideoFormat) bool { return sizes(j.Sizes) == sizes(f.Sizes) }
		if at := slices.IndexFunc(joined, same); at >= 0 {
			joined[at].Name += " " + f.Name
			continue
		}
		joined = append(joined, f)
	}
	return joined
}

// list joins the words that aren't empty, each once.
func list(words ...string) string {
	var some []string
	for _, w := range words {
		if w != "" && !slices.Contains(some, w) {
			some = append(some, w)
		}
	}
	return strings.Join(some, ", ")
}

func sizes(all []gst.VideoSize) string {
	var words []string
	for _, s := range all {
		w := fmt.Sprintf("%dx%d", s.Width, s.Height)
		if s.MinWidth > 0 {
			w = fmt.Sprintf("%dx%d to %s", s.MinWidth, s.MinHeight, w)
		}
		for i, r := range s.Rates {
			w += []string{" ", "/"}[min(i, 1)] + number(r)
		}
		if s.MinRate > 0 {
			w += "-" + number(s.MinRate)
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// number writes a rate with as few digits as it has.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
