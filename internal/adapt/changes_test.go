package adapt

import (
	"slices"
	"testing"
	"time"
)

// What happens to a network is told in a few decisions, not in each step.
func TestChangesOfAnEstimateAreToldByTheirReasons(t *testing.T) {
	type seen struct {
		at     time.Duration
		bps    int
		reason string
		queue  time.Duration
		loss   float64
	}
	for name, c := range map[string]struct {
		seen []seen
		want []string
	}{
		"nothing is known":    {[]seen{{0, 0, "", 0, 0}, {sec, 0, "", 0, 0}}, nil},
		"the first":           {[]seen{{0, 900_000, firstPackets, 0, 0}, {sec, 900_000, firstPackets, 0, 0}}, []string{" > 900 kbit/s: first packets"}},
		"growth isn't told":   {[]seen{{0, 900_000, steady, 0, 0}, {sec, 2_000_000, steady, 0, 0}, {2 * sec, 3_000_000, climbing, 0, 0}}, nil},
		"a little isn't told": {[]seen{{0, 1_000_000, steady, 0, 0}, {sec, 950_000, delayGrew, 0, 0}, {2 * sec, 955_000, steady, 0, 0}}, nil},
		"a cut and back": {[]seen{
			{0, 2_000_000, steady, 0, 0}, {sec, 2_500_000, steady, 0, 0},
			{1100 * ms, 1_000_000, delayGrew, 100 * ms, 0}, {1200 * ms, 500_000, delayGrew, 250 * ms, 0},
			{1500 * ms, 600_000, queueFalls, 120 * ms, 0}, {1900 * ms, 950_000, queueGone, 10 * ms, 0}, {2500 * ms, 960_000, steady, 0, 0},
		}, []string{"2.5 Mbit/s > 500 kbit/s: delay grew: packets waited for 250 ms", "500 kbit/s > 950 kbit/s: queue is gone"}},
		"a cut that lasts": {[]seen{
			{0, 2_000_000, steady, 0, 0}, {sec, 1_000_000, noFeedback, 0, 0}, {1700 * ms, 500_000, noFeedback, 0, 0},
			{2400 * ms, 250_000, noFeedback, 0, 0}, {3500 * ms, 250_000, noFeedback, 0, 0}, {4 * sec, 1_900_000, regrowing, 0, 0}, {5 * sec, 1_900_000, regrowing, 0, 0},
		}, []string{"2.0 Mbit/s > 250 kbit/s: no feedback", "250 kbit/s > 1.9 Mbit/s: back to what was carried"}},
		"probes, one after the other": {[]seen{
			{0, 300_000, steady, 0, 0}, {100 * ms, 600_000, probeArrived, 0, 0}, {300 * ms, 1_200_000, probeArrived, 0, 0}, {500 * ms, 2_400_000, probeArrived, 0, 0}, {1200 * ms, 2_450_000, steady, 0, 0},
		}, []string{"300 kbit/s > 2.4 Mbit/s: probe"}},
		"loss": {[]seen{{0, 1_000_000, steady, 0, 0}, {sec, 500_000, lossGrew, 0, 0.25}, {2 * sec, 500_000, lossGrew, 0, 0.1}}, []string{"1.0 Mbit/s > 500 kbit/s: loss: 25 % of the packets"}},
	} {
		t.Run(name, func(t *testing.T) {
			var all Changes
			var told []string
			for _, s := range c.seen {
				d, ok := all.Step(time.Minute+s.at, Estimate{Bps: s.bps, Reason: s.reason, Queue: s.queue, Loss: s.loss})
				if ok {
					told = append(told, d.From+" > "+d.To+": "+d.Reason)
				}
				if ok && d.What != "estimate" {
					t.Errorf("%+v", d)
				}
			}
			if !slices.Equal(told, c.want) {
				t.Errorf("told %q, want %q", told, c.want)
			}
		})
	}
}

// Whatever a network does, people aren't told more than twice a second, and seldom on a
// steady one.
func TestChangesAreFew(t *testing.T) {
	for _, c := range []struct {
		scene
		most int
	}{
		{scene{name: "steady", rate: constant(2e6), delay: 20 * ms}, 30},
		{scene{name: "2.5 → 0.6 → 2.5", rate: steps(2.5e6, 20*sec, 0.6e6, 40*sec, 2.5e6), delay: 20 * ms}, 30},
		{scene{name: "TCP", rate: constant(4e6), delay: 20 * ms, queue: 300 * ms, tcp: 1, tcpFrom: 15 * sec}, 60},
	} {
		var all Changes
		told := 0
		for _, s := range run(c.scene).samples {
			if d, ok := all.Step(s.at, Estimate{Bps: int(s.estimate), Reason: s.reason, Queue: s.seen}); ok {
				t.Log(c.name, s.at, d.From, d.To, d.Reason)
				told++
			}
		}
		if told > c.most || told == 0 {
			t.Errorf("%s: told %d times in a minute", c.name, told)
		}
	}
}
