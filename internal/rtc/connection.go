package rtc

import (
	"context"

	"github.com/pion/rtcp"
)

// connection is the way to a viewer's peer: ICE, DTLS and SRTP. A change of its
// state is told by Viewer.refresh, on a goroutine of its own. It sets track.out to
// what writes the track's RTP, for the shard in the viewer's turn.
type connection interface {
	negotiator
	state() State
	pair() (local, remote string)  // types of the selected candidates, "" while there are none
	writeRTCP([]rtcp.Packet) error // called with Viewer.sendMu held
	close() error                  // ends its goroutines, and tells the peer
}

// negotiator is a connection's share of offers and answers, as texts without the
// tracks' formats (see dress). It is called with the viewer's negotiation lock
// held, and with descriptions that were checked. An error is the viewer's end.
type negotiator interface {
	// join gives a track its SSRCs, and its place in the next description.
	join(t *track) (ssrc, rtxSSRC uint32, err error)
	// offer describes this side and sets the tracks' mids. restart makes ICE begin anew.
	offer(restart bool) (text string, err error)
	// accept takes the answer to the last offer.
	accept(r *remote) error
	// answer takes an offer and describes this side in the sections of it that
	// have a track. It may wait for candidates.
	answer(ctx context.Context, r *remote, sections []*section, restart bool) (text string, err error)
	// restartable tells whether an offer that restarts ICE can be answered now.
	restartable() bool
	// addCandidate takes a candidate of the last remote description.
	addCandidate(line string) error
}
