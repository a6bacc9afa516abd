package lint_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/lint"
)

var update = flag.Bool("update", false, "write what is found into testdata/bad/*.txt")

// everything is the table of encoders where every element is allowed.
var everything = (*config.Encoders)(nil).Allowing(config.Elements{Allow: []string{"*"}})

// machine is the installed GStreamer, on a machine that encodes a million pixels
// 50 times a second whatever the encoder: real trials differ from run to run.
type machine struct{ *gst.Registry }

func (machine) Trial(_ config.Encoder, _ string, width, height int, _ float64) (float64, error) {
	return 50e6 / float64(width*height), nil
}

func need(t *testing.T, elements ...string) *machine {
	t.Helper()
	m := &machine{gst.NewRegistry()}
	for _, e := range elements {
		if !m.Installed(e) {
			t.Skipf("the element %s is not installed", e)
		}
	}
	return m
}

// Every bad file yields the findings that stand beside it, and no others.
func TestBadFilesYieldTheirFindings(t *testing.T) {
	m := need(t, "x264enc", "vp8enc", "h264parse", "rtph264pay", "ximagesrc", "v4l2src", "opusenc")
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no bad files: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			check(t, m, strings.TrimSuffix(file, ".yaml")+".txt", file)
		})
	}
}

// check compares what is found in files with a golden text.
func check(t *testing.T, m lint.Machine, golden string, files ...string) {
	t.Helper()
	var b strings.Builder
	for _, f := range lint.Check(files, everything, m).Files {
		for _, e := range f.Findings {
			c := *e
			c.File = filepath.Base(c.File)
			fmt.Fprintln(&b, lint.Line(&c))
		}
	}
	got := b.String()
	if got == "" {
		t.Error("nothing is found")
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What is right yields nothing: the files that the project ships, and those that
// come near to what the rules look for.
func TestGoodFilesYieldNothing(t *testing.T) {
	m := need(t, "x264enc", "vp8enc", "h264parse", "rtph264pay", "ximagesrc", "v4l2src", "opusenc", "pulsesrc")
	shipped, _ := filepath.Glob("../../pipelines/*.yaml")
	good, _ := filepath.Glob("testdata/good/*.yaml")
	if len(shipped) == 0 || len(good) == 0 {
		t.Fatal("no good files")
	}
	for _, file := range append(shipped, good...) {
		for _, f := range lint.Check([]string{file}, everything, m).Files {
			for _, e := range f.Findings {
				t.Error(lint.Line(e))
			}
		}
	}
}

func TestTwoStreamsOnOneCameraAreFound(t *testing.T) {
	m := need(t, "v4l2src", "vp8enc", "x264enc")
	check(t, m, "testdata/devices/both.txt", "testdata/devices/door.yaml", "testdata/devices/porch.yaml")
}

// An absent source is no fault, and is told.
func TestAbsentSourcesAreTold(t *testing.T) {
	m := need(t, "v4l2src", "vp8enc")
	r := lint.Check([]string{"testdata/good/flip.yaml"}, nil, m)
	if r.Errors+r.Warnings != 0 || len(r.Files[0].Absent) != 1 {
		t.Errorf("%+v", r.Files[0])
	}
}

func TestAFileThatDoesNotExistIsAFinding(t *testing.T) {
	r := lint.Check([]string{"testdata/nothing.yaml"}, nil, need(t))
	if r.Errors != 1 {
		t.Errorf("%+v", r)
	}
}

// The examples of the documentation are right, as far as their elements are
// installed here.
func TestDocumentedPipelinesPassTheCheck(t *testing.T) {
	m := need(t, "x264enc", "vp8enc", "v4l2src", "ximagesrc")
	doc, err := os.ReadFile("../../docs/pipelines.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for i, part := range strings.Split(string(doc), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		if !strings.Contains(text, "source:") && !strings.Contains(text, "launch:") {
			continue // another kind of file, or a part of one
		}
		examples++
		file := filepath.Join(t.TempDir(), fmt.Sprintf("example-%d.yaml", i+1))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, e := range lint.Check([]string{file}, nil, m).Files[0].Findings {
			if !strings.Contains(e.Message, "not installed") {
				t.Errorf("%s\n%s", lint.Line(e), text)
			}
		}
	}
	if examples == 0 {
		t.Error("no examples")
	}
}
