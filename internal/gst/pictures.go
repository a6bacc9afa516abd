package gst

/*
#include "native.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
)

// looks are looks at the pictures that an encoder is given: whether they are frozen or
// black for too long. nil looks at nothing.
type looks struct {
	pictures *C.pictures
	limits   config.Pictures
	fail     func(error)
	log      *slog.Logger
	told     bool // that they can't be read, or that they have failed
}

// lookAt begins to look at the pictures of the encoder that feeds an appsink, if limits
// ask for it. It is called before the graph plays; fail at most once.
func (g *graph) lookAt(appsink *gst.Element, limits config.Pictures, fail func(error), log *slog.Logger) *looks {
	if limits == (config.Pictures{}) {
		return nil
	}
	p := C.pictures_new(element(appsink))
	if p == nil {
		log.Warn("watchdog: there is no encoder, at whose pictures could be looked", "text", config.Redact(g.about))
		return nil
	}
	g.pictures = append(g.pictures, p)
	return &looks{pictures: p, limits: limits, fail: fail, log: log}
}

// check fails if the pictures have been frozen or black for too long.
func (l *looks) check() {
	if l == nil || l.told {
		return
	}
	var frozen, black C.guint64
	readable := C.pictures_since(l.pictures, &frozen, &black) != 0
	exceeds := func(is C.guint64, limit time.Duration) bool { return limit > 0 && time.Duration(is) >= limit }
	switch {
	case !readable:
		l.log.Warn("watchdog: the encoder's pictures aren't in memory that can be looked at")
	case exceeds(black, l.limits.Black):
		l.fail(fmt.Errorf("the picture has been black for %v", l.limits.Black))
	case exceeds(frozen, l.limits.Frozen):
		l.fail(fmt.Errorf("the picture has been the same for %v", l.limits.Frozen))
	default:
		return
	}
	l.told = true
}
