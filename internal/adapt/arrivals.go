package adapt

import "time"

const (
	burstTime   = 5 * time.Millisecond   // packets sent within it are one group (draft-ietf-rmcat-gcc-02 section 5.2)
	burstLength = 100 * time.Millisecond // that a group may take to arrive
	clockJump   = 3 * time.Second        // between neighbours isn't the network's doing (libwebrtc, InterArrival)
	markTime    = 8 * time.Millisecond   // of arrivals in one mark
	ackedWindow = 500 * time.Millisecond
	standing    = 100 * time.Millisecond // a queue that isn't empty once in it stands (CoDel's interval, RFC 8289)
	busyLeast   = 60 * time.Millisecond  // of a busy link tell its rate
	holeTime    = 60 * time.Millisecond
	steepSent   = 20 * time.Millisecond
	baseParts   = 6
	basePart    = 5 * time.Second
)

// arrivals is what is known of when packets arrived: how much in which time, and how much
// later than the quickest. One-way delays are differences of two clocks: only their
// changes mean something. A drift of 100 ppm makes 3 ms in the time that the least is
// remembered.
type arrivals struct {
	known  bool
	newest time.Duration // when the newest packet was sent
	delay  time.Duration // one way, of that packet
	group  group

	least   [baseParts]time.Duration // one-way delay by the time of arrival, basePart each
	part    time.Duration            // start of the current part
	current int
	base    time.Duration // the least of least

	total  int64 // bytes that arrived
	marks  [128]mark
	last   uint          // the newest mark
	filled uint          // marks that are valid
	jitter time.Duration // mean deviation of the delay of groups, smoothed
}

// group is packets that were sent in one go.
type group struct {
	any                     bool
	firstSent, firstArrival time.Duration
	arrival                 time.Duration // of its last
}

// mark is what had arrived by a moment.
type mark struct {
	from, arrival time.Duration // of its first and last packet
	sent          time.Duration // when the last was sent
	total         int64         // bytes up to and with it
	delay         time.Duration // the least, one way, of its packets
}

type arrivalKind uint8

const (
	inGroup arrivalKind = iota
	grouped             // it began a group: there is a delay variation
	jumped              // a clock jumped: all starts anew
)

// add notes a packet. The variation is that of the one-way delay between the last two
// groups' first packets. Those say how long the queue is without the group itself; with
// the last packet's, as the draft has it, a large frame would look like a queue.
func (a *arrivals) add(sent, arrival time.Duration, size int) (variation time.Duration, kind arrivalKind) {
	delay := arrival - sent
	if a.known {
		if d := delay - a.delay; d > clockJump || d < -clockJump {
			*a = arrivals{total: a.total, jitter: a.jitter}
			kind = jumped
		}
	}
	if !a.known {
		a.known = true
		for i := range a.least {
			a.least[i] = delay
		}
		a.part, a.base = arrival, delay
	}
	a.newest, a.delay = sent, delay
	a.floor(arrival, delay)
	a.total += int64(size)
	a.mark(sent, arrival, delay)
	if v, ok := a.regroup(sent, arrival); ok {
		variation, kind = v, grouped
		a.jitter += (v.Abs() - a.jitter) / 32
	}
	return variation, kind
}

// late notes a packet of which better was thought before.
func (a *arrivals) late(size int) {
	if a.filled > 0 {
		a.total += int64(size)
		a.marks[a.last].total = a.total
	}
}

// floor keeps the least delay of the last 25 to 30 s.
func (a *arrivals) floor(arrival, delay time.Duration) {
	if arrival-a.part > baseParts*basePart { // of clocks that drift, nothing is left
		for i := range a.least {
			a.least[i] = delay
		}
	}
	if d := arrival - a.part; d >= basePart || d < -basePart {
		a.part = arrival
		a.current = (a.current + 1) % baseParts
		a.least[a.current] = delay
		a.base = a.least[0]
		for _, d := range a.least[1:] {
			a.base = min(a.base, d)
		}
	}
	a.least[a.current] = min(a.least[a.current], delay)
	a.base = min(a.base, delay)
}

// rebase takes the delay as it is now for that of the empty network.
func (a *arrivals) rebase() {
	now := a.base + a.queue()
	for i := range a.least {
		a.least[i] = now
	}
	a.base = now
}

