package worker

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxEnquiry is how many bytes a question or an answer may have: the pictures of a
// keyframe and what is made of them are the largest.
const maxEnquiry = 32 << 20

// maxSays is how many bytes what a process says of itself may have.
const maxSays = 4 << 10

// enquiry is a question on its way to the child, or an answer on its way back.
type enquiry struct {
	ID       uint64          `json:"id"` // 0: what the child says of itself when it begins
	Question string          `json:"question,omitempty"`
	Body     json.RawMessage `json:"body,omitempty"`    // of the question or of the answer
	Error    string          `json:"error,omitempty"`   // why there is no answer
	Unsound  bool            `json:"unsound,omitempty"` // something hangs in the child: it should be asked nothing more
	Hangs    bool            `json:"hangs,omitempty"`   // it is what this question was about
}

// asked is a process that answers questions.
type asked struct {
	owner *Asker
	child *process

	wedged bool // it can't be killed and holds no slot; guarded by owner.mu

	write sync.Mutex // held to write a question

	mu      sync.Mutex // guards below
	began   bool       // it has said so
	last    uint64     // question's number
	open    map[uint64]*question
	idle    *time.Timer // runs while nothing is open
	retired bool        // it is asked no more
	late    string      // the question for which it was killed
}

// question is one that is asked.
type question struct {
	name     string
	argument []byte
	limit    *time.Timer
	done     chan struct{} // closed when there is an answer; what follows is set by then
	body     json.RawMessage
	err      error
}

func (q *question) wait(ctx context.Context) (json.RawMessage, error) {
	select {
	case <-q.done:
		return q.body, q.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", q.name, ctx.Err())
	}
}

func (q *question) answer(body json.RawMessage, err error) {
	q.limit.Stop()
	q.body, q.err = body, err
	close(q.done)
}

// ask sends a question; nil when the process takes no more.
func (p *asked) ask(name string, body []byte) *question {
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		return nil
	}
	if p.idle != nil {
		p.idle.Stop()
	}
	p.last++
	id, q := p.last, &question{name: name, argument: body, done: make(chan struct{})}
	limit := p.owner.limit
	if !p.began {
		limit += beginLimit
	}
	q.limit = time.AfterFunc(limit, func() { p.tooLate(id) })
	p.open[id] = q
	p.mu.Unlock()
	go func() { // who asks waits for no longer than it wants to
		p.write.Lock()
		defer p.write.Unlock()
		// a child that doesn't read is killed when the answer is due, which ends the write
		if err := writeEnquiry(p.child.conn, &enquiry{ID: id, Question: name, Body: body}); err != nil {
			p.kill() // read sees its end
		}
	}()
	return q
}

// tooLate kills the process for a question that is still open.
func (p *asked) tooLate(id uint64) {
	p.mu.Lock()
	q := p.open[id]
	if q != nil {
		if p.late == "" {
			p.late = q.name
		}
		q.err = &DeathError{Question: q.name, mine: true} // its reason is read's to add
		p.retired = true
		p.owner.refuse(q.name, q.argument, p)
		p.kill()
	}
	p.mu.Unlock()
	if q != nil {
		p.owner.leave(p)
	}
}

// kill ends the process at once, or gives it up.
func (p *asked) kill() {
	p.owner.kill(p.child)
	time.AfterFunc(p.owner.grace, p.giveUp)
}

// giveUp answers what waits for a process that doesn't die: a driver holds it.
func (p *asked) giveUp() {
	select {
	case <-p.child.done:
		return // read answers
	default:
	}
	p.mu.Lock()
	open := p.open // read, which ends with the connection, has no better answer
	p.open = nil
	p.mu.Unlock()
	p.child.conn.Close() // ends a write that blocks, and read's reading
	p.owner.wedge(p)
	p.fail(open, "hangs and can't be killed: a driver holds it")
}

