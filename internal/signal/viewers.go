package signal

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"gateway/internal/media"
)

// viewersTimeout is how long Viewers waits for a session that is busy.
const viewersTimeout = 2 * time.Second

// Viewer is what is known of one who watches.
type Viewer struct {
	User      string   `json:"user"`                // the userId of the protocol
	Kind      string   `json:"kind"`                // how it signals: ws, whep
	Since     int64    `json:"since"`               // Unix milliseconds
	State     string   `json:"state"`               // RTCPeerConnectionState
	Rendition string   `json:"rendition"`           // what is sent
	Selected  string   `json:"selected"`            // a rendition, or auto
	Loss      float64  `json:"loss"`                // share of packets lost lately, 0 to 1
	RoundTrip *float64 `json:"roundTrip,omitempty"` // milliseconds
	Latency   *Latency `json:"latency,omitempty"`   // while its page shows it
}

// Viewers lists who watches a stream, in the order in which they came. It waits
// for those who are just negotiating, 2 s at most; who doesn't answer is left out.
func (s *Server) Viewers(ctx context.Context, stream string) []Viewer {
	ctx, cancel := context.WithTimeout(ctx, viewersTimeout)
	defer cancel()
	s.mu.Lock()
	var sessions []*session
	for _, x := range s.sessions {
		if x.stream.Name() == stream {
			sessions = append(sessions, x)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(sessions, func(a, b *session) int { return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.user, b.user)) })

	found := make([]*Viewer, len(sessions))
	var wait sync.WaitGroup
	for i, x := range sessions {
		wait.Go(func() {
			if v, err := call(ctx, x, func(context.Context) (Viewer, error) { return x.describe(), nil }); err == nil {
				found[i] = &v
			}
		})
	}
	wait.Wait()
	list := []Viewer{} // [], not null
	for _, v := range found {
		if v != nil {
			list = append(list, *v)
		}
	}
	return list
}

// describe is the session as Viewers tells it, on the session's goroutine.
func (x *session) describe() Viewer {
	v := Viewer{
		User: x.user, Kind: x.kind, Since: x.began.UnixMilli(), State: "new",
		Rendition: x.playing, Selected: x.selected, Latency: x.ledger.latency(media.Now()),
	}
	if x.viewer != nil {
		stats := x.viewer.Stats()
		v.State, v.Loss = stats.State.String(), stats.Loss
		if stats.RTT > 0 {
			ms := milliseconds(stats.RTT)
			v.RoundTrip = &ms
		}
	}
	return v
}
