package signal

import (
	"cmp"
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
	prepareFor    = time.Second // a rendition is kept ready for a move to it
	prepareAgain  = 5 * time.Second
	backMargin    = 1.2     // of the least bitrate of a picture that there was no room for
	keepMargin    = 1.1     // of the least bitrate of a picture: what it is left with beside larger ones
	unknownLeast  = 300_000 // bit/s, of a rendition whose bitrate isn't known
	unknownMost   = 2_500_000
)

// transport is what a session knows of its viewer's network. Touched by run's
// goroutine only, but for newest.
type transport struct {
	newest   atomic.Pointer[adapt.Estimate]
	stir     chan struct{} // newest has changed
	estimate adapt.Estimate
	changes  adapt.Changes
	observed *time.Ticker // while the client observes
	sent     uint64       // rtc.Stats.Wire at the last quality message
	sentAt   time.Time
	rate     int // bit/s that were sent until then
}

// adaptation is what is known of how the client's page shows a stream, and what is
// done about that and the network.
type adaptation struct {
	policy  adapt.Viewer
	screen  adapt.Screen
	audible bool   // the page plays the sound
	share   int    // bit/s of the network that the picture has; 0: unknown
	crowded bool   // sound and larger pictures leave it less than it needs
	choice  string // rendition that the policy chose; "" before it has
	paused  bool   // nothing is sent of the picture
	why     string // that is so though the page is seen, in words
	muted   bool   // nor of the sound

	prepared time.Duration // when a lower rendition was asked for a keyframe ahead of a move; 0: never

	decisions []decision // the last ones
	heardOf   string     // track of whose encoder's decisions it has heard
	heard     int        // and of how many
	passedOn  int        // of decisions, those that the client was told
}

// view is how a client's page shows a stream.
type view struct {
	width, height    int // device pixels
	visible, audible bool
}

