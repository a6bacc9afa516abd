package signal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"gateway/internal/auth"
	"gateway/internal/media"
	"gateway/internal/room"
	"gateway/internal/rtc"
)

const (
	maxUnheard   = 1000      // events of a room that wait for a session
	relayRate    = 128 << 10 // bytes a second that one participant may have relayed
	relayBurst   = 512 << 10
	expiryNotice = time.Minute // from token-expiring to token-expired
)

// ear takes what a session is told by its room, until the session has time.
type ear struct {
	due chan struct{} // something is there

	mu     sync.Mutex // guards events; held for a moment while all rooms are locked
	events []room.Event
}

// put keeps an event. It tells whether there are more than anybody could cause
// who means well.
func (e *ear) put(event room.Event) (tooMany bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, event)
	poke(e.due)
	return len(e.events) > maxUnheard
}

func (e *ear) take() []room.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.events
	e.events = nil
	return all
}

// hear is the session's room.Sink.
func (x *session) hear(e room.Event) {
	if m, ok := e.(room.Relayed); ok {
		if _, ok := m.Message.(*room.Data); ok {
			if d := x.data.Load(); d != nil {
				d.hand(m)
			}
			return
		}
	}
	if x.ear.put(e) {
		x.end(errors.New("the session takes no events of its room"))
	}
}

// settle finds the session a place in its room, and what it watches at once: the
// stream that the message names, else the one of the room's own name if there is one.
func (x *session) settle(j room.Joining, m request) (err error) {
	if x.shares, err = x.server.users.enter(j.Grant.Subject); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			x.server.users.leave(j.Grant.Subject)
		}
	}()
	j.ID, j.Sink, j.Deaf = x.user, x.hear, x.kind != overWebSocket
	x.granted.Store(j.Grant)
	if x.server.auth.Revoked(j.Grant) { // since it was looked at; from here on Recheck finds the session
		return auth.ErrRevoked
	}
	if x.place, err = x.server.rooms.Join(x.room, j); err != nil {
		return err
	}
	if x.kind == overWHIP {
		return nil // it watches nothing
	}
	o, err := x.place.Offer(cmp.Or(m.Stream, x.room))
	switch {
	case err == nil:
		x.single = x.add(o)
		x.single.ask(m)
	case m.Stream != "" || x.kind != overWebSocket:
		x.place.Leave()
		return err
	}
	return nil
}

// placeState is where a participant is, and what he sees there.
type placeState struct {
	Name         string         `json:"name"`
	Role         auth.Role      `json:"role"`
	Can          []auth.Action  `json:"can"`
	Room         room.Info      `json:"room"`
	Streams      []streamState  `json:"streams"`
	Participants []room.Profile `json:"participants,omitempty"` // missing: they may not be seen
	ResumeWithin float64        `json:"resumeWithin"`           // s that a client may be away; 0: not at all
	Expires      int64          `json:"expires,omitempty"`      // Unix milliseconds
}

// describePlace is the session's place as a snapshot has it.
func (x *session) describePlace(s room.Snapshot) placeState {
	p := placeState{
		Name: s.Self.Name, Role: s.Self.Role, Can: x.can(), Room: s.Room, Participants: s.Participants,
		Streams: []streamState{},
	}
	for _, o := range s.Offers {
		p.Streams = append(p.Streams, stateOf(o, o.Info()))
	}
	p.Expires = endOf(x.granted.Load())
	return p
}

// can is what the participant may do, as far as he may still do anything.
func (x *session) can() []auth.Action {
	if g := x.place.Grant(); g != nil {
		return g.In(x.room)
	}
	return []auth.Action{}
}

type participantMessage struct {
	header
	Participant room.Profile  `json:"participant"`
	Can         []auth.Action `json:"can,omitempty"` // of oneself
}

type streamEndedMessage struct {
	header
	Stream string `json:"stream"`
}

type roomMessage struct {
	header
	Room room.Info `json:"room"`
}

type mutedMessage struct {
	header
	Kind media.Kind `json:"kind"`
	On   bool       `json:"on"`
}

type tokenMessage struct {
	header
	Expires int64 `json:"expires,omitempty"` // Unix milliseconds
}

// relays are the types that reach another participant if they have a target.
var relays = map[string]bool{"offer": true, "answer": true, "ice-candidate": true}

