package adapt

import (
	"cmp"
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	seeds   = flag.Int("seeds", 1, "runs of each scene")
	samples = flag.Bool("samples", false, "print each 100 ms of each scene")
)

// Networks whose delay varies.
func jitter40(s *sim) time.Duration { return time.Duration(s.rng.Float64() * float64(40*ms)) }

// air is Wi-Fi: packets come together every few milliseconds, and now and then not for a while.
func air(s *sim) time.Duration {
	if s.rng.Float64() < 0.003 {
		return 120 * ms
	}
	return 3*ms + time.Duration(s.rng.ExpFloat64()*float64(6*ms))
}

func during(from, to time.Duration) func(time.Duration) bool {
	return func(t time.Duration) bool { return t >= from && t < to }
}

// aims are what a scene must come to.
type aims struct {
	used   float64       // share of the link that arrives as media, from 5 s on
	freeze time.Duration // the longest; 0: 500 ms
	queue  time.Duration // p95 of the longest wait in each 100 ms, from 5 s on; 0: any
}

var scenes = []struct {
	scene
	aims
}{
	{scene{name: "2 Mbit/s", rate: constant(2e6), delay: 20 * ms}, aims{used: 0.9, queue: 80 * ms}},
	{scene{name: "8 Mbit/s", rate: constant(8e6), delay: 20 * ms, most: 10e6}, aims{used: 0.9, queue: 80 * ms}},
	{scene{name: "300 kbit/s", rate: constant(300e3), delay: 20 * ms}, aims{used: 0.85, queue: 300 * ms}},
	{scene{name: "RTT 100 ms", rate: constant(1e6), delay: 50 * ms}, aims{used: 0.85, queue: 100 * ms}},
	{scene{name: "RTT 300 ms", rate: constant(1e6), delay: 150 * ms}, aims{used: 0.85, queue: 100 * ms}},
	{scene{name: "queue 1 s", rate: constant(1e6), delay: 20 * ms, queue: sec}, aims{used: 0.85, queue: 100 * ms}},
	{scene{name: "feedback each 50 ms", rate: constant(2e6), delay: 20 * ms, feedback: 50 * ms}, aims{used: 0.9, queue: 80 * ms}},
	{scene{name: "feedback each 250 ms", rate: constant(2e6), delay: 20 * ms, feedback: 250 * ms}, aims{used: 0.9, queue: 100 * ms}},
	{scene{name: "a fifth of feedback is lost", rate: constant(2e6), delay: 20 * ms, deaf: 0.2}, aims{used: 0.9, queue: 80 * ms}},
	{scene{name: "clock drifts and jumps", rate: constant(2e6), delay: 20 * ms, drift: 200e-6, jump: -20 * sec}, aims{used: 0.9, queue: 80 * ms}},
	{scene{name: "loss 1 %", rate: constant(2e6), delay: 20 * ms, loss: 0.01}, aims{used: 0.85, queue: 100 * ms}},
	{scene{name: "loss 5 %", rate: constant(2e6), delay: 20 * ms, loss: 0.05}, aims{used: 0.75, queue: 100 * ms}},
	{scene{name: "loss 10 %", rate: constant(2e6), delay: 20 * ms, loss: 0.10}, aims{used: 0.65, freeze: 800 * ms, queue: 100 * ms}},
	{scene{name: "loss 10 %, 50 Mbit/s", rate: constant(50e6), delay: 20 * ms, loss: 0.10}, aims{used: 0.97}},
	{scene{name: "loss 5 % in bursts of 8", rate: constant(2e6), delay: 20 * ms, loss: 0.05, burst: 8}, aims{used: 0.7, freeze: 900 * ms}},
	{scene{name: "queue 40 ms", rate: constant(2e6), delay: 20 * ms, queue: 40 * ms}, aims{used: 0.88}},
	{scene{name: "queue 40 ms, loss 5 %", rate: constant(2e6), delay: 20 * ms, queue: 40 * ms, loss: 0.05}, aims{used: 0.75, freeze: 700 * ms}},
	{scene{name: "jitter 40 ms", rate: constant(2e6), delay: 20 * ms, jitter: jitter40, every: 20 * ms}, aims{used: 0.85, queue: 200 * ms}},
	{scene{name: "jitter 40 ms, 300 kbit/s", rate: constant(300e3), delay: 20 * ms, jitter: jitter40, every: 20 * ms}, aims{used: 0.8}},
	{scene{name: "Wi-Fi 2 Mbit/s", rate: constant(2e6), delay: 20 * ms, airtime: air}, aims{used: 0.85, queue: 200 * ms}},
	{scene{name: "Wi-Fi 20 Mbit/s", rate: constant(20e6), delay: 20 * ms, airtime: air}, aims{used: 0.97}},
	{scene{name: "LAN", rate: constant(100e6), delay: ms}, aims{used: 0.97, queue: 20 * ms}},
	{scene{name: "2.5 → 0.6 → 2.5", rate: steps(2.5e6, 20*sec, 0.6e6, 40*sec, 2.5e6), delay: 20 * ms}, aims{used: 0.85, freeze: 600 * ms}},
	{scene{name: "2.5 → 1.25 → 2.5", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 20 * ms}, aims{used: 0.85, freeze: 600 * ms}},
	{scene{name: "2.5 → 0.6 → 2.5, queue 1 s", rate: steps(2.5e6, 20*sec, 0.6e6, 40*sec, 2.5e6), delay: 20 * ms, queue: sec}, aims{used: 0.85}},
	{scene{name: "2.5 → 1.25 → 2.5, RTT 300 ms", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 150 * ms, queue: sec}, aims{used: 0.8, freeze: 700 * ms}},
	{scene{name: "2.5 → 1.25 → 2.5, queue 40 ms", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 20 * ms, queue: 40 * ms}, aims{used: 0.8, freeze: 700 * ms}},
	{scene{name: "0.6 → 0.3 → 0.6", rate: steps(0.6e6, 20*sec, 0.3e6, 40*sec, 0.6e6), delay: 20 * ms}, aims{used: 0.8, freeze: 700 * ms}},
	{scene{name: "TCP, queue 100 ms", rate: constant(4e6), delay: 20 * ms, queue: 100 * ms, tcp: 1, tcpFrom: 15 * sec}, aims{used: 0.35, freeze: 700 * ms}},
	{scene{name: "TCP, queue 300 ms", rate: constant(4e6), delay: 20 * ms, queue: 300 * ms, tcp: 1, tcpFrom: 15 * sec}, aims{used: 0.4, freeze: sec}},
	{scene{name: "TCP, queue 1 s", rate: constant(4e6), delay: 20 * ms, queue: sec, tcp: 1, tcpFrom: 15 * sec}, aims{used: 0.4, freeze: 2 * sec}},
	{scene{name: "gone for 1.5 s", rate: constant(2e6), delay: 20 * ms, outage: during(20*sec, 21500*ms)}, aims{used: 0.85, freeze: 2500 * ms}},
	{scene{name: "gone for 0.4 s", rate: constant(2e6), delay: 20 * ms, outage: during(20*sec, 20400*ms)}, aims{used: 0.88, freeze: 1200 * ms}},
}

