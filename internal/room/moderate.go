package room

import (
	"fmt"
	"slices"

	"gateway/internal/auth"
	"gateway/internal/media"
)

// subject is the participant that somebody with a grant does something to.
// Nobody who doesn't administer the room can do anything to who does.
func (one *room) subject(user string, by *auth.Grant) (*Participant, error) {
	p := one.members[user]
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: %.64q", ErrUnknownTarget, user)
	case p.may(auth.Administer) && !by.May(auth.Administer, one.id, ""):
		return nil, fmt.Errorf("%w: %s administers the room", ErrForbidden, user)
	}
	return p, nil
}

// moderates has f done to another participant, or to oneself.
func (p *Participant) moderates(target string, f func(*room, *Participant) error) error {
	return p.needs(auth.Moderate, func(one *room) error {
		to, err := one.subject(target, p.grant)
		if err != nil {
			return err
		}
		return f(one, to)
	})
}

// Mute has what a participant publishes of a kind not passed on, or passed on
// again. Everybody may mute himself, and only he undoes that; what who moderates
// has muted only they undo, and it holds for all who come by tokens of the same subject,
// until the last one has left the room.
func (p *Participant) Mute(target string, kind media.Kind, on bool) error {
	if target == p.id {
		return p.do(func(*room) error {
			p.mute(kind, func(m *mute) {
				m.self = on
				if p.may(auth.Moderate) && !on {
					p.silence(kind, m, false)
				}
			})
			return nil
		})
	}
	return p.moderates(target, func(_ *room, to *Participant) error {
		to.mute(kind, func(m *mute) { to.silence(kind, m, on) })
		return nil
	})
}

// silence notes what a host wants of a kind. Who leaves and comes back is found so again,
// if a token tells that it is the same one.
func (p *Participant) silence(kind media.Kind, m *mute, on bool) {
	m.host = on
	switch key := (silence{p.own.Subject, kind}); {
	case key.subject == "":
	case on:
		p.room.silenced[key] = struct{}{}
	default:
		delete(p.room.silenced, key)
	}
}

// recall finds what hosts of a room that the participant comes to have muted of him.
func (p *Participant) recall() {
	for key := range p.room.silenced {
		if key.subject == p.own.Subject {
			m := p.mutes[key.kind]
			m.host = true
			p.mutes[key.kind] = m
		}
	}
}

// hearMutes tells the participant what isn't passed on of him from the start.
func (p *Participant) hearMutes() {
	for _, kind := range p.profile().Muted {
		p.hear(Muted{kind, true})
	}
}

// mute changes who wants a kind not to be passed on, and tells what comes of it.
func (p *Participant) mute(kind media.Kind, change func(*mute)) {
	m := p.mutes[kind]
	before := m.self || m.host
	change(&m)
	p.mutes[kind] = m
	if on := m.self || m.host; on != before {
		p.hear(Muted{kind, on})
		p.changed()
	}
}

// Remove has a participant leave, with Removed.
func (p *Participant) Remove(target string) error {
	return p.moderates(target, func(_ *room, to *Participant) error {
		to.remove()
		return nil
	})
}

func (p *Participant) remove() {
	p.rooms.log.Info("participant removed", "room", p.room.id, "user", p.id)
	p.detach()
	p.hear(Left{Removed})
}

// Move takes a participant into another room, which the mover must moderate by
// his own grant, and which must have a place. There the participant may what his
// own grant allows, as far as he asked for it when he joined; if that is nothing, he
// is a guest: at most a publisher, and no more than he was. What he publishes comes along where he may publish it;
// elsewhere it ends.
func (p *Participant) Move(target, id string) error {
	return p.moderates(target, func(from *room, to *Participant) error {
		switch {
		case id == from.id:
			return fmt.Errorf("%w: %s is in %q", ErrForbidden, target, id)
		case to.deaf:
			return fmt.Errorf("%w: %s can't be moved", ErrForbidden, target)
		case !p.own.May(auth.Moderate, id, ""):
			return fmt.Errorf("%w: it takes moderate in %.64q too", ErrForbidden, id)
		}
		there, err := p.rooms.findOrMake(id, p.own.Create)
		if err != nil {
			return err
		}
		if err := there.admits(to.id, p.own); err != nil {
			return err
		}
		grant := lesser(to.own, to.asked, id)
		guest := !anything(grant, id)
		if guest {
			role := to.grant.Role
			if above(role, auth.Publisher) {
				role = auth.Publisher
			}
			grant = limited(to.grant, role, to.grant.In(from.id))
			grant.Rooms = []string{id}
		}
		absent := to.absent
		published := to.detach()
		to.grant, to.given = grant, guest
		to.attach(there)
		for _, o := range published {
			if to.offers(o) == nil {
				there.tell(StreamStarted{o}, func(q *Participant) bool { return q != to && q.watches(o.Name()) })
			}
		}
		to.hear(Moved{to.snapshot()})
		to.aware = true
		to.hearMutes()
		there.altered(to.profile())
		if absent {
			to.away()
		}
		p.rooms.log.Info("participant moved", "room", from.id, "to", id, "user", target)
		return nil
	})
}

// SetRole gives a participant a role in this room: at most the giver's own, with
// no action that the giver hasn't. Who was let in to some streams stays with them, and can't
// be given a role that moderates the room. The last who moderates can't give that up, he hands over first.
func (p *Participant) SetRole(target string, role auth.Role) error {
	return p.moderates(target, func(one *room, to *Participant) error {
		if above(role, p.grant.Role) {
			return fmt.Errorf("%w: %s gives no more than %s", ErrForbidden, p.id, p.grant.Role)
		}
		grant := limited(to.grant, role, p.grant.In(one.id))
		grant.Rooms = []string{one.id}
		if slices.Contains(grant.Actions(), auth.Moderate) && !grant.May(auth.Moderate, one.id, "") {
			return fmt.Errorf("%w: %s was let in to some streams only, and moderates no room", ErrForbidden, target)
		}
		if to == p && !grant.May(auth.Moderate, one.id, "") && one.onlyModerator(p) {
			return fmt.Errorf("%w: make another one %s first", ErrForbidden, auth.Host)
		}
		p.rooms.log.Info("participant's role", "room", one.id, "user", target, "role", role)
		to.given = true
		to.allow(grant)
		return nil
	})
}

func (one *room) onlyModerator(p *Participant) bool {
	for _, other := range one.members {
		if other != p && other.may(auth.Moderate) {
			return false
		}
	}
	return true
}

// Lock keeps others out who don't moderate, or lets them in again. The lock goes
// when the last one leaves.
func (p *Participant) Lock(on bool) error {
	return p.needs(auth.Moderate, func(one *room) error {
		if one.locked != on {
			one.locked = on
			one.tell(RoomChanged{one.info()}, func(*Participant) bool { return true })
		}
		return nil
	})
}

// CloseRoom closes the room: all leave, with RoomClosed.
func (p *Participant) CloseRoom() error {
	return p.needs(auth.Moderate, func(one *room) error {
		one.shutDown()
		return nil
	})
}
