package rtc

import (
	"fmt"
	"time"

	"github.com/pion/webrtc/v4"
)

// hurries are when a new connection's ICE agent is made to look at its checks,
// after the remote description. pion nominates a pair that works at its next
// look only, every 200 ms; a browser next door had then waited 40 to 200 ms for
// nothing (measured 2026-11: DTLS began 38 ms after the pair had worked).
var hurries = []time.Duration{
	8 * time.Millisecond, 16 * time.Millisecond, 25 * time.Millisecond, 40 * time.Millisecond,
	60 * time.Millisecond, 85 * time.Millisecond, 115 * time.Millisecond, 150 * time.Millisecond,
}

// maxBindingRequests is how often a pair is tried before it counts as failed:
// pion's own 7, and one for each look that hurry adds.
var maxBindingRequests = uint16(7 + len(hurries))

// hurry shortens the time to the first packet, until done. A look is had by adding a
// remote candidate that no pair can be made of: of TCP, which the gateway doesn't use.
func hurry(pc *webrtc.PeerConnection, done func() bool) {
	started := time.Now()
	var look func(i int)
	look = func(i int) {
		if done() {
			return
		}
		// an error says that the connection is closed: nothing is lost
		_ = pc.AddICECandidate(webrtc.ICECandidateInit{
			Candidate: fmt.Sprintf("1 1 tcp 1 192.0.2.1 %d typ host tcptype passive", 1+i), // RFC 5737 address
		})
		if i+1 < len(hurries) {
			time.AfterFunc(hurries[i+1]-time.Since(started), func() { look(i + 1) })
		}
	}
	time.AfterFunc(hurries[0], func() { look(0) })
}
