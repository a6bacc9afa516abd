package rtc

import (
	"errors"
	"fmt"
	"slices"

	"gateway/internal/media"
)

// AddTrack adds a track that the next Offer or Answer carries, on an m-line of
// its own or that of a removed one. slot is the track's id at the peer (msid),
// such as "video": it stays when the encoding is replaced. Tracks with the same
// streamID are played in step. The viewer owns src and closes it, also when
// AddTrack fails. A peer that makes the offers takes no more tracks after the
// first (ErrBadState).
func (v *Viewer) AddTrack(slot string, t media.Track, streamID string, src Source) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	err := v.addTrack(slot, t, streamID, src)
	if err != nil {
		src.Close()
	}
	return err
}

func (v *Viewer) addTrack(slot string, spec media.Track, streamID string, src Source) error {
	if !token(slot) || !token(streamID) {
		return fmt.Errorf("track %q of stream %q: not a name that SDP can carry", slot, streamID)
	}
	if v.answers.Load() {
		return fmt.Errorf("track %q: %w: this peer makes the offers", slot, ErrBadState)
	}
	t := v.bySlot(slot)
	if t != nil && !t.inactive {
		return fmt.Errorf("track %q: %w: it is there already", slot, ErrBadState)
	}
	if t == nil || t.rejected || t.kind != spec.Kind {
		t = nil
		if i := slices.IndexFunc(v.tracks, func(o *track) bool { return o.inactive && !o.rejected && o.kind == spec.Kind }); i >= 0 {
			t = v.tracks[i]
		}
	}
	if t == nil && len(v.tracks) == maxTracksViewer {
		return fmt.Errorf("track %q: %w: %d m-lines are all that there are", slot, ErrTooManyTracks, maxTracksViewer)
	}
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if v.gone || v.Err() != nil {
		return fmt.Errorf("track %q: viewer: %w", slot, ErrClosed)
	}
	if t == nil {
		t = newTrack(v, slot, spec.Kind, streamID)
		t.observe(v.observed)
		v.tracks = append(slices.Clip(v.tracks), t)
	}
	t.name(slot, streamID)
	t.inactive = false
	t.next = &encoding{spec: spec, src: src}
	return nil
}

// Replace has a track go on with another encoding. What is sent now goes on until
// the peer takes the new format and src yields its first packet, a keyframe's;
// then the old source is closed and ViewerOptions.OnSwitch told. Sequence numbers
// and timestamps go on. Packets of the old one are still found for NACKs, by its
// Source's Find after Close.
//
// offer tells that the peer must be offered the format first: the next Offer has
// it in front, with payload types of its own, and what is sent now behind it. A
// format that the peer has accepted before and that was not dropped since, or one
// that it can take for such (an H.264 profile that is a subset, any level), needs
// none. A peer that makes the offers itself can't be offered anything: ErrNoCodec.
//
// The last call wins: one that still waits is given up, and its source closed. The
// viewer owns src and closes it, also when Replace fails. On an error what is
// sent goes on: ErrBadState is an unknown slot, ErrNotReceiving one that the peer
// has declined.
func (v *Viewer) Replace(slot string, t media.Track, src Source) (offer bool, err error) {
	v.neg.Lock()
	defer v.neg.Unlock()
	if offer, err = v.replace(slot, &encoding{spec: t, src: src}); err != nil {
		src.Close()
	}
	return offer, err
}

func (v *Viewer) replace(slot string, e *encoding) (offer bool, err error) {
	t, err := v.active(slot)
	if err != nil {
		return false, err
	}
	if t.kind != e.spec.Kind {
		return false, fmt.Errorf("track %q: %w: %v can't follow %v", slot, ErrBadState, e.spec.Kind, t.kind)
	}
	f, ok := best(t.accepted, e.spec)
	if !ok && v.answers.Load() {
		return false, fmt.Errorf("track %q: %w: this peer's offer was answered with %s", slot, ErrNoCodec, names(t.accepted))
	}
	if ok {
		e = e.in(f, t.ssrc, t.rtxSSRC)
	}
	v.sendMu.Lock()
	if v.gone || v.Err() != nil {
		v.sendMu.Unlock()
		return false, fmt.Errorf("track %q: viewer: %w", slot, ErrClosed)
	}
	given := t.next
	t.next = e
	v.sendMu.Unlock()
	if given != nil {
		given.close()
	}
	if ok {
		e.src.Notify(v.wake)
	}
	return !ok, nil
}

