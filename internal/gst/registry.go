package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
)

const probeTimeout = 3 * time.Second

// Registry tells what this machine's GStreamer has and what of it works. Its
// methods may be called from any goroutine.
type Registry struct {
	*Trials
}

// NewRegistry returns a registry that has tried nothing yet.
func NewRegistry() *Registry { return &Registry{NewTrials(Encode)} }

// Installed tells whether an element type of that name can be made.
func (*Registry) Installed(factory string) bool {
	Init()
	f := gst.Find(factory)
	if f == nil {
		return false
	}
	dispose(f.Object.InitiallyUnowned.Object)
	return true
}

// local lists the sources whose formats are asked of the device itself, which is
// quick and leaves it alone. Others (network, files) are left to negotiation.
var local = []string{"v4l2src", "ximagesrc", "videotestsrc", "audiotestsrc", "pulsesrc", "alsasrc", "libcamerasrc"}

// Formats opens a source (launch text of one element) as far as READY, where it
// holds its device without capturing, and lists what it can deliver, best first.
// It is empty where the source must be let negotiate. An error is why the source
// can't be opened now. It blocks for 3 s at most.
func (*Registry) Formats(source string) ([]config.Format, error) {
	source, err := config.LocateCameras(source)
	if err != nil {
		return nil, err
	}
	Init()
	factory, _, _ := strings.Cut(strings.TrimSpace(source), " ")
	known := false
	for _, l := range local {
		known = known || l == factory
	}
	if !known {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	var formats []config.Format
	err = bounded(ctx, source, func() (err error) {
		formats, err = probe(source)
		return err
	}, nil)
	if errors.Is(err, ErrStuck) {
		return nil, fmt.Errorf("%s: %w", factory, err)
	}
	if err != nil {
		return nil, plain(source, err)
	}
	return formats, nil
}

// probe is Formats without a bound in time.
func probe(source string) ([]config.Format, error) {
	g := &graph{about: source + " ! probe"}
	defer g.close()
	defer enterX(source)()
	if err := g.parse(source + " ! fakesink name=probe"); err != nil {
		return nil, err
	}
	windows, err := openWindows(source)
	if err != nil {
		return nil, err
	}
	defer closeWindows(windows)
	if _, err := g.changeState(gst.StateReady); err != nil {
		return nil, err
	}
	sink, err := g.named("probe")
	if err != nil {
		return nil, err
	}
	var found [256]C.source_format
	n := C.caps_formats(element(sink), &found[0], C.int(len(found)))
	if err := g.cause(nil); err != nil {
		return nil, err // ximagesrc opens its display when asked for caps
	}
	formats := make([]config.Format, 0, int(n))
	for i := range int(n) {
		f := &found[i]
		format := config.Format{
			MediaType: C.GoString(&f.media_type[0]),
			MinWidth:  int(f.min_width), MaxWidth: int(f.max_width),
			MinHeight: int(f.min_height), MaxHeight: int(f.max_height),
			MaxFPS: float64(f.max_fps),
		}
		for _, r := range f.rates[:int(f.n_rates)] {
			format.Rates = append(format.Rates, float64(r))
		}
		formats = append(formats, format)
	}
	return formats, nil
}

// plain puts the two commonest reasons for an absent source into words that
// people at a camera or a desktop know; all others stay GStreamer's.
func plain(source string, err error) error {
	var fault *Error
	if !errors.As(err, &fault) {
		return err
	}
	switch {
	case fault.Factory == "ximagesrc" && strings.Contains(fault.Message, "open X display"):
		display := os.Getenv("DISPLAY")
		if _, after, ok := strings.Cut(source, "display-name="); ok {
			display, _, _ = strings.Cut(after, " ")
		}
		if display == "" {
			return errors.New("no desktop: DISPLAY is not set; start the gateway from the desktop session, or set DISPLAY")
		}
		return fmt.Errorf("no desktop: the X display %s cannot be opened; is it running, and does XAUTHORITY let this user in?", display)
	case fault.Factory == "v4l2src" && strings.Contains(fault.Message, "No such file or directory"):
		device := "/dev/video0"
		if _, after, ok := strings.Cut(source, "device="); ok {
			device, _, _ = strings.Cut(after, " ")
		}
		return fmt.Errorf("no camera: there is no %s; plug one in, or name another device in source", device)
	}
	return err
}

func setThreshold(categories string) {
	c := C.CString(categories)
	C.set_threshold(c)
	C.g_free(C.gpointer(unsafe.Pointer(c)))
}
