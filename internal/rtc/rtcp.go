package rtc

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/transport/v4/packetio"

	"gateway/internal/adapt"
	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	reportInterval = time.Second
	maxRTT         = 10 * time.Second // longer ones are a peer's nonsense
	rttLasts       = 10 * time.Second // libwebrtc reports on sound every 5 s, give or take a half
	maxForeign     = 16               // unknown SSRCs that a viewer may name before it is ended
)

// roundTrip is the round trip time that reports have told last. All tracks of a viewer
// go the same way, so it is that of the latest report on any.
type roundTrip struct{ took, at atomic.Int64 } // time.Duration

func (r *roundTrip) heard(took, now time.Duration) {
	r.took.Store(int64(took))
	r.at.Store(int64(now))
}

// lately is what was heard in the last rttLasts; 0: nothing.
func (r *roundTrip) lately(now time.Duration) time.Duration {
	if now-time.Duration(r.at.Load()) > rttLasts {
		return 0
	}
	return time.Duration(r.took.Load())
}

// feedback is what a track's receiver told.
type feedback struct {
	mu     sync.Mutex // guards what follows
	wanted []uint16   // sequence numbers of NACKs that the shard has not answered yet
	nacks  uint64
	asked  uint64
	plis   uint64
	firs   uint64
	fir    struct { // the last one
		seen   bool
		sender uint32
		seq    uint8
	}
	loss   float64
	jitter uint32 // in units of the RTP clock
	remb   int
}

// buffer is pion's hook for where incoming SRTP and SRTCP packets go (see
// SettingEngine.BufferFactory). RTCP of a track goes straight to it, on pion's
// SRTCP goroutine; all other packets are dropped. A peer that names many
// unknown SSRCs makes pion keep something for each: it is ended. Feedback that is
// about the transport is taken whatever SSRC it names: libwebrtc writes the one it
// heard last, of any track or its RTX.
func (v *Viewer) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	if kind == packetio.RTCPBufferPacket {
		if t, ok := v.bySSRC.Load(ssrc); ok {
			t := t.(*track)
			if ssrc != t.ssrc {
				t = nil // what is about the RTX stream isn't needed
			}
			return &inlet{v, t}
		}
	}
	if v.foreign.Add(1) > maxForeign {
		v.end(errForeign)
	}
	if kind == packetio.RTCPBufferPacket {
		return &inlet{v, nil}
	}
	return discard{}
}

// inlet passes incoming RTCP on, which pion hands over packet by packet.
type inlet struct {
	viewer *Viewer
	track  *track // nil: only what is about the transport is wanted
}

func (i *inlet) Write(b []byte) (int, error) {
	defer contain.Panic(i.viewer.log, "viewer", i.viewer.broke)
	if isTransportFeedback(b) {
		i.viewer.onTransportFeedback(b)
	} else if isCongestionFeedback(b) {
		i.viewer.onCongestionFeedback(b)
	} else if i.track != nil {
		i.track.receive(b)
	}
	return len(b), nil
}
func (i *inlet) Read([]byte) (int, error) { return 0, io.EOF }
func (i *inlet) Close() error             { return nil }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Read([]byte) (int, error)    { return 0, io.EOF }
func (discard) Close() error                { return nil }

// receive takes RTCP packets from the peer. Nothing in them is trusted: work
// and memory are bounded for each packet.
func (t *track) receive(b []byte) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return
	}
	m := t.viewer.engine.metrics
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.TransportLayerNack:
			if p.MediaSSRC == t.ssrc {
				m.nacks.Inc()
				t.onNACK(p)
			}
		case *rtcp.PictureLossIndication:
			if p.MediaSSRC == t.ssrc {
				m.plis.Inc()
				t.mu.Lock()
				t.plis++
				t.mu.Unlock()
				t.requestKeyframe()
			}
		case *rtcp.FullIntraRequest:
			t.onFIR(p, m)
		case *rtcp.ReceiverReport:
			t.onReports(p.Reports)
		case *rtcp.SenderReport:
			t.onReports(p.Reports)
		case *rtcp.ReceiverEstimatedMaximumBitrate:
			remb := int(min(p.Bitrate, 1e12))
			t.mu.Lock()
			t.remb = remb
			t.mu.Unlock()
			t.viewer.learn(func(now time.Duration, e *adapt.Estimator) { e.REMB(now, remb) })
		}
	}
}

func (t *track) onNACK(p *rtcp.TransportLayerNack) {
	var refused uint64
	t.mu.Lock()
	t.nacks++
	for _, pair := range p.Nacks {
		pair.Range(func(seq uint16) bool {
			t.asked++
			if len(t.wanted) < maxNacked {
				t.wanted = append(t.wanted, seq)
			} else {
				refused++
			}
			return true
		})
	}
	t.mu.Unlock()
	if refused > 0 {
		t.refused.Add(refused)
		t.viewer.engine.metrics.refused.Add(float64(refused))
	}
	t.viewer.wake()
}

