package room

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/auth"
	"gateway/internal/media"
)

// FuzzLife does what people might do, in any order, and checks after each step
// that everything is as it must be, and that what participants have been told
// amounts to what is.
func FuzzLife(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 3, 1, 0, 0, 1, 1, 2, 9, 0, 0})
	f.Add([]byte{0, 0, 8, 0, 1, 9, 4, 0, 1, 2, 0, 0, 6, 1, 0, 13, 0, 0, 12, 4, 0, 0, 0, 5})
	f.Add([]byte{0, 2, 3, 10, 2, 2, 14, 0, 255, 0, 2, 3, 12, 2, 0, 5, 2, 2, 14, 1, 99})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 600 {
			t.Skip()
		}
		synctest.Test(t, func(t *testing.T) { play(t, script) })
	})
}

var (
	fuzzRooms  = []string{"lobby", "hall", "door", "new", "newer"}
	fuzzGrants = []*auth.Grant{
		granted(auth.Viewer), granted(auth.Publisher), granted(auth.Host), granted(auth.Admin), granted(auth.Host, "lobby", "hall"),
		{Role: auth.Publisher, Rooms: []string{"*"}, Create: true}, {Role: auth.Viewer, Rooms: []string{"*"}, Streams: []string{"door"}},
	}
)

// witness is a participant who keeps account of what he is told.
type witness struct {
	*Participant
	began  bool
	left   bool
	room   Info
	people map[string]Profile // nil: may not be seen
	offers map[string]bool
}

func (w *witness) hear(t *testing.T, e Event) {
	if w.left {
		t.Fatalf("%s was told %T after the end", w.id, e)
	}
	begin := func(s Snapshot) {
		w.room, w.offers, w.people = s.Room, map[string]bool{}, nil
		for _, o := range s.Offers {
			w.offers[o.Name()] = true
		}
		if s.Participants != nil {
			w.people = map[string]Profile{}
			for _, f := range s.Participants {
				w.people[f.ID] = f
			}
		}
	}
	switch e := e.(type) {
	case Entered:
		if w.began {
			t.Fatal("entered twice")
		}
		w.began = true
		begin(e.Snapshot)
	case Moved:
		begin(e.Snapshot)
	case Left:
		w.left = true
	case Joined:
		if w.people == nil {
			w.people = map[string]Profile{}
		}
		if _, ok := w.people[e.ID]; ok {
			t.Fatalf("%s came twice", e.ID)
		}
		w.people[e.ID] = e.Profile
	case Departed:
		if _, ok := w.people[e.ID]; !ok {
			t.Fatalf("%s left who wasn't there", e.ID)
		}
		delete(w.people, e.ID)
	case *Presence:
		if w.people == nil {
			w.people = map[string]Profile{}
		}
		for _, f := range e.Here {
			w.people[f.ID] = f
		}
		for _, id := range e.Gone {
			delete(w.people, id)
		}
	case Changed:
		if w.people == nil { // oneself
			w.people = map[string]Profile{}
		}
		w.people[e.ID] = e.Profile
	case StreamStarted:
		if w.offers[e.Name()] {
			t.Fatalf("stream %s began twice", e.Name())
		}
		w.offers[e.Name()] = true
	case StreamEnded:
		if !w.offers[e.Name] {
			t.Fatalf("stream %s ended that wasn't there", e.Name)
		}
		delete(w.offers, e.Name)
	case RoomChanged:
		w.room = e.Info
	}
}

