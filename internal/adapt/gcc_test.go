package adapt

import (
	"math"
	"testing"
	"time"

	"gateway/internal/media"
)

// plainGCC is draft-ietf-rmcat-gcc-02 with the trendline filter instead of the Kalman
// filter, as Carlucci et al. measured it: no probes, no measure of the queue. What the
// estimator does otherwise has to be worth it.
type plainGCC struct {
	trend          trendline
	marks          arrivals // for what arrives
	first, last    [2]time.Duration
	before         [2]time.Duration
	any, anyBefore bool

	delayBps, lossBps float64
	max               capacity
	at, cutAt         time.Duration
	lost, n           int
	lossAt            time.Duration
}

func newPlainGCC() *plainGCC {
	return &plainGCC{trend: newTrendline(), delayBps: 300e3, lossBps: MaxBps}
}

func (g *plainGCC) Sent(time.Duration, int)           {}
func (g *plainGCC) Step(time.Duration)                {}
func (g *plainGCC) Want(int)                          {}
func (g *plainGCC) Probe(time.Duration) (Probe, bool) { return Probe{}, false }
func (g *plainGCC) Estimate() Estimate {
	return Estimate{Bps: int(min(max(min(g.delayBps, g.lossBps), MinBps), MaxBps))}
}

func (g *plainGCC) Feedback(now time.Duration, reports []media.PacketReport, rtt time.Duration) {
	for _, r := range reports {
		g.n++
		if !r.Received {
			g.lost++
			continue
		}
		if !g.any || r.Sent-g.first[0] > burstTime {
			if g.anyBefore {
				g.trend.update((g.last[1]-g.before[1])-(g.last[0]-g.before[0]), g.last[1])
			}
			if g.any {
				g.before, g.anyBefore = g.last, true
			}
			g.first, g.any = [2]time.Duration{r.Sent, r.Arrival}, true
		}
		g.last = [2]time.Duration{r.Sent, r.Arrival}
		g.marks.add(r.Sent, r.Arrival, r.Size)
	}
	dt := min(now-g.at, sec).Seconds()
	g.at = now
	g.lossBased(now)
	acked := g.marks.rate(ackedWindow)
	if acked == 0 {
		return
	}
	response := rtt + 100*ms
	switch g.trend.usage {
	case overuse:
		if now-g.cutAt > response {
			g.cutAt = now
			g.delayBps = min(g.delayBps, 0.85*acked)
			g.max.see(acked, 0.05)
		}
	case normal:
		if g.max.mean > 0 && acked/1000 > g.max.mean+g.max.spread() {
			g.max = capacity{}
		}
		if g.max.near(g.delayBps) {
			bits := g.delayBps / 30
			packetBits := bits / math.Ceil(bits/(1200*8))
			g.delayBps += max(1000*dt, 0.5*min(dt/response.Seconds(), 1)*packetBits)
		} else {
			g.delayBps *= math.Pow(1.08, dt)
		}
		g.delayBps = min(g.delayBps, max(1.5*acked, 300e3))
	}
}

func (g *plainGCC) lossBased(now time.Duration) {
	if now-g.lossAt < sec || g.n < 10 {
		return
	}
	loss := float64(g.lost) / float64(g.n)
	g.lossAt, g.n, g.lost = now, 0, 0
	switch {
	case loss > 0.1:
		g.lossBps = min(g.lossBps, 1.5*g.delayBps) * (1 - 0.5*loss)
	case loss < 0.02:
		g.lossBps *= 1.05
	}
	g.lossBps = min(max(g.lossBps, MinBps), MaxBps)
}

// Each difference from plain GCC pays where it was made for.
func TestDifferencesFromGCCPay(t *testing.T) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			ours := run(c.scene)
			c.scene.plain = true
			plain := run(c.scene)
			line := func(who string, s *sim) {
				t.Logf("%-32s %-5s used %3.0f %%, p95 of the queue %4d ms, longest freeze %5d ms", c.name, who, 100*s.used(5*sec, s.length), s.queueP95(5*sec, s.length)/ms, s.freeze/ms)
			}
			line("ours", ours)
			line("GCC", plain)
			if o, g := ours.used(5*sec, ours.length), plain.used(5*sec, plain.length); o < 0.9*g {
				t.Errorf("it uses %.2f of the link, plain GCC %.2f", o, g)
			}
		})
	}
}
