// Command report reads what `go test -json` writes and prints one line a test,
// the whole output of the tests that failed, go test's own line for each
// package, and at the end every skip with its reason and the counts.
//
// With -log FILE it also appends one line a test to FILE, as
// "pass|fail|skip TAB package TAB test TAB reason TAB seconds", so that several
// runs can be summed up. It fails only when it can't read or write; whether tests failed is
// told by go test's exit status.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	path := flag.String("log", "", "append one line a test to `FILE`")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *path); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, path string) error {
	r := report{out: out, outputs: make(map[test][]string), raced: make(map[string]bool)}
	if err := r.read(in); err != nil {
		return err
	}
	r.finish()
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for _, d := range r.done {
		fmt.Fprintf(f, "%s\t%s\t%s\t%s\t%.2f\n", d.result, d.pkg, d.name, d.reason, d.seconds)
	}
	return f.Close()
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

type test struct{ pkg, name string }

type result struct {
	test
	result  string // pass, fail, skip
	reason  string // why it was skipped, on one line
	seconds float64
}

type report struct {
	out     io.Writer
	outputs map[test][]string // of tests that have not ended
	raced   map[string]bool   // packages in which the race detector has spoken
	order   []test            // keys of outputs, in the order in which they began
	done    []result
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.event(e)
			} else {
				fmt.Fprintln(r.out, strings.TrimRight(line, "\n"))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) event(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if strings.Contains(e.Output, raceReport) {
			r.raced[e.Package] = true
		}
		if t.name == "" {
			r.packageOutput(e.Output)
			return
		}
		if _, ok := r.outputs[t]; !ok {
			r.order = append(r.order, t)
		}
		r.outputs[t] = append(r.outputs[t], e.Output)
	case "pass", "fail", "skip":
		if t.name == "" {
			r.endPackage(t.pkg, e.Action == "fail")
			return
		}
		r.endTest(t, e)
	}
}

// packageOutput passes on what belongs to no test: go test's closing line above
// all. It may be a crash of the test binary too.
func (r *report) packageOutput(s string) {
	if s == "PASS\n" || s == "FAIL\n" || strings.HasSuffix(s, "[no test files]\n") || strings.HasPrefix(s, "=== ") {
		return
	}
	fmt.Fprint(r.out, s)
}

func (r *report) endTest(t test, e event) {
	output := strings.Join(r.outputs[t], "")
	r.forget(t)
	if e.Action == "fail" || strings.Contains(output, raceReport) {
		fmt.Fprint(r.out, output)
	}
	subtest := strings.Contains(t.name, "/")
	d := result{test: t, result: e.Action, seconds: e.Elapsed}
	if e.Action == "skip" {
		d.reason = skipReason(output)
	}
	if !subtest || e.Action == "skip" {
		r.done = append(r.done, d)
	}
	if !subtest {
		fmt.Fprintf(r.out, "%s %-60s %6.2fs  %s\n", strings.ToUpper(e.Action), t.name, e.Elapsed, t.pkg)
	}
}

// raceReport begins what the race detector writes.
const raceReport = "WARNING: DATA RACE"

// unended is the reason of what failed otherwise than by a test's verdict: others of
// the package may not have run. What failed by its verdict has none.
const unended = "did not end"

// endPackage prints the output of tests that never ended: a panic, a crash or
// the time limit took the test binary with it. A package that failed without a test,
// such as one that doesn't build, counts as a test without a name, as does a data race:
// it may be told in the midst of any test.
func (r *report) endPackage(pkg string, failed bool) {
	for _, t := range slices.Clone(r.order) {
		if t.pkg != pkg {
			continue
		}
		fmt.Fprintf(r.out, "FAIL %s did not end\n%s", t.name, strings.Join(r.outputs[t], ""))
		r.done = append(r.done, result{test: t, result: "fail", reason: unended})
		r.forget(t)
	}
	told := func(d result) bool { return d.pkg == pkg && d.result == "fail" }
	nameless := result{test: test{pkg: pkg, name: "-"}, result: "fail"}
	switch {
	case failed && r.raced[pkg]:
		nameless.reason = "data race"
	case failed && !slices.ContainsFunc(r.done, told):
		nameless.reason = unended
	default:
		return
	}
	r.done = append(r.done, nameless)
}

func (r *report) forget(t test) {
	delete(r.outputs, t)
	if i := slices.Index(r.order, t); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
}

func (r *report) finish() {
	counts := make(map[string]int)
	var skips []result
	for _, d := range r.done {
		if d.result == "skip" {
			skips = append(skips, d)
		}
		if d.result == "skip" || !strings.Contains(d.name, "/") {
			counts[d.result]++
		}
	}
	if len(skips) > 0 {
		fmt.Fprintln(r.out, "\nskipped:")
	}
	for _, d := range skips {
		fmt.Fprintf(r.out, "  %s %s: %s\n", d.pkg, d.name, d.reason)
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
}

var position = regexp.MustCompile(`^\S+\.go:\d+: `)

// skipReason is what the test said last, on one line.
func skipReason(output string) string {
	var words []string
	for s := range strings.Lines(output) {
		s = strings.TrimSpace(s)
		switch {
		case s == "", strings.HasPrefix(s, "=== "), strings.HasPrefix(s, "--- "):
		case position.MatchString(s): // t.Log and t.Skip begin so: keep the last
			words = []string{position.ReplaceAllString(s, "")}
		case len(words) > 0:
			words = append(words, s)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
