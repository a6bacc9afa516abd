// Package gst is GStreamer behind Go types: it launches pipelines, carries their
// packets out with one copy, and answers what is installed and what a source
// can deliver. It is the only package that uses cgo.
//
// A feed is captured by one GStreamer pipeline and encoded by others, its branches,
// which begin and end while it runs: handover.c is where they meet. Encoders are
// tried before they are relied on: trial.go.
//
// It hides go-gst and the C library, their reference counts and their threads.
// Each GStreamer pipeline has one goroutine for its bus and one for each appsink,
// and one for as long as an encoder takes a request; no GLib main loop runs
// anywhere.
package gst

/*
#cgo pkg-config: gstreamer-1.0 gstreamer-app-1.0 gstreamer-base-1.0 gstreamer-video-1.0
#cgo LDFLAGS: -rdynamic -ldl
#include "native.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/go-gst/go-glib/glib"
	"github.com/go-gst/go-gst/gst"
)

var initialize sync.Once

// Init initializes GStreamer, once. It may take seconds when the plugin registry
// is scanned for the first time.
func Init() {
	initialize.Do(func() {
		C.few_arenas()
		gst.Init(nil)
	})
}

// Version is the version of the GStreamer library, such as "1.22.0".
func Version() string {
	var major, minor, micro, nano C.guint
	C.gst_version(&major, &minor, &micro, &nano)
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Error is a fault inside a pipeline, as an element posted it on the bus.
type Error struct {
	Element string // name of the element that posted it
	Factory string // its type, such as "v4l2src"
	Message string // words for people
	Debug   string // words for developers
}

// Error joins what there is to say in one line.
func (e *Error) Error() string {
	if e.Factory == "" {
		return e.Message
	}
	return fmt.Sprintf("%s: %s", e.Factory, e.Message)
}

// dispose gives up Go's reference to an object at once, where go-glib would wait
// for the garbage collector. The object must not be used afterwards.
func dispose(o *glib.Object) {
	runtime.SetFinalizer(o, nil)
	o.Unref()
}
