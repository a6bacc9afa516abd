package signal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

const (
	protocolVersion = 1
	maxMessage      = 64 << 10 // bytes of one message, or of one HTTP body
	maxCandidates   = 100      // from a client, for one negotiation
	maxPixels       = 16384    // of a video element's width or height
	maxData         = 16 << 10 // bytes of what participants tell each other
	maxName         = 64       // bytes of a participant's name
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

func text(dst *string, v json.RawMessage, limit int) error {
	if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, dst) != nil {
		return errors.New("not a string")
	}
	if len(*dst) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	return nil
}

func number(dst *float64, v json.RawMessage, limit float64) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not a number")
	}
	if *dst < 0 || *dst > limit {
		return fmt.Errorf("not between 0 and %.0f", limit)
	}
	return nil
}

func integer(dst *int, v json.RawMessage) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not an integer")
	}
	return nil
}

// count reads a number of things.
func count(dst *int, v json.RawMessage) error {
	if err := integer(dst, v); err != nil {
		return err
	}
	if *dst < 0 || *dst > 1<<53 {
		return errors.New("not between 0 and 2^53")
	}
	return nil
}

// pixels reads a length in device pixels, rounded.
func pixels(dst *int, v json.RawMessage) error {
	var n float64
	if err := number(&n, v, maxPixels); err != nil {
		return err
	}
	*dst = int(math.Round(n))
	return nil
}

func boolean(dst *bool, v json.RawMessage) error {
	if isNull(v) || json.Unmarshal(v, dst) != nil {
		return errors.New("not true or false")
	}
	return nil
}

// displayName reads what others see of somebody: one line.
func displayName(dst *string, v json.RawMessage) error {
	if err := text(dst, v, maxName); err != nil {
		return err
	}
	if strings.ContainsFunc(*dst, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}) {
		return errors.New("it holds a control character")
	}
	*dst = strings.TrimSpace(*dst)
	return nil
}

// oneOf reads one of some words.
func oneOf[T ~string](dst *T, v json.RawMessage, words ...T) error {
	var s string
	if err := text(&s, v, 64); err != nil {
		return err
	}
	if !slices.Contains(words, T(s)) {
		return fmt.Errorf("not one of %v", words)
	}
	*dst = T(s)
	return nil
}

func readKind(v json.RawMessage) (media.Kind, error) {
	var s string
	err := oneOf(&s, v, media.Video.String(), media.Audio.String())
	if s == media.Audio.String() {
		return media.Audio, err
	}
	return media.Video, err
}

// readData reads any JSON, which others are given as it is.
func readData(v json.RawMessage) (json.RawMessage, error) {
	if len(v) > maxData {
		return nil, fmt.Errorf("longer than %d bytes", maxData)
	}
	return slices.Clone(v), nil
}

func isNull(v json.RawMessage) bool { return string(v) == "null" }

// readCandidate reads an RTCIceCandidateInit. Null means that no more come, and
// so does an empty candidate string, which browsers send at the end of each
// generation (W3C WebRTC §4.4.1.3).
func readCandidate(v json.RawMessage) (*rtc.Candidate, error) {
	if isNull(v) {
		return nil, nil
	}
	object, err := readObject(v)
	if err != nil {
		return nil, err
	}
	c := new(rtc.Candidate)
	if err := text(&c.Candidate, object["candidate"], 1024); err != nil {
		return nil, fmt.Errorf("candidate: %w", err)
	}
	for name, v := range object {
		var err error
		switch {
		case name == "candidate":
		case isNull(v) && (name == "sdpMid" || name == "sdpMLineIndex" || name == "usernameFragment"):
		case name == "sdpMid":
			c.SDPMid = new(string)
			err = text(c.SDPMid, v, 64)
		case name == "usernameFragment":
			c.UsernameFragment = new(string)
			err = text(c.UsernameFragment, v, 256) // RFC 8839 §5.4
		case name == "sdpMLineIndex":
			c.SDPMLineIndex = new(uint16)
			if json.Unmarshal(v, c.SDPMLineIndex) != nil {
				err = errors.New("not an integer from 0 to 65535")
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("%.64s: %w", name, err)
		}
	}
	if c.Candidate == "" {
		return nil, nil
	}
	return c, nil
}

// readView reads how a page shows a stream: the fields of a view message.
func readView(v json.RawMessage) (*view, error) {
	object, err := readObject(v)
	if err != nil {
		return nil, err
	}
	shown := &view{audible: true}
	for _, name := range []string{"width", "height", "visible"} {
		if _, ok := object[name]; !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	for name, v := range object {
		var err error
		switch name {
		case "width":
			err = pixels(&shown.width, v)
		case "height":
			err = pixels(&shown.height, v)
		case "visible":
			err = boolean(&shown.visible, v)
		case "audible":
			err = boolean(&shown.audible, v)
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("%.64s: %w", name, err)
		}
	}
	return shown, nil
}

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
	m.envelope().Timestamp = time.Now().UnixMilli()
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
