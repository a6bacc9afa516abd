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
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
	"gateway/internal/media"
)

// ErrStuck says that a call into GStreamer didn't end in time: a driver or a
// server that doesn't answer. The pipeline is given up; its threads are lost to
// this process until the call returns.
var ErrStuck = errors.New("the source or an element doesn't answer")

// ErrEnded says that the source came to its end.
var ErrEnded = errors.New("the source has ended")

const (
	stopTimeout = 5 * time.Second        // for a pipeline to reach NULL
	pullTimeout = 250 * time.Millisecond // how often an appsink's goroutine looks around
	busTimeout  = 100 * time.Millisecond // the same for the bus
)

// Sink takes what a pipeline yields, on the pipeline's goroutines. Its methods
// must not block.
type Sink interface {
	// Deliver hands over a buffer of a track, with its reference.
	Deliver(track string, b *media.Buffer)
	// Describe says what a track's bitstream really is, when that becomes known or changes.
	Describe(track media.Track)
	// Fail says that the pipeline ended by itself, and why.
	Fail(err error)
}

// Pipeline is a running pipeline. Close ends it.
type Pipeline struct {
	about    string // the launch text, by which a hung one is known
	pipeline *gst.Pipeline
	bus      *gst.Bus
	taps     []*tap
	sink     Sink
	log      *slog.Logger

	closing atomic.Bool
	desktop bool // captures from an X server
	failed  sync.Once
	wants   chan string // tracks whose encoder should make a keyframe
	quit    chan struct{}
	wait    sync.WaitGroup
	once    sync.Once
	err     error
}

