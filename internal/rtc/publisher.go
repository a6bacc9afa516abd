package rtc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/contain"
	"gateway/internal/media"
)

// PublisherOptions are what a publisher is made of.
type PublisherOptions struct {
	ID        string
	Logger    *slog.Logger // nil: the engine's
	Elsewhere bool         // ViewerOptions.Elsewhere
	// OnCandidate is ViewerOptions.OnCandidate: without it an answer has all candidates.
	OnCandidate func(*Candidate)
	// OnState is called with each new state, one call at a time; it must not
	// block. StateClosed is the last.
	OnState func(State)
	// ConnectTimeout bounds every negotiation, from Answer until the peer is
	// connected. 30 s if zero.
	ConnectTimeout time.Duration
}

// Sink takes what comes on one layer of a publisher's m-line.
type Sink interface {
	// Receive takes packets in order. It is called on the goroutines that read the
	// network and must neither block nor call the publisher. The packets and their
	// payloads are the caller's again when it returns.
	Receive(packets []media.Received)
}

// Publisher is one connection on which the gateway receives. The peer makes the
// offers. pion does ICE, DTLS and SRTP; what comes by RTP goes straight from there
// to a jitter buffer for each layer, and on to the layer's sink.
//
// Goroutines: packets come on pion's SRTP goroutine of the connection, RTCP on its
// SRTCP goroutine; one of the publisher's own gives up what is missing for too long
// and sends all feedback (NACK, PLI, receiver reports, transport-wide feedback).
type Publisher struct {
	engine *Engine
	pc     *webrtc.PeerConnection
	log    *slog.Logger
	o      PublisherOptions
	done   chan struct{}
	relays *relays // nil: the peer may be anywhere

	receiving // what is received; has its own lock

	neg        sync.Mutex // held for a whole Answer; guards what follows
	ufrag      string     // the peer's, of its last offer; "" before
	sections   []string   // mids that were taken once
	held       []string   // candidates that came too early
	candidates int        // that came since the last offer
	paired     paired

	stateMu sync.Mutex    // held to change state, and while OnState is called
	state   atomic.Uint32 // State

	mu        sync.Mutex // guards what follows
	err       error
	deadline  *time.Timer // runs while a negotiation is not complete
	begun     time.Time
	connected time.Time
}

// NewPublisher makes a publisher, which counts until it is closed.
func (e *Engine) NewPublisher(o PublisherOptions) (*Publisher, error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, fmt.Errorf("engine: %w", ErrClosed)
	}
	certificate, err := e.currentCertificate()
	e.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("DTLS certificate: %w", err)
	}
	log := o.Logger
	if log == nil {
		log = e.log.With("publisher", o.ID)
	}
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, connectTimeout)
	p := &Publisher{engine: e, log: log, o: o, done: make(chan struct{})}
	p.receiving.begin(p, rand.Uint32()|1)
	if e.relayOnly {
		p.relays = &relays{}
	}
	own := e.settings
	own.SetICEUDPMux(viewerMux{e.sockets, nil, o.Elsewhere})
	own.BufferFactory = p.buffer
	own.LoggerFactory = sealedLog{pionLog{e.log}, p.end}
	own.SetSRTPReplayProtectionWindow(jitterWindow)
	if p.pc, err = e.connect(own, certificate, p.relays, p.refresh, o.OnCandidate); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		go p.pc.GracefulClose()
		return nil, fmt.Errorf("engine: %w", ErrClosed)
	}
	e.publishers[p] = struct{}{}
	e.metrics.publishers.WithLabelValues(StateNew.String()).Inc()
	go p.tend()
	return p, nil
}

func (p *Publisher) failed(err error) error {
	p.engine.metrics.failed.WithLabelValues(reason(err)).Inc()
	return err
}

