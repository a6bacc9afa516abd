package gateway

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"gateway/internal/stream"
)

const (
	snapshotFresh   = 3 * time.Second // a picture of a live stream is served again so long
	snapshotTimeout = 8 * time.Second // to get a keyframe, starting the capture if need be, and decode it
	snapshotWidth   = 640             // pixels
)

// snapshots keeps the last picture of each stream.
type snapshots struct {
	mu     sync.Mutex
	byName map[string]*snapshot
}

type snapshot struct {
	turn chan struct{} // holds one: who takes a picture; who comes meanwhile waits, and then has it

	// below: for whoever has the turn
	jpeg  []byte    // never changed, only replaced
	at    time.Time // of jpeg
	err   error     // why the last try failed
	tried time.Time // when
}

func (s *snapshots) of(name string) *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = make(map[string]*snapshot)
	}
	if s.byName[name] == nil {
		s.byName[name] = &snapshot{turn: make(chan struct{}, 1)}
	}
	return s.byName[name]
}

// forget drops the picture of a stream that has ended.
func (s *snapshots) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
}

// snapshot answers with a recent picture. A stream that is idle, or has ended, is shown as it
// last was; its capture is started for a picture only when there is none yet.
func (g *Gateway) snapshot(w http.ResponseWriter, r *http.Request) {
	s, ok := g.streams.Stream(r.PathValue("name"))
	if !ok {
		notFound(w, r)
		return
	}
	if err := g.offered(grantOf(r), s.Name()); err != nil {
		refuseRoom(w, r, err)
		return
	}
	state := s.Info().State
	if state == stream.Absent || state == stream.Closed {
		writeProblem(w, r, http.StatusServiceUnavailable, "no-picture", "the stream is "+string(state))
		return
	}
	jpeg, at, err := g.pictures.of(s.Name()).get(r.Context(), g.machine, s, state == stream.Idle || state == stream.Ended)
	if err != nil {
		w.Header().Set("Retry-After", "5")
		writeProblem(w, r, http.StatusServiceUnavailable, "no-picture", err.Error())
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Content-Length", strconv.Itoa(len(jpeg)))
	w.Header().Set("Last-Modified", at.UTC().Format(http.TimeFormat))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(jpeg) // a client that has gone needs no answer
}

// get returns the picture that there is, if it is recent or an old one will do, or
// takes one. It blocks until that is done or ctx is.
func (p *snapshot) get(ctx context.Context, m *machine, s *stream.Stream, old bool) ([]byte, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, time.Time{}, ctx.Err()
	}
	if p.jpeg != nil && (old || time.Since(p.at) < snapshotFresh) {
		return p.jpeg, p.at, nil
	}
	if p.err != nil && time.Since(p.tried) < snapshotFresh {
		return nil, time.Time{}, p.err // all who waited share a failure
	}
	taking, done := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout) // others may wait for it too
	defer done()
	jpeg, err := p.take(taking, m, s)
	p.err, p.tried = err, time.Now()
	if err != nil {
		return nil, time.Time{}, err
	}
	p.jpeg, p.at = jpeg, p.tried
	return p.jpeg, p.at, nil
}

func (*snapshot) take(ctx context.Context, m *machine, s *stream.Stream) ([]byte, error) {
	track, payloads, err := s.Keyframe(ctx)
	if err != nil {
		return nil, err
	}
	return m.snapshot(ctx, track.Codec, payloads, snapshotWidth)
}
