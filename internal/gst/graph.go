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

	"gateway/internal/media"
)

const (
	stopTimeout = 5 * time.Second        // for a pipeline to reach NULL
	busTimeout  = 100 * time.Millisecond // how often the bus's goroutine looks around
)

// graph is one GStreamer pipeline, with what is held of it and the goroutines that
// read it.
type graph struct {
	about    string // the launch text, by which a hung one is known
	pipeline *gst.Pipeline
	bus      *gst.Bus
	held     []*gst.Element // given back at the end
	stamps   []*C.stamps    // likewise
	pictures []*C.pictures  // likewise
	free     func()         // likewise; may be nil

	closing atomic.Bool
	gate    sync.RWMutex   // held shared while the sink is called, exclusively to begin closing
	wait    sync.WaitGroup // calls into its elements
	once    sync.Once
	err     error
}

// parse makes the elements.
func (g *graph) parse(text string) error {
	c := C.CString(text)
	defer C.g_free(C.gpointer(unsafe.Pointer(c)))
	var fault *C.GError
	native := C.graph_parse(c, &fault)
	if native == nil {
		defer C.g_error_free(fault)
		return errors.New(C.GoString((*C.char)(fault.message)))
	}
	g.pipeline = gst.FromGstPipelineUnsafeNone(unsafe.Pointer(native))
	g.bus = g.pipeline.GetPipelineBus()
	return nil
}

// named finds an element, which stays held until the graph's end.
func (g *graph) named(name string) (*gst.Element, error) {
	e, err := g.pipeline.GetElementByName(name)
	if err != nil {
		return nil, fmt.Errorf("no element is named %q", name)
	}
	g.held = append(g.held, e)
	return e, nil
}

// watchEncoder begins to note when the encoder that feeds an appsink has which
// picture. nil: none does, or of sound.
func (g *graph) watchEncoder(appsink *gst.Element) *C.stamps {
	s := C.stamps_new(element(appsink))
	if s != nil {
		g.stamps = append(g.stamps, s)
	}
	return s
}

// changeState changes the state. It may never return: see bounded. It doesn't
// wait for the first frame. live: the source captures.
func (g *graph) changeState(state gst.State) (live bool, err error) {
	switch C.gst_element_set_state(element(g.pipeline.Element), C.GstState(state)) {
	case C.GST_STATE_CHANGE_FAILURE:
		return false, g.cause(errors.New("the pipeline doesn't start"))
	case C.GST_STATE_CHANGE_NO_PREROLL:
		return true, nil
	}
	return false, nil // what still goes on in other threads fails on the bus, if it does
}

// arrive waits until the last change of state is complete.
func (g *graph) arrive(ctx context.Context) error {
	for ctx.Err() == nil {
		switch C.gst_element_get_state(element(g.pipeline.Element), nil, nil, C.GstClockTime(busTimeout)) {
		case C.GST_STATE_CHANGE_FAILURE:
			return g.cause(errors.New("the pipeline doesn't start"))
		case C.GST_STATE_CHANGE_ASYNC:
			if err := g.cause(nil); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return ctx.Err()
}

// cause looks on the bus for the reason why the pipeline didn't start. When there
// must be one (err isn't nil) it waits a little: another thread may still post it.
func (g *graph) cause(err error) error {
	for {
		wait := gst.ClockTime(0)
		if err != nil {
			wait = gst.ClockTime(busTimeout)
		}
		m := g.bus.TimedPop(wait)
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

// watch reads the pipeline's messages until it is closed, looking around at tick
// now and then. At its end another round is begun, if there is one.
func (g *graph) watch(log *slog.Logger, again *loop, tick func(), fail func(error)) {
	for !g.closing.Load() {
		m := g.bus.TimedPop(gst.ClockTime(busTimeout))
		tick()
		if m == nil {
			continue
		}
		switch m.Type() {
		case gst.MessageError:
			err := busError(m)
			log.Debug("bus error", "err", err, "debug", err.Debug)
			fail(err)
		case gst.MessageWarning:
			if w := m.ParseWarning(); w != nil {
				log.Warn("pipeline warning", "warning", w.Error())
			}
		case gst.MessageEOS, gst.MessageSegmentDone:
			if !again.begin(m.Type() == gst.MessageSegmentDone) {
				fail(media.ErrEnded)
			}
		}
		release(m)
	}
}

// call runs f, which may call into the graph's elements, on a goroutine of its own.
// The caller makes sure that close isn't called before.
func (g *graph) call(f func()) { g.wait.Go(f) }

// tell calls the sink by f, unless the graph is being closed.
func (g *graph) tell(f func()) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	if !g.closing.Load() {
		f()
	}
}

// close silences the graph at once, stops it and waits for its goroutines, 5 s at
// most; then it is given up with ErrStuck. Idempotent.
func (g *graph) close() error {
	g.once.Do(func() {
		g.gate.Lock()
		g.closing.Store(true)
		g.gate.Unlock()
		if g.pipeline == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if g.err = attempt(ctx, g.about, g.stop, g.release); g.err == nil {
			g.release()
		}
	})
	return g.err
}

func (g *graph) stop() error {
	leave := enterX(g.about)
	_, err := g.changeState(gst.StateNull)
	leave()
	g.wait.Wait()
	return err
}

// release gives back a pipeline that has stopped.
func (g *graph) release() {
	defer enterX(g.about)() // an ximagesrc that never started closes its display only here
	if g.free != nil {
		g.free()
	}
	for _, s := range g.stamps {
		C.stamps_free(s)
	}
	for _, p := range g.pictures {
		C.pictures_free(p)
	}
	for _, e := range g.held {
		dispose(e.Object.InitiallyUnowned.Object)
	}
	dispose(g.bus.Object.InitiallyUnowned.Object)
	dispose(g.pipeline.Object.InitiallyUnowned.Object)
	C.trim()
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
