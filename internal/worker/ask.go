package worker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// AskArgument is the second argument of a child that answers questions.
const AskArgument = "-ask"

const (
	askLimit    = 15 * time.Second // for an answer: more than any question is given by who answers it
	answerLimit = 12 * time.Second // of that, for who answers
	beginLimit  = time.Minute      // for a child to begin: plugins that are new are looked at first
	idleTime    = 10 * time.Second // that a child waits for another question
	endTime     = 2 * time.Second  // that a child has to end by itself
	mostAsked   = 8                // processes at a time
	mostWedged  = 16               // processes that can't be killed beside those: more of them count as those do
)

// Errors of an [Asker].
var (
	// ErrClosed says that an Asker was closed.
	ErrClosed = errors.New("no more questions: the gateway stops")
	// ErrUnasked says that there was no process to ask, which tells nothing of what was
	// to be asked: a later try may be answered. It is Temporary.
	ErrUnasked error = unasked{}
	// ErrHangs says that the same was asked before, and that the process which hangs over
	// it hasn't ended yet.
	ErrHangs = errors.New("a driver or a plugin hangs over it")
)

// unasked is [ErrUnasked], a type so that it can be Temporary.
type unasked struct{}

func (unasked) Error() string   { return "GStreamer can't be asked now" }
func (unasked) Temporary() bool { return true }

// AskOptions are what an [Asker] is made with.
type AskOptions struct {
	Env     []string            // "NAME=value" that its processes have beside this one's
	Confine func() *Confinement // is asked what each process may do; nil: they aren't confined
	Words   func(string)        // is given each line that they write to standard error; may be nil
	Began   func(a string)      // is given what each said of itself when it began: see [Answers]; may be nil
	Logger  *slog.Logger
}

// Asker asks questions of a process of its own, so that a driver or a plugin that
// crashes or hangs over one takes nothing else along. The process begins with the
// first question, is shared by all, and ends when there was none for ten seconds.
//
// A question is one that may be asked twice. When the process dies, each question
// that it hadn't answered is asked once more, of a process that is given no other:
// only the one that crashes that too fails. A question over which a process hangs isn't
// asked again before that process has ended, which it never does where a driver holds it
// (state D of ps): such a process takes no other's place. Its methods may be called from
// any goroutine.
type Asker struct {
	AskOptions
	limit, idle, grace time.Duration  // askLimit, idleTime, endTime; tests have less of them
	kill               func(*process) // as it says; what tests kill is held by a driver

	slots chan struct{} // holds one for each process that isn't wedged
	start chan struct{} // holds one while the process is started that all share
	over  chan struct{} // closed by Close

	mu     sync.Mutex // guards below; an asked's is locked before it
	shared *asked     // takes questions; nil: none
	all    map[*asked]struct{}
	hung   map[subject]hang // what isn't asked now
	wedged int              // of all, those that can't be killed and hold no slot
	closed bool
}

// subject is a question with its argument, as a hash.
type subject [sha256.Size]byte

func subjectOf(question string, argument []byte) subject {
	return sha256.Sum256(append([]byte(question+"\x00"), argument...))
}

// hang is a process over which a question hangs.
type hang struct {
	process *asked
	since   time.Time
}

// NewAsker returns an asker that has started nothing yet. The caller closes it.
func NewAsker(o AskOptions) *Asker {
	if words := o.Words; words != nil {
		talk := newTalk(o.Logger)
		o.Words = func(line string) {
			if talk.may() {
				words(line)
			}
		}
	}
	return &Asker{
		AskOptions: o, limit: askLimit, idle: idleTime, grace: endTime, kill: (*process).kill,
		slots: make(chan struct{}, mostAsked), start: make(chan struct{}, 1), over: make(chan struct{}),
		all: make(map[*asked]struct{}), hung: make(map[subject]hang),
	}
}

// Ask has a question answered, with an argument and into an answer that are carried
// as JSON. It blocks for 15 s at most, a minute more where the process begins, and
// for as long again after a crash; when ctx is done first, the answer is forgotten.
// What the answerer says is wrong is the error, in its words; that the process
// died, or was killed because it gave no answer in time, is a *DeathError. ErrUnasked
// and ErrHangs say that it wasn't asked.
func (a *Asker) Ask(ctx context.Context, question string, argument, answer any) error {
	alone := func(ctx context.Context, question string, body []byte) (json.RawMessage, error) {
		return a.askAlone(ctx, a.Confine, question, body)
	}
	return a.ask(ctx, a.askShared, alone, question, argument, answer)
}

// AskApart is Ask of a process that is asked nothing else, and confined as that says;
// nil: not at all.
func (a *Asker) AskApart(ctx context.Context, confine *Confinement, question string, argument, answer any) error {
	apart := func(ctx context.Context, question string, body []byte) (json.RawMessage, error) {
		return a.askAlone(ctx, func() *Confinement { return confine }, question, body)
	}
	return a.ask(ctx, apart, apart, question, argument, answer)
}

// way is how a question is asked.
type way func(ctx context.Context, question string, body []byte) (json.RawMessage, error)

