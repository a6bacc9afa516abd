package adapt

import (
	"time"

	"gateway/internal/media"
)

const (
	probeFactor  = 2.0 // times the estimate
	probePackets = 3
	probeTime    = 20 * time.Millisecond
	probeJitter  = 4 // times the jitter longer
	probeLongest = 100 * time.Millisecond
	probeShare   = 0.8 // of its bytes that must have arrived (libwebrtc, ProbeBitrateEstimator)
	probeFirst   = 300 * time.Millisecond
	probeSoon    = 1500 * time.Millisecond // after a dip
	probeBackOff = 1.6
	probeRarest  = 8 * time.Second
	probeGain    = 1.05 // less isn't worth a change
)

// Probe is a burst of packets that is sent to learn whether the network carries more.
type Probe struct {
	ID    uint8 // 1..255; the reports of its packets carry it
	Bps   int   // bit/s at which it is sent
	Bytes int   // to send
}

// prober asks whether the network carries more.
type prober struct {
	id       uint8 // of the last
	asked    Probe
	pending  bool
	at       time.Duration // when it was asked for
	train    train
	between  int64 // bytes that were sent since its last packet, and arrived
	due      time.Duration
	interval time.Duration // until the next one, without news
}

// mayProbe tells whether a probe is due and would tell anything.
func (e *Estimator) mayProbe(now time.Duration) bool {
	c, p := &e.control, &e.probes
	if e.start.n == 0 && e.bps == 0 || e.want == 0 || p.pending && now-p.at < time.Second+2*e.response() || now < p.due && p.due-now <= probeRarest {
		return false
	}
	return e.bps < e.want && !c.draining && now >= c.settleAt && !e.trial.on && e.trend.usage == normal &&
		e.queue() <= trendQueue+e.serialization()+c.tolerance && e.silence.fresh(now, e.rtt)
}

// next is the probe that is due.
func (p *prober) next(now time.Duration, bps, want float64, jitter, response time.Duration) Probe {
	if p.pending {
		p.fail() // nothing came back
	}
	if p.id++; p.id == 0 {
		p.id = 1
	}
	pace := min(probeFactor*bps, wantMargin*want, MaxBps)
	if bps == 0 {
		pace = min(wantMargin*want, MaxBps)
	}
	length := min(probeTime+probeJitter*jitter, probeLongest)
	p.asked = Probe{ID: p.id, Bps: int(pace), Bytes: max(probePackets*packet, int(pace*length.Seconds()/8))}
	p.pending, p.at, p.train, p.between = true, now, train{}, 0
	p.due = now + p.interval + response
	return p.asked
}

// queues is how long the last probe's packets may be standing in the queue: that is no
// overuse.
func (p *prober) queues(now time.Duration, bps float64, response time.Duration) time.Duration {
	d := time.Duration(float64(p.asked.Bytes*8) / max(bps, MinBps) * float64(time.Second))
	if p.id == 0 || now < p.at || now-p.at > response+2*d {
		return 0
	}
	return d
}

// note takes a report: what was sent among the probe's packets counts with them.
func (p *prober) note(r *media.PacketReport) {
	switch {
	case !p.pending || !r.Received:
	case r.Probe == p.id:
		p.train.bytes += p.between
		p.between = 0
		p.train.add(r)
	case p.train.n > 0:
		p.between += int64(r.Size)
	}
}

// result is the bit/s at which a probe went through, when enough of it is known to have
// arrived.
func (p *prober) result(jitter time.Duration) (bps float64, ok bool) {
	t := &p.train
	if !p.pending || t.n < probePackets || float64(t.bytes) < probeShare*float64(p.asked.Bytes) {
		return 0, false
	}
	p.pending = false
	t.lastArrival += jitter // it may as well have arrived too close together
	sent, arrived := t.paces()
	bps = min(sent, arrived, float64(p.asked.Bps))
	if arrived < saturated*sent {
		bps = min(carries*arrived, float64(p.asked.Bps))
	}
	return bps, true
}

// probed takes the result of a probe.
func (e *Estimator) probed(now time.Duration, bps float64) {
	p, c := &e.probes, &e.control
	bps = min(bps/(1-e.loss.inherent), float64(p.asked.Bps))
	if bps < probeGain*e.bps || c.draining {
		p.fail()
		p.due = now + p.interval
		return
	}
	if bps < saturated*float64(p.asked.Bps) {
		c.link = capacity{}
		c.link.see(bps/carries, 1)
		p.soon(now, probeSoon)
	} else {
		p.soon(now, e.response())
	}
	e.set(bps, probeArrived)
}

// soon asks for the next one after a while, and for more soon after it.
func (p *prober) soon(now, wait time.Duration) {
	p.due, p.interval = now+wait, probeSoon
}

// fail makes them rarer.
func (p *prober) fail() {
	p.pending = false
	p.interval = min(time.Duration(float64(p.interval)*probeBackOff), probeRarest)
}
