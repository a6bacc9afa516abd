package adapt

import (
	"math"
	"time"

	"gateway/internal/media"
)

const (
	lossParts    = 8
	lossPart     = 250 * time.Millisecond // of sending in one observation, at least
	lossPackets  = 20                     // and so many packets, unless they take lossLongest
	lossLongest  = time.Second
	lossMargin   = 0.02 // beyond what is inherent (draft-ietf-rmcat-gcc-02 section 6: below, the rate may grow)
	lossDeviates = 3    // standard deviations
	lossRuns     = 3    // separate losses: one burst is one event
	limitedLoss  = 0.1  // less isn't asked about while the application is the limit
	lossInherent = 0.3  // more is never taken for the network's nature
	outage       = 10   // packets lost in a row or two
	trialCut     = 0.88
	trialLosses  = 8 // losses that are expected in a trial if they are inherent
	trialLongest = 4 * time.Second
)

// lossMeter counts what was lost, in observations by the time of sending.
type lossMeter struct {
	part     observation // that isn't over
	parts    [lossParts]observation
	i        int
	closed   bool // an observation was completed since lossy looked
	lost     bool // the last packet
	smoothed float64
	inherent float64 // what is lost however little is sent
}

// observation is what became of the packets of a short time.
type observation struct {
	sent, lost, runs int
	bytes            int64
	from, to         time.Duration
}

// note counts a packet.
func (l *lossMeter) note(r *media.PacketReport, late bool) {
	p := &l.part
	if late {
		if r.Received && p.lost > 0 {
			p.lost--
		}
		return
	}
	if p.sent > 0 && (r.Sent-p.from >= lossPart && p.sent >= lossPackets || r.Sent-p.from >= lossLongest || r.Sent < p.from) {
		p.to = max(r.Sent, p.from)
		l.close()
	}
	if p.sent == 0 {
		p.from = r.Sent
	}
	p.sent++
	p.bytes += int64(r.Size)
	if !r.Received {
		p.lost++
		if !l.lost {
			p.runs++
		}
	}
	l.lost = !r.Received
}

func (l *lossMeter) close() {
	l.i = (l.i + 1) % lossParts
	l.parts[l.i] = l.part
	l.smoothed += (l.part.loss() - l.smoothed) / 4
	l.part = observation{}
	l.closed = true
}

// restart forgets the observations.
func (l *lossMeter) restart() {
	l.part, l.parts, l.closed = observation{}, [lossParts]observation{}, false
}

// recent is the sum of the last observations.
func (l *lossMeter) recent(n int) (o observation) {
	for k := range n {
		p := &l.parts[(l.i+lossParts-k)%lossParts]
		if p.sent == 0 {
			break
		}
		o.add(p)
	}
	return o
}

// rate is the bit/s that were sent in about the last second.
func (l *lossMeter) rate() float64 {
	o := l.recent(4)
	if o.sent == 0 || o.to <= o.from {
		return 0
	}
	return rateOver(o.bytes, o.to-o.from)
}

// add joins one that is next to it in time.
func (o *observation) add(p *observation) {
	if o.sent == 0 {
		*o = *p
		return
	}
	o.sent, o.lost, o.runs, o.bytes = o.sent+p.sent, o.lost+p.lost, o.runs+p.runs, o.bytes+p.bytes
	o.from, o.to = min(o.from, p.from), max(o.to, p.to)
}

// run is the mean length of losses.
func (o *observation) run() float64 { return max(float64(o.lost)/float64(max(o.runs, 1)), 1) }

func (o *observation) loss() float64 { return float64(o.lost) / float64(max(o.sent, 1)) }

// rate is the bit/s that were sent.
func (o *observation) rate() float64 {
	if o.to <= o.from {
		return 0
	}
	return rateOver(o.bytes, o.to-o.from)
}

// carried is the bit/s of sending at which nothing more than the inherent share would be lost.
func (o *observation) carried(inherent float64) float64 {
	return o.rate() * (1 - o.loss()) / (1 - inherent)
}

// exceeds tells whether more was lost than chance makes of a share. Losses that come in
// runs are as many chances as runs.
func (o *observation) exceeds(inherent float64) bool {
	if o.runs < lossRuns {
		return false
	}
	p := min(max(inherent, 0.01), 0.5)
	deviation := math.Sqrt(p * (1 - p) * o.run() / float64(o.sent))
	return o.loss() > inherent+lossMargin+lossDeviates*deviation
}

