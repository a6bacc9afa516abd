package stream

import (
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/media"
)

const (
	// ringPackets is how many packets of a track are kept for viewers that lag
	// and for retransmissions: 7 s of 2.5 Mbit/s, 0.9 s of 20 Mbit/s.
	ringPackets = 2048

	// keyframeSpacing is the least time between two keyframe requests for a
	// track, and the age up to which a new viewer is started from a keyframe that
	// was sent already: at most two keyframes a second are asked for.
	keyframeSpacing = 500 * time.Millisecond
)

// ring keeps the recent packets of one track: what subscriptions read, and the
// retransmission history of all of them. It outlives pipelines: numbers go on.
type ring struct {
	poke func() // asks the capture's goroutine to look at keyframe wishes; never blocks

	subs atomic.Pointer[[]*Subscription] // replaced as a whole, so that push may walk it unlocked

	adapt adaptation

	mu       sync.Mutex // guards all below; held to copy a few words, never across a call outward
	writer   *encoding  // whose buffers are pushed; nil in tests
	rare     bool       // keyframes can't be asked for: one of any age serves
	track    media.Track
	slots    [ringPackets]slot
	tail     uint64 // oldest packet kept
	head     uint64 // number of the next packet
	frame    uint64 // first packet of the newest frame
	open     bool   // the newest frame hasn't ended
	torn     bool   // the newest frame's beginning was lost
	key      uint64 // first packet of the newest keyframe
	hasKey   bool
	keyAt    time.Duration // when the newest keyframe began to arrive
	gap      uint64        // first packet after the newest loss within the pipeline
	broken   bool          // the next packet is the first after a loss
	heard    time.Duration // when something of the source came last; 0: never
	standing bool          // nothing has come of it since a placeholder was put in its place
	wanted   bool          // somebody waits for a keyframe
	asked    time.Duration // when the pipeline was last asked for one
	lastTime time.Duration // capture time of the newest frame
	count    Counts
}

// slot is one packet: number i of buf.
type slot struct {
	buf   *media.Buffer
	i     int
	start bool // first packet of its frame
	gap   bool // packets were lost before it
}

// Counts are a track's totals since the stream was made.
type Counts struct {
	Frames, Keyframes, Packets uint64
	Bytes                      uint64 // of payload
	KeyframeRequests           uint64 // asked of the pipeline
	Placeholders               uint64 // pictures that stood in for a source that is away; they are no frames
	Gaps                       uint64 // losses inside the pipeline
	Dropped                    uint64 // packets that lagging subscriptions skipped
	DroppedFrames              uint64 // captured frames that the encoder was too slow for

	// PipelineTime is the sum over all frames of the time from capture to the
	// first packets leaving the pipeline: conversion, encoder, packetizing.
	PipelineTime time.Duration
}

// plus adds two counts.
func (c Counts) plus(d Counts) Counts {
	return Counts{
		Frames: c.Frames + d.Frames, Keyframes: c.Keyframes + d.Keyframes, Packets: c.Packets + d.Packets,
		Bytes: c.Bytes + d.Bytes, Placeholders: c.Placeholders + d.Placeholders, KeyframeRequests: c.KeyframeRequests + d.KeyframeRequests, Gaps: c.Gaps + d.Gaps,
		Dropped: c.Dropped + d.Dropped, DroppedFrames: c.DroppedFrames + d.DroppedFrames, PipelineTime: c.PipelineTime + d.PipelineTime,
	}
}

// newRing makes the ring of a track that none has filled yet.
func newRing(t media.Track) *ring {
	r := &ring{track: t}
	r.poke = func() {
		r.mu.Lock()
		w := r.writer
		r.mu.Unlock()
		if w != nil {
			signal(w.capture.keyframe)
		}
	}
	return r
}

// deliver takes what an encoding made, with its reference. It runs on the
// pipeline's goroutine and doesn't block.
func (r *ring) deliver(e *encoding, b *media.Buffer) {
	if b.Len() == 0 {
		b.Release()
		return
	}
	r.mu.Lock()
	now := media.Now()
	if e.last == 0 {
		e.first = now
	}
	e.last = now
	switch {
	case r.writer == e:
		poke := r.put(b)
		r.mu.Unlock()
		if poke {
			r.poke()
		}
		r.wake()
		return
	case e.trial:
		e.hold(b)
	default:
		b.Release()
	}
	r.mu.Unlock()
}

