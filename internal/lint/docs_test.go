package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gateway/internal/config"
	"gateway/internal/lint"
)

var (
	yamlBlock    = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	notInstalled = regexp.MustCompile(`not installed`)
	whence       = regexp.MustCompile(`the package [a-z]|no package of Debian 12 has it; it is of `)
)

// fully is a machine that has every element, so that also those pipelines are
// compiled whose hardware isn't here.
type fully struct{ *machine }

func (fully) Installed(string) bool { return true }

// quick is a machine that encodes everything in time: which it must be, the
// documentation can't know.
type quick struct{ *machine }

func (quick) Trial(_ config.Encoder, _ string, _, _ int, fps float64) (float64, error) {
	return 100 * fps, nil
}

// Every pipeline that the documentation shows compiles, and a check finds nothing
// but elements that aren't installed, and where they come from.
func TestPipelinesOfTheDocumentationAreGood(t *testing.T) {
	m := need(t, "x264enc", "vp8enc", "h264parse", "rtph264pay", "ximagesrc", "v4l2src", "opusenc", "pulsesrc", "alsasrc", "pipewiresrc")
	for _, doc := range []string{"../../README.md", "../../docs/pipelines.md", "../../docs/cookbook.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		blocks := yamlBlock.FindAllSubmatchIndex(text, -1)
		if len(blocks) == 0 {
			t.Fatalf("%s has no YAML", doc)
		}
		for _, at := range blocks {
			line := strings.Count(string(text[:at[2]]), "\n")
			block := text[at[2]:at[3]]
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(doc), line), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "block.yaml")
				if err := os.WriteFile(path, block, 0o644); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(block), "\n- name: ") { // rows of encoders
					if _, err := config.LoadEncoders(path); err != nil {
						t.Error(err)
					}
					return
				}
				checkDocumented(t, m, path, line)
			})
		}
	}
}

func checkDocumented(t *testing.T, m *machine, path string, line int) {
	t.Helper()
	for _, e := range lint.Check([]string{path}, nil, quick{m}).Files[0].Findings {
		e.Line += line
		switch {
		case !notInstalled.MatchString(e.Message):
			t.Error(lint.Line(e))
		case !whence.MatchString(lint.Line(e)):
			t.Errorf("it isn't said where it comes from: %s", lint.Line(e))
		default:
			t.Log(lint.Line(e))
		}
	}
	s, err := config.LoadStream(path, nil)
	if err != nil {
		return // it has its finding
	}
	if _, err := config.Compile(s, fully{m}); err != nil {
		t.Error(err)
	}
}
