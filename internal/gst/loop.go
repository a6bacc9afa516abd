package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"

	"github.com/go-gst/go-gst/gst"
)

// loop begins a source anew when it comes to its end: see loop.c. nil never does.
type loop struct {
	graph  *graph
	rounds *C.rounds
	seen   C.guint // buffers by the end of the last round
}

// newLoop prepares a graph that is paused for being played in a loop, its appsinks
// being sinks. It returns nil where the source can't go back.
func newLoop(ctx context.Context, g *graph, sinks []*gst.Element) (*loop, error) {
	pipeline := element(g.pipeline.Element)
	if C.can_rewind(pipeline) == 0 {
		return nil, nil
	}
	if C.can_seek(pipeline) != 0 {
		if C.play_again(pipeline, 1, 1) == 0 {
			C.play_again(pipeline, 0, 1) // the refused one may have stopped the flow all the same
		}
		if err := g.arrive(ctx); err != nil {
			return nil, err
		}
	}
	l := &loop{graph: g}
	for _, sink := range sinks {
		l.rounds = C.rounds_new(element(sink))
	}
	return l, nil
}

// begin begins the next round. It returns false where that can't be done, or the
// last one was empty.
func (l *loop) begin(segment bool) bool {
	if l == nil {
		return false
	}
	n := C.rounds_buffers(l.rounds)
	if n == l.seen {
		return false
	}
	l.seen = n
	var keep, flush C.gboolean = 1, 0
	if !segment {
		keep, flush = 0, 1
	}
	return C.play_again(element(l.graph.pipeline.Element), keep, flush) != 0
}
