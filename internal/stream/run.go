package stream

import (
	"sync"
	"sync/atomic"

	"gateway/internal/media"
)

// run is one pipeline's sink: it carries what is delivered to the encodings, as
// long as the pipeline is the capture's.
type run struct {
	capture *capture
	failure chan error
	flows   chan struct{} // frames come, after quiet
	quiet   atomic.Bool   // no frame since the start, or since the only encoding failed
	fail    sync.Once

	mu      sync.RWMutex // held shared while something is delivered, exclusively to change what follows
	byID    map[string]*encoding
	stopped bool
}

// admit says which encodings there are.
func (r *run) admit(encodings []*encoding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID = make(map[string]*encoding, len(encodings))
	for _, e := range encodings {
		r.byID[e.id] = e
	}
}

// stop makes the run deaf; what is being delivered is waited for, and what came on
// trial is given back.
func (r *run) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, e := range r.byID {
		e.ring.forsake(e)
	}
}

// Deliver implements Sink.
func (r *run) Deliver(id string, b *media.Buffer) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if r.stopped || e == nil {
		b.Release()
		return
	}
	e.ring.deliver(e, b)
	if r.quiet.Load() && r.quiet.Swap(false) {
		signal(r.flows)
	}
}

// Describe implements Sink.
func (r *run) Describe(id string, t media.Track) {
	r.mu.RLock()
	e := r.byID[id]
	if r.stopped {
		e = nil
	}
	r.mu.RUnlock()
	if e != nil && e.ring.describes(e, t) {
		r.capture.stream.update(func() { e.ring.describe(e, t) })
	}
}

// Dropped implements Sink.
func (r *run) Dropped(id string, n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.byID[id]; e != nil && !r.stopped {
		e.ring.missed(e, n)
	}
}

// Ended implements Sink.
func (r *run) Ended(id string, err error) {
	r.mu.RLock()
	e := r.byID[id]
	r.mu.RUnlock()
	if e != nil {
		e.end(err)
	}
}

// Fail implements Sink.
func (r *run) Fail(err error) {
	r.fail.Do(func() { r.failure <- err })
}
