package rtc

import (
	"time"

	"gateway/internal/media"
)

// framesNoted is how many frames of a track are remembered: 4 s of 60 a second,
// longer than a client's report takes.
const framesNoted = 256

// FrameTimes is what is known of a frame that was sent, on the clock of
// [media.Now].
type FrameTimes struct {
	Capture    time.Duration // at the source
	Encoding   time.Duration // given to the encoder; 0: unknown, or encoded by the source itself
	Encoded    time.Duration // out of the encoder; 0 with Encoding
	Packetized time.Duration // its last packet was there
	First      time.Duration // its first packet was sent to this viewer
	Sent       time.Duration // its last one was
}

// frames remembers when a track's latest frames were sent. It is there while the
// viewer is observed only. Guarded by Viewer.sendMu.
type frames struct {
	ring [framesNoted]struct {
		FrameTimes
		rtp   uint32
		whole bool // its last packet was written
	}
	begun uint // frames that were begun
	sent  uint // of these, those before the first that isn't wholly sent
}

// note takes a packet that is written now under an RTP timestamp.
func (f *frames) note(p media.Packet, rtp uint32) {
	if p.Buffer.Placeholder {
		return // no frame of the source: its times would be taken for the source's
	}
	if p.Start {
		f.begun++
		e := &f.ring[(f.begun-1)%framesNoted]
		e.FrameTimes, e.rtp, e.whole = FrameTimes{Capture: p.Buffer.Capture}, rtp, false
		f.sent = max(f.sent, f.begun-min(f.begun, framesNoted))
	}
	if f.begun == 0 {
		return // in the middle of a frame
	}
	e := &f.ring[(f.begun-1)%framesNoted]
	e.Encoding, e.Encoded, e.Packetized = p.Buffer.Encoding, p.Buffer.Encoded, p.Buffer.Arrived // of its last buffer, in the end
	e.whole = p.Marker()
}

// flush tells that all packets that were noted go out.
func (f *frames) flush(now time.Duration) {
	for ; f.sent < f.begun; f.sent++ {
		e := &f.ring[f.sent%framesNoted]
		if e.First == 0 {
			e.First = now
		}
		if e.whole {
			e.Sent = now
		} else if f.sent == f.begun-1 {
			return // more of it is to come
		}
	}
}

// take finds a frame that was sent, once.
func (f *frames) take(rtp uint32) (FrameTimes, bool) {
	for i := f.begun; i > 0 && i+framesNoted > f.begun; i-- {
		if e := &f.ring[(i-1)%framesNoted]; e.rtp == rtp && e.Sent != 0 {
			times := e.FrameTimes
			e.Sent = 0
			return times, true
		}
	}
	return FrameTimes{}, false
}

// flushing notes that what was written in this turn goes out now; sendMu is held. It
// comes before the system call, after which the thread may have lost its processor.
func (v *Viewer) flushing() {
	now := media.Now()
	for _, t := range v.tracks {
		if t.frames != nil {
			t.frames.flush(now)
		}
	}
}

// Observe has the viewer remember when it sends which frame, for Frame, or no
// longer. It costs 20 KB for each track of video, and nothing while it is off.
func (v *Viewer) Observe(on bool) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	v.observed = on
	for _, t := range v.tracks {
		t.observe(on)
	}
}

// observe is Viewer.Observe for one track; sendMu is held.
func (t *track) observe(on bool) {
	switch {
	case !on || t.kind != media.Video:
		t.frames = nil
	case t.frames == nil:
		t.frames = new(frames)
	}
}

// Frame tells of the frame of a track that was sent under an RTP timestamp lately,
// while the viewer was observed. Of each frame it tells once.
func (v *Viewer) Frame(slot string, rtp uint32) (FrameTimes, bool) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	for _, t := range v.tracks {
		if t.frames == nil || t.slot != slot {
			continue
		}
		if times, ok := t.frames.take(rtp); ok {
			return times, true
		}
	}
	return FrameTimes{}, false
}
