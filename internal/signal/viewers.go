package signal

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// viewersTimeout is how long Viewers waits for a session that is busy.
const viewersTimeout = 2 * time.Second

// Viewer is what is known of one who watches.
type Viewer struct {
	User     string `json:"user"`     // the userId of the protocol
	Kind     string `json:"kind"`     // how it signals: ws, whep
	Since    int64  `json:"since"`    // Unix milliseconds
	State    string `json:"state"`    // RTCPeerConnectionState
	Selected string `json:"selected"` // a rendition, or auto
	quality         // and its latency while its page shows it
}

// Viewers lists who watches a stream, in the order in which they came. It waits
// for those who are just negotiating, 2 s at most; who doesn't answer is left out.
func (s *Server) Viewers(ctx context.Context, stream string) []Viewer {
	ctx, cancel := context.WithTimeout(ctx, viewersTimeout)
	defer cancel()
	s.mu.Lock()
	var sessions []*session
	for _, x := range s.sessions {
		if slices.Contains(*x.names.Load(), stream) {
			sessions = append(sessions, x)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(sessions, func(a, b *session) int { return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.user, b.user)) })

	found := make([]*Viewer, len(sessions))
	var wait sync.WaitGroup
	for i, x := range sessions {
		wait.Go(func() {
			found[i], _ = call(ctx, x, func(context.Context) (*Viewer, error) { return x.describe(stream), nil })
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

// describe is the session as Viewers tells it, on the session's goroutine; nil if it
// doesn't watch the stream any more.
func (x *session) describe(stream string) *Viewer {
	i := x.index(stream)
	if i < 0 {
		return nil
	}
	w := x.watches[i]
	v := &Viewer{User: x.user, Kind: x.kind, Since: x.began.UnixMilli(), State: "new", Selected: w.selected, quality: w.quality()}
	v.Decisions = append(v.Decisions, w.decisions...)
	if x.viewer != nil {
		v.State = x.viewer.Stats().State.String()
	}
	return v
}