// Answer takes the peer's offer, the first or another, and returns the answer and
// all that is sent from now on; m-lines that are not in the list have ended. What
// comes is dropped until Deliver says where to. Without OnCandidate it waits for
// candidates, 3 s at most. New credentials in the offer restart ICE, which must have
// begun to connect (ErrBadState). An error leaves the connection as it was, but for
// one of pion's, which ends it.
func (p *Publisher) Answer(ctx context.Context, offer string) (string, []Incoming, error) {
	p.neg.Lock()
	defer p.neg.Unlock()
	if err := p.Err(); err != nil {
		return "", nil, fmt.Errorf("publisher: %w (%w)", ErrClosed, err)
	}
	r, sends, err := parseOffer(offer)
	if err != nil {
		return "", nil, p.failed(fmt.Errorf("offer: %w", err))
	}
	if len(sends) == 0 && p.ufrag == "" {
		return "", nil, p.failed(fmt.Errorf("offer: %w: it sends neither video nor audio", ErrBadSDP))
	}
	restart := p.ufrag != "" && r.ufrag != p.ufrag
	if restart && (p.current() == StateNew || p.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering) {
		return "", nil, p.failed(fmt.Errorf("offer: %w: ICE hasn't begun yet and can't be restarted", ErrBadState))
	}
	if restart || p.ufrag == "" {
		p.startDeadline()
	}
	if r.ufrag != p.ufrag {
		p.paired = nil
		if p.relays != nil {
			p.relays.forget()
		}
	}
	r.candidates = slices.DeleteFunc(r.candidates, func(line string) bool { return !p.pairs(line) })
	text, err := p.answer(ctx, r, sends)
	if err != nil {
		p.end(fmt.Errorf("offer: %w", err))
		return "", nil, p.failed(fmt.Errorf("offer: %w", err))
	}
	p.expect(sends)
	first := p.ufrag == ""
	p.ufrag = r.ufrag
	held := p.held
	p.held, p.candidates = nil, 0
	for _, line := range held {
		if err := p.addCandidate(line); err != nil {
			p.log.Debug("candidate is not taken", "error", err)
		}
	}
	if first && p.relays == nil {
		hurry(p.pc, func() bool { return p.current() == StateConnected || p.Err() != nil })
	}
	p.settle()
	var incoming []Incoming
	for _, s := range sends {
		incoming = append(incoming, s.incoming())
	}
	return text, incoming, nil
}

// answer has pion take the offer's transport, and writes the rest of the answer.
func (p *Publisher) answer(ctx context.Context, r *remote, sends []*sending) (string, error) {
	for _, s := range sends {
		if !slices.Contains(p.sections, s.mid) {
			p.sections = append(p.sections, s.mid)
		}
	}
	var shown []*section // those that pion has seen stay
	for _, s := range r.sections {
		if s.kind() != 0 && slices.Contains(p.sections, s.mid) {
			s.receives, s.own = false, true
			shown = append(shown, s)
		}
	}
	setup := r.setup
	if setup == "" {
		setup = "actpass"
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: r.forPion(shown, setup)}); err != nil {
		return "", err
	}
	text, err := localAnswer(ctx, p.pc, p.o.OnCandidate == nil, p.log)
	if err != nil {
		return "", err
	}
	return dressAnswer(text, r, sends)
}

// AddCandidate takes a candidate of the peer, nil at the end. Candidates that
// come before the first offer are kept, 100 at most.
func (p *Publisher) AddCandidate(c *Candidate) error {
	p.neg.Lock()
	defer p.neg.Unlock()
	if err := p.Err(); err != nil {
		return fmt.Errorf("publisher: %w (%w)", ErrClosed, err)
	}
	line, err := readCandidate(c, &p.candidates)
	if line == "" || err != nil {
		return err
	}
	if p.ufrag == "" {
		p.held = append(p.held, line)
		return nil
	}
	if err := p.addCandidate(line); err != nil {
		return fmt.Errorf("%w: %v", ErrBadCandidate, err)
	}
	return nil
}

// pairs is Viewer.pairs.
func (p *Publisher) pairs(line string) bool {
	return (p.relays == nil || p.relays.take(line)) && p.paired.take(line)
}

func (p *Publisher) addCandidate(line string) error {
	if !p.pairs(line) {
		return nil // as if it had never come
	}
	return p.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: line})
}

