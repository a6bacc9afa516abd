package rtc

import (
	"math/rand/v2"
	"testing"
	"time"
)

// publisherClocks simulates a publisher whose clock runs off ours and whose streams
// have timestamps of their own.
type publisherClocks struct {
	epoch time.Duration // NTP time at our 0
	drift float64       // its seconds a second of ours, less 1
}

func (c publisherClocks) ntp(at time.Duration) uint64 {
	wall := c.epoch + at + time.Duration(float64(at)*c.drift)
	return uint64(wall/time.Second)<<32 | uint64(wall%time.Second)<<32/uint64(time.Second)
}

func (c publisherClocks) rtp(at time.Duration, rate, first uint32) uint32 {
	at += time.Duration(float64(at) * c.drift)
	return first + uint32(int64(at/time.Second)*int64(rate)+int64(at%time.Second)*int64(rate)/int64(time.Second))
}

// Sound and picture that were captured together are mapped to the same time, though
// the picture takes longer through its encoder and the timestamps wrap; and a clock
// that drifts is followed.
func TestTimelineKeepsStreamsInStep(t *testing.T) {
	for _, drift := range []float64{0, 100e-6, -100e-6} {
		r := rand.New(rand.NewPCG(1, 2))
		c := publisherClocks{3900000000 * time.Second, drift}
		shared := &timeline{}
		video := &streamTime{timeline: shared, rate: 90000}
		audio := &streamTime{timeline: shared, rate: 48000}
		const begin = 1000 * time.Hour
		var worstSkew, worstDelay time.Duration
		var last time.Duration
		for at := time.Duration(0); at < 10*time.Minute; at += 20 * time.Millisecond {
			captured := begin + at
			network := 15*time.Millisecond + time.Duration(r.Float64()*float64(20*time.Millisecond))
			vts, ats := c.rtp(at, 90000, 0xffff0000), c.rtp(at, 48000, 0xffffff00)
			varrived, aarrived := captured+60*time.Millisecond+network, captured+network
			audio.arrived(ats, aarrived)
			video.arrived(vts, varrived)
			if at%time.Second == 0 {
				video.report(c.ntp(at), vts)
			}
			if at%(5*time.Second) == 0 {
				audio.report(c.ntp(at), ats)
			}
			v, a := video.capture(vts, varrived), audio.capture(ats, aarrived)
			if v <= last && at > 15*time.Second {
				t.Fatalf("capture went from %v to %v", last, v)
			}
			last = v
			if at > 15*time.Second {
				worstSkew = max(worstSkew, (v - a).Abs())
				worstDelay = max(worstDelay, (v - captured).Abs())
			}
		}
		if worstSkew > 3*time.Millisecond || worstDelay > 40*time.Millisecond {
			t.Errorf("drift %v: skew %v, capture off by %v", drift, worstSkew, worstDelay)
		}
	}
}

// A publisher whose timestamps begin anew is followed.
func TestTimelineFollowsNewTimestamps(t *testing.T) {
	s := &streamTime{timeline: &timeline{}, rate: 90000}
	now := time.Hour
	for _, first := range []uint32{0, 1 << 31, 77} {
		for i := range uint32(100) {
			now += 33 * time.Millisecond
			ts := first + i*2970
			s.arrived(ts, now)
			if got := s.capture(ts, now); (now - got).Abs() > time.Millisecond {
				t.Fatalf("from %d on, frame %d: captured %v before it came", first, i, now-got)
			}
		}
	}
}

// Whatever a sender reports, captures stay near the arrivals.
func FuzzTimeline(f *testing.F) {
	f.Add(uint64(1)<<63, uint32(5), uint32(10), uint64(77), uint32(1<<31))
	f.Fuzz(func(t *testing.T, ntp uint64, ts, step uint32, ntp2 uint64, rtp2 uint32) {
		s := &streamTime{timeline: &timeline{}, rate: 90000}
		now := 50 * time.Hour
		for i := range uint32(50) {
			now += 10 * time.Millisecond
			s.arrived(ts, now)
			if got := s.capture(ts, now); got > now || got < now-timelinePast {
				t.Fatalf("captured %v before it came", now-got)
			}
			ts += step
			if i%7 == 3 {
				s.report(ntp, ts)
			}
			if i%11 == 5 {
				s.report(ntp2, rtp2)
			}
		}
	})
}
