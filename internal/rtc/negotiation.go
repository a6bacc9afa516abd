package rtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// negotiation is a viewer's offers, answers and candidates. A description is
// checked before pion sees it: pion changes its state first and finds fault
// afterwards, and a connection is not to be lost to a peer's bad text.
type negotiation struct {
	neg        sync.Mutex  // guards what follows; held for a whole Offer, SetAnswer, Answer
	unanswered atomic.Bool // an offer waits for its answer
	offered    []*track    // the sections of the last offer, in order
	answers    bool        // the peer offers (WHEP)
	described  bool        // a remote description has been applied
	ufrag      string      // the peer's, of that description
	held       []string    // candidates that came too early
	candidates int         // that came since the last remote description
}

// AddTrack adds a track that the next Offer or Answer carries. Tracks with the
// same streamID are played in step. The viewer owns src and closes it, also
// when AddTrack fails.
func (v *Viewer) AddTrack(t media.Track, streamID string, src Source) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	err := v.addTrack(t, streamID, src)
	if err != nil {
		src.Close()
	}
	return err
}

func (v *Viewer) addTrack(t media.Track, streamID string, src Source) error {
	if !token(t.Name) || !token(streamID) {
		return fmt.Errorf("track %q of stream %q: not a name that SDP can carry", t.Name, streamID)
	}
	if len(v.tracks) == maxTracksViewer {
		return fmt.Errorf("track %q: a viewer takes %d tracks at most", t.Name, maxTracksViewer)
	}
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if v.gone || v.Err() != nil {
		return fmt.Errorf("track %q: viewer: %w", t.Name, ErrClosed)
	}
	v.tracks = append(slices.Clip(v.tracks), newTrack(v, t, streamID, src))
	return nil
}

// join gives a track its place in pion's connection.
func (v *Viewer) join(t *track) error {
	if t.sender != nil {
		return nil
	}
	tr, err := v.pc.AddTransceiverFromTrack(t, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return fmt.Errorf("track %q: %w", t.spec.Name, err)
	}
	e := tr.Sender().GetParameters().Encodings[0]
	t.sender, t.transceiver = tr.Sender(), tr
	t.ssrc, t.rtxSSRC = uint32(e.SSRC), uint32(e.RTX.SSRC)
	v.bySSRC.Store(t.ssrc, t)
	if t.rtxSSRC != 0 {
		v.bySSRC.Store(t.rtxSSRC, t)
	}
	return nil
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
	case v.answers:
		return "", v.failed(fmt.Errorf("offer: %w: this peer makes the offers", ErrBadState))
	case len(v.tracks) == 0:
		return "", v.failed(fmt.Errorf("offer: %w: there are no tracks", ErrBadState))
	}
	if err := v.formats(); err != nil {
		return "", v.failed(err)
	}
	for _, t := range v.tracks {
		if err := v.join(t); err != nil {
			return "", v.failed(err)
		}
	}
	restartICE = restartICE && v.described
	if restartICE {
		v.open.Store(false) // pion drops what is written until ICE is back; the source keeps it
	}
	v.startDeadline()
	text, err := v.pionOffer(restartICE)
	if err != nil {
		v.end(fmt.Errorf("offer: %w", err))
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	v.offered = slices.Clone(v.tracks)
	v.unanswered.Store(true)
	return text, nil
}

// formats gives each new track its payload types, and all their current fmtp.
func (v *Viewer) formats() error {
	for i, t := range v.tracks {
		if t.sender != nil {
			t.format.fmtp = t.spec.Fmtp
			continue
		}
		f, err := offerFormat(t.spec, func(pt uint8) bool {
			return slices.ContainsFunc(v.tracks[:i], func(o *track) bool {
				return o.format.pt == pt || o.format.rtx != 0 && o.format.rtx == pt
			})
		})
		if err != nil {
			return err
		}
		t.format = f
	}
	return nil
}

func (v *Viewer) pionOffer(restartICE bool) (string, error) {
	d, err := v.pc.CreateOffer(&webrtc.OfferOptions{
		OfferAnswerOptions: webrtc.OfferAnswerOptions{ICETricklingSupported: true}, ICERestart: restartICE,
	})
	if err != nil {
		return "", err
	}
	formats := map[string]format{}
	for _, t := range v.tracks {
		t.mid = t.transceiver.Mid()
		formats[t.mid] = t.format
	}
	text, err := dress(d.SDP, formats, nil)
	if err != nil {
		return "", err
	}
	return text, v.pc.SetLocalDescription(d)
}

