package adapt

import (
	"os"
	"testing"
	"time"
)

func wifi(s *sim) time.Duration { return time.Duration(s.rng.Float64() * float64(40*ms)) }
func air(s *sim) time.Duration {
	if s.rng.Float64() < 0.003 {
		return 120 * ms
	}
	return 3*ms + time.Duration(s.rng.ExpFloat64()*float64(6*ms))
}

var scenes = []scene{
	{name: "steady 2", rate: constant(2e6), delay: 20 * ms},
	{name: "steady 1 rtt100", rate: constant(1e6), delay: 50 * ms},
	{name: "steady 1 rtt300", rate: constant(1e6), delay: 150 * ms},
	{name: "steady 8 of 10", rate: constant(8e6), delay: 20 * ms, most: 10e6},
	{name: "steady 0.3", rate: constant(300e3), delay: 20 * ms},
	{name: "steady 2 fb50", rate: constant(2e6), delay: 20 * ms, feedback: 50 * ms},
	{name: "steady 2 fb250", rate: constant(2e6), delay: 20 * ms, feedback: 250 * ms},
	{name: "steady 2 deaf", rate: constant(2e6), delay: 20 * ms, deaf: 0.2},
	{name: "steps 2.5 0.6 2.5", rate: steps(2.5e6, 20*sec, 0.6e6, 40*sec, 2.5e6), delay: 20 * ms},
	{name: "steps 2.5 1.25 2.5", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 20 * ms},
	{name: "steps q1000", rate: steps(2.5e6, 20*sec, 0.6e6, 40*sec, 2.5e6), delay: 20 * ms, queue: sec},
	{name: "steps rtt300", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 150 * ms, queue: sec},
	{name: "loss 1", rate: constant(2e6), delay: 20 * ms, loss: 0.01},
	{name: "loss 5", rate: constant(2e6), delay: 20 * ms, loss: 0.05},
	{name: "loss 10", rate: constant(2e6), delay: 20 * ms, loss: 0.10},
	{name: "loss 10 lan", rate: constant(50e6), delay: 20 * ms, loss: 0.10},
	{name: "burst 5x8", rate: constant(2e6), delay: 20 * ms, loss: 0.05, burst: 8},
	{name: "shallow 20ms", rate: constant(2e6), delay: 20 * ms, queue: 20 * ms},
	{name: "shallow steps", rate: steps(2.5e6, 20*sec, 1.25e6, 40*sec, 2.5e6), delay: 20 * ms, queue: 20 * ms},
	{name: "shallow loss 5", rate: constant(2e6), delay: 20 * ms, queue: 20 * ms, loss: 0.05},
	{name: "bloat", rate: constant(1e6), delay: 20 * ms, queue: sec},
	{name: "tcp q100", rate: constant(4e6), delay: 20 * ms, queue: 100 * ms, tcp: 1, tcpFrom: 15 * sec},
	{name: "tcp q300", rate: constant(4e6), delay: 20 * ms, queue: 300 * ms, tcp: 1, tcpFrom: 15 * sec},
	{name: "tcp q1000", rate: constant(4e6), delay: 20 * ms, queue: sec, tcp: 1, tcpFrom: 15 * sec},
	{name: "jitter", rate: constant(2e6), delay: 20 * ms, jitter: wifi, every: 20 * ms},
	{name: "jitter 0.3", rate: constant(300e3), delay: 20 * ms, jitter: wifi, every: 20 * ms},
	{name: "wifi", rate: constant(2e6), delay: 20 * ms, airtime: air},
	{name: "wifi 20", rate: constant(20e6), delay: 20 * ms, airtime: air},
	{name: "lan", rate: constant(100e6), delay: 1 * ms},
	{name: "lan drift jump", rate: constant(2e6), delay: 20 * ms, drift: 200e-6, jump: -20 * sec},
	{name: "handover", rate: constant(2e6), delay: 20 * ms, outage: func(t time.Duration) bool { return t > 20*sec && t < 21500*ms }},
	{name: "handover short", rate: constant(2e6), delay: 20 * ms, outage: func(t time.Duration) bool { return t > 20*sec && t < 20400*ms }},
	{name: "limited", rate: constant(5e6), delay: 20 * ms, fixed: 600e3, want: 2.5e6},
	{name: "limited tight", rate: constant(0.8e6), delay: 20 * ms, fixed: 600e3, want: 2.5e6},
}

func TestScenes(t *testing.T) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			s := run(c)
			n := len(s.delays)
			_ = n
			t.Logf("%-20s used %.2f | 5-20 %.2f 20-40 %.2f 40-60 %.2f | q95 %4d %4d %4d | freeze %v at %v n %d keys %d | tcp %.2f",
				c.name, s.used(3*sec, c.lengthOr()), s.used(5*sec, 20*sec), s.used(25*sec, 40*sec), s.used(45*sec, 60*sec),
				s.queueP95(3*sec, 20*sec)/ms, s.queueP95(25*sec, 40*sec)/ms, s.queueP95(45*sec, 60*sec)/ms, s.freeze/ms, s.freezeAt.Seconds(), len(s.freezes), s.keys,
				s.mean(25*sec, 60*sec, func(x sample) float64 { return x.tcp })/s.rate(0))
			if c.dump() {
				s.dump(t, 0, 60*sec)
			}
		})
	}
}
func (c scene) lengthOr() time.Duration {
	if c.length == 0 {
		return 60 * sec
	}
	return c.length
}
func (c scene) dump() bool { return os.Getenv("DUMP") != "" }
