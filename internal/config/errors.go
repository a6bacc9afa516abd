package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/media"
)

// Severity says what a finding means for the file it is in.
type Severity string

// The severities of findings.
const (
	Fault   Severity = "error"   // the file cannot be used
	Warning Severity = "warning" // it can, with the consequence that the message names
)

// Error is one finding in a configuration file: where, what, and what to do.
type Error struct {
	File     string   `json:"file"`             // as it was opened, or "environment" or "command line"
	Line     int      `json:"line,omitempty"`   // from 1; 0: the whole file
	Column   int      `json:"column,omitempty"` // from 1; 0: the whole line
	Key      string   `json:"key,omitempty"`    // path such as "video.bitrate"
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy,omitempty"`
	Severity Severity `json:"severity"`
}

// Error is the finding on one line: "file:line:column: key: message; remedy".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Errors are all findings of one load, in the order of file, line and column.
type Errors []*Error

// Error is one finding a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As the single findings.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, f := range e {
		errs[i] = f
	}
	return errs
}

// orNil sorts the findings and returns them, or nil if there are none.
func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}

// AbsentError is what Compile returns when a source cannot be opened now: no
// such device, no display, taken by another program. It may work later. It is
// a media.ErrAbsent.
type AbsentError struct {
	Source string // launch text of the source element
	Err    error  // what the registry said
}

// Error is what the registry said.
func (e *AbsentError) Error() string { return e.Err.Error() }

// Unwrap returns what the registry said.
func (e *AbsentError) Unwrap() error { return e.Err }

// Is tells that the source is absent.
func (e *AbsentError) Is(target error) bool { return target == media.ErrAbsent }
