package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
	"gateway/internal/media"
)

// Start begins to encode: it returns once the branch's elements have started, at the
// latest when ctx is done or after 10 s. The first frame that they are given is the
// capture's latest, the first that they yield a keyframe. id names the branch until
// Stop; a branch that ends by itself is told to the sink, and is gone.
//
// The branches of a whole feed run already.
func (p *Pipeline) Start(ctx context.Context, id string, plan *config.Branch) error {
	p.mu.Lock()
	running := p.branches[id]
	switch {
	case p.closed:
		p.mu.Unlock()
		return errClosed
	case p.feed.Whole && running != nil:
		p.mu.Unlock()
		return nil
	case p.feed.Whole:
		p.mu.Unlock()
		return fmt.Errorf("the launch text has no track %q", id)
	case running != nil:
		p.mu.Unlock()
		return fmt.Errorf("branch %q runs already", id)
	}
	b := &branch{plan: *plan, graph: &graph{about: plan.Launch}}
	b.graph.free = func() { C.outlet_free(b.outlet) }
	p.branches[id] = b
	p.wait.Add(1)
	p.mu.Unlock()
	defer p.wait.Done()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var source *gst.Element
	err := bounded(ctx, b.graph.about, func() (err error) {
		source, err = p.start(id, b)
		return err
	}, func() { b.graph.close() })
	if err == nil {
		err = p.attach(id, b, source)
	}
	if err != nil {
		p.mu.Lock()
		if p.branches[id] == b {
			delete(p.branches, id)
		}
		p.mu.Unlock()
		if !errors.Is(err, ErrStuck) {
			b.graph.close()
		}
		return fmt.Errorf("branch %q: %w", id, err)
	}
	return nil
}

// start makes a branch's pipeline and starts it.
func (p *Pipeline) start(id string, b *branch) (source *gst.Element, err error) {
	g := b.graph
	// drop=false: what isn't taken in time holds up this encoder alone, which then
	// loses pictures before they cost anything
	err = g.parse("appsrc name=" + sourceName + " is-live=true format=time do-timestamp=false block=false emit-signals=false max-bytes=0" +
		" ! " + b.plan.Launch + " ! " + config.SinkText(packetsName) + " async=false drop=false")
	if err != nil {
		return nil, err
	}
	source, err = g.named(sourceName)
	if err != nil {
		return nil, err
	}
	appsink, err := g.named(packetsName)
	if err != nil {
		return nil, err
	}
	if b.plan.Element != "" {
		if b.encoder, err = g.named(b.plan.Element); err != nil {
			return nil, err
		}
	}
	b.tap = newTap(id, b.plan.Track, g, appsink, p)
	b.tap.copied = b.plan.Copy
	b.tap.recut = b.plan.Track.Codec == media.H264 && !b.plan.Copy
	b.tap.scarce.Store(b.plan.Scarce)
	b.tap.fail = func(err error) { p.ended(id, b, err) }
	C.use_system_clock(element(g.pipeline.Element))
	p.mu.Lock()
	if p.closed { // the capture may be gone: parsing took too long
		p.mu.Unlock()
		return nil, errClosed
	}
	capture := element(p.capture.pipeline.Element)
	C.gst_object_ref(C.gpointer(capture))
	p.mu.Unlock()
	C.graph_follow(element(g.pipeline.Element), capture)
	C.gst_object_unref(C.gpointer(capture))
	_, err = g.changeState(gst.StatePlaying)
	return source, err
}

// attach begins to hand the capture's buffers to a started branch.
func (p *Pipeline) attach(id string, b *branch, source *gst.Element) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.branches[id] != b {
		return errClosed
	}
	b.outlet = C.handover_attach(p.hand, element(source)) // waits for one buffer's hand-over at most
	b.tap.outlet = b.outlet
	b.graph.call(b.tap.run)
	b.graph.call(func() { b.graph.watch(p.log, nil, func() {}, b.tap.fail) })
	return nil
}

// Stop ends a branch: nothing of it goes to the sink any more when it returns. It
// waits for the branch's elements to stop, 5 s at most, also where it has ended by
// itself. It does nothing in a whole feed, and where there is no such branch.
func (p *Pipeline) Stop(id string) {
	p.mu.Lock()
	b, ending := p.branches[id], p.ending[id]
	if b == nil && ending != nil {
		p.mu.Unlock()
		<-ending
		return
	}
	if b == nil || p.feed.Whole || p.closed {
		p.mu.Unlock()
		return
	}
	p.detach(id, b)
	p.wait.Add(1)
	p.mu.Unlock()
	defer p.wait.Done()
	p.close(id, b)
}

// detach takes a branch away from the capture. The caller holds mu.
func (p *Pipeline) detach(id string, b *branch) {
	delete(p.branches, id)
	if b.outlet != nil {
		C.handover_detach(p.hand, b.outlet)
	}
}

// close stops a branch that was detached.
func (p *Pipeline) close(id string, b *branch) error {
	if b.outlet == nil {
		return nil // Start, which is still at it, cleans up
	}
	err := b.graph.close()
	if err != nil {
		p.log.Error("branch stop", "branch", id, "err", err)
	}
	return err
}

// ended tells that a branch ended by itself, and puts it away.
func (p *Pipeline) ended(id string, b *branch, err error) {
	b.failed.Do(func() {
		b.graph.tell(func() { p.sink.Ended(id, err) })
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closed || p.branches[id] != b {
			return
		}
		p.detach(id, b)
		ending := make(chan struct{})
		p.ending[id] = ending
		p.wait.Go(func() { // elsewhere: it waits for the goroutine that runs this
			p.close(id, b)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.ending[id] == ending {
				delete(p.ending, id)
			}
			close(ending)
		})
	})
}
