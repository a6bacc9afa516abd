package impair

import (
	"math"
	"testing"
	"time"
)

var epoch = time.Unix(0, 0)

// run gives a link a packet of some bytes at each interval, has it stepped every
// millisecond, and returns all that became of them.
func run(l *Link, size int, interval, span time.Duration, at func(now time.Duration)) (passed []Passed) {
	l.Tap(func(p Passed) { p.Packet = nil; passed = append(passed, p) })
	next := time.Duration(0)
	for now := time.Duration(0); now < span; now += time.Millisecond {
		if at != nil {
			at(now)
		}
		for ; next <= now; next += interval {
			l.enqueue(epoch.Add(next), make([]byte, size))
		}
		l.step(epoch.Add(now), nil)
	}
	return passed
}

func count(passed []Passed, f Fate) (n int) {
	for _, p := range passed {
		if p.Fate == f {
			n++
		}
	}
	return n
}

func TestRateAndQueueLimit(t *testing.T) {
	l := newLink(1, 1)
	l.Set(Settings{Rate: 1_000_000, Queue: 300 * time.Millisecond, Delay: 40 * time.Millisecond})
	passed := run(l, 1250, 5*time.Millisecond, 10*time.Second, nil) // 2 Mbit/s
	bits := count(passed, Delivered) * 1250 * 8
	if bits < 9_800_000 || bits > 10_000_000 {
		t.Errorf("%d bits in 10 s of 1 Mbit/s", bits)
	}
	var most time.Duration
	for _, p := range passed {
		most = max(most, p.Waited)
	}
	if most < 280*time.Millisecond || most > 300*time.Millisecond {
		t.Errorf("the longest wait was %s in a queue of 300 ms", most)
	}
	if count(passed, Dropped) == 0 {
		t.Error("nothing was dropped")
	}
}

func TestWhatWaitsGoesAtTheNewRate(t *testing.T) {
	l := newLink(1, 1)
	l.Set(Settings{Rate: 2_000_000, Bytes: 100_000})
	// 1 Mbit/s over 2, over 0.5 and over 2 again
	passed := run(l, 1250, 10*time.Millisecond, 6*time.Second, func(now time.Duration) {
		switch now {
		case 2 * time.Second:
			l.Set(Settings{Rate: 500_000, Bytes: 100_000})
		case 3 * time.Second:
			l.Set(Settings{Rate: 2_000_000, Bytes: 100_000})
		}
	})
	var before, in, after time.Duration
	for _, p := range passed {
		switch at := p.At.Sub(epoch); {
		case at < 2*time.Second:
			before = max(before, p.Waited)
		case at < 3100*time.Millisecond:
			in = max(in, p.Waited)
		case at > 4*time.Second:
			after = max(after, p.Waited)
		}
	}
	if before > 5*time.Millisecond || after > 5*time.Millisecond || in < 400*time.Millisecond || in > 600*time.Millisecond {
		t.Errorf("waited %s before, %s in the middle, %s after", before, in, after)
	}
	if n := count(passed, Dropped); n > 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestLossKeepsToItsShareAndRuns(t *testing.T) {
	for _, s := range []Settings{{Loss: 0.01}, {Loss: 0.1}, {Loss: 0.05, Burst: 4}} {
		l := newLink(1, 1)
		l.Set(s)
		passed := run(l, 100, 100*time.Microsecond, 20*time.Second, nil)
		lost := count(passed, Lost)
		runs := 0
		for i, p := range passed { // without rate and delay all is told in order
			if p.Fate == Lost && (i == 0 || passed[i-1].Fate != Lost) {
				runs++
			}
		}
		share := float64(lost) / float64(len(passed))
		if math.Abs(share/s.Loss-1) > 0.1 {
			t.Errorf("%+v: %.4f lost", s, share)
		}
		if s.Burst > 1 {
			if mean := float64(lost) / float64(runs); mean < s.Burst*0.8 {
				t.Errorf("%+v: runs of %.1f packets", s, mean)
			}
		}
	}
}

func TestSharedMediumSendsInBursts(t *testing.T) {
	l := newLink(1, 1)
	l.Set(Settings{Rate: 20_000_000, Access: 6 * time.Millisecond, Stall: 40 * time.Millisecond, StallEvery: time.Second})
	passed := run(l, 1250, 2*time.Millisecond, 20*time.Second, nil) // 5 Mbit/s
	bursts, longest := 1, time.Duration(0)
	for i := 1; i < len(passed); i++ {
		gap := passed[i].At.Sub(passed[i-1].At)
		if gap < 0 {
			t.Fatal("reordered")
		}
		if gap > 0 {
			bursts++
		}
		longest = max(longest, gap)
	}
	if mean := float64(len(passed)) / float64(bursts); mean < 2 {
		t.Errorf("%.1f packets arrive together in the mean", mean)
	}
	if longest < 40*time.Millisecond || longest > 200*time.Millisecond {
		t.Errorf("the longest gap is %s", longest)
	}
	if n := count(passed, Dropped); n > 0 {
		t.Errorf("%d dropped", n)
	}
}
