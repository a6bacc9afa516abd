package adapt

import "time"

// The trendline filter and the overuse detector: Carlucci et al., "Analysis and Design
// of the Google Congestion Control for Web Real-time Communication" (MMSys 2016) and
// draft-ietf-rmcat-gcc-02 section 5.4; constants as in libwebrtc's TrendlineEstimator.
const (
	trendPoints    = 20
	trendSmoothing = 0.9
	trendGain      = 4.0
	trendCount     = 60   // variations at most that a slope is weighed with
	thresholdFirst = 12.5 // ms
	thresholdLeast = 6
	thresholdMost  = 600
	thresholdUp    = 0.0087 // k_u, per ms
	thresholdDown  = 0.039  // k_d
	thresholdFar   = 15     // ms: beyond, the threshold isn't adapted to a spike
	overuseTime    = 10     // ms that it must last
)

type usage uint8

const (
	normal usage = iota
	overuse
	underuse
)

// trendline tells whether one-way delay grows.
type trendline struct {
	n           int // variations, at most trendCount
	began       bool
	first, last time.Duration // arrival
	sum         float64       // ms of delay since the beginning
	smoothed    float64
	at, delay   [trendPoints]float64 // ms
	i, filled   int
	slope       float64
	threshold   float64 // ms
	over        float64 // ms of overuse until now; -1: none
	overs       int
	usage       usage
}

func newTrendline() trendline { return trendline{threshold: thresholdFirst, over: -1} }

// update takes the delay variation of a group.
func (t *trendline) update(variation, arrival time.Duration) {
	if !t.began {
		t.began, t.first, t.last = true, arrival, arrival
	}
	ms := float64(variation) / float64(time.Millisecond)
	dt := float64(arrival-t.last) / float64(time.Millisecond)
	t.last = arrival
	t.n = min(t.n+1, trendCount)
	t.sum += ms
	t.smoothed = trendSmoothing*t.smoothed + (1-trendSmoothing)*t.sum
	t.at[t.i], t.delay[t.i] = float64(arrival-t.first)/float64(time.Millisecond), t.smoothed
	t.i = (t.i + 1) % trendPoints
	t.filled = min(t.filled+1, trendPoints)
	slope := t.slope
	if t.filled == trendPoints {
		slope = t.fit()
	}
	t.detect(slope, dt)
}

// fit is the slope of the line through the points, by least squares; as before if they
// are on top of each other.
func (t *trendline) fit() float64 {
	var x, y float64
	for i := range t.at {
		x += t.at[i]
		y += t.delay[i]
	}
	x, y = x/trendPoints, y/trendPoints
	var num, den float64
	for i := range t.at {
		num += (t.at[i] - x) * (t.delay[i] - y)
		den += (t.at[i] - x) * (t.at[i] - x)
	}
	if den == 0 {
		return t.slope
	}
	return num / den
}

// detect compares a slope with the threshold, dt ms after the last.
func (t *trendline) detect(slope, dt float64) {
	if t.n < 2 {
		return
	}
	trend := float64(t.n) * slope * trendGain
	switch {
	case trend > t.threshold:
		if t.over < 0 {
			t.over = dt / 2
		} else {
			t.over += dt
		}
		t.overs++
		if t.over > overuseTime && t.overs > 1 && slope >= t.slope {
			t.over, t.overs, t.usage = 0, 0, overuse
		}
	case trend < -t.threshold:
		t.over, t.overs, t.usage = -1, 0, underuse
	default:
		t.over, t.overs, t.usage = -1, 0, normal
	}
	t.slope = slope
	t.adapt(max(trend, -trend), dt)
}

// adapt moves the threshold towards the trend, so that flows that fill queues don't
// starve this one: quickly down, slowly up.
func (t *trendline) adapt(trend, dt float64) {
	if trend > t.threshold+thresholdFar {
		return
	}
	k := thresholdDown
	if trend > t.threshold {
		k = thresholdUp
	}
	t.threshold += k * (trend - t.threshold) * min(max(dt, 0), 100)
	t.threshold = min(max(t.threshold, thresholdLeast), thresholdMost)
}
