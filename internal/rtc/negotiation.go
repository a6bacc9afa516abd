package rtc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"gateway/internal/media"
)

// negotiation is a viewer's offers, answers and candidates. A description is
// checked before pion sees it: pion changes its state first and finds fault
// afterwards, and a connection is not to be lost to a peer's bad text.
type negotiation struct {
	neg        sync.Mutex  // guards what follows; held for a whole Offer, SetAnswer, Answer
	unanswered atomic.Bool // an offer waits for its answer
	offered    []proposal  // the sections of the last offer, in order
	known      []format    // all that was ever offered: a payload type keeps its meaning (RFC 3264 §8.3.2)
	answers    atomic.Bool // the peer offers (WHEP)
	described  bool        // a remote description has been applied
	ufrag      string      // the peer's, of that description
	held       []string    // candidates that came too early
	candidates int         // that came since the last remote description
	paired     paired
}

// proposal is a section of an offer.
type proposal struct {
	mid      string
	track    *track   // nil: the data channels'
	formats  []format // best first
	inactive bool
}

// failed counts a negotiation that was refused and passes the error on.
func (v *Viewer) failed(err error) error {
	v.engine.metrics.failed.WithLabelValues(reason(err)).Inc()
	return err
}

func (v *Viewer) ready(ctx context.Context) error {
	if err := v.Err(); err != nil {
		return fmt.Errorf("viewer: %w (%w)", ErrClosed, err)
	}
	return ctx.Err()
}

// Offer makes an offer for all tracks, restarting ICE if asked, and starts the
// connect timeout. Each offer must be answered before the next (ErrBadState).
func (v *Viewer) Offer(ctx context.Context, restartICE bool) (string, error) {
	v.neg.Lock()
	defer v.neg.Unlock()
	if err := v.ready(ctx); err != nil {
		return "", err
	}
	switch {
	case v.unanswered.Load():
		return "", v.failed(fmt.Errorf("offer: %w: the last one waits for its answer", ErrBadState))
	case v.answers.Load():
		return "", v.failed(fmt.Errorf("offer: %w: this peer makes the offers", ErrBadState))
	case len(v.tracks) == 0 && v.data.Load() == nil:
		return "", v.failed(fmt.Errorf("offer: %w: there are no tracks", ErrBadState))
	}
	if err := v.propose(); err != nil {
		return "", v.failed(err)
	}
	for _, t := range v.tracks {
		if err := v.join(t); err != nil {
			return "", v.failed(err)
		}
	}
	v.startDeadline()
	text, err := v.offer(restartICE && v.described)
	if err != nil {
		v.end(fmt.Errorf("offer: %w", err))
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	for _, t := range v.tracks {
		t.named = *t.msid.Load()
	}
	v.unanswered.Store(true)
	return text, nil
}

// propose gives each track the formats that an offer has of it.
func (v *Viewer) propose() error {
	for _, t := range v.tracks {
		if err := t.propose(); err != nil {
			return err
		}
	}
	v.unify()
	return nil
}

// unify has a payload type say the same on all m-lines, as it must in a bundle (RFC
// 9143 §10.1.2): where streams differ in what doesn't tell formats apart, such as the
// level, the one that asks for most.
func (v *Viewer) unify() {
	most := map[uint8]string{}
	for _, t := range v.tracks {
		for _, f := range t.offer {
			if fmtp, ok := most[f.pt]; !ok || asksMore(f.fmtp, fmtp) {
				most[f.pt] = f.fmtp
			}
		}
	}
	for _, t := range v.tracks {
		for i, f := range t.offer {
			t.offer[i].fmtp = most[f.pt]
		}
	}
}

func (v *Viewer) offer(restartICE bool) (string, error) {
	text, err := v.conn.offer(restartICE)
	if err != nil {
		return "", err
	}
	proposals := map[string]proposal{}
	for _, t := range v.tracks {
		proposals[t.mid] = proposal{t.mid, t, t.offer, t.inactive}
	}
	text, v.offered, err = dress(text, proposals, nil)
	return text, err
}

// SetAnswer takes the answer to the last Offer. After an error the offer stays
// open: another answer may follow. A DeclinedError alone says that the answer was
// taken, without a format that Replace or SetFmtp wanted: the track goes on as it
// was, and the source that Replace was given is closed; or without some picture at
// all, which has ended.
func (v *Viewer) SetAnswer(ctx context.Context, sdp string) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	if err := v.ready(ctx); err != nil {
		return err
	}
	if !v.unanswered.Load() {
		return v.failed(fmt.Errorf("answer: %w: no offer waits for one", ErrBadState))
	}
	r, err := parseRemote(sdp)
	if err != nil {
		return v.failed(fmt.Errorf("answer: %w", err))
	}
	accepted, misfits, err := v.checkAnswer(r)
	if err != nil {
		return v.failed(fmt.Errorf("answer: %w", err))
	}
	var declined DeclinedError
	for i, o := range v.offered {
		switch t := o.track; {
		case t == nil || accepted[i] != nil:
		case o.inactive || t.inactive:
			t.accepted = nil
		default:
			if slices.Contains(misfits, t) {
				declined.Refused = append(declined.Refused, t.slot)
				declined.add(fmt.Sprintf("track %q in %s", t.slot, names(o.formats)))
			}
			v.decline(t, !r.sections[i].usable)
		}
	}
	for i, o := range v.offered {
		if accepted[i] == nil {
			continue
		}
		if text := o.track.agree(o.formats, accepted[i]); text != "" {
			declined.Slots = append(declined.Slots, o.track.slot)
			declined.add(text)
		}
	}
	v.describe(r)
	if err := v.conn.accept(r); err != nil {
		v.end(fmt.Errorf("answer: %w", err))
		return v.failed(fmt.Errorf("answer: %w", err))
	}
	v.unanswered.Store(false)
	v.applied()
	if declined.text != "" {
		return v.failed(fmt.Errorf("answer: %w", &declined))
	}
	return nil
}

