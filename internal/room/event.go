package room

import "gateway/internal/media"

// Event is something that a participant is told, one of the types below. All in a
// room are told in the same order.
type Event interface{ event() }

// Sink takes a participant's events. It is called while all rooms are locked: it
// must neither block nor call anything of this package.
type Sink func(Event)

type (
	// Entered is the first event: what the room is like from which the others go on.
	Entered struct{ Snapshot }
	// Moved is Entered after a host has moved the participant to another room. What
	// he published and Self doesn't list any more has ended.
	Moved struct{ Snapshot }
	// Left is the last event. Who leaves by himself isn't told.
	Left struct{ Reason Reason }
	// Muted says that what the participant publishes of a kind is, or isn't,
	// passed on from now.
	Muted struct {
		Kind media.Kind
		On   bool
	}
	// Joined says that somebody else came, or was there when the participant was
	// allowed to see others.
	Joined struct{ Profile }
	// Departed says that somebody else left.
	Departed struct{ Profile }
	// Changed says that somebody has another role, name, streams or mutes; also
	// oneself, who may not see others any more if neither publishing nor relaying nor
	// moderating is left to him.
	Changed struct{ Profile }
	// Presence stands for many of Joined, Changed and Departed: see [crowd].
	Presence struct {
		Here []Profile // who has come or changed, oneself perhaps among them, as they are now
		Gone []string  // userIds of who has left
	}
	// StreamStarted says that a stream is offered that wasn't.
	StreamStarted struct{ Offer }
	// StreamEnded says that a stream isn't offered any more.
	StreamEnded struct{ Name string }
	// RoomChanged says that the room was locked or opened to all.
	RoomChanged struct{ Info }
	// Relayed is a message of another participant.
	Relayed struct {
		From    string // userId
		Message any    // as Relay was given it: read only
	}
)

func (Entered) event()       {}
func (Moved) event()         {}
func (Left) event()          {}
func (Muted) event()         {}
func (Joined) event()        {}
func (Departed) event()      {}
func (Changed) event()       {}
func (*Presence) event()     {} // one for all who hear it: read only
func (StreamStarted) event() {}
func (StreamEnded) event()   {}
func (RoomChanged) event()   {}
func (Relayed) event()       {}

// Reason is why somebody left, as docs/protocol.md names it.
type Reason string

// Why a participant is told that he has left.
const (
	Removed    Reason = "removed"         // by who moderates
	RoomClosed Reason = "room-closed"     // likewise
	Absent     Reason = "connection-lost" // away for longer than the departure timeout
)

// Snapshot is a room as somebody in it may see it.
type Snapshot struct {
	Room         Info
	Self         Profile
	Offers       []Offer   // those that may be watched
	Participants []Profile // all, oneself among them; nil: they may not be seen
}

// tell has those of the room hear an event whom pick picks, after what waits to be
// told of who is there.
func (one *room) tell(e Event, pick func(*Participant) bool) {
	if r, ok := e.(Relayed); !ok || !isData(r.Message) { // data comes another way, in an order of its own
		one.tellPresence()
	}
	for _, p := range one.members {
		if pick(p) {
			p.hear(e)
		}
	}
}

// others picks those who see who is there, but for one of them.
func others(than *Participant) func(*Participant) bool {
	return func(p *Participant) bool { return p != than && p.seeing }
}

// watchers picks those who may watch a stream.
func watchers(name string) func(*Participant) bool {
	return func(p *Participant) bool { return p.watches(name) }
}
