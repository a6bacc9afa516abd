package rtc

import (
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
)

const (
	estimateHeartbeat = time.Second           // ViewerOptions.OnEstimate is called so often at least
	estimateChange    = 32                    // and when the estimate has changed by one part in so many
	paceWait          = 66 * time.Millisecond // frames that wait so long are more than a large one's parts
	repairTime        = 8                     // reckonings of about 100 ms in which the rate of retransmissions is smoothed
	probeTime         = time.Second           // after which a probe that could not be sent is given up
	probeDepth        = 32                    // of the last packets sent, one of which a probe sends again
	probeWorth        = 600                   // bytes of payload that such a packet should have
)

// estimation is what a viewer learns of its network, and the probes that are sent
// to learn more. Guarded by Viewer.sendMu.
type estimation struct {
	*adapt.Estimator
	want   int // bit/s that the viewer has use for; 0: nobody has said
	told   adapt.Estimate
	toldAt time.Duration

	repaired int // bytes of RTP that were sent again for NACKs
	repair   struct {
		at    time.Duration // when bps was reckoned last
		bytes int           // of repaired, that are in it
		bps   float64
	}
	reported reported
	waited   time.Duration // the longest that a frame waited here to be sent, since the last reckoning
	behind   float64       // share of the estimate that what waits is to have

	wire  int // bytes of RTP that were sent, headers included
	noted int // of these, those that the estimator knows of
	probe struct {
		adapt.Probe
		at     time.Duration // when it began
		from   int           // wire at that time
		padded uint          // packets sent again for probes so far
	}
}

// reported is what receiver reports have told of the pictures since the estimator was
// told last. A receiver of several tells of each by itself, and the estimator, which
// takes one report in a while, is to hear of all of them.
type reported struct{ lost, sent float64 } // packets

// add takes the share that was lost of some packets of one picture.
func (r *reported) add(loss float64, packets uint64) {
	n := float64(max(packets, 1))
	r.lost += loss * n
	r.sent += n
}

// take returns the share that was lost of all, if anything was told.
func (r *reported) take() (loss float64, ok bool) {
	if r.sent == 0 {
		return 0, false
	}
	loss = r.lost / r.sent
	*r = reported{}
	return loss, true
}

// tell returns the estimate if it is worth telling.
func (e *estimation) tell(now time.Duration) (adapt.Estimate, bool) {
	s := e.Estimate()
	s.Repair = int(e.repair.bps + e.behind*float64(s.Bps))
	d := s.Media() - e.told.Media()
	if max(d, -d) <= e.told.Media()/estimateChange && now-e.toldAt < estimateHeartbeat || s.Bps == 0 && s.Acked == 0 {
		return s, false
	}
	e.told, e.toldAt = s, now
	return s, true
}

// limit is the pace in bit/s that a track's frames keep within; 0: any. Where all
// that the viewer wants is carried, nothing is known of a limit.
func (e *estimation) limit() int {
	s := e.Estimate()
	if s.Bps == 0 || e.want == 0 || s.Bps >= e.want {
		return 0
	}
	return s.Bps
}

// reckon smooths the rate of retransmissions, and gives what waits here because the
// network is slow the part of the estimate with which it is gone in a second: an
// encoder that makes just what the network carries never lets it go. sendMu is held.
func (e *estimation) reckon(now time.Duration) {
	r := &e.repair
	if d := now - r.at; d > 0 && r.at > 0 {
		r.bps += (float64(8*(e.repaired-r.bytes))/d.Seconds() - r.bps) / repairTime
	}
	r.at, r.bytes = now, e.repaired
	e.behind = 0
	if e.waited > paceWait && e.limit() > 0 {
		e.behind = min(e.waited.Seconds(), 0.5)
	}
	e.waited = 0
}

// Want says how many bit/s the viewer has use for, of all tracks: more is neither
// looked for nor believed.
func (v *Viewer) Want(bps int) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	v.est.want = bps
	v.est.Want(bps)
}

// learn has f teach the estimator something, begins the probe that is due, and tells
// what came of it. It is called on the goroutine that reads the network and on the
// shard, without sendMu.
func (v *Viewer) learn(f func(now time.Duration, e *adapt.Estimator)) {
	estimate, probing, worth := v.learned(f)
	if probing {
		v.wake()
	}
	if worth && v.o.OnEstimate != nil {
		v.o.OnEstimate(estimate)
	}
}

// learned is learn's part under sendMu.
func (v *Viewer) learned(f func(now time.Duration, e *adapt.Estimator)) (estimate adapt.Estimate, probing, worth bool) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	now := media.Now()
	e := &v.est
	f(now, e.Estimator)
	probing = v.startProbe(now)
	estimate, worth = e.tell(now)
	return estimate, probing, worth
}

// startProbe begins a probe if one is due. sendMu is held.
func (v *Viewer) startProbe(now time.Duration) bool {
	e := &v.est
	if v.gone || !v.open.Load() || e.probe.ID != 0 {
		return false
	}
	p, due := e.Probe(now)
	if !due || p.ID == 0 || p.Bps <= 0 {
		return false
	}
	e.probe.Probe, e.probe.at, e.probe.from = p, now, e.wire
	v.numbering.probe = p.ID
	v.engine.metrics.probes.Inc()
	return true
}

// sendProbe sends what is due of a probe: what was sent anyway counts, the rest are
// packets that were sent lately, sent again by RTX. It tells whether there is more
// to send. sendMu is held.
func (v *Viewer) sendProbe(s *shard, now time.Duration) (more bool) {
	e := &v.est
	p := &e.probe
	sent := func() int { return e.wire - p.from }
	due := int(int64(p.Bps) * int64(now-p.at+paceTick) / int64(8*time.Second))
	for sent() < min(due, p.Bytes) {
		ok, err := v.pad(s)
		if !ok || err != nil {
			break // nothing to send it with: what goes anyway must do
		}
	}
	if sent() < p.Bytes && now-p.at < probeTime {
		return true
	}
	p.ID, v.numbering.probe = 0, 0
	return false
}

// pad sends one of the last packets of a track again. sendMu is held.
func (v *Viewer) pad(s *shard) (bool, error) {
	for _, t := range v.tracks {
		if t.out == nil || t.rtxSSRC == 0 {
			continue
		}
		for try := range probeDepth {
			v.est.probe.padded++
			seq := uint16(t.history.next - 1 - uint64(v.est.probe.padded%probeDepth))
			run, index, ok := t.history.find(seq)
			if !ok || !run.enc.numbered() || run.enc.delta.rtx.SSRC == 0 {
				continue
			}
			p, ok := run.enc.src.Find(index)
			if !ok {
				continue
			}
			if len(p.Payload()) < probeWorth && try < probeDepth/2 {
				p.Release()
				continue
			}
			err := t.sendRTX(run, seq, p, &s.rtx)
			p.Release()
			v.engine.metrics.probed.Inc()
			return true, err
		}
	}
	return false, nil
}
