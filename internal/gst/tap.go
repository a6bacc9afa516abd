package gst

/*
#include "native.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-gst/go-gst/gst"
	"github.com/pion/rtp/codecs"

	"gateway/internal/media"
)

const (
	// maxPayload is the size of RTP payloads that are made here rather than by a
	// GStreamer payloader: as their mtu of 1200, without the header.
	maxPayload = 1188

	maxSample = 16 << 20 // bytes; a larger sample is dropped and counted as a gap
)

// maxRefused is how many samples in a row may be unusable before the pipeline
// counts as failed.
const maxRefused = 30

// maxBackward is how many frames between two keyframes may be earlier than one
// before them, until that counts as B-frames. A camera that sets its clock does it
// once.
const maxBackward = 2

var errNotPackets = errors.New("the appsink is given neither RTP nor AV1: put a payloader before it, such as rtph264pay")

// pullTimeout is how often an appsink's goroutine looks around.
const pullTimeout = 250 * time.Millisecond

// tap takes the samples out of one appsink and hands them on as buffers of
// packets. All its state belongs to its goroutine.
type tap struct {
	id      string
	track   media.Track
	copied  bool // the source has encoded it by itself
	graph   *graph
	appsink *gst.Element
	outlet  *C.outlet // where the graph's buffers come from; nil in a whole feed
	stamps  *C.stamps // of the encoder; nil where there is none
	looks   *looks    // at its pictures; nil where nobody has asked
	sink    Sink
	log     *slog.Logger
	fail    func(error)

	keyframes chan struct{} // has one when a keyframe came; closed when no more come

	facts   []C.packet_fact
	av1     codecs.AV1Payloader
	unit    []byte      // the frame that is made packets of
	recut   bool        // the frame's packets of H.264 are replaced by such as go out in fewer messages
	scarce  atomic.Bool // no bytes are spent on that: the viewers' networks are what is short
	nals    codecs.H264Packet
	before  bool // something was lost before the frame
	h264    media.H264Packets
	seq     uint16 // of the last packet
	begun   bool
	open    bool          // the frame of the last packet goes on
	rtpTime uint32        // of the last packet, as the payloader has it
	capture time.Duration // of the frame that goes on
	refused int           // samples in a row that couldn't be used
	lost    bool          // the next buffer follows a loss
	dropped int           // captured buffers that were told of
	sps     string        // the one that the track's description is true of
	latest  time.Duration // running time of the latest frame
	back    int           // frames since the last keyframe that are earlier than latest
}

func newTap(id string, t media.Track, g *graph, appsink *gst.Element, p *Pipeline) *tap {
	return &tap{
		id: id, track: t, graph: g, appsink: appsink, stamps: g.watchEncoder(appsink), sink: p.sink, log: p.log,
		looks:     g.lookAt(appsink, p.feed.Pictures, p.fail, p.log),
		keyframes: make(chan struct{}, 1), facts: make([]C.packet_fact, 64),
	}
}

// run pulls until the graph closes. It blocks in the appsink, which is never kept
// waiting for long: the sink takes what it is given at once.
func (t *tap) run() {
	sink := element(t.appsink)
	defer close(t.keyframes)
	base := time.Duration(-1)
	var p C.pulled
	for !t.graph.closing.Load() {
		t.tellDropped()
		t.looks.check()
		if C.pulled_take(sink, C.GstClockTime(pullTimeout), &p) == 0 {
			if p.eos != 0 {
				return // the bus tells why
			}
			continue
		}
		if base < 0 {
			base = time.Duration(C.gst_element_get_base_time(sink))
		}
		running := p.running
		b, err := t.take(&p)
		if err == nil && t.recut {
			b, err = t.recutH264(b)
		}
		if b == nil && err == nil {
			continue // the frame goes on
		}
		if err != nil {
			t.lost = true
			if t.refused++; errors.Is(err, errNotPackets) || t.refused == maxRefused {
				t.fail(fmt.Errorf("track %q: %w", t.track.Name, err))
			}
			continue
		}
		t.refused = 0
		if err := t.unplayable(b, time.Duration(running)); err != nil {
			b.Release()
			t.fail(fmt.Errorf("track %q: %w", t.track.Name, err))
			return
		}
		b.Arrived = media.Now()
		if b.Start { // one time for all of a frame, also if its PTS is ahead of the clock
			t.capture = min(base+time.Duration(running), b.Arrived)
		}
		b.Capture = t.capture
		t.stamp(b, running)
		if t.outlet != nil && C.outlet_lost(t.outlet, running) != 0 {
			t.lost = true
		}
		b.Gap, t.lost = t.lost, false
		t.deliver(b)
	}
}

// stamp notes when the encoder had the buffer's picture.
func (t *tap) stamp(b *media.Buffer, running C.GstClockTime) {
	var in, out C.guint64
	if t.stamps != nil && C.stamps_find(t.stamps, running, &in, &out) != 0 {
		b.Encoding, b.Encoded = max(time.Duration(in), b.Capture), min(time.Duration(out), b.Arrived)
	}
}

// tellDropped tells the sink what the encoder was too slow for since the last time.
func (t *tap) tellDropped() {
	if t.outlet == nil {
		return
	}
	if n := int(C.outlet_dropped(t.outlet)); n > t.dropped {
		t.graph.tell(func() { t.sink.Dropped(t.id, n-t.dropped) })
		t.dropped = n
	}
}

// deliver gives a buffer to the sink, after what it says about its track.
func (t *tap) deliver(b *media.Buffer) {
	if b.Keyframe {
		select {
		case t.keyframes <- struct{}{}:
		default:
		}
	}
	said := !b.Keyframe || !t.describe(b)
	delivered := false
	t.graph.tell(func() {
		if !said {
			t.sink.Describe(t.id, t.track)
		}
		t.sink.Deliver(t.id, b)
		delivered = true
	})
	if !delivered {
		b.Release()
	}
}

// take turns a sample into a buffer and releases it.
func (t *tap) take(p *C.pulled) (*media.Buffer, error) {
	switch {
	case p.running == C.GST_CLOCK_TIME_NONE:
		C.pulled_drop(p)
		return nil, errors.New("samples without a timestamp")
	case p.packets == 0 || p.bytes == 0 || p.bytes > maxSample:
		C.pulled_drop(p)
		return nil, errors.New("samples that are empty or too large")
	case p.rtp != 0:
		return t.takePackets(p)
	case t.track.Codec == media.AV1:
		return t.takeAV1(p)
	}
	C.pulled_drop(p)
	return nil, errNotPackets
}

// takePackets copies the payloads of RTP packets.
func (t *tap) takePackets(p *C.pulled) (*media.Buffer, error) {
	n := int(p.packets)
	if n > len(t.facts) {
		t.facts = make([]C.packet_fact, 2*n)
	}
	b := media.NewBuffer(int(p.bytes))
	room := b.Room(int(p.bytes))
	C.pulled_copy_rtp(p, (*C.guint8)(unsafe.Pointer(&room[0])), C.gsize(len(room)), &t.facts[0])

	for i, f := range t.facts[:n] {
		if f.bad != 0 || f.size == 0 {
			if f.bad != 0 {
				t.lost = true
			}
			continue
		}
		seq, ts := uint16(f.seq), uint32(f.timestamp)
		if t.begun && seq != t.seq+1 {
			t.lost = true
		}
		if b.Len() == 0 {
			b.Start = !t.begun || !t.open || ts != t.rtpTime
		}
		t.begun, t.seq, t.rtpTime = true, seq, ts
		b.Commit(int(f.size))
		b.Keyframe = b.Keyframe || t.keyframe(b.Payload(b.Len()-1))
		t.open = f.marker == 0
		if i == n-1 {
			b.End = f.marker != 0
		}
	}
	if t.track.Kind == media.Audio {
		b.Start, b.End, t.open = true, true, false // each packet is a frame, whatever its marker says (RFC 3551 §4.1)
	}
	if b.Len() == 0 {
		b.Release()
		return nil, errors.New("no readable RTP packet")
	}
	return b, nil
}

// takeAV1 packetizes one temporal unit, which GStreamer 1.22 has no payloader for.
func (t *tap) takeAV1(p *C.pulled) (*media.Buffer, error) {
	unit := t.takeUnit(p)
	payloads := t.av1.Payload(maxPayload, unit)
	if len(payloads) == 0 {
		return nil, errors.New("no AV1 OBU")
	}
	b := media.NewBuffer(len(unit) + 8*len(payloads))
	for _, payload := range payloads {
		b.Append(payload)
	}
	b.Start, b.End = true, true
	b.Keyframe = t.keyframe(payloads[0])
	return b, nil
}

// recutH264 replaces the packets of a frame, whose slices rtph264pay has cut each by
// itself, with such as go out in fewer messages. It returns nil until the frame, which
// comes in several buffers one right after the other, is complete, and for one of which
// something is missing: the next one tells of the gap.
func (t *tap) recutH264(b *media.Buffer) (*media.Buffer, error) {
	defer b.Release()
	if b.Start {
		t.unit, t.nals = t.unit[:0], codecs.H264Packet{}
		t.before, t.lost = t.before || t.lost, false // what was lost before isn't missing in this one
	}
	for i := range b.Len() {
		part, err := t.nals.Unmarshal(b.Payload(i))
		if err != nil {
			return nil, err
		}
		t.unit = append(t.unit, part...)
	}
	if !b.End {
		return nil, nil
	}
	torn := t.lost
	t.lost, t.before = t.lost || t.before, false
	if torn {
		return nil, nil
	}
	frame := media.NewBuffer(len(t.unit) + len(t.unit)/64)
	if !t.h264.Append(frame, t.unit, maxPayload, !t.scarce.Load()) {
		frame.Release()
		return nil, errors.New("a frame without a NAL unit")
	}
	frame.Start, frame.End = true, true
	for i := 0; i < frame.Len() && !frame.Keyframe; i++ {
		frame.Keyframe = t.keyframe(frame.Payload(i))
	}
	if t.lost && frame.Keyframe && !media.Begins(media.H264, frame.Payload(0)) { // its beginning was lost, too
		frame.Release()
		return nil, nil
	}
	return frame, nil
}

// takeUnit copies a sample's bytes, which are good until the next one's.
func (t *tap) takeUnit(p *C.pulled) []byte {
	n := int(p.bytes)
	if n > cap(t.unit) {
		t.unit = make([]byte, 2*n)
	}
	t.unit = t.unit[:n]
	return t.unit[:C.pulled_copy_raw(p, (*C.guint8)(unsafe.Pointer(&t.unit[0])), C.gsize(n))]
}

func (t *tap) keyframe(payload []byte) bool {
	return t.track.Kind == media.Audio || media.Keyframe(t.track.Codec, payload)
}

// unplayable is why browsers don't play what a source has encoded by itself: what
// its SPS says, or frames that come in another order than they are shown in. The
// error is a media.ErrUnplayable.
func (t *tap) unplayable(b *media.Buffer, running time.Duration) error {
	if !t.copied || t.track.Kind != media.Video {
		return nil
	}
	reason := ""
	if b.Keyframe {
		t.back = 0
		reason = t.unplayableSPS(b)
	}
	switch {
	case !b.Start:
	case running >= t.latest:
		t.latest = running
	default:
		if t.back++; t.back == maxBackward {
			reason = "it has B-frames, which browsers show out of order"
		}
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %s: set the source to another profile without B-frames, or write encoder: auto", media.ErrUnplayable, reason)
}

func (t *tap) unplayableSPS(b *media.Buffer) string {
	if t.track.Codec != media.H264 {
		return ""
	}
	for i := range b.Len() {
		if nal := media.H264SPS(b.Payload(i)); nal != nil && string(nal) != t.sps {
			info, err := media.ParseSPS(nal)
			if err != nil {
				return "" // told where it is described
			}
			return info.Unplayable()
		}
	}
	return ""
}

// describe makes the track what a keyframe says that it is, and tells whether that
// changed it.
func (t *tap) describe(b *media.Buffer) bool {
	if t.track.Kind != media.Video {
		return false
	}
	changed := false
	var width, height C.int
	var fps C.double
	if C.pad_upstream_size(element(t.appsink), &width, &height, &fps) != 0 {
		now := t.track
		now.Width, now.Height = int(width), int(height)
		if fps > 0 {
			now.FPS = float64(fps)
		}
		changed = now != t.track
		t.track = now
	}
	if t.track.Codec == media.H264 {
		changed = t.describeH264(b) || changed
	}
	return changed
}

// describeH264 raises the profile-level-id to what the SPS says, if that exceeds
// what was said so far.
func (t *tap) describeH264(b *media.Buffer) bool {
	for i := range b.Len() {
		nal := media.H264SPS(b.Payload(i))
		if nal == nil || string(nal) == t.sps {
			continue
		}
		t.sps = string(nal)
		info, err := media.ParseSPS(nal)
		if err != nil {
			t.log.Warn("sps", "track", t.track.Name, "err", err)
			continue
		}
		fmtp := media.RaiseFmtp(t.track.Fmtp, info)
		if fmtp == t.track.Fmtp {
			return false
		}
		t.track.Fmtp = fmtp
		return true
	}
	return false
}