// push is deliver without regard to who made it.
func (r *ring) push(b *media.Buffer) {
	if b.Len() == 0 {
		b.Release()
		return
	}
	r.mu.Lock()
	poke := r.put(b)
	r.mu.Unlock()
	if poke {
		r.poke()
	}
	r.wake()
}

// put adds a buffer and tells whether a keyframe must be asked for. The caller
// holds mu.
func (r *ring) put(b *media.Buffer) (poke bool) {
	now := media.Now()
	if b.Gap {
		r.breakOff()
		r.wanted = true
		r.count.Gaps++
	}
	stood := false
	if b.Placeholder {
		r.count.Placeholders++
	} else {
		stood = r.standing
		r.heard, r.standing = now, false
	}
	if b.Start || !r.open {
		r.frame, r.torn = r.head, !b.Start
		if !b.Placeholder {
			r.count.Frames++
			r.count.PipelineTime += b.Arrived - b.Capture
		}
		// Another capture that took over may have been quicker to deliver than the
		// last one: time never goes back, and no two frames have the same.
		r.lastTime = max(b.Capture, r.lastTime+time.Millisecond)
	}
	b.Capture = r.lastTime
	if b.Keyframe && !r.torn && (!r.hasKey || r.key != r.frame) {
		r.key, r.hasKey, r.keyAt = r.frame, true, now
		r.wanted = false
		if !b.Placeholder {
			r.count.Keyframes++
		}
	}
	// H.264 and H.265 tell by some NAL units of a keyframe only.
	b.Keyframe = b.Keyframe || r.hasKey && r.key == r.frame
	for i := range b.Len() {
		s := &r.slots[r.head%ringPackets]
		if r.head-r.tail == ringPackets {
			r.evict(s)
		}
		*s = slot{buf: b, i: i, start: r.head == r.frame, gap: r.broken}
		r.broken = false
		r.head++
	}
	r.open = !b.End
	r.count.Packets += uint64(b.Len())
	r.count.Bytes += uint64(b.Size())
	if stood && !b.Keyframe {
		r.wanted = true // nobody can use what is between
		return true
	}
	return b.Gap && r.wanted
}

// take makes e the encoding that fills the ring, beginning with what was held of
// it since its newest keyframe.
func (r *ring) take(e *encoding) {
	r.mu.Lock()
	if old := r.writer; old != nil && old != e {
		old.drop()
	}
	held := e.held
	r.writer, r.track, r.rare = e, e.track, e.branch.Copy
	e.trial, e.held, e.size, e.begins = false, nil, 0, false
	r.breakOff()
	r.wanted = false
	for _, b := range held {
		r.put(b)
	}
	r.mu.Unlock()
	r.wake()
}

// started and stopped note whether an encoding runs. One that stops leaves its
// ring with an end: what comes next begins anew, and with a keyframe unasked. ran is for
// how long something came of it.
func (r *ring) started(e *encoding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.started, e.first, e.last = media.Now(), 0, 0
}

func (r *ring) stopped(e *encoding) (ran time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ran = e.last - e.first
	e.started = 0
	e.drop()
	if r.writer == e {
		r.interrupt()
		r.tidy()
	}
	return ran
}

// forsake gives back what is held of an encoding on trial.
func (r *ring) forsake(e *encoding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.drop()
}

// tidy gives back the memory of a ring that nobody reads and nobody fills. The
// caller holds mu.
func (r *ring) tidy() {
	if r.readers() == 0 && r.writer != nil && r.writer.started == 0 {
		r.empty()
	}
}

// missed counts captured frames that an encoding was too slow for.
func (r *ring) missed(e *encoding, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writer == e {
		r.count.DroppedFrames += uint64(n)
	}
}

// describe notes what an encoding's bitstream is.
func (r *ring) describe(e *encoding, t media.Track) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = e.corrected(t)
	e.track = t
	if r.writer == e {
		r.track = t
	}
}

