package rtc

import (
	"bytes"
	"time"
)

const (
	jitterWindow = 1024 // packets that may be held, a power of two: 0.5 s of 20 Mbit/s

	depthMin      = 20 * time.Millisecond
	depthRepair   = 100 * time.Millisecond // a keyframe takes longer than that
	depthMax      = 500 * time.Millisecond // a viewer would rather have a keyframe
	depthSoundMax = 120 * time.Millisecond // its decoder conceals what is missing
	reorderMin    = 5 * time.Millisecond   // before the first NACK: less than that is a network card's batch
	reorderMax    = 60 * time.Millisecond
	reorderFades  = 10 * time.Second // to half
	askAgainMin   = 15 * time.Millisecond
	askTimes      = 3                      // that a repair is waited for, at most depthMax
	rttUnknown    = 100 * time.Millisecond // until something was measured
	rttMax        = time.Second
	nacksAtOnce   = 256
)

// arrival is one RTP packet of a publisher as it came.
type arrival struct {
	seq       uint16
	timestamp uint32
	marker    bool
	void      bool // nothing in it can be forwarded: it was too large
	repaired  bool // it came by RTX
	payload   []byte
}

// jitterBuffer puts the packets of one RTP stream into order again. What comes in
// order passes at once; behind a hole the rest waits until the missing packet
// arrives or its time is up. It is arithmetic: it has no clock and does no I/O; the
// times are its caller's, on any one clock that doesn't go back.
//
// A missing packet that is only late is known by how late others were (reorder):
// after that a NACK asks for it, again each time that the answer should have been
// there, as long as one can still arrive in time. How long it is waited for is the
// depth: the time for the repair to be asked for three times at least, where a try takes
// a round trip and four times the jitter (as RFC 6298 §2 reckons a timeout). Jitter is
// RFC 3550's (§6.4.1, appendix A.8), but of frames: the packets of one frame share a
// timestamp and are paced out by the sender, which isn't the network's doing.
type jitterBuffer struct {
	rate    uint32 // RTP clock, Hz
	repairs bool   // the sender answers NACKs

	begun  bool
	base   uint64 // numbers from here on were expected, as many as have come before a restart among them
	next   uint64 // number of the packet to be handed over next; the low 16 bits of a number are the sequence number
	top    uint64 // one past the highest number seen
	gap    bool   // packets before next were given up
	slots  []place
	strays struct { // packets that fit nowhere: two in a row are a sender that began anew (RFC 3550 A.1)
		seq uint16
		ok  bool
	}

	rtt      time.Duration // smoothed; 0 while unknown
	measured bool          // by repairs, not told
	late     time.Duration // how late packets were that came out of order, fading
	lateAt   time.Duration
	frame    struct { // the first packet of the newest frame
		known     bool
		timestamp uint32
		arrived   time.Duration
	}
	jitter time.Duration

	count  ReceiveCounts
	told   ReceiveCounts // at the last report
	toldTo uint64
}

// place is what is known of a packet between next and top, or given up lately.
type place struct {
	number  uint64
	here    bool
	lost    bool // given up
	tries   int  // NACKs
	noticed time.Duration
	asked   time.Duration
	arrival
}

// ReceiveCounts are totals of one RTP stream that a publisher sends.
type ReceiveCounts struct {
	Packets    uint64 // without repairs and duplicates
	Bytes      uint64 // their payload
	Reordered  uint64 // of these, those that came after a later one
	Duplicates uint64
	Missing    uint64 // that were noticed to be missing, with those that were only late
	Asked      uint64 // packets asked for by NACK, each time counted
	Repaired   uint64 // missing packets that came again in time
	Late       uint64 // that came after they were given up
	Lost       uint64 // given up
	Oversized  uint64 // too large to be forwarded
	Restarts   uint64 // of the sender's numbering
}

