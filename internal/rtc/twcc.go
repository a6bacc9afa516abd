package rtc

import (
	"encoding/binary"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
)

// Transport-wide congestion control (draft-holmer-rmcat-transport-wide-cc-extensions-01):
// each packet of a viewer, of whatever track, carries the transport's next number
// in a header extension, and the receiver tells several times a second which
// numbers arrived when.

const (
	leastSent    = 256             // packets remembered to begin with: 2 KiB
	mostSent     = 4096            // and at most: 2 s of 20 Mbit/s
	feedbackWait = 2 * time.Second // a packet is remembered so long for its feedback, if there is room
	deltaUnit    = 250 * time.Microsecond
	deltasPerRef = 64 * time.Millisecond / deltaUnit // units of the reference time
)

// numbering numbers a viewer's packets and learns what became of them. One that
// sends none with a number costs no memory. Guarded by Viewer.sendMu, but for the
// estimator.
type numbering struct {
	now   time.Duration // of the shard's turn: when its packets are sent
	next  uint64        // number of the next packet, unwrapped; the low 16 bits are what it carries
	sent  []sentPacket  // packet n at n mod len, a power of two; nil before the first
	probe uint8         // that packets are part of now; 0: none

	heard     bool
	count     uint8 // of the last feedback
	reference int64 // its time, unwrapped, in units of 64 ms
	heardAt   time.Duration
	feedbacks uint64
	missed    uint64
	recent    window
	reports   []media.PacketReport // of the feedback that is being told
	stamped   int64                // the last timestamp of RFC 8888 feedback, unwrapped; 0: none
}

// sentPacket is what is known of a packet that was sent.
type sentPacket struct {
	at    uint32 // low bits of the microseconds on the clock of media.Now
	size  uint16 // bytes; and the bit unsure
	fate  fate
	probe uint8 // that it was part of; 0: none
}

// unsure is set in a packet's size if it may have been sent later than noted.
const unsure = 1 << 15

func (p *sentPacket) bytes() int { return int(p.size &^ unsure) }

// lateTurn is how long a turn may take so that its packets count as sent when it began:
// it takes some 20 µs if nobody takes the processor away from it.
const lateTurn = 2 * time.Millisecond

type fate uint8

const (
	awaited fate = iota
	lost
	arrived
)

// stamp gives a packet that is sent now the next number, in the two bytes of its
// header extension if it has one. size is its bytes with the header.
func (t *numbering) stamp(number []byte, size int) {
	if mask := uint64(len(t.sent) - 1); t.sent == nil || t.next > mask && len(t.sent) < mostSent && t.awaits(&t.sent[t.next&mask]) {
		t.grow()
	}
	if number != nil {
		binary.BigEndian.PutUint16(number, uint16(t.next))
	}
	t.sent[t.next&uint64(len(t.sent)-1)] = sentPacket{at: uint32(t.now / time.Microsecond), size: uint16(min(size, unsure-1)), probe: t.probe}
	t.next++
}

// doubt notes that nobody knows when the packets from that number on went out: on a
// busy machine the shard was kept from it, and what they were late by would be taken
// for a queue on the way.
func (t *numbering) doubt(from uint64) {
	from = max(from, t.next-min(t.next, uint64(len(t.sent))))
	for ; from < t.next; from++ {
		t.sent[from&uint64(len(t.sent)-1)].size |= unsure
	}
}

// awaits tells whether feedback on a packet may yet come.
func (t *numbering) awaits(p *sentPacket) bool {
	return p.fate == awaited && t.now-p.sentAt(t.now) < feedbackWait
}

// sentAt is when the packet was sent, which is less than 71 minutes before now.
func (p *sentPacket) sentAt(now time.Duration) time.Duration {
	return now - time.Duration(uint32(now/time.Microsecond)-p.at)*time.Microsecond
}

// outstanding is the bytes that were sent after the last packet of which something was told.
func (t *numbering) outstanding() (bytes int) {
	for i := range uint64(min(t.next, uint64(len(t.sent)))) {
		p := &t.sent[(t.next-1-i)&uint64(len(t.sent)-1)]
		if !t.awaits(p) {
			break
		}
		bytes += p.bytes()
	}
	return bytes
}

// grow doubles the number of packets that are remembered.
func (t *numbering) grow() {
	old := t.sent
	t.sent = make([]sentPacket, max(2*len(old), leastSent))
	for i := range old {
		n := t.next - 1 - uint64(i)
		t.sent[n&uint64(len(t.sent)-1)] = old[n&uint64(len(old)-1)]
	}
}

