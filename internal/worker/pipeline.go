package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	silence        = 4               // pulses that may be missing: 2 s
	startSilence   = 20              // until it plays: a machine with other work takes long to load plugins
	stopTimeout    = 6 * time.Second // for a branch to stop; gst gives up after 5 s
	closeTimeout   = 6 * time.Second // for a pipeline to be closed, likewise
	bitrateTimeout = 3 * time.Second // likewise, after 2 s
	exitTimeout    = time.Second     // from the last message to the process's end
)

// What a child may tell beside packets: so many events a second, of which a minute's may
// come at once, after the gateway was stopped. What all viewers are told counts for more.
const (
	eventRate  = 2000
	eventBurst = 60 * eventRate
	toldCost   = 20

	mostDropped = 1 << 20 // frames that are told to be dropped at a time
)

// errFlood says that a child tells more than any pipeline has to.
var errFlood = fmt.Errorf("it tells more than %d events a second", eventRate)

// aheadMost is how far its stamps may be ahead of the clock: of what isn't live a little.
const aheadMost = time.Second

// fmtp are format parameters (RFC 8866 §6.15), which go into viewers' offers.
var fmtp = regexp.MustCompile(`^[A-Za-z0-9=;,._+/ -]{0,512}$`)

// Pipeline is a capture that runs in a child. Its methods may be called from any
// goroutine.
type Pipeline struct {
	launcher *Launcher
	name     string // of the stream
	feed     string
	memory   uint64 // bytes that the child may occupy; 0: no limit
	sink     Sink
	log      *slog.Logger
	talk     *talk
	proc     *process
	out      *sender
	events   *rate.Limiter // read's
	over     chan struct{} // closed when the child has ended and nothing of it goes to the sink any more

	heard atomic.Bool // something came of it since the last look
	rss   atomic.Uint64
	cpu   atomic.Int64

	mu       sync.Mutex // guards below; not held while the sink is called
	calls    map[uint64]chan error
	last     uint64 // number of the last call
	launched bool
	closing  bool
	killed   string // why it was killed
	failure  error  // why the child has ended, once it has
}

// Start implements stream.Pipeline.
func (p *Pipeline) Start(ctx context.Context, id string, branch *config.Branch) error {
	err := p.call(ctx, &message{Do: doStart, ID: id, Branch: branch})
	if err != nil && ctx.Err() != nil {
		p.send(&message{Do: doStop, ID: id}) // in case it was only late
	}
	return err
}

// Stop implements stream.Pipeline.
func (p *Pipeline) Stop(id string) {
	p.callWithin(stopTimeout, &message{Do: doStop, ID: id}, "a branch didn't stop")
}

// RequestKeyframe implements stream.Pipeline.
func (p *Pipeline) RequestKeyframe(id string) { p.send(&message{Do: doKeyframe, ID: id}) }

// SetBitrate implements stream.Pipeline.
func (p *Pipeline) SetBitrate(id string, bps int, scarce bool) error {
	return p.callWithin(bitrateTimeout, &message{Do: doBitrate, ID: id, Count: bps, Scarce: scarce}, "")
}

// Usage is the memory that the child occupies, in bytes, as it told last; ok: it has.
func (p *Pipeline) Usage() (rss uint64, ok bool) {
	rss = p.rss.Load()
	return rss, rss > 0
}

// PID is the child's process id.
func (p *Pipeline) PID() int { return p.proc.pid }

// Kill ends the child at once, for a reason that the sink is told. Only the first counts,
// and Close is called all the same.
func (p *Pipeline) Kill(reason string) { p.kill(reason) }

// Close implements stream.Pipeline. It returns when the child has ended: by itself,
// or after 6 s killed. Idempotent.
func (p *Pipeline) Close() error {
	p.mu.Lock()
	p.closing = true
	ended := p.failure != nil || p.killed != "" // nothing answers any more
	p.mu.Unlock()
	var err error
	if !ended {
		err = p.callWithin(closeTimeout, &message{Do: doClose}, "the pipeline didn't stop")
	}
	p.end()
	return err
}

// end lets the child go: it ends by itself soon, or is killed.
func (p *Pipeline) end() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.out.close(exitTimeout) // the socket's end is the command
	<-p.over
}

// kill ends the child, for a reason that the sink is told. Only the first counts.
func (p *Pipeline) kill(reason string) {
	p.mu.Lock()
	if p.killed == "" {
		p.killed = reason
	}
	p.mu.Unlock()
	p.proc.kill()
	p.proc.conn.SetReadDeadline(time.Now().Add(killTimeout)) // what a driver holds keeps its end open
}

// call sends a command and waits for its answer, as long as ctx allows.
func (p *Pipeline) call(ctx context.Context, m *message) error {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		m.Within = max(left-margin, left/2) // its own words are better than ours
	} else {
		m.Within = time.Hour
	}
	answer := make(chan error, 1)
	p.mu.Lock()
	if p.failure != nil {
		p.mu.Unlock()
		return p.failure
	}
	p.last++
	m.N = p.last
	p.calls[m.N] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, m.N)
		p.mu.Unlock()
	}()
	if err := p.out.message(m); err != nil {
		select {
		case err := <-answer: // it has ended
			return err
		case <-p.over:
			return p.reason()
		case <-ctx.Done():
			return ErrStuck
		}
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return ErrStuck
	}
}

