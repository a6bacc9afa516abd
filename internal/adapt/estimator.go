package adapt

import (
	"math"
	"time"

	"gateway/internal/media"
)

// Bounds of every estimate, in bit/s.
const (
	MinBps = 50_000
	MaxBps = 1_000_000_000
)

// Estimate is what is known of a viewer's network.
type Estimate struct {
	Bps     int           // of RTP that it carries, MinBps to MaxBps; 0: unknown yet
	Acked   int           // bit/s that arrive
	Loss    float64       // share of packets that don't, smoothed: 0..1
	Queue   time.Duration // how long packets stand in a queue on the way
	Repair  int           // bit/s of it for what is due already: sent again, or waiting to be sent; the sender fills it in
	Limited bool          // what is sent is clearly less than Bps, so that nothing is learned of more
	Reason  string        // of the last change, in a few words
}

// Media is what is left of Bps for what is sent the first time: at least half.
func (e Estimate) Media() int { return max(e.Bps-e.Repair, e.Bps/2) }

// Estimator tells what one viewer's network carries. It is made by NewEstimator.
type Estimator struct {
	bps    float64 // 0: unknown yet
	reason string
	want   float64 // 0: unknown
	remb   bound
	at     time.Duration // of the last feedback
	rtt    time.Duration // the last; 0: unknown
	start  train
	began  time.Duration // when the first feedback came; 0: none has
	acked  float64

	arrivals arrivals
	trend    trendline
	loss     lossMeter
	trial    trial
	control  control
	probes   prober
	silence  silence
	reports  fallback
}

// NewEstimator returns an estimator that knows nothing yet.
func NewEstimator() *Estimator {
	e := &Estimator{trend: newTrendline()}
	e.probes.interval = probeSoon
	return e
}

// Feedback takes what one transport-wide feedback tells anew, in the order in which the
// packets were sent; a packet that was told lost may be told again as received. rtt is 0
// if unknown. reports is read during the call only.
func (e *Estimator) Feedback(now time.Duration, reports []media.PacketReport, rtt time.Duration) {
	if rtt > 0 {
		e.rtt = min(rtt, maxRTT)
	}
	dt := min(max(now-e.at, 0), maxDt)
	e.at = now
	resumed, outage := e.silence.heard(now)
	for i := range reports {
		if r := &reports[i]; sane(r) {
			e.take(r)
		}
	}
	if resumed {
		e.loss.restart() // an outage says nothing of what the network loses else
		if outage > outageMost {
			e.control.before = 0
		}
	}
	e.update(now, dt)
}

// A report of these times can be reckoned with without overflow.
const farthest = time.Duration(1 << 60)

func sane(r *media.PacketReport) bool {
	return r.Sent > -farthest && r.Sent < farthest && r.Arrival > -farthest && r.Arrival < farthest && r.Size >= 0 && r.Size < 1<<16
}

// take notes one report.
func (e *Estimator) take(r *media.PacketReport) {
	late := e.arrivals.known && r.Sent < e.arrivals.newest
	e.loss.note(r, late)
	e.probes.note(r)
	if !r.Received {
		return
	}
	if late || r.Unsure { // its delay isn't the network's alone
		e.arrivals.late(r.Size)
		return
	}
	switch d, kind := e.arrivals.add(r.Sent, r.Arrival, r.Size); kind {
	case jumped:
		e.trend = newTrendline()
		e.start = train{}
	case grouped:
		e.trend.update(d, r.Arrival)
	}
	if e.bps == 0 {
		e.start.add(r)
	}
}

// update draws the conclusions from a feedback, dt after the last call.
func (e *Estimator) update(now, dt time.Duration) {
	a := &e.arrivals
	if bps := a.rate(ackedWindow); bps > 0 {
		e.acked = bps
	}
	if e.bps == 0 {
		e.begin(now)
		return
	}
	if got, ok := e.probes.result(e.arrivals.jitter); ok {
		e.probed(now, got)
	}
	e.limit()
	e.delayed(now, dt)
	e.lossy(now)
	e.grow(now, dt)
}

// begin makes the first estimate: of the first packets if they filled the link, else of a
// probe for all that is wanted. Until then nothing is known, and nobody held back.
func (e *Estimator) begin(now time.Duration) {
	bps, sure := e.start.result(e.want)
	why := firstPackets
	if got, ok := e.probes.result(e.arrivals.jitter); ok {
		bps, sure, why = max(got, min(bps, got/carries)), true, probeArrived
	}
	if e.began == 0 {
		e.began = now
	}
	if bps > 0 && (sure || e.want == 0 || now-e.began > startTime) {
		e.set(bps, why)
		e.probes.soon(now, probeFirst)
	}
}

// response is how long it takes until an answer to a change is seen: a round trip and
// the time that feedback is held back (libwebrtc, AimdRateControl).
func (e *Estimator) response() time.Duration {
	if e.rtt == 0 {
		return 200 * time.Millisecond
	}
	return e.rtt + 100*time.Millisecond
}

// set changes the estimate.
func (e *Estimator) set(bps float64, why string) {
	bps = min(max(bps, MinBps), MaxBps)
	if bps != e.bps {
		e.bps, e.reason = bps, why
	}
}

// Sent notes the bytes of all RTP that was sent in one turn. Without it silence isn't noticed,
// and the sender is taken for idle.
func (e *Estimator) Sent(now time.Duration, bytes int) {
	e.silence.sent(now)
	e.reports.sent(now, bytes)
}

// Step lets time pass; it is called about every 100 ms.
func (e *Estimator) Step(now time.Duration) {
	if e.bps > 0 && e.silence.lasts(now, e.rtt) {
		if e.silence.cuts == 1 {
			e.control.before = e.bps
		}
		e.set(e.bps/2, noFeedback)
	}
	if e.bps > 0 && now-e.silence.last > time.Second {
		e.control.limited = true
	}
	e.remb.expire(now)
}

// Want sets the most that the viewer has use for, in bit/s: the estimate neither grows nor
// probes far beyond. Nothing is probed before it is known.
func (e *Estimator) Want(bps int) { e.want = min(max(float64(bps), 0), MaxBps) }

// Probe returns a probe that is due, once. Its packets are best sent evenly at its pace
// with ticks of a few milliseconds; what else is sent meanwhile does no harm.
func (e *Estimator) Probe(now time.Duration) (Probe, bool) {
	if !e.mayProbe(now) {
		return Probe{}, false
	}
	return e.probes.next(now, e.bps, e.want, e.arrivals.jitter, e.response()), true
}

// Estimate is what is known now.
func (e *Estimator) Estimate() Estimate {
	bps, reason := e.bps, e.reason
	if e.remb.bps > 0 && (bps == 0 || bps > e.remb.bps) {
		bps, reason = e.remb.bps, receiverEstimate
	}
	return Estimate{
		Bps:     int(bps),
		Acked:   int(min(e.acked, MaxBps)),
		Loss:    e.loss.smoothed,
		Queue:   e.queue(),
		Limited: e.control.limited,
		Reason:  reason,
	}
}

// rateOver is bit/s of some bytes in a time.
func rateOver(bytes int64, d time.Duration) float64 {
	if d <= 0 {
		return math.Inf(1)
	}
	return float64(bytes) * 8 / d.Seconds()
}