// feedbackMessage is one feedback message, checked (section 3.1). Its slices are
// of the packet that it was read from.
type feedbackMessage struct {
	base      uint16 // number of the first packet that it tells of
	packets   int    // that it tells of
	reference uint32 // 24 bits, in units of 64 ms, to which the first delta is added
	count     uint8  // of the feedback messages
	chunks    []byte // the packets' symbols
	deltas    []byte // of those that arrived
}

const feedbackHeader = 20 // bytes before the first chunk

// isTransportFeedback tells whether an RTCP packet is transport-wide feedback.
func isTransportFeedback(b []byte) bool {
	return len(b) >= 4 && b[0]>>6 == 2 && b[0]&0x1f == 15 && b[1] == 205
}

// symbol is the status of a packet (section 3.1.1): also the size of its delta.
type symbol uint16

const (
	notReceived symbol = iota
	smallDelta         // one byte
	largeDelta         // two bytes, signed
	reserved
)

// A packet status chunk is a run of one symbol (section 3.1.3) or a vector of 14
// symbols of one bit or 7 of two (section 3.1.4).
type statusChunk uint16

func (c statusChunk) isRun() bool { return c&0x8000 == 0 }

// len is the number of packets that the chunk tells of.
func (c statusChunk) len() int {
	switch {
	case c.isRun():
		return int(c & 0x1fff)
	case c&0x4000 == 0:
		return 14
	}
	return 7
}

// at is the symbol of packet i.
func (c statusChunk) at(i int) symbol {
	switch {
	case c.isRun():
		return symbol(c >> 13 & 3)
	case c&0x4000 == 0:
		return symbol(c >> (13 - i) & 1)
	}
	return symbol(c >> (12 - 2*i) & 3)
}

// parseTransportFeedback reads a feedback message, in time that is bounded by its
// length. false: it is malformed.
func parseTransportFeedback(b []byte) (f feedbackMessage, ok bool) {
	if len(b) < feedbackHeader || !isTransportFeedback(b) {
		return f, false
	}
	size := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
	if size < feedbackHeader || size > len(b) {
		return f, false
	}
	f.base = binary.BigEndian.Uint16(b[12:])
	f.packets = int(binary.BigEndian.Uint16(b[14:]))
	f.reference, f.count = binary.BigEndian.Uint32(b[16:])>>8, b[19]
	rest := b[feedbackHeader:size]
	deltas, end := 0, 0
	for left := f.packets; left > 0; end += 2 {
		if end+2 > len(rest) {
			return f, false
		}
		chunk := statusChunk(binary.BigEndian.Uint16(rest[end:]))
		n := min(chunk.len(), left)
		left -= n
		if chunk.isRun() && n > 0 {
			if chunk.at(0) == reserved {
				return f, false
			}
			deltas += n * int(chunk.at(0))
			continue
		}
		for i := range n {
			s := chunk.at(i)
			if s == reserved {
				return f, false
			}
			deltas += int(s)
		}
	}
	if f.packets == 0 || end+deltas > len(rest) {
		return f, false
	}
	f.chunks, f.deltas = rest[:end], rest[end:end+deltas]
	return f, true
}

// onTransportFeedback takes a feedback message. It is called on one
// goroutine at a time.
func (v *Viewer) onTransportFeedback(b []byte) {
	v.engine.metrics.feedbacks.Inc()
	f, ok := parseTransportFeedback(b)
	if ok {
		v.learn(func(now time.Duration, e *adapt.Estimator) {
			if ok = v.numbering.take(&f, now); ok && len(v.numbering.reports) > 0 {
				e.Feedback(now, v.numbering.reports, v.rtt(now))
			}
		})
	}
	if !ok {
		v.engine.metrics.badFeedbacks.Inc()
		return
	}
	if v.heard != nil {
		v.heard(v.numbering.reports) // written here only
	}
}

