package adapt

import (
	"math"
	"time"
)

const (
	packet = 1200                   // bytes of a usual one
	maxRTT = 2 * time.Second        // more isn't believed
	maxDt  = 250 * time.Millisecond // of growth between two feedbacks

	trendQueue   = 12 * time.Millisecond // a trend counts only if the queue is longer
	longQueue    = 45 * time.Millisecond // and one of this length counts by itself
	emptyQueue   = 12 * time.Millisecond
	drainTime    = 700 * time.Millisecond // in which a queue is to be gone
	drainLeast   = 0.5                    // of the capacity that is left to the stream meanwhile
	drainMost    = 0.9
	backTo       = 0.95 // of the capacity when it is gone
	settle       = 300 * time.Millisecond
	standsAfter  = 300 * time.Millisecond // a queue that doesn't fall so long after a cut stands
	foreignAfter = time.Second            // a queue that hasn't fallen so long after a cut isn't ours
	samePath     = 8 * time.Millisecond   // by which the delay of a longer way varies at most
	foreignFor   = 10 * time.Second       // in which tolerance of a queue that isn't ours halves

	growth       = 1.08 // a second, away from the capacity (draft-ietf-rmcat-gcc-02 section 5.5)
	regrowth     = 3.0  // a second, up to what was carried before
	ackedFactor  = 1.5  // an estimate grows up to this times what arrives (section 5.5)
	ackedOffset  = 10_000
	nearMost     = 5 * time.Second // growth near the capacity quickens
	limitedBelow = 0.8             // of the estimate is sent: the application is the limit
	limitedUntil = 0.88
	wantMargin   = 1.25
)

// control is the state of the rate.
type control struct {
	link    capacity
	limited bool

	draining  bool
	since     time.Duration
	cutAt     time.Duration // of the last cut in it
	cutQueue  time.Duration // then
	lowest    time.Duration // queue since its answer was seen
	highest   time.Duration
	fellAt    time.Duration // when the queue last became shorter
	settleAt  time.Duration // no growth before
	share     float64       // what arrived when it began
	tolerance time.Duration // queue that others keep up, whatever we do

	nearFor time.Duration // it grew near the capacity since the last cut
	before  float64       // what was carried before a dip that wasn't the link's; 0: nothing
}

// capacity is what the narrowest link was seen to carry: its mean and the variance over
// the mean, in kbit/s (libwebrtc, LinkCapacityEstimator).
type capacity struct{ mean, deviation float64 }

func (c *capacity) see(bps, weight float64) {
	kbps := bps / 1000
	if c.mean == 0 || math.Abs(kbps-c.mean) > c.spread() {
		c.mean, c.deviation = kbps, 0.4
		return
	}
	off := kbps - c.mean
	c.mean += weight * off
	c.deviation += weight * (off*off/max(c.mean, 1) - c.deviation)
	c.deviation = min(max(c.deviation, 0.4), 2.5)
}

func (c *capacity) spread() float64 { return 3 * math.Sqrt(c.deviation*c.mean) }
func (c *capacity) bps() float64    { return 1000 * c.mean }

// near tells whether a rate is about the capacity, or above it.
func (c *capacity) near(bps float64) bool {
	return c.mean > 0 && bps/1000 > c.mean-c.spread()
}

// outgrown tells whether a rate shows that the capacity has become more.
func (c *capacity) outgrown(bps float64) bool { return bps/1000 > c.mean+c.spread() }

// queue is the queueing delay, of packets or, without transport-wide feedback, of the
// round trip.
func (e *Estimator) queue() time.Duration {
	if e.silence.began {
		return e.arrivals.queue()
	}
	return e.reports.queue()
}

// limit tells whether the application sends less than it could.
func (e *Estimator) limit() {
	c := &e.control
	share := limitedBelow
	if c.limited {
		share = limitedUntil
	}
	sent := e.loss.rate()
	c.limited = sent > 0 && sent < share*e.bps
}

// serialization is how long a packet takes on a link of this rate: a queue of one packet
// is none.
func (e *Estimator) serialization() time.Duration {
	return min(time.Duration(packet*8/max(e.bps, MinBps)*float64(time.Second)), 100*time.Millisecond)
}

// delayed answers to delay: it cuts the rate so that the queue is gone soon, and returns
// to what the link carries.
func (e *Estimator) delayed(now, dt time.Duration) {
	c := &e.control
	queue := e.queue()
	c.tolerance = time.Duration(float64(c.tolerance) * math.Exp2(-float64(dt)/float64(foreignFor)))
	slack := c.tolerance + e.probes.queues(now, e.bps, e.response())
	over := queue > longQueue+e.serialization()+slack ||
		e.trend.usage == overuse && queue > trendQueue+e.serialization()/2+slack
	rise, carried := e.arrivals.steep()
	if rise > longQueue+e.serialization()+slack {
		over, queue = true, max(queue, rise)
	} else {
		carried = 0
	}
	if c.draining {
		e.drain(now, queue, carried, over)
		return
	}
	if !over || now < c.settleAt && queue < longQueue {
		return
	}
	e.overused(queue, carried)
	c.draining, c.since, c.share = true, now, min(e.bps, max(e.acked, e.loss.rate()))
	e.cut(now, queue)
}

