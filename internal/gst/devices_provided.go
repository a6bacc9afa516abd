package gst

/*
#include "devices.h"
*/
import "C"

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// providers are the device providers of GStreamer that are asked: what V4L2 and X
// have is found without them, and told better.
var providers = []struct{ api, factory string }{
	{"pulse", "pulsedeviceprovider"},
	{"pipewire", "pipewiredeviceprovider"},
	{"alsa", "alsadeviceprovider"},
	{"libcamera", "libcameraprovider"},
	{"decklink", "decklinkdeviceprovider"},
}

// provision is what the providers found.
type provision struct {
	cameras []Camera
	audio   []Audio
	notes   []string
}

// provided is one device of a provider.
type provided struct {
	name, class, factory, launch, node, api string
	monitor, standard                       bool
	formats                                 []VideoFormat
}

// findProvided asks the providers, each by itself: a sound server may hang. What
// several have, as PipeWire has what PulseAudio's clients see, is listed once.
func findProvided(ctx context.Context) provision {
	found := make([][]provided, len(providers))
	faults := make([]error, len(providers))
	var all sync.WaitGroup
	for i, p := range providers {
		all.Go(func() {
			var devices []provided
			faults[i] = bounded(ctx, "devices of "+p.api, func() error {
				devices = askProvider(p.factory)
				return nil
			}, nil)
			if faults[i] == nil {
				found[i] = devices
			}
		})
	}
	all.Wait()
	var what provision
	seen := map[string]bool{}
	for i, p := range providers {
		if errors.Is(faults[i], ErrStuck) {
			what.notes = append(what.notes, p.api+" doesn't answer: what it has isn't listed")
		}
		for _, d := range found[i] {
			d.takeStableName(p.api)
			id := oneLine(cmp.Or(d.node, d.name))
			media, _, _ := strings.Cut(d.class, "/")
			switch {
			case d.launch == "" || seen[media+id]:
				continue
			case media == "Video" && !strings.Contains(d.class, "Sink") && d.api != "v4l2":
				what.cameras = append(what.cameras, Camera{
					ID: "camera:" + id, Name: oneLine(d.name), Driver: p.api, Source: d.launch, Formats: d.formats,
				})
			case media == "Audio":
				what.audio = append(what.audio, Audio{
					ID: "audio:" + id, Name: oneLine(d.name), API: p.api, Monitor: d.monitor, Default: d.standard, Source: d.launch,
				})
			default:
				continue
			}
			seen[media+id] = true
		}
	}
	if len(found[0])+len(found[1]) == 0 && os.Getenv("XDG_RUNTIME_DIR") == "" && os.Getenv("PULSE_SERVER") == "" {
		what.notes = append(what.notes, "no sound server found: PulseAudio and PipeWire belong to a session, set XDG_RUNTIME_DIR to its /run/user/UID")
	}
	return what
}

var alsaNumber = regexp.MustCompile(`^hw:([0-9]+)(?:,([0-9]+))?$`)

// takeStableName makes a device be named by what stays the same, where its
// provider names it by a number, and turns a PipeWire sink into the source of
// what it plays.
func (d *provided) takeStableName(api string) {
	sink := strings.Contains(d.class, "Sink")
	switch {
	case api == "pipewire" && d.node != "":
		d.launch = "pipewiresrc " + property("target-object", d.node)
		if sink {
			d.launch += ` stream-properties="props,stream.capture.sink=true"`
			d.node += ".monitor" // as PulseAudio names it
			d.name, d.monitor = "Monitor of "+d.name, true
		}
	case sink:
		d.launch = ""
	case api == "alsa":
		if m := alsaNumber.FindStringSubmatch(d.node); m != nil {
			if id, err := os.ReadFile("/proc/asound/card" + m[1] + "/id"); err == nil {
				d.node = fmt.Sprintf("hw:CARD=%s,DEV=%s", strings.TrimSpace(string(id)), cmp.Or(m[2], "0"))
			}
			d.launch = "alsasrc " + property("device", d.node)
		}
	}
}

// askProvider lists the devices of one provider, none if it isn't installed.
func askProvider(factory string) []provided {
	name := C.CString(factory)
	defer C.g_free(C.gpointer(unsafe.Pointer(name)))
	var found *C.found_device
	n := C.devices_of(name, &found)
	if n < 0 {
		return nil
	}
	defer C.devices_free(found, n)
	var devices []provided
	for _, d := range unsafe.Slice(found, int(n)) {
		devices = append(devices, provided{
			name: C.GoString(d.name), class: C.GoString(d.class), factory: C.GoString(d.factory), launch: C.GoString(d.launch),
			node: C.GoString(d.node), api: C.GoString(d.api), monitor: d.monitor != 0, standard: d.standard != 0,
			formats: videoFormats(unsafe.Slice(d.formats, int(d.n_formats))),
		})
	}
	return devices
}

// videoFormats puts the sizes of one media type together.
func videoFormats(found []C.source_format) []VideoFormat {
	formats := []VideoFormat{}
	for i := range found {
		f := &found[i]
		name := C.GoString(&f.media_type[0])
		if !strings.HasPrefix(name, "video/") && !strings.HasPrefix(name, "image/") || f.max_width == 0 || f.max_height == 0 {
			continue
		}
		size := VideoSize{Width: int(f.max_width), Height: int(f.max_height), Rates: []float64{}}
		if f.min_width != f.max_width || f.min_height != f.max_height {
			size.MinWidth, size.MinHeight = int(f.min_width), int(f.min_height)
		}
		for _, r := range f.rates[:int(f.n_rates)] {
			size.Rates = append(size.Rates, float64(r))
		}
		if len(size.Rates) == 0 && f.max_fps > 0 {
			size.Rates = append(size.Rates, float64(f.max_fps))
		}
		slices.SortFunc(size.Rates, func(a, b float64) int { return cmp.Compare(b, a) })
		at := slices.IndexFunc(formats, func(f VideoFormat) bool { return f.Name == name })
		if at < 0 {
			at = len(formats)
			formats = append(formats, VideoFormat{Name: name, Sizes: []VideoSize{}})
		}
		same := func(s VideoSize) bool {
			return s.Width == size.Width && s.Height == size.Height && s.MinWidth == size.MinWidth
		}
		anything := max(size.Width, size.Height) > 1<<15                // a range up to what an int holds
		if !anything && !slices.ContainsFunc(formats[at].Sizes, same) { // caps repeat it for each pixel format
			formats[at].Sizes = append(formats[at].Sizes, size)
		}
	}
	return formats
}
