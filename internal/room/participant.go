package room

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gateway/internal/auth"
	"gateway/internal/media"
)

// Joining is who wants to join, and how.
type Joining struct {
	ID     string      // userId: unique, and known to others
	Name   string      // to be shown; "": the grant's
	Grant  *auth.Grant // what it allows in the room is what the participant may do there
	Role   auth.Role   // less than the grant's, for who wants no more, such as a page that only watches; "": all that is granted
	Create bool        // make the room if it isn't there and the grant has Create
	Sink   Sink        // nil: nothing is told
	Deaf   bool        // has no ear for others' messages, nor can be moved, such as a WHEP client
}

// Participant is somebody in a room. Methods may be called from any goroutine and
// don't block; after the end they return ErrLeft, or do nothing.
type Participant struct {
	rooms *Rooms
	id    string
	own   *auth.Grant // as it was authenticated
	sink  Sink
	deaf  bool

	// below: guarded by Rooms.mu
	room   *room // nil: has left
	name   string
	grant  *auth.Grant         // what holds in the room
	asked  auth.Role           // see Joining
	seeing bool                // the grant lets see who is there
	seen   *room               // where: that counts it
	aware  bool                // has been told what the room is like
	given  bool                // a host has decided what the grant is
	mutes  map[media.Kind]mute // of what is published
	absent bool                // the connection was lost, and may come back
	expiry *time.Timer         // of absent
}

// mute is who wants a kind not to be passed on.
type mute struct{ self, host bool }

// silence is a kind of what somebody publishes, which a host has muted.
type silence struct {
	subject string
	kind    media.Kind
}

// Profile is a participant as others see him.
type Profile struct {
	ID      string       `json:"userId"`
	Name    string       `json:"name"`
	Role    auth.Role    `json:"role"`
	Streams []string     `json:"streams"`          // published
	Muted   []media.Kind `json:"muted"`            // that aren't passed on
	Absent  bool         `json:"absent,omitempty"` // the connection was lost, and may come back
}

