package room

import (
	"fmt"
	"time"

	"gateway/internal/auth"
)

// State is where a room is in its life, as docs/protocol.md names it.
type State string

// The states of a room. One that was made on join is gone after its timeout; one
// that a pipeline implies is kept only while it is more than idle.
//
//	         first join             closed by a host, an admin
//	┌──────┐ ─────────→ ┌────────┐ ─────────────────────────→ ┌────────┐
//	│ idle │            │ active │                            │ closed │
//	└──────┘ ←───────── └────────┘                            └────────┘
//	   │ ↑    all left                                           ↑  │
//	   │ └──────────────────── opened by an admin ───────────────│──┘
//	   └── empty for its timeout, or closed ─────────────────────┘
const (
	Idle   State = "idle"   // nobody is there
	Active State = "active" // somebody is
	Closed State = "closed" // nobody may come
)

// happening is what moves a room from state to state.
type happening uint8

const (
	entered happening = iota // somebody came
	emptied                  // the last one left
	expired                  // it was empty for its timeout
	shut                     // by who may
	opened                   // likewise
)

// transitions is the life of a room: what isn't listed doesn't happen.
var transitions = map[State]map[happening]State{
	Idle:   {entered: Active, expired: Closed, shut: Closed},
	Active: {emptied: Idle, shut: Closed},
	Closed: {opened: Idle},
}

// enter moves the room on.
func (one *room) enter(h happening) {
	next, ok := transitions[one.state][h]
	if !ok {
		panic(fmt.Sprintf("room: %d in state %s", h, one.state)) // a mistake of this package
	}
	one.state, one.since = next, time.Now()
	if next != Active {
		one.locked = false // nobody is there to open it again
		one.lot.drop()
		clear(one.silenced)
	}
	one.rooms.log.Debug("room", "room", one.id, "state", next)
	one.settle()
}

// settle sets the room's timer as its state wants it, and forgets the room when
// nothing is left to be kept of it.
func (one *room) settle() {
	one.stop()
	switch {
	case one.state == Active:
		return
	case one.origin == implied && one.state == Idle:
		one.forget()
		return
	case one.origin == implied, one.origin == configured && one.state == Closed:
		return // until it is opened
	case one.conf.EmptyTimeout == 0 || one.rooms.closed:
		return
	}
	var t *time.Timer
	t = time.AfterFunc(one.conf.EmptyTimeout, func() {
		one.rooms.mu.Lock()
		defer one.rooms.mu.Unlock()
		if one.expiry != t {
			return // stopped while it waited for the mutex
		}
		if one.origin == made {
			one.forget()
			one.rooms.log.Info("room gone", "room", one.id, "empty", one.conf.EmptyTimeout)
			return
		}
		one.rooms.log.Info("room closed", "room", one.id, "empty", one.conf.EmptyTimeout)
		one.enter(expired)
	})
	one.expiry = t
}

func (one *room) stop() {
	if one.expiry != nil {
		one.expiry.Stop()
		one.expiry = nil
	}
}

// forget drops a room in which nobody is.
func (one *room) forget() {
	one.stop()
	if one.rooms.rooms[one.id] == one {
		delete(one.rooms.rooms, one.id)
	}
}

// shutDown closes the room: all who are there leave.
func (one *room) shutDown() {
	one.rooms.log.Info("room closed", "room", one.id, "participants", len(one.members))
	for _, p := range one.members { // nobody is told of the others' leaving
		p.stop()
		p.room = nil
		p.look()
		p.hear(Left{RoomClosed})
	}
	clear(one.members)
	clear(one.published)
	one.enter(shut)
}

// CloseRoom closes a room for somebody who moderates it: those who are there leave
// with RoomClosed, and nobody may come until it is opened. Closing a closed room
// does nothing.
func (r *Rooms) CloseRoom(id string, grant *auth.Grant) error {
	return r.command(id, grant, auth.Moderate, func(one *room) error {
		r.rooms[id] = one // also one that was only implied
		if one.state != Closed {
			one.shutDown()
		}
		return nil
	})
}

// OpenRoom opens a closed room for somebody who administers it. Opening an open
// room does nothing.
func (r *Rooms) OpenRoom(id string, grant *auth.Grant) error {
	return r.command(id, grant, auth.Administer, func(one *room) error {
		if one.state == Closed {
			r.log.Info("room opened", "room", id)
			one.enter(opened)
		}
		return nil
	})
}

// RemoveFrom removes a participant from a room, for somebody who moderates it
// from outside.
func (r *Rooms) RemoveFrom(id, user string, grant *auth.Grant) error {
	return r.command(id, grant, auth.Moderate, func(one *room) error {
		p, err := one.subject(user, grant)
		if err == nil {
			p.remove()
		}
		return err
	})
}

// command has f done with a room for somebody with a grant that allows an action
// there.
func (r *Rooms) command(id string, grant *auth.Grant, a auth.Action, f func(*room) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !grant.May(a, id, "") {
		return fmt.Errorf("%w: it takes %s in %.64q", ErrForbidden, a, id)
	}
	one := r.find(id)
	if one == nil {
		return fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	return f(one)
}
