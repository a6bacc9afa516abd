package rtc

import (
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
)

// encoding is a source at one viewer and what its packets look like on the wire.
// Once packets were sent the headers stay what they are, so that a packet that is
// sent again under its number is the same bytes: with other bytes it would use an
// AES-GCM nonce twice. Another format makes another encoding.
type encoding struct {
	spec   media.Track
	src    Source
	format format // of the headers
	offset uint32 // of the RTP timestamps
	delta  heading
	key    heading // of the packets of keyframes: with the playout delay
	last   heading // of a keyframe's last packet: with the capture time too
	number []byte  // of the transport-wide sequence number in all their headers; nil: they have none
	moment []byte  // of the capture time in the header last; likewise
}

// heading is the headers of a kind of packet: SSRC, payload type and extensions,
// and what changes from packet to packet. All of one have the same size, so that
// the kernel can cut a batch into datagrams (UDP_SEGMENT).
type heading struct {
	plain rtp.Header
	rtx   rtp.Header // SSRC 0: packets are sent again as they were
	size  int        // bytes of each
}

func newHeading(f format, ssrc, rtxSSRC uint32, delay, number, moment []byte) heading {
	var h heading
	header := func(pt uint8, ssrc uint32) rtp.Header {
		h := rtp.Header{Version: 2, PayloadType: pt, SSRC: ssrc}
		for _, x := range []struct {
			id      uint8
			payload []byte
		}{{f.delayID, delay}, {f.transportID, number}, {f.captureID, moment}} {
			if x.payload != nil {
				_ = h.SetExtension(x.id, x.payload) // the identifier was checked: parseSection
			}
		}
		return h
	}
	h.plain = header(f.pt, ssrc)
	h.size = h.plain.MarshalSize()
	if rtxSSRC != 0 {
		h.rtx = header(f.rtx, rtxSSRC)
	}
	return h
}

// ready tells whether the peer takes the encoding.
func (e *encoding) ready() bool { return e.delta.plain.SSRC != 0 }

// in is the encoding in a format: itself if that changes no header.
func (e *encoding) in(f format, ssrc, rtxSSRC uint32) *encoding {
	if e.ready() && e.format.pt == f.pt && e.format.rtx == f.rtx && e.format.delayID == f.delayID && e.format.inStep == f.inStep &&
		e.format.transportID == f.transportID && e.format.ccfb == f.ccfb && e.format.captureID == f.captureID {
		e.format = f
		return e
	}
	n := &encoding{spec: e.spec, src: e.src, format: f, offset: e.offset}
	if f.rtx == 0 {
		rtxSSRC = 0
	}
	if f.transportID != 0 && (rtxSSRC != 0 || e.spec.Kind == media.Audio) {
		n.number = make([]byte, 2)
	}
	n.delta = newHeading(f, ssrc, rtxSSRC, nil, n.number, nil)
	var delay []byte
	if f.delayID != 0 {
		delay = atOnce
		if f.inStep {
			delay = withSound
		}
	}
	if f.captureID != 0 {
		n.moment = make([]byte, 8)
	}
	n.key = newHeading(f, ssrc, rtxSSRC, delay, n.number, nil)
	n.last = newHeading(f, ssrc, rtxSSRC, delay, n.number, n.moment)
	return n
}

// heading is the one for a packet: a function of nothing else.
func (e *encoding) heading(p media.Packet) *heading {
	switch {
	case !p.Buffer.Keyframe:
		return &e.delta
	case p.Marker() && len(p.Payload()) <= momentPayload && !p.Buffer.Placeholder: // which nobody has captured
		return &e.last
	}
	return &e.key
}

// numbered tells whether feedback of the transport tells of its packets.
func (e *encoding) numbered() bool { return e.number != nil || e.format.ccfb }

