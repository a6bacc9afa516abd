// Package lint looks for faults in pipeline files before they run: what the
// installed GStreamer can't make or link, and what would work but cost delay,
// picture or viewers. Each rule is a small function: over the words of a launch
// text, over the chain that makes a track, or over whole streams.
//
// It hides how a finding in compiled text gets the place of the key that it comes
// from. It starts no goroutines and no pipelines, but for the trials of software
// encoders.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/config"
	"gateway/internal/media"
)

// Facts is what the rules ask of the installed GStreamer. The first question about
// an element may take seconds, while its plugin is loaded.
type Facts interface {
	// Elements lists the names of all elements.
	Elements() []string
	// Element describes one; it is not ok if it isn't installed or doesn't load.
	Element(factory string) (e config.Element, ok bool)
	// Accepts tells whether a launch text may give a property that value.
	Accepts(factory, property, value string) bool
	// CapsFields lists the fields that pads of any element know of a media type.
	CapsFields(mediaType string) []string
	// Link makes and links the nodes of a chain without starting them, and returns
	// what is in the way, or nil.
	Link(chain []string) *config.LinkFault
}

// Trial measures how fast this machine is.
type Trial interface {
	// Trial encodes pictures of that size for a moment, as fast as it can, by the
	// launch text of a row's encoder. It returns the frames a second that it managed.
	Trial(row config.Encoder, launch string, width, height int, fps float64) (float64, error)
}

// Registry is what a check asks of the installed GStreamer.
type Registry interface {
	config.Registry
	Facts
}

// Machine is what a check asks of the machine that it runs on.
type Machine interface {
	Registry
	Trial
}

// Report is what a check found: `gateway check -json` prints it.
type Report struct {
	Files    []File `json:"files"`
	Errors   int    `json:"errors"`
	Warnings int    `json:"warnings"`
}

// File is what was found in one pipeline file.
type File struct {
	File     string        `json:"file"`
	Absent   []string      `json:"absent,omitempty"` // sources that can't be opened now, which is no fault
	Findings config.Errors `json:"findings"`         // in the order of the file; never null
}

// Check loads pipeline files, compiles them for this machine and looks for faults.
// What files have in common, such as a camera, is looked at among those that are
// named. The table holds the encoders that they may name; nil: the gateway's own. It
// blocks for some seconds a file.
func Check(paths []string, table *config.Encoders, m Machine) *Report {
	r := &Report{Files: []File{}}
	var users []user
	for _, path := range paths {
		f := File{File: path}
		s, err := config.LoadStream(path, table)
		f.Findings = findings(err, path)
		if s != nil {
			plan, found := stream(s, m)
			f.Findings = append(f.Findings, found...)
			if plan != nil && !faulty(found) {
				f.Findings = append(f.Findings, tooMuch(s, plan, m)...)
			}
			if plan != nil {
				f.Absent = absent(plan)
				users = append(users, user{s, plan, len(r.Files)})
			}
		}
		r.Files = append(r.Files, f)
	}
	for i, found := range sharedDevices(users) {
		r.Files[i].Findings = append(r.Files[i].Findings, found...)
	}
	for i := range r.Files {
		f := &r.Files[i]
		f.Findings = tidy(f.Findings)
		for _, e := range f.Findings {
			if e.Severity == config.Fault {
				r.Errors++
			} else {
				r.Warnings++
			}
		}
	}
	return r
}

// Stream looks for faults in one stream, which has been loaded from its file, and
// compiles it. It tries nothing out that would slow down what runs. The plan is nil
// where the file asks for what can't be had. It blocks for some seconds at most.
func Stream(s *config.Stream, r Registry) (*config.Plan, config.Errors) {
	plan, found := stream(s, r)
	return plan, tidy(found)
}

func stream(s *config.Stream, r Registry) (*config.Plan, config.Errors) {
	var found config.Errors
	written := writtenTexts(s)
	for _, t := range written {
		found = append(found, t.check(r)...)
	}
	plan, err := config.Compile(s, r) // makes plans of absent sources too
	for _, e := range findings(err, s.Path) {
		if !slices.ContainsFunc(found, func(f *config.Error) bool { return f.Severity == config.Fault && f.Key == e.Key }) {
			found = append(found, e)
		}
	}
	if plan == nil {
		return nil, found
	}
	if !faulty(found) {
		for _, t := range compiledTexts(s, plan, written) {
			found = append(found, t.check(r)...)
		}
	}
	if !faulty(found) {
		found = append(found, fewBrowsers(s, plan)...)
	}
	return plan, found
}

// absent lists why feeds can't be opened now.
func absent(plan *config.Plan) (why []string) {
	for _, f := range plan.Feeds {
		if f.Absent != nil {
			why = append(why, config.Redact(f.Absent.Error()))
		}
	}
	return why
}

// findings are those that an error of package config holds.
func findings(err error, path string) config.Errors {
	var found config.Errors
	if err == nil || errors.As(err, &found) {
		return found
	}
	return config.Errors{{File: path, Message: err.Error(), Severity: config.Fault}}
}

func faulty(found config.Errors) bool {
	return slices.ContainsFunc(found, func(e *config.Error) bool { return e.Severity == config.Fault })
}

// tidy puts findings in the order of the file, each once, without secrets.
func tidy(found config.Errors) config.Errors {
	out := config.Errors{}
	for _, e := range found {
		c := *e
		c.Message, c.Remedy = config.Redact(c.Message), config.Redact(c.Remedy)
		if !slices.ContainsFunc(out, func(o *config.Error) bool { return *o == c }) {
			out = append(out, &c)
		}
	}
	slices.SortStableFunc(out, func(a, b *config.Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// rendition is the stream's rendition of that name; nil if there is none.
func rendition(s *config.Stream, name string) *config.Rendition {
	if s.Video != nil {
		for i := range s.Video.Renditions {
			if r := &s.Video.Renditions[i]; r.Name == name {
				return r
			}
		}
	}
	return nil
}

// trackKey is the key under which a track is described in the file.
func trackKey(s *config.Stream, t media.Track) string {
	if t.Kind == media.Audio {
		return "audio"
	}
	for i, r := range s.Video.Renditions {
		if key := fmt.Sprintf("video.renditions[%d]", i); r.Name == t.Name && given(s, key) {
			return key
		}
	}
	return "video"
}

// given tells whether a key stands in the file: if not, its place is that of what would hold it.
func given(s *config.Stream, key string) bool {
	line, column := s.Position(key)
	holder := key[:max(strings.LastIndexAny(key, ".["), 0)]
	line2, column2 := s.Position(holder)
	return line > 0 && (line != line2 || column != column2)
}

// list is "a", "a or b", "a, b or c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