// decision is one that was made for a viewer, or for the encoder that it shares.
type decision struct {
	At     int64  `json:"at"`   // Unix milliseconds
	What   string `json:"what"` // estimate, rendition, pause, resume; of the encoder: bitrate, framerate, size
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

type qualityMessage struct {
	header
	Stream string `json:"stream"`
	quality
}

// quality is what a viewer gets, and why not more.
type quality struct {
	At        int64      `json:"at"`                  // Unix milliseconds
	Estimate  int        `json:"estimate,omitempty"`  // bit/s that the network carries
	Share     int        `json:"share,omitempty"`     // bit/s of it that this picture has
	Target    int        `json:"target,omitempty"`    // bit/s of the rendition's encoder
	Sent      int        `json:"sent"`                // bit/s lately, of all streams, with all that is sent again
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
	x.network.newest.Store(&e)
	poke(x.network.stir)
}

// ticks is the time to tell who observes.
func (t *transport) ticks() <-chan time.Time {
	if t.observed == nil {
		return nil
	}
	return t.observed.C
}

// learned follows a new estimate of what the viewer's network carries.
func (x *session) learned(ctx context.Context) error {
	if e := x.network.newest.Load(); e != nil {
		x.network.estimate = *e
		m := x.server.metrics
		for _, w := range x.watches {
			m.estimate.WithLabelValues(w.stream.Name()).Observe(float64(e.Bps))
			m.queue.WithLabelValues(w.stream.Name()).Observe(e.Queue.Seconds())
		}
		if c, ok := x.network.changes.Step(media.Now(), *e); ok {
			x.estimated(c)
		}
	}
	return x.adjust(ctx)
}

// estimated notes a change of the estimate for all that the viewer watches: the
// network is theirs together.
func (x *session) estimated(c adapt.Change) {
	x.server.metrics.changes.WithLabelValues(c.Cause).Inc()
	x.log.Debug("viewer adapts", "what", c.What, "from", c.From, "to", c.To, "reason", c.Reason)
	for _, w := range x.watches {
		w.remember(decision{time.Now().UnixMilli(), c.What, c.From, c.To, c.Reason})
	}
}

// observe begins or ends to tell the client of its quality, and to note when its
// frames are sent.
func (x *session) observe(on bool) {
	if x.viewer != nil {
		x.viewer.Observe(on)
	}
	n := &x.network
	switch {
	case !on && n.observed != nil:
		n.observed.Stop()
		n.observed = nil
	case on && n.observed == nil:
		n.observed = time.NewTicker(tellQuality)
		for _, w := range x.watches {
			w.passedOn = 0
		}
		x.tellQuality()
	}
}

// adjust gives the viewer what fits now: its network, its page and its wish.
func (x *session) adjust(ctx context.Context) error {
	if x.viewer == nil || !x.connected {
		return nil
	}
	x.divide()
	for _, w := range slices.Clone(x.watches) {
		if !slices.Contains(x.watches, w) {
			continue // it went with another
		}
		if err := w.adjust(ctx); err != nil {
			if err := x.lose(ctx, w, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// adjust is session.adjust for one of the streams.
func (w *watch) adjust(ctx context.Context) error {
	if w.legs[media.Video] == nil {
		return nil
	}
	tracks, err := w.tracks(ctx)
	if err != nil {
		return err
	}
	if !w.decide(tracks) {
		return nil
	}
	return w.rearrange(ctx, tracks)
}

// divide shares what the viewer's network carries among all that it watches: sound
// first, then what is largest on screen.
func (x *session) divide() {
	var claims []adapt.Claim
	pictures, wanted := 0, 0
	for _, w := range x.watches {
		c := w.claim()
		if c.Pixels > 0 {
			pictures++
		}
		sound := w.soundClaim()
		claims = append(claims, c, adapt.Claim{Audio: true, Most: sound})
		wanted += c.Most + sound
	}
	if x.viewer != nil {
		x.viewer.Want(wanted)
	}
	if pictures == 1 { // what is carried beyond its wants is known too
		for i := range claims {
			if claims[i].Pixels > 0 {
				claims[i].Most = adapt.MaxBps
			}
		}
	}
	carried := x.network.estimate.Media()
	shares := adapt.Divide(carried, claims)
	for i, w := range x.watches {
		w.share = shares[2*i]
		w.crowded = carried > 0 && w.share == 0 && claims[2*i].Floor > 0 && pictures > 1
		if w.crowded {
			w.share = claims[2*i].Floor // until it is paused
		} else if carried > 0 {
			w.share = max(w.share, 1) // 0 is unknown
		}
		if l := w.legs[media.Video]; l != nil && l.sub != nil {
			l.sub.Carry(w.share)
		}
	}
}

// over is a context that has ended: what is asked with it doesn't wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// claim is what the watch's picture claims of the network: nothing while it isn't
// seen, or its source isn't there.
func (w *watch) claim() adapt.Claim {
	if w.screen.Hidden || w.legs[media.Video] == nil && !w.fresh {
		return adapt.Claim{}
	}
	tracks, err := w.tracks(over)
	if err != nil { // closed, or not known yet
		return adapt.Claim{}
	}
	list := w.choices(tracks)
	if len(list) == 0 {
		return adapt.Claim{}
	}
	best, least := list[0], list[len(list)-1]
	if i := slices.IndexFunc(list, func(t media.Track) bool { return t.Name == w.wished(list) }); i >= 0 {
		best = list[i]
	}
	if w.selected == best.Name {
		least = best
	}
	c := adapt.Claim{
		Pixels: w.screen.Width * w.screen.Height,
		Least:  int(keepMargin * float64(cmp.Or(least.Bps, unknownLeast))),
		Most:   int(wantMargin * float64(cmp.Or(max(best.Bps, best.MaxBps), unknownMost))),
	}
	if c.Pixels == 0 {
		c.Pixels = max(best.Width*best.Height, 1) // nobody has said
	}
	c.Floor = min(cmp.Or(least.MinBps, least.Bps), c.Least)
	if w.paused {
		c.Floor = min(int(backMargin*float64(c.Floor)), c.Least)
	}
	if w.selected != auto {
		c.Floor = 0 // what was chosen by hand is kept
	}
	return c
}

// wished is the rendition that the viewer gets if its network carries it.
func (w *watch) wished(list []media.Track) string {
	if w.selected != auto {
		return w.selected
	}
	return adapt.Covering(sizes(list), w.screen)
}

// decide asks the policy, and tells whether something changes. There is a picture.
func (w *watch) decide(tracks []media.Track) bool {
	was := ""
	if !w.paused {
		was = w.legs[media.Video].track.Name
	}
	s := adapt.Situation{Renditions: w.renditions(tracks), Playing: was, Carries: w.share, Screen: w.screen, Crowded: w.crowded}
	if w.selected != auto {
		s.Pinned = w.selected
	}
	c := w.policy.Step(media.Now(), s)
	w.prepare(c.Ahead)
	muted := w.screen.Hidden && !w.audible
	if c.Rendition == was && w.paused == (c.Rendition == "") && muted == w.muted {
		return false
	}
	w.muted = muted
	switch paused := c.Rendition == ""; {
	case paused && !w.paused:
		if w.why = ""; !w.screen.Hidden {
			w.why = c.Reason
		}
		w.decided(decision{What: "pause", From: was, Reason: c.Reason})
	case !paused && w.paused:
		w.decided(decision{What: "resume", To: c.Rendition, Reason: w.resumes()})
		w.why = ""
	case c.Rendition != was:
		w.decided(decision{What: "rendition", From: was, To: c.Rendition, Reason: c.Reason})
	}
	w.choice, w.paused = c.Rendition, c.Rendition == ""
	return true
}

// prepare asks for a keyframe of a rendition that may be next, so that a move to it needn't
// wait: a subscription begins with one that is half a second old at most. Its encoder
// is started if nobody watches it, and has a second until somebody does.
func (w *watch) prepare(rendition string) {
	now := media.Now()
	if rendition == "" || w.prepared != 0 && now-w.prepared < prepareAgain {
		return
	}
	sub, err := w.stream.Subscribe(rendition)
	if err != nil {
		return // it can't be moved to either
	}
	w.prepared = now
	sub.Next(nil)
	time.AfterFunc(prepareFor, sub.Close)
}

// resumes is why a picture is sent again.
func (w *watch) resumes() string {
	if w.why == "" {
		return "the page is seen again"
	}
	return "the network has room for it again"
}

// firstChoice is the rendition that a picture begins with, by what is known of the
// page and of its share of the network; "" where nothing is.
func (w *watch) firstChoice(tracks []media.Track) string {
	if w.screen == (adapt.Screen{}) && w.share == 0 {
		return ""
	}
	s := adapt.Situation{Renditions: w.renditions(tracks), Carries: w.share, Screen: w.screen}
	if s.Screen.Hidden { // the client is offered something all the same
		s.Screen = adapt.Screen{Width: 1, Height: 1}
	}
	return new(adapt.Viewer).Step(media.Now(), s).Rendition
}

// decided notes a decision for the viewer.
func (w *watch) decided(d decision) {
	d.At = time.Now().UnixMilli()
	w.session.server.metrics.decisions.WithLabelValues(d.What).Inc()
	w.log.Info("viewer adapts", "what", d.What, "from", d.From, "to", d.To, "reason", d.Reason)
	w.remember(d)
}

// encoderDecided notes what was decided lately for the encoder whose picture the viewer gets.
func (w *watch) encoderDecided(info stream.Info) {
	for _, t := range info.Tracks {
		if t.Kind != media.Video || t.Name != w.playing || t.Adaptation == nil {
			continue
		}
		if w.heardOf != t.Name || t.Adaptation.Made < w.heard { // what was before is none of this viewer's; or it is counted anew
			w.heardOf, w.heard = t.Name, t.Adaptation.Made
		}
		fresh := min(t.Adaptation.Made-w.heard, len(t.Adaptation.Decisions))
		w.heard = t.Adaptation.Made
		for _, d := range t.Adaptation.Decisions[len(t.Adaptation.Decisions)-fresh:] {
			w.remember(decision(d))
		}
	}
}

// remember keeps a decision. Where there are too many the oldest goes, of estimates, of
// which there may be one a second, before all others.
func (w *watch) remember(d decision) {
	if len(w.decisions) == maxDecisions {
		oldest := max(slices.IndexFunc(w.decisions, func(d decision) bool { return d.What == "estimate" }), 0)
		w.decisions = slices.Delete(w.decisions, oldest, oldest+1)
		if oldest < w.passedOn {
			w.passedOn--
		}
	}
	w.decisions = append(w.decisions, d)
	if w.session.network.observed != nil {
		w.tellQuality()
	}
}

// choices lists what the client may be given, best first. Another codec is no choice
// where there is another rendition in the present one: it takes a negotiation and a
// new decoder.
func (w *watch) choices(tracks []media.Track) []media.Track {
	x, l := w.session, w.legs[media.Video]
	takes := func(t media.Track) bool { return t.Kind == media.Video && x.codecs.takes(t) }
	kept := func(t media.Track) bool { return l == nil || t.Codec == l.track.Codec }
	alone := true
	for _, t := range tracks {
		if l != nil && takes(t) && kept(t) && t.Name != l.track.Name {
			alone = false
		}
	}
	list := slices.DeleteFunc(slices.Clone(tracks), func(t media.Track) bool {
		return !takes(t) || !kept(t) && (x.fixed || !alone && t.Name != w.selected)
	})
	if !slices.ContainsFunc(list, func(t media.Track) bool { return t.Width*t.Height == 0 }) {
		slices.SortStableFunc(list, func(a, b media.Track) int { return b.Width*b.Height - a.Width*a.Height })
	}
	return list
}

// sizes are tracks as renditions whose bitrates don't matter.
func sizes(list []media.Track) []adapt.Rendition {
	var renditions []adapt.Rendition
	for _, t := range list {
		renditions = append(renditions, adapt.Rendition{Name: t.Name, Width: t.Width, Height: t.Height})
	}
	return renditions
}

// renditions lists what the client may be given, with the bitrate that each would
// have with it.
func (w *watch) renditions(tracks []media.Track) []adapt.Rendition {
	list := sizes(w.choices(tracks))
	l := w.legs[media.Video]
	for i := range list {
		if r := &list[i]; l != nil && l.sub != nil && l.track.Name == r.Name {
			r.Bps = l.sub.Carry(w.share)
		} else {
			r.Bps = w.stream.Target(r.Name, w.share)
		}
	}
	return list
}

// soundClaim is the bit/s that the watch's sound takes, with headers.
func (w *watch) soundClaim() int {
	l := w.legs[media.Audio]
	if l == nil || w.muted {
		return 0
	}
	return l.track.Bps + audioOverhead
}

// pause ends what is sent of a kind until it is sent again.
func (w *watch) pause(kind media.Kind) error {
	l := w.legs[kind]
	if l == nil || l.sub == nil || l.declined {
		return nil
	}
	l.sub = nil
	if kind == media.Video {
		w.playing = ""
		w.tell("")
	}
	return w.session.viewer.Pause(w.slot(kind))
}
