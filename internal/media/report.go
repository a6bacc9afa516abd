package media

import "time"

// PacketReport is what a receiver tells of one packet that it was sent.
type PacketReport struct {
	Sent     time.Duration // when it was sent, on the clock of Now, to the microsecond
	Arrival  time.Duration // when it arrived, on a clock of the receiver's own: only differences mean something
	Size     int           // bytes of RTP, header included, before SRTP
	Received bool          // it arrived; else Arrival is 0
	Unsure   bool          // it may have been sent later than Sent, by nobody knows how much
	Probe    uint8         // the probe that it was sent for; 0: none
}
