package stream

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	launchTimeout = 10 * time.Second // from launch to playing
	firstFrame    = 10 * time.Second // from playing to the first frame
	stallAfter    = 5 * time.Second  // without a frame a live pipeline counts as frozen; slower streams get ten frame intervals

	idlePoll   = 10 * time.Second // how often an idle stream looks whether its source is there
	absentPoll = 2 * time.Second  // the same while it is absent
	planFresh  = 15 * time.Second // how long a plan is launched without looking again

	backoffMin   = 250 * time.Millisecond
	backoffMax   = 8 * time.Second
	backoffReset = 10 * time.Second // a pipeline that ran so long starts the backoff anew
)

// errUnwanted ends a pipeline that nobody watches any more.
var errUnwanted = errors.New("nobody watches")

// live is the stream's life: rest while nobody watches, play while somebody
// does, back off when that fails. It owns all control state and ends with ctx.
func (s *Stream) live(ctx context.Context) {
	defer close(s.done)
	var (
		plan    *config.Plan // nil: look again before the next launch
		planned time.Time
		backoff = backoffMin
		timer   = time.NewTimer(0) // runs out when there is something to try
	)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.end()
			return
		case <-s.keyframe: // no pipeline to ask: the next begins with one
			continue
		case <-s.demand:
			if !s.wanted() {
				if s.Info().State == Restarting {
					s.setState(Idle, "")
				}
				continue
			}
			if s.Info().State == Restarting {
				continue // a newcomer doesn't shorten the backoff
			}
		case <-timer.C:
		}
		if ctx.Err() != nil {
			continue
		}

		if plan == nil || !s.wanted() || time.Since(planned) > planFresh {
			var err error
			if plan, err = s.compile(); err != nil {
				timer.Reset(s.absent(err))
				continue
			}
			planned = time.Now()
		}
		if !s.wanted() {
			s.setState(Idle, "")
			timer.Reset(idlePoll)
			continue
		}

		began := time.Now()
		err := s.play(ctx, plan)
		if ctx.Err() != nil {
			continue
		}
		if errors.Is(err, errUnwanted) {
			s.clear()
			s.setState(Idle, "")
			backoff = backoffMin
			timer.Reset(idlePoll)
			continue
		}
		plan = nil // what failed may have gone: look again
		if time.Since(began) > backoffReset {
			backoff = backoffMin
		}
		s.failed(err, backoff)
		timer.Reset(backoff)
		backoff = min(backoff*2, backoffMax)
	}
}

// compile looks what can be launched now, and makes its tracks known.
func (s *Stream) compile() (*config.Plan, error) {
	plan, err := s.launcher.Compile(s.conf)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	old := s.plan
	s.mu.Unlock()
	if !reflect.DeepEqual(plan, old) {
		s.install(plan)
	}
	return plan, nil
}

// absent notes why the stream can't be launched and returns when to look again.
func (s *Stream) absent(err error) time.Duration {
	if errors.Is(err, media.ErrAbsent) {
		s.setState(Absent, err.Error())
		return absentPoll
	}
	s.mu.Lock()
	s.lastErr = config.Redact(err.Error())
	s.mu.Unlock()
	s.setState(Restarting, err.Error())
	return backoffMax
}

// failed notes that a pipeline ended by itself.
func (s *Stream) failed(err error, backoff time.Duration) {
	s.mu.Lock()
	s.restarts++
	s.lastErr = config.Redact(err.Error())
	s.mu.Unlock()
	s.log.Warn("pipeline failed", "err", config.Redact(err.Error()), "retry_in", backoff)
	s.setState(Restarting, err.Error())
}

// end stops everything for good.
func (s *Stream) end() {
	s.setState(Closed, "")
	s.clear()
}

// clear gives back the memory of the rings.
func (s *Stream) clear() {
	for _, r := range s.ringsNow() {
		r.clear()
	}
}

