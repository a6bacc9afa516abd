package signal

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"gateway/internal/media"
	"gateway/internal/rtc"
)

// Publisher is what is known of one who publishes.
type Publisher struct {
	User    string           `json:"user"` // the userId of the protocol
	Kind    string           `json:"kind"` // how it signals: ws, whip
	State   string           `json:"state"`
	RTT     float64          `json:"rttMs"`   // of ICE's checks; 0: unknown
	Dropped uint64           `json:"dropped"` // packets over the limits, or of no track
	Streams []PublishedState `json:"streams"`
}

// PublishedState is one stream of a publisher.
type PublishedState struct {
	Name   string           `json:"name"`
	Tracks []PublishedTrack `json:"tracks"`
}

// PublishedTrack is what comes of one track. Times are in milliseconds.
type PublishedTrack struct {
	Name             string      `json:"name"`
	Codec            media.Codec `json:"codec"`
	Packets          uint64      `json:"packets"` // without those that were sent again
	Reordered        uint64      `json:"reordered"`
	Missing          uint64      `json:"missing"`  // noticed, with those that were only late
	Repaired         uint64      `json:"repaired"` // came again in time
	Lost             uint64      `json:"lost"`     // given up
	KeyframeRequests uint64      `json:"keyframeRequests"`
	Jitter           float64     `json:"jitterMs"`
	RTT              float64     `json:"rttMs"`   // that a repair takes; 0: unknown
	Depth            float64     `json:"depthMs"` // how long a missing packet is waited for
	Held             float64     `json:"heldMs"`  // how long one has been waited for just now
}

// Publishers lists who publishes in a room, in the order in which they came. It waits
// for those who are just negotiating, 2 s at most; who doesn't answer is left out.
func (s *Server) Publishers(ctx context.Context, room string) []Publisher {
	ctx, cancel := context.WithTimeout(ctx, viewersTimeout)
	defer cancel()
	s.mu.Lock()
	var sessions []*session
	for _, x := range s.sessions {
		if x.up.on.Load() {
			sessions = append(sessions, x)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(sessions, func(a, b *session) int { return cmp.Or(a.began.Compare(b.began), cmp.Compare(a.user, b.user)) })
	found := make([]*Publisher, len(sessions))
	var wait sync.WaitGroup
	for i, x := range sessions {
		wait.Go(func() {
			found[i], _ = call(ctx, x, func(context.Context) (*Publisher, error) { return x.describePublisher(room), nil })
		})
	}
	wait.Wait()
	list := []Publisher{} // [], not null
	for _, p := range found {
		if p != nil {
			list = append(list, *p)
		}
	}
	return list
}

// describePublisher is the session as Publishers tells it, on the session's
// goroutine; nil if it publishes nothing in that room.
func (x *session) describePublisher(room string) *Publisher {
	if x.up.publisher == nil || x.room != room {
		return nil
	}
	stats := x.up.publisher.Stats()
	p := &Publisher{
		User: x.user, Kind: x.kind, State: stats.State.String(), RTT: milliseconds(stats.RTT), Dropped: stats.Dropped,
		Streams: []PublishedState{},
	}
	for _, one := range x.up.streams {
		s := PublishedState{Name: one.name, Tracks: []PublishedTrack{}}
		for _, l := range stats.Layers {
			if one.Mids == nil || slices.Contains(one.Mids, l.Mid) {
				s.Tracks = append(s.Tracks, describeLayer(l))
			}
		}
		p.Streams = append(p.Streams, s)
	}
	return p
}

func describeLayer(l rtc.LayerStats) PublishedTrack {
	return PublishedTrack{
		Name: trackName(rtc.Incoming{Kind: l.Kind}, l.Layer), Codec: l.Codec, Packets: l.Packets, Reordered: l.Reordered,
		Missing: l.Missing, Repaired: l.Repaired, Lost: l.Lost, KeyframeRequests: l.KeyframeRequests,
		Jitter: milliseconds(l.Jitter), RTT: milliseconds(l.RTT), Depth: milliseconds(l.Depth), Held: milliseconds(l.Held),
	}
}
