package room

// Data is a message between applications in a room, for [Participant.Relay]: what a
// page sends over its data channels, or a local program over the room's socket.
type Data struct {
	JSON    bool // Payload is a JSON value, else bytes
	Lossy   bool // better lost than late
	Payload []byte
}

func isData(message any) bool { _, ok := message.(Data); return ok }
