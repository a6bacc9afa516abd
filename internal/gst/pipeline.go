package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
	"gateway/internal/media"
)

// ErrStuck says that a call into GStreamer didn't end in time. The pipeline is given
// up; its threads are lost to this process until the call returns.
var ErrStuck = media.ErrStuck

// errClosed says that a branch was to start or to change that isn't there any more.
var errClosed = errors.New("the pipeline is closed")

const (
	startTimeout    = 10 * time.Second // for a branch's elements to start
	keyframeTimeout = time.Second      // for an encoder to make one that was asked for
	bitrateTimeout  = 2 * time.Second  // for an encoder to take a bitrate: some finish their frame first
)

// Names of the elements that a capture and a branch are given here. They are
// unlikely to be a user's own.
const (
	handoverName = "gateway_handover"
	sourceName   = "gateway_source"
	packetsName  = "gateway_packets"
)

// Sink takes what a pipeline yields, on the pipeline's goroutines. Its methods
// must not block or call the pipeline. id is what a branch was started as, in a
// whole feed the track's name.
type Sink interface {
	// Deliver hands over a buffer, with its reference.
	Deliver(id string, b *media.Buffer)
	// Describe says what a branch's bitstream really is, when that becomes known or changes.
	Describe(id string, track media.Track)
	// Dropped says that a branch was too slow for that many captured buffers more.
	Dropped(id string, n int)
	// Ended says that a branch ended by itself, and why. The others go on.
	Ended(id string, err error)
	// Fail says that the capture ended by itself, and why: media.ErrEnded at the source's end.
	Fail(err error)
}

// Pipeline is a running feed: a capture and what is encoded of it now. Each branch
// is a GStreamer pipeline of its own, so that it starts, stops and fails alone; the
// capture hands it every buffer by reference. Its methods may be called from any
// goroutine.
type Pipeline struct {
	name    string
	feed    *config.Feed
	sink    Sink
	log     *slog.Logger
	capture *graph
	out     *gst.Element // the capture's appsink; nil in a whole feed
	hand    *C.handover
	windows []*window // that it captures
	failed  sync.Once

	mu       sync.Mutex // guards below; never held across a call into an element
	closed   bool
	branches map[string]*branch
	ending   map[string]chan struct{} // branches that ended by themselves and are being stopped; closed when they are
	wait     sync.WaitGroup           // branches that are being started or stopped
}

// branch is one encoding.
type branch struct {
	plan    config.Branch
	graph   *graph // the capture's own in a whole feed
	tap     *tap
	encoder *gst.Element // nil: unknown, or none
	outlet  *C.outlet
	asking  atomic.Bool // a keyframe request is on its way to the encoder
	failed  sync.Once
}

