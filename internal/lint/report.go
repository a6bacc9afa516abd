package lint

import (
	"fmt"
	"io"
	"strings"

	"gateway/internal/config"
)

// Line is a finding as people read it: "file:line:column: warning: key: message; remedy".
func Line(e *config.Error) string {
	rest := (&config.Error{Key: e.Key, Message: e.Message, Remedy: e.Remedy}).Error()
	return strings.TrimSuffix(e.Error(), rest) + ": " + string(e.Severity) + rest
}

// Print writes the report for people: each finding on its line, what is fine, and
// a summary.
func (r *Report) Print(w io.Writer) {
	for _, f := range r.Files {
		for _, e := range f.Findings {
			fmt.Fprintln(w, Line(e))
		}
		for _, why := range f.Absent {
			fmt.Fprintf(w, "%s: absent now: %s\n", f.File, why)
		}
		if len(f.Findings)+len(f.Absent) == 0 {
			fmt.Fprintf(w, "%s: fine\n", f.File)
		}
	}
	fmt.Fprintf(w, "%s checked: %s, %s\n", count(len(r.Files), "file"), count(r.Errors, "error"), count(r.Warnings, "warning"))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
