package adapt

import (
	"encoding/binary"
	"testing"
	"time"

	"gateway/internal/media"
)

// FuzzEstimator calls an estimator with whatever times and reports: the estimate stays
// within its bounds.
func FuzzEstimator(f *testing.F) {
	f.Add([]byte{})
	var steady []byte // packets, and a feedback for each ten, as the decoder below reads them
	for i := range 30 {
		steady = binary.BigEndian.AppendUint64(append(steady, 0), uint64(i)*uint64(5*ms))
		steady = binary.BigEndian.AppendUint64(steady, uint64(i)*uint64(5*ms)+uint64(sec))
		steady = append(steady, 4, 0xb0, 1)
		if i%10 == 9 {
			steady = binary.BigEndian.AppendUint64(append(steady, 1), uint64(i)*uint64(5*ms))
		}
	}
	f.Add(steady)
	f.Fuzz(func(t *testing.T, data []byte) {
		e := NewEstimator()
		e.Want(2_000_000)
		take := func(n int) []byte {
			b := make([]byte, n)
			data = data[copy(b, data):]
			return b
		}
		moment := func() time.Duration { return time.Duration(binary.BigEndian.Uint64(take(8))) }
		var now time.Duration
		var reports []media.PacketReport
		for len(data) > 0 {
			switch op := take(1)[0]; op % 9 {
			case 0:
				r := media.PacketReport{Sent: moment(), Arrival: moment()}
				b := take(3)
				r.Size, r.Received, r.Probe = int(int16(binary.BigEndian.Uint16(b))), b[2]&1 == 1, b[2]>>1
				reports = append(reports, r)
			case 1:
				now = moment()
				e.Feedback(now, reports, time.Duration(int8(op))*ms)
				reports = reports[:0]
			case 2:
				now += time.Duration(take(1)[0]) * ms
				e.Feedback(now, reports, 50*ms)
				reports = reports[:0]
			case 3:
				e.Step(now)
			case 4:
				e.Want(int(int64(moment())))
			case 5:
				e.ReceiverReport(now, float64(int8(take(1)[0]))/100, moment())
			case 6:
				e.REMB(now, int(int64(moment())))
			case 7:
				e.Sent(now, int(int64(moment())))
			case 8:
				if p, ok := e.Probe(now); ok && (p.ID == 0 || p.Bps < MinBps || p.Bps > MaxBps || p.Bytes <= 0 || p.Bytes > 10_000_000) {
					t.Fatalf("the probe is %+v", p)
				}
			}
			g := e.Estimate()
			if g.Bps != 0 && (g.Bps < MinBps || g.Bps > MaxBps) || g.Acked < 0 || g.Acked > MaxBps || !(g.Loss >= 0 && g.Loss <= 1) || g.Queue < 0 {
				t.Fatalf("out of bounds: %+v", g)
			}
		}
	})
}
