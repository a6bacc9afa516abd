package rtc

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	connectTimeout  = 30 * time.Second
	gatherTimeout   = 3 * time.Second
	maxCandidates   = 100 // of one negotiation
	maxPaired       = 32  // of these that ICE is given: what pion does for each check grows with their number
	maxWriteErrors  = 100 // in a row
	maxTracksViewer = 64  // sound and picture of 32 streams
)

// ViewerOptions are what a viewer is made of.
type ViewerOptions struct {
	ID     string
	Logger *slog.Logger // nil: the engine's
	// Elsewhere says that the peer is on another machine. It is told of no loopback
	// address, for which a browser may ask its user (Local Network Access).
	Elsewhere bool
	// OnCandidate is called with each candidate that the gateway finds, nil at
	// the end, on pion's goroutine: it must not block. Without it nothing is
	// trickled (WHEP).
	OnCandidate func(*Candidate)
	// OnState is called with each new state, one call at a time; it must not
	// block. StateClosed is the last.
	OnState func(State)
	// OnSwitch is called when the first packet of a track's encoding was sent, of
	// its first one and of each that Replace has brought. It is called on the
	// goroutine that serves other viewers too: it must not block, nor call the viewer.
	OnSwitch func(slot string, t media.Track)
	// FullICE asks for full ICE where the engine would do with less (ErrNeedsFullICE).
	FullICE bool
	// OnEstimate is called with what is known of the viewer's network, when that has
	// changed and about once a second while the peer reports. It is called on the
	// goroutines that read the network and serve other viewers: it must not block,
	// nor call the viewer.
	OnEstimate func(adapt.Estimate)
	// Succeeds is the viewer whose place this one takes at the same PeerConnection of
	// the peer: its offers have the same m-lines, without tracks until AddTrack, and
	// payload types keep their meaning. Nil: none.
	Succeeds *Viewer
	// ConnectTimeout bounds every negotiation, from Offer or Answer until the
	// peer has answered and is connected. 30 s if zero.
	ConnectTimeout time.Duration
}

// Viewer is one connection on which the gateway sends.
type Viewer struct {
	engine *Engine
	shard  *shard
	conn   connection
	log    *slog.Logger
	o      ViewerOptions
	epoch  time.Duration // Unix time at 0 of the capture clock
	done   chan struct{}
	relays *relays // nil: the peer may be anywhere

	marked   atomic.Bool // is in the shard's ready list
	paced    bool        // is in the shard's paced list; the shard's
	open     atomic.Bool // packets can be sent: connected, and ICE isn't restarting
	trip     roundTrip
	foreign  atomic.Int32
	bySSRC   sync.Map                   // uint32 → *track
	verdicts []verdict                  // of the congestion control feedback that is being read
	heard    func([]media.PacketReport) // for tests: what each transport-wide feedback tells anew

	data atomic.Pointer[dataChannels] // nil: not asked for

	negotiation // guarded by its own lock

	// sendMu guards the tracks' sending state and what follows. The shard holds it
	// for one turn. Taken after negotiation.mu.
	sendMu    sync.Mutex
	tracks    []*track // changed with negotiation.mu held too
	numbering numbering
	est       estimation
	pace      pacer // of all pictures together, where there are several
	first     int   // track that begins the next turn
	gone      bool
	batching  bool // what is written goes to the shard's batch
	observed  bool // its tracks remember frames
	failures  int
	unsent    int           // packets that found no way
	reportAt  time.Duration // of the next sender report; 0 before the first packet

	stateMu sync.Mutex    // held to change state, and while OnState is called
	state   atomic.Uint32 // State

	mu        sync.Mutex // guards what follows
	err       error
	deadline  *time.Timer // runs while a negotiation is not complete
	begun     time.Time   // first offer or answer
	connected time.Time
}