// holds tells whether loss forbids growth.
func (l *lossMeter) holds() bool {
	o := l.recent(4)
	return o.runs >= lossRuns && o.loss() > l.inherent+2*lossMargin
}

// trial is a cut that asks whether less is lost when less is sent.
type trial struct {
	on      bool
	again   bool          // the second one: the first said that it isn't
	at      time.Duration // the cut
	before  float64       // the rate before the first
	loss    float64       // then
	run     float64       // mean length of losses then
	carried float64       // bit/s then
	seen    observation
}

// lossy answers to loss. Loss that comes without delay is either the network's nature
// (radio) or a full queue too short to be noticed. Which one, a cut tells: the nature's
// stays, the queue's goes. libwebrtc's LossBasedBweV2 has the same two parameters, the
// inherent loss and the bandwidth, and fits them to observations as they happen to be.
func (e *Estimator) lossy(now time.Duration) {
	l, t := &e.loss, &e.trial
	if !l.closed {
		return
	}
	l.closed = false
	o := l.parts[l.i]
	if c := &e.control; c.draining || e.queue() > longQueue+c.tolerance {
		t.on = false // delay says it all, unless the queue is too short to show how much too much is sent
		if c.draining && o.from >= c.cutAt && o.exceeds(l.inherent) && e.queue() > c.cutQueue-emptyQueue*2 {
			c.link.see(o.carried(l.inherent), 1)
			e.cut(now, e.queue())
		}
		return
	}
	if t.on {
		e.judge(now, &o)
		return
	}
	slow := l.recent(lossParts)
	if slow.sent >= 50 && slow.loss() < l.inherent {
		l.inherent += (slow.loss() - l.inherent) / 16
	}
	if o.runs < lossRuns && o.lost > outage {
		// Gone for a moment: a full queue lets some through. If it lasts, there is no feedback.
		l.parts[l.i].lost, l.parts[l.i].runs = 0, 0
		return
	}
	last, some := o, l.recent(4)
	limited := e.control.limited // then the network was seen to carry far more, and a full queue loses much
	switch {
	case last.exceeds(l.inherent) && (!limited || last.loss() > 3*limitedLoss):
	case some.exceeds(l.inherent) && !limited:
		last = some
	case slow.exceeds(l.inherent):
		last = slow
	default:
		return
	}
	if limited && !last.exceeds(limitedLoss) {
		l.inherent = max(l.inherent, last.loss())
		return
	}
	*t = trial{before: e.bps}
	e.try(now, last)
}

// try begins a trial, below what was carried.
func (e *Estimator) try(now time.Duration, o observation) {
	t := &e.trial
	t.on, t.at, t.loss, t.run, t.seen = true, now, o.loss(), o.run(), observation{}
	t.carried = o.carried(e.loss.inherent)
	e.set(min(e.bps*trialCut, max(carries*t.carried, 0.1*e.bps)), lossGrew)
	e.probes.fail()
}

// judge ends a trial when it has told.
func (e *Estimator) judge(now time.Duration, o *observation) {
	t, l, c := &e.trial, &e.loss, &e.control
	if now-t.at < e.response()+lossPart {
		return // it was sent before the cut
	}
	t.seen.add(o)
	expected := t.loss / t.run * float64(t.seen.sent)
	if expected < trialLosses && now-t.at < trialLongest {
		return
	}
	seen := t.seen.loss()
	switch {
	case seen <= (t.loss+l.inherent)/2: // the cut was what it took
		t.on = false
		l.restart()
		c.link = capacity{}
		c.link.see(max(t.carried, e.bps), 1)
		c.settleAt = now + settle
		e.probes.soon(now, probeSoon)
	case seen > 1-trialCut && !t.again:
		// The cut may have been too small, if the loss was of a time before and after a change.
		t.again = true
		e.try(now, t.seen)
	case seen > lossInherent:
		t.on = false
		e.set(e.bps*(1-0.5*seen), lossGrew) // draft-ietf-rmcat-gcc-02 section 6
	default:
		t.on = false
		l.inherent = max(seen, (seen+t.loss)/2) // what began it was more than the mean, if it was chance
		c.before = t.before
		e.set(max(e.bps, 0.9*t.before), lossForeign)
	}
}