func (a *Asker) ask(ctx context.Context, first, again way, question string, argument, answer any) error {
	body, err := json.Marshal(argument)
	if err != nil {
		return fmt.Errorf("question %q: %w", question, err)
	}
	if err := a.hangs(question, body); err != nil {
		return err
	}
	said, err := first(ctx, question, body)
	if died := (*DeathError)(nil); errors.As(err, &died) && !died.mine {
		a.Logger.Warn("the process that asks GStreamer died, asked again", "question", question, "err", err)
		said, err = again(ctx, question, body)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(said, answer); err != nil {
		return fmt.Errorf("answer to %q: %w", question, err)
	}
	return nil
}

// DeathError says that no answer came because of the process that was asked.
type DeathError struct {
	Question string
	Reason   string // "crashed: SIGSEGV"
	mine     bool   // it was killed because of this question
}

// Error names the question and what became of the process.
func (e *DeathError) Error() string {
	return fmt.Sprintf("the process that was asked for %q %s", e.Question, e.Reason)
}

// askShared asks the process that takes all questions.
func (a *Asker) askShared(ctx context.Context, question string, body []byte) (json.RawMessage, error) {
	for {
		p, err := a.take(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnasked, err)
		}
		if q := p.ask(question, body); q != nil {
			return q.wait(ctx)
		}
	}
}

// askAlone asks a process that is asked nothing else.
func (a *Asker) askAlone(ctx context.Context, confine func() *Confinement, question string, body []byte) (json.RawMessage, error) {
	p, err := a.begin(ctx, confine)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnasked, err)
	}
	q := p.ask(question, body)
	p.retire()
	if q == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnasked, &DeathError{Question: question, Reason: "ended as it began"})
	}
	return q.wait(ctx)
}

// take returns the process that takes questions, and starts it if there is none.
func (a *Asker) take(ctx context.Context) (*asked, error) {
	select {
	case a.start <- struct{}{}:
		defer func() { <-a.start }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.over:
		return nil, ErrClosed
	}
	a.mu.Lock()
	p := a.shared
	a.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := a.begin(ctx, a.Confine)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.shared = p
	a.mu.Unlock()
	p.mu.Lock()
	over := p.retired
	p.mu.Unlock()
	if over { // read may have left it before it was shared
		a.leave(p)
		return nil, errors.New("the process that is asked ended as it began")
	}
	return p, nil
}

// begin starts a process that is confined as that says; nil: not at all.
func (a *Asker) begin(ctx context.Context, confine func() *Confinement) (*asked, error) {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	late := time.NewTimer(a.limit)
	defer late.Stop()
	select {
	case a.slots <- struct{}{}:
	case <-late.C:
		return nil, fmt.Errorf("%d processes that were asked haven't ended: a driver holds them", len(a.slots))
	case <-a.over:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("%d processes that were asked haven't ended yet: %w", len(a.slots), ctx.Err())
	}
	var may *Confinement
	if confine != nil {
		may = confine()
	}
	child, err := spawn([]string{AskArgument}, a.Env, may, a.Words)
	if err != nil {
		<-a.slots
		return nil, err
	}
	p := &asked{owner: a, child: child, open: make(map[uint64]*question)}
	a.mu.Lock()
	a.all[p] = struct{}{}
	closed = a.closed
	a.mu.Unlock()
	go p.read()
	if closed {
		a.kill(child)
		<-child.done
		return nil, ErrClosed
	}
	return p, nil
}

// ended forgets a process.
func (a *Asker) ended(p *asked) {
	a.leave(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, p)
	maps.DeleteFunc(a.hung, func(_ subject, h hang) bool { return h.process == p })
	if p.wedged {
		a.wedged--
	} else {
		<-a.slots // its own: it doesn't wait
	}
}

// refuse has a question not asked again before a process has ended, which hangs over it.
func (a *Asker) refuse(question string, argument []byte, p *asked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hung[subjectOf(question, argument)] = hang{p, time.Now()}
}

// hangs tells whether a question is one that isn't asked now.
func (a *Asker) hangs(question string, argument []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.hung) == 0 {
		return nil
	}
	h, is := a.hung[subjectOf(question, argument)]
	if !is {
		return nil
	}
	return fmt.Errorf("%w since %s: it is asked again when process %d has ended", ErrHangs, h.since.Format(time.TimeOnly), h.process.child.pid)
}

// wedge has a process that can't be killed take no other's place. There is one for each
// question over which one hangs; beyond a bound they take places again.
func (a *Asker) wedge(p *asked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, runs := a.all[p]; !runs || p.wedged || a.wedged == mostWedged {
		return
	}
	p.wedged = true
	a.wedged++
	<-a.slots // its own: it doesn't wait
	a.Logger.Warn("a process that was asked can't be killed: a driver holds it", "process", p.child.pid)
}

// leave gives no more questions to a process.
func (a *Asker) leave(p *asked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shared == p {
		a.shared = nil
	}
}

// Renew has the next question answered by a process that begins for it, which sees
// the plugins that were installed meanwhile.
func (a *Asker) Renew() {
	a.mu.Lock()
	p := a.shared
	a.mu.Unlock()
	if p != nil {
		p.retire()
	}
}

// Close ends all processes and waits for them. Questions that aren't answered yet
// fail, and so do later ones. Idempotent.
func (a *Asker) Close() error {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.over)
	}
	var all []*asked
	for p := range a.all {
		all = append(all, p)
	}
	a.mu.Unlock()
	for _, p := range all {
		p.kill()
	}
	late := time.NewTimer(a.grace)
	defer late.Stop()
	for _, p := range all {
		select {
		case <-p.child.done:
		case <-late.C:
			return fmt.Errorf("process %d can't be killed: a driver holds it", p.child.pid)
		}
	}
	return nil
}