// SetAnswer takes the answer to the last Offer. After an error the offer stays
// open: another answer may follow.
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
	accepted, err := v.checkAnswer(r)
	if err != nil {
		return v.failed(fmt.Errorf("answer: %w", err))
	}
	for i, t := range v.offered {
		if f := accepted[i]; f != nil {
			t.configure(*f)
		} else if !t.format.inactive {
			v.decline(t)
		}
	}
	setup := r.setup
	if setup == "" {
		setup = "active"
	}
	v.describe(r)
	d := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: r.forPion(r.sections, setup)}
	if err := v.pc.SetRemoteDescription(d); err != nil {
		v.end(fmt.Errorf("answer: %w", err))
		return v.failed(fmt.Errorf("answer: %w", err))
	}
	v.unanswered.Store(false)
	v.applied()
	return nil
}

// checkAnswer compares an answer with the offer. It returns, for each section,
// the format in use, nil where the peer declined.
func (v *Viewer) checkAnswer(r *remote) ([]*format, error) {
	if len(r.sections) != len(v.offered) {
		return nil, badSDP("it has %d m-lines, the offer has %d", len(r.sections), len(v.offered))
	}
	if r.setup == "actpass" {
		return nil, badSDP("setup must not be actpass in an answer")
	}
	accepted := make([]*format, len(v.offered))
	some := false
	for i, t := range v.offered {
		s := r.sections[i]
		if s.mid != t.mid || s.kind() != t.spec.Kind {
			return nil, badSDP("m-line %d is %s %q, the offer has %s %q", i, s.media, s.mid, t.spec.Kind, t.mid)
		}
		if s.usable && !s.receives || t.format.inactive {
			continue
		}
		f, ok := answered(t.format, s)
		if !s.usable || !ok {
			if t.spec.Kind == media.Video {
				return nil, fmt.Errorf("%w: peer doesn't take %s of track %q", ErrNoCodec, t.spec.Codec, t.spec.Name)
			}
			continue
		}
		accepted[i], some = &f, true
	}
	if !some {
		return nil, ErrNotReceiving
	}
	return accepted, nil
}

// answered is what an answer leaves of the format that was offered.
func answered(offer format, s *section) (format, bool) {
	i := slices.IndexFunc(s.codecs, func(p peerFormat) bool { return p.pt == offer.pt && p.name == string(offer.codec) })
	if i < 0 {
		return format{}, false
	}
	f := offer
	if s.codecs[i].rtx != offer.rtx {
		f.rtx = 0
	}
	if s.delayID != offer.delayID {
		f.delayID = 0
	}
	return f, true
}

func (v *Viewer) decline(t *track) {
	v.log.Info("viewer does not take a track", "track", t.spec.Name, "codec", t.spec.Codec)
	t.format.inactive = true
	t.decline()
}

// describe takes note of a remote description that pion is about to get.
func (v *Viewer) describe(r *remote) {
	if v.relays != nil {
		if r.ufrag != v.ufrag {
			v.relays.forget()
		}
		r.candidates = slices.DeleteFunc(r.candidates, func(line string) bool { return !v.relays.take(line) })
	}
	v.ufrag = r.ufrag
}

