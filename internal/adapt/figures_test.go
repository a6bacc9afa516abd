package adapt

import (
	"slices"
	"testing"
	"time"
)

// used is the share of the link's rate that arrived as media, RTP bytes, retransmissions
// and probes not counted.
func (s *sim) used(from, to time.Duration) float64 {
	var good, link float64
	for _, x := range s.samples {
		if x.at > from && x.at <= to {
			good += x.good
			link += min(x.link, s.most)
		}
	}
	return good / link
}

func (s *sim) mean(from, to time.Duration, of func(sample) float64) float64 {
	var sum float64
	n := 0
	for _, x := range s.samples {
		if x.at > from && x.at <= to {
			sum += of(x)
			n++
		}
	}
	return sum / float64(n)
}

func (s *sim) first(from time.Duration, ok func(sample) bool) time.Duration {
	for _, x := range s.samples {
		if x.at > from && ok(x) {
			return x.at - from
		}
	}
	return time.Hour
}

func (s *sim) queueP95(from, to time.Duration) time.Duration {
	var q []time.Duration
	for _, x := range s.samples {
		if x.at > from && x.at <= to {
			q = append(q, x.queue)
		}
	}
	slices.Sort(q)
	return q[len(q)*95/100]
}

func (s *sim) dump(t *testing.T) {
	for _, x := range s.samples {
		t.Logf("%6.1f link %6.0f estimate %6.0f sent %6.0f good %6.0f tcp %6.0f queue %4d seen %4d %s", x.at.Seconds(), x.link/1000, x.estimate/1000, x.sent/1000, x.good/1000, x.tcp/1000, x.queue/ms, x.seen/ms, x.reason)
	}
}

func constant(bps float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return bps }
}

// steps are rates, each from a moment on.
func steps(first float64, then ...any) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		bps := first
		for i := 0; i+1 < len(then); i += 2 {
			if t >= then[i].(time.Duration) {
				bps = then[i+1].(float64)
			}
		}
		return bps
	}
}
