package rtc

import "time"

const (
	historySegments = 64
	historyPackets  = 4096 // a quarter of the sequence numbers that could be told apart
)

// history remembers which packet of which encoding a viewer was sent under which
// sequence number. Packets are numbered without a gap in their source (Index) and
// at the viewer, but the viewer leaves some out when it falls behind, and goes on
// with other encodings: a segment is a run without either. NACKs come after that,
// so the last runs are kept.
//
// Sequence numbers are kept unwrapped; the low 16 bits are what RTP carries.
// The zero value starts at 0.
type history struct {
	next     uint64
	segments []segment // oldest first
}

type segment struct {
	enc   *encoding
	late  time.Duration // what was added to the capture times
	seq   uint64        // of the first packet
	index uint64        // of the first packet
	n     uint64        // packets
}

// add notes that packet index of an encoding is sent now, stamped late after its
// capture, and returns its sequence number.
func (h *history) add(enc *encoding, index uint64, late time.Duration) uint64 {
	seq := h.next
	h.next++
	if n := len(h.segments); n > 0 {
		if oldest := &h.segments[0]; n == historySegments || oldest.seq+oldest.n+historyPackets < h.next {
			h.drop() // holds a source that may long be closed
			n--
		}
		if n > 0 {
			if last := &h.segments[n-1]; last.index+last.n == index && last.seq+last.n == seq && last.enc == enc && last.late == late {
				last.n++
				return seq
			}
		}
	}
	h.segments = append(h.segments, segment{enc: enc, late: late, seq: seq, index: index, n: 1})
	return seq
}

// drop forgets the oldest segment.
func (h *history) drop() {
	n := copy(h.segments, h.segments[1:])
	h.segments[n] = segment{}
	h.segments = h.segments[:n]
}

// skip leaves a hole of one sequence number, which no packet will have.
func (h *history) skip() { h.next++ }

// unwrap extends the number of a packet that was sent; next itself if none was.
func (h *history) unwrap(seq uint16) uint64 { return h.next - uint64(uint16(h.next)-seq) }

// find tells which packet was sent under a sequence number, if that was lately.
// The segment stays valid until the next add.
func (h *history) find(seq uint16) (s *segment, index uint64, ok bool) {
	full := h.unwrap(seq)
	if full == h.next || h.next-full > historyPackets || full > h.next {
		return nil, 0, false
	}
	for i := len(h.segments) - 1; i >= 0; i-- {
		if s := &h.segments[i]; full >= s.seq {
			if full-s.seq >= s.n {
				return nil, 0, false
			}
			return s, s.index + full - s.seq, true
		}
	}
	return nil, 0, false
}
