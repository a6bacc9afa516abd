package rtc

import (
	"strings"
	"time"

	"github.com/pion/logging"

	"gateway/internal/media"
)

// How many RTCP packets a peer may send in a second. Browsers send some twenty with
// transport-wide feedback and as many others, but for NACKs of many pictures on a lossy
// network, which libwebrtc sends every 20 ms for each.
const (
	maxFeedbacks = 200
	maxReports   = 500 // all others

	// Those of them that the peer has sealed and that yet are no RTCP: so many at once, and so
	// many a second for as long as it likes.
	maxNonsense  = 10
	nonsenseRate = 5
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

// sealedLog is pion's logging for a connection, and ends one whose peer seals what is no
// RTCP: pion tells of that nowhere else. Feedback of 40 bytes that says it is of 65535
// packets takes pion 0.7 ms and a megabyte until it finds out, in a compound packet, too.
type sealedLog struct {
	pionLog
	end func(error)
}

// NewLogger is pion's.
func (l sealedLog) NewLogger(scope string) logging.LeveledLogger {
	log := l.pionLog.NewLogger(scope)
	if scope != "srtp" {
		return log
	}
	return &nonsenseLog{LeveledLogger: log, end: l.end}
}

// nonsenseLog is that of SRTP, or of SRTCP. What isn't the peer's own fails before its RTCP is
// looked at, with another text.
type nonsenseLog struct {
	logging.LeveledLogger
	end func(error)

	// of the goroutine that reads SRTCP
	count float64 // of packets that aren't forgiven yet
	at    time.Duration
}

// Info is how pion's goroutine that reads tells why it has dropped a packet.
func (l *nonsenseLog) Info(m string) {
	l.LeveledLogger.Info(m)
	if !strings.HasPrefix(m, "rtcp: ") {
		return
	}
	now := media.Now()
	l.count = 1 + max(l.count-nonsenseRate*(now-l.at).Seconds(), 0)
	l.at = now
	if l.count > maxNonsense {
		l.end(errNonsense)
	}
}
