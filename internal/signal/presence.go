package signal

import (
	"encoding/json"

	"gateway/internal/room"
)

// presenceMessage is participant-joined, -changed and -left for many, as a crowd is told.
// All of a room are sent the same, so that it is written once.
type presenceMessage struct {
	header
	*writtenPresence
}

type writtenPresence struct {
	Here json.RawMessage `json:"here"` // room.Profile
	Gone json.RawMessage `json:"gone"` // userIds

	of *room.Presence
}

// presence writes what a room tells. Those of a crowd ask for the same one after the
// other: the last is remembered.
func (s *Server) presence(e *room.Presence) *writtenPresence {
	if last := s.lastPresence.Load(); last != nil && last.of == e {
		return last
	}
	here, _ := json.Marshal(append([]room.Profile{}, e.Here...)) // texts and flags: always marshals
	gone, _ := json.Marshal(append([]string{}, e.Gone...))
	w := &writtenPresence{here, gone, e}
	s.lastPresence.Store(w)
	return w
}
