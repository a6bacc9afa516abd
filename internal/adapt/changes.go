package adapt

import (
	"fmt"
	"math"
	"time"
)

// Why an estimate changes: Estimate.Reason.
const (
	firstPackets     = "first packets"
	probeArrived     = "probe"
	delayGrew        = "delay grew"
	queueStays       = "queue stays"
	queueFalls       = "queue falls"
	queueGone        = "queue is gone"
	queueForeign     = "queue is not ours"
	lossGrew         = "loss"
	lossForeign      = "loss is not ours"
	noFeedback       = "no feedback"
	regrowing        = "back to what was carried"
	steady           = "steady"
	climbing         = "nothing spoke against more"
	receiverReport   = "receiver report"
	receiverEstimate = "receiver's estimate"
)

const (
	changeLeast = 0.15        // of an estimate: less is what a steady network does to it now and then
	changeFor   = time.Second // changes for one reason are one that lasts at most so long
)

// Changes tells which changes of an estimate are decisions that are worth telling
// people: what the network showed of itself, by a queue, by loss, by silence, by a
// probe, and what became of that. Growth while nothing speaks against it is none. Those
// that follow each other for one reason are told as one. The zero value is ready.
type Changes struct {
	reason   string // of the change that goes on; "": none does
	from, to int    // bit/s
	since    time.Duration
	queue    time.Duration // the most, meanwhile
	loss     float64
}

// Change is one change of an estimate.
type Change struct {
	Decision
	Cause string // Estimate.Reason: one of a dozen, as a metric's label has it
}

// Step takes an estimate, at each that is told and once a second at least. A change is
// told when it is over, or has gone on for a second.
func (c *Changes) Step(now time.Duration, e Estimate) (Change, bool) {
	if e.Bps == 0 {
		return Change{}, false
	}
	before := *c
	switch {
	case e.Reason == c.reason:
		c.to = e.Bps
	case e.Reason == queueFalls && c.reason != "": // the cut isn't over
	case e.Reason == steady, e.Reason == climbing, e.Reason == queueFalls:
		*c = Changes{to: e.Bps}
	default:
		*c = Changes{reason: e.Reason, from: c.to, to: e.Bps, since: now}
	}
	c.queue, c.loss = max(c.queue, e.Queue), max(c.loss, e.Loss)
	if before.reason != "" && before.reason != c.reason {
		return before.change()
	}
	if c.reason == "" || now-c.since < changeFor {
		return Change{}, false
	}
	told := *c
	c.from, c.since, c.queue, c.loss = c.to, now, 0, 0
	return told.change()
}

// change is the change in words, if it came to something.
func (c Changes) change() (Change, bool) {
	if math.Abs(float64(c.to-c.from)) < changeLeast*float64(max(c.to, c.from)) {
		return Change{}, false
	}
	d := Decision{What: "estimate", To: rate(c.to), Reason: c.reason}
	if c.from > 0 {
		d.From = rate(c.from)
	}
	switch c.reason {
	case delayGrew, queueStays:
		d.Reason += fmt.Sprintf(": packets waited for %d ms", c.queue.Milliseconds())
	case lossGrew, lossForeign:
		d.Reason += fmt.Sprintf(": %.0f %% of the packets", 100*c.loss)
	}
	return Change{d, c.reason}, true
}