// Pause has a track send nothing until the next Replace, which needs no offer if it
// comes with a format that the peer has accepted; its source is closed at once. To
// the peer the track stays what it was.
func (v *Viewer) Pause(slot string) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	t, err := v.active(slot)
	if err != nil {
		return err
	}
	t.drop()
	return nil
}

// Remove ends a track: its source is closed at once, and the next Offer makes the
// m-line inactive. A track that the peer has declined is removed already.
func (v *Viewer) Remove(slot string) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	t, err := v.active(slot)
	if errors.Is(err, ErrNotReceiving) {
		return nil
	} else if err != nil {
		return err
	}
	t.inactive = true
	if t.mid == "" && t.offer == nil { // no peer knows of it
		v.sendMu.Lock()
		v.tracks = slices.DeleteFunc(slices.Clone(v.tracks), func(o *track) bool { return o == t })
		v.sendMu.Unlock()
	}
	t.drop()
	return nil
}

// SetFmtp changes the format parameters of a track's latest encoding to what its
// bitstream turned out to be; the next Offer carries them. offer tells that the
// peer has to be offered them to go on playing: another H.264 profile, not a
// level. An unknown track is ignored.
func (v *Viewer) SetFmtp(slot, fmtp string) (offer bool) {
	v.neg.Lock()
	defer v.neg.Unlock()
	t, err := v.active(slot)
	if err != nil {
		return false
	}
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	e := t.latest()
	if e == nil {
		return false
	}
	e.spec.Fmtp = fmtp
	_, ok := best(t.accepted, e.spec)
	return !ok && !v.answers.Load()
}

// OfferDue tells whether an Offer would tell the peer something that it must
// know: a track that was added, removed or renamed, a format that it has not accepted,
// data channels.
// Ask after SetAnswer: much may have changed while the offer was out.
func (v *Viewer) OfferDue() bool {
	v.neg.Lock()
	defer v.neg.Unlock()
	if v.answers.Load() {
		return false
	}
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if v.data.Load() != nil && !slices.ContainsFunc(v.offered, func(p proposal) bool { return p.track == nil }) {
		return true
	}
	for _, t := range v.tracks {
		if t.inactive {
			if len(t.accepted) > 0 {
				return true
			}
			continue
		}
		e := t.latest()
		if e == nil {
			continue
		}
		if _, ok := best(t.accepted, e.spec); !ok || t.named != *t.msid.Load() {
			return true
		}
	}
	return false
}

// bySlot is the track of a name, an active one if there is one; nil if none.
func (v *Viewer) bySlot(slot string) *track {
	var found *track
	for _, t := range v.tracks {
		if t.slot == slot && (found == nil || !t.inactive) {
			found = t
		}
	}
	return found
}

func (v *Viewer) active(slot string) (*track, error) {
	switch t := v.bySlot(slot); {
	case t == nil:
		return nil, fmt.Errorf("track %q: %w: there is none", slot, ErrBadState)
	case t.inactive:
		return nil, fmt.Errorf("track %q: %w", slot, ErrNotReceiving)
	default:
		return t, nil
	}
}

// join gives a track its place in the connection.
func (v *Viewer) join(t *track) error {
	if t.ssrc != 0 {
		return nil
	}
	var err error
	if t.ssrc, t.rtxSSRC, err = v.conn.join(t); err != nil {
		return fmt.Errorf("track %q: %w", t.slot, err)
	}
	v.bySSRC.Store(t.ssrc, t)
	if t.rtxSSRC != 0 {
		v.bySSRC.Store(t.rtxSSRC, t)
	}
	return nil
}

// propose lists what an offer has of a track: the format of its latest encoding,
// then what is sent now and what else the peer has accepted, so that a way back
// needs no offer, and a peer that doesn't take the new one can go on.
func (t *track) propose() error {
	t.viewer.sendMu.Lock()
	want, cur := t.latest(), t.cur
	var spec media.Track
	if want != nil {
		spec = want.spec
	}
	t.viewer.sendMu.Unlock()
	if want == nil { // removed: the m-line stays
		return nil
	}
	front, ok := best(t.accepted, spec)
	if !ok {
		var err error
		if front, err = t.viewer.assign(spec); err != nil {
			return fmt.Errorf("track %q: %w", t.slot, err)
		}
	}
	front.fmtp = answerFmtp(spec, front)
	list := []format{front}
	others := t.accepted
	if cur != nil {
		others = append([]format{cur.format}, others...)
	}
	for _, f := range others {
		if !slices.ContainsFunc(list, func(o format) bool { return o.pt == f.pt }) {
			list = append(list, f)
		}
	}
	t.offer = list
	return nil
}