func (a *arrivals) mark(sent, arrival, delay time.Duration) {
	m := &a.marks[a.last]
	if a.filled > 0 && arrival-m.from < markTime {
		m.arrival = max(m.arrival, arrival)
		m.total, m.sent, m.delay = a.total, sent, min(m.delay, delay)
		return
	}
	a.last = (a.last + 1) % uint(len(a.marks))
	a.filled = min(a.filled+1, uint(len(a.marks)))
	a.marks[a.last] = mark{from: arrival, arrival: arrival, sent: sent, total: a.total, delay: delay}
}

// back is the mark i before the newest.
func (a *arrivals) back(i uint) *mark {
	return &a.marks[(a.last+uint(len(a.marks))-i)%uint(len(a.marks))]
}

func (a *arrivals) regroup(sent, arrival time.Duration) (time.Duration, bool) {
	g := &a.group
	if g.any && a.inGroup(sent, arrival) {
		g.arrival = max(g.arrival, arrival)
		return 0, false
	}
	before := a.group
	a.group = group{any: true, firstSent: sent, firstArrival: arrival, arrival: arrival}
	if !before.any {
		return 0, false
	}
	return (arrival - before.firstArrival) - (sent - before.firstSent), true
}

// inGroup tells whether a packet was sent together with the group, or has caught up with
// it: then both waited for the same thing (draft-ietf-rmcat-gcc-02 section 5.2).
func (a *arrivals) inGroup(sent, arrival time.Duration) bool {
	g := &a.group
	if sent-g.firstSent <= burstTime {
		return true
	}
	apart := arrival - g.arrival
	return apart <= burstTime && apart-(sent-g.firstSent) < 0 && arrival-g.firstArrival < burstLength
}

// queue is the least that packets waited in the last moments: jitter and what a frame
// does to itself aren't in it.
func (a *arrivals) queue() time.Duration {
	if a.filled == 0 {
		return 0
	}
	end := a.back(0).arrival
	least := a.back(0).delay
	for i := uint(1); i < a.filled; i++ {
		m := a.back(i)
		if end-m.arrival > standing && i >= 3 || end-m.arrival > 3*standing {
			break
		}
		least = min(least, m.delay)
	}
	return max(least-a.base, 0)
}

// steep is how much the delay of the newest packets has risen without a break, while they
// were sent over some time: a link that has suddenly become much slower, which the queue
// tells only a moment later. 0: it hasn't. And the bit/s that arrived meanwhile.
func (a *arrivals) steep() (rise time.Duration, bps float64) {
	if a.filled == 0 {
		return 0, 0
	}
	end := a.back(0)
	first, n := end, 0
	for i := uint(1); i < a.filled; i++ {
		m := a.back(i)
		if m.delay >= first.delay || end.arrival-m.arrival > ackedWindow {
			break
		}
		first, n = m, n+1
	}
	if n < 4 || end.sent-first.sent < steepSent {
		return 0, 0
	}
	return end.delay - first.delay, between(first, end)
}

// rate is the bit/s that arrived in the last moments; 0: too little to tell.
func (a *arrivals) rate(window time.Duration) float64 {
	end := a.back(0)
	var first *mark
	for i := uint(1); i < a.filled; i++ {
		m := a.back(i)
		if age := end.arrival - m.arrival; age > window && i > 4 || age > 4*window {
			break
		}
		first = m
	}
	return between(first, end)
}

// busy is the bit/s that arrived since packets began to wait longer than that, at most
// half a second ago: what the narrowest link carries. 0: too little to tell.
func (a *arrivals) busy(wait time.Duration) float64 {
	end := a.back(0)
	var first *mark
	for i := uint(1); i < a.filled; i++ {
		m := a.back(i)
		if m.delay-a.base < wait || end.arrival-m.arrival > ackedWindow || hole(m, a.back(i-1)) {
			break
		}
		first = m
	}
	if first == nil || end.arrival-first.arrival < busyLeast || end.total-first.total < 4*packet {
		return 0
	}
	return between(first, end)
}

// hole tells whether feedback on what was between two marks is missing: a link that is
// busy makes no pause.
func hole(m, next *mark) bool {
	return next.sent-m.sent > holeTime && next.arrival-m.arrival > holeTime
}

// between is the bit/s that arrived after a mark.
func between(first, end *mark) float64 {
	if first == nil || end.arrival <= first.arrival {
		return 0
	}
	return rateOver(end.total-first.total, end.arrival-first.arrival)
}
