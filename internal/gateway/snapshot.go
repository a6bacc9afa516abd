package gateway

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"gateway/internal/gst"
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
	mu   sync.Mutex // held while a picture is taken: who comes meanwhile waits for it
	jpeg []byte
	at   time.Time
}

func (s *snapshots) of(name string) *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = make(map[string]*snapshot)
	}
	if s.byName[name] == nil {
		s.byName[name] = &snapshot{}
	}
	return s.byName[name]
}

// snapshot answers with a recent picture. A stream that is idle is shown as it
// last was; its capture is started for a picture only when there is none yet.
func (g *Gateway) snapshot(w http.ResponseWriter, r *http.Request) {
	s, ok := g.streams.Stream(r.PathValue("name"))
	if !ok {
		notFound(w, r)
		return
	}
	picture := g.cameras.of(s.Name())
	picture.mu.Lock()
	defer picture.mu.Unlock()
	state := s.Info().State
	if state == stream.Absent || state == stream.Closed {
		writeProblem(w, r, http.StatusServiceUnavailable, "no-picture", "the stream is "+string(state))
		return
	}
	if picture.jpeg == nil || (state != stream.Idle && time.Since(picture.at) > snapshotFresh) {
		ctx, cancel := context.WithTimeout(r.Context(), snapshotTimeout)
		defer cancel()
		jpeg, err := takeSnapshot(ctx, s)
		if err != nil {
			w.Header().Set("Retry-After", "5")
			writeProblem(w, r, http.StatusServiceUnavailable, "no-picture", err.Error())
			return
		}
		picture.jpeg, picture.at = jpeg, time.Now()
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Content-Length", strconv.Itoa(len(picture.jpeg)))
	w.Header().Set("Last-Modified", picture.at.UTC().Format(http.TimeFormat))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(picture.jpeg)
}

func takeSnapshot(ctx context.Context, s *stream.Stream) ([]byte, error) {
	track, payloads, err := s.Keyframe(ctx)
	if err != nil {
		return nil, err
	}
	return gst.Snapshot(ctx, track.Codec, payloads, snapshotWidth)
}
