package signal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"gateway/internal/auth"
	"gateway/internal/media"
	"gateway/internal/rtc"
)

const (
	protocolVersion = 1
	maxMessage      = 64 << 10      // bytes of one message, or of one HTTP body
	maxCandidates   = 100           // from a client, for one negotiation
	maxPixels       = 16384         // of a video element's width or height
	maxData         = 16 << 10      // bytes of what participants tell each other
	maxName         = auth.MaxShown // bytes of a participant's name
)

// request is a client's message, checked: only the fields that its type has
// are set.
type request struct {
	Type      string
	RequestID string
	RoomID    string
	UserID    string
	Target    string

	Version      int
	Stream       string
	Token        string
	Resume       string
	Seq          int
	Session      string
	Codecs       *codecs
	SDP          string
	Candidate    *rtc.Candidate // nil: the client has no more
	FirstFrameMs *float64
	Frames       []frameReport
	Rendition    string
	Width        int
	Height       int
	Visible      bool
	Audible      *bool
	View         *view
	Name         string // of a participant, to be shown
	Role         auth.Role
	Create       bool   // the room, if it isn't there
	To           string // a room
	Mute         media.Kind
	Data         json.RawMessage
	On           bool
	Connection   string        // "publish": the one that the client sends on
	Publications []publication // nil: not told
}

// requests lists what a client may say: for each type the fields that it must
// and may have, beside those of common.
var requests = map[string]struct{ must, may []string }{
	"join":          {must: []string{"roomId"}, may: []string{"version", "stream", "token", "resume", "seq", "codecs", "rendition", "view", "name", "role", "create"}},
	"watch":         {must: []string{"stream"}, may: []string{"rendition", "view"}},
	"unwatch":       {must: []string{"stream"}},
	"answer":        {must: []string{"sdp"}, may: []string{"session"}},
	"ice-candidate": {must: []string{"candidate"}, may: []string{"session", "connection"}},
	"restart-ice":   {},
	"select":        {must: []string{"rendition"}, may: []string{"stream"}},
	"report":        {may: []string{"firstFrameMs", "frames", "stream"}},
	"view":          {must: []string{"width", "height", "visible"}, may: []string{"audible", "stream"}},
	"observe":       {must: []string{"on"}},
	"offer":         {must: []string{"sdp"}, may: []string{"streams"}},
	"unpublish":     {must: []string{"stream"}},
	"message":       {must: []string{"data"}},
	"mute":          {must: []string{"target", "kind", "on"}},
	"remove":        {must: []string{"target"}},
	"move":          {must: []string{"target", "to"}},
	"set-role":      {must: []string{"target", "role"}},
	"lock":          {must: []string{"on"}},
	"close-room":    {},
	"open-data":     {},
	"token":         {must: []string{"token"}},
	"ping":          {},
	"leave":         {},
}

var common = []string{"type", "requestId", "roomId", "userId", "target", "timestamp"}

