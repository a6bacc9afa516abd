package gst

/*
#include "native.h"
#include "facts.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-gst/go-gst/gst"
)

const negotiateTimeout = 5 * time.Second // to the first buffer

// Negotiated is what passes between two elements of a running pipeline.
type Negotiated struct {
	From, To string // names of the elements; no To: nothing is linked
	Caps     string // as people write them; "" where nothing has passed
}

// Negotiate runs a launch text until each of its sinks has its first buffer, and
// tells what passes between its elements, from source to sink, and the whole graph
// in the language of Graphviz. It blocks for 5 s at most. What was negotiated
// comes also with an error that ended it half way.
func (*Registry) Negotiate(ctx context.Context, launch string) (links []Negotiated, dot string, err error) {
	Init()
	ctx, cancel := context.WithTimeout(ctx, negotiateTimeout)
	defer cancel()
	g := &graph{about: launch + " ! negotiate"}
	err = bounded(ctx, g.about, func() error {
		defer enterX(launch)()
		if err := g.parse(launch); err != nil {
			return err
		}
		_, err := g.changeState(gst.StatePlaying)
		return err
	}, func() { g.close() })
	if errors.Is(err, ErrStuck) {
		return nil, "", err
	}
	defer g.close()
	if g.pipeline == nil {
		return nil, "", err
	}
	if err == nil {
		err = g.arrive(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no frame within %s", negotiateTimeout)
	}
	root := element(g.pipeline.Element)
	for record := range strings.SplitSeq(taken(C.negotiated(root)), "\x1e") {
		if u := units(record); len(u) == 3 {
			links = append(links, Negotiated{From: u[0], To: u[1], Caps: shortCaps(u[2])})
		}
	}
	slices.Reverse(links) // GStreamer sorts sinks first
	return links, taken(C.dot_graph(root)), err
}

// machineFields say nothing to people, or something else in each run.
var machineFields = []string{"codec_data", "streamheader", "multiview-mode", "ssrc", "timestamp-offset", "seqnum-offset", "channel-mask"}

// shortCaps are caps without types and without what is only for machines.
func shortCaps(caps string) string {
	var fields []string
	for field := range strings.SplitSeq(caps, ", ") {
		field = capsType.ReplaceAllString(field, "")
		name, _, _ := strings.Cut(field, "=")
		if len(field) < 64 && !slices.Contains(machineFields, name) {
			fields = append(fields, field)
		}
	}
	return strings.Join(fields, ", ")
}