// repeats tells whether a packet may be sent again without RTX: what it was under
// its sequence number, it is again. One with a transport-wide number is not, nor
// is sound, which would be too late anyway.
func (e *encoding) repeats() bool { return e.number == nil && e.spec.Kind == media.Video }

// prepare fills in the header that packet p has under a sequence number, stamped
// late after its capture: a pure function of these, but for the bytes of number and
// of moment.
func (e *encoding) prepare(p media.Packet, seq uint16, late time.Duration) *rtp.Header {
	h := &e.heading(p).plain
	h.SequenceNumber = seq
	h.Timestamp = e.timestamp(p.Buffer.Capture + late)
	h.Marker = p.Marker()
	h.PaddingSize = byte(p.Padding())
	h.Padding = h.PaddingSize > 0
	return h
}

// timestamp is the RTP timestamp of a moment on the capture clock.
func (e *encoding) timestamp(at time.Duration) uint32 {
	return media.RTPTime(at, e.spec.Codec.ClockRate()) + e.offset
}

func (e *encoding) close() {
	e.src.Notify(nil)
	e.src.Close()
}

// switched tells that a track goes on with another encoding.
type switched struct {
	slot string
	spec media.Track
	old  *encoding // to be closed; nil at the start
}

// take reads what is due of a track, room packets at most, and tells whether that
// was all of the room: from the next encoding as soon as that has something, which
// a source begins with a keyframe. What the old one is in the middle of is sent
// before, if all of it is due. Viewer.sendMu is held.
func (t *track) take(s *shard, room int, write func([]media.Packet)) (full bool) {
	batch := s.batch[:0:min(room, cap(s.batch))]
	if n := t.next; n != nil && n.ready() {
		if batch = n.src.Next(batch); len(batch) > 0 {
			s.batch = s.batch[:len(batch)]
			if t.cur != nil && t.cut {
				s.rest = t.cur.src.Next(s.rest)
				write(s.rest[:t.remainder(s.rest)])
				s.rest = release(s.rest)
			}
			s.switched = append(s.switched, switched{t.slot, n.spec, t.cur})
			t.advance(batch[0].Buffer.Capture)
		}
	}
	if len(batch) == 0 && t.cur != nil {
		batch = t.cur.src.Next(batch)
		s.batch = s.batch[:len(batch)]
	}
	write(batch)
	s.batch = release(s.batch)
	return len(batch) == cap(batch)
}

// remainder is how many of the packets end the frame that the track is in the
// middle of, 0 if its end isn't among them.
func (t *track) remainder(packets []media.Packet) int {
	for i, p := range packets {
		if p.Index != t.last+1+uint64(i) {
			break
		}
		if p.Marker() {
			return i + 1
		}
	}
	return 0
}

// release gives packets back and returns the room that they had.
func release(packets []media.Packet) []media.Packet {
	for _, p := range packets {
		p.Release()
	}
	return packets[:0]
}

// advance puts the next encoding in the place of the current one; its first frame
// was captured at that time.
func (t *track) advance(at time.Duration) {
	n := t.next
	n.offset = t.offset
	if rate := n.spec.Codec.ClockRate(); t.clock != 0 && t.clock != rate {
		// the clock rate changes (Opus to PCMU), the time doesn't jump (RFC 7160 §4.1)
		n.offset += media.RTPTime(at, t.clock) - media.RTPTime(at, rate)
	}
	t.offset, t.clock = n.offset, n.spec.Codec.ClockRate()
	t.cur, t.next = n, nil
	if t.cut {
		t.history.skip() // the receiver must not take the frame for complete
		t.cut = false
	}
	t.behind = t.packets > 0
}

// lateness is how much later than its capture a new frame is stamped, so that
// timestamps don't go back: a new encoder may be behind the old one, with frames
// that were sent already in the old one's encoding.
func (t *track) lateness(capture time.Duration) time.Duration {
	if t.behind {
		if next := t.sent + time.Millisecond; capture < next {
			return next - capture
		}
		t.behind = false
	}
	return 0
}
