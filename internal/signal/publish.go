package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"gateway/internal/auth"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

const (
	maxPublications = 8 // streams that one session publishes at a time
	maxLabel        = 32
	maxTitle        = 128
)

// upstream is what a session publishes, on a PeerConnection of its own. It belongs to
// the session's goroutine, but for the channels.
type upstream struct {
	candidates chan *rtc.Candidate // that the gateway has found
	states     chan rtc.State
	on         atomic.Bool    // there is a publisher, for others
	publisher  *rtc.Publisher // nil: nothing is published
	streams    []*published
	trickled   int // candidates of the client since the last offer
}

// published is one stream of a session's.
type published struct {
	publication
	stream *stream.Published
}

// ended is closed when the connection has ended; nil without one.
func (u *upstream) ended() <-chan struct{} {
	if u.publisher == nil {
		return nil
	}
	return u.publisher.Done()
}

// publish acts on a client's offer over a WebSocket: its streams are those of the
// offer from now on.
func (x *session) publish(ctx context.Context, m request) error {
	wanted := m.Publications
	if wanted == nil {
		wanted = []publication{{Label: "camera"}}
	}
	for i := range wanted {
		wanted[i].name = x.user + "-" + wanted[i].Label
	}
	x.single = nil // the session is for more than a stream
	answer, err := x.take(ctx, m.SDP, wanted)
	if err != nil {
		return mildly(err)
	}
	reply := &publishAnswer{header: x.header("answer", m.RequestID), Connection: "publish", SDP: answer, Streams: []publishedName{}}
	for _, p := range x.up.streams {
		reply.Streams = append(reply.Streams, publishedName{p.Label, p.name})
	}
	x.client.send(reply)
	return nil
}

// publishAnswer is the answer to a client's offer.
type publishAnswer struct {
	header
	Connection string          `json:"connection"`
	SDP        string          `json:"sdp"`
	Streams    []publishedName `json:"streams"`
}

// publishCandidate is a candidate of the publishing connection, null at the end.
type publishCandidate struct {
	header
	Connection string         `json:"connection"`
	Candidate  *rtc.Candidate `json:"candidate"`
}

// take answers an offer and makes the session's streams those that are wanted. An
// error leaves what is published as it was.
func (x *session) take(ctx context.Context, offer string, wanted []publication) (answer string, err error) {
	if err := x.mayPublish(wanted); err != nil {
		return "", err
	}
	fresh := x.up.publisher == nil
	if fresh {
		if x.up.publisher, err = x.server.rtc.NewPublisher(x.publisherOptions()); err != nil {
			x.up.publisher = nil
			return "", fmt.Errorf("publisher: %w", err)
		}
		x.up.on.Store(true)
	}
	answer, incoming, err := x.up.publisher.Answer(ctx, offer)
	if err == nil {
		x.up.trickled = 0
		err = x.arrangePublished(ctx, wanted, incoming)
	}
	if err != nil && fresh {
		x.stopPublishing()
	}
	return answer, err
}

func (x *session) publisherOptions() rtc.PublisherOptions {
	o := rtc.PublisherOptions{
		ID: x.user, Logger: x.log, ConnectTimeout: x.server.timing.negotiate, Elsewhere: elsewhere(x.from),
		OnState: func(s rtc.State) {
			select {
			case x.up.states <- s:
			default: // the session is at its end
			}
		},
	}
	if x.kind == overWebSocket {
		o.OnCandidate = func(c *rtc.Candidate) {
			select {
			case x.up.candidates <- c:
			default: // more than any host has
				x.log.Warn("candidate dropped", "candidate", c)
			}
		}
	}
	return o
}

// mayPublish refuses what the participant may not publish.
func (x *session) mayPublish(wanted []publication) error {
	grant := x.place.Grant()
	if !grant.May(auth.Publish, x.room, "") { // also for a connection without streams
		return refuse(forbidden, "publishing takes publish in %q", x.room)
	}
	for _, p := range wanted {
		if !grant.May(auth.Publish, x.room, p.name) {
			return refuse(forbidden, "publishing %q takes publish in %q", p.name, x.room)
		}
	}
	return nil
}