// callWithin is call for what must not take longer; the child is killed then, if
// there is a reason to tell.
func (p *Pipeline) callWithin(limit time.Duration, m *message, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := p.call(ctx, m)
	if errors.Is(err, ErrStuck) && reason != "" {
		p.kill(fmt.Sprintf("%s within %s", reason, limit))
	}
	return err
}

// send sends what isn't answered.
func (p *Pipeline) send(m *message) {
	if err := p.out.message(m); errors.Is(err, errFull) {
		p.log.Debug("worker command", "command", m.Do, "err", err)
	}
}

// reason is why the child has ended.
func (p *Pipeline) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// read takes what the child sends, until it ends.
func (p *Pipeline) read() {
	defer close(p.over)
	r := newReceiver(p.proc.conn)
	var err error
	for err == nil {
		var id string
		id, b, m, e := r.next()
		switch {
		case e != nil:
			err = e
		case b != nil:
			latest := media.Now() + aheadMost
			for _, t := range []*time.Duration{&b.Capture, &b.Encoding, &b.Encoded, &b.Arrived} {
				*t = min(*t, latest) // what follows in the ring is later
			}
			p.sink.Deliver(id, b)
		default:
			err = p.take(m)
		}
		p.heard.Store(true)
	}
	if errors.Is(err, errWire) || errors.Is(err, errFlood) {
		p.kill(err.Error())
	}
	p.ended(err, p.proc.end(exitTimeout))
}

// take takes an event or an answer. The error, errWire or errFlood, is its end.
func (p *Pipeline) take(m *message) error {
	cost := 1
	switch m.Do {
	case doDescribe, doEnded:
		cost = toldCost
	case doLog: // has a limit of its own
		cost = 0
	}
	if !p.events.AllowN(time.Now(), cost) {
		return errFlood
	}
	switch m.Do {
	case doAnswer:
		p.mu.Lock()
		answer := p.calls[m.N]
		delete(p.calls, m.N)
		p.mu.Unlock()
		if answer != nil {
			answer <- m.Error.err()
		}
	case doDescribe:
		if m.Track != nil && fmtp.MatchString(m.Track.Fmtp) {
			p.sink.Describe(m.ID, *m.Track)
		}
	case doDropped:
		if m.Count < 0 || m.Count > mostDropped {
			return fmt.Errorf("%w: %d frames were dropped", errWire, m.Count)
		}
		p.sink.Dropped(m.ID, m.Count)
	case doEnded:
		p.sink.Ended(m.ID, told(m.Error))
	case doFail:
		p.sink.Fail(told(m.Error))
	case doPulse:
		p.rss.Store(m.RSS)
		p.cpu.Store(int64(m.CPU))
		if p.memory > 0 && m.RSS > p.memory {
			p.kill(fmt.Sprintf("it occupies %d MB of memory, and worker.memory allows %d", m.RSS>>20, p.memory>>20))
		}
	case doLog:
		if m.Log != nil {
			m.Log.write(p.talk)
		}
	}
	return nil
}

// told is an error that is there.
func told(f *fault) error {
	if f == nil {
		return errors.New("no reason is known")
	}
	return f
}

// ended tells everyone that the child has ended, and how. read is what ended the
// reading of its socket.
func (p *Pipeline) ended(read error, how string) {
	p.out.close(0)
	p.launcher.forget(p)
	held := !p.proc.ended()
	p.mu.Lock()
	switch {
	case p.killed != "" && held:
		how = "was killed: " + p.killed + ", and " + how
	case p.killed != "":
		how = "was killed: " + p.killed
	}
	p.failure = fmt.Errorf("the pipeline's process %s", how)
	for n, answer := range p.calls {
		answer <- p.failure
		delete(p.calls, n)
	}
	tell, asked := p.launched && !p.closing, p.closing && p.killed == ""
	p.mu.Unlock()
	if asked && !held {
		return
	}
	p.log.Error("pipeline process ended", "feed", p.feed, "reason", how, "socket", read)
	crash := Crash{Time: time.Now(), Stream: p.name, Feed: p.feed, Reason: how, Words: p.proc.tail.String()}
	p.launcher.note(crash)
	if tell {
		p.sink.Fail(p.failure)
	}
	if crashed := p.launcher.Crashed; crashed != nil {
		crashed(crash)
	}
}

// watch kills a child that is silent. It counts looks rather than time: a gateway
// that was itself stopped, or whose machine slept, has heard nothing either.
func (p *Pipeline) watch() {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for silent := 0; ; silent++ {
		select {
		case <-p.over:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		most := silence
		if !p.launched {
			most = startSilence
		}
		p.mu.Unlock()
		if p.heard.Swap(false) {
			silent = -1
		} else if silent >= most {
			p.kill(fmt.Sprintf("it told nothing for %s", time.Duration(most)*pulseEvery))
			return
		}
	}
}