// Join has somebody enter a room. The sink
// has been told Entered before it returns. Errors: ErrForbidden, ErrNotFound,
// ErrClosed, ErrLocked, ErrFull, ErrTooMany.
func (r *Rooms) Join(id string, j Joining) (*Participant, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ValidName(id) {
		return nil, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	if !anything(j.Grant, id) { // before anything is told of the room
		return nil, fmt.Errorf("%w: nothing is granted in %.64q", ErrForbidden, id)
	}
	one, err := r.findOrMake(id, j.Create && j.Grant.Create)
	if err != nil {
		return nil, err
	}
	p := &Participant{
		rooms: r, id: j.ID, own: j.Grant, sink: j.Sink, deaf: j.Deaf, name: cmp.Or(j.Name, j.Grant.Name),
		grant: lesser(j.Grant, j.Role, id), asked: j.Role, mutes: make(map[media.Kind]mute),
	}
	if err := one.admits(p.id, p.own); err != nil { // a host comes in by what is granted, whatever he wants to be there
		return nil, err
	}
	p.attach(one)
	p.hear(Entered{p.snapshot()})
	p.aware = true
	p.hearMutes()
	return p, nil
}

// lesser is what is left of a grant for who wants to be no more than a role.
func lesser(g *auth.Grant, role auth.Role, id string) *auth.Grant {
	if role == "" || !above(g.Role, role) {
		return g
	}
	return limited(g, role, g.In(id))
}

// limited is a grant with a role's actions, as far as they are among some.
func limited(g *auth.Grant, role auth.Role, among []auth.Action) *auth.Grant {
	c := g.As(role)
	c.Can = []auth.Action{} // not the role's own
	for _, a := range role.Actions() {
		if slices.Contains(among, a) {
			c.Can = append(c.Can, a)
		}
	}
	return c
}

// above tells whether role a is more than role b.
func above(a, b auth.Role) bool { return slices.Index(auth.Roles, a) > slices.Index(auth.Roles, b) }

// admits tells whether the room takes somebody to whom all this is granted.
func (one *room) admits(user string, grant *auth.Grant) error {
	switch {
	case one.state == Closed:
		return fmt.Errorf("%w: %q", ErrClosed, one.id)
	case one.locked && !grant.May(auth.Moderate, one.id, ""):
		return fmt.Errorf("%w: %q", ErrLocked, one.id)
	case one.conf.MaxParticipants > 0 && len(one.members) >= one.conf.MaxParticipants:
		return fmt.Errorf("%w: %q takes %d participants", ErrFull, one.id, one.conf.MaxParticipants)
	case one.members[user] != nil:
		return fmt.Errorf("participant %q is in room %q already", user, one.id) // a fault of the caller
	}
	return nil
}

// attach puts a participant into a room that admits him.
func (p *Participant) attach(one *room) {
	p.rooms.rooms[one.id] = one
	p.room, p.aware = one, false
	p.look()
	p.recall()
	one.members[p.id] = p
	if one.state == Idle {
		one.enter(entered)
	}
	one.came(p)
}

// detach takes a participant out of his room, with what he publishes, which is
// returned.
func (p *Participant) detach() []Offer {
	one := p.room
	p.stop()
	var published []Offer
	last := p.profile()
	delete(one.members, p.id)
	for name, o := range one.published {
		if o.Publisher == p.id {
			published = append(published, o)
			one.withdraw(name)
		}
	}
	p.room = nil
	p.look()
	one.went(last)
	if len(one.members) == 0 && one.state == Active {
		one.enter(emptied)
	}
	return published
}

// hear has the participant told.
func (p *Participant) hear(e Event) {
	if p.sink != nil {
		p.sink(e)
	}
}

func (p *Participant) may(a auth.Action) bool { return p.grant.May(a, p.room.id, "") }

// watches tells whether the participant may watch a stream.
func (p *Participant) watches(name string) bool { return p.grant.May(auth.Watch, p.room.id, name) }

func (p *Participant) profile() Profile {
	var streams []string
	for name, o := range p.room.published {
		if o.Publisher == p.id {
			streams = append(streams, name)
		}
	}
	return p.profileWith(streams)
}

// profileWith is the profile of who publishes some streams.
func (p *Participant) profileWith(streams []string) Profile {
	f := Profile{ID: p.id, Name: p.name, Role: p.grant.Role, Streams: append([]string{}, streams...), Muted: []media.Kind{}, Absent: p.absent}
	for kind, m := range p.mutes {
		if m.self || m.host {
			f.Muted = append(f.Muted, kind)
		}
	}
	slices.Sort(f.Streams)
	slices.Sort(f.Muted)
	return f
}

// profiles lists all who are there, by userId.
func (one *room) profiles() []Profile {
	streams := make(map[string][]string)
	for name, o := range one.published {
		streams[o.Publisher] = append(streams[o.Publisher], name)
	}
	list := make([]Profile, 0, len(one.members)) // [], not null
	for _, p := range one.members {
		list = append(list, p.profileWith(streams[p.id]))
	}
	slices.SortFunc(list, func(a, b Profile) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (p *Participant) snapshot() Snapshot {
	s := Snapshot{Room: p.room.info(), Self: p.profile(), Offers: p.room.offers(p.watches)}
	if p.seeing {
		s.Participants = p.room.profiles()
	}
	return s
}

// do has f done with the room, if the participant is in one.
func (p *Participant) do(f func(*room) error) error {
	p.rooms.mu.Lock()
	defer p.rooms.mu.Unlock()
	if p.room == nil {
		return fmt.Errorf("%s %w", p.id, ErrLeft)
	}
	return f(p.room)
}

// needs is do for what takes an action.
func (p *Participant) needs(a auth.Action, f func(*room) error) error {
	return p.do(func(one *room) error {
		if !p.may(a) {
			return fmt.Errorf("%w: it takes %s in %q", ErrForbidden, a, one.id)
		}
		return f(one)
	})
}

// ID is the userId.
func (p *Participant) ID() string { return p.id }

// Room is the room's name, "" after the end.
func (p *Participant) Room() string {
	id := ""
	_ = p.do(func(one *room) error { id = one.id; return nil })
	return id
}

// Grant is what holds for the participant in his room now; nil after the end.
func (p *Participant) Grant() *auth.Grant {
	var g *auth.Grant
	_ = p.do(func(*room) error { g = p.grant; return nil })
	return g
}

// Snapshot is the room as the participant sees it now; the zero one after the end.
func (p *Participant) Snapshot() Snapshot {
	var s Snapshot
	_ = p.do(func(*room) error { s = p.snapshot(); return nil })
	return s
}

// Offer finds a stream of the room that the participant may watch.
func (p *Participant) Offer(name string) (o Offer, err error) {
	err = p.do(func(one *room) error {
		var ok bool
		if o, ok = one.offer(name); !ok || !p.watches(name) {
			return fmt.Errorf("%w: no stream %.64q in room %q", ErrNotFound, name, one.id)
		}
		return nil
	})
	return o, err
}

// Publish offers a stream in the room. Errors: ErrForbidden, ErrNameTaken, ErrLeft.
func (p *Participant) Publish(o Offer) error {
	return p.do(func(one *room) error {
		if err := p.offers(o); err != nil {
			return err
		}
		one.tell(StreamStarted{one.published[o.Name()]}, watchers(o.Name()))
		p.changed()
		return nil
	})
}

// offers puts a stream into the room.
func (p *Participant) offers(o Offer) error {
	one, name := p.room, o.Name()
	if !p.grant.May(auth.Publish, one.id, name) {
		return fmt.Errorf("%w: it takes publish of %.64q in %q", ErrForbidden, name, one.id)
	}
	if _, taken := one.offer(name); taken {
		return fmt.Errorf("%w: %q", ErrNameTaken, name)
	}
	owner, _, _ := strings.Cut(name, "-")
	if other := one.members[owner]; other != nil && other != p { // what he will call his own
		return fmt.Errorf("%w: the names that begin with %s- are another participant's", ErrNameTaken, owner)
	}
	o.Publisher = p.id
	one.published[name] = o
	return nil
}

// withdraw ends the offer of a published stream, which may have stood in the place
// of a pipeline.
func (one *room) withdraw(name string) {
	delete(one.published, name)
	one.tell(StreamEnded{name}, watchers(name))
	if o, ok := one.offer(name); ok {
		one.tell(StreamStarted{o}, watchers(name))
	}
}

// Unpublish ends the offer of a stream that the participant publishes.
func (p *Participant) Unpublish(name string) error {
	return p.do(func(one *room) error {
		if o, ok := one.published[name]; !ok || o.Publisher != p.id {
			return fmt.Errorf("%w: %s publishes no stream %.64q", ErrNotFound, p.id, name)
		}
		one.withdraw(name)
		p.changed()
		return nil
	})
}

// Relay hands a message to another participant of the room, or to all who see who
// is there. Who gets it takes part too. Errors: ErrForbidden, ErrUnknownTarget,
// ErrTooLarge (of a *Data), ErrLeft.
func (p *Participant) Relay(target string, message any) error {
	return p.needs(auth.Relay, func(one *room) error {
		if d, ok := message.(*Data); ok && len(d.Payload) > MaxPayload {
			return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(d.Payload), MaxPayload)
		}
		e := Relayed{From: p.id, Message: message}
		if target == "" {
			one.tell(e, others(p))
			return nil
		}
		to := one.members[target]
		switch {
		case to == nil:
			return fmt.Errorf("%w: %.64q", ErrUnknownTarget, target)
		case to.deaf || !to.seeing:
			return fmt.Errorf("%w: %s takes no messages", ErrForbidden, target)
		}
		one.introduce(p, to)
		to.hear(e)
		return nil
	})
}

// Regrant puts a renewed grant in the place of the one that was joined with. What
// a host has given or taken stays. It takes what the new one allows in the room.
func (p *Participant) Regrant(g *auth.Grant) error {
	return p.do(func(one *room) error {
		if !anything(g, one.id) {
			return fmt.Errorf("%w: nothing is granted in %q", ErrForbidden, one.id)
		}
		p.own = g
		if !p.given {
			p.allow(lesser(g, p.asked, one.id))
		}
		return nil
	})
}

// allow puts another grant in force in the room: what it doesn't allow ends, and
// the participant is told of what he sees now and didn't before.
func (p *Participant) allow(g *auth.Grant) {
	for name, o := range p.room.published {
		if o.Publisher == p.id && !g.May(auth.Publish, p.room.id, name) {
			p.room.withdraw(name)
		}
	}
	p.room.tellPresence() // who sees it from now is told of all
	old, saw := p.grant, p.seeing
	p.grant = g
	p.look()
	for _, o := range p.room.offers(func(string) bool { return true }) {
		before, now := old.May(auth.Watch, p.room.id, o.Name()), p.watches(o.Name())
		if before && !now {
			p.hear(StreamEnded{o.Name()})
		} else if now && !before {
			p.hear(StreamStarted{o})
		}
	}
	p.changed()
	if !saw && p.seeing {
		p.meet()
	}
}

// changed tells of the participant as he is now.
func (p *Participant) changed() {
	f := p.profile()
	p.hear(Changed{f})
	p.room.altered(f)
}

// Away notes that the participant's connection was lost: he keeps his place for
// the room's departure timeout, then he leaves, with Absent.
func (p *Participant) Away() {
	_ = p.do(func(*room) error { p.away(); return nil })
}

func (p *Participant) away() {
	if p.absent || p.rooms.closed {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(p.room.conf.DepartureTimeout, func() {
		p.rooms.mu.Lock()
		defer p.rooms.mu.Unlock()
		if p.expiry == t { // else it was stopped while this waited for the mutex
			p.detach()
			p.hear(Left{Absent})
		}
	})
	p.absent, p.expiry = true, t
	p.changed()
}

// Back notes that the connection is there again. ErrLeft: it came too late.
func (p *Participant) Back() error {
	return p.do(func(*room) error {
		if p.absent {
			p.stop()
			p.changed()
		}
		return nil
	})
}

func (p *Participant) stop() {
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.absent, p.expiry = false, nil
}

// DepartureTimeout is how long the participant may be away.
func (p *Participant) DepartureTimeout() (d time.Duration) {
	_ = p.do(func(one *room) error { d = one.conf.DepartureTimeout; return nil })
	return d
}

// Leave ends the participant's stay, with what he publishes. Idempotent.
func (p *Participant) Leave() {
	_ = p.do(func(*room) error { p.detach(); return nil })
}
