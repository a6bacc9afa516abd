package room

import "time"

// Who comes, changes and goes is told to all who see each other. Among few that is one
// message each, at once. Among a crowd it would be the square of their number: they are
// told by Presence, of all since the last time, so seldom that a room doesn't spend more
// than presenceRate messages a second on it, however many come and go.
const (
	crowd        = 32   // who see each other; fewer are no crowd
	presenceRate = 1000 // messages a second of one room: a thousand are told once a second
)

// lot is what a crowd hasn't been told yet of who is there.
type lot struct {
	about map[string]struct{} // userIds
	due   *time.Timer         // nil: nothing waits
	last  time.Time           // when the last one was told
}

// drop forgets what waits.
func (l *lot) drop() {
	clear(l.about)
	if l.due != nil {
		l.due.Stop()
		l.due = nil
	}
}

// look takes note of whether the participant sees who is there, after his grant or his
// room has changed.
func (p *Participant) look() {
	if p.seeing {
		p.seeing = false
		p.seen.audience--
	}
	if p.room != nil && seesPeople(p.grant, p.room.id) {
		p.seeing, p.seen = true, p.room
		p.seen.audience++
	}
}

// came tells of a participant who has just come.
func (one *room) came(p *Participant) {
	if !one.later(p.id) {
		one.tell(Joined{p.profile()}, others(p))
	}
}

// altered tells all but himself of a participant as he is now.
func (one *room) altered(f Profile) {
	if !one.later(f.ID) {
		one.tell(Changed{f}, others(one.members[f.ID]))
	}
}

// went tells of a participant who has just left.
func (one *room) went(last Profile) {
	if !one.later(last.ID) {
		one.tell(Departed{last}, others(nil))
	}
}

// later puts somebody into the lot, if those who see it are a crowd, or he is in it.
func (one *room) later(id string) bool {
	if _, waits := one.lot.about[id]; waits {
		return true
	}
	if one.audience < one.rooms.crowd || one.rooms.closed {
		return false
	}
	if one.lot.about == nil {
		one.lot.about = make(map[string]struct{})
	}
	one.lot.about[id] = struct{}{}
	if one.lot.due != nil {
		return true
	}
	var t *time.Timer
	t = time.AfterFunc(time.Until(one.lot.last.Add(time.Duration(one.audience)*time.Second/presenceRate)), func() {
		one.rooms.mu.Lock()
		defer one.rooms.mu.Unlock()
		if one.lot.due == t { // else it was told while this waited for the mutex
			one.tellPresence()
		}
	})
	one.lot.due = t
	return true
}

// tellPresence tells what waits.
func (one *room) tellPresence() {
	if one.lot.due == nil {
		return
	}
	e := new(Presence)
	for id := range one.lot.about {
		if p := one.members[id]; p != nil {
			e.Here = append(e.Here, p.profile())
		} else {
			e.Gone = append(e.Gone, id)
		}
	}
	one.lot.drop()
	one.lot.last = time.Now()
	for _, p := range one.members {
		if p.seeing && p.aware {
			p.hear(e)
		}
	}
}

// introduce has one participant know of another, of whom he may not have been told yet.
func (one *room) introduce(who, to *Participant) {
	if _, waits := one.lot.about[who.id]; waits && to.seeing {
		to.hear(&Presence{Here: []Profile{who.profile()}})
	}
}

// meet tells a participant of all who are there, whom he didn't see before.
func (p *Participant) meet() {
	if p.room.audience >= p.rooms.crowd {
		p.hear(&Presence{Here: p.room.profiles()})
		return
	}
	for _, f := range p.room.profiles() {
		if f.ID != p.id {
			p.hear(Joined{f})
		}
	}
}
