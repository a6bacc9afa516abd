package rtc

const (
	historySegments = 64
	historyPackets  = 4096 // a quarter of the sequence numbers that could be told apart
)

// history remembers which packet of its track a viewer was sent under which
// sequence number. Packets are numbered without a gap in the track (Index) and
// at the viewer, but the viewer leaves some out when it falls behind: a segment
// is a run in which none was. NACKs come after that, so the last runs are kept.
//
// Sequence numbers are kept unwrapped; the low 16 bits are what RTP carries.
// The zero value starts at 0.
type history struct {
	next     uint64
	segments []segment // oldest first
}

type segment struct {
	seq   uint64 // of the first packet
	index uint64 // of the first packet
	n     uint64 // packets
}

// add notes that packet index is sent now and returns its sequence number.
func (h *history) add(index uint64) uint64 {
	seq := h.next
	h.next++
	if n := len(h.segments); n > 0 {
		if last := &h.segments[n-1]; last.index+last.n == index {
			last.n++
			return seq
		}
	}
	if len(h.segments) == historySegments {
		copy(h.segments, h.segments[1:])
		h.segments = h.segments[:historySegments-1]
	}
	h.segments = append(h.segments, segment{seq: seq, index: index, n: 1})
	return seq
}

// skip leaves a hole of one sequence number, which no packet will have.
func (h *history) skip() { h.next++ }

// find tells which packet was sent under a sequence number, if that was lately.
func (h *history) find(seq uint16) (index uint64, ok bool) {
	age := uint64(uint16(h.next) - seq) // 1 for the last one sent
	if age == 0 || age > historyPackets || age > h.next {
		return 0, false
	}
	full := h.next - age
	for i := len(h.segments) - 1; i >= 0; i-- {
		if s := h.segments[i]; full >= s.seq {
			if full-s.seq >= s.n {
				return 0, false
			}
			return s.index + full - s.seq, true
		}
	}
	return 0, false
}

// forget drops what was sent so far; sequence numbers go on.
func (h *history) forget() { h.segments = h.segments[:0] }
