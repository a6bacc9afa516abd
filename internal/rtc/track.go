package rtc

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// What the playout-delay extension says: least and most delay in 12 bits each, in
// units of 10 ms (http://www.webrtc.org/experiments/rtp-hdrext/playout-delay). It
// rides on all packets of a keyframe, sent again or not, and on no other: a
// receiver keeps what it was told last (libwebrtc's VideoReceiveStream2 takes it
// from each frame that has one), and packets without it have headers of one size.
var (
	atOnce = []byte{0, 0, 0}

	// withSound leaves the delay to the receiver, which otherwise can't hold the
	// picture back for the sound: with atOnce the sound came 110 to 270 ms after the
	// picture in Chromium, with this within 10 (make bench-avsync, November 2026).
	withSound = []byte{0, 0x0f, 0xff}
)

// The capture time, as an NTP timestamp of the clock of the sender reports, rides on
// the last packet of a keyframe (http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time):
// a receiver goes on from it by the RTP timestamps of what follows, libwebrtc for 5 s. The
// last one breaks no run of equal packets, and is seldom full: one that is goes without,
// so that no packet is larger for it (over IPv6, with RTX, a full one of a keyframe has
// 1278 of the 1280 bytes that always pass).
const momentPayload = 1180 // bytes

const (
	rtxShare    = 4                      // at most a fourth of what was sent may be sent again
	rtxBurst    = 64 << 10               // bytes of it that may be saved up
	rtxStart    = 16 << 10               // bytes of it to begin with
	rtxReserve  = 16 << 10               // bytes of it that only packets get that weren't sent again yet
	rtxTries    = 4                      // times that one packet is sent again: at 10 % loss all but one in 10,000 have come by then
	rtxRecent   = 256                    // packets whose last retransmission is remembered
	maxNacked   = 256                    // packets asked for that may wait for the shard
	rtxWithin   = 400 * time.Millisecond // what takes longer to be sent again isn't: a keyframe is there sooner
	defaultRTT  = 50 * time.Millisecond
	minRTXPause = 10 * time.Millisecond
)

// track is one track at one viewer: pion's TrackLocal, the state that turns
// packets of its encodings into this viewer's RTP, and the receiver's feedback.
type track struct {
	viewer *Viewer
	kind   media.Kind
	msid   atomic.Pointer[msid] // for pion, which asks from goroutines of its own

	// Guarded by the viewer's negotiation lock; the names are changed with sendMu held too.
	slot, streamID string
	mid            string
	offer          []format // what the last offer lists, best first
	accepted       []format // what the peer has accepted of it; none while the m-line is inactive
	inactive       bool     // nothing is to be sent: removed, or declined by the peer
	rejected       bool     // the peer has given up the m-line
	named          msid     // in the last offer

	ssrc, rtxSSRC uint32 // set before the first offer or answer, then constant

	// Guarded by Viewer.sendMu.
	out     webrtc.TrackLocalWriter // nil until pion has bound the track
	cur     *encoding               // what is sent; nil before the first packet
	next    *encoding               // what follows, once the peer takes it and its keyframe is there
	rtxSeq  uint16
	offset  uint32 // of the RTP timestamps
	clock   uint32 // Hz; 0 before the first packet
	history history
	last    uint64        // Index of the last packet sent
	cut     bool          // and whether its frame goes on after it
	sent    time.Duration // the moment that the last frame was stamped with
	late    time.Duration // and how much that is after its capture
	behind  bool          // the encoding has not caught up with the one before
	packets uint64
	bytes   uint64
	again   uint64 // packets sent again
	pace    pacer
	tokens  int // bytes that may be sent again
	recent  *[rtxRecent]resent
	nacked  []uint16            // the shard's copy of feedback.nacked
	judged  uint64              // of packets, when a report told of them last
	leaping Source              // is to go on at its next keyframe, after the turn; nil: none
	repair  uint64              // packets before this number, unwrapped, aren't sent again
	counted map[uint32]*counted // by SSRC, for peers that send congestion control feedback
	frames  *frames             // nil unless the viewer is observed

	refused atomic.Uint64
	feedback
}

// msid is how the peer knows a track: its stream's id, and its own.
type msid struct{ stream, track string }

type resent struct {
	number uint32 // low bits of the sequence number, unwrapped: 16 come again within minutes
	n      uint8  // times that it was sent again
	at     time.Duration
}

func newTrack(v *Viewer, slot string, kind media.Kind, streamID string) *track {
	t := &track{viewer: v, kind: kind, tokens: rtxStart}
	t.name(slot, streamID)
	// Below 2^15, so that losing the first packets can't be taken for a wrap by
	// SRTP receivers that guess the rollover counter (as libwebrtc does).
	t.history.next = uint64(rand.Uint32N(1 << 15))
	t.rtxSeq = uint16(rand.Uint32N(1 << 15))
	t.offset = rand.Uint32()
	return t
}

