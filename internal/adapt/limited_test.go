package adapt

import "testing"

// A viewer on a rendition of 600 kbit/s, who would like 2.5 Mbit/s: only probes tell
// whether the network carries it, and they must neither promise what it doesn't nor be felt.
func TestProbesUnderAFixedRendition(t *testing.T) {
	for _, c := range []struct {
		scene
		least, most float64 // of the estimate, from 10 s on
	}{
		{scene{name: "5 Mbit/s", rate: constant(5e6), delay: 20 * ms}, 2.4e6, 3.2e6},
		{scene{name: "5 Mbit/s, RTT 300 ms", rate: constant(5e6), delay: 150 * ms}, 2.4e6, 3.2e6},
		{scene{name: "5 Mbit/s, jitter 40 ms", rate: constant(5e6), delay: 20 * ms, jitter: jitter40, every: 20 * ms}, 1.2e6, 3.2e6},
		{scene{name: "5 Mbit/s, loss 5 %", rate: constant(5e6), delay: 20 * ms, loss: 0.05}, 2e6, 3.2e6},
		{scene{name: "20 Mbit/s of Wi-Fi", rate: constant(20e6), delay: 20 * ms, airtime: air}, 2.4e6, 3.2e6},
		{scene{name: "800 kbit/s", rate: constant(800e3), delay: 20 * ms}, 0.68e6, 0.85e6},
		{scene{name: "800 kbit/s, jitter 40 ms", rate: constant(800e3), delay: 20 * ms, jitter: jitter40, every: 20 * ms}, 0.35e6, 1.1e6},
		{scene{name: "800 kbit/s of Wi-Fi", rate: constant(800e3), delay: 20 * ms, airtime: air}, 0.35e6, 1.7e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			for c.seed = range uint64(*seeds) {
				c.fixed, c.want = 600e3, 2.5e6
				s := run(c.scene)
				least, most, over := 1e12, 0.0, 0
				for _, x := range s.samples {
					if x.at > 10*sec {
						least, most = min(least, x.estimate), max(most, x.estimate)
						if x.estimate > 1.05*x.link {
							over++
						}
					}
				}
				t.Logf("%-26s estimate %4.0f to %4.0f kbit/s, mean %4.0f, over %2d %%, p95 of the queue %d ms, longest freeze %d ms", c.name, least/1000, most/1000, s.mean(10*sec, s.length, func(x sample) float64 { return x.estimate })/1000, over*100/500, s.queueP95(5*sec, s.length)/ms, s.freeze/ms)
				if over > 50 {
					t.Errorf("it exceeded the link in %d of 500 samples", over)
				}
				if least < c.least || most > c.most {
					t.Errorf("the estimate went from %.0f to %.0f bit/s, want %.0f to %.0f", least, most, c.least, c.most)
				}
				if *samples {
					s.dump(t)
				}
			}
		})
	}
}