// push takes a packet that came now. Its payload is copied unless the packet is
// next: the caller pops before it uses the memory again.
func (j *jitterBuffer) push(a arrival, now time.Duration) {
	if !j.begun {
		j.restart(a.seq)
	}
	n := j.number(a.seq)
	switch {
	case n < j.next && j.next-n >= jitterWindow, n >= j.next+jitterWindow:
		if a.repaired {
			j.count.Late++
			return
		}
		if !j.strays.ok || a.seq != j.strays.seq {
			j.strays.seq, j.strays.ok = a.seq+1, true
			return
		}
		j.count.Restarts++
		for i := j.next; i < j.top; i++ {
			if !j.at(i).here {
				j.count.Lost++
			}
		}
		j.restart(a.seq)
		j.gap, j.frame.known = true, false
		n = j.next
	case n < j.next:
		j.overdue(n, a, now)
		return
	case n < j.top && j.at(n).here:
		j.count.Duplicates++
		return
	}
	j.strays.ok = false
	if !a.repaired {
		j.count.Packets++
		j.count.Bytes += uint64(len(a.payload))
	}
	if a.void {
		j.count.Oversized++
		a.payload = nil
	}
	if n >= j.top {
		j.notice(n, now)
		j.measure(a, now)
	} else {
		j.fill(j.at(n), a.repaired, now)
	}
	if n != j.next {
		a.payload = bytes.Clone(a.payload)
	}
	*j.at(n) = place{number: n, here: true, arrival: a}
}

// restart begins anew with a sequence number.
func (j *jitterBuffer) restart(seq uint16) {
	if !j.begun {
		j.begun, j.slots = true, make([]place, jitterWindow)
	}
	j.next = 1<<32 | uint64(seq)
	j.base, j.top, j.toldTo = j.next-j.count.Packets, j.next, j.next
	j.told = j.count
	j.strays.ok = false
}

// number is a sequence number in full: the one nearest to the highest.
func (j *jitterBuffer) number(seq uint16) uint64 {
	return j.top + uint64(int64(int16(seq-uint16(j.top))))
}

func (j *jitterBuffer) at(n uint64) *place { return &j.slots[n%jitterWindow] }

// notice raises the top to packet n; what is before it is missing.
func (j *jitterBuffer) notice(n uint64, now time.Duration) {
	for ; j.top < n; j.top++ {
		*j.at(j.top) = place{number: j.top, noticed: now}
		j.count.Missing++
	}
	j.top++
}

// fill learns from a missing packet that has come.
func (j *jitterBuffer) fill(p *place, repaired bool, now time.Duration) {
	if !repaired {
		j.count.Reordered++
	}
	switch {
	case repaired:
		j.count.Repaired++
		if p.tries == 1 { // else nobody knows which of them was answered (Karn)
			j.tookRTT(now-p.asked, true)
		}
	case p.tries > 0 && j.rtt > 0 && now-p.asked >= j.rtt/2: // sent again without RTX, most likely
		j.count.Repaired++
	default:
		j.wasLate(now-p.noticed, now)
	}
}

// overdue takes a packet that is behind what was handed over.
func (j *jitterBuffer) overdue(n uint64, a arrival, now time.Duration) {
	p := j.at(n)
	if p.number != n || !p.lost {
		j.count.Duplicates++
		return
	}
	p.lost = false
	j.count.Late++
	if !a.repaired {
		j.count.Packets++
		j.count.Reordered++
		j.wasLate(now-p.noticed, now)
	} else if p.tries == 1 {
		j.tookRTT(now-p.asked, true)
	}
}

// measure takes a packet that is the newest for the jitter.
func (j *jitterBuffer) measure(a arrival, now time.Duration) {
	if a.repaired || j.frame.known && a.timestamp == j.frame.timestamp {
		return
	}
	if f := j.frame; f.known {
		apart := time.Duration(int32(a.timestamp-f.timestamp)) * time.Second / time.Duration(j.rate)
		if d := (now - f.arrived - apart).Abs(); d < 2*time.Second { // else the sender's clock was set
			j.jitter += (d - j.jitter) / 16
		}
	}
	j.frame.known, j.frame.timestamp, j.frame.arrived = true, a.timestamp, now
}

// wasLate takes the delay of a packet that came out of order by itself.
func (j *jitterBuffer) wasLate(d, now time.Duration) {
	if d >= j.reorder(now) {
		j.late, j.lateAt = d, now
	}
}

// reorder is how late packets are that come out of order, at the worst lately.
func (j *jitterBuffer) reorder(now time.Duration) time.Duration {
	halves := (now - j.lateAt) / reorderFades
	if halves > 20 {
		return 0
	}
	rest := (now - j.lateAt) % reorderFades
	d := j.late >> max(halves, 0)
	return d - d/2*rest/reorderFades
}