// arrangePublished makes the session's streams out of what comes.
func (x *session) arrangePublished(ctx context.Context, wanted []publication, incoming []rtc.Incoming) error {
	var kept []*published
	var failed error
	for _, w := range wanted {
		tracks := x.tracksOf(w, incoming)
		if len(tracks) == 0 {
			continue // it is announced, and not sent yet
		}
		p, err := x.offerStream(ctx, w, tracks)
		if err != nil {
			failed = err
			continue
		}
		kept = append(kept, p)
	}
	for _, p := range x.up.streams {
		if !slices.Contains(kept, p) {
			x.withdraw(p)
		}
	}
	x.up.streams = kept
	for _, p := range kept { // after who had the m-lines before
		x.connect(p, incoming)
	}
	return failed
}

// offerStream finds or makes a stream of the session, and offers it in the room.
func (x *session) offerStream(ctx context.Context, w publication, tracks []stream.PublishedTrack) (*published, error) {
	if i := slices.IndexFunc(x.up.streams, func(p *published) bool { return p.name == w.name }); i >= 0 {
		p := x.up.streams[i]
		p.publication = w
		p.stream.Rearrange(tracks)
		return p, nil
	}
	self := x.place.Snapshot().Self
	title := cmp.Or(w.Title, strings.TrimSpace(self.Name+" "+w.Label), w.name)
	p := &published{publication: w, stream: stream.NewPublished(w.name, title, tracks, x.server.paint, x.log)}
	for _, kind := range self.Muted {
		p.stream.Mute(kind, true)
	}
	offer := room.Offer{Stream: p.stream, Label: w.Label, Title: w.Title}
	err := x.place.Publish(offer)
	for errors.Is(err, room.ErrNameTaken) {
		old := x.server.predecessor(x)
		if old == nil {
			break
		}
		old.end(replaced)
		select {
		case <-old.done:
			err = x.place.Publish(offer)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		p.stream.Close()
		return nil, err
	}
	x.log.InfoContext(ctx, "stream is published", "stream", w.name)
	return p, nil
}

// tracksOf are the tracks that a stream has of what comes: of each kind the first
// m-line, of video all simulcast layers.
func (x *session) tracksOf(w publication, incoming []rtc.Incoming) (tracks []stream.PublishedTrack) {
	publisher := x.up.publisher
	for _, in := range w.lines(incoming) {
		for _, layer := range in.Layers {
			t := stream.PublishedTrack{Track: media.Track{Name: trackName(in, layer), Kind: in.Kind, Codec: in.Codec, Fmtp: in.Fmtp}}
			if in.Kind == media.Video {
				t.RequestKeyframe = func() { publisher.RequestKeyframe(in.Mid, layer) }
			}
			tracks = append(tracks, t)
		}
	}
	return tracks
}

// connect lets what comes flow into a stream.
func (x *session) connect(p *published, incoming []rtc.Incoming) {
	for _, in := range p.lines(incoming) {
		for _, layer := range in.Layers {
			if err := x.up.publisher.Deliver(in.Mid, layer, p.stream.Feed(trackName(in, layer))); err != nil {
				x.log.Warn("published track is lost", "stream", p.name, "err", err) // it has just been agreed
			}
		}
	}
}

// withdraw ends a published stream.
func (x *session) withdraw(p *published) {
	if x.up.publisher != nil {
		for _, l := range x.up.publisher.Stats().Layers {
			if p.Mids == nil || slices.Contains(p.Mids, l.Mid) {
				_ = x.up.publisher.Deliver(l.Mid, l.Layer, nil) // it may be gone already
			}
		}
	}
	_ = x.place.Unpublish(p.name) // a host may have ended it, or the participant has left
	p.stream.Close()
	x.log.Info("stream is published no more", "stream", p.name)
}

// unpublish acts on a client's unpublish.
func (x *session) unpublish(m request) error {
	i := slices.IndexFunc(x.up.streams, func(p *published) bool { return p.name == m.Stream || p.Label == m.Stream })
	if i < 0 {
		return mildly(refuse(notFound, "stream %.128q isn't published here", m.Stream))
	}
	p := x.up.streams[i]
	x.up.streams = slices.Delete(x.up.streams, i, i+1)
	x.withdraw(p)
	if len(x.up.streams) == 0 {
		x.stopPublishing()
	}
	return nil
}

// stopPublishing ends the publishing connection and all that came over it.
func (x *session) stopPublishing() {
	if x.up.publisher == nil {
		return
	}
	stats := x.up.publisher.Stats()
	_ = x.up.publisher.Close() // it always ends
	x.up.publisher = nil
	x.up.on.Store(false)
	drain(x.up.states) // not to be taken for the next one's
	drain(x.up.candidates)
	for _, p := range x.up.streams {
		x.withdraw(p)
	}
	x.up.streams = nil
	var sum rtc.ReceiveCounts
	for _, l := range stats.Layers {
		sum.Packets, sum.Repaired, sum.Lost = sum.Packets+l.Packets, sum.Repaired+l.Repaired, sum.Lost+l.Lost
	}
	x.log.Info("publishing has ended", "packets", sum.Packets, "repaired", sum.Repaired, "lost", sum.Lost)
}

// publisherEnded follows the end of the publishing connection. Over WHIP it is the
// session's.
func (x *session) publisherEnded() error {
	err := x.up.publisher.Err()
	x.stopPublishing()
	if x.kind == overWHIP {
		return ending(err)
	}
	if errors.Is(err, rtc.ErrConnectTimeout) || errors.Is(err, rtc.ErrConnectionLost) {
		x.client.send(errorMessage(mildly(ending(asTimeout(err))).(*refusal), x.trace, ""))
	}
	return nil
}

// asTimeout has a client told of a connection that didn't come about, or broke.
func asTimeout(err error) error { return fmt.Errorf("publishing: %v: %w", err, rtc.ErrConnectTimeout) }

// publisherState has the streams' state follow the connection's.
func (x *session) publisherState(s rtc.State) {
	reason := ""
	switch s {
	case rtc.StateConnected:
		x.awaited()
	case rtc.StateDisconnected:
		reason = "the publisher's connection is interrupted"
	default:
		return
	}
	for _, p := range x.up.streams {
		p.stream.Away(reason)
	}
}

// mutePublished follows what the room says of the participant's own mutes.
func (x *session) mutePublished(kind media.Kind, on bool) {
	for _, p := range x.up.streams {
		p.stream.Mute(kind, on)
	}
}

// keepPublished ends what the participant publishes and his room doesn't have any
// more: a host has moved him, or taken from him that he may. Over WHIP there is nothing
// else, and the error ends the session.
func (x *session) keepPublished() error {
	if x.up.publisher == nil {
		return nil
	}
	names := x.place.Snapshot().Self.Streams // as it is now: events may be older than the last stream
	var kept []*published
	for _, p := range x.up.streams {
		if slices.Contains(names, p.name) {
			kept = append(kept, p)
		} else {
			x.withdraw(p)
		}
	}
	x.up.streams = kept
	if len(kept) > 0 {
		return nil
	}
	x.stopPublishing()
	if x.kind == overWHIP {
		return departure(room.Removed)
	}
	return nil
}

// publishedCandidate takes a candidate of the client for the publishing connection.
func (x *session) publishedCandidate(c *rtc.Candidate) error {
	if x.up.publisher == nil {
		return refuse(badState, "nothing is published")
	}
	if x.up.trickled++; x.up.trickled > maxCandidates {
		return refuse(rateLimited, "more than %d candidates for one negotiation", maxCandidates)
	}
	return x.up.publisher.AddCandidate(c)
}
