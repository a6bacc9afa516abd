package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
	"gateway/test/traffic"
)

// Sender is the process that is measured. It serves net/rpc.
type Sender struct {
	variant
	recording  *traffic.Recording
	rss        int // before the first viewer
	goroutines int
}

// variant is a way to send.
type variant interface {
	// answer takes a viewer's offer.
	answer(ctx context.Context, offer string) (string, error)
	// send sends a buffer to all viewers, or has it sent.
	send(b *traffic.Buffer, capture time.Duration)
	// counts are the totals until now.
	counts() (Counts, error)
}

// Counts are what a variant has sent.
type Counts struct {
	Packets  uint64 // to all viewers
	Segments uint64 // of these, in messages with UDP_SEGMENT
	Messages uint64 // with UDP_SEGMENT
}

// StartArgs say what to be.
type StartArgs struct {
	Variant   string
	Speed     float64  // at which Measure plays: the track's bitrate is as much higher
	Recording string   // file
	To        []string // addresses of the receivers, for one that takes no offers
}

// Start makes the variant; url is where it takes offers, empty if it takes none.
func (s *Sender) Start(a StartArgs, url *string) (err error) {
	if s.recording, err = traffic.Load(a.Recording); err != nil {
		return err
	}
	s.recording.Track.Bps = int(a.Speed * float64(s.recording.Track.Bps))
	switch a.Variant {
	case "pion":
		s.variant, err = newPion()
	case "ours":
		s.variant, err = newOurs(s.recording.Track, false)
	case "lite":
		s.variant, err = newOurs(s.recording.Track, true)
	case "bare":
		s.variant, err = newBare(a.To)
	default:
		err = fmt.Errorf("there is no variant %q", a.Variant)
	}
	if err != nil {
		return err
	}
	if len(a.To) == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*url = "http://" + l.Addr().String() + "/whep"
		go http.Serve(l, http.HandlerFunc(s.whep))
	}
	runtime.GC()
	debug.FreeOSMemory()
	u, err := rig.UsageOf(unix.Getpid())
	s.rss, s.goroutines = u.RSS, runtime.NumGoroutine()
	return err
}

func (s *Sender) whep(w http.ResponseWriter, r *http.Request) {
	offer, err := io.ReadAll(r.Body)
	if err == nil {
		var answer string
		if answer, err = s.answer(r.Context(), string(offer)); err == nil {
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, answer)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// MeasureArgs say for how long.
type MeasureArgs struct {
	Span  time.Duration
	Speed float64
}

// Measured is what came of it.
type Measured struct {
	Idle, Busy Spent  // in the span without traffic (projected) and with it
	Packets    uint64 // sent in the span
	Sent       uint64 // since the start
	Segments   uint64 // likewise
	Messages   uint64 // likewise
	RSS        int    // bytes more than before the first viewer
	Goroutines int    // more
}

// Spent is what a process spends.
type Spent struct {
	CPU     time.Duration // user and system
	Mallocs uint64
}

const (
	maxIdle = 4 * time.Second // a stream that yields nothing for longer counts as frozen
	warmUp  = 3 * time.Second
)

// Measure measures first without traffic, then with it.
func (s *Sender) Measure(a MeasureArgs, m *Measured) error {
	idle := min(a.Span, maxIdle)
	spent, err := during(func() { time.Sleep(idle) })
	if err != nil {
		return err
	}
	scale := a.Span.Seconds() / idle.Seconds()
	m.Idle = Spent{time.Duration(scale * float64(spent.CPU)), uint64(scale * float64(spent.Mallocs))}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	played := make(chan struct{})
	go func() {
		defer close(played)
		s.recording.Play(ctx, a.Speed, s.send)
	}()
	time.Sleep(warmUp)
	before, err := s.counts()
	if err != nil {
		return err
	}
	m.Busy, err = during(func() { time.Sleep(a.Span) })
	if err != nil {
		return err
	}
	after, err := s.counts()
	if err != nil {
		return err
	}
	usage, err := rig.UsageOf(unix.Getpid())
	m.RSS, m.Goroutines = usage.RSS-s.rss, runtime.NumGoroutine()-s.goroutines
	stop()
	<-played
	m.Packets = after.Packets - before.Packets
	if err != nil {
		return err
	}
	return s.rest(m)
}

// rest waits until what was played has gone out, and counts it.
func (s *Sender) rest(m *Measured) error {
	for {
		c, err := s.counts()
		if err != nil || c.Packets == m.Sent {
			return err
		}
		m.Sent, m.Segments, m.Messages = c.Packets, c.Segments, c.Messages
		time.Sleep(200 * time.Millisecond)
	}
}

// during is what the process spends while f runs.
func during(f func()) (Spent, error) {
	var before, after runtime.MemStats
	var from, to unix.Rusage
	runtime.ReadMemStats(&before)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &from); err != nil {
		return Spent{}, err
	}
	f()
	if err := unix.Getrusage(unix.RUSAGE_SELF, &to); err != nil {
		return Spent{}, err
	}
	runtime.ReadMemStats(&after)
	cpu := time.Duration(to.Utime.Nano() - from.Utime.Nano() + to.Stime.Nano() - from.Stime.Nano())
	return Spent{cpu, after.Mallocs - before.Mallocs}, nil
}
