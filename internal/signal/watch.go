package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/stream"
)

// watch is one stream that a session watches. It belongs to the session's goroutine,
// but for stale.
type watch struct {
	session *session
	stream  room.Stream
	offered room.Offer // the stream as the room has it
	n       int        // of the session's, from 1
	log     *slog.Logger
	cancel  func()      // ends the stream's Watch
	stale   atomic.Bool // the stream has changed: see session.follow

	legs     map[media.Kind]*leg // what the viewer was given
	fresh    bool                // nothing was arranged yet
	selected string              // a rendition, or auto
	playing  string              // the rendition that is sent; "" before the first packet
	told     streamState         // what the client knows of the stream
	sync     string              // stream.Info's
	ledger   ledger              // where the time of its frames went
	adaptation
}

// leg is one kind of media on its way to the client: a track of its viewer.
type leg struct {
	track    media.Track          // what was asked of the viewer last
	sub      *stream.Subscription // the viewer's
	streamID string
	declined bool // by the client
}

// add has the session watch a stream, once begin is called.
func (x *session) add(o room.Offer) *watch {
	x.numbered++
	w := &watch{
		session: x, stream: o.Stream, offered: o, n: x.numbered, log: x.log.With("stream", o.Name()), cancel: func() {},
		legs: make(map[media.Kind]*leg), fresh: true, selected: auto, adaptation: adaptation{audible: true},
	}
	x.watches = append(x.watches, w)
	x.rename()
	return w
}

// begin has the watch told of its stream, at once to begin with.
func (w *watch) begin() {
	note := func() {
		w.stale.Store(true)
		poke(w.session.changed)
	}
	w.cancel = w.stream.Watch(func(stream.Info) { note() })
	note()
}

// rename tells others what is watched.
func (x *session) rename() {
	names := make([]string, len(x.watches))
	for i, w := range x.watches {
		names[i] = w.stream.Name()
	}
	x.names.Store(&names)
}

// ask takes what a join or a watch asks for.
func (w *watch) ask(m request) {
	w.selected = cmp.Or(m.Rendition, auto)
	if m.View != nil {
		w.look(*m.View)
	}
}

// watch acts on a client's watch. Of a stream that it watches already, it changes
// what is asked for.
func (x *session) watch(ctx context.Context, m request) error {
	watching := &streamNameMessage{header: x.header("watching", m.RequestID), Stream: m.Stream}
	if i := x.index(m.Stream); i >= 0 {
		x.client.send(watching)
		w := x.watches[i]
		if m.View != nil {
			w.look(*m.View)
		}
		if name := cmp.Or(m.Rendition, w.selected); name != w.selected {
			return w.choose(ctx, name, "")
		}
		return x.adjust(ctx)
	}
	if len(x.watches) == maxWatched {
		return refuse(tooManyStreams, "%d streams are watched, which is the limit", maxWatched)
	}
	o, err := x.place.Offer(m.Stream)
	if err != nil {
		return mildly(err)
	}
	w := x.add(o)
	w.ask(m)
	x.single = nil
	x.client.send(watching)
	x.log.InfoContext(ctx, "stream is watched", "stream", m.Stream)
	w.begin()
	return x.follow(ctx)
}

// unwatch acts on a client's unwatch.
func (x *session) unwatch(ctx context.Context, m request) error {
	w, err := x.watching(m.Stream)
	if err != nil {
		return err
	}
	x.client.send(&streamNameMessage{header: x.header("unwatched", m.RequestID), Stream: w.stream.Name()})
	return x.drop(ctx, w)
}

// lose ends a watch that can't go on for a reason of its stream's. The session goes
// on without it, unless it is for nothing else. An error that isn't the stream's own
// is the session's, and returned.
func (x *session) lose(ctx context.Context, w *watch, err error) error {
	var left departure
	m := &streamNameMessage{header: x.header("unwatched", ""), Stream: w.stream.Name()}
	switch r := refusalOf(err); {
	case w == x.single:
		return err
	case errors.As(err, &left):
		m.Reason = string(left)
	case r.code == codecUnsupported:
		m.Reason, m.Message = string(r.code), r.message
	default:
		return err
	}
	x.client.send(m)
	w.log.InfoContext(ctx, "stream is watched no more", "reason", m.Reason)
	return x.drop(ctx, w)
}

// drop ends a watch. Its m-lines are free for others from the next offer on.
func (x *session) drop(ctx context.Context, w *watch) error {
	w.cancel()
	x.watches = slices.DeleteFunc(x.watches, func(o *watch) bool { return o == w })
	x.rename()
	if x.single == w {
		x.single = nil
	}
	if x.viewer == nil {
		return nil
	}
	for kind := range w.legs {
		if err := x.viewer.Remove(w.slot(kind)); err != nil {
			return err
		}
	}
	if x.viewer.OfferDue() {
		if err := x.offer(ctx, nextOffer{}); err != nil {
			return err
		}
	}
	return x.adjust(ctx)
}