// fields reads each field into a request. Lengths are in bytes.
var fields = map[string]func(*request, json.RawMessage) error{
	"type":       func(*request, json.RawMessage) error { return nil }, // read first
	"requestId":  func(r *request, v json.RawMessage) error { return text(&r.RequestID, v, 64) },
	"roomId":     func(r *request, v json.RawMessage) error { return text(&r.RoomID, v, 128) },
	"userId":     func(r *request, v json.RawMessage) error { return text(&r.UserID, v, 128) },
	"target":     func(r *request, v json.RawMessage) error { return text(&r.Target, v, 128) },
	"timestamp":  func(_ *request, v json.RawMessage) error { return number(new(float64), v, 1<<53) },
	"version":    func(r *request, v json.RawMessage) error { return integer(&r.Version, v) },
	"stream":     func(r *request, v json.RawMessage) error { return text(&r.Stream, v, 128) },
	"token":      func(r *request, v json.RawMessage) error { return text(&r.Token, v, 8192) },
	"seq":        func(r *request, v json.RawMessage) error { return count(&r.Seq, v) },
	"resume":     func(r *request, v json.RawMessage) error { return text(&r.Resume, v, 128) },
	"session":    func(r *request, v json.RawMessage) error { return text(&r.Session, v, 128) },
	"sdp":        func(r *request, v json.RawMessage) error { return text(&r.SDP, v, maxMessage) },
	"rendition":  func(r *request, v json.RawMessage) error { return text(&r.Rendition, v, 128) },
	"codecs":     func(r *request, v json.RawMessage) (err error) { r.Codecs, err = readCodecs(v); return err },
	"candidate":  func(r *request, v json.RawMessage) (err error) { r.Candidate, err = readCandidate(v); return err },
	"width":      func(r *request, v json.RawMessage) error { return pixels(&r.Width, v) },
	"height":     func(r *request, v json.RawMessage) error { return pixels(&r.Height, v) },
	"visible":    func(r *request, v json.RawMessage) error { return boolean(&r.Visible, v) },
	"audible":    func(r *request, v json.RawMessage) error { r.Audible = new(bool); return boolean(r.Audible, v) },
	"view":       func(r *request, v json.RawMessage) (err error) { r.View, err = readView(v); return err },
	"on":         func(r *request, v json.RawMessage) error { return boolean(&r.On, v) },
	"name":       func(r *request, v json.RawMessage) error { return displayName(&r.Name, v) },
	"role":       func(r *request, v json.RawMessage) error { return oneOf(&r.Role, v, auth.Roles...) },
	"create":     func(r *request, v json.RawMessage) error { return boolean(&r.Create, v) },
	"to":         func(r *request, v json.RawMessage) error { return text(&r.To, v, 128) },
	"kind":       func(r *request, v json.RawMessage) (err error) { r.Mute, err = readKind(v); return err },
	"data":       func(r *request, v json.RawMessage) (err error) { r.Data, err = readData(v); return err },
	"connection": func(r *request, v json.RawMessage) error { return oneOf(&r.Connection, v, "publish") },
	"streams": func(r *request, v json.RawMessage) (err error) {
		r.Publications, err = readPublications(v)
		return err
	},
	"firstFrameMs": func(r *request, v json.RawMessage) error {
		r.FirstFrameMs = new(float64)
		return number(r.FirstFrameMs, v, float64(10*time.Minute/time.Millisecond))
	},
	"frames": func(r *request, v json.RawMessage) (err error) { r.Frames, err = readFrames(v); return err },
}

// decode reads one message of a client, strictly: one JSON object, no field
// twice, none that its type doesn't have, each of its own JSON type and within
// its length, in exactly the documented spelling. With an error the request
// still has its RequestID where that could be read.
func decode(data []byte) (request, error) {
	var r request
	if len(data) > maxMessage {
		return r, refuse(messageTooLarge, "a message has at most %d bytes", maxMessage)
	}
	if !utf8.Valid(data) {
		return r, refuse(badMessage, "a message is UTF-8 text")
	}
	object, err := readObject(data)
	if err != nil {
		return r, refuse(badMessage, "%v", err)
	}
	if v, ok := object["requestId"]; ok {
		if err := fields["requestId"](&r, v); err != nil {
			return r, refuse(badMessage, "requestId: %v", err)
		}
	}
	var kind string
	if err := text(&kind, object["type"], 64); err != nil {
		return r, refuse(badMessage, "type: %v", err)
	}
	allowed, ok := requests[kind]
	if !ok {
		return r, refuse(badMessage, "type %q is unknown", kind)
	}
	r.Type = kind
	for _, name := range allowed.must {
		if _, ok := object[name]; !ok {
			return r, refuse(badMessage, "%s: %s is missing", kind, name)
		}
	}
	for name, v := range object {
		if !slices.Contains(common, name) && !slices.Contains(allowed.must, name) && !slices.Contains(allowed.may, name) {
			return r, refuse(badMessage, "%s: field %.64q is unknown", kind, name)
		}
		if err := fields[name](&r, v); err != nil {
			return r, refuse(badMessage, "%s: %s: %v", kind, name, err)
		}
	}
	return r, nil
}

// readObject takes one JSON object apart, one level deep: encoding/json alone
// would take the last of two equal names, and any spelling of their case.
func readObject(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil {
		return nil, errors.New("not JSON")
	} else if t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	object := make(map[string]json.RawMessage)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errors.New("not JSON")
		}
		key, _ := name.(string) // More within an object: the decoder takes only strings
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("field %.64q comes twice", key)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, errors.New("not JSON")
		}
		object[key] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	return object, nil
}
