package rtc

import "time"

const (
	timelineBucket = 5 * time.Second        // the least delay of the last one to two of these counts
	timelineStep   = 500 * time.Millisecond // a larger correction is made at once
	timelineSlew   = 50                     // a smaller one by 1/50 of the time that passes
	timelinePast   = 2 * time.Second        // captures are no older than this, whatever the sender says
	timelineLost   = 10 * time.Second       // timestamps that are further off began anew
)

// timeline maps the RTP timestamps of all of a publisher's streams to the clock of
// [media.Now]. Sender reports (RFC 3550 §6.4.1) put the streams on one clock, the
// sender's, so that sound and picture stay in step; how that clock runs against ours
// is learned from the packets that were quickest, and followed. A capture is so
// later than it was by the least delay of the network, which is not known.
//
// It is arithmetic, without a clock of its own.
type timeline struct{ offset least } // from the sender's clock to ours

// least is the smallest of the values that were seen lately.
type least struct {
	known     bool
	now, then time.Duration // of this bucket and of the one before
	begun     time.Duration
}

func (l *least) take(v, now time.Duration) {
	switch {
	case !l.known || now-l.begun > 2*timelineBucket:
		*l = least{true, v, v, now}
	case now-l.begun > timelineBucket:
		l.then, l.now, l.begun = l.now, v, now
	default:
		l.now = min(l.now, v)
	}
}

func (l *least) value() time.Duration { return min(l.now, l.then) }

// streamTime is one stream's place on its publisher's timeline.
type streamTime struct {
	timeline *timeline
	rate     uint32 // RTP clock, Hz

	begun    bool
	newest   uint32        // RTP timestamp
	at       int64         // newest, counted without wrapping from the first one
	own      least         // from the stream's time to our clock, while there are no reports
	reported bool          // a sender report has come
	wall     time.Duration // the sender's clock at the stream's time 0
	shift    time.Duration // what is added to the stream's time now
	last     time.Duration // stream time of the last correction
}

// ticks is a timestamp counted without wrapping: the one nearest to the newest.
func (s *streamTime) ticks(timestamp uint32) int64 {
	return s.at + int64(int32(timestamp-s.newest))
}

// time is that as a time since the stream's first packet.
func (s *streamTime) time(ticks int64) time.Duration {
	rate := int64(s.rate)
	return time.Duration(ticks/rate)*time.Second + time.Duration(ticks%rate)*time.Second/time.Duration(rate)
}

// arrived learns from a packet that came now, for the first time.
func (s *streamTime) arrived(timestamp uint32, now time.Duration) {
	if s.begun {
		if t := s.time(s.ticks(timestamp)); (now - t - s.own.value()).Abs() > timelineLost {
			*s = streamTime{timeline: s.timeline, rate: s.rate}
		}
	}
	if !s.begun {
		s.begun, s.newest, s.shift = true, timestamp, now
	}
	if ticks := s.ticks(timestamp); ticks > s.at {
		s.at, s.newest = ticks, timestamp
	}
	t := s.time(s.ticks(timestamp))
	s.own.take(now-t, now)
	if s.reported {
		s.timeline.offset.take(now-s.wall-t, now)
	}
}

// report takes a sender report: the NTP time (RFC 5905 §6) of a timestamp.
func (s *streamTime) report(ntp uint64, timestamp uint32) {
	if !s.begun || ntp == 0 {
		return
	}
	seconds, fraction := time.Duration(ntp>>32), time.Duration(ntp&0xffffffff)
	wall := seconds*time.Second + fraction*time.Second>>32
	wall -= s.time(s.ticks(timestamp))
	if s.reported && (wall-s.wall).Abs() > timelineStep { // the sender's clock was set
		s.timeline.offset = least{}
	}
	s.wall, s.reported = wall, true
}

// capture is when a frame was captured whose packet arrived at that time. Call it
// for one frame after the other.
func (s *streamTime) capture(timestamp uint32, arrived time.Duration) time.Duration {
	t := s.time(s.ticks(timestamp))
	want := s.own.value()
	if s.reported && s.timeline.offset.known {
		want = s.wall + s.timeline.offset.value()
	}
	if off := want - s.shift; off.Abs() > timelineStep || s.last == 0 {
		s.shift = want
	} else {
		most := max(t-s.last, 0) / timelineSlew
		s.shift += min(max(off, -most), most)
	}
	s.last = max(t, s.last, 1)
	return min(max(t+s.shift, arrived-timelinePast), arrived)
}
