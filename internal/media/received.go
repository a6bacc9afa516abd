package media

import "time"

// Received is an RTP packet that a publisher sent, as it is handed on: in order, each
// once.
type Received struct {
	Payload   []byte        // without RTP header; who is handed it may change it, until the call returns
	Timestamp uint32        // RTP
	Marker    bool          // RTP: it ends its frame
	Gap       bool          // packets between the last one and this one are lost
	Capture   time.Duration // when its frame was captured, on the clock of Now
	Arrived   time.Duration // when it was handed on, likewise
}