// take learns from a feedback message, and lists in t.reports what it tells anew.
// false: it tells of packets that were never sent, and nothing was taken.
func (t *numbering) take(f *feedbackMessage, now time.Duration) bool {
	t.reports = t.reports[:0]
	behind := uint64(uint16(t.next) - f.base)
	if behind > t.next || uint64(f.packets) > behind {
		return false
	}
	t.hear(f, now)
	n := t.next - behind // unwrapped, of the packet that is next to be told of
	oldest := t.next - min(t.next, uint64(len(t.sent)))
	time250 := t.reference * int64(deltasPerRef)
	deltas := f.deltas
	left := f.packets
	for chunks := f.chunks; left > 0; chunks = chunks[2:] {
		chunk := statusChunk(binary.BigEndian.Uint16(chunks))
		i, end := 0, min(chunk.len(), left)
		left -= end
		if chunk.isRun() && chunk.at(0) == notReceived && n < oldest { // long forgotten, and perhaps thousands
			i = int(min(oldest-n, uint64(end)))
			n += uint64(i)
		}
		for ; i < end; i, n = i+1, n+1 {
			to := lost
			switch chunk.at(i) {
			case smallDelta:
				to, time250, deltas = arrived, time250+int64(deltas[0]), deltas[1:]
			case largeDelta:
				to, time250, deltas = arrived, time250+int64(int16(binary.BigEndian.Uint16(deltas))), deltas[2:]
			}
			if n < oldest {
				continue
			}
			t.tell(n, to, time250, now)
		}
	}
	return true
}

// tell notes a packet's fate, at a moment in units of deltaUnit, and lists it in
// t.reports if that is new.
func (t *numbering) tell(n uint64, to fate, at int64, now time.Duration) {
	p := &t.sent[n&uint64(len(t.sent)-1)]
	if p.fate >= to {
		return // told before
	}
	t.recent.note(p, to, at)
	p.fate = to
	r := media.PacketReport{Sent: p.sentAt(now), Size: p.bytes(), Received: to == arrived, Probe: p.probe, Unsure: p.size&unsure != 0}
	if r.Received {
		r.Arrival = time.Duration(at) * deltaUnit
	}
	t.reports = append(t.reports, r)
}

// hear unwraps what a feedback message says of itself.
func (t *numbering) hear(f *feedbackMessage, now time.Duration) {
	t.feedbacks++
	t.heardAt = now
	if !t.heard {
		t.heard, t.count, t.reference = true, f.count, int64(f.reference)
		return
	}
	t.reference += int64(int32(f.reference<<8-uint32(t.reference)<<8) >> 8)
	switch ahead := int8(f.count - t.count); {
	case ahead > 0:
		t.missed += uint64(ahead - 1)
		t.count = f.count
	case ahead < 0 && t.missed > 0:
		t.missed-- // it was only late
	}
}

// stats adds what is known of the transport to a viewer's statistics.
func (t *numbering) stats(s *Stats, now time.Duration) {
	s.Feedbacks, s.FeedbacksMissed = t.feedbacks, t.missed
	if t.heard && now-t.heardAt < feedbackWait {
		s.AckedBps, s.TransportLoss = t.recent.rates()
	}
}

// window counts what arrived in the last second of the receiver's clock, in parts,
// the latest of which isn't over.
type window struct {
	part  int64 // the latest: its start, in units of itself
	parts [16]tally
}

type tally struct{ bytes, received, lost uint32 }

const (
	windowParts = 8 // of a second
	windowPart  = int64(time.Second / windowParts / deltaUnit)
)

// at is the tally of a part, 16 at most from the latest.
func (w *window) at(part int64) *tally { return &w.parts[part&int64(len(w.parts)-1)] }

// note counts a packet whose fate changes, at a moment in units of deltaUnit.
func (w *window) note(p *sentPacket, to fate, at int64) {
	part := at / windowPart
	if ahead := part - w.part; ahead >= int64(len(w.parts)) || ahead <= -int64(len(w.parts)) {
		*w = window{part: part} // the beginning, or a jump of the clock
	}
	for w.part < part {
		w.part++
		*w.at(w.part) = tally{}
	}
	c := w.at(part)
	if to == lost {
		c.lost++
		return
	}
	if p.fate == lost && c.lost > 0 {
		c.lost--
	}
	c.received++
	c.bytes += uint32(p.bytes())
}

// rates are the bit/s that arrived in the last whole second, and the share of
// packets that were lost in it.
func (w *window) rates() (bps int, loss float64) {
	var sum tally
	for i := range int64(windowParts) {
		c := w.at(w.part - 1 - i)
		sum.bytes, sum.received, sum.lost = sum.bytes+c.bytes, sum.received+c.received, sum.lost+c.lost
	}
	return 8 * int(sum.bytes), float64(sum.lost) / float64(max(sum.lost+sum.received, 1))
}
