package room

import (
	"errors"
	"sync"
)

// MaxPayload is the longest payload of a Data, in bytes: with its envelope, which names
// the sender, it fits a message of a data channel, of which all browsers take 64 KiB.
const MaxPayload = 64<<10 - 256

// ErrTooLarge refuses a Data with more than MaxPayload.
var ErrTooLarge = errors.New("message too large")

// Data is a message between applications in a room, for [Participant.Relay]: what a
// page sends over its data channels, or a local program over the room's socket. All who
// hear it are given the same one, so it is read only once it was relayed.
type Data struct {
	JSON    bool // Payload is a JSON value, else bytes
	Lossy   bool // better lost than late
	Payload []byte

	// Frame and Line are the message as it goes over a data channel, and to a program.
	Frame, Line Written
}

// Written is a message in the form of some receivers, made by the first of them for all.
// The zero Written is none yet.
type Written struct {
	once sync.Once
	form []byte
}

// By returns the form, which write makes if nobody has yet. Who comes meanwhile waits.
func (w *Written) By(write func() []byte) []byte {
	w.once.Do(func() { w.form = write() })
	return w.form
}

func isData(message any) bool { _, ok := message.(*Data); return ok }
