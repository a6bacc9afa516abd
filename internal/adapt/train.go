package adapt

import (
	"time"

	"gateway/internal/media"
)

const (
	startLeast   = 5           // packets
	startTime    = time.Second // in which a probe should have told what they didn't
	startFloor   = 300_000     // bit/s that are assumed while little was sent (libwebrtc starts there)
	startUnasked = 5_000_000   // and at most, while the viewer's wish isn't known
	saturated    = 0.9         // arriving so much slower than sent, a train fills the link (libwebrtc, ProbeBitrateEstimator)
	carries      = 0.95        // of the pace at which a train arrived
)

// train is packets sent in quick succession: the pace at which they arrive is what the
// narrowest link carries, if they were sent quicker than that (packet-train dispersion:
// Dovrolis, Ramanathan, Moore, "What do packet dispersion techniques measure?", 2001).
type train struct {
	n                         int
	bytes                     int64 // of all
	first, last               int64 // bytes of the first to arrive and the last that was sent
	firstSent, lastSent       time.Duration
	firstArrival, lastArrival time.Duration
}

func (t *train) add(r *media.PacketReport) {
	if t.n == 0 {
		t.first, t.firstSent, t.firstArrival, t.lastArrival = int64(r.Size), r.Sent, r.Arrival, r.Arrival
	}
	t.n++
	t.bytes += int64(r.Size)
	t.last, t.lastSent = int64(r.Size), max(t.lastSent, r.Sent)
	t.lastArrival = max(t.lastArrival, r.Arrival)
}

// paces are the bit/s at which it was sent and arrived; infinite if at once.
func (t *train) paces() (sent, arrived float64) {
	return rateOver(t.bytes-t.last, t.lastSent-t.firstSent), rateOver(t.bytes-t.first, t.lastArrival-t.firstArrival)
}

// result is what the first packets of a connection tell, usually those of a keyframe; 0:
// too little yet. sure: the link was full, or carries all that is wanted; otherwise it may
// carry any more.
func (t *train) result(want float64) (bps float64, sure bool) {
	if t.n < startLeast {
		return 0, false
	}
	sent, arrived := t.paces()
	most := wantMargin * want
	if want == 0 {
		most = startUnasked
	}
	most = max(most, startFloor)
	switch {
	case arrived < saturated*sent:
		return min(max(carries*arrived, MinBps), most), true
	default:
		bps = min(sent, arrived)
		return min(max(bps, startFloor), most), bps >= most
	}
}
