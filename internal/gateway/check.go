package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"gateway/internal/config"
	"gateway/internal/lint"
)

// CheckOptions are the flags of `gateway check`.
type CheckOptions struct {
	JSON   bool // print a lint.Report
	Strict bool // warnings count as faults
}

// expand puts the pipeline files of a folder in its place.
func expand(paths []string) (files []string, err error) {
	for _, path := range paths {
		in := []string{path}
		if stat, err := os.Stat(path); err == nil && stat.IsDir() {
			if in, err = config.ListFolder(path); err != nil {
				return nil, err
			}
		}
		files = append(files, in...)
	}
	return files, nil
}

// Check looks for faults in pipeline files, or in all of a folder, without names
// that of the configuration, against what is installed here, and prints what it found. The error says how
// many files have faults.
func (s Settings) Check(files []string, o CheckOptions, stdout io.Writer) error {
	table, err := encodersOf(s.conf)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		files = []string{s.conf.Pipelines}
	}
	if files, err = expand(files); err != nil {
		return err
	}
	m := s.machine()
	defer m.close()
	q := m.inquire(context.Background())
	report := lint.Check(files, table, q)
	if q.err != nil {
		return q.err
	}
	if o.JSON {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		out.SetEscapeHTML(false)
		if err := out.Encode(report); err != nil {
			return err
		}
	} else {
		report.Print(stdout)
	}
	bad := 0
	for _, f := range report.Files {
		for _, e := range f.Findings {
			if o.Strict || e.Severity == config.Fault {
				bad++
				break
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d files have faults", bad, len(files))
	}
	return nil
}