// play launches the plan and stays with the pipeline until it fails, isn't
// wanted any more (errUnwanted) or ctx is done.
func (s *Stream) play(ctx context.Context, plan *config.Plan) error {
	if s.Info().State != Restarting { // a restart stays one until frames come
		s.setState(Starting, "")
	}
	run := &run{stream: s, failure: make(chan error, 1), first: make(chan struct{})}
	launching, cancel := context.WithTimeout(ctx, launchTimeout)
	pipeline, err := s.launcher.Launch(launching, s.conf.Name, plan, run)
	cancel()
	if err != nil {
		run.stop()
		return fmt.Errorf("launch: %w", err)
	}
	defer func() {
		if err := pipeline.Close(); err != nil {
			s.log.Error("pipeline close", "err", err)
		}
		run.stop()
		for _, r := range s.ringsNow() {
			r.interrupt()
		}
	}()
	return s.attend(ctx, run, pipeline)
}

// attend serves a running pipeline: keyframe requests, demand, stalls.
func (s *Stream) attend(ctx context.Context, run *run, pipeline Pipeline) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var (
		began    = media.Now()
		first    = run.first
		linger   = time.NewTimer(time.Hour)
		keyframe = time.NewTimer(time.Hour)
	)
	defer linger.Stop()
	defer keyframe.Stop()
	leaving := false
	s.askKeyframes(pipeline, keyframe) // what was wished for while there was no pipeline
	for {
		if wanted := s.wanted(); !wanted && !leaving {
			leaving = true
			linger.Reset(s.conf.Linger)
		} else if wanted && leaving {
			leaving = false
			linger.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-run.failure:
			return err
		case <-first:
			first = nil
			s.setState(Live, "")
		case <-s.demand:
		case <-linger.C:
			if leaving {
				return errUnwanted
			}
		case <-s.keyframe:
			s.askKeyframes(pipeline, keyframe)
		case <-keyframe.C:
			s.askKeyframes(pipeline, keyframe)
		case <-tick.C:
			if err := s.stalled(began, first != nil); err != nil {
				return err
			}
		}
	}
}

// askKeyframes passes on what the rings want, and sets the timer to look again.
func (s *Stream) askKeyframes(pipeline Pipeline, timer *time.Timer) {
	var next time.Duration
	for _, r := range s.ringsNow() {
		ask, again := r.ask(media.Now())
		if ask {
			pipeline.RequestKeyframe(r.name())
		}
		if again > 0 && (next == 0 || again < next) {
			next = again
		}
	}
	if next > 0 {
		timer.Reset(next)
	}
}

// stalled tells whether a pipeline that should yield frames doesn't.
func (s *Stream) stalled(began time.Duration, waiting bool) error {
	now := media.Now()
	if waiting {
		if now-began > firstFrame {
			return fmt.Errorf("no frame within %v of the start", firstFrame)
		}
		return nil
	}
	for _, r := range s.ringsNow() {
		t, _, last := r.snapshot()
		limit := stallAfter
		if t.FPS > 0 {
			limit = max(limit, time.Duration(10*float64(time.Second)/t.FPS))
		}
		if since := now - max(last, began); since > limit {
			return fmt.Errorf("track %q: no frame for %v", t.Name, since.Round(time.Second))
		}
	}
	return nil
}

// run is one pipeline's sink: it carries what is delivered to the stream, as
// long as the pipeline is the stream's.
type run struct {
	stream  *Stream
	failure chan error
	first   chan struct{}
	once    sync.Once
	fail    sync.Once

	mu      sync.RWMutex // held shared while something is delivered, exclusively to stop
	stopped bool
}

// stop makes the run deaf; what is being delivered is waited for.
func (r *run) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

// Deliver implements Sink.
func (r *run) Deliver(track string, b *media.Buffer) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var ring *ring
	if !r.stopped {
		ring = r.stream.ring(track)
	}
	if ring == nil {
		b.Release()
		return
	}
	ring.push(b)
	r.once.Do(func() { close(r.first) })
}

// Describe implements Sink.
func (r *run) Describe(t media.Track) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.stopped {
		r.stream.describe(t)
	}
}

// Fail implements Sink.
func (r *run) Fail(err error) {
	r.fail.Do(func() { r.failure <- err })
}
