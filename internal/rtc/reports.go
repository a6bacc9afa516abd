package rtc

import "time"

// How many RTCP packets a peer may send in a second. Browsers send some twenty with
// transport-wide feedback and as many others, but for NACKs of many pictures on a lossy
// network, which libwebrtc sends every 20 ms for each. Feedback of 400 bytes that tells of
// 65535 packets takes pion 0.7 ms and a megabyte to unpack.
const (
	maxFeedbacks = 200
	maxReports   = 500 // all others
)

// reportLimit counts the RTCP packets of a peer. It is for one goroutine.
type reportLimit struct {
	feedbacks, others int           // that may come in the second
	since             time.Duration // when that began
}

// may counts a packet, which may be SRTCP: its header is in the clear (RFC 3711 §3.4).
func (r *reportLimit) may(b []byte, now time.Duration) bool {
	if r.since == 0 || now-r.since >= time.Second {
		*r = reportLimit{maxFeedbacks, maxReports, now}
	}
	left := &r.others
	if isTransportFeedback(b) {
		left = &r.feedbacks
	}
	*left--
	return *left >= 0
}