// applied follows a remote description that pion has taken.
func (v *Viewer) applied() {
	if !v.described && v.relays == nil { // the look's candidate would be filtered out
		v.hurry()
	}
	for _, t := range v.tracks {
		if !v.described && t.spec.Kind == media.Video {
			t.src.RequestKeyframe() // it is encoded while the connection comes about
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
	if v.described && !v.answers || v.unanswered.Load() {
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
	if v.answers && r.ufrag != v.ufrag {
		// As in Offer. pion's agent can't be restarted while it gathers (a data race),
		// nor before it has begun to connect, on another goroutine: that would bring
		// back the last offer's credentials.
		if v.current() == StateNew || v.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering {
			return "", v.failed(fmt.Errorf("offer: %w: ICE hasn't begun yet and can't be restarted", ErrBadState))
		}
		v.open.Store(false)
	}
	v.startDeadline()
	v.describe(r)
	text, err := v.pionAnswer(ctx, r, sections)
	if err != nil {
		v.end(fmt.Errorf("offer: %w", err))
		return "", v.failed(fmt.Errorf("offer: %w", err))
	}
	v.answers = true
	v.applied()
	return text, nil
}

// choose assigns tracks to the sections of an offer and returns those that have one.
func (v *Viewer) choose(r *remote) ([]*section, error) {
	if v.answers {
		return v.chosen(r)
	}
	type place struct {
		t *track
		f format
		s *section
	}
	var places []place
	var misfit *track
	for _, s := range r.sections {
		if !s.usable || !s.receives {
			continue
		}
		for _, t := range v.tracks {
			if t.spec.Kind != s.kind() || slices.ContainsFunc(places, func(p place) bool { return p.t == t }) {
				continue
			}
			if f, ok := answerFormat(t.spec, s); ok {
				places = append(places, place{t, f, s})
				misfit = nil
				break
			}
			if misfit == nil || t.spec.Kind == media.Video {
				misfit = t
			}
		}
	}
	video := slices.ContainsFunc(places, func(p place) bool { return p.t.spec.Kind == media.Video })
	if misfit != nil && (len(places) == 0 || misfit.spec.Kind == media.Video && !video) {
		return nil, fmt.Errorf("%w: it takes no %s as track %q has it (%s)", ErrNoCodec, misfit.spec.Codec, misfit.spec.Name, misfit.spec.Fmtp)
	}
	if len(places) == 0 {
		return nil, ErrNotReceiving
	}
	var sections []*section
	for _, p := range places {
		p.t.format, p.t.mid = p.f, p.s.mid
		sections = append(sections, p.s)
	}
	return sections, nil
}

// chosen finds the sections of an earlier offer in a new one.
func (v *Viewer) chosen(r *remote) ([]*section, error) {
	var sections []*section
	for _, t := range v.tracks {
		if t.mid == "" || t.format.inactive {
			continue
		}
		i := slices.IndexFunc(r.sections, func(s *section) bool { return s.mid == t.mid && s.kind() == t.spec.Kind && s.usable })
		if i < 0 {
			return nil, badSDP("the m-line with mid %q is gone", t.mid)
		}
		f, ok := answerFormat(t.spec, r.sections[i])
		if !ok {
			return nil, fmt.Errorf("%w: it takes %s no more", ErrNoCodec, t.spec.Codec)
		}
		t.format = f
		sections = append(sections, r.sections[i])
	}
	slices.SortFunc(sections, func(a, b *section) int { return slices.Index(r.sections, a) - slices.Index(r.sections, b) })
	return sections, nil
}

func (v *Viewer) pionAnswer(ctx context.Context, r *remote, sections []*section) (string, error) {
	formats := map[string]format{}
	for _, s := range sections { // in the offer's order, which is how pion assigns them
		t := v.byMid(s.mid)
		if err := v.join(t); err != nil {
			return "", err
		}
		t.configure(t.format)
		formats[s.mid] = t.format
	}
	for _, t := range v.tracks {
		if t.mid == "" && !t.format.inactive {
			v.decline(t)
		}
	}
	setup := r.setup
	if setup == "" {
		setup = "actpass"
	}
	if err := v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: r.forPion(sections, setup)}); err != nil {
		return "", err
	}
	d, err := v.pc.CreateAnswer(&webrtc.AnswerOptions{OfferAnswerOptions: webrtc.OfferAnswerOptions{ICETricklingSupported: true}})
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(v.pc)
	if err := v.pc.SetLocalDescription(d); err != nil {
		return "", err
	}
	timeout := time.NewTimer(gatherTimeout)
	defer timeout.Stop()
	select {
	case <-gathered:
	case <-timeout.C:
		v.log.Warn("not all candidates were found in time", "waited", gatherTimeout)
	case <-ctx.Done():
		return "", ctx.Err()
	}
	local := v.pc.LocalDescription()
	if local == nil {
		return "", ErrClosed
	}
	return dress(local.SDP, formats, r)
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
	if c == nil || c.Candidate == "" {
		return nil // pion has no use for the end
	}
	if v.candidates++; v.candidates > maxCandidates {
		return fmt.Errorf("%w: there are more than %d", ErrBadCandidate, maxCandidates)
	}
	line := strings.TrimPrefix(c.Candidate, "candidate:")
	if err := usableCandidate(line); errors.Is(err, errUseless) {
		return nil
	} else if err != nil {
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

// addCandidate gives a candidate of the last remote description to pion.
func (v *Viewer) addCandidate(line string) error {
	if v.relays != nil && !v.relays.take(line) {
		return nil // as if it had never come
	}
	return v.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: line})
}

// SetFmtp changes the format parameters of a track, such as the H.264 level;
// the next Offer carries them. An unknown track is ignored.
func (v *Viewer) SetFmtp(track, fmtp string) {
	v.neg.Lock()
	defer v.neg.Unlock()
	for _, t := range v.tracks {
		if t.spec.Name == track {
			t.spec.Fmtp = fmtp
		}
	}
}