// play does a script: three bytes a step.
func play(t *testing.T, script []byte) {
	r, pipelines := newRooms(t)
	defer r.Close()
	r.crowd = 2 + len(script)%7
	everybody := make([]*witness, 8)
	for step := 0; step+2 < len(script); step += 3 {
		what, a, b := script[step]%16, int(script[step+1]), int(script[step+2])
		w := everybody[a%len(everybody)]
		room, other := fuzzRooms[b%len(fuzzRooms)], "p"+fmt.Sprint(b%len(everybody))
		grant := fuzzGrants[b%len(fuzzGrants)]
		switch {
		case what == 0 && (w == nil || w.left):
			w = new(witness)
			w.Participant, _ = r.Join(room, Joining{
				ID: "p" + fmt.Sprint(a%len(everybody)), Grant: fuzzGrants[a/8%len(fuzzGrants)], Role: append(auth.Roles, "")[b/8%5], Create: b%2 == 0,
				Sink: func(e Event) { w.hear(t, e) },
			})
			if w.Participant != nil {
				everybody[a%len(everybody)] = w
			}
		case what == 12:
			r.CloseRoom(room, fuzzGrants[a%len(fuzzGrants)])
		case what == 13:
			r.OpenRoom(room, fuzzGrants[a%len(fuzzGrants)])
		case what == 14:
			time.Sleep(time.Duration(b) * time.Duration(b) * time.Second / 8)
			synctest.Wait()
		case what == 15:
			name := []string{"door", "yard", "roof"}[b%3]
			if _, here := pipelines.Stream(name); here {
				pipelines.set(name, false)
				r.Ended(name)
			} else {
				pipelines.set(name, true)
				r.Began(name)
			}
		case w == nil || w.Participant == nil:
		case what == 1:
			w.Leave()
			w.left = true // who leaves by himself isn't told
		case what == 2:
			w.Away()
		case what == 3:
			w.Back()
		case what == 4:
			w.Publish(Offer{Stream: feed([]string{w.id + "-camera", "roof", "new"}[b%3])})
		case what == 5:
			w.Unpublish([]string{w.id + "-camera", "roof", "new"}[b%3])
		case what == 6:
			w.Mute(other, []media.Kind{media.Video, media.Audio}[b/8%2], b/16%2 == 0)
		case what == 7:
			w.Remove(other)
		case what == 8:
			w.Move(other, fuzzRooms[b/8%len(fuzzRooms)])
		case what == 9:
			w.SetRole(other, auth.Roles[b/8%4])
		case what == 10:
			w.Lock(b%2 == 0)
		case what == 11 && b%4 == 0:
			w.CloseRoom()
		case what == 11:
			w.Regrant(grant)
		}
		check(t, r, everybody)
	}
	time.Sleep(time.Second) // a crowd is told of all by then
	synctest.Wait()
	check(t, r, everybody)
}

// seers counts those who see who is there.
func seers(one *room) (n int) {
	for _, p := range one.members {
		if seesPeople(p.grant, one.id) {
			n++
		}
	}
	return n
}

// check holds the rooms to what must always be so.
func check(t *testing.T, r *Rooms, everybody []*witness) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	count := 0
	for id, one := range r.rooms {
		switch {
		case one.id != id:
			t.Fatalf("room %s is kept as %s", one.id, id)
		case (one.state == Active) != (len(one.members) > 0):
			t.Fatalf("room %s is %s with %d participants", id, one.state, len(one.members))
		case one.state != Active && (one.locked || len(one.published) > 0):
			t.Fatalf("room %s is empty, locked %t, with %v", id, one.locked, one.published)
		case one.origin == implied && one.state == Idle:
			t.Fatalf("room %s is kept for nothing", id)
		case one.conf.MaxParticipants > 0 && len(one.members) > one.conf.MaxParticipants:
			t.Fatalf("room %s is overfull", id)
		case one.audience != seers(one):
			t.Fatalf("room %s has an audience of %d", id, one.audience)
		case one.state == Active && one.expiry != nil:
			t.Fatalf("room %s ends while somebody is there", id)
		case one.origin == made && one.state != Active && one.expiry == nil:
			t.Fatalf("room %s never ends", id)
		}
		if one.origin == made {
			count++
		}
		for user, p := range one.members {
			if p.room != one || p.id != user || p.absent != (p.expiry != nil) {
				t.Fatalf("participant %s of %s: %+v", user, id, p)
			}
		}
		for name, o := range one.published {
			if p := one.members[o.Publisher]; o.Name() != name || p == nil || !p.grant.May(auth.Publish, id, name) {
				t.Fatalf("stream %s of %s is published by %q", name, id, o.Publisher)
			}
		}
	}
	if count > r.most {
		t.Fatalf("%d rooms were made", count)
	}
	for _, w := range everybody {
		if w == nil || w.Participant == nil {
			continue
		}
		one := w.Participant.room
		if (one == nil) != w.left {
			t.Fatalf("%s has left: %t, and is in %v", w.id, w.left, one)
		}
		if one == nil {
			continue
		}
		if one.members[w.id] != w.Participant || w.room.ID != one.id || w.room.Locked != one.locked {
			t.Fatalf("%s believes to be in %+v, and is in %+v", w.id, w.room, one.info())
		}
		switch {
		case !w.seeing:
			w.people = nil
		case one.lot.due != nil: // he is told in a moment
		default:
			for _, f := range one.profiles() {
				if g := w.people[f.ID]; g.ID != f.ID || g.Role != f.Role || g.Absent != f.Absent || !slices.Equal(g.Streams, f.Streams) || !slices.Equal(g.Muted, f.Muted) {
					t.Fatalf("%s believes %+v, it is %+v", w.id, g, f)
				}
			}
			if len(w.people) != len(one.members) {
				t.Fatalf("%s knows of %d, there are %d", w.id, len(w.people), len(one.members))
			}
		}
		offers := one.offers(w.watches)
		for _, o := range offers {
			if !w.offers[o.Name()] {
				t.Fatalf("%s doesn't know of stream %s", w.id, o.Name())
			}
		}
		if len(offers) != len(w.offers) {
			t.Fatalf("%s knows of %v, there are %v", w.id, w.offers, offers)
		}
	}
}