func TestNetworks(t *testing.T) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			for c.seed = range uint64(*seeds) {
				s := run(c.scene)
				used, queue := s.used(5*sec, s.length), s.queueP95(5*sec, s.length)
				line := fmt.Sprintf("%-32s used %3.0f %%, p95 of the queue %4d ms, longest freeze %4d ms", c.name, 100*used, queue/ms, s.freeze/ms)
				if at := 20 * sec; s.rate(at) < s.rate(0) {
					line += fmt.Sprintf(", fits after %d ms, queue gone after %d ms, 80 %% after %d ms", s.fits(at)/ms, s.empties(at)/ms, s.fills(2*at)/ms)
				}
				t.Log(line)
				if *samples {
					s.dump(t)
				}
				if used < c.used {
					t.Errorf("it used %.2f of the link, want %.2f", used, c.used)
				}
				if most := cmp.Or(c.freeze, 500*ms); s.freeze > most {
					t.Errorf("a freeze of %v at %v, want %v at most", s.freeze, s.freezeAt, most)
				}
				if c.aims.queue > 0 && queue > c.aims.queue {
					t.Errorf("p95 of the queue is %v, want %v at most", queue, c.aims.queue)
				}
			}
		})
	}
}

// fits is how long the bitrate exceeds the link after a moment.
func (s *sim) fits(at time.Duration) time.Duration {
	return s.first(at, func(x sample) bool { return x.estimate <= x.link })
}

// empties is how long packets wait more than 100 ms after a link has become slower.
func (s *sim) empties(at time.Duration) time.Duration {
	over := s.first(at, func(x sample) bool { return x.queue >= 100*ms })
	if over > 2*sec {
		return 0
	}
	return over + s.first(at+over, func(x sample) bool { return x.queue < 100*ms })
}

// fills is how long it takes until 80 % of the link are used.
func (s *sim) fills(at time.Duration) time.Duration {
	for _, x := range s.samples {
		if x.at >= at+sec && s.mean(x.at-sec, x.at, func(x sample) float64 { return x.good }) >= 0.8*x.link {
			return x.at - sec - at
		}
	}
	return time.Hour
}
