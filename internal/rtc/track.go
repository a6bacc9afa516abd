package rtc

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// playoutDelay asks the receiver to render at once: min 0, max 0, in units of
// 10 ms (http://www.webrtc.org/experiments/rtp-hdrext/playout-delay). It rides on
// the first packet of each frame, which any resend of that packet can tell again.
var playoutDelay = []byte{0, 0, 0}

const (
	rtxShare    = 4        // at most a fourth of what was sent may be sent again
	rtxBurst    = 64 << 10 // bytes of it that may be saved up
	rtxStart    = 16 << 10 // bytes of it to begin with
	rtxRecent   = 256      // packets whose last retransmission is remembered
	maxNacked   = 256      // packets asked for that may wait for the shard
	defaultRTT  = 50 * time.Millisecond
	minRTXPause = 10 * time.Millisecond
)

// track is one track at one viewer: pion's TrackLocal, the state that turns
// packets of the source into this viewer's RTP, and the receiver's feedback.
type track struct {
	viewer   *Viewer
	streamID string
	src      Source

	// Guarded by the viewer's negotiation lock.
	spec        media.Track
	format      format // what was offered or answered
	mid         string
	sender      *webrtc.RTPSender
	transceiver *webrtc.RTPTransceiver

	ssrc, rtxSSRC uint32 // set before the first offer or answer, then constant

	// Guarded by Viewer.sendMu.
	out      webrtc.TrackLocalWriter // nil until pion has bound the track
	declined bool                    // the peer doesn't want it; the source is closed
	header   rtp.Header              // SSRC, PT and what changes from packet to packet
	first    rtp.Header              // the same for the first packet of a frame: with the playout delay
	rtx      rtp.Header
	rtxSeq   uint16
	offset   uint32 // of the RTP timestamps
	history  history
	last     uint64 // Index of the last packet sent
	cut      bool   // and whether its frame goes on after it
	packets  uint64
	bytes    uint64
	again    uint64 // packets sent again
	unsent   uint64 // of packets, those that pion dropped
	tokens   int    // bytes that may be sent again
	recent   *[rtxRecent]resent
	nacked   []uint16 // the shard's copy of feedback.nacked

	refused atomic.Uint64
	feedback
}

type resent struct {
	seq uint16
	at  time.Duration
}

func newTrack(v *Viewer, spec media.Track, streamID string, src Source) *track {
	t := &track{viewer: v, spec: spec, streamID: streamID, src: src, tokens: rtxStart}
	// Below 2^15, so that losing the first packets can't be taken for a wrap by
	// SRTP receivers that guess the rollover counter (as libwebrtc does).
	t.history.next = uint64(rand.Uint32N(1 << 15))
	t.rtxSeq = uint16(rand.Uint32N(1 << 15))
	t.offset = rand.Uint32()
	return t
}

// Bind is pion's: the connection has a place for the track.
func (t *track) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.viewer.sendMu.Lock()
	t.out = c.WriteStream()
	t.viewer.sendMu.Unlock()
	nominal := webrtc.MimeTypeVP8
	if t.spec.Kind == media.Audio {
		nominal = webrtc.MimeTypeOpus
	}
	for _, p := range c.CodecParameters() {
		if p.MimeType == nominal {
			return p, nil
		}
	}
	return webrtc.RTPCodecParameters{}, fmt.Errorf("track %q: %w", t.spec.Name, ErrNoCodec)
}

// Unbind is pion's: the connection ends.
func (t *track) Unbind(webrtc.TrackLocalContext) error {
	t.viewer.sendMu.Lock()
	t.out = nil
	t.viewer.sendMu.Unlock()
	return nil
}

