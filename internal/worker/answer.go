package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Answerer answers one question: its argument and its answer are JSON.
type Answerer func(ctx context.Context, argument json.RawMessage) (answer any, err error)

// Answer makes an answerer of a function.
func Answer[A, R any](f func(context.Context, A) (R, error)) Answerer {
	return func(ctx context.Context, body json.RawMessage) (any, error) {
		var argument A
		if err := json.Unmarshal(body, &argument); err != nil {
			return nil, err
		}
		return f(ctx, argument)
	}
}

// Answers is what a process can be asked.
type Answers struct {
	Questions map[string]Answerer
	// Begin prepares the process and says what it is, which [AskOptions].Began is
	// given. It may block for seconds.
	Begin func() string
	// Sound tells whether nothing hangs in the process; nil: nothing ever does.
	Sound func() bool
	// Hangs tells whether an error says that what was asked about hangs; nil: none does.
	Hangs func(error) bool
}

// Ask answers in this process, where questions can't be contained: see [Asker.Ask].
func (a *Answers) Ask(ctx context.Context, question string, argument, answer any) error {
	body, err := json.Marshal(argument)
	if err != nil {
		return fmt.Errorf("question %q: %w", question, err)
	}
	said := a.answer(ctx, &enquiry{Question: question, Body: body})
	if err := said.err; err != nil {
		return err
	}
	return json.Unmarshal(said.Body, answer)
}

// Serve answers what is asked over the socket that this process was started with,
// until its other end is closed. It returns the exit status, for who calls it to exit
// at once: something may hang.
func (a *Answers) Serve() (status int) {
	// whoever ends the gateway, by a Ctrl-C or as a service, ends this by it
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	conn, err := fileConn(socketFD)
	if err != nil {
		os.Stderr.WriteString("gateway: it is asked by the gateway itself\n")
		return 2
	}
	if err := a.serve(conn); err != nil {
		return 1
	}
	return 0
}

func (a *Answers) serve(conn io.ReadWriter) error {
	says := ""
	if a.Begin != nil {
		says = a.Begin()
	}
	if err := noPrograms(); err != nil {
		return err
	}
	body, err := json.Marshal(says)
	if err != nil {
		return err
	}
	if err := writeEnquiry(conn, &enquiry{Body: body}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var write sync.Mutex
	for {
		var m enquiry
		if err := readEnquiry(conn, &m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		go func() {
			ctx, done := context.WithTimeout(ctx, answerLimit)
			defer done()
			said := a.answer(ctx, &m)
			write.Lock()
			defer write.Unlock()
			if err := writeEnquiry(conn, &said.enquiry); err != nil {
				cancel() // nobody reads any more; Serve sees it
			}
		}()
	}
}

// said is an answer, with its error as it is.
type said struct {
	enquiry
	err error
}

func (a *Answers) answer(ctx context.Context, m *enquiry) said {
	out := said{enquiry: enquiry{ID: m.ID}}
	f := a.Questions[m.Question]
	var answer any
	if out.err = fmt.Errorf("nobody knows the question %q", m.Question); f != nil {
		answer, out.err = f(ctx, m.Body)
	}
	if out.err == nil {
		out.Body, out.err = json.Marshal(answer)
	}
	if out.err != nil {
		out.Error = out.err.Error()
		out.Hangs = a.Hangs != nil && a.Hangs(out.err)
		if out.Error == "" {
			out.Error = "unknown fault"
		}
	}
	out.Unsound = a.Sound != nil && !a.Sound()
	return out
}
