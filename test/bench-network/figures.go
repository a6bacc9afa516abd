package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"gateway/test/impair"
	"gateway/test/stat"
)

// figures is a row of the table. What doesn't apply is NaN, what never came about +Inf.
type figures [len(columns)]float64

// The columns' order is that of the constants.
var columns = [...]struct{ name, format string }{
	{"used %", "%.0f"}, {"join s", "%.1f"}, {"fits s", "%.1f"}, {"drained s", "%.1f"}, {"80 % s", "%.1f"}, {"over %", "%.0f"},
	{"queue p95 ms", "%.0f"}, {"frame p95 ms", "%.0f"}, {"freezes", "%.0f"}, {"longest ms", "%.0f"}, {"joining ms", "%.0f"},
	{"lost", "%.0f"}, {"keyframes", "%.0f"}, {"RTX", "%.0f"},
}

const (
	used       = iota // media that arrived, first transmissions without padding, of what the link carries or the encoder makes at most
	join              // from the first frame until the bitrate fits and the queue is drained, as below
	fits              // from a fall of the rate until no more is sent than the link carries, over 500 ms
	drained           // from a fall of the rate until no packet waits 100 ms, for a second
	up80              // from a rise of the rate until a second had 80 % of it
	over              // the worst second's excess over the rate, but for the first 3 s after a change
	queue95           // how long packets waited at the link
	frame95           // from capture to the frame's last packet, over the fastest frame of the run, and the way
	freezes           // intervals of more than 200 ms between frames shown
	longest           // of these intervals, or of all if none is so long
	joinFreeze        // the same while joining
	lost              // frames that were sent and not shown
	keyframes
	rtx // packets that aren't of the media's SSRC: retransmissions and probes
)

// ran is all that a run has yielded.
type ran struct {
	oneCase
	begun, ended time.Time
	records      []impair.Record
	viewed
}

const (
	queueAim = 100 * time.Millisecond
	freeze   = 200 * time.Millisecond
	grid     = 50 * time.Millisecond // how finely times are looked for
)

func (r *ran) figures() (f figures) {
	for i := range f {
		f[i] = math.NaN()
	}
	from := r.begun.Add(joining)
	f[used] = 100 * r.delivered(from, r.ended) / r.carried(from, r.ended)
	at := r.begun
	for i, p := range r.phases {
		end := at.Add(p.lasts)
		carries, before := r.share(i), 0
		if i > 0 {
			before = r.share(i - 1)
		}
		switch {
		case i == 0 && p.Rate > 0:
			f[join] = max(r.fits(at, end, p.Rate), r.drained(at, end))
		case i > 0 && carries < before:
			f[fits], f[drained] = r.fits(at, end, carries), r.drained(at, end)
		case i > 0 && carries > before:
			f[up80] = r.uses(at, end, 0.8*float64(carries))
		}
		calm := at.Add(3 * time.Second)
		if i == 0 {
			calm = from
		}
		if p.Rate > 0 {
			f[over] = math.Max(r.excess(calm, end, p.Rate), zero(f[over]))
		}
		at = end
	}
	r.delays(&f, from)
	r.pictures(&f, from)
	return f
}

func zero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// share is what the viewer can have in a phase: half of what a TCP flow competes for.
func (r *ran) share(i int) int {
	if r.tcp && i == 1 {
		return min(r.phases[i].Rate/2, usualMax)
	}
	return r.phases[i].carries()
}

func (r *ran) media(p *impair.Record) bool { return p.RTP && p.SSRC == r.ssrc && !p.Padding }

// delivered is the bits of media that arrived in a time.
func (r *ran) delivered(from, to time.Time) float64 {
	bytes := 0
	for i := range r.records {
		if p := &r.records[i]; p.Fate == impair.Delivered && !p.At.Before(from) && p.At.Before(to) && r.media(p) {
			bytes += p.Size
		}
	}
	return float64(8 * bytes)
}

// carried is the bits that could have come in a time.
func (r *ran) carried(from, to time.Time) (bits float64) {
	at := r.begun
	for i, p := range r.phases {
		begin, end := at, at.Add(p.lasts)
		at = end
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		if end.After(begin) {
			bits += float64(r.share(i)) * end.Sub(begin).Seconds()
		}
	}
	return bits
}

// sent is the mean rate of all RTP that came to the link in a time.
func (r *ran) sent(from, to time.Time) float64 {
	bytes := 0
	for i := range r.records {
		if p := &r.records[i]; p.RTP && !p.Came.Before(from) && p.Came.Before(to) {
			bytes += p.Size
		}
	}
	return float64(8*bytes) / to.Sub(from).Seconds()
}

// first is how many seconds after from something holds; +Inf if not before to.
func first(from, to time.Time, span time.Duration, holds func(from, to time.Time) bool) float64 {
	for at := from; !at.Add(span).After(to); at = at.Add(grid) {
		if holds(at, at.Add(span)) {
			return at.Sub(from).Seconds()
		}
	}
	return math.Inf(1)
}

