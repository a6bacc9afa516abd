package rtc

// What a publisher is told by RTCP of what came of it, and what it tells; and the
// figures that are shown.

import (
	"io"
	"slices"
	"time"

	"github.com/pion/rtcp"

	"gateway/internal/contain"
	"gateway/internal/media"
)

// reportInlet takes the RTCP of one SSRC.
type reportInlet struct {
	receiving *receiving
	ssrc      uint32
}

// Write is pion's: RTCP of the publisher has come.
func (i *reportInlet) Write(b []byte) (int, error) {
	defer contain.Panic(i.receiving.publisher.log, "publisher", i.receiving.publisher.broke)
	i.receiving.reported(i.ssrc, b, media.Now())
	return len(b), nil
}
func (*reportInlet) Read([]byte) (int, error) { return 0, io.EOF }
func (*reportInlet) Close() error             { return nil }

// reported takes what the peer tells of its streams. pion hands a compound packet
// over once for each SSRC that it names.
func (r *receiving) reported(ssrc uint32, b []byte, now time.Duration) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	in := r.streams[ssrc]
	if in == nil || in.rtx {
		return
	}
	for _, p := range packets {
		if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == ssrc && in.layer.ssrc == ssrc {
			in.layer.time.report(sr.NTPTime, sr.RTPTime)
			in.layer.report.ntp, in.layer.report.arrived = uint32(sr.NTPTime>>16), now
		}
	}
}

// tend gives up what is missing for too long, and sends feedback, until stop.
func (p *Publisher) tend() {
	defer contain.Panic(p.log, "publisher", p.broke)
	defer close(p.stopped)
	timer := time.NewTimer(feedbackInterval)
	defer timer.Stop()
	for {
		packets, next := p.feedback(media.Now())
		if len(packets) > 0 && p.current() == StateConnected {
			if err := p.pc.WriteRTCP(packets); err != nil {
				p.log.Debug("feedback not sent", "error", err)
			}
		}
		timer.Reset(max(next-media.Now(), time.Millisecond))
		select {
		case <-p.stop:
			return
		case <-p.stir:
		case <-timer.C:
		}
	}
}

// feedback is what is to be sent now, and when there may be more.
func (p *Publisher) feedback(now time.Duration) (packets []rtcp.Packet, next time.Duration) {
	p.rmu.Lock()
	defer p.rmu.Unlock()
	if p.reportAt == 0 {
		p.reportAt, p.twccAt = now+reportInterval, now+feedbackInterval
	}
	report := now >= p.reportAt
	if report {
		p.reportAt = now + reportInterval
		p.measureRTT()
	}
	next = p.reportAt
	var reports []rtcp.ReceptionReport
	for _, l := range p.lines {
		for _, y := range l.layers {
			if y.ssrc == 0 {
				continue
			}
			p.hand(y, now)
			packets = append(packets, p.repairs(y, now)...)
			if at, ok := y.buffer.due(now); ok {
				next = min(next, at)
			}
			if report {
				reports = append(reports, y.receptionReport(now))
				p.count(y, now)
			}
		}
	}
	if now >= p.twccAt {
		p.twccAt = now + feedbackInterval
		if p.recorder.PacketsHeld() > 0 {
			packets = append(packets, p.recorder.BuildFeedbackPacket()...)
		}
	}
	if len(reports) > 0 {
		for i := 0; i < len(reports); i += 31 { // RFC 3550 §6.4.2
			packets = append(packets, &rtcp.ReceiverReport{SSRC: p.ssrc, Reports: reports[i:min(i+31, len(reports))]})
		}
	}
	return packets, min(next, p.twccAt)
}

// repairs asks for what is missing of a layer, and for a keyframe if one is wanted.
func (p *Publisher) repairs(y *layer, now time.Duration) (packets []rtcp.Packet) {
	if seqs := y.buffer.nacks(nil, now); len(seqs) > 0 {
		packets = append(packets, &rtcp.TransportLayerNack{
			SenderSSRC: p.ssrc, MediaSSRC: y.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs),
		})
	}
	if !y.wanted {
		return packets
	}
	y.wanted = false
	y.asked++
	p.engine.metrics.plisSent.Inc()
	if fb := y.line.format.feedback; slices.Contains(fb, "ccm fir") && !slices.Contains(fb, "nack pli") {
		p.firs++
		return append(packets, &rtcp.FullIntraRequest{
			SenderSSRC: p.ssrc, MediaSSRC: y.ssrc, FIR: []rtcp.FIREntry{{SSRC: y.ssrc, SequenceNumber: p.firs}},
		})
	}
	return append(packets, &rtcp.PictureLossIndication{SenderSSRC: p.ssrc, MediaSSRC: y.ssrc})
}

