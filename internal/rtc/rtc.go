// Package rtc sends a stream's tracks to viewers over WebRTC and hides pion
// behind a small door: an [Engine] owns the one UDP port, a [Viewer] is one
// connection on which the gateway sends, and a [Source] is what a viewer
// reads its packets from.
//
// pion does ICE, DTLS and SRTP: as a PeerConnection (pion.go), or for viewers that
// reach the gateway by themselves by its parts, with ICE-lite (lite.go). What a
// viewer's RTP and RTCP say is this package's own, lean code: codecs and payload
// types in the SDP, headers, sender reports, retransmissions, transport-wide
// numbers, feedback.
//
// Goroutines: an engine has one sending goroutine (shard) for each processor;
// a viewer belongs to one of them, which alone reads its sources and writes its
// RTP and sender reports. Incoming RTCP is handled on pion's SRTCP goroutine of
// that viewer; what comes for a lite connection on the goroutine that reads the
// socket. Close ends them all.
package rtc

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
)

// MaxSDP is the largest session description that is read, in bytes.
const MaxSDP = 64 << 10

// The errors that a caller tells apart. They come wrapped in text for people.
var (
	// ErrBadSDP is a session description that can't be read or doesn't fit.
	ErrBadSDP = errors.New("session description is not acceptable")
	// ErrNotReceiving is a description that is sound but receives nothing of what the viewer has.
	ErrNotReceiving = errors.New("peer receives nothing that is offered here")
	// ErrNoCodec is a peer that can't decode a track.
	ErrNoCodec = errors.New("no codec in common")
	// ErrDeclined is an answer that was taken but leaves out a format that the
	// offer was about: what was sent before goes on. It comes as a DeclinedError.
	ErrDeclined = errors.New("peer doesn't take the new format")
	// ErrTooManyTracks is a track too many for one viewer.
	ErrTooManyTracks = errors.New("too many tracks")
	// ErrBadCandidate is an ICE candidate that can't be read, or one too many.
	ErrBadCandidate = errors.New("candidate is not acceptable")
	// ErrBadState is a call that doesn't fit now: an answer without an offer, a
	// second offer before the answer to the first.
	ErrBadState = errors.New("not possible in this state")
	// ErrClosed is a call on a closed viewer or engine.
	ErrClosed = errors.New("closed")
	// ErrConnectTimeout ends a viewer whose negotiation missed its deadline.
	ErrConnectTimeout = errors.New("negotiation missed its deadline")
	// ErrConnectionLost ends a viewer whose connection broke and did not come back.
	ErrConnectionLost = errors.New("connection lost")
	// ErrNeedsFullICE ends a viewer that doesn't connect as it was made, but may with
	// ViewerOptions.FullICE.
	ErrNeedsFullICE = errors.New("peer needs full ICE at the gateway")
	// ErrLeft ends a viewer whose peer closed the connection (DTLS close_notify).
	ErrLeft = errors.New("peer closed the connection")

	errForeign  = fmt.Errorf("%w: peer names more streams than there are", ErrBadState)
	errNonsense = fmt.Errorf("%w: what the peer sends as RTCP is none", ErrBadState)
	errUseless  = errors.New("candidate can't be used here")
)

// DeclinedError is ErrDeclined with the tracks that it is about.
type DeclinedError struct {
	Slots   []string // they go on as they were
	Refused []string // they have ended: the peer decodes nothing of what they were offered in
	text    string
}

func (e *DeclinedError) add(text string) { e.text = strings.TrimPrefix(e.text+", "+text, ", ") }

// Error implements error.
func (e *DeclinedError) Error() string { return ErrDeclined.Error() + ": " + e.text }

// Unwrap is ErrDeclined.
func (e *DeclinedError) Unwrap() error { return ErrDeclined }

// State is where a viewer's connection stands.
type State uint8

// The states of a viewer, in the order in which they usually come.
const (
	StateNew State = iota
	StateConnecting
	StateConnected
	StateDisconnected // nothing was heard for 5 s; may come back
	StateFailed       // nothing was heard for 30 s; closed follows
	StateClosed
)

// String spells the state as RTCPeerConnectionState does.
func (s State) String() string {
	switch s {
	case StateNew:
		return "new"
	case StateConnecting:
		return "connecting"
	case StateConnected:
		return "connected"
	case StateDisconnected:
		return "disconnected"
	case StateFailed:
		return "failed"
	case StateClosed:
		return "closed"
	}
	return "unknown"
}

// Source is one track's packets as a viewer's sender reads them. All methods
// may be called from any goroutine, and none of them may block.
type Source interface {
	// Next appends the packets that are due, up to cap(dst), each with a
	// reference of its own. The first is a keyframe's.
	Next(dst []media.Packet) []media.Packet
	// Find returns packet index of the track for a retransmission, with a
	// reference, or false when it is gone. It may be called after Close.
	Find(index uint64) (media.Packet, bool)
	// Notify sets the function that is called whenever packets may be due. It
	// does not block. Nil ends it.
	Notify(wake func())
	// RequestKeyframe asks for a keyframe; the stream throttles.
	RequestKeyframe()
	// Skip leaves out what is due until a new keyframe comes, which it asks for.
	Skip()
	// Close ends the subscription. Idempotent.
	Close()
}

// Candidate is an ICE candidate as browsers write it (RTCIceCandidateInit).
type Candidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid,omitempty"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex,omitempty"`
	UsernameFragment *string `json:"usernameFragment,omitempty"`
}

// Stats is what is known of a viewer at one moment. Counters are sums over its
// tracks since it was made.
type Stats struct {
	State     State
	Connected time.Time // when it was first connected; zero before

	Packets       uint64 // RTP packets sent, without retransmissions
	Bytes         uint64 // their payload bytes
	Unsent        uint64 // of these packets, those that found no way to the peer (ICE had no pair just then, or its address is gone)
	Retransmitted uint64 // packets sent again
	NACKs         uint64 // NACK messages received
	Nacked        uint64 // packets that they asked for
	Refused       uint64 // of those, not sent again: unknown, asked twice within a round trip, or over the limit
	PLIs          uint64
	FIRs          uint64

	Loss   float64       // share of packets lost lately, 0 to 1, worst track (RFC 3550 §6.4.1)
	Jitter time.Duration // of the video track if there is one
	RTT    time.Duration // 0 while unknown
	REMB   int           // receiver's estimate in bit/s; 0 when it sends none

	// What transport-wide feedback tells; all 0 if the peer sends none.
	Feedbacks       uint64
	FeedbacksMissed uint64  // that must have been lost, by their count
	AckedBps        int     // RTP that arrived in the last second, in bit/s: of all tracks, with headers and retransmissions
	TransportLoss   float64 // share of that RTP that was lost, 0 to 1

	Estimate adapt.Estimate // of what the network carries
	Wire     uint64         // bytes of all RTP sent, with headers, retransmissions and probes

	LocalCandidate  string // type of the selected pair's local candidate: host, srflx, prflx, relay
	RemoteCandidate string
}