// Launch starts the plan's pipeline and returns once its elements have started, at
// the latest when ctx is done. What it yields goes to sink, until Close has returned. An error is
// an *Error where an element gave a reason.
func Launch(ctx context.Context, name string, plan *config.Plan, sink Sink, log *slog.Logger) (*Pipeline, error) {
	Init()
	p := &Pipeline{
		about: plan.Launch, sink: sink, log: log,
		wants: make(chan string, 16), quit: make(chan struct{}),
		desktop: strings.Contains(plan.Launch, "ximagesrc"),
	}
	err := bounded(ctx, p.about, func() error { return p.launch(plan) }, func() { p.Close() })
	if errors.Is(err, ErrStuck) {
		return nil, err
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.wait.Add(2 + len(p.taps))
	go p.watchBus()
	go p.forceKeyframes()
	for _, t := range p.taps {
		go t.run()
	}
	return p, nil
}

// launch makes the pipeline and starts it.
func (p *Pipeline) launch(plan *config.Plan) error {
	defer enterX(p.about)()
	if err := p.parse(plan.Launch); err != nil {
		return err
	}
	C.use_system_clock(element(p.pipeline.Element))
	for _, t := range plan.Tracks {
		appsink, err := p.pipeline.GetElementByName(t.Name)
		if err != nil {
			return fmt.Errorf("no element is named %q: each track needs an appsink of its name", t.Name)
		}
		p.taps = append(p.taps, newTap(p, t, appsink))
		if C.element_is(element(appsink), cstrings.appsink) == 0 {
			return fmt.Errorf("element %q is no appsink", t.Name)
		}
		C.no_preroll(element(appsink))
	}
	if err := p.changeState(gst.StatePaused); err != nil {
		return p.cause(err)
	}
	for _, t := range p.taps {
		if C.branch_is_live(element(t.appsink)) == 0 {
			p.log.Info("the source isn't live: its own timestamps set the pace", "track", t.track.Name)
			C.keep_pace(element(t.appsink))
		}
	}
	if err := p.changeState(gst.StatePlaying); err != nil {
		return p.cause(err)
	}
	return nil
}

// parse makes the elements.
func (p *Pipeline) parse(text string) error {
	native, err := gst.NewPipelineFromString(text)
	if err != nil {
		return err
	}
	p.pipeline, p.bus = native, native.GetPipelineBus()
	return nil
}

// RequestKeyframe asks the encoder that feeds a track for a keyframe: an upstream
// GstForceKeyUnit from that track's appsink, so that other branches of a tee are
// left alone. It doesn't block.
func (p *Pipeline) RequestKeyframe(track string) {
	select {
	case p.wants <- track:
	default: // as many wait already as there can be tracks
	}
}

// Close stops the pipeline and waits for its goroutines, 5 s at most; then it is
// given up with ErrStuck. Idempotent.
func (p *Pipeline) Close() error {
	p.once.Do(func() {
		p.closing.Store(true)
		close(p.quit)
		if p.pipeline == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		p.err = bounded(ctx, p.about, p.stop, p.release)
		if p.err == nil {
			p.release()
		}
	})
	return p.err
}

func (p *Pipeline) stop() error {
	defer enterX(p.about)()
	return p.changeState(gst.StateNull)
}

// release gives back a pipeline that has stopped.
func (p *Pipeline) release() {
	p.wait.Wait()
	defer enterX(p.about)() // an ximagesrc that never started closes its display only here
	for _, t := range p.taps {
		dispose(t.appsink.Object.InitiallyUnowned.Object)
	}
	dispose(p.bus.Object.InitiallyUnowned.Object)
	dispose(p.pipeline.Object.InitiallyUnowned.Object)
	C.trim()
}

// changeState changes the state. It may never return: see bounded. It doesn't
// wait for the first frame.
func (p *Pipeline) changeState(state gst.State) error {
	if C.gst_element_set_state(element(p.pipeline.Element), C.GstState(state)) == C.GST_STATE_CHANGE_FAILURE {
		return errors.New("the pipeline doesn't start")
	}
	return nil // what still goes on in other threads fails on the bus, if it does
}

// cause looks on the bus for the reason why the pipeline didn't start. When there
// must be one (err isn't nil) it waits a little: another thread may still post it.
func (p *Pipeline) cause(err error) error {
	for {
		wait := gst.ClockTime(0)
		if err != nil {
			wait = gst.ClockTime(busTimeout)
		}
		m := p.bus.TimedPop(wait)
		if m == nil {
			return err
		}
		fault := busError(m)
		release(m)
		if fault != nil {
			return fault
		}
	}
}

// fail reports the first fault; those that follow come of it.
func (p *Pipeline) fail(err error) {
	if p.closing.Load() {
		return
	}
	p.failed.Do(func() { p.sink.Fail(err) })
}

// watchBus reads the pipeline's messages until Close.
func (p *Pipeline) watchBus() {
	defer p.wait.Done()
	lost := C.x_servers_lost()
	for !p.closing.Load() {
		m := p.bus.TimedPop(gst.ClockTime(busTimeout))
		if p.desktop && C.x_servers_lost() != lost {
			p.fail(errors.New("the X server went away")) // ximagesrc would repeat its last picture for ever
		}
		if m == nil {
			continue
		}
		switch m.Type() {
		case gst.MessageError:
			err := busError(m)
			p.log.Debug("bus error", "err", err, "debug", err.Debug)
			p.fail(err)
		case gst.MessageWarning:
			if w := m.ParseWarning(); w != nil {
				p.log.Warn("pipeline warning", "warning", w.Error())
			}
		case gst.MessageEOS:
			p.fail(ErrEnded)
		}
		release(m)
	}
}

// forceKeyframes passes keyframe requests upstream, apart from the caller: an
// event runs through the elements on the thread that sends it.
func (p *Pipeline) forceKeyframes() {
	defer p.wait.Done()
	for {
		select {
		case <-p.quit:
			return
		case track := <-p.wants:
			for _, t := range p.taps {
				if t.track.Name == track && C.pad_force_keyframe(element(t.appsink)) == 0 {
					p.log.Debug("no element took the keyframe request", "track", track)
				}
			}
		}
	}
}

// busError is a message's fault, or nil if it holds none.
func busError(m *gst.Message) *Error {
	if m.Type() != gst.MessageError {
		return nil
	}
	e := &Error{}
	if g := m.ParseError(); g != nil {
		e.Message, e.Debug = strings.TrimSuffix(g.Error(), "."), g.DebugString()
		if i := strings.LastIndexByte(e.Debug, '\n'); i >= 0 { // the debug text ends in the system's own words
			e.Message += " (" + strings.TrimSuffix(e.Debug[i+1:], ".") + ")"
		}
	}
	native := (*C.GstMessage)(unsafe.Pointer(m.Instance()))
	if src := native.src; src != nil {
		name := C.factory_of(src)
		e.Factory = C.GoString(name)
		C.g_free(C.gpointer(unsafe.Pointer(name)))
		e.Element = m.Source()
	}
	return e
}

// release gives a message back at once.
func release(m *gst.Message) {
	runtime.SetFinalizer(m, nil)
	m.Unref()
}

// cstrings are C strings that are never freed.
var cstrings = struct{ appsink *C.char }{appsink: C.CString("appsink")}

func element(e *gst.Element) *C.GstElement { return (*C.GstElement)(e.Unsafe()) }
