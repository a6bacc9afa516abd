package adapt

import (
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
	Bps     int           // that it carries; 0: unknown yet
	Acked   int           // bit/s that arrive
	Loss    float64       // share of packets that don't, smoothed: 0..1
	Queue   time.Duration // how long packets wait on the way, beyond the least that was seen
	Limited bool          // the viewer is sent clearly less than Bps, which says nothing of more
	Reason  string        // of the last change, in words
}

// Probe is a burst of packets that is sent to learn whether the network carries more.
type Probe struct {
	ID    uint8 // 1..255; what its packets' reports carry
	Bps   int   // pace at which it is sent
	Bytes int   // to send
}

// Estimator tells what one viewer's network carries.
type Estimator struct {
	estimate Estimate
	want     int
}

// NewEstimator returns an estimator that knows nothing yet.
func NewEstimator() *Estimator { return &Estimator{} }

// Feedback takes what one transport-wide feedback tells anew, in the order in which the
// packets were sent. rtt is 0 if unknown. reports is only read, during the call.
func (e *Estimator) Feedback(now time.Duration, reports []media.PacketReport, rtt time.Duration) {
	var bytes int
	first, last := time.Duration(-1), time.Duration(-1)
	for i := range reports {
		r := &reports[i]
		if !r.Received {
			continue
		}
		if first < 0 {
			first = r.Arrival
		}
		last = max(last, r.Arrival)
		bytes += r.Size
	}
	if d := last - first; d > 20*time.Millisecond {
		e.estimate.Acked = int(int64(bytes) * 8 * int64(time.Second) / int64(d))
		e.estimate.Bps = min(max(e.estimate.Bps, e.estimate.Acked, MinBps), MaxBps)
	}
}

// ReceiverReport takes a receiver report's loss since the last one (0..1). It counts
// only while there is no transport-wide feedback.
func (e *Estimator) ReceiverReport(now time.Duration, loss float64, rtt time.Duration) {}

// REMB takes a receiver's own estimate (draft-alvestrand-rmcat-remb-03), an upper bound.
func (e *Estimator) REMB(now time.Duration, bps int) {}

// Sent notes the bytes of all RTP of one turn.
func (e *Estimator) Sent(now time.Duration, bytes int) {}

// Step lets time pass; it is called about every 100 ms.
func (e *Estimator) Step(now time.Duration) {}

// Want sets the most that the viewer has use for, in bit/s.
func (e *Estimator) Want(bps int) { e.want = bps }

// Probe returns a probe that is due, once.
func (e *Estimator) Probe(now time.Duration) (Probe, bool) { return Probe{}, false }

// Estimate is what is known now.
func (e *Estimator) Estimate() Estimate { return e.estimate }
