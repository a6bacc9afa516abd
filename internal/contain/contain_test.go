package contain

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestPanicBecomesAnErrorALineAndACount(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	serve := func() (err error) {
		defer Panic(log, "test", func(e error) { err = e })
		var none []int
		_ = none[len(text.Bytes())] // index out of range
		return nil
	}
	before := Counts()["test"]
	err := serve()
	var e *Error
	if !errors.As(err, &e) || e.Where != "test" || !strings.Contains(e.Value, "index out of range") {
		t.Fatalf("ended with %v", err)
	}
	if !strings.Contains(e.Stack, "TestPanicBecomesAnErrorALineAndACount") {
		t.Errorf("the stack doesn't show where it panicked:\n%s", e.Stack)
	}
	if Counts()["test"] != before+1 || Last() != e {
		t.Errorf("counts %v, last %v", Counts(), Last())
	}
	if line := text.String(); !strings.Contains(line, "where=test") || !strings.Contains(line, "index out of range") {
		t.Errorf("logged %q", line)
	}
}

func TestWithoutAPanicNothingEnds(t *testing.T) {
	before := Counts()["calm"]
	func() {
		defer Panic(slog.New(slog.DiscardHandler), "calm", func(error) { t.Error("it was ended") })
	}()
	if Counts()["calm"] != before {
		t.Error("it was counted")
	}
}