func (y *layer) receptionReport(now time.Duration) rtcp.ReceptionReport {
	r := rtcp.ReceptionReport{SSRC: y.ssrc}
	r.FractionLost, r.TotalLost, r.LastSequenceNumber, r.Jitter = y.buffer.report()
	if y.report.ntp != 0 {
		r.LastSenderReport, r.Delay = y.report.ntp, uint32((now-y.report.arrived)<<16/time.Second)
	}
	return r
}

// measureRTT takes the round trip time of ICE's checks, where repairs haven't told
// it yet. rmu is held.
func (p *Publisher) measureRTT() {
	if p.current() != StateConnected {
		return
	}
	pair, ok := p.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePairStats()
	if !ok || pair.CurrentRoundTripTime <= 0 {
		return
	}
	p.rtt = time.Duration(pair.CurrentRoundTripTime * float64(time.Second))
	for _, l := range p.lines {
		for _, y := range l.layers {
			y.buffer.tookRTT(p.rtt, false)
		}
	}
}

// plus adds up counts.
func (c ReceiveCounts) plus(d ReceiveCounts) ReceiveCounts {
	return ReceiveCounts{
		Packets: c.Packets + d.Packets, Bytes: c.Bytes + d.Bytes, Reordered: c.Reordered + d.Reordered,
		Duplicates: c.Duplicates + d.Duplicates, Missing: c.Missing + d.Missing, Asked: c.Asked + d.Asked,
		Repaired: c.Repaired + d.Repaired, Late: c.Late + d.Late, Lost: c.Lost + d.Lost,
		Oversized: c.Oversized + d.Oversized, Restarts: c.Restarts + d.Restarts,
	}
}

func (y *layer) counts() ReceiveCounts { return y.before.plus(y.buffer.count) }

// count brings the metrics up to date with a layer.
func (p *Publisher) count(y *layer, now time.Duration) {
	m, c, was := p.engine.metrics, y.counts(), y.counted
	y.counted = c
	m.received.Add(float64(c.Packets - was.Packets))
	m.receivedBytes.Add(float64(c.Bytes - was.Bytes))
	m.nacked.Add(float64(c.Asked - was.Asked))
	m.repaired.Add(float64(c.Repaired - was.Repaired))
	m.lost.Add(float64(c.Lost - was.Lost))
	m.depth.WithLabelValues(y.line.kind().String()).Observe(y.buffer.depth(now).Seconds())
}

// PublisherStats is what is known of a publisher at one moment.
type PublisherStats struct {
	State     State
	Connected time.Time     // when it was first connected; zero before
	RTT       time.Duration // of ICE's checks; 0 while unknown
	Dropped   uint64        // packets that were over the rate, malformed, or of no layer
	Layers    []LayerStats
}

// LayerStats is what is known of one layer.
type LayerStats struct {
	Mid, Layer string
	Kind       media.Kind
	Codec      media.Codec
	ReceiveCounts
	KeyframeRequests uint64        // sent to the peer
	Jitter           time.Duration // of frames (RFC 3550 §6.4.1)
	RTT              time.Duration // that a repair takes; 0 while unknown
	Depth            time.Duration // how long a missing packet is waited for
	Held             time.Duration // how long the one has been missing that is waited for now
}

// Stats reads the publisher's counters.
func (p *Publisher) Stats() PublisherStats {
	p.rmu.Lock()
	defer p.rmu.Unlock()
	now := media.Now()
	p.mu.Lock()
	s := PublisherStats{State: p.current(), Connected: p.connected, RTT: p.rtt, Dropped: p.dropped}
	p.mu.Unlock()
	for _, l := range p.lines {
		for _, y := range l.layers {
			s.Layers = append(s.Layers, LayerStats{
				Mid: l.mid, Layer: y.rid, Kind: l.kind(), Codec: l.format.codec, ReceiveCounts: y.counts(),
				KeyframeRequests: y.asked, Jitter: y.buffer.jitter, RTT: y.buffer.rtt,
				Depth: y.buffer.depth(now), Held: y.buffer.held(now),
			})
		}
	}
	return s
}