func newViewer(e *Engine, s *shard, o ViewerOptions) *Viewer {
	log := o.Logger
	if log == nil {
		log = e.log.With("viewer", o.ID)
	}
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, connectTimeout)
	v := &Viewer{
		engine: e, shard: s, log: log, o: o,
		epoch: time.Duration(time.Now().UnixNano()) - media.Now(),
		done:  make(chan struct{}),
		est:   estimation{Estimator: adapt.NewEstimator()},
	}
	if e.relayOnly {
		v.relays = &relays{}
	}
	if o.Succeeds != nil {
		v.inherit(o.Succeeds)
		v.o.Succeeds = nil
	}
	return v
}

// inherit gives a new viewer the m-lines of another.
func (v *Viewer) inherit(old *Viewer) {
	old.neg.Lock()
	defer old.neg.Unlock()
	v.known = slices.Clone(old.known)
	for _, o := range old.tracks {
		if o.mid == "" {
			continue // no peer knows of it
		}
		t := newTrack(v, o.slot, o.kind, o.streamID)
		t.inactive, t.rejected, t.offer = true, o.rejected, o.offer
		v.tracks = append(v.tracks, t)
	}
}

// refresh follows the connection's state. It is called from a goroutine for each
// change, in any order, so the state is read anew.
func (v *Viewer) refresh() {
	defer contain.Panic(v.log, "viewer", v.broke)
	v.stateMu.Lock()
	defer v.stateMu.Unlock()
	s := v.conn.state()
	if v.current() == StateClosed {
		return
	}
	if s == StateClosed {
		v.lost(ErrLeft) // unless the gateway closed it, which has set its own reason
		return
	}
	// While disconnected, go on: perhaps only the way back is broken.
	v.open.Store(s == StateConnected || s == StateDisconnected && v.open.Load())
	if s != v.current() {
		v.setState(s)
	}
	switch s {
	case StateConnected:
		v.onConnected()
		v.wake()
	case StateFailed:
		v.lost(ErrConnectionLost)
	}
}

// lost ends a viewer for a reason, or for another if it was never connected.
func (v *Viewer) lost(reason error) {
	v.mu.Lock()
	never := v.connected.IsZero()
	v.mu.Unlock()
	if never {
		reason = fmt.Errorf("connection could not be established (ICE or DTLS failed): %w", ErrConnectionLost)
	}
	v.end(reason)
}

// setState tells the new state; stateMu is held.
func (v *Viewer) setState(s State) {
	m := v.engine.metrics.viewers
	m.WithLabelValues(v.current().String()).Dec()
	if s != StateClosed {
		m.WithLabelValues(s.String()).Inc()
	}
	v.state.Store(uint32(s))
	if v.o.OnState != nil {
		v.o.OnState(s)
	}
}

// shaken tells whether the peer of a lite connection may have begun its DTLS handshake.
func (v *Viewer) shaken() bool {
	l, ok := v.conn.(*lite)
	if !ok {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shaken
}

// Lite tells whether the gateway's side of the viewer's ICE is lite.
func (v *Viewer) Lite() bool {
	_, lite := v.conn.(*lite)
	return lite
}

// ice is the gateway's side of the viewer's ICE, for a metric.
func (v *Viewer) ice() string {
	if v.Lite() {
		return "lite"
	}
	return "full"
}

func (v *Viewer) current() State { return State(v.state.Load()) }

func (v *Viewer) onConnected() {
	v.mu.Lock()
	first := v.connected.IsZero()
	if first {
		v.connected = time.Now()
		v.engine.metrics.connect.Observe(v.connected.Sub(v.begun).Seconds())
		v.engine.metrics.connected.WithLabelValues(v.ice()).Inc()
	}
	v.mu.Unlock()
	if first {
		local, remote := v.conn.pair()
		v.log.Debug("viewer is connected", "local", local, "remote", remote)
	}
	v.settle()
}

// startDeadline begins the time that a negotiation may take.
func (v *Viewer) startDeadline() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	if v.begun.IsZero() {
		v.begun = time.Now()
	}
	if v.deadline == nil {
		v.deadline = time.AfterFunc(v.o.ConnectTimeout, func() { v.end(v.missed()) })
	}
}

// missed is ErrConnectTimeout, with the reason where one is known.
func (v *Viewer) missed() error {
	if v.relays != nil && v.relays.none() {
		return fmt.Errorf("%w: viewers are let in through a TURN relay only (ice.relay_only), and the peer named none", ErrConnectTimeout)
	}
	return ErrConnectTimeout
}

