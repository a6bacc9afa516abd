package client

import (
	"encoding/json"

	"github.com/pion/webrtc/v4"
)

// Joined is what the gateway told of the room at its door.
type Joined struct {
	RoomID       string        `json:"roomId"`
	UserID       string        `json:"userId"` // of this participant; others see it
	Session      string        `json:"session"`
	TraceID      string        `json:"traceId"`
	Role         string        `json:"role"`
	Can          []string      `json:"can"` // the actions that are allowed here
	Room         Room          `json:"room"`
	Stream       *Stream       `json:"stream"` // that is watched at once; nil: none
	Streams      []Stream      `json:"streams"`
	Participants []Participant `json:"participants"` // nil for those who may not see them
	ResumeWithin float64       `json:"resumeWithin"` // seconds
	Expires      int64         `json:"expires"`      // of the token, Unix milliseconds; 0: never

	ICEServers []struct {
		URLs       []string `json:"urls"`
		Username   string   `json:"username"`
		Credential string   `json:"credential"`
	} `json:"iceServers"`
	ICEPolicy string `json:"iceTransportPolicy"`
}

// Room is a meeting point.
type Room struct {
	ID     string `json:"roomId"`
	Title  string `json:"title"`
	State  string `json:"state"` // idle, active or closed
	Locked bool   `json:"locked"`
}

// Stream is something that can be watched.
type Stream struct {
	Name      string      `json:"name"`
	Title     string      `json:"title"`
	State     string      `json:"state"`  // see docs/protocol.md
	Reason    string      `json:"reason"` // why it isn't live
	Tracks    []TrackInfo `json:"tracks"`
	Publisher string      `json:"publisher"` // userId; "": it is a pipeline
	Label     string      `json:"label"`
}

// TrackInfo is a track of a stream, of kind video a rendition.
type TrackInfo struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	Codec   string  `json:"codec"`
	Width   int     `json:"width"`   // pixels
	Height  int     `json:"height"`  // pixels
	FPS     float64 `json:"fps"`     // frames a second
	Bitrate int     `json:"bitrate"` // bit/s, as configured
}

// Participant is somebody in the room.
type Participant struct {
	UserID  string   `json:"userId"`
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Streams []string `json:"streams"` // names
	Muted   []string `json:"muted"`   // kinds
}

// Event is something that happened: a message of the gateway, whose type tells which
// fields it has.
type Event struct {
	Type        string          // of docs/protocol.md, such as "participant-joined"
	UserID      string          // of who relayed it
	Target      string          // of what was relayed to this participant alone
	Data        json.RawMessage // of a "message"
	Participant *Participant
	Here        []Participant // of a "presence": who has come or changed
	Gone        []string      // and the userIds of who has left
	Stream      *Stream
	Room        *Room
	Raw         json.RawMessage // the whole message
}

// message is any message of the gateway, with the fields that this package needs.
type message struct {
	Type      string `json:"type"`
	RequestID string `json:"requestId"`
	UserID    string `json:"userId"`
	Target    string `json:"target"`
	Seq       int64  `json:"seq"`

	Code       string                   `json:"code"`
	Message    string                   `json:"message"`
	TraceID    string                   `json:"traceId"`
	Fatal      bool                     `json:"fatal"`
	Reason     string                   `json:"reason"`
	Resumed    bool                     `json:"resumed"`
	Received   int                      `json:"received"`
	Connection string                   `json:"connection"`
	SDP        string                   `json:"sdp"`
	Tracks     []place                  `json:"tracks"`
	Candidate  *webrtc.ICECandidateInit `json:"candidate"`

	raw json.RawMessage
}

// place is what an m-line carries.
type place struct {
	Mid    string `json:"mid"`
	Stream string `json:"stream"`
	Kind   string `json:"kind"`
}

func (m message) joined() (*Joined, error) {
	j := new(Joined)
	return j, json.Unmarshal(m.raw, j)
}

func (m message) refusal() *Error {
	return &Error{Code: m.Code, Message: m.Message, TraceID: m.TraceID, Fatal: m.Fatal}
}

// event is the message for the public. What doesn't have the shape that it should
// have stays in Raw.
func (m message) event() Event {
	e := Event{Type: m.Type, UserID: m.UserID, Target: m.Target, Raw: m.raw}
	var fields struct {
		Data        json.RawMessage `json:"data"`
		Participant json.RawMessage `json:"participant"`
		Stream      json.RawMessage `json:"stream"`
		Room        json.RawMessage `json:"room"`
		Here        json.RawMessage `json:"here"`
		Gone        json.RawMessage `json:"gone"`
	}
	if json.Unmarshal(m.raw, &fields) != nil {
		return e
	}
	e.Data = fields.Data
	e.Participant = read[Participant](fields.Participant)
	e.Stream = read[Stream](fields.Stream)
	e.Room = read[Room](fields.Room)
	if m.Type == "presence" {
		_ = json.Unmarshal(fields.Here, &e.Here)
		_ = json.Unmarshal(fields.Gone, &e.Gone)
	}
	return e
}

// read reads an object, nil where there is none.
func read[T any](data json.RawMessage) *T {
	v := new(T)
	if len(data) == 0 || data[0] != '{' || json.Unmarshal(data, v) != nil {
		return nil
	}
	return v
}

// streamOf is a message's field stream where that is a name.
func (m message) streamOf() string {
	var fields struct{ Stream string }
	if json.Unmarshal(m.raw, &fields) != nil {
		return ""
	}
	return fields.Stream
}
