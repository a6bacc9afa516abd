package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	mostAsked   = 8                // processes at a time, those included that don't die
)

// ErrClosed says that an Asker was closed.
var ErrClosed = errors.New("no more questions: the gateway stops")

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
// only the one that crashes that too fails. Its methods may be called from any
// goroutine.
type Asker struct {
	AskOptions
	limit, idle time.Duration // askLimit, idleTime; tests have less of them

	slots chan struct{} // holds one for each process
	start sync.Mutex    // held to start the one that all share

	mu     sync.Mutex // guards below
	shared *asked     // takes questions; nil: none
	all    map[*asked]struct{}
	closed bool
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
	return &Asker{AskOptions: o, limit: askLimit, idle: idleTime, slots: make(chan struct{}, mostAsked), all: make(map[*asked]struct{})}
}

// Ask has a question answered, with an argument and into an answer that are carried
// as JSON. It blocks for 15 s at most, a minute more where the process begins, and
// for as long again after a crash; when ctx is done first, the answer is forgotten.
// What the answerer says is wrong is the error, in its words; that the process
// died, or was killed because it gave no answer in time, is a *DeathError.
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
			return nil, err
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
		return nil, err
	}
	q := p.ask(question, body)
	p.retire()
	if q == nil {
		return nil, &DeathError{Question: question, Reason: "ended as it began"}
	}
	return q.wait(ctx)
}

// take returns the process that takes questions, and starts it if there is none.
func (a *Asker) take(ctx context.Context) (*asked, error) {
	a.start.Lock()
	defer a.start.Unlock()
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
		return nil, errors.New("the processes that were asked haven't ended: a driver holds them")
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
		child.kill()
		<-child.done
		return nil, ErrClosed
	}
	return p, nil
}

// ended forgets a process.
func (a *Asker) ended(p *asked) {
	a.leave(p)
	a.mu.Lock()
	delete(a.all, p)
	a.mu.Unlock()
	<-a.slots
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
	a.closed = true
	var all []*asked
	for p := range a.all {
		all = append(all, p)
	}
	a.mu.Unlock()
	for _, p := range all {
		p.child.kill()
	}
	late := time.NewTimer(endTime)
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
