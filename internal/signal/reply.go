package signal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// message is one of the gateway's own messages.
type message interface {
	envelope() *header
}

// header is what every message of the gateway has.
type header struct {
	Type      string `json:"type"`
	RequestID string `json:"requestId,omitempty"`
	RoomID    string `json:"roomId,omitempty"`
	UserID    string `json:"userId,omitempty"`
	Timestamp int64  `json:"timestamp"`     // Unix milliseconds
	Seq       uint64 `json:"seq,omitempty"` // of a session's messages after joined
}

func (h *header) envelope() *header { return h }

type joinedMessage struct {
	header
	Session      string       `json:"session"`
	TraceID      string       `json:"traceId"`
	Version      int          `json:"version"`
	ICEServers   []iceServer  `json:"iceServers"`
	ICEPolicy    string       `json:"iceTransportPolicy"` // RTCIceTransportPolicy
	Stream       *streamState `json:"stream,omitempty"`   // that is watched at once
	Resumed      bool         `json:"resumed,omitempty"`  // the session goes on
	Received     *int         `json:"received,omitempty"` // messages of the client, if it goes on
	ResumeWithin int          `json:"resumeWithin"`       // seconds that a client may be away; 0: not at all
	placeState
}

// offerMessage is an offer, and what its m-lines carry.
type offerMessage struct {
	header
	Session string       `json:"session"`
	SDP     string       `json:"sdp"`
	Tracks  []trackPlace `json:"tracks"`
}

// trackPlace is the m-line of a watched stream's track.
type trackPlace struct {
	Mid    string     `json:"mid"`
	Stream string     `json:"stream"`
	Kind   media.Kind `json:"kind"`
}

type candidateMessage struct {
	header
	Session   string         `json:"session"`
	Candidate *rtc.Candidate `json:"candidate"` // null at the end
}

type streamMessage struct {
	header
	Stream streamState `json:"stream"`
}

type renditionMessage struct {
	header
	Stream    string `json:"stream"`
	Rendition string `json:"rendition"` // what is sent now; "" before anything is
	Selected  string `json:"selected"`
}

// streamNameMessage is watching, or unwatched with the reason if the client didn't
// ask for it.
type streamNameMessage struct {
	header
	Stream  string `json:"stream"`
	Reason  string `json:"reason,omitempty"` // a departure or a code
	Message string `json:"message,omitempty"`
}

type pongMessage struct{ header }

type leftMessage struct {
	header
	Reason departure `json:"reason"`
}

type errorReply struct {
	header
	Code    code   `json:"code"`
	Message string `json:"message"`
	TraceID string `json:"traceId"`
	Fatal   bool   `json:"fatal"`
}

func errorMessage(r *refusal, trace, requestID string) *errorReply {
	return &errorReply{
		header: header{Type: "error", RequestID: requestID},
		Code:   r.code, Message: r.message, TraceID: trace, Fatal: r.fatal,
	}
}

// encode stamps a message and writes it.
func encode(m message) ([]byte, error) {
	if h := m.envelope(); h.Timestamp == 0 { // else it was written before
		h.Timestamp = time.Now().UnixMilli()
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", m.envelope().Type, err)
	}
	return data, nil
}

// iceServer is an RTCIceServer.
type iceServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

func iceServers(conf config.ICE) []iceServer {
	list := []iceServer{} // [], not null
	for _, s := range conf.Servers {
		list = append(list, iceServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	return list
}

// icePolicy is an RTCIceTransportPolicy. rtc enforces relay.
func icePolicy(conf config.ICE) string {
	if conf.RelayOnly {
		return "relay"
	}
	return "all"
}

// streamState is a stream as clients see it.
type streamState struct {
	Name   string         `json:"name"`
	Title  string         `json:"title"`
	State  stream.State   `json:"state"`
	Reason string         `json:"reason,omitempty"`
	Tracks []trackState   `json:"tracks"`
	Reload *stream.Reload `json:"reload,omitempty"`

	Placeholder bool `json:"placeholder,omitempty"` // viewers see one

	Publisher string `json:"publisher,omitempty"` // the userId of who publishes it
	Label     string `json:"label,omitempty"`     // what its publisher calls it
}

// trackState is a track as clients see it: not how it is made, nor who else watches.
type trackState struct {
	Name    string      `json:"name"`
	Kind    media.Kind  `json:"kind"`
	Codec   media.Codec `json:"codec"`
	Width   int         `json:"width,omitempty"`   // pixels
	Height  int         `json:"height,omitempty"`  // pixels
	FPS     float64     `json:"fps,omitempty"`     // frames a second
	Bitrate int         `json:"bitrate,omitempty"` // bit/s, as configured
	Refused string      `json:"refused,omitempty"` // why nobody is given it
}

func stateOf(o room.Offer, i stream.Info) streamState {
	tracks := []trackState{} // [], not null
	for _, t := range i.Tracks {
		tracks = append(tracks, trackState{t.Name, t.Kind, t.Codec, t.Width, t.Height, t.FPS, t.Bitrate, t.Refused})
	}
	return streamState{
		Name: i.Name, Title: cmp.Or(o.Title, i.Title), State: i.State, Reason: i.Reason, Tracks: tracks, Reload: i.Reload,
		Placeholder: i.Placeholder, Publisher: o.Publisher, Label: o.Label,
	}
}

func (a streamState) equal(b streamState) bool {
	return a.Name == b.Name && a.Title == b.Title && a.State == b.State && a.Reason == b.Reason && slices.Equal(a.Tracks, b.Tracks) &&
		a.Placeholder == b.Placeholder && reflect.DeepEqual(a.Reload, b.Reload)
}
