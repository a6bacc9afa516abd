package gateway

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway/internal/config"
)

func TestMachineIsAskedInAnotherProcess(t *testing.T) {
	m := testMachine(t)
	if !m.Installed("videotestsrc") || m.Installed("nosuchelement") {
		t.Error("videotestsrc isn't installed, or nosuchelement is")
	}
	if e, ok := m.Element("x264enc"); !ok || len(e.Properties) == 0 || len(e.Pads) != 2 {
		t.Errorf("x264enc: %t, %+v", ok, e)
	}
	if _, ok := m.Element("nosuchelement"); ok {
		t.Error("there is nosuchelement")
	}
	if all := m.Elements(); !slices.Contains(all, "x264enc") || !slices.IsSorted(all) {
		t.Errorf("%d elements", len(all))
	}
	if !m.Accepts("x264enc", "bitrate", "100") || m.Accepts("x264enc", "bitrate", "much") {
		t.Error("x264enc takes no bitrate, or any")
	}
	if fields := m.CapsFields("video/x-raw"); !slices.Contains(fields, "framerate") {
		t.Errorf("fields %q", fields)
	}
	if fault := m.Link([]string{"videotestsrc", "audioconvert"}); fault == nil || fault.At != 1 {
		t.Errorf("fault %+v", fault)
	}
	if formats, err := m.Formats("videotestsrc"); err != nil || len(formats) == 0 {
		t.Errorf("%d formats, %v", len(formats), err)
	}
	if _, err := m.Formats("v4l2src device=/dev/nosuchcamera"); err == nil || !strings.Contains(err.Error(), "/dev/nosuchcamera") {
		t.Errorf("a camera that isn't there: %v", err)
	}
	if fps, err := m.Trial(config.Encoder{Name: "x264enc"}, "x264enc tune=zerolatency ! rtph264pay", 160, 120, 30); err != nil || fps <= 0 {
		t.Errorf("%f frames a second, %v", fps, err)
	}
	links, dot, err := m.negotiate(t.Context(), "videotestsrc ! fakesink")
	if err != nil || len(links) != 1 || dot == "" {
		t.Errorf("%+v, %v", links, err)
	}
	if d, err := m.devices(t.Context()); err != nil || d.Cameras == nil {
		t.Errorf("%+v, %v", d, err)
	}
}

// What doesn't change is asked once, until it may have changed.
func TestMachineRemembersFacts(t *testing.T) {
	m := testMachine(t)
	m.Installed("videotestsrc")
	m.facts.Store(askInstalled+" videotestsrc", false)
	if m.Installed("videotestsrc") {
		t.Error("it was asked again")
	}
	m.forget()
	if !m.Installed("videotestsrc") {
		t.Error("it wasn't asked again")
	}
	m.facts.Store(askInstalled+" videotestsrc", false)
	m.began("other plugins")
	if !m.Installed("videotestsrc") {
		t.Error("other plugins have the same elements")
	}
}

// A launch text that no check has seen gets neither the element nor the file.
func TestProcessHasNoElementThatIsNotAllowed(t *testing.T) {
	m := testMachine(t)
	path := filepath.Join(t.TempDir(), "written")
	_, _, err := m.negotiate(t.Context(), "videotestsrc num-buffers=2 ! filesink location="+path)
	if err == nil || !strings.Contains(err.Error(), "filesink") {
		t.Errorf("it said %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was written")
	}
	for _, e := range []string{"filesink", "udpsink", "giosrc", "shmsink"} { // udpsink is in rtspsrc, which is allowed
		if got := m.Installed(e); got != (e == "udpsink") {
			t.Errorf("%s: %t", e, got)
		}
	}
}