// name gives the track its ids. The negotiation lock and sendMu are held.
func (t *track) name(slot, streamID string) {
	t.slot, t.streamID = slot, streamID
	t.msid.Store(&msid{streamID, slot})
}

// Bind is pion's: the connection has a place for the track.
func (t *track) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.viewer.sendMu.Lock()
	t.out = c.WriteStream()
	t.viewer.sendMu.Unlock()
	nominal := webrtc.MimeTypeVP8
	if t.kind == media.Audio {
		nominal = webrtc.MimeTypeOpus
	}
	for _, p := range c.CodecParameters() {
		if p.MimeType == nominal {
			return p, nil
		}
	}
	return webrtc.RTPCodecParameters{}, fmt.Errorf("%v track: %w", t.kind, ErrNoCodec)
}

// Unbind is pion's: the connection ends.
func (t *track) Unbind(webrtc.TrackLocalContext) error {
	t.viewer.sendMu.Lock()
	t.out = nil
	t.viewer.sendMu.Unlock()
	return nil
}

// ID, RID, StreamID and Kind are pion's.
func (t *track) ID() string       { return t.msid.Load().track }
func (t *track) RID() string      { return "" }
func (t *track) StreamID() string { return t.msid.Load().stream }
func (t *track) Kind() webrtc.RTPCodecType {
	if t.kind == media.Audio {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// write sends a packet of the current encoding as the next one of this viewer.
// Where the source left packets out in the middle of a frame, a number is left
// out too: the receiver must not take the frame for complete.
func (t *track) write(p media.Packet) error {
	if t.cut && p.Index != t.last+1 {
		t.history.skip()
	}
	if p.Start {
		t.late = t.lateness(p.Buffer.Capture)
	}
	t.sent = p.Buffer.Capture + t.late
	t.last, t.cut = p.Index, !p.Marker()
	h := t.cur.prepare(p, uint16(t.history.add(t.cur, p.Index, t.late)), t.late)
	t.date(t.cur, p)
	if t.frames != nil {
		t.frames.note(p, h.Timestamp)
	}
	payload := p.Payload()
	size := t.cur.heading(p).size + len(payload) + int(h.PaddingSize)
	if t.cur.numbered() {
		t.viewer.numbering.stamp(t.cur.number, size)
		t.count(t.cur, h.SSRC, h.SequenceNumber)
	}
	t.viewer.est.wire += size
	n, err := t.out.WriteRTP(h, payload)
	if n == 0 {
		t.viewer.unsent++ // pion found no way, or failed
	}
	t.packets++
	t.bytes += uint64(len(payload))
	t.tokens = min(t.tokens+len(payload)/rtxShare, rtxBurst)
	return err
}

// resend answers one sequence number of a NACK and tells whether it did. It is
// refused when the packet is gone, was sent again within a round trip or often
// enough, or when the viewer's share for retransmissions is used up, of which a part is kept
// for packets that are asked for the first time: some receivers (pion's generator)
// don't notice what came by RTX and go on asking: unlimited, they flood the
// very link that loses packets.
func (t *track) resend(seq uint16, now time.Duration, scratch *[]byte) (bool, error) {
	run, index, ok := t.history.find(seq)
	if !ok || t.history.unwrap(seq) < t.repair || run.enc.delta.rtx.SSRC == 0 && !run.enc.repeats() {
		return false, nil
	}
	if t.recent == nil {
		t.recent = new([rtxRecent]resent)
	}
	slot, number := &t.recent[seq%rtxRecent], uint32(t.history.unwrap(seq))
	if slot.number != number {
		*slot = resent{number: number}
	}
	if slot.n > 0 && now-slot.at < t.pause(now)+t.viewer.est.Estimate().Queue {
		return false, nil
	}
	p, ok := run.enc.src.Find(index)
	if !ok {
		return false, nil
	}
	defer p.Release()
	payload := p.Payload()
	if slot.n == rtxTries || len(payload) > t.tokens || slot.n > 0 && t.tokens < rtxReserve {
		return false, nil
	}
	t.tokens -= len(payload)
	t.pace.debt += len(payload)
	slot.n++
	slot.at = now
	t.again++
	t.viewer.est.repaired += run.enc.heading(p).size + len(payload)

	if run.enc.heading(p).rtx.SSRC != 0 {
		return true, t.sendRTX(run, seq, p, scratch)
	}
	h := run.enc.prepare(p, seq, run.late)
	t.date(run.enc, p)
	t.viewer.est.wire += run.enc.heading(p).size + len(payload) + int(h.PaddingSize)
	_, err := t.out.WriteRTP(h, payload)
	return true, err
}

// sendRTX sends a packet that had a sequence number in a run on the RTX stream:
// RFC 4588 §4, the original sequence number, then the original payload.
func (t *track) sendRTX(run *segment, seq uint16, p media.Packet, scratch *[]byte) error {
	h, heading := run.enc.prepare(p, seq, run.late), run.enc.heading(p)
	t.date(run.enc, p)
	rtx := &heading.rtx
	*scratch = binary.BigEndian.AppendUint16((*scratch)[:0], seq)
	*scratch = append(*scratch, p.Payload()...)
	rtx.SequenceNumber = t.rtxSeq
	t.rtxSeq++
	rtx.Timestamp, rtx.Marker = h.Timestamp, h.Marker
	size := heading.size + len(*scratch)
	if run.enc.numbered() {
		t.viewer.numbering.stamp(run.enc.number, size)
		t.count(run.enc, rtx.SSRC, rtx.SequenceNumber)
	}
	t.viewer.est.wire += size
	_, err := t.out.WriteRTP(rtx, *scratch)
	return err
}

// date writes a packet's capture time into the headers that have a place for it.
func (t *track) date(e *encoding, p media.Packet) {
	if e.moment != nil && p.Buffer.Keyframe && !p.Buffer.Placeholder {
		binary.BigEndian.PutUint64(e.moment, t.viewer.ntp(p.Buffer.Capture))
	}
}

func (t *track) pause(now time.Duration) time.Duration {
	if rtt := t.viewer.rtt(now); rtt > 0 {
		return max(rtt, minRTXPause)
	}
	return defaultRTT
}

// answerNACKs sends again what the receiver asked for, room packets at most, and
// tells whether more is left.
func (t *track) answerNACKs(scratch *[]byte, now time.Duration, room int) (sent int, left bool, err error) {
	t.mu.Lock()
	if t.hopeless() {
		t.wanted = t.wanted[:0]
		t.repair = t.history.next
		if t.cur != nil {
			t.leaping = t.cur.src
		}
	}
	n := min(len(t.wanted), room)
	t.nacked = append(t.nacked[:0], t.wanted[:n]...)
	t.wanted = append(t.wanted[:0], t.wanted[n:]...)
	left = len(t.wanted) > 0
	t.mu.Unlock()
	for _, seq := range t.nacked {
		ok, werr := t.resend(seq, now, scratch)
		if werr != nil {
			return sent, left, werr
		}
		if ok {
			sent++
		} else {
			t.refused.Add(1)
			t.viewer.engine.metrics.refused.Inc()
		}
	}
	return sent, left, nil
}

// hopeless tells whether a keyframe comes sooner than all that was asked for and will
// be: after most of a large frame, or a quarter of a second of a stream, was sent to a
// link that was much slower than thought. A viewer on 300 kbit/s waited 3.8 s for the
// rest of its first keyframe of 150 KB, while frames of a fitting bitrate waited behind
// it (make bench-network, 2026-11).
func (t *track) hopeless() bool {
	if t.pace.most == 0 || t.kind != media.Video || len(t.wanted) == 0 {
		return false
	}
	doomed := t.doomed()
	if doomed+t.takes(len(t.wanted)*pacePacket) <= rtxWithin {
		return false
	}
	slices.Sort(t.wanted) // what wasn't answered yet is asked for again
	t.wanted = slices.Compact(t.wanted)
	t.wanted = slices.DeleteFunc(t.wanted, func(seq uint16) bool { return t.history.unwrap(seq) < t.repair })
	return len(t.wanted) > 0 && doomed+t.takes(len(t.wanted)*pacePacket) > rtxWithin
}

// doomed is how long it would take to send again what is on its way and won't arrive: a
// queue that has begun to drop is full, and what was sent beyond what it holds is lost,
// which the receiver notices only as the queue in front of it passes: a packet every 20 ms
// on 600 kbit/s. 0 while nothing stands in a queue.
func (t *track) doomed() time.Duration {
	queue := t.viewer.est.Estimate().Queue
	if queue < paceWait {
		return 0
	}
	return max(t.takes(t.viewer.numbering.outstanding())-queue-t.pause(t.viewer.numbering.now), 0)
}

// takes is how long some bytes take on the viewer's link, of which something is known.
func (t *track) takes(bytes int) time.Duration {
	return time.Duration(int64(bytes) * 8 * int64(time.Second) / int64(t.pace.most))
}

// plan sets the pace for a buffer of the current encoding.
func (t *track) plan(b *media.Buffer) {
	e := &t.viewer.est
	if t.kind == media.Video {
		e.waited = max(e.waited, t.viewer.numbering.now-b.Arrived)
	}
	t.pace.plan(b, t.cur.spec.Bps, e.limit())
}

// drop ends what the track sends.
func (t *track) drop() {
	t.viewer.sendMu.Lock()
	cur, next := t.cur, t.next
	t.cur, t.next = nil, nil
	t.viewer.sendMu.Unlock()
	for _, e := range []*encoding{cur, next} {
		if e != nil {
			e.close()
		}
	}
}

// current is the encoding that is sent; nil if none.
func (t *track) current() *encoding {
	t.viewer.sendMu.Lock()
	defer t.viewer.sendMu.Unlock()
	return t.cur
}

// latest is the encoding that the track is to have, by its latest description:
// the next one, else the current one, else nil. sendMu is held.
func (t *track) latest() *encoding {
	if t.next != nil {
		return t.next
	}
	return t.cur
}