// Launch starts a feed's capture and returns once its elements have started, at
// the latest when ctx is done. Nothing is encoded before Start, except in a whole
// feed, which runs complete from here on. What goes to sink ends when Close
// returns. An error is an *Error where an element gave a reason.
func Launch(ctx context.Context, name string, feed *config.Feed, sink Sink, log *slog.Logger) (*Pipeline, error) {
	Init()
	p := &Pipeline{
		name: name, feed: feed, sink: sink, log: log,
		capture:  &graph{about: feed.Capture},
		branches: make(map[string]*branch), ending: make(map[string]chan struct{}),
	}
	p.capture.free = func() { closeWindows(p.windows) }
	var again *loop
	err := bounded(ctx, p.capture.about, func() (err error) {
		again, err = p.launch(ctx)
		return err
	}, func() { p.Close() })
	if errors.Is(err, ErrStuck) {
		return nil, err
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.capture.call(func() { p.capture.watch(p.log, again, p.desktop(), p.fail) })
	for _, b := range p.branches {
		p.capture.call(b.tap.run)
	}
	return p, nil
}

// launch makes the capture's pipeline and starts it.
func (p *Pipeline) launch(ctx context.Context) (again *loop, err error) {
	g := p.capture
	defer enterX(g.about)()
	text := p.feed.Capture
	if !p.feed.Whole {
		text += " ! appsink name=" + handoverName + " sync=false async=false max-buffers=4 drop=true enable-last-sample=false wait-on-eos=false"
	}
	if err := g.parse(text); err != nil {
		return nil, err
	}
	C.use_system_clock(element(g.pipeline.Element))
	if p.windows, err = openWindows(g.about); err != nil {
		return nil, err
	}
	var sinks []*gst.Element
	if p.feed.Whole {
		sinks, err = p.wholeBranches()
	} else {
		p.out, err = g.named(handoverName)
		sinks = []*gst.Element{p.out}
	}
	if err != nil {
		return nil, err
	}
	if p.out != nil {
		p.hand = C.handover_new(element(p.out))
	}
	live, err := g.changeState(gst.StatePaused)
	if err != nil {
		return nil, err
	}
	if !live && (!p.feed.Whole || p.feed.Loop) {
		// what isn't live may still be looking for its decoders, and has no base time until then
		if err := g.arrive(ctx); err != nil {
			return nil, err
		}
	}
	for _, sink := range sinks {
		if is := C.branch_is_live(element(sink)); is == 0 || is < 0 && !live {
			p.log.Info("the source isn't live: its own timestamps set the pace", "feed", p.feed.Name)
			C.keep_pace(element(sink))
		}
	}
	if p.feed.Loop && !live {
		if again, err = newLoop(ctx, g, sinks); err != nil {
			return nil, err
		}
		if again == nil {
			p.log.Warn("the source can't be played in a loop: it doesn't seek", "feed", p.feed.Name)
		}
	}
	_, err = g.changeState(gst.StatePlaying)
	return again, err
}

// wholeBranches finds the appsinks of a whole feed.
func (p *Pipeline) wholeBranches() (sinks []*gst.Element, err error) {
	for _, plan := range p.feed.Branches {
		name := plan.Track.Name
		appsink, err := p.capture.named(name)
		if err != nil {
			return nil, fmt.Errorf("%w: each track needs an appsink of its name", err)
		}
		if C.element_is(element(appsink), cstrings.appsink) == 0 {
			return nil, fmt.Errorf("element %q is no appsink", name)
		}
		C.no_preroll(element(appsink))
		b := &branch{plan: plan, graph: p.capture}
		if plan.Element != "" {
			if b.encoder, err = p.capture.named(plan.Element); err != nil {
				return nil, err
			}
		}
		b.tap = newTap(name, plan.Track, p.capture, appsink, p)
		b.tap.fail = p.fail
		p.branches[name] = b
		sinks = append(sinks, appsink)
	}
	return sinks, nil
}

// desktop returns what notices that a captured X server or window is gone: ximagesrc
// itself would repeat its last picture for ever.
func (p *Pipeline) desktop() (tick func()) {
	if !strings.Contains(p.capture.about, "ximagesrc") {
		return func() {}
	}
	lost := C.x_servers_lost()
	return func() {
		if C.x_servers_lost() != lost {
			p.fail(errors.New("the X server went away"))
		}
		for _, w := range p.windows {
			if err := w.lost(); err != nil {
				p.fail(err)
			}
		}
	}
}

// fail reports the capture's first fault; those that follow come of it.
func (p *Pipeline) fail(err error) {
	p.failed.Do(func() {
		p.capture.tell(func() { p.sink.Fail(err) })
	})
}

// RequestKeyframe asks the encoder of a branch for a keyframe: an upstream
// GstForceKeyUnit from that branch's appsink, so that others are left alone. Where
// nothing is encoded it goes on to the source, which may know whom to ask: an RTSP
// source asks its camera. It doesn't block.
func (p *Pipeline) RequestKeyframe(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.branches[id]
	if p.closed || b == nil || b.outlet == nil && !p.feed.Whole || b.asking.Swap(true) {
		return
	}
	b.graph.call(func() { // an event runs through the elements on the thread that sends it
		defer b.asking.Store(false)
		if err := b.forceKeyframe(); err != nil {
			p.log.Debug("keyframe request", "branch", id, "err", err)
		}
	})
	if b.plan.Copy && p.out != nil {
		p.capture.call(func() { C.pad_force_keyframe(element(p.out)) })
	}
}

// forceKeyframe has the branch's encoder make a keyframe, by the event or, where it
// takes none, by a property that is set until one has come.
func (b *branch) forceKeyframe() error {
	by := b.plan.Keyframe
	if by.Property == "" || b.encoder == nil {
		if C.pad_force_keyframe(element(b.tap.appsink)) == 0 {
			return errors.New("no element took it")
		}
		return nil
	}
	usual, err := b.encoder.GetProperty(by.Property)
	if err != nil {
		return err
	}
	select {
	case <-b.tap.keyframes: // an earlier one
	default:
	}
	if err := setText(b.encoder, by.Property, by.Value); err != nil {
		return err
	}
	select {
	case <-b.tap.keyframes:
	case <-time.After(keyframeTimeout):
	}
	return setText(b.encoder, by.Property, fmt.Sprint(usual))
}

// SetBitrate changes the bitrate of a branch's encoder while it runs; scarce is as in
// config.Branch. It blocks for as long as the encoder takes, 2 s at most.
func (p *Pipeline) SetBitrate(id string, bps int, scarce bool) error {
	p.mu.Lock()
	b := p.branches[id]
	if p.closed || b == nil || b.outlet == nil && !p.feed.Whole {
		p.mu.Unlock()
		return fmt.Errorf("branch %q: %w", id, errClosed)
	}
	if b.encoder == nil || b.plan.Bitrate.Property == "" || !b.plan.Bitrate.Live || bps <= 0 {
		p.mu.Unlock()
		return fmt.Errorf("branch %q: its bitrate can't be changed while it runs", id)
	}
	done := make(chan error, 1)
	b.graph.call(func() { done <- setText(b.encoder, b.plan.Bitrate.Property, b.plan.Bitrate.Setting(bps)) })
	p.mu.Unlock()
	select {
	case err := <-done:
		if err == nil {
			b.tap.scarce.Store(scarce)
		}
		return err
	case <-time.After(bitrateTimeout):
		return fmt.Errorf("branch %q: bitrate: %w", id, ErrStuck)
	}
}

// setText sets a property of any type.
func setText(e *gst.Element, property, value string) error {
	name, text := C.CString(property), C.CString(value)
	defer C.g_free(C.gpointer(unsafe.Pointer(name)))
	defer C.g_free(C.gpointer(unsafe.Pointer(text)))
	if C.set_text(element(e), name, text) == 0 {
		return fmt.Errorf("element %q has no property %q to be set", e.GetName(), property)
	}
	return nil
}

// Close stops the capture and all branches side by side and waits for them, 5 s at
// most (longer only if one is being started meanwhile); what hasn't stopped by then
// is given up with ErrStuck. Idempotent; a second call returns at once.
func (p *Pipeline) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	branches := p.branches
	p.branches = make(map[string]*branch)
	for id, b := range branches {
		if b.outlet != nil {
			p.detach(id, b)
		}
	}
	p.mu.Unlock()

	errs := make(chan error, len(branches))
	for id, b := range branches {
		go func() { errs <- p.close(id, b) }()
	}
	p.wait.Wait() // before the capture goes, whose clock and elements a start may be using
	err := p.capture.close()
	for range branches {
		err = errors.Join(err, <-errs)
	}
	return err
}