func (t *track) onFIR(p *rtcp.FullIntraRequest, m *metrics) {
	for _, e := range p.FIR {
		if e.SSRC != t.ssrc {
			continue
		}
		m.firs.Inc()
		t.mu.Lock()
		// A FIR with the last sequence number is a repeat, not a new request (RFC 5104 §4.3.1.1).
		repeat := t.fir.seen && t.fir.sender == p.SenderSSRC && t.fir.seq == e.SequenceNumber
		t.fir.seen, t.fir.sender, t.fir.seq = true, p.SenderSSRC, e.SequenceNumber
		t.firs++
		t.mu.Unlock()
		if !repeat {
			t.requestKeyframe()
		}
	}
}

func (t *track) requestKeyframe() {
	if t.kind != media.Video {
		return
	}
	t.viewer.sendMu.Lock()
	e := t.cur
	if e == nil {
		e = t.next
	}
	t.viewer.sendMu.Unlock()
	if e != nil {
		e.src.RequestKeyframe()
	}
}

// onReports reads what a receiver says of this track (RFC 3550 §6.4.1).
func (t *track) onReports(reports []rtcp.ReceptionReport) {
	for _, r := range reports {
		if r.SSRC != t.ssrc {
			continue
		}
		loss := float64(r.FractionLost) / 256
		t.mu.Lock()
		t.loss = loss
		t.jitter = r.Jitter
		t.mu.Unlock()
		if !t.judge(loss) {
			continue
		}
		now := media.Now()
		units := int32(uint32(t.viewer.ntp(now)>>16) - r.LastSenderReport - r.Delay) // of 1/65536 s
		if rtt := time.Duration(units) * time.Second >> 16; r.LastSenderReport != 0 && rtt > 0 && rtt <= maxRTT {
			t.viewer.trip.heard(rtt, now)
		}
	}
}

// judge notes the loss that a report tells of the track, for the estimator if it is a
// picture's. It tells whether the track sends anything at all.
func (t *track) judge(loss float64) bool {
	v := t.viewer
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if t.cur == nil {
		return false
	}
	if t.kind == media.Video {
		v.est.reported.add(loss, t.packets-t.judged)
		t.judged = t.packets
	}
	return true
}

// ntp is a moment of the capture clock as a 64-bit NTP timestamp. All tracks
// share the one mapping, which doesn't follow steps of the wall clock: that is
// what keeps them in step at the receiver.
func (v *Viewer) ntp(at time.Duration) uint64 {
	wall := v.epoch + at + ntpUnix
	s, ns := uint64(wall/time.Second), uint64(wall%time.Second)
	return s<<32 | ns<<32/uint64(time.Second)
}

// ntpUnix is from the era of NTP (1900) to that of Unix (1970).
const ntpUnix = 2208988800 * time.Second

// tend lets the estimator's time pass, and sends what is due of reports. It is
// called on the shard about every 100 ms.
func (v *Viewer) tend(now time.Duration) {
	if v.open.Load() {
		v.learn(func(now time.Duration, e *adapt.Estimator) {
			if loss, ok := v.est.reported.take(); ok {
				e.ReceiverReport(now, loss, v.rtt(now))
			}
			e.Step(now)
			v.est.reckon(now)
		})
	}
	v.reportIfDue(now)
}

// reportIfDue sends sender reports for all tracks in one compound packet when
// it is time. It is called on the shard.
func (v *Viewer) reportIfDue(now time.Duration) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if v.gone || !v.open.Load() || v.reportAt == 0 || now < v.reportAt {
		return
	}
	v.report(now)
}

// report is reportIfDue without the question; sendMu is held.
func (v *Viewer) report(now time.Duration) {
	v.reportAt = now + reportInterval
	packets := make([]rtcp.Packet, 0, len(v.tracks)+1)
	names := &rtcp.SourceDescription{}
	ntp := v.ntp(now)
	for _, t := range v.tracks {
		if t.cur == nil || t.out == nil {
			continue
		}
		packets = append(packets, &rtcp.SenderReport{
			SSRC:        t.ssrc,
			NTPTime:     ntp,
			RTPTime:     t.cur.timestamp(now),
			PacketCount: uint32(t.packets),
			OctetCount:  uint32(t.bytes),
		})
		names.Chunks = append(names.Chunks, rtcp.SourceDescriptionChunk{
			Source: t.ssrc,
			Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: t.streamID}},
		})
	}
	if len(packets) == 0 {
		return
	}
	if err := v.conn.writeRTCP(append(packets, names)); err != nil {
		v.log.Debug("sender report not sent", "error", err)
	}
}