// ID, RID, StreamID and Kind are pion's.
func (t *track) ID() string       { return t.spec.Name }
func (t *track) RID() string      { return "" }
func (t *track) StreamID() string { return t.streamID }
func (t *track) Kind() webrtc.RTPCodecType {
	if t.spec.Kind == media.Audio {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// configure puts the negotiated payload types and extension to use. From then on
// the source wakes the viewer.
func (t *track) configure(f format) {
	defer t.src.Notify(t.viewer.wake)
	t.viewer.sendMu.Lock()
	defer t.viewer.sendMu.Unlock()
	if t.header.SSRC != 0 && (t.header.PayloadType != f.pt || t.first.Extension != (f.delayID != 0)) {
		// A packet sent again under its old number with another header would use
		// an AES-GCM nonce twice.
		t.history.forget()
	}
	t.header = rtp.Header{Version: 2, PayloadType: f.pt, SSRC: t.ssrc}
	t.first = t.header
	if f.delayID != 0 {
		if err := t.first.SetExtension(f.delayID, playoutDelay); err != nil {
			t.first = t.header // the identifier was checked; never here
		}
	}
	t.rtx = rtp.Header{}
	if f.rtx != 0 {
		t.rtx = rtp.Header{Version: 2, PayloadType: f.rtx, SSRC: t.rtxSSRC}
	}
}

// prepare fills in the header that packet p has under a sequence number: a pure
// function of both, so that the same packet is the same bytes again.
func (t *track) prepare(p media.Packet, seq uint16) *rtp.Header {
	h := &t.header
	if p.Start {
		h = &t.first
	}
	h.SequenceNumber = seq
	h.Timestamp = media.RTPTime(p.Buffer.Capture, t.spec.Codec.ClockRate()) + t.offset
	h.Marker = p.Marker()
	return h
}

// write sends a packet as the next one of this viewer. Where the source left
// packets out in the middle of a frame, a number is left out too: the receiver
// must not take the frame for complete.
func (t *track) write(p media.Packet) error {
	if t.cut && p.Index != t.last+1 {
		t.history.skip()
	}
	t.last, t.cut = p.Index, !p.Marker()
	h := t.prepare(p, uint16(t.history.add(p.Index)))
	payload := p.Payload()
	n, err := t.out.WriteRTP(h, payload)
	if n == 0 {
		t.unsent++ // pion found no way, or failed
	}
	t.packets++
	t.bytes += uint64(len(payload))
	t.tokens = min(t.tokens+len(payload)/rtxShare, rtxBurst)
	return err
}

// resend answers one sequence number of a NACK and tells whether it did. It is
// refused when the packet is gone, was sent again within a round trip, or when
// the viewer's share for retransmissions is used up: unlimited, they flood the
// very link that loses packets.
func (t *track) resend(seq uint16, now time.Duration, scratch *[]byte) (bool, error) {
	index, ok := t.history.find(seq)
	if !ok {
		return false, nil
	}
	if t.recent == nil {
		t.recent = new([rtxRecent]resent)
	}
	slot := &t.recent[seq%rtxRecent]
	if slot.seq == seq && slot.at != 0 && now-slot.at < t.pause() {
		return false, nil
	}
	p, ok := t.src.Find(index)
	if !ok {
		return false, nil
	}
	defer p.Release()
	payload := p.Payload()
	if len(payload) > t.tokens {
		return false, nil
	}
	t.tokens -= len(payload)
	*slot = resent{seq: seq, at: now}
	t.again++

	h := t.prepare(p, seq)
	if t.rtx.SSRC == 0 {
		_, err := t.out.WriteRTP(h, payload)
		return true, err
	}
	// RFC 4588 §4: the original sequence number, then the original payload.
	*scratch = binary.BigEndian.AppendUint16((*scratch)[:0], seq)
	*scratch = append(*scratch, payload...)
	t.rtx.SequenceNumber = t.rtxSeq
	t.rtxSeq++
	t.rtx.Timestamp, t.rtx.Marker = h.Timestamp, h.Marker
	_, err := t.out.WriteRTP(&t.rtx, *scratch)
	return true, err
}

func (t *track) pause() time.Duration {
	if rtt := time.Duration(t.rtt.Load()); rtt > 0 {
		return max(rtt, minRTXPause)
	}
	return defaultRTT
}

// answerNACKs sends again what the receiver asked for.
func (t *track) answerNACKs(scratch *[]byte) (sent int, err error) {
	t.mu.Lock()
	t.nacked = append(t.nacked[:0], t.wanted...)
	t.wanted = t.wanted[:0]
	t.mu.Unlock()
	if len(t.nacked) == 0 {
		return 0, nil
	}
	now := media.Now()
	for _, seq := range t.nacked {
		ok, werr := t.resend(seq, now, scratch)
		if werr != nil {
			return sent, werr
		}
		if ok {
			sent++
		} else {
			t.refused.Add(1)
			t.viewer.engine.metrics.refused.Inc()
		}
	}
	return sent, nil
}

// decline ends a track that the peer doesn't want.
func (t *track) decline() {
	t.viewer.sendMu.Lock()
	t.declined = true
	t.viewer.sendMu.Unlock()
	t.release()
}

func (t *track) release() {
	t.src.Notify(nil)
	t.src.Close()
}
