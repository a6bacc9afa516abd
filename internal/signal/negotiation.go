package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gateway/internal/media"
	"gateway/internal/rtc"
)

// The session's PeerConnection on which the gateway sends: offers, answers and
// candidates.

// nextOffer is an offer that can't be made yet.
type nextOffer struct {
	restartICE bool
	requestID  string
}

// newViewer makes the viewer, without tracks, or one in the place of another that has
// ended. From then on leave closes it.
func (x *session) newViewer() (err error) {
	options := rtc.ViewerOptions{
		ID: x.user, Logger: x.log, ConnectTimeout: x.server.timing.negotiate, Elsewhere: elsewhere(x.from),
		FullICE: x.fullICE || x.data.Load() != nil || strings.Contains(x.whep.offer, "a=ice-lite") ||
			x.server.unreached.has(x.granted.Load().Subject, x.from),
		OnState: func(s rtc.State) {
			select {
			case x.states <- s:
			default: // the session is at its end
			}
		},
		OnEstimate: x.onEstimate,
		OnSwitch: func(slot string, t media.Track) {
			if t.Kind == media.Video {
				x.switches.put(slot, t.Name)
				poke(x.switched)
			}
		},
		Succeeds: x.viewer,
	}
	if x.kind == overWebSocket {
		x.gathering = true // begins with the first offer
		options.OnCandidate = func(c *rtc.Candidate) {
			select {
			case x.candidates <- c:
			default: // more than any host has
				x.log.Warn("candidate dropped", "candidate", c)
			}
		}
	}
	if x.viewer, err = x.server.rtc.NewViewer(options); err != nil {
		return fmt.Errorf("viewer: %w", err)
	}
	x.viewing = time.Now()
	if d := x.data.Load(); d != nil {
		if err := d.attach(x.viewer); err != nil {
			return err
		}
	}
	x.viewer.Observe(x.network.observed != nil)
	return nil
}

// offer makes an offer and sends it, or keeps it for later: the last one must
// have been answered. pion's ICE agent can't be restarted while it gathers (a
// data race), nor between an answer and its start, which comes later on another
// goroutine and would bring back the answer's credentials.
func (x *session) offer(ctx context.Context, o nextOffer) error {
	if x.offered || o.restartICE && (x.gathering || !x.started) {
		if x.next != nil {
			o.restartICE = o.restartICE || x.next.restartICE
			o.requestID = cmp.Or(o.requestID, x.next.requestID)
		}
		x.next = &o
		return nil
	}
	sdp, err := x.viewer.Offer(ctx, o.restartICE)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	x.offered, x.trickled = true, 0
	if o.restartICE {
		x.gathering = true
	}
	x.client.send(&offerMessage{x.header("offer", o.requestID), x.id, sdp, x.tracks()})
	return nil
}

// tracks tells which m-line of an offer carries what.
func (x *session) tracks() []trackPlace {
	list := []trackPlace{} // [], not null
	for _, w := range x.watches {
		for _, kind := range []media.Kind{media.Video, media.Audio} {
			if mid := x.viewer.Mid(w.slot(kind)); w.legs[kind] != nil && mid != "" {
				list = append(list, trackPlace{mid, w.stream.Name(), kind})
			}
		}
	}
	return list
}

// offerNext makes the offer that was kept, if there is one and there still is
// something to offer.
func (x *session) offerNext(ctx context.Context) error {
	if x.next == nil {
		return nil
	}
	o := *x.next
	x.next = nil
	if !o.restartICE && !x.viewer.OfferDue() {
		return nil
	}
	return x.offer(ctx, o)
}

// reopen offers full ICE to a client that didn't connect without: a restart of ICE
// on its PeerConnection, with another viewer here.
func (x *session) reopen(ctx context.Context) error {
	x.log.InfoContext(ctx, "viewer is offered full ICE", "reason", x.viewer.Err())
	x.noteUnreached()
	x.fullICE, x.offered, x.started, x.next, x.trickled = true, false, false, nil, 0
	drain(x.states) // what the last viewer has told, who is gone, isn't this one's
	drain(x.candidates)
	if err := x.newViewer(); err != nil {
		return err
	}
	x.offered = true // none before all are arranged
	for _, w := range slices.Clone(x.watches) {
		clear(w.legs)
		w.fresh = true
		w.stale.Store(true)
	}
	if err := x.follow(ctx); err != nil {
		return err
	}
	x.offered = false
	return x.offerNext(ctx)
}

// answer takes the client's answer to the open offer.
func (x *session) answer(ctx context.Context, sdp string) error {
	switch {
	case !x.offered && x.answered != "" && x.answered == sdp:
		return nil // again, by a client that didn't know whether it had come
	case !x.offered:
		return refuse(badState, "no offer waits for an answer")
	}
	err := x.viewer.SetAnswer(ctx, sdp)
	var declined *rtc.DeclinedError
	if err != nil && !errors.As(err, &declined) {
		return fmt.Errorf("answer: %w", err)
	}
	x.offered, x.answered = false, sdp
	var refused error
	if declined != nil {
		if refused = x.declined(ctx, declined); refusalOf(refused).fatal {
			return refused
		}
	}
	if x.next == nil && !x.offered && x.viewer.OfferDue() {
		x.next = new(nextOffer)
	}
	if err := x.offerNext(ctx); err != nil {
		return err
	}
	return cmp.Or(x.adjust(ctx), refused) // what has come is perhaps not seen at all
}

// candidate takes one candidate of the client, nil at the end.
func (x *session) candidate(c *rtc.Candidate) error {
	if x.viewer == nil {
		return refuse(badState, "nothing was offered yet")
	}
	if x.trickled++; x.trickled > maxCandidates {
		return refuse(rateLimited, "more than %d candidates for one negotiation", maxCandidates)
	}
	return x.viewer.AddCandidate(c)
}

// declined follows an answer that left out the codec of a track that was to be
// sent instead of another, or all that a picture was offered in. The session goes on
// without that codec, if it can.
func (x *session) declined(ctx context.Context, d *rtc.DeclinedError) error {
	var concerned []*watch
	for _, w := range x.watches {
		for kind, l := range w.legs {
			refused := slices.Contains(d.Refused, w.slot(kind))
			if !refused && !slices.Contains(d.Slots, w.slot(kind)) {
				continue
			}
			x.codecs.declined = append(x.codecs.declined, l.track.Codec)
			l.track, l.sub = media.Track{}, nil // what goes on may be of no use any more: begin anew
			if refused {
				delete(w.legs, kind)
			}
			concerned = append(concerned, w)
		}
	}
	for _, w := range concerned {
		tracks, err := w.tracks(ctx)
		if err == nil {
			err = w.rearrange(ctx, tracks)
		}
		if err != nil {
			if err := x.lose(ctx, w, err); err != nil {
				return err
			}
		}
	}
	r := refuse(codecUnsupported, "%.500s", d)
	r.fatal = false
	return r
}