// refresh follows the connection's state. It is called from a goroutine for each
// change, in any order, so the state is read anew.
func (p *Publisher) refresh() {
	defer contain.Panic(p.log, "publisher", p.broke)
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	s := stateOf(p.pc)
	switch {
	case p.current() == StateClosed:
		return
	case s == StateClosed:
		p.lost(ErrLeft) // unless the gateway closed it, which has set its own reason
		return
	case s != p.current():
		p.setState(s)
	}
	switch s {
	case StateConnected:
		p.mu.Lock()
		if p.connected.IsZero() {
			p.connected = time.Now()
			p.log.Debug("publisher is connected", "after", p.connected.Sub(p.begun))
		}
		p.mu.Unlock()
		p.settle()
	case StateFailed:
		p.lost(ErrConnectionLost)
	}
}

// lost ends a publisher for a reason, or for another if it was never connected.
func (p *Publisher) lost(reason error) {
	p.mu.Lock()
	never := p.connected.IsZero()
	p.mu.Unlock()
	if never {
		reason = fmt.Errorf("connection could not be established (ICE or DTLS failed): %w", ErrConnectionLost)
	}
	p.end(reason)
}

// setState tells the new state; stateMu is held.
func (p *Publisher) setState(s State) {
	m := p.engine.metrics.publishers
	m.WithLabelValues(p.current().String()).Dec()
	if s != StateClosed {
		m.WithLabelValues(s.String()).Inc()
	}
	p.state.Store(uint32(s))
	if p.o.OnState != nil {
		p.o.OnState(s)
	}
}

func (p *Publisher) current() State { return State(p.state.Load()) }

func (p *Publisher) startDeadline() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	if p.begun.IsZero() {
		p.begun = time.Now()
	}
	if p.deadline == nil {
		p.deadline = time.AfterFunc(p.o.ConnectTimeout, func() { p.end(ErrConnectTimeout) })
	}
}

// settle ends the deadline if the peer is connected.
func (p *Publisher) settle() {
	if stateOf(p.pc) != StateConnected {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deadline != nil {
		p.deadline.Stop()
		p.deadline = nil
	}
}

// end begins the publisher's end for a reason; the first one counts. It doesn't wait.
func (p *Publisher) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.err = err
	if p.deadline != nil {
		p.deadline.Stop()
		p.deadline = nil
	}
	if p.connected.IsZero() && err != ErrClosed {
		p.engine.metrics.failed.WithLabelValues(reason(err)).Inc()
	}
	go p.release()
}

// broke ends the publisher after a panic, as Viewer.broke does.
func (p *Publisher) broke(err error) { go p.end(err) }

// release gives back all that the publisher holds.
func (p *Publisher) release() {
	defer contain.Panic(p.log, "publisher", nil)
	close(p.stop)
	<-p.stopped
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := p.pc.GracefulClose(); err != nil {
			p.log.Debug("connection did not close cleanly", "error", err)
		}
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		p.log.Warn("connection does not close", "waited", closeTimeout)
	}
	p.receiving.close()
	p.engine.mu.Lock()
	delete(p.engine.publishers, p)
	p.engine.mu.Unlock()
	err := p.Err()
	p.engine.metrics.publishersEnded.WithLabelValues(reason(err)).Inc()
	p.log.Debug("publisher has ended", "reason", err)
	p.stateMu.Lock()
	p.setState(StateClosed)
	p.stateMu.Unlock()
	close(p.done)
}

// Done is closed when the publisher has ended; Err then tells why.
func (p *Publisher) Done() <-chan struct{} { return p.done }

// Err is why the publisher ended: ErrClosed after Close, ErrConnectTimeout,
// ErrConnectionLost, ErrLeft, or what broke it. Nil while it lives.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends the publisher and waits until its parts are released; nothing is handed
// to a sink afterwards. Idempotent. It must not be called from OnState, OnCandidate
// or a sink.
func (p *Publisher) Close() error {
	p.end(ErrClosed)
	<-p.done
	return nil
}
