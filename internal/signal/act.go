package signal

import (
	"context"
	"errors"

	"gateway/internal/contain"
)

// receive acts on a client's message, which came by a socket. The error is for the
// client. ctx bounds the wait, not the work.
func (x *session) receive(ctx context.Context, c *socket, m request) error {
	switch {
	case m.Session != "" && m.Session != x.id:
		x.out.count(c)
		return refuse(badState, "session is another's, or over")
	}
	_, err := call(ctx, x, func(ctx context.Context) (none, error) {
		if !x.out.count(c) {
			return none{}, errGone
		}
		return none{}, x.act(ctx, m)
	})
	var left departure
	if errors.As(err, &left) {
		return nil // the session says it
	}
	return err
}

// act is receive on the session's goroutine.
func (x *session) act(ctx context.Context, m request) error {
	switch {
	case m.RoomID != "" && m.RoomID != x.room && m.Type != "join":
		return refuse(badState, "this session is in room %q", x.room)
	case m.Type == "message", m.Target != "" && relays[m.Type]:
		return x.relay(m)
	case deeds[m.Type]:
		return x.deed(m)
	case m.Target != "":
		return refuse(badState, "%s has no target", m.Type)
	}
	switch m.Type {
	case "answer":
		return x.answer(ctx, m.SDP)
	case "ice-candidate":
		if m.Connection != "" {
			return x.publishedCandidate(m.Candidate)
		}
		return x.candidate(m.Candidate)
	case "offer":
		return x.publish(ctx, m)
	case "unpublish":
		return x.unpublish(m)
	case "restart-ice":
		if x.viewer == nil {
			return refuse(badState, "nothing was offered yet")
		}
		return x.offer(ctx, nextOffer{restartICE: true, requestID: m.RequestID})
	case "watch":
		return x.watch(ctx, m)
	case "unwatch":
		return x.unwatch(ctx, m)
	case "select", "view", "report":
		w, err := x.watching(m.Stream)
		if err != nil {
			return err
		}
		return w.act(ctx, m)
	case "observe":
		x.observe(m.On)
		return nil
	case "open-data":
		return x.openData(ctx, m.RequestID)
	case "token":
		return x.renew(ctx, m)
	case "leave":
		x.request = m.RequestID
		return leaves
	}
	return refuse(badState, "%s doesn't fit now", m.Type)
}

// none is the result of a call that has none.
type none struct{}

// call has f done on the session's goroutine and waits for its result. It
// returns errGone when the session has ended.
func call[T any](ctx context.Context, x *session, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	results := make(chan result, 1)
	do := func(ctx context.Context) (err error) {
		defer contain.Panic(x.log, "session", func(e error) { // who waits hears of it too
			err = e
			results <- result{zero, e}
		})
		v, err := f(ctx)
		if err != nil && ctx.Err() != nil {
			err = errGone
		}
		results <- result{v, err}
		return err
	}
	select {
	case x.calls <- do:
	case <-x.done:
		return zero, errGone
	case <-ctx.Done():
		return zero, ctx.Err()
	}
	select {
	case r := <-results: // run does what it has taken
		return r.value, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}