// checkAnswer compares an answer with the offer. It returns, for each section,
// the formats that may be sent, none where the peer declined, and the pictures that
// it declined for want of a codec: of the first answer none are borne, if no picture
// is taken.
func (v *Viewer) checkAnswer(r *remote) (accepted [][]format, misfits []*track, err error) {
	if len(r.sections) != len(v.offered) {
		return nil, nil, badSDP("it has %d m-lines, the offer has %d", len(r.sections), len(v.offered))
	}
	if r.setup == "actpass" {
		return nil, nil, badSDP("setup must not be actpass in an answer")
	}
	accepted = make([][]format, len(v.offered))
	seen := false // some picture is taken
	some := !slices.ContainsFunc(v.offered, func(o proposal) bool { return o.track == nil || !o.inactive })
	for i, o := range v.offered {
		t, s := o.track, r.sections[i]
		if t == nil {
			if s.mid != o.mid || s.media != "application" {
				return nil, nil, badSDP("m-line %d is %s %q, the offer has application %q", i, s.media, s.mid, o.mid)
			}
			some = some || s.data
			continue
		}
		if s.mid != t.mid || s.kind() != t.kind {
			return nil, nil, badSDP("m-line %d is %s %q, the offer has %s %q", i, s.media, s.mid, t.kind, t.mid)
		}
		if s.usable && !s.receives || o.inactive {
			continue
		}
		formats := answered(o.formats, s)
		if !s.usable || len(formats) == 0 {
			if t.kind == media.Video {
				misfits = append(misfits, t)
				err = cmp.Or(err, fmt.Errorf("%w: peer doesn't take %s of track %q", ErrNoCodec, names(o.formats), t.slot))
			}
			continue
		}
		accepted[i], some = formats, true
		seen = seen || t.kind == media.Video
	}
	together(accepted)
	switch {
	case !v.described && err != nil && !seen:
		return nil, nil, err
	case !v.described && !some:
		return nil, nil, ErrNotReceiving
	}
	return accepted, misfits, nil
}

