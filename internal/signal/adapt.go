package signal

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
	"gateway/internal/stream"
)

const (
	maxDecisions  = 32          // of a viewer that are remembered
	tellQuality   = time.Second // between two quality messages to who observes
	audioOverhead = 16_000      // bit/s that headers add to a sound
	wantMargin    = 1.3         // of the best bitrate that a viewer has use for: what must be carried to get it
)

// adaptation is what a session knows of its viewer's network and page, and what it
// does about it. Touched by run's goroutine only, but for newest.
type adaptation struct {
	policy   adapt.Viewer
	screen   adapt.Screen
	audible  bool // the page plays the sound
	newest   atomic.Pointer[adapt.Estimate]
	stir     chan struct{} // newest has changed
	estimate adapt.Estimate
	choice   string // rendition that the policy chose; "" before it has
	paused   bool   // nothing is sent of the picture
	muted    bool   // nor of the sound

	decisions []decision   // the last ones
	observed  *time.Ticker // while the client observes
	heardOf   string       // track of whose encoder's decisions it has heard
	heard     int          // and of how many
	told      int          // of decisions, those that it was told
	sent      uint64       // rtc.Stats.Wire at the last quality message
	sentAt    time.Time
	rate      int // bit/s that were sent until then
}

// decision is one that was made for a viewer, or for the encoder that it shares.
type decision struct {
	At     int64  `json:"at"`   // Unix milliseconds
	What   string `json:"what"` // rendition, pause, resume; of the encoder: bitrate, framerate, size
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

type qualityMessage struct {
	header
	quality
}

// quality is what a viewer gets, and why not more.
type quality struct {
	At        int64      `json:"at"`                  // Unix milliseconds
	Estimate  int        `json:"estimate,omitempty"`  // bit/s that the network carries
	Target    int        `json:"target,omitempty"`    // bit/s of the rendition's encoder
	Sent      int        `json:"sent"`                // bit/s lately, with all that is sent again
	Rendition string     `json:"rendition"`           // "": none
	Width     int        `json:"width,omitempty"`     // pixels
	Height    int        `json:"height,omitempty"`    // pixels
	FPS       float64    `json:"fps,omitempty"`       // frames a second
	Loss      float64    `json:"loss"`                // share of packets, 0 to 1
	RoundTrip float64    `json:"roundTrip,omitempty"` // ms
	Queue     float64    `json:"queue,omitempty"`     // ms that packets wait on the way
	Decisions []decision `json:"decisions"`
	Latency   *Latency   `json:"latency,omitempty"` // ms
}

// onEstimate is the viewer's OnEstimate.
func (x *session) onEstimate(e adapt.Estimate) {
	x.adapt.newest.Store(&e)
	poke(x.adapt.stir)
}

// ticks is the time to tell who observes.
func (a *adaptation) ticks() <-chan time.Time {
	if a.observed == nil {
		return nil
	}
	return a.observed.C
}

// learned follows a new estimate of what the viewer's network carries.
func (x *session) learned(ctx context.Context) error {
	a := &x.adapt
	if e := a.newest.Load(); e != nil {
		a.estimate = *e
		m := x.server.metrics
		m.estimate.WithLabelValues(x.stream.Name()).Observe(float64(e.Bps))
		m.queue.WithLabelValues(x.stream.Name()).Observe(e.Queue.Seconds())
	}
	return x.adjust(ctx)
}

// view takes note of how the client's page shows the picture.
func (x *session) view(ctx context.Context, m request) error {
	x.adapt.screen = adapt.Screen{Width: m.Width, Height: m.Height, Hidden: !m.Visible}
	x.adapt.audible = m.Audible == nil || *m.Audible
	return x.adjust(ctx)
}

// observe begins or ends to tell the client of its quality, and to note when its
// frames are sent.
func (x *session) observe(on bool) {
	if x.viewer != nil {
		x.viewer.Observe(on)
	}
	a := &x.adapt
	switch {
	case !on && a.observed != nil:
		a.observed.Stop()
		a.observed = nil
	case on && a.observed == nil:
		a.observed = time.NewTicker(tellQuality)
		a.told = 0
		x.tellQuality()
	}
}

// adjust gives the viewer what fits now: its network, its page and its wish.
func (x *session) adjust(ctx context.Context) error {
	if x.viewer == nil || !x.connected || x.legs[media.Video] == nil {
		return nil
	}
	tracks, err := x.tracks(ctx)
	if err != nil {
		return err
	}
	if !x.decide(tracks) {
		return nil
	}
	return x.rearrange(ctx, tracks)
}

// decide asks the policy, and tells whether something changes. There is a picture.
func (x *session) decide(tracks []media.Track) bool {
	a := &x.adapt
	was := ""
	if !a.paused {
		was = x.legs[media.Video].track.Name
	}
	s := adapt.Situation{Renditions: x.renditions(tracks), Playing: was, Carries: x.share(), Screen: a.screen}
	if x.selected != auto {
		s.Pinned = x.selected
	}
	x.viewer.Want(x.wants(tracks, s))
	c := a.policy.Step(media.Now(), s)
	muted := a.screen.Hidden && !a.audible
	if c.Rendition == was && a.paused == (c.Rendition == "") && muted == a.muted {
		return false
	}
	a.muted = muted
	switch paused := c.Rendition == ""; {
	case paused && !a.paused:
		x.decided(decision{What: "pause", From: was, Reason: c.Reason})
	case !paused && a.paused:
		x.decided(decision{What: "resume", To: c.Rendition, Reason: "the page is seen again"})
	case c.Rendition != was:
		x.decided(decision{What: "rendition", From: was, To: c.Rendition, Reason: c.Reason})
	}
	a.choice, a.paused = c.Rendition, c.Rendition == ""
	return true
}

// decided notes a decision for the viewer.
func (x *session) decided(d decision) {
	d.At = time.Now().UnixMilli()
	x.server.metrics.decisions.WithLabelValues(d.What).Inc()
	x.log.Info("viewer adapts", "what", d.What, "from", d.From, "to", d.To, "reason", d.Reason)
	x.remember(d)
}

// encoderDecided notes what was decided lately for the encoder whose picture the viewer gets.
func (x *session) encoderDecided(info stream.Info) {
	a := &x.adapt
	for _, t := range info.Tracks {
		if t.Kind != media.Video || t.Name != x.playing || t.Adaptation == nil {
			continue
		}
		if a.heardOf != t.Name || t.Adaptation.Made < a.heard { // what was before is none of this viewer's; or it is counted anew
			a.heardOf, a.heard = t.Name, t.Adaptation.Made
		}
		fresh := min(t.Adaptation.Made-a.heard, len(t.Adaptation.Decisions))
		a.heard = t.Adaptation.Made
		for _, d := range t.Adaptation.Decisions[len(t.Adaptation.Decisions)-fresh:] {
			x.remember(decision(d))
		}
	}
}

func (x *session) remember(d decision) {
	a := &x.adapt
	if len(a.decisions) == maxDecisions {
		a.decisions = slices.Delete(a.decisions, 0, 1)
		a.told = max(a.told-1, 0)
	}
	a.decisions = append(a.decisions, d)
	if a.observed != nil {
		x.tellQuality()
	}
}

// renditions lists what the client may be given, with the bitrate that each would
// have with it. Another codec is no choice where there is another rendition in the
// present one: it takes a negotiation and a new decoder.
func (x *session) renditions(tracks []media.Track) []adapt.Rendition {
	var list []adapt.Rendition
	carries := x.share()
	l := x.legs[media.Video]
	takes := func(t media.Track) bool { return t.Kind == media.Video && x.codecs.takes(t) }
	kept := func(t media.Track) bool { return l == nil || t.Codec == l.track.Codec }
	alone := true
	for _, t := range tracks {
		if l != nil && takes(t) && kept(t) && t.Name != l.track.Name {
			alone = false
		}
	}
	for _, t := range tracks {
		if !takes(t) || !kept(t) && (x.fixed || !alone && t.Name != x.selected) {
			continue
		}
		r := adapt.Rendition{Name: t.Name, Width: t.Width, Height: t.Height}
		if l != nil && l.sub != nil && l.track.Name == t.Name {
			r.Bps = l.sub.Carry(carries)
		} else {
			r.Bps = x.stream.Target(t.Name, carries)
		}
		list = append(list, r)
	}
	if !slices.ContainsFunc(list, func(r adapt.Rendition) bool { return r.Width*r.Height == 0 }) {
		slices.SortStableFunc(list, func(a, b adapt.Rendition) int { return b.Width*b.Height - a.Width*a.Height })
	}
	return list
}

// share is what the viewer's network carries of its picture, in bit/s; 0 if unknown.
func (x *session) share() int {
	claims := []adapt.Claim{{Pixels: 1, Most: adapt.MaxBps}, {Audio: true, Most: x.soundClaim()}}
	return adapt.Divide(x.adapt.estimate.Media(), claims)[0]
}

// soundClaim is the bit/s that the viewer's sound takes, with headers.
func (x *session) soundClaim() int {
	l := x.legs[media.Audio]
	if l == nil || x.adapt.muted {
		return 0
	}
	return l.track.Bps + audioOverhead
}

// wants is how many bit/s the viewer has use for.
func (x *session) wants(tracks []media.Track, s adapt.Situation) int {
	sum := x.soundClaim()
	best := s.Pinned
	if best == "" && !s.Screen.Hidden {
		best = adapt.Covering(s.Renditions, s.Screen)
	}
	for _, t := range tracks {
		if t.Kind == media.Video && t.Name == best && !s.Screen.Hidden {
			sum += int(wantMargin * float64(max(t.Bps, t.MaxBps)))
		}
	}
	return sum
}

// tellQuality tells who observes.
func (x *session) tellQuality() {
	a := &x.adapt
	q := x.quality()
	q.Decisions = append([]decision{}, a.decisions[a.told:]...)
	a.told = len(a.decisions)
	x.client.send(&qualityMessage{x.header("quality", ""), q})
}

// quality is what the viewer gets now, without decisions.
func (x *session) quality() quality {
	a := &x.adapt
	q := quality{At: time.Now().UnixMilli(), Rendition: x.playing, Decisions: []decision{}}
	if x.viewer == nil {
		return q
	}
	q.Latency = x.ledger.latency(media.Now())
	stats := x.viewer.Stats()
	q.Estimate, q.Loss = stats.Estimate.Bps, max(stats.Loss, stats.TransportLoss)
	q.RoundTrip, q.Queue = milliseconds(stats.RTT), milliseconds(stats.Estimate.Queue)
	now := time.Now()
	if d := now.Sub(a.sentAt); a.sentAt.IsZero() || d > tellQuality/2 {
		if !a.sentAt.IsZero() {
			a.rate = int(float64(8*(stats.Wire-a.sent)) / d.Seconds())
		}
		a.sent, a.sentAt = stats.Wire, now
	}
	q.Sent = a.rate
	for _, t := range x.stream.Info().Tracks {
		if t.Kind == media.Video && t.Name == q.Rendition {
			q.Target, q.Width, q.Height, q.FPS = t.Bitrate, t.Width, t.Height, t.FPS
			if t.Adaptation != nil {
				q.Target = t.Adaptation.Target
			}
		}
	}
	return q
}

// pause ends what is sent of a kind until it is sent again.
func (x *session) pause(kind media.Kind) error {
	l := x.legs[kind]
	if l == nil || l.sub == nil || l.declined {
		return nil
	}
	l.sub = nil
	if kind == media.Video {
		x.playing = ""
		x.tell("")
	}
	return x.viewer.Pause(slot(kind))
}
