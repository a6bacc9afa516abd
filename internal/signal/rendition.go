package signal

import (
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

// leg is one kind of media on its way to the client: a track of its viewer.
type leg struct {
	track    media.Track          // what was asked of the viewer last
	sub      *stream.Subscription // the viewer's
	streamID string
	declined bool // by the client
}

// slot is the track's name at the client, whichever rendition it carries.
func slot(k media.Kind) string { return k.String() }

// streamID is the msid stream of a kind: tracks that share one are played in step.
func (x *session) streamID(k media.Kind) string {
	if l := x.legs[k]; l != nil && x.fixed {
		return l.streamID
	}
	if k == media.Audio && x.sync == "video-first" {
		return x.stream.Name() + "-audio"
	}
	return x.stream.Name()
}

// arrange gives the viewer, of the tracks that the stream has now, those that the
// client can decode and has selected. It tells whether the client must be offered
// something. A refusal says that nothing fits.
func (x *session) arrange(tracks []media.Track) (offer bool, err error) {
	if x.kinds != nil {
		tracks = slices.DeleteFunc(slices.Clone(tracks), func(t media.Track) bool { return !slices.Contains(x.kinds, t.Kind) })
	}
	wanted := x.selected
	if wanted == auto {
		wanted = x.adapt.choice
	}
	chosen, err := choose(tracks, x.codecs, wanted)
	if err != nil {
		return false, err
	}
	if x.selected != auto && !slices.ContainsFunc(chosen, func(t media.Track) bool { return t.Kind == media.Video && t.Name == x.selected }) {
		x.log.Info("rendition can't be had any more", "rendition", x.selected)
		x.selected = auto
		x.tell("")
	}
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		i := slices.IndexFunc(chosen, func(t media.Track) bool { return t.Kind == kind })
		var due bool
		switch {
		case i < 0:
			due, err = x.remove(kind)
		case kind == media.Video && x.adapt.paused, kind == media.Audio && x.adapt.muted:
			err = x.pause(kind)
		default:
			due, err = x.send(chosen[i])
		}
		if err != nil {
			return false, err
		}
		offer = offer || due
	}
	return offer && x.kind == overWebSocket, nil // a WHEP client can't be offered anything
}

// remove takes a kind from the viewer.
func (x *session) remove(kind media.Kind) (offer bool, err error) {
	if x.legs[kind] == nil {
		return false, nil
	}
	delete(x.legs, kind)
	x.log.Info("track is gone", "track", slot(kind))
	if kind == media.Video {
		x.playing = ""
		x.tell("")
	}
	return true, x.viewer.Remove(slot(kind))
}

// send has the viewer send a track: from the beginning, in the place of another of
// its kind, or on.
func (x *session) send(t media.Track) (offer bool, err error) {
	l := x.legs[t.Kind]
	id := x.streamID(t.Kind)
	switch {
	case l == nil && x.fixed:
		return false, nil // its client has made its offer
	case l == nil:
	case l.track.Name == t.Name && l.streamID == id && l.sub != nil && x.stream.Current(l.sub):
		if l.track.Fmtp != t.Fmtp && !l.declined {
			x.log.Info("format changed", "track", t.Name, "fmtp", t.Fmtp)
			offer = x.viewer.SetFmtp(slot(t.Kind), t.Fmtp)
		}
		l.track = t
		return offer, nil
	case l.streamID != id: // sync has changed
		if _, err := x.remove(t.Kind); err != nil {
			return false, err
		}
		l = nil
	}
	if l != nil && l.sub != nil {
		l.sub.Carry(0) // its encoder needn't mind this viewer any more
	}
	sub, err := x.stream.Subscribe(t.Name)
	if errors.Is(err, stream.ErrClosed) {
		return false, streamClosed
	} else if err != nil {
		return false, nil // it has gone just now: the stream says so at once
	}
	if t = sub.Track(); !x.codecs.takes(t) { // or has changed
		sub.Close()
		return false, nil
	}
	switch {
	case l == nil:
		offer, err = true, x.viewer.AddTrack(slot(t.Kind), t, id, sub)
		l = &leg{streamID: id}
	default:
		offer, err = x.viewer.Replace(slot(t.Kind), t, sub)
		if errors.Is(err, rtc.ErrNotReceiving) {
			l.declined, err = true, nil
		}
	}
	if err != nil {
		return false, err
	}
	l.track, l.sub = t, sub
	x.legs[t.Kind] = l
	if t.Kind == media.Video {
		sub.Carry(x.share())
	}
	return offer, nil
}

// rearrange is arrange, and the offer that follows from it. When nothing fits any
// more, the session ends; where the client made the offer, a new one may do.
func (x *session) rearrange(ctx context.Context, tracks []media.Track) error {
	offer, err := x.arrange(tracks)
	if err != nil && x.fixed && (errors.Is(err, rtc.ErrNoCodec) || refusalOf(err).code == codecUnsupported) {
		return streamChanged
	}
	if err != nil || !offer {
		return err
	}
	return x.offer(ctx, nextOffer{})
}

// choice acts on a client's select. A refusal leaves all as it was.
func (x *session) choice(ctx context.Context, name, requestID string) error {
	if x.viewer == nil { // what there is to select isn't known yet
		x.selected = name
		x.tell(requestID)
		return nil
	}
	tracks, err := x.tracks(ctx)
	if err != nil {
		return err
	}
	if err := x.selectable(tracks, name); err != nil {
		r := *refusalOf(err)
		r.fatal = false
		return &r
	}
	x.log.Info("rendition selected", "rendition", name)
	x.selected = name
	x.tell(requestID)
	if x.connected && x.legs[media.Video] != nil {
		x.decide(tracks)
	}
	return x.rearrange(ctx, tracks)
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

// declined follows an answer that left out the codec of a track that was to be
// sent instead of another. The session goes on without that codec, if it can.
func (x *session) declined(ctx context.Context, d *rtc.DeclinedError) error {
	for kind, l := range x.legs {
		if slices.Contains(d.Slots, slot(kind)) {
			x.codecs.declined = append(x.codecs.declined, l.track.Codec)
			l.track, l.sub = media.Track{}, nil // what goes on may be of no use any more: begin anew
		}
	}
	tracks, err := x.tracks(ctx)
	if err != nil {
		return err
	}
	if err := x.rearrange(ctx, tracks); err != nil {
		return err
	}
	r := refuse(codecUnsupported, "%.500s", d)
	r.fatal = false
	return r
}

// tell says which rendition plays and which one is selected; requestID is that of
// the select which it answers.
func (x *session) tell(requestID string) {
	x.client.send(&renditionMessage{x.header("rendition", requestID), x.playing, x.selected})
}