// answered is what an answer leaves of the formats that were offered.
func answered(offered []format, s *section) []format {
	var left []format
	for _, f := range offered {
		i := slices.IndexFunc(s.codecs, func(p peerFormat) bool { return p.pt == f.pt && p.name == string(f.codec) })
		if i < 0 {
			continue
		}
		if s.codecs[i].rtx != f.rtx {
			f.rtx = 0
		}
		if s.delayID != f.delayID {
			f.delayID = 0
		}
		if s.captureID != f.captureID {
			f.captureID = 0
		}
		if s.transport(&s.codecs[i], f.rtx) != f.transportID {
			f.transportID = 0
		}
		left = append(left, f)
	}
	return left
}

// describe takes note of a remote description that the connection is about to get.
func (v *Viewer) describe(r *remote) {
	if r.ufrag != v.ufrag {
		v.paired = nil
		if v.relays != nil {
			v.relays.forget()
		}
	}
	r.candidates = slices.DeleteFunc(r.candidates, func(line string) bool { return !v.pairs(line) })
	v.ufrag = r.ufrag
}

// pairs tells whether ICE is given a candidate.
func (v *Viewer) pairs(line string) bool {
	return (v.relays == nil || v.relays.take(line)) && v.paired.take(line)
}

// applied follows a remote description that the connection has taken.
func (v *Viewer) applied() {
	for _, t := range v.tracks {
		if !v.described && t.kind == media.Video {
			t.requestKeyframe() // it is encoded while the connection comes about
		}
	}
	v.described = true
	held := v.held
	v.held, v.candidates = nil, 0
	for _, line := range held {
		if err := v.addCandidate(line); err != nil {
			v.log.Debug("candidate is not taken", "error", err)
		}
	}
	v.settle()
	v.wake()
}