// watching is the watch of a stream, of "" the only one.
func (x *session) watching(name string) (*watch, error) {
	i := x.index(name)
	if name == "" && len(x.watches) == 1 {
		i = 0
	}
	if i < 0 {
		r := refuse(notFound, "stream %.128q isn't watched here", name)
		if name == "" {
			r = refuse(notFound, "%d streams are watched here: say which one", len(x.watches))
		}
		r.fatal = false
		return nil, r
	}
	return x.watches[i], nil
}

func (x *session) index(name string) int {
	return slices.IndexFunc(x.watches, func(w *watch) bool { return w.stream.Name() == name })
}

// showing is the watch whose picture is in a slot; nil if there is none any more.
func (x *session) showing(slot string) *watch {
	for _, w := range x.watches {
		if w.legs[media.Video] != nil && w.slot(media.Video) == slot {
			return w
		}
	}
	return nil
}

// slot is a track's id at the client, whichever rendition it carries. No two of a
// session have the same.
func (w *watch) slot(k media.Kind) string {
	if w.n == 1 {
		return k.String()
	}
	return fmt.Sprint(k, "-", w.n)
}

// streamID is the msid stream of a kind: tracks that share one are played in step.
func (w *watch) streamID(k media.Kind) string {
	if l := w.legs[k]; l != nil && w.session.fixed {
		return l.streamID
	}
	if k == media.Audio && w.sync == "video-first" {
		return w.stream.Name() + "-audio"
	}
	return w.stream.Name()
}

// act is session.act for messages that are about one stream.
func (w *watch) act(ctx context.Context, m request) error {
	switch m.Type {
	case "select":
		return w.choose(ctx, cmp.Or(m.Rendition, auto), m.RequestID)
	case "view":
		w.look(view{m.Width, m.Height, m.Visible, m.Audible == nil || *m.Audible})
		return w.session.adjust(ctx)
	}
	return w.report(m)
}

// look takes note of how the client's page shows the picture.
func (w *watch) look(v view) {
	w.screen = adapt.Screen{Width: v.width, Height: v.height, Hidden: !v.visible}
	w.audible = v.audible
}

// follow brings the watch up to date with its stream: tells the client what has
// changed, and offers what hasn't been offered.
func (w *watch) follow(ctx context.Context) error {
	x := w.session
	info := w.stream.Info()
	now := stateOf(w.offered, info)
	w.sync = info.Sync
	w.encoderDecided(info)
	if !now.equal(w.told) {
		w.told = now
		x.client.send(&streamMessage{x.header("stream", ""), now})
	}
	if now.State == stream.Closed {
		return streamClosed
	}
	if len(now.Tracks) == 0 {
		return nil // the source isn't there yet
	}
	tracks, err := w.tracks(ctx)
	if err != nil {
		return err
	}
	if x.viewer == nil {
		if x.kind != overWebSocket {
			return nil // WHEP: the client offers
		}
		if err := x.newViewer(); err != nil {
			return err
		}
	}
	if w.fresh && x.connected {
		x.divide()
	}
	return w.rearrange(ctx, tracks)
}

// tracks lists the stream's tracks, which are known: it doesn't wait.
func (w *watch) tracks(ctx context.Context) ([]media.Track, error) {
	tracks, err := w.stream.Tracks(ctx)
	if errors.Is(err, stream.ErrClosed) {
		return nil, streamClosed
	}
	return tracks, err
}

// report takes the client's time to its first frame, and what it tells of frames.
// Those that weren't sent lately, and all while nobody observes, are passed over.
func (w *watch) report(m request) error {
	x := w.session
	if m.FirstFrameMs == nil && m.Frames == nil {
		return refuse(badMessage, "report: firstFrameMs or frames is missing")
	}
	if m.FirstFrameMs != nil {
		if x.reported {
			return refuse(badState, "the first frame was reported already")
		}
		x.reported = true
		x.server.metrics.firstFrame.Observe(*m.FirstFrameMs / 1000)
		w.log.Info("first frame", "after", time.Duration(*m.FirstFrameMs*float64(time.Millisecond)))
	}
	if x.viewer == nil || x.network.observed == nil || len(m.Frames) == 0 {
		return nil
	}
	now, rtt := media.Now(), x.viewer.Stats().RTT
	for _, f := range m.Frames {
		if sent, ok := x.viewer.Frame(w.slot(media.Video), f.rtp); ok {
			x.server.metrics.latency.observe(w.stream.Name(), w.ledger.add(now, sent, f, rtt))
		}
	}
	return nil
}