func (r *ran) fits(from, to time.Time, rate int) float64 {
	return first(from, to, 500*time.Millisecond, func(a, b time.Time) bool { return r.sent(a, b) <= 1.05*float64(rate) })
}

func (r *ran) drained(from, to time.Time) float64 {
	return first(from, to, time.Second, func(a, b time.Time) bool {
		for i := range r.records {
			p := &r.records[i]
			if p.RTP && !p.Came.Before(a) && p.Came.Before(b) && (p.Fate == impair.Dropped || p.Waited >= queueAim) {
				return false
			}
		}
		return true
	})
}

func (r *ran) uses(from, to time.Time, bps float64) float64 {
	s := first(from, to, time.Second, func(a, b time.Time) bool { return r.delivered(a, b) >= bps })
	return s + 1
}

func (r *ran) excess(from, to time.Time, rate int) (percent float64) {
	for at := from; !at.Add(time.Second).After(to); at = at.Add(100 * time.Millisecond) {
		percent = max(percent, 100*(r.sent(at, at.Add(time.Second))/float64(rate)-1))
	}
	return percent
}

func (r *ran) delays(f *figures, from time.Time) {
	var waited []float64
	again := 0
	for i := range r.records {
		p := &r.records[i]
		if !p.RTP || p.Came.Before(from) {
			continue
		}
		if p.SSRC != r.ssrc {
			again++
		}
		if p.Fate == impair.Delivered {
			waited = append(waited, ms(p.Waited))
		}
	}
	f[rtx] = float64(again)
	if len(waited) > 0 {
		f[queue95] = stat.Quantile(waited, 0.95)
	}
	if len(r.frames) == 0 {
		return
	}
	late, fastest := r.lateness()
	var all []float64
	for _, s := range r.frames {
		if s.at.After(from) {
			all = append(all, late(s))
		}
	}
	if len(all) > 0 {
		f[frame95] = stat.Quantile(all, 0.95) - fastest + ms(r.phases[0].Delay)
	}
}

// lateness tells how many ms after its capture a frame had come, but for a constant:
// capture times are known by the timestamps. fastest is that of the fastest frame.
func (r *ran) lateness() (late func(shown) float64, fastest float64) {
	fastest = math.Inf(1)
	if len(r.frames) == 0 {
		return nil, fastest
	}
	origin := r.frames[0]
	late = func(s shown) float64 {
		captured := time.Duration(int32(s.timestamp-origin.timestamp)) * time.Second / 90000
		return ms(s.complete.Sub(origin.complete) - captured)
	}
	for _, s := range r.frames {
		fastest = min(fastest, late(s))
	}
	return late, fastest
}

func (r *ran) pictures(f *figures, from time.Time) {
	f[freezes], f[longest], f[joinFreeze] = 0, 0, 0
	note := func(interval time.Duration, at time.Time) {
		switch {
		case at.Before(from):
			f[joinFreeze] = max(f[joinFreeze], ms(interval))
		default:
			f[longest] = max(f[longest], ms(interval))
			if interval > freeze {
				f[freezes]++
			}
		}
	}
	seen := make(map[uint32]bool)
	unseen := 0
	last := r.begun
	for _, s := range r.frames {
		seen[s.timestamp] = true
		if s.at.Before(r.begun) {
			continue
		}
		note(s.at.Sub(last)/time.Duration(s.missed+1), s.at)
		if s.at.After(from) {
			unseen += s.missed
		}
		last = s.at
	}
	note(r.ended.Sub(last), r.ended)
	sent := make(map[uint32]bool)
	for i := range r.records {
		if p := &r.records[i]; r.media(p) && p.Came.After(from) && p.Came.Before(r.ended.Add(-time.Second)) {
			sent[p.Timestamp] = true
		}
	}
	gone := -unseen
	for timestamp := range sent {
		if !seen[timestamp] {
			gone++
		}
	}
	f[lost] = float64(max(gone, 0))
	f[keyframes] = float64(r.keyframes)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median is the median of each figure.
func median(all []figures) (f figures) {
	for i := range f {
		var values []float64
		for _, one := range all {
			if !math.IsNaN(one[i]) {
				values = append(values, one[i])
			}
		}
		f[i] = math.NaN()
		if len(values) > 0 {
			f[i] = stat.Quantile(values, 0.5)
		}
	}
	return f
}

func header() string {
	b, rule := "| case | contender |", "| --- | --- |"
	for _, c := range columns {
		b += " " + c.name + " |"
		rule += " --- |"
	}
	return b + "\n" + rule
}

func (f figures) row(name, contender string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s |", name, contender)
	for i, c := range columns {
		text := fmt.Sprintf(c.format, f[i])
		switch {
		case math.IsNaN(f[i]):
			text = ""
		case math.IsInf(f[i], 1):
			text = "never"
		}
		fmt.Fprintf(&b, " %s |", text)
	}
	return b.String()
}