// overused learns the capacity from a link that is busy; bps is what is known of it already.
func (e *Estimator) overused(queue time.Duration, bps float64) {
	if bps == 0 {
		bps = e.arrivals.busy(max(queue, trendQueue) / 2)
	}
	if bps == 0 {
		bps = e.arrivals.rate(ackedWindow / 2)
	}
	if bps == 0 {
		bps = e.bps
	}
	bps /= 1 - e.loss.inherent
	e.control.link.see(min(bps, 1.5*e.bps), 0.4)
}

// cut sets the rate at which the queue is gone in drainTime.
func (e *Estimator) cut(now, queue time.Duration) {
	c := &e.control
	c.cutAt, c.cutQueue = now, queue
	c.lowest, c.highest = maxRTT, 0
	c.before, c.nearFor = 0, 0
	e.set(min(e.bps, c.drainRate(queue)), delayGrew)
	e.probes.fail()
}

// drainRate is the bit/s at which a queue is gone in drainTime, if the link is what it
// seems to be.
func (c *control) drainRate(queue time.Duration) float64 {
	share := 1 - float64(queue-c.tolerance)/float64(drainTime)
	return min(max(share, drainLeast), drainMost) * c.link.bps()
}

// drain waits until the queue is gone.
func (e *Estimator) drain(now, queue time.Duration, carried float64, over bool) {
	c := &e.control
	answered := now-c.cutAt > e.response() // packets that were sent after the cut have arrived
	if !answered || queue < c.lowest-c.lowest/16 {
		c.fellAt = now
	}
	if answered {
		c.lowest, c.highest = min(c.lowest, queue), max(c.highest, queue)
	}
	stands := now-c.fellAt > standsAfter+e.response()/2
	switch {
	case queue <= emptyQueue+e.serialization()/2+c.tolerance:
		e.drained(now, queueGone)
	case !answered:
		// What was sent before the cut still tells what the link carries, and better than
		// the first packets that waited did.
		if queue >= c.cutQueue {
			e.overused(queue, carried)
			c.cutQueue = queue
			e.set(min(e.bps, c.drainRate(queue)), delayGrew)
		}
	case over && queue > c.cutQueue+c.cutQueue/4:
		e.overused(queue, carried)
		e.cut(now, queue)
	case stands && now-c.since > foreignAfter+2*e.response() && queue > c.cutQueue*6/10:
		// It stays though less is sent: others fill it, or, if it doesn't even vary, the way
		// has become longer.
		if c.highest-c.lowest < samePath {
			e.arrivals.rebase()
		} else {
			c.tolerance = queue
		}
		c.link.see(c.share, 1)
		e.drained(now, queueForeign)
	case stands: // the link carries less than was thought
		c.link.see(e.arrivals.rate(ackedWindow)/(1-e.loss.inherent), 1)
		c.lowest, c.fellAt = queue, now
		e.set(min(e.bps, drainMost*c.link.bps()), queueStays)
	default: // as it falls, more may be sent
		e.set(max(e.bps, c.drainRate(queue)), queueFalls)
	}
}

// drained returns to the capacity.
func (e *Estimator) drained(now time.Duration, why string) {
	c := &e.control
	c.draining = false
	e.loss.restart() // what was lost meanwhile is the full queue's
	c.settleAt = now + settle + e.response()
	e.set(max(e.bps, backTo*c.link.bps()), why)
	e.probes.soon(now, probeSoon)
}

// grow raises the rate while nothing speaks against it.
func (e *Estimator) grow(now, dt time.Duration) {
	c := &e.control
	if c.draining || now < c.settleAt || e.trial.on || e.loss.holds() ||
		e.trend.usage != normal || e.queue() > trendQueue+e.serialization()/2+c.tolerance {
		return
	}
	if e.want > 0 && e.bps >= wantMargin*e.want {
		return
	}
	if c.link.outgrown(e.bps) {
		c.link = capacity{}
	}
	seconds := dt.Seconds()
	bps, why := e.bps, steady
	switch {
	case e.bps < 0.9*max(c.link.bps(), c.before):
		bps, why = min(e.bps*math.Pow(regrowth, seconds), 0.9*max(c.link.bps(), c.before)), regrowing
	case c.limited:
		return
	case c.link.near(e.bps):
		// half a packet in the time that a change takes to be answered (draft-ietf-rmcat-gcc-02
		// section 5.5), and the quicker the longer nothing spoke against it, as CUBIC does (RFC 9438)
		c.nearFor = min(c.nearFor+dt, nearMost)
		bps += max(packet*8/(2*e.response().Seconds()), 4000) * seconds * (1 + c.nearFor.Seconds())
	default:
		bps *= math.Pow(growth, seconds)
	}
	if most := ackedFactor*e.acked + ackedOffset; bps > most {
		bps = max(e.bps, most)
	}
	e.set(bps, why)
}
