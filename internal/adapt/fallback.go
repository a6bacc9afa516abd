package adapt

import "time"

const (
	silent      = 700 * time.Millisecond // without feedback, at least; the draft has no such rule
	silentRTTs  = 3
	outageMost  = 5 * time.Second  // after a longer one, what was before is forgotten
	rembLasts   = 10 * time.Second // libwebrtc sends one each second
	reportHigh  = 0.10             // of loss: less is sent (draft-ietf-rmcat-gcc-02 section 6)
	reportLow   = 0.02             // and below it more
	reportAfter = 2 * time.Second  // of packets without transport-wide feedback
	reportWait  = 200 * time.Millisecond
	reportQueue = 150 * time.Millisecond // of round trip beyond the least: ours, the draft looks at loss only
	reportsOnly = 3                      // receiver reports since the last feedback, so long ago as an outage lasts at most: there is none any more

	// While less is sent than could be, nothing tells what more would do, and there are
	// no probes. libwebrtc grows on (SendSideBandwidthEstimation: 8 % a second, whatever
	// is sent); here that begins after a calm, which doubles each time that it was
	// followed by loss or a queue.
	climbAfter  = 5 * time.Second
	climbRarest = 80 * time.Second
	climbProven = 30 * time.Second // after which what comes isn't the climb's
)

// silence watches for feedback that stays away.
type silence struct {
	began   bool
	heardAt time.Duration
	sentAt  time.Duration // of the first packet after heardAt
	waiting bool          // sentAt is valid
	last    time.Duration // packet that was sent
	cuts    int
	cutAt   time.Duration
	reports int // receiver reports since heardAt
}

func (s *silence) sent(now time.Duration) {
	s.last = now
	if !s.waiting {
		s.waiting, s.sentAt = true, now
	}
}

// heard tells whether feedback comes back after a silence, and after how long a one.
func (s *silence) heard(now time.Duration) (resumed bool, after time.Duration) {
	resumed, after = s.cuts > 0, now-s.heardAt
	s.began, s.heardAt, s.waiting, s.cuts, s.reports = true, now, false, 0, 0
	return resumed, after
}

// over notes a receiver report, and tells whether the peer gives nothing else any more:
// what it is sent may be numbered no longer. In an outage there are no reports either.
func (s *silence) over(now time.Duration) bool {
	s.reports++
	return s.reports >= reportsOnly && now-s.heardAt > outageMost
}

// lasts tells whether it is time to halve the rate.
func (s *silence) lasts(now, rtt time.Duration) bool {
	wait := max(silent, silentRTTs*rtt)
	if !s.began || !s.waiting || now-max(s.sentAt, s.heardAt) < wait || s.cuts > 0 && now-s.cutAt < wait {
		return false
	}
	s.cuts++
	s.cutAt = now
	return true
}

// fresh tells whether feedback came lately.
func (s *silence) fresh(now, rtt time.Duration) bool {
	return s.began && now-s.heardAt < silent+rtt
}

// bound is an upper bound that the receiver sets.
type bound struct {
	bps float64
	at  time.Duration
}

func (b *bound) expire(now time.Duration) {
	if now-b.at > rembLasts {
		b.bps = 0
	}
}

// fallback is what is known without transport-wide feedback.
type fallback struct {
	first  time.Duration // when packets were sent first
	part   time.Duration // since then
	bytes  int64         // were sent
	rate   float64       // bit/s before
	rtt    time.Duration
	least  time.Duration // round trip
	lastAt time.Duration

	calm    time.Duration // since when there was neither loss nor a queue
	hold    time.Duration // that this must last for a climb; 0: climbAfter
	climbed time.Duration // the last growth beyond what is sent; 0: none, or it was proven
}

func (f *fallback) sent(now time.Duration, bytes int) {
	if f.first == 0 {
		f.first = now
	}
	if d := now - f.part; d < 0 || d >= time.Second {
		if f.rate = 0; d > 0 && d < 2*time.Second {
			f.rate = rateOver(f.bytes, d)
		}
		f.part, f.bytes = now, 0
	}
	f.bytes += int64(min(max(bytes, 0), 1<<30))
}

// rateAt is the bit/s that were sent, 0 if unknown.
func (f *fallback) rateAt(now time.Duration) float64 {
	if d := now - f.part; f.rate == 0 && d >= reportWait && d < 2*time.Second {
		return rateOver(f.bytes, d)
	}
	return f.rate
}

func (f *fallback) queue() time.Duration { return max(f.rtt-f.least, 0) }

// fell notes a cut.
func (f *fallback) fell(now time.Duration) {
	switch {
	case f.climbed == 0: // one cut more
	case now-f.climbed > climbProven:
		f.hold = 0
	default:
		f.hold = min(2*max(f.hold, climbAfter), climbRarest)
	}
	f.calm, f.climbed = now, 0
}

// ReceiverReport takes the loss since the last receiver report (0..1) and the round trip
// that it shows, 0 if unknown. It counts only for a peer without transport-wide feedback,
// of which some is waited for: Firefox sends a report before the first.
func (e *Estimator) ReceiverReport(now time.Duration, loss float64, rtt time.Duration) {
	if !(loss >= 0 && loss <= 1) {
		return
	}
	if e.silence.began {
		if !e.silence.over(now) {
			return
		}
		e.silence.began = false
		if e.bps > 0 { // the silence was none of the network's
			e.set(max(e.bps, e.control.before), receiverReport)
		}
	}
	f := &e.reports
	if rtt > 0 {
		f.rtt = min(rtt, maxRTT)
		if f.least == 0 || f.rtt < f.least {
			f.least = f.rtt
		}
	}
	e.loss.smoothed += (loss - e.loss.smoothed) / 4
	rate := f.rateAt(now)
	e.acked = rate * (1 - loss)
	if e.bps == 0 { // nobody is held back before the network has shown a limit
		if now-f.first < reportAfter || loss <= reportHigh && f.queue() <= reportQueue {
			return
		}
		e.bps, e.reason = max(e.acked, startFloor), receiverReport
	}
	e.control.limited = rate < limitedBelow*e.bps
	if d := now - f.lastAt; d >= 0 && d < reportWait+f.rtt {
		return
	}
	f.lastAt = now
	switch {
	case loss > reportHigh:
		e.set(e.bps*(1-0.5*loss), lossGrew)
		f.fell(now)
	case f.queue() > reportQueue:
		e.set(min(e.bps, max(e.acked, MinBps))*0.85, delayGrew)
		f.fell(now)
		f.least += f.queue() / 16 // the way may have become longer
	case loss >= reportLow:
		f.calm = now
	case e.want > 0 && e.bps >= wantMargin*e.want:
	case !e.control.limited:
		e.set(e.bps*growth+1000, steady)
	case now-f.calm >= max(f.hold, climbAfter):
		e.set(e.bps*growth+1000, climbing)
		f.climbed = now
	}
}

// REMB takes the receiver's own estimate (draft-alvestrand-rmcat-remb-03). It is an upper
// bound for some seconds.
func (e *Estimator) REMB(now time.Duration, bps int) {
	e.remb = bound{bps: min(max(float64(bps), MinBps), MaxBps), at: now}
}