// assign finds the payload types of a description that the peer hasn't accepted on its
// m-line: those that it has on another one, so that they last for any number of tracks.
func (v *Viewer) assign(spec media.Track) (format, error) {
	for _, f := range v.known {
		if f.codec == spec.Codec && sameProfile(spec, f) {
			return f, nil
		}
	}
	f, err := offerFormat(spec, func(pt uint8) bool {
		return slices.ContainsFunc(v.known, func(f format) bool { return f.pt == pt || f.rtx != 0 && f.rtx == pt })
	})
	if err != nil {
		return format{}, err
	}
	v.known = append(v.known, f)
	return f, nil
}

// Mid is the m-line of a track that is offered or agreed upon; "" if none is.
func (v *Viewer) Mid(slot string) string {
	v.neg.Lock()
	defer v.neg.Unlock()
	if t := v.bySlot(slot); t != nil && !t.inactive {
		return t.mid
	}
	return ""
}

// agree takes the formats that the peer has accepted, of those that it was offered.
// declined says that the one that the offer was about isn't among them; "" otherwise.
func (t *track) agree(offered, accepted []format) (declined string) {
	accepted = slices.Clone(accepted)
	for i := range accepted {
		accepted[i].inStep = t.viewer.inStep(t)
	}
	was := t.current()
	begun, given, declined := t.settle(offered, accepted)
	if now := t.current(); was != nil && now != was {
		t.requestKeyframe() // only that tells of another playout delay
	}
	if given != nil {
		given.close()
	}
	if begun != nil {
		begun.src.Notify(t.viewer.wake)
	}
	return declined
}

// inStep tells whether a picture is to be shown together with a sound.
func (v *Viewer) inStep(t *track) bool {
	return t.kind == media.Video && slices.ContainsFunc(v.tracks, func(o *track) bool {
		return o.kind == media.Audio && !o.inactive && o.streamID == t.streamID
	})
}

// settle is agree without calling sources: begun is ready now, given is given up.
func (t *track) settle(offered, accepted []format) (begun, given *encoding, declined string) {
	t.accepted = accepted
	t.viewer.sendMu.Lock()
	defer t.viewer.sendMu.Unlock()
	want := t.latest()
	if want == nil || t.named != (msid{}) && t.named != *t.msid.Load() { // it was offered as another
		return nil, nil, ""
	}
	if c := t.cur; c != nil && c != want { // its headers may change
		if i := slices.IndexFunc(accepted, func(f format) bool { return f.pt == c.format.pt }); i >= 0 {
			t.cur = c.in(accepted[i], t.ssrc, t.rtxSSRC)
		}
	}
	if f, ok := best(accepted, want.spec); ok {
		begun = want.in(f, t.ssrc, t.rtxSSRC)
		if want == t.next {
			t.next = begun
		} else {
			t.cur = begun
		}
		return begun, nil, ""
	}
	front, was := best(offered[:1], want.spec)
	if !was { // to be offered: OfferDue
		if want == t.next {
			t.next = &encoding{spec: want.spec, src: want.src} // its format may be dropped since
		}
		return nil, nil, ""
	}
	if want == t.next {
		t.next, given = nil, want
	} else {
		want.spec.Fmtp = want.format.fmtp
	}
	return nil, given, fmt.Sprintf("track %q in %s; %s stays", t.slot, front.codec.MimeType(), names(accepted))
}

// describes is the description of the latest encoding, for texts.
func (t *track) describes() media.Track {
	t.viewer.sendMu.Lock()
	defer t.viewer.sendMu.Unlock()
	if e := t.latest(); e != nil {
		return e.spec
	}
	return media.Track{Name: t.slot, Kind: t.kind}
}

// decline ends a track that the peer doesn't want.
func (v *Viewer) decline(t *track, rejected bool) {
	spec := t.describes()
	v.log.Info("viewer does not take a track", "track", t.slot, "codec", spec.Codec)
	t.inactive, t.rejected, t.accepted = true, t.rejected || rejected, nil
	t.drop()
}