// settle ends the deadline if the negotiation is complete: answered, and connected.
func (v *Viewer) settle() {
	if v.unanswered.Load() || v.conn.state() != StateConnected {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deadline != nil {
		v.deadline.Stop()
		v.deadline = nil
	}
}

// end begins the viewer's end for a reason; the first one counts. It doesn't wait.
func (v *Viewer) end(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return
	}
	v.err = err
	if v.deadline != nil {
		v.deadline.Stop()
		v.deadline = nil
	}
	if v.connected.IsZero() && err != ErrClosed {
		v.engine.metrics.failed.WithLabelValues(reason(err)).Inc()
	}
	go v.release()
}

// broke ends the viewer after a panic. It doesn't wait: a lock may be held for good.
func (v *Viewer) broke(err error) { go v.end(err) }

// release gives back all that the viewer holds.
func (v *Viewer) release() {
	defer contain.Panic(v.log, "viewer", nil)
	v.shard.remove(v)
	v.sendMu.Lock()
	v.gone = true
	tracks := v.tracks
	v.sendMu.Unlock()
	for _, t := range tracks {
		t.drop()
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := v.conn.close(); err != nil {
			v.log.Debug("connection did not close cleanly", "error", err)
		}
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		v.log.Warn("connection does not close", "waited", closeTimeout)
	}
	v.engine.forget(v)
	err := v.Err()
	v.engine.metrics.ended.WithLabelValues(reason(err)).Inc()
	v.log.Debug("viewer has ended", "reason", err)
	v.stateMu.Lock()
	v.setState(StateClosed)
	v.stateMu.Unlock()
	close(v.done)
}

// Done is closed when the viewer has ended; Err then tells why.
func (v *Viewer) Done() <-chan struct{} { return v.done }

// Err is why the viewer ended: ErrClosed after Close, ErrConnectTimeout,
// ErrConnectionLost, ErrLeft, or what broke it. Nil while it lives.
func (v *Viewer) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// Close ends the viewer and waits until its parts are released. Idempotent. It
// must not be called from OnState or OnCandidate.
func (v *Viewer) Close() error {
	v.end(ErrClosed)
	<-v.done
	return nil
}

// Stats reads the viewer's counters.
func (v *Viewer) Stats() Stats {
	var s Stats
	v.sendMu.Lock()
	s.Unsent = uint64(v.unsent)
	tracks := append([]*track(nil), v.tracks...)
	var rate uint32 // of the first video track, else of the first
	var rated *track
	for _, t := range tracks {
		if t.clock != 0 && (rated == nil || rated.kind != media.Video && t.kind == media.Video) {
			rate, rated = t.clock, t
		}
		s.Packets += t.packets
		s.Bytes += t.bytes
		s.Retransmitted += t.again
	}
	v.numbering.stats(&s, media.Now())
	s.Estimate = v.est.Estimate()
	s.Wire = uint64(v.est.wire)
	s.RTT = v.rtt(media.Now())
	v.sendMu.Unlock()
	for _, t := range tracks {
		s.Refused += t.refused.Load()
		t.mu.Lock()
		s.NACKs += t.nacks
		s.Nacked += t.asked
		s.PLIs += t.plis
		s.FIRs += t.firs
		s.Loss = max(s.Loss, t.loss)
		s.REMB = max(s.REMB, t.remb)
		if t == rated {
			s.Jitter = time.Duration(t.jitter) * time.Second / time.Duration(rate)
		}
		t.mu.Unlock()
	}
	v.mu.Lock()
	s.Connected = v.connected
	v.mu.Unlock()
	s.State = v.current()
	if !s.Connected.IsZero() { // before, pion has a data race there
		s.LocalCandidate, s.RemoteCandidate = v.conn.pair()
	}
	return s
}

// rtt is the round trip time that the receiver's reports tell; 0 while unknown.
func (v *Viewer) rtt(now time.Duration) time.Duration { return v.trip.lately(now) }
