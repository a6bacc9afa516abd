package rtc

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"gateway/internal/adapt"
)

// Congestion control feedback (RFC 8888): the receiver tells by SSRC and sequence
// number which packets arrived when. It needs no header extension; the packets are
// counted all the same (numbering), so that both kinds of feedback end in one place.
// It is used with peers whose offer has it and no transport-wide feedback.
const (
	congestionFeedback = "ack ccfb" // as an rtcp-fb (RFC 8888 §6)

	countedPackets = 1024                // of an SSRC, whose numbers are remembered
	offsetUnit     = time.Second / 1024  // of an arrival time offset (RFC 8888 §3.1)
	stampUnit      = time.Second / 65536 // of the report's timestamp
	offsetUnknown  = 0x1fff              // it arrived, but not known when
	offsetLong     = 0x1ffe              // 8189/1024 s or longer ago
)

// counted tells under which transport-wide number a packet of an SSRC was sent: the
// number and one, and the sequence number in the low 16 bits, at that modulo the length.
type counted [countedPackets]uint64

func (c *counted) note(seq uint16, number uint64) {
	c[seq%countedPackets] = (number+1)<<16 | uint64(seq)
}

func (c *counted) find(seq uint16) (number uint64, ok bool) {
	v := c[seq%countedPackets]
	return v>>16 - 1, v != 0 && uint16(v) == seq
}

// count notes a packet of the track that was numbered just now, for peers that name it
// by its sequence number. sendMu is held.
func (t *track) count(e *encoding, ssrc uint32, seq uint16) {
	if !e.format.ccfb {
		return
	}
	if t.counted == nil {
		t.counted = make(map[uint32]*counted, 2)
	}
	c := t.counted[ssrc]
	if c == nil {
		c = new(counted)
		t.counted[ssrc] = c
	}
	c.note(seq, t.viewer.numbering.next-1)
}

// isCongestionFeedback tells whether an RTCP packet is congestion control feedback.
func isCongestionFeedback(b []byte) bool {
	return len(b) >= 4 && b[0]>>6 == 2 && b[0]&0x1f == 11 && b[1] == 205
}

// verdict is what congestion control feedback says of a packet.
type verdict struct {
	number  uint64
	arrived bool
	at      int64 // in units of deltaUnit, on the receiver's clock
}

// onCongestionFeedback takes a message. It is called on one goroutine at a time; a
// message that names several SSRCs may come for each.
func (v *Viewer) onCongestionFeedback(b []byte) {
	v.engine.metrics.feedbacks.Inc()
	ok := false
	v.learn(func(now time.Duration, e *adapt.Estimator) {
		if ok = v.readCongestionFeedback(b); ok && len(v.verdicts) > 0 {
			slices.SortFunc(v.verdicts, func(a, b verdict) int { return cmp.Compare(a.number, b.number) })
			if v.numbering.hearVerdicts(v.verdicts, now); len(v.numbering.reports) > 0 {
				e.Feedback(now, v.numbering.reports, v.rtt(now))
			}
		}
	})
	if !ok {
		v.engine.metrics.badFeedbacks.Inc()
		return
	}
	if v.heard != nil {
		v.heard(v.numbering.reports)
	}
}

// readCongestionFeedback lists in v.verdicts what a message says of packets that are
// remembered (RFC 8888 §3.1). false: it is malformed.
func (v *Viewer) readCongestionFeedback(b []byte) bool {
	v.verdicts = v.verdicts[:0]
	if len(b) < 12 {
		return false
	}
	size := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
	if size < 12 || size > len(b) {
		return false
	}
	stamp := v.numbering.unwrap(binary.BigEndian.Uint32(b[size-4:]))
	for rest := b[8 : size-4]; len(rest) > 0; {
		if len(rest) < 8 {
			return false
		}
		ssrc, begin := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint16(rest[4:])
		n := int(binary.BigEndian.Uint16(rest[6:]))
		rest = rest[8:]
		if padded := 2 * (n + n%2); padded > len(rest) {
			return false
		}
		var c *counted
		if t, ok := v.bySSRC.Load(ssrc); ok {
			c = t.(*track).counted[ssrc]
		}
		for i := 0; i < n && c != nil; i++ {
			number, ok := c.find(begin + uint16(i))
			if !ok {
				continue
			}
			report := binary.BigEndian.Uint16(rest[2*i:])
			offset := report & 0x1fff
			d := verdict{number: number, arrived: report&0x8000 != 0, at: stamp - int64(time.Duration(offset)*offsetUnit/deltaUnit)}
			if d.arrived && offset >= offsetLong {
				continue // no time: of no use
			}
			v.verdicts = append(v.verdicts, d)
		}
		rest = rest[2*(n+n%2):]
	}
	return true
}

// unwrap is a report's timestamp (the middle 32 bits of an NTP time) in units of deltaUnit.
func (t *numbering) unwrap(stamp uint32) int64 {
	if t.stamped == 0 {
		t.stamped = int64(stamp) | 1<<32
	}
	t.stamped += int64(int32(stamp - uint32(t.stamped)))
	return int64(time.Duration(t.stamped&(1<<40-1)) * stampUnit / deltaUnit)
}

// hearVerdicts learns from verdicts, ordered by number, and lists in t.reports what
// they tell anew. What is told lost may still be on its way: only what was sent
// before something that arrived counts as lost.
func (t *numbering) hearVerdicts(all []verdict, now time.Duration) {
	t.reports = t.reports[:0]
	t.feedbacks++
	t.heard, t.heardAt = true, now
	last := -1
	for i := range all {
		if all[i].arrived {
			last = i
		}
	}
	oldest := t.next - min(t.next, uint64(len(t.sent)))
	for i, d := range all {
		if d.number < oldest || d.number >= t.next || !d.arrived && i > last {
			continue
		}
		to := lost
		if d.arrived {
			to = arrived
		}
		at := d.at
		if !d.arrived && last >= 0 {
			at = all[last].at
		}
		t.tell(d.number, to, at, now)
	}
}
