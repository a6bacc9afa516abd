package lint

import (
	"fmt"
	"slices"
	"strings"

	"gateway/internal/config"
	"gateway/internal/media"
)

// fewBrowsers: a stream that only some can watch.
func fewBrowsers(s *config.Stream, plan *config.Plan) config.Errors {
	var h265 *media.Track
	for _, t := range plan.Tracks() {
		if t.Kind != media.Video {
			continue
		}
		if t.Codec != media.H265 {
			return nil
		}
		h265 = &t
	}
	if h265 == nil {
		return nil
	}
	return config.Errors{at(s, config.Warning, trackKey(s, *h265)+".codec",
		"h265 plays in Safari, in Chrome and Edge where the graphics card decodes it, and not in Firefox",
		"use h264, or add a rendition in h264 or vp8")}
}

// tooMuch: what the software encoders of a stream need together, in a quick trial
// of each.
func tooMuch(s *config.Stream, plan *config.Plan, m Trial) config.Errors {
	var load float64
	var each []string
	var heaviest media.Track
	var most float64
	for _, f := range plan.Feeds {
		for _, b := range f.Branches {
			row, ok := s.Encoders().Find(b.Encoder)
			t := b.Track
			if !ok || row.Hardware || t.Kind != media.Video || b.Copy || t.Width == 0 || t.Height == 0 {
				continue
			}
			fps := t.FPS
			if fps == 0 {
				fps = 30
			}
			managed, err := m.Trial(row, trialText(f, row, b), t.Width, t.Height, fps)
			if err != nil || managed <= 0 {
				continue // Compile has its own words about encoders that don't work
			}
			share := fps / managed
			load += share
			if share > most {
				most, heaviest = share, t
			}
			each = append(each, fmt.Sprintf("%s made %.0f frames a second of %dx%d and needs %.4g", row.Name, managed, t.Width, t.Height, fps))
		}
	}
	if load <= 1 {
		return nil
	}
	message := "this machine is too slow for it: in a trial " + strings.Join(each, "; ")
	if len(each) > 1 {
		message += fmt.Sprintf("; together %.0f %% of what it has", load*100)
	}
	return config.Errors{at(s, config.Warning, trackKey(s, heaviest), message,
		"lower size or frame rate, take a faster encoder setting, or a hardware encoder")}
}

// trialText is the launch text of the branch's encoder.
func trialText(f config.Feed, row config.Encoder, b config.Branch) string {
	if !f.Whole {
		return b.Launch
	}
	nodes, err := config.ParseLaunch(f.Capture)
	if err != nil {
		return ""
	}
	for _, n := range nodes {
		if n.Kind == config.LaunchElement && n.Name == row.Factory {
			return f.Capture[n.Start:n.End]
		}
	}
	return ""
}

// user is a stream that has been checked, and the index of its file.
type user struct {
	stream *config.Stream
	plan   *config.Plan
	file   int
}

// sharedDevices: what can be opened only once and more than one feed wants.
func sharedDevices(users []user) map[int]config.Errors {
	found := map[int]config.Errors{}
	holder := map[string]*config.Stream{}
	for _, u := range users {
		for _, f := range u.plan.Feeds {
			for _, device := range slices.Compact(slices.Sorted(slices.Values(f.Devices))) {
				first, taken := holder[device]
				if !taken {
					holder[device] = u.stream
					continue
				}
				what := "the stream " + quote(first.Name) + " uses it too"
				if first == u.stream {
					what = "it is used twice"
				}
				e := at(u.stream, config.Warning, feedKey(u.stream, f),
					device+" can be opened only once, and "+what+": whoever is watched later stays dark",
					"make one stream of them, with renditions")
				e.Line, e.Column = sourcePlace(u.stream, e, device)
				found[u.file] = append(found[u.file], e)
			}
		}
	}
	return found
}

// sourcePlace is where the file has the element that opens a device; where the
// finding has its place else.
func sourcePlace(s *config.Stream, e *config.Error, device string) (line, column int) {
	factory, _, _ := strings.Cut(device, " ")
	for _, t := range writtenTexts(s) {
		for i, n := range t.nodes {
			if t.key == e.Key && n.Name == factory {
				p := t.place(i, -1)
				return p.line, p.column
			}
		}
	}
	return e.Line, e.Column
}

// feedKey is the key that says what a feed captures.
func feedKey(s *config.Stream, f config.Feed) string {
	switch {
	case f.Whole:
		return "launch"
	case f.Name == config.AudioTrack:
		return "audio.source"
	}
	return "source"
}

// at is a finding at a key; where the file hasn't what would hold it, at the launch
// text.
func at(s *config.Stream, severity config.Severity, key, message, remedy string) *config.Error {
	line, column := s.Position(key)
	if line == 0 && s.Launch != "" {
		key = "launch"
		line, column = s.Position(key)
	}
	return &config.Error{File: s.Path, Line: line, Column: column, Key: key, Message: message, Remedy: remedy, Severity: severity}
}
