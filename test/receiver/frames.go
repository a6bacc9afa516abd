package receiver

import (
	"time"

	"github.com/pion/rtp"
)

// Frame is a frame that a decoder could show: all packets of it have come, and all
// frames before it, back to a keyframe.
type Frame struct {
	Timestamp uint32    // of RTP
	Complete  time.Time // when the last packet had come that it waited for
	Keyframe  bool
	Bytes     int // payload
}

// remembered bounds how many packets may wait for one that is missing.
const remembered = 8192

// assembler puts frames together. Sequence numbers are unwrapped.
type assembler struct {
	begun  bool  // a keyframe has come
	broken bool  // a packet is lost for good: a keyframe must come
	next   int64 // the first packet that isn't part of a frame yet
	top    int64 // the highest that came
	heard  bool
	parts  map[int64]part
}

type part struct {
	timestamp uint32
	size      int
	marker    bool
	keyframe  bool // it begins one
}

// unwrap extends a number to the nearest of those that came.
func (a *assembler) unwrap(seq uint16) int64 {
	return a.top + int64(int16(seq-uint16(a.top)))
}

// add takes a packet, and tells its unwrapped number and whether it is a new one.
func (a *assembler) add(p *rtp.Packet, now time.Time, again bool) (seq int64, fresh bool) {
	if !a.heard {
		a.heard, a.top = true, int64(p.SequenceNumber)
		a.next, a.parts = a.top, make(map[int64]part)
	}
	seq = a.unwrap(p.SequenceNumber)
	a.top = max(a.top, seq)
	if _, known := a.parts[seq]; known || seq < a.next {
		return seq, false
	}
	a.parts[seq] = part{timestamp: p.Timestamp, size: len(p.Payload), marker: p.Marker, keyframe: begins(p.Payload)}
	if len(a.parts) > remembered {
		a.broken = true
		for n := range a.parts {
			if n < a.top-remembered/2 {
				delete(a.parts, n)
			}
		}
		a.next = max(a.next, a.top-remembered/2)
	}
	return seq, true
}

// complete returns the frames that can be shown now and could not before. A whole
// keyframe is shown even if something before it is missing.
func (a *assembler) complete(now time.Time) (frames []Frame) {
	for {
		f, end, ok := Frame{}, int64(0), false
		if a.begun && !a.broken {
			f, end, ok = a.frame(a.next)
		}
		if !ok {
			f, end, ok = a.keyframe()
		}
		if !ok {
			return frames
		}
		for n := range a.parts {
			if n < end {
				delete(a.parts, n)
			}
		}
		a.begun, a.broken, a.next = true, false, end
		f.Complete = now
		frames = append(frames, f)
	}
}

// frame reads the frame that begins with a packet, and the number after its last.
func (a *assembler) frame(first int64) (f Frame, end int64, ok bool) {
	for n := first; ; n++ {
		p, there := a.parts[n]
		if !there || n > first && p.timestamp != f.Timestamp {
			return f, n, false
		}
		f.Timestamp = p.timestamp
		f.Bytes += p.size
		f.Keyframe = f.Keyframe || p.keyframe
		if p.marker {
			return f, n + 1, true
		}
	}
}

// keyframe finds the newest whole keyframe after what is missing.
func (a *assembler) keyframe() (f Frame, end int64, ok bool) {
	for n := a.top; n >= a.next && n > a.top-remembered; n-- {
		p, there := a.parts[n]
		if !there || !p.keyframe {
			continue
		}
		if f, end, ok = a.frame(n); ok {
			return f, end, true
		}
	}
	return f, 0, false
}

// What libwebrtc does (modules/video_coding/nack_requester.cc).
const (
	retryTick   = 20 * time.Millisecond
	retryWait   = 100 * time.Millisecond // its round trip while it knows none
	maxRetries  = 10
	mostMissing = 1000
)

// requester decides what to ask for: what is missing at once, and again each round
// trip, ten times at most.
type requester struct {
	begun   bool
	next    int64
	missing map[int64]*missing
}

type missing struct {
	asked time.Time
	tries int
}

func (r *requester) arrived(seq int64, now time.Time) (ask []uint16) {
	if !r.begun {
		r.begun, r.next, r.missing = true, seq, make(map[int64]*missing)
	}
	if seq < r.next {
		delete(r.missing, seq)
		return nil
	}
	if seq-r.next > mostMissing {
		r.next = seq // a keyframe is asked for instead, see due
		r.missing[seq-1] = &missing{now, maxRetries}
	}
	for ; r.next != seq; r.next++ {
		r.missing[r.next] = &missing{now, 1}
		ask = append(ask, uint16(r.next))
	}
	r.next++
	return ask
}

// due is what to ask for again, and whether something is given up.
func (r *requester) due(now time.Time) (ask []uint16, lost bool) {
	for seq, m := range r.missing {
		switch {
		case now.Sub(m.asked) < retryWait:
		case m.tries >= maxRetries:
			delete(r.missing, seq)
			lost = true
		default:
			m.asked = now
			m.tries++
			ask = append(ask, uint16(seq))
		}
	}
	return ask, lost
}

// forget drops what is no longer of use: all before a packet.
func (r *requester) forget(before int64) {
	for seq := range r.missing {
		if seq < before {
			delete(r.missing, seq)
		}
	}
}