// deeds are the types that concern the room and who is there.
var deeds = map[string]bool{"mute": true, "remove": true, "move": true, "set-role": true, "lock": true, "close-room": true}

// relayedMessage is a message of another participant, as it came.
type relayedMessage struct {
	header
	Target string          `json:"target,omitempty"`
	SDP    string          `json:"sdp,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// relayedCandidate is a candidate of another participant, null at the end.
type relayedCandidate struct {
	header
	Target    string         `json:"target"`
	Candidate *rtc.Candidate `json:"candidate"`
}

// learn acts on what the room tells.
func (x *session) learn(ctx context.Context) error {
	for _, e := range x.ear.take() {
		if err := x.heard(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (x *session) heard(ctx context.Context, e room.Event) error {
	switch e := e.(type) {
	case room.Entered:
		x.greet(e.Snapshot)
	case room.Moved:
		return x.moved(ctx, e.Snapshot)
	case room.Left:
		if e.Reason == room.Absent {
			return errGone
		}
		return departure(e.Reason)
	case room.Muted:
		x.mutePublished(e.Kind, e.On)
		x.client.send(&mutedMessage{x.header("muted", ""), e.Kind, e.On})
	case room.Joined:
		x.client.send(&participantMessage{header: x.header("participant-joined", ""), Participant: e.Profile})
	case room.Departed:
		x.client.send(&participantMessage{header: x.header("participant-left", ""), Participant: e.Profile})
	case room.Changed:
		m := &participantMessage{header: x.header("participant-changed", ""), Participant: e.Profile}
		if e.ID == x.user {
			if err := x.keepPublished(); err != nil {
				return err
			}
			m.Can = x.can()
		}
		x.client.send(m)
	case *room.Presence:
		x.client.send(&presenceMessage{x.header("presence", ""), x.server.presence(e)})
	case room.StreamStarted:
		x.client.send(&streamMessage{x.header("stream-started", ""), stateOf(e.Offer, e.Info())})
	case room.StreamEnded:
		return x.streamEnded(ctx, e.Name)
	case room.RoomChanged:
		x.client.send(&roomMessage{x.header("room", ""), e.Info})
	case room.Relayed:
		x.passOn(e)
	}
	return nil
}

// streamEnded tells of a stream that isn't offered any more, and watches it no more.
func (x *session) streamEnded(ctx context.Context, name string) error {
	x.client.send(&streamEndedMessage{x.header("stream-ended", ""), name})
	if i := x.index(name); i >= 0 {
		return x.lose(ctx, x.watches[i], streamClosed)
	}
	return nil
}

// moved takes the session into another room, as if it had joined there.
func (x *session) moved(ctx context.Context, s room.Snapshot) error {
	x.room, x.single = s.Room.ID, nil
	if err := x.keepPublished(); err != nil {
		return err
	}
	x.log.InfoContext(ctx, "viewer was moved", "to", x.room)
	m := x.welcome("moved", "", s)
	var own *watch
	old := slices.Clone(x.watches)
	if o, err := x.place.Offer(x.room); err == nil {
		own = x.add(o)
		own.told = stateOf(o, o.Info())
		m.Stream = &own.told
	}
	x.client.send(m)
	for _, w := range old {
		if err := x.drop(ctx, w); err != nil {
			return err
		}
	}
	if own == nil {
		return nil
	}
	own.begin()
	return x.follow(ctx)
}

// passOn gives the client another participant's message.
func (x *session) passOn(e room.Relayed) {
	m := e.Message.(request)
	h := x.header(m.Type, "")
	h.UserID = e.From
	if m.Type == "ice-candidate" {
		x.client.send(&relayedCandidate{h, m.Target, m.Candidate})
		return
	}
	x.client.send(&relayedMessage{header: h, Target: m.Target, SDP: m.SDP, Data: m.Data})
}

// relay hands a client's message to another participant, or to all who take part.
func (x *session) relay(m request) error {
	if !x.shares.relayed.AllowN(time.Now(), len(m.SDP)+len(m.Data)+256) {
		return mildly(refuse(rateLimited, "more than %d bytes a second to others", relayRate))
	}
	if err := x.place.Relay(m.Target, m); err != nil {
		return mildly(err)
	}
	x.single = nil // the session is for more than a stream
	return nil
}

// deed acts on what concerns the room and who is there.
func (x *session) deed(m request) error {
	x.single = nil
	switch m.Type {
	case "mute":
		return mildly(x.place.Mute(m.Target, m.Mute, m.On))
	case "remove":
		return mildly(x.place.Remove(m.Target))
	case "move":
		return mildly(x.place.Move(m.Target, m.To))
	case "set-role":
		return mildly(x.place.SetRole(m.Target, m.Role))
	case "lock":
		return mildly(x.place.Lock(m.On))
	}
	return mildly(x.place.CloseRoom())
}

// renew takes another token, of the same who.
func (x *session) renew(ctx context.Context, m request) error {
	g, err := x.server.auth.Authenticate(ctx, m.Token)
	if err != nil {
		return mildly(err)
	}
	return x.regrant(g, m.RequestID)
}

// Renew answers an HTTP request to have the session of a secret go on by what the
// request was granted, if that is the same subject's: a page can't send the token that
// its browser keeps for it as a cookie. The client hears `token` too.
func (s *Server) Renew(w http.ResponseWriter, r *http.Request, secret string, g *auth.Grant) {
	x := s.session(secret)
	if x == nil {
		s.writeProblem(w, r, refuse(notFound, "there is no such session"))
		return
	}
	if !x.renewals.Allow() { // each is told to all of the room
		s.writeProblem(w, r, refuse(rateLimited, "the session is renewed too often"))
		return
	}
	_, err := call(r.Context(), x, func(context.Context) (none, error) { return none{}, x.regrant(g, "") })
	switch {
	case errors.Is(err, errGone):
		err = refuse(notFound, "the session has ended")
	case errors.Is(err, auth.ErrRevoked):
		x.end(refusalOf(err))
	}
	if err != nil {
		s.writeProblem(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(renewed{endOf(g)})
}

// renewed is when a session ends that was renewed over HTTP.
type renewed struct {
	Expires int64 `json:"expires,omitempty"` // Unix milliseconds
}

// endOf is the end of a grant in Unix milliseconds; 0: it has none.
func endOf(g *auth.Grant) int64 {
	if g.Expires.IsZero() {
		return 0
	}
	return g.Expires.UnixMilli()
}

// regrant has the session go on by another grant of its subject.
func (x *session) regrant(g *auth.Grant, requestID string) error {
	if g.Subject != x.granted.Load().Subject {
		return mildly(refuse(forbidden, "the token is another's"))
	}
	if err := x.place.Regrant(g); err != nil {
		return mildly(err)
	}
	x.granted.Store(g)
	if x.server.auth.Revoked(g) {
		return auth.ErrRevoked
	}
	x.watchExpiry()
	x.client.send(&tokenMessage{x.header("token", requestID), endOf(g)})
	return nil
}

// watchExpiry sets the timer for what is next to be said of the grant's end.
func (x *session) watchExpiry() {
	if x.expiry != nil {
		x.expiry.Stop()
		x.expiry = nil
	}
	if at := x.granted.Load().Expires; !at.IsZero() {
		left := at.Sub(x.server.now())
		x.noticed = left <= expiryNotice
		x.expiry = time.NewTimer(x.nextLook(left))
	}
}

// nextLook is when the grant's end is looked at again: timers don't follow the clock by
// which it is told, and which may be set meanwhile.
func (x *session) nextLook(left time.Duration) time.Duration {
	if !x.noticed {
		left -= expiryNotice
	}
	return min(left, x.server.timing.clock)
}

// expires is when the timer of watchExpiry fires; nil without one.
func (x *session) expires() <-chan time.Time {
	if x.expiry == nil {
		return nil
	}
	return x.expiry.C
}

// expire says that the grant ends, or ends the session with it.
func (x *session) expire() error {
	at := x.granted.Load().Expires
	left := at.Sub(x.server.now())
	switch {
	case left <= 0:
		return refuse(tokenExpired, "the token has expired")
	case left > expiryNotice:
		x.noticed = false // the clock was set back, or it isn't time yet
	case !x.noticed:
		x.client.send(&tokenMessage{x.header("token-expiring", ""), at.UnixMilli()})
		x.noticed = true
	}
	x.expiry.Reset(x.nextLook(left))
	return nil
}
