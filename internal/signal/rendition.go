package signal

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"gateway/internal/media"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// auto is the selection of a client that leaves it to the gateway. No rendition
// has that name.
const auto = "auto"

// arrange gives the viewer, of the tracks that the stream has now, those that the
// client can decode and has selected. It tells whether the client must be offered
// something. A refusal says that nothing fits.
func (w *watch) arrange(tracks []media.Track) (offer bool, err error) {
	x := w.session
	if x.kinds != nil {
		tracks = slices.DeleteFunc(slices.Clone(tracks), func(t media.Track) bool { return !slices.Contains(x.kinds, t.Kind) })
	}
	wanted := w.selected
	if wanted == auto {
		wanted = cmp.Or(w.choice, w.firstChoice(tracks))
	}
	chosen, err := choose(tracks, x.codecs, wanted)
	if err != nil {
		return false, err
	}
	if w.selected != auto && !slices.ContainsFunc(chosen, func(t media.Track) bool { return t.Kind == media.Video && t.Name == w.selected }) {
		w.log.Info("rendition can't be had any more", "rendition", w.selected)
		w.selected = auto
		w.tell("")
	}
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		i := slices.IndexFunc(chosen, func(t media.Track) bool { return t.Kind == kind })
		var due bool
		switch {
		case i < 0:
			due, err = w.remove(kind)
		case kind == media.Video && w.paused, kind == media.Audio && w.muted:
			err = w.pause(kind)
		default:
			due, err = w.send(chosen[i])
		}
		if err != nil {
			return false, err
		}
		offer = offer || due
	}
	return offer && x.kind == overWebSocket, nil // a WHEP client can't be offered anything
}

// remove takes a kind from the viewer.
func (w *watch) remove(kind media.Kind) (offer bool, err error) {
	if w.legs[kind] == nil {
		return false, nil
	}
	delete(w.legs, kind)
	w.log.Info("track is gone", "track", w.slot(kind))
	if kind == media.Video {
		w.playing = ""
		w.tell("")
	}
	return true, w.session.viewer.Remove(w.slot(kind))
}

// send has the viewer send a track: from the beginning, in the place of another of
// its kind, or on.
func (w *watch) send(t media.Track) (offer bool, err error) {
	l := w.legs[t.Kind]
	id := w.streamID(t.Kind)
	switch {
	case l == nil && w.session.fixed:
		return false, nil // its client has made its offer
	case l == nil:
	case l.track.Name == t.Name && l.streamID == id && l.sub != nil && w.stream.Current(l.sub):
		if l.track.Fmtp != t.Fmtp && !l.declined {
			w.log.Info("format changed", "track", t.Name, "fmtp", t.Fmtp)
			offer = w.session.viewer.SetFmtp(w.slot(t.Kind), t.Fmtp)
		}
		l.track = t
		return offer, nil
	case l.streamID != id: // sync has changed
		if _, err := w.remove(t.Kind); err != nil {
			return false, err
		}
		l = nil
	}
	sub, err := w.stream.Subscribe(t.Name)
	if errors.Is(err, stream.ErrClosed) {
		return false, streamClosed
	} else if err != nil {
		return false, nil // it has gone just now: the stream says so at once
	}
	if t = sub.Track(); !w.session.codecs.takes(t) { // or has changed
		sub.Close()
		return false, nil
	}
	switch {
	case l == nil:
		offer, err = true, w.session.viewer.AddTrack(w.slot(t.Kind), t, id, sub)
		l = &leg{streamID: id}
	default:
		offer, err = w.session.viewer.Replace(w.slot(t.Kind), t, sub)
		if errors.Is(err, rtc.ErrNotReceiving) {
			l.declined, err = true, nil
		}
	}
	if err != nil {
		return false, err
	}
	l.track, l.sub = t, sub
	w.legs[t.Kind] = l
	if t.Kind == media.Video {
		sub.Carry(w.share)
	}
	return offer, nil
}

// rearrange is arrange, and the offer that follows from it. An error is the session's,
// or says that the stream can't be watched on: see session.lose.
func (w *watch) rearrange(ctx context.Context, tracks []media.Track) error {
	x := w.session
	offer, err := w.arrange(tracks)
	if err != nil && x.fixed && (errors.Is(err, rtc.ErrNoCodec) || refusalOf(err).code == codecUnsupported) {
		return streamChanged // where the client made the offer, a new one may do
	}
	if err != nil {
		return err
	}
	if offer {
		if err := x.offer(ctx, nextOffer{}); err != nil {
			return err
		}
	}
	if l := w.legs[media.Video]; l != nil && w.fresh && x.kind == overWebSocket {
		w.playing = l.track.Name
		w.tell("")
	}
	w.fresh = false
	return nil
}

// choose acts on a client's select. A refusal leaves all as it was.
func (w *watch) choose(ctx context.Context, name, requestID string) error {
	x := w.session
	if x.viewer == nil || w.fresh { // what there is to select isn't known yet
		w.selected = name
		w.tell(requestID)
		return nil
	}
	tracks, err := w.tracks(ctx)
	if err != nil {
		return err
	}
	if err := x.selectable(tracks, name); err != nil {
		r := *refusalOf(err)
		r.fatal = false
		return &r
	}
	w.log.Info("rendition selected", "rendition", name)
	w.selected = name
	w.tell(requestID)
	if err := x.adjust(ctx); err != nil {
		return err
	}
	return w.rearrange(ctx, tracks)
}

// selectable refuses a rendition that there isn't, or that the client can't decode.
func (x *session) selectable(tracks []media.Track, name string) error {
	if name == auto {
		return nil
	}
	var names []string
	for _, t := range tracks {
		switch {
		case t.Kind != media.Video:
		case t.Name != name:
			names = append(names, t.Name)
		case !x.codecs.takes(t):
			return refuse(codecUnsupported, "rendition %q is in %s; the client decodes %s", name, t.Codec.MimeType(), x.codecs)
		default:
			return nil
		}
	}
	return refuse(notFound, "the stream has no rendition %.128q, but %s", name, strings.Join(names, ", "))
}

// tell says which rendition plays and which one is selected; requestID is that of
// the select which it answers.
func (w *watch) tell(requestID string) {
	x := w.session
	x.client.send(&renditionMessage{x.header("rendition", requestID), w.stream.Name(), w.playing, w.selected, w.why})
}