// Answer takes a peer's offer and returns the answer, with all candidates that
// are found within 3 s (WHEP). Tracks that the offer doesn't ask for are closed.
// A second offer restarts ICE when its credentials are new; it must have the
// same m-lines, and ICE must have begun to connect (ErrBadState).
func (v *Viewer) Answer(ctx context.Context, offer string) (string, error) {
	v.neg.Lock()
	defer v.neg.Unlock()
	if err := v.ready(ctx); err != nil {
		return "", err
	}
	if v.described && !v.answers.Load() || v.unanswered.Load() {
		return "", v.failed(fmt.Errorf("offer: %w: the gateway makes the offers here", ErrBadState))
	}
	r, err := parseRemote(offer)
	if err != nil {
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	sections, err := v.choose(r)
	if err != nil {
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	var offers [][]format
	for _, s := range sections {
		if t := v.byMid(s.mid); !t.inactive {
			offers = append(offers, t.offer)
		}
	}
	together(offers)
	restart := v.answers.Load() && r.ufrag != v.ufrag
	if restart && !v.conn.restartable() {
		return "", v.failed(fmt.Errorf("offer: %w: ICE hasn't begun yet and can't be restarted", ErrBadState))
	}
	v.startDeadline()
	v.describe(r)
	text, err := v.answer(ctx, r, sections, restart)
	if err != nil {
		v.end(fmt.Errorf("offer: %w", err))
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	v.answers.Store(true)
	v.applied()
	return text, nil
}

// choose assigns tracks to the sections of an offer and returns those that have one.
func (v *Viewer) choose(r *remote) ([]*section, error) {
	if v.answers.Load() {
		return v.chosen(r)
	}
	type place struct {
		t *track
		f format
		s *section
	}
	var places []place
	var misfit *track
	specs := map[*track]media.Track{}
	for _, t := range v.tracks {
		specs[t] = t.describes()
	}
	for _, s := range r.sections {
		if !s.usable || !s.receives {
			continue
		}
		for _, t := range v.tracks {
			if t.kind != s.kind() || slices.ContainsFunc(places, func(p place) bool { return p.t == t }) {
				continue
			}
			if f, ok := answerFormat(specs[t], s); ok {
				places = append(places, place{t, f, s})
				misfit = nil
				break
			}
			if misfit == nil || t.kind == media.Video {
				misfit = t
			}
		}
	}
	video := slices.ContainsFunc(places, func(p place) bool { return p.t.kind == media.Video })
	if misfit != nil && (len(places) == 0 || misfit.kind == media.Video && !video) {
		spec := specs[misfit]
		return nil, fmt.Errorf("%w: it takes no %s as track %q has it (%s)", ErrNoCodec, spec.Codec, misfit.slot, spec.Fmtp)
	}
	if len(places) == 0 {
		return nil, ErrNotReceiving
	}
	var sections []*section
	for _, p := range places {
		p.t.offer, p.t.mid = []format{p.f}, p.s.mid
		sections = append(sections, p.s)
	}
	return sections, nil
}

// chosen finds the sections of an earlier offer in a new one.
func (v *Viewer) chosen(r *remote) ([]*section, error) {
	var sections []*section
	for _, t := range v.tracks {
		if t.mid == "" {
			continue
		}
		i := slices.IndexFunc(r.sections, func(s *section) bool { return s.mid == t.mid && s.kind() == t.kind && s.usable })
		if i < 0 {
			return nil, badSDP("the m-line with mid %q is gone", t.mid)
		}
		sections = append(sections, r.sections[i])
		if t.inactive {
			continue
		}
		f, ok := stays(t.accepted, r.sections[i])
		if !ok {
			if f, ok = answerFormat(t.describes(), r.sections[i]); !ok {
				return nil, fmt.Errorf("%w: it takes %s no more", ErrNoCodec, t.describes().Codec)
			}
		}
		t.offer = []format{f}
	}
	slices.SortFunc(sections, func(a, b *section) int { return slices.Index(r.sections, a) - slices.Index(r.sections, b) })
	return sections, nil
}

// stays is the format that was agreed upon, if a section still has it.
func stays(accepted []format, s *section) (format, bool) {
	for _, f := range accepted {
		for _, p := range s.codecs {
			if p.pt == f.pt && p.name == string(f.codec) {
				f.rtx, f.delayID, f.captureID = p.rtx, s.delayID, s.captureID
				if f.codec.Kind() == media.Audio {
					f.rtx, f.delayID, f.captureID = 0, 0, 0
				}
				f.transportID, f.ccfb = s.transport(&p, f.rtx), s.ccfb(&p)
				return f, true
			}
		}
	}
	return format{}, false
}

func (v *Viewer) answer(ctx context.Context, r *remote, sections []*section, restart bool) (string, error) {
	for _, t := range v.tracks {
		if t.mid == "" && !t.inactive {
			v.decline(t, true)
		}
	}
	proposals := map[string]proposal{}
	for _, s := range sections { // in the offer's order, which is how pion assigns them
		t := v.byMid(s.mid)
		if err := v.join(t); err != nil {
			return "", err
		}
		t.agree(t.offer, t.offer)
		proposals[s.mid] = proposal{s.mid, t, t.offer, t.inactive}
	}
	text, err := v.conn.answer(ctx, r, sections, restart)
	if err != nil {
		return "", err
	}
	text, _, err = dress(text, proposals, r)
	return text, err
}

func (v *Viewer) byMid(mid string) *track {
	for _, t := range v.tracks {
		if t.mid == mid {
			return t
		}
	}
	return nil
}

// AddCandidate takes a candidate of the peer, nil at the end. Candidates that
// come before the description that they belong to are kept, 100 at most.
func (v *Viewer) AddCandidate(c *Candidate) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	if err := v.ready(context.Background()); err != nil {
		return err
	}
	line, err := readCandidate(c, &v.candidates)
	if line == "" || err != nil {
		return err
	}
	if !v.described || v.unanswered.Load() {
		v.held = append(v.held, line)
		return nil
	}
	if err := v.addCandidate(line); err != nil {
		return fmt.Errorf("%w: %v", ErrBadCandidate, err)
	}
	return nil
}

// addCandidate gives a candidate of the last remote description to the connection,
// unless that has many.
func (v *Viewer) addCandidate(line string) error {
	if !v.pairs(line) {
		return nil // as if it had never come
	}
	return v.conn.addCandidate(line)
}
