package main

import (
	"time"

	"gateway/test/impair"
)

// oneCase is a way that one viewer's link changes.
type oneCase struct {
	name   string
	about  string
	phases []phase
	tcp    bool // a TCP flow competes in the second phase
}

// phase is what the link to the viewer is for a while. What it is from the viewer is
// derived: the same but for the rate.
type phase struct {
	lasts time.Duration
	impair.Settings
}

const (
	joining  = 10 * time.Second // of the first phase, which tell how a viewer begins
	way      = 20 * time.Millisecond
	kbps     = 1000
	mbps     = 1000 * kbps
	long     = 200 * time.Millisecond // the usual queue
	bloat    = time.Second
	usualMax = 2500 * kbps // what the encoder makes at most
	usualMin = 150 * kbps
)

func link(rate int, queue time.Duration) impair.Settings {
	return impair.Settings{Rate: rate, Queue: queue, Delay: way}
}

func with(s impair.Settings, change func(*impair.Settings)) impair.Settings {
	change(&s)
	return s
}

func lossy(share, burst float64) impair.Settings {
	return with(link(2*mbps, long), func(s *impair.Settings) { s.Loss, s.Burst = share, burst })
}

func far(delay time.Duration) impair.Settings {
	return with(link(2*mbps, long), func(s *impair.Settings) { s.Delay = delay })
}

var wifi = impair.Settings{
	Rate: 8 * mbps, Queue: long, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond,
	Access: 4 * time.Millisecond, Stall: 40 * time.Millisecond, StallEvery: time.Second,
}

func cases() []oneCase {
	const s = time.Second
	return []oneCase{
		{"steady", "2.0 Mbit/s", []phase{{35 * s, link(2*mbps, long)}}, false},
		{"steps", "2.5 → 0.6 → 2.5 Mbit/s", []phase{{15 * s, link(2500*kbps, long)}, {12 * s, link(600*kbps, long)}, {18 * s, link(2500*kbps, long)}}, false},
		{"halving", "2.0 → 1.0 Mbit/s", []phase{{15 * s, link(2*mbps, long)}, {15 * s, link(1*mbps, long)}}, false},
		{"doubling", "1.0 → 2.0 Mbit/s", []phase{{15 * s, link(1*mbps, long)}, {20 * s, link(2*mbps, long)}}, false},
		{"low", "300 kbit/s", []phase{{35 * s, link(300*kbps, long)}}, false},
		{"loss1", "2.0 Mbit/s, 1 % lost", []phase{{35 * s, lossy(0.01, 0)}}, false},
		{"loss5", "2.0 Mbit/s, 5 % lost", []phase{{35 * s, lossy(0.05, 0)}}, false},
		{"loss10", "2.0 Mbit/s, 10 % lost", []phase{{35 * s, lossy(0.10, 0)}}, false},
		{"bursts", "2.0 Mbit/s, 3 % lost in runs of 8", []phase{{35 * s, lossy(0.03, 8)}}, false},
		{"rtt100", "2.0 Mbit/s, RTT 100 ms", []phase{{30 * s, far(50 * time.Millisecond)}}, false},
		{"rtt300", "2.0 → 1.0 Mbit/s, RTT 300 ms", []phase{{20 * s, far(150 * time.Millisecond)},
			{15 * s, with(far(150*time.Millisecond), func(s *impair.Settings) { s.Rate = 1 * mbps })}}, false},
		{"bloat", "2.0 → 1.0 Mbit/s, queue of 1 s", []phase{{15 * s, link(2*mbps, bloat)}, {20 * s, link(1*mbps, bloat)}}, false},
		{"tcp", "3.0 Mbit/s, then shared with a TCP flow", []phase{{15 * s, link(3*mbps, long)}, {25 * s, link(3*mbps, long)}, {10 * s, link(3*mbps, long)}}, true},
		{"wifi", "8 Mbit/s as Wi-Fi: aggregation, jitter, stalls", []phase{{35 * s, wifi}}, false},
	}
}

// up is a link from the viewer that fits one to it: as slow and as bad, but wide.
func up(s impair.Settings) impair.Settings {
	s.Rate = 0
	return s
}

func (c *oneCase) lasts() (d time.Duration) {
	for _, p := range c.phases {
		d += p.lasts
	}
	return d
}

// script is the case's changes.
func (c *oneCase) script() (changes []impair.Change) {
	var at time.Duration
	for _, p := range c.phases {
		changes = append(changes, impair.Change{After: at, Settings: p.Settings})
		at += p.lasts
	}
	return changes
}

// carries is what a viewer can have of a phase's link, bit/s.
func (p *phase) carries() int {
	if p.Rate == 0 {
		return usualMax
	}
	return min(p.Rate, usualMax)
}

// pipeline is a picture that fills any bitrate from 150 kbit/s: bars that move, and
// noise among them. Keyframes are rare, so that those that are asked for show.
const pipeline = `source: videotestsrc is-live=true pattern=smpte horizontal-speed=2
video: {codec: h264, width: %d, height: %d, framerate: 30, keyframe_interval: 10s, bitrate: {min: 150k, start: 2.5M, max: 2.5M}}
`