// describes tells whether that is something else than is known of an encoding.
func (r *ring) describes(e *encoding, t media.Track) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.corrected(t) != e.track
}

// corrected is what a pipeline says of a track, without that of which it knows what it
// began with. The caller holds ring.mu.
func (e *encoding) corrected(t media.Track) media.Track {
	t.Bps, t.MinBps, t.MaxBps = e.track.Bps, e.track.MinBps, e.track.MaxBps
	t.Name, t.Kind, t.Codec = e.track.Name, e.track.Kind, e.track.Codec
	return t
}

// rated notes that an encoding has another bitrate, as a track says.
func (r *ring) rated(e *encoding, t media.Track) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.track.Bps, e.track.MinBps, e.track.MaxBps = t.Bps, t.MinBps, t.MaxBps
	if r.writer == e {
		r.track = e.track
	}
}

// evict makes room in the full ring: s holds the oldest packet.
func (r *ring) evict(s *slot) {
	if s.i == s.buf.Len()-1 {
		s.buf.Release()
	}
	*s = slot{}
	r.tail++
	if r.hasKey && r.key < r.tail {
		r.hasKey = false
	}
}

// breakOff notes that what comes next doesn't follow what came before: readers
// wait for a keyframe there. The caller holds mu.
func (r *ring) breakOff() {
	r.gap, r.broken, r.open = r.head, true, false
}

// interrupt notes that what comes next begins anew, and with a keyframe unasked.
// The caller holds mu.
func (r *ring) interrupt() {
	r.breakOff()
	r.wanted = false
}

// wake tells every subscription that packets may be due.
func (r *ring) wake() {
	if subs := r.subs.Load(); subs != nil {
		for _, s := range *subs {
			s.wake()
		}
	}
}

// ask tells whether an encoding should be asked for a keyframe now, and if not
// when to look again; zero: nobody waits.
func (r *ring) ask(e *encoding, now time.Duration) (ask bool, again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted || r.writer != e || e != nil && e.started == 0 {
		return false, 0
	}
	if r.asked != 0 && now < r.asked+keyframeSpacing {
		return false, r.asked + keyframeSpacing - now
	}
	r.asked = now
	r.count.KeyframeRequests++
	return true, keyframeSpacing
}

// want notes that somebody needs a keyframe newer than what is in the ring.
func (r *ring) want() {
	r.mu.Lock()
	already := r.wanted
	r.wanted = true
	r.mu.Unlock()
	if !already {
		r.poke()
	}
}

// find returns packet index with a reference of its own.
func (r *ring) find(index uint64) (media.Packet, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < r.tail || index >= r.head {
		return media.Packet{}, false
	}
	return r.at(index), true
}

// at returns packet index, which is in the ring, retained. The caller holds mu.
func (r *ring) at(index uint64) media.Packet {
	s := r.slots[index%ringPackets]
	s.buf.Retain()
	return media.Packet{Buffer: s.buf, I: s.i, Index: index, Start: s.start}
}

// clear releases every buffer, if e is who fills the ring.
func (r *ring) clear(e *encoding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writer == e {
		r.empty()
	}
}

// empty releases every buffer. The caller holds mu.
func (r *ring) empty() {
	for r.tail < r.head {
		r.evict(&r.slots[r.tail%ringPackets])
	}
	r.hasKey, r.standing = false, false
}

// described is the track as it is known now.
func (r *ring) described() media.Track {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.track
}

func (r *ring) counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// readers is the number of subscriptions.
func (r *ring) readers() int {
	if subs := r.subs.Load(); subs != nil {
		return len(*subs)
	}
	return 0
}

// attach and detach change who is woken.
func (r *ring) attach(s *Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var subs []*Subscription
	if old := r.subs.Load(); old != nil {
		subs = append(subs, *old...)
	}
	subs = append(subs, s)
	r.subs.Store(&subs)
}

func (r *ring) detach(s *Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.subs.Load()
	if old == nil {
		return
	}
	subs := make([]*Subscription, 0, len(*old))
	for _, o := range *old {
		if o != s {
			subs = append(subs, o)
		}
	}
	r.subs.Store(&subs)
	r.tidy()
}