// fail answers questions with the process's end.
func (p *asked) fail(open map[uint64]*question, reason string) {
	p.mu.Lock()
	began := p.began
	p.mu.Unlock()
	for _, q := range open {
		died := &DeathError{Question: q.name, Reason: reason}
		if mine := (*DeathError)(nil); errors.As(q.err, &mine) {
			died.mine = mine.mine
		}
		if began {
			q.answer(nil, died)
		} else { // it has read no question
			q.answer(nil, fmt.Errorf("%w: %w", ErrUnasked, died))
		}
	}
}

// retire has the process end once its open questions are answered.
func (p *asked) retire() {
	p.owner.leave(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = true
	p.endIfIdle()
}

// endIfIdle has a retired process end when nothing is open. The caller holds mu.
func (p *asked) endIfIdle() {
	if !p.retired || len(p.open) > 0 {
		return
	}
	p.child.conn.Close() // it reads that as its end
	if p.idle != nil {
		p.idle.Stop()
	}
	p.idle = time.AfterFunc(p.owner.grace, p.kill)
}

// read takes the answers until the process ends.
func (p *asked) read() {
	var fault error
	for fault == nil {
		var m enquiry
		if fault = readEnquiry(p.child.conn, &m); fault == nil {
			fault = p.take(&m)
		}
	}
	p.mu.Lock()
	retired := p.retired && len(p.open) == 0 // it ends by itself, or by the timer
	p.retired = true
	p.mu.Unlock()
	p.owner.leave(p)
	if !retired {
		if errors.Is(fault, io.EOF) { // it is at its end: what it dies of is worth the wait
			kill := time.AfterFunc(p.owner.grace, p.kill)
			defer kill.Stop()
		} else {
			p.kill()
		}
	}
	<-p.child.done
	p.child.conn.Close()
	p.mu.Lock()
	if p.idle != nil {
		p.idle.Stop()
	}
	open, late := p.open, p.late
	p.open = nil
	p.mu.Unlock()
	p.owner.ended(p)
	reason := deathReason(p.child.cmd.ProcessState, p.child.tail.String())
	if late != "" {
		reason = fmt.Sprintf("was killed: it had no answer to %q within %v", late, p.owner.limit)
	}
	p.fail(open, reason)
}

// take gives an answer to who asked.
func (p *asked) take(m *enquiry) error {
	if m.ID == 0 {
		return p.begun(string(m.Body))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.open[m.ID]
	if q == nil {
		return fmt.Errorf("an answer to no question: %d", m.ID)
	}
	delete(p.open, m.ID)
	var err error
	if m.Error != "" {
		err = errors.New(m.Error)
	}
	if m.Unsound && m.Hangs {
		p.owner.refuse(q.name, q.argument, p)
	}
	q.answer(m.Body, err)
	if m.Unsound {
		p.retired = true
		defer p.owner.leave(p)
	}
	if len(p.open) == 0 {
		if p.idle != nil {
			p.idle.Stop()
		}
		p.idle = time.AfterFunc(p.owner.idle, p.retireIfIdle)
	}
	p.endIfIdle()
	return nil
}

// begun gives the questions that wait for the process to begin their time, once.
func (p *asked) begun(says string) error {
	p.mu.Lock()
	if p.began || len(says) > maxSays {
		p.mu.Unlock()
		return errors.New("it has begun before")
	}
	p.began = true
	for _, q := range p.open {
		q.limit.Reset(p.owner.limit)
	}
	p.mu.Unlock()
	if p.owner.Began != nil {
		p.owner.Began(says)
	}
	return nil
}

// retireIfIdle ends a process that is asked nothing for a while.
func (p *asked) retireIfIdle() {
	p.mu.Lock()
	busy := len(p.open) > 0
	p.retired = p.retired || !busy
	p.endIfIdle()
	p.mu.Unlock()
	if !busy {
		p.owner.leave(p)
	}
}

// writeEnquiry writes a message with its length before it, in one write.
func writeEnquiry(w io.Writer, m *enquiry) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxEnquiry {
		return fmt.Errorf("message of %d bytes", len(body))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// readEnquiry reads what writeEnquiry wrote.
func readEnquiry(r io.Reader, m *enquiry) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxEnquiry {
		return fmt.Errorf("message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, m)
}
