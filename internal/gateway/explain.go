package gateway

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/lint"
	"gateway/internal/media"
)

// Explain prints what a stream, given by its name or its file, compiles to here
// and now: the launch text of each rendition, which encoder and why, and what the
// elements agree on, for which each is run for a moment. With dot it prints the
// graphs in the language of Graphviz instead. Where the source is absent or busy,
// a test picture takes its place.
func (s Settings) Explain(ctx context.Context, name string, dot bool, stdout io.Writer) error {
	path := name
	if !strings.HasSuffix(name, ".yaml") {
		path = filepath.Join(s.conf.Pipelines, name+".yaml")
	}
	table, err := encodersOf(s.conf)
	if err != nil {
		return err
	}
	c, err := config.LoadStream(path, table)
	if err != nil {
		return err
	}
	m := s.machine()
	defer m.close()
	q := m.inquire(ctx)
	plan, findings := lint.Stream(c, q)
	if q.err != nil {
		return q.err
	}
	if plan == nil {
		return findings
	}
	if !dot {
		for _, note := range plan.Notes {
			fmt.Fprintln(stdout, "#", note)
		}
		for _, f := range findings {
			fmt.Fprintln(stdout, "#", lint.Line(f))
		}
	}
	for _, f := range plan.Feeds {
		for i, b := range f.Branches {
			if f.Whole && i > 0 { // one pipeline for all
				continue
			}
			what := explained{feed: f, branch: b}
			what.run(ctx, m)
			if dot {
				fmt.Fprint(stdout, config.Redact(what.dot))
			} else {
				what.print(stdout)
			}
		}
	}
	return nil
}

// explained is a pipeline that was run for a moment.
type explained struct {
	feed    config.Feed
	branch  config.Branch
	links   []gst.Negotiated
	dot     string
	instead error // why a test picture took the source's place
	nothing error // why nothing came out
}

// run runs the pipeline, or else the part that encodes.
func (x *explained) run(ctx context.Context, m *machine) {
	x.instead = x.feed.Absent
	if x.instead == nil {
		if x.links, x.dot, x.instead = m.negotiate(ctx, x.feed.Text(x.branch)); x.instead == nil {
			return
		}
	}
	text := x.feed.Rehearsal(x.branch)
	if text == "" {
		x.nothing = x.instead
		return
	}
	x.links, x.dot, x.nothing = m.negotiate(ctx, text)
}

// print writes it in the shape of a shell script: what isn't launch text is a comment.
func (x *explained) print(w io.Writer) {
	tracks := []config.Branch{x.branch}
	if x.feed.Whole {
		tracks = x.feed.Branches
	}
	for _, b := range tracks {
		fmt.Fprintf(w, "\n# %s\n", describe(b.Track))
	}
	fmt.Fprintln(w, config.Redact(x.feed.Text(x.branch)))
	if x.nothing != nil {
		fmt.Fprintf(w, "# not run: %s\n", config.Redact(x.nothing.Error()))
		return
	}
	if x.instead != nil {
		fmt.Fprintf(w, "# run with a test picture, because: %s\n", config.Redact(x.instead.Error()))
	}
	for i := 0; i < len(x.links); {
		caps, way := x.links[i].Caps, []string{x.links[i].From}
		for ; i < len(x.links) && x.links[i].Caps == caps && x.links[i].From == way[len(way)-1]; i++ {
			way = append(way, x.links[i].To)
		}
		fmt.Fprintf(w, "#   %s: %s\n", strings.Join(way, " > "), config.Redact(caps))
	}
}

// describe is a track in one line.
func describe(t media.Track) string {
	words := []string{t.Name + ":", string(t.Codec)}
	if t.Width > 0 {
		words = append(words, fmt.Sprintf("%dx%d", t.Width, t.Height))
	}
	if t.FPS > 0 {
		words = append(words, fmt.Sprintf("at %.4g frames a second", t.FPS))
	}
	if t.Bps > 0 {
		words = append(words, config.FormatBitrate(t.Bps)+"bit/s")
	}
	if t.Fmtp != "" {
		words = append(words, "("+t.Fmtp+")")
	}
	return strings.Join(words, " ")
}