// tookRTT takes a round trip time: measured by a repair, or told, which counts until
// there is such a measurement.
func (j *jitterBuffer) tookRTT(d time.Duration, measured bool) {
	d = min(max(d, time.Millisecond), rttMax)
	switch {
	case measured && j.measured:
		j.rtt += (d - j.rtt) / 8
	case measured || !j.measured:
		j.rtt, j.measured = d, measured
	}
}

// wait is how long a missing packet may be only late.
func (j *jitterBuffer) wait(now time.Duration) time.Duration {
	d := j.reorder(now)
	return min(max(d+d/4, reorderMin), reorderMax)
}

// try is the time from a NACK until its answer should have come.
func (j *jitterBuffer) try() time.Duration {
	rtt := j.rtt
	if rtt == 0 {
		rtt = rttUnknown
	}
	return max(rtt+4*j.jitter, askAgainMin)
}

// depth is how long a missing packet is waited for, and all behind it.
func (j *jitterBuffer) depth(now time.Duration) time.Duration {
	if !j.repairs {
		return min(max(2*j.reorder(now)+4*j.jitter, depthMin), depthSoundMax)
	}
	return min(max(j.wait(now)+askTimes*j.try(), depthRepair), depthMax)
}

// pop hands over the packet that is next, if it is here or its turn has come after
// others were given up: gap says so. The payload is valid until the next push.
func (j *jitterBuffer) pop(now time.Duration) (a arrival, gap, ok bool) {
	for j.next < j.top {
		p := j.at(j.next)
		if p.here {
			a, gap = p.arrival, j.gap
			p.here, p.payload = false, nil
			j.gap = a.void
			j.next++
			if a.void {
				continue
			}
			return a, gap, true
		}
		if now < p.noticed+j.depth(now) {
			return arrival{}, false, false
		}
		p.lost, j.gap = true, true
		j.count.Lost++
		j.next++
	}
	return arrival{}, false, false
}

// nacks appends the sequence numbers that are to be asked for now.
func (j *jitterBuffer) nacks(dst []uint16, now time.Duration) []uint16 {
	if !j.repairs {
		return dst
	}
	depth := j.depth(now)
	n := 0
	for i := j.next; i < j.top && n < nacksAtOnce; i++ {
		p := j.at(i)
		if at, ok := j.askAt(p, depth, now); ok && at <= now {
			p.asked = now
			p.tries++
			j.count.Asked++
			dst = append(dst, uint16(i))
			n++
		}
	}
	return dst
}

// askAt tells when a missing packet is to be asked for next, if that can help.
func (j *jitterBuffer) askAt(p *place, depth, now time.Duration) (time.Duration, bool) {
	if p.here || !j.repairs {
		return 0, false
	}
	at := p.noticed + j.wait(now)
	if p.tries > 0 {
		at = p.asked + j.try()
	}
	return at, max(at, now)+min(j.rtt, j.try()) <= p.noticed+depth
}

// due tells when pop or nacks may have something; ok is false while all that has
// come was handed over.
func (j *jitterBuffer) due(now time.Duration) (at time.Duration, ok bool) {
	depth := j.depth(now)
	for i := j.next; i < j.top; i++ {
		p := j.at(i)
		if p.here {
			continue
		}
		if give := p.noticed + depth; i == j.next && (!ok || give < at) {
			at, ok = give, true
		}
		if ask, can := j.askAt(p, depth, now); can && (!ok || ask < at) {
			at, ok = ask, true
		}
	}
	return at, ok
}

// held is how long what is next has been missing: the delay that is added just now.
func (j *jitterBuffer) held(now time.Duration) time.Duration {
	if j.next == j.top || j.at(j.next).here {
		return 0
	}
	return now - j.at(j.next).noticed
}

// report is what a receiver report says (RFC 3550 §6.4.1): the share that was lost
// since the last one, in 1/256, the sum of losses, the highest number with the count
// of wraps, and the jitter in units of the RTP clock. Repairs don't count.
func (j *jitterBuffer) report() (fraction uint8, lost uint32, highest uint32, jitter uint32) {
	expected := int64(j.top - j.toldTo)
	received := int64(j.count.Packets - j.told.Packets)
	if expected > 0 && received < expected {
		fraction = uint8(min((expected-received)*256/expected, 255))
	}
	j.toldTo, j.told = j.top, j.count
	all := int64(j.top-j.base) - int64(j.count.Packets)
	return fraction, uint32(min(max(all, 0), 1<<23-1)), uint32(j.top - 1), uint32(j.jitter * time.Duration(j.rate) / time.Second)
}
