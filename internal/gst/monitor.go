package gst

/*
#include "devices.h"
*/
import "C"

import (
	"context"
	"slices"
	"strings"
	"time"
	"unsafe"
)

const maxWait = 10 * time.Second // of one AwaitDevices

// AwaitDevices waits until GStreamer's device providers (PulseAudio, PipeWire,
// libcamera, capture cards) have other devices than those that are known, which an
// earlier call returned, and returns what there is then, in words and in order. It
// returns after 10 s at most, when ctx is done, or at once where no provider tells of
// changes, with what there is by then. A provider that hangs is an ErrStuck.
//
// The kernel says nothing of a Bluetooth microphone, of another program's node or
// of a shared screen. What it does tell of, package device hears.
func AwaitDevices(ctx context.Context, known []string) (now []string, err error) {
	Init()
	bound, cancel := context.WithTimeout(context.Background(), maxWait+devicesTimeout)
	defer cancel()
	var found []string // still written to when nobody waits any more
	err = bounded(bound, "device monitor", func() error {
		found = awaitDevices(ctx, known)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return found, nil
}

func awaitDevices(ctx context.Context, known []string) []string {
	w := C.device_watch_new()
	defer C.device_watch_free(w)
	runs := false
	for _, p := range providers {
		name := C.CString(p.factory)
		if C.device_watch_add(w, name) != 0 {
			runs = true
		}
		C.g_free(C.gpointer(unsafe.Pointer(name)))
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for {
		var news C.guint64
		now := slices.Sorted(strings.SplitSeq(taken(C.device_watch_list(w, &news)), "\n")) // two may be called the same
		if !runs || !slices.Equal(now, known) || ctx.Err() != nil {
			return now
		}
		for ctx.Err() == nil && C.device_watch_wait(w, news, C.gint64(busTimeout.Microseconds())) == 0 {
		}
	}
}
