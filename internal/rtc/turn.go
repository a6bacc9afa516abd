package rtc

import (
	"errors"
	"fmt"
	"io"
	"time"

	"gateway/internal/media"
)

// wake gives the viewer a turn on its shard.
func (v *Viewer) wake() { v.shard.mark(v) }

// send is one turn and tells when the next one is due. Called on the shard.
func (v *Viewer) send(s *shard) due {
	next := v.turn(s)
	for i, c := range s.switched {
		s.switched[i] = switched{}
		v.engine.metrics.switches.Inc()
		if c.old != nil {
			c.old.close()
		}
		if v.o.OnSwitch != nil {
			v.o.OnSwitch(c.slot, c.spec)
		}
	}
	s.switched = s.switched[:0]
	for i, src := range s.leaping {
		s.leaping[i] = nil
		src.Skip()
	}
	s.leaping = s.leaping[:0]
	return next
}

// turn sends retransmissions that were asked for, then what is due, as far as the
// tracks' pacers allow.
func (v *Viewer) turn(s *shard) (next due) {
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if v.gone || !v.open.Load() {
		return notDue
	}
	packets, bytes, again := 0, 0, 0
	unsent := -v.unsent
	v.batching = true
	now := media.Now()
	v.numbering.now = now
	first := v.numbering.next
	limit := v.est.limit()
	v.share(limit)
	for i := range v.tracks {
		t := v.tracks[(v.first+i)%len(v.tracks)]
		if t.out == nil || t.latest() == nil {
			continue
		}
		t.pace.within(limit)
		room := v.room(t, now)
		if v.engine.unpaced {
			room = batchPackets
		}
		repaired := v.est.repaired
		n, left, err := t.answerNACKs(&s.rtx, now, room)
		if n > 0 || err != nil {
			v.wrote(err)
		}
		if t.leaping != nil {
			s.leaping = append(s.leaping, t.leaping)
			t.leaping = nil
		}
		again += n
		v.pace.debt += v.est.repaired - repaired
		if room -= n; room <= 0 || left {
			next = max(next, dueAtTick)
			continue
		}
		for full := true; full; {
			full = t.take(s, room, func(batch []media.Packet) {
				for _, p := range batch {
					size := len(p.Payload())
					if p.I == 0 {
						t.plan(p.Buffer)
					}
					v.wrote(t.write(p))
					t.pace.spend(p, size)
					v.pace.debt += size
					bytes += size
				}
				packets += len(batch)
			})
			// what is left of a buffer of small packets may go with them, as one message
			if room = t.pace.left; full && (room == 0 || room > v.room(t, now)) {
				next = dueNow
				break
			}
		}
	}
	if v.est.probe.ID != 0 && v.sendProbe(s, now) {
		next = max(next, dueAtTick)
	}
	if v.observed && packets > 0 {
		v.flushing()
	}
	s.out.flush()
	if v.numbering.next > first && media.Now()-now > lateTurn {
		v.numbering.doubt(first)
	}
	if n := v.est.wire - v.est.noted; n > 0 {
		v.est.noted = v.est.wire
		v.est.Sent(now, n)
	}
	v.batching = false
	v.unsent += s.out.unsent
	unsent += v.unsent
	s.out.unsent = 0
	m := v.engine.metrics
	if again > 0 {
		m.retransmitted.Add(float64(again))
	}
	if unsent > 0 {
		m.unsent.Add(float64(unsent))
	}
	if packets > 0 {
		m.packets.Add(float64(packets))
		m.bytes.Add(float64(bytes))
		if v.reportAt == 0 {
			v.report(media.Now()) // at once: until then the receiver can't play the tracks in step
		}
	}
	return next
}

// share keeps all pictures together within what the network carries, in bit/s; 0:
// unknown. Each has a pace of its own within it, but two keyframes at once would fill the
// network's queue. The pictures take turns in being first.
func (v *Viewer) share(limit int) {
	pictures := 0
	for _, t := range v.tracks {
		if t.kind == media.Video && t.latest() != nil {
			pictures++
		}
	}
	v.pace.planned, v.pace.most, v.pace.rate = pacedHighest, 0, 0
	if limit == 0 || pictures < 2 {
		v.pace.debt = 0
		return
	}
	v.pace.within(limit)
	v.first = (v.first + 1) % len(v.tracks)
}

// room is how many packets of a track may go now. Sound doesn't wait for pictures.
func (v *Viewer) room(t *track, now time.Duration) int {
	n := t.pace.room(now)
	if v.pace.most > 0 && t.kind == media.Video {
		n = min(n, v.pace.room(now))
	}
	return n
}

// wrote ends a viewer to whom nothing can be written any more; sendMu is held. A
// closed pipe is no such fault: the local address is gone (track.write counts
// the packet as unsent), and ICE finds another one, restarts or gives up.
func (v *Viewer) wrote(err error) {
	if err == nil || errors.Is(err, io.ErrClosedPipe) {
		v.failures = 0
		return
	}
	if v.failures++; v.failures == maxWriteErrors {
		v.end(fmt.Errorf("send: %w", err))
	}
}
