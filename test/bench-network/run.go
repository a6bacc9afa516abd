package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gateway/test/impair"
	"gateway/test/rig"
)

// bench is what is to be run.
type bench struct {
	seed          uint64
	width, height int    // of the picture
	trace         string // folder for the time series; empty: none
	log           io.Writer
}

// entrant is a contender with a kind of viewer.
type entrant struct{ contender, viewer string }

func (e entrant) String() string {
	if e.viewer == "chromium" {
		return e.contender
	}
	return e.contender + ", " + e.viewer
}

// run runs a case once.
func (b *bench) run(ctx context.Context, c oneCase, e entrant) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.lasts()+2*time.Minute)
	defer cancel()
	n, err := impair.New(ctx, 1, b.seed)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s, err := contenders[e.contender](ctx, n, fmt.Sprintf(pipeline, b.width, b.height), b.log)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	client := n.Clients[0]
	client.Down.Set(c.phases[0].Settings)
	client.Up.Set(up(c.phases[0].Settings))
	meter := impair.NewMeter(client.Down)
	w, err := watch(ctx, client, s, e.viewer)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, w.close()) }()

	r := &ran{oneCase: c, begun: time.Now()}
	t := &trace{begun: r.begun}
	playing, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	wait.Go(func() {
		impair.Play(playing, client.Down, c.script(), func(to impair.Change) { client.Up.Set(up(to.Settings)) })
	})
	wait.Go(func() { t.follow(playing, s.state) })
	if c.tcp {
		wait.Go(func() {
			begin := r.begun.Add(c.phases[0].lasts)
			if err := compete(playing, n, begin, begin.Add(c.phases[1].lasts)); err != nil {
				fmt.Fprintln(os.Stderr, "bench-network: tcp:", err)
			}
		})
	}
	if err := sleep(ctx, joining); err != nil {
		return f, err
	}
	if err := w.mark(ctx); err != nil {
		return f, err
	}
	if err := sleep(ctx, time.Until(r.begun.Add(c.lasts()))); err != nil {
		return f, err
	}
	r.ended = time.Now()
	v, err := w.view(ctx)
	if err != nil {
		return f, err
	}
	r.viewed, r.records = *v, meter.Records(r.begun, r.ended)
	if b.trace != "" {
		name := strings.NewReplacer(" ", "", ",", "-").Replace(c.name + "-" + e.String())
		if err := t.write(filepath.Join(b.trace, name+".tsv"), r); err != nil {
			return f, err
		}
	}
	return r.figures(), nil
}

func watch(ctx context.Context, c *impair.Client, s *server, viewer string) (watcher, error) {
	if viewer == "pion" {
		return watchByPion(ctx, c, s.whep)
	}
	return watchByChromium(ctx, c, s.page)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compete sends as much as TCP does to the first client, for a time.
func compete(ctx context.Context, n *impair.Network, from, to time.Time) error {
	if sleep(ctx, time.Until(from)) != nil {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, to)
	defer cancel()
	var listener net.Listener
	err := n.Server.Do(func() (err error) {
		listener, err = net.Listen("tcp4", impair.ServerIP+":0")
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := n.Clients[0].Dial(ctx, "tcp4", listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	sender, err := listener.Accept()
	if err != nil {
		return err
	}
	defer sender.Close()
	stop := context.AfterFunc(ctx, func() {
		sender.(*net.TCPConn).SetLinger(0) // what is queued goes with it
		sender.Close()
		conn.Close()
	})
	defer stop()
	go io.Copy(io.Discard, conn)
	b := make([]byte, 16<<10)
	for {
		if _, err := sender.Write(b); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// trace is what a gateway told while a case ran.
type trace struct {
	begun  time.Time
	mu     sync.Mutex // guards states
	states []stated
}

type stated struct {
	at time.Time
	state
}

func (t *trace) follow(ctx context.Context, tell func(context.Context) (state, error)) {
	if tell == nil {
		return
	}
	for sleep(ctx, 200*time.Millisecond) == nil {
		s, err := tell(ctx)
		if err != nil {
			continue // it is a bench of the network, not of this
		}
		t.mu.Lock()
		t.states = append(t.states, stated{time.Now(), s})
		t.mu.Unlock()
	}
}

// write writes when the run began, in Unix milliseconds, and a line for each 200 ms: seconds, then kbit/s of the link, of what was
// sent, of media that arrived, the longest wait in ms, packets dropped and lost,
// frames shown and by how many ms
// the last of them was later than the fastest of all, and what the gateway told: its estimate and target in kbit/s, and why.
func (t *trace) write(path string, r *ran) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintln(f, "begun", r.begun.UnixMilli())
	fmt.Fprintln(f, "s\tlink\tsent\tmedia\trtx\tqueue\tdropped\tlost\tframes\tlate\testimate\ttarget\treason")
	lateness, fastest := r.lateness()
	const step = 200 * time.Millisecond
	t.mu.Lock()
	defer t.mu.Unlock()
	states := t.states
	for at := r.begun; at.Before(r.ended); at = at.Add(step) {
		var again, dropped, gone, frames int
		var wait time.Duration
		end := at.Add(step)
		for i := range r.records {
			p := &r.records[i]
			if p.Came.Before(at) || !p.Came.Before(end) {
				continue
			}
			wait = max(wait, p.Waited)
			switch {
			case p.Fate == impair.Dropped:
				dropped++
			case p.Fate == impair.Lost:
				gone++
			}
			if p.RTP && p.SSRC != r.ssrc {
				again += p.Size
			}
		}
		late := 0.0
		for _, s := range r.frames {
			if !s.at.Before(at) && s.at.Before(end) {
				frames += 1 + s.missed
				late = max(late, lateness(s)-fastest)
			}
		}
		for len(states) > 1 && !states[1].at.After(end) {
			states = states[1:]
		}
		var s state
		if len(states) > 0 {
			s = states[0].state
		}
		fmt.Fprintf(f, "%.1f\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t%d\t%.0f\t%d\t%d\t%s\n", at.Sub(r.begun).Seconds(), r.rate(at)/1000, r.sent(at, end)/1000,
			r.delivered(at, end)/step.Seconds()/1000, float64(again*8)/step.Seconds()/1000, ms(wait), dropped, gone, frames, late, s.estimate/1000, s.target/1000, s.reason)
	}
	return f.Close()
}

// rate is the link's at a time.
func (r *ran) rate(at time.Time) int {
	end := r.begun
	for _, p := range r.phases {
		if end = end.Add(p.lasts); at.Before(end) {
			return p.Rate
		}
	}
	return 0
}

// ready makes sure that the gateway's binary is built before the clock runs.
func ready() error {
	_, err := rig.Binary()
	return err
}
