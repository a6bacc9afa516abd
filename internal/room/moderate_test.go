package room

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/auth"
	"gateway/internal/media"
)

// Everything that one can do to another, by each role to each role.
func TestWhoMayDoWhatToWhom(t *testing.T) {
	deeds := map[string]func(by *guest, to string) error{
		"mute":       func(by *guest, to string) error { return by.Mute(to, media.Audio, true) },
		"remove":     func(by *guest, to string) error { return by.Remove(to) },
		"move":       func(by *guest, to string) error { return by.Move(to, "yard") },
		"set a role": func(by *guest, to string) error { return by.SetRole(to, auth.Viewer) },
		"close":      func(by *guest, _ string) error { return by.CloseRoom() },
		"lock":       func(by *guest, _ string) error { return by.Lock(true) },
		"relay":      func(by *guest, to string) error { return by.Relay(to, "x") },
	}
	for name, deed := range deeds {
		for _, by := range auth.Roles {
			for _, to := range auth.Roles {
				r, _ := newRooms(t)
				a, b := enter(t, r, "lobby", "a", granted(by)), enter(t, r, "lobby", "b", granted(to))
				_ = b
				var want error
				switch {
				case name == "relay":
					if by == auth.Viewer || to == auth.Viewer {
						want = ErrForbidden
					}
				case by == auth.Viewer, by == auth.Publisher:
					want = ErrForbidden
				case name != "lock" && name != "close" && by == auth.Host && to == auth.Admin:
					want = ErrForbidden
				}
				expect(t, fmt.Sprintf("%s: %s to %s", name, by, to), deed(a, "b"), want)
			}
		}
	}
}

func TestNobodyGivesMoreThanHeHas(t *testing.T) {
	for _, by := range []auth.Role{auth.Host, auth.Admin} {
		for _, to := range auth.Roles[:3] {
			for _, role := range auth.Roles {
				r, _ := newRooms(t)
				a, b := enter(t, r, "lobby", "a", granted(by)), enter(t, r, "lobby", "b", granted(to))
				var want error
				if role == auth.Admin && by == auth.Host {
					want = ErrForbidden
				}
				expect(t, fmt.Sprintf("%s makes %s of %s", by, role, to), a.SetRole("b", role), want)
				if g := b.Grant(); want == nil && (g.Role != role || !reflect.DeepEqual(g.In("lobby"), role.Actions())) {
					t.Errorf("%s made %s of %s, who may %v as %s", by, role, to, g.In("lobby"), g.Role)
				} else if len(g.In("yard")) > 0 && want == nil {
					t.Errorf("a role of one room reaches another")
				}
			}
		}
	}
	r, _ := newRooms(t)
	few := &auth.Grant{Role: auth.Host, Can: []auth.Action{auth.Watch, auth.Moderate}, Rooms: []string{"*"}}
	a, b := enter(t, r, "lobby", "a", few), enter(t, r, "lobby", "b", granted(auth.Viewer))
	expect(t, "hand over", a.SetRole("b", auth.Host), nil)
	if got := b.Grant().In("lobby"); !reflect.DeepEqual(got, few.Can) {
		t.Errorf("a host who may %v made one who may %v", few.Can, got)
	}
}

func TestTheLastHostHandsOver(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Viewer))
	ann.heard, bob.heard = nil, nil
	expect(t, "giving up", ann.SetRole("ann", auth.Publisher), ErrForbidden)
	expect(t, "handing over", ann.SetRole("bob", auth.Host), nil)
	expect(t, "giving up", ann.SetRole("ann", auth.Viewer), nil)
	bob.hears("= bob host", "+ ann host", "= ann viewer")
	ann.hears("= bob host", "= ann viewer")
	expect(t, "taking back", ann.SetRole("bob", auth.Viewer), ErrForbidden)
	expect(t, "nobody", bob.SetRole("nobody", auth.Viewer), ErrUnknownTarget)
}

func TestALowerRoleEndsWhatItDoesNotAllow(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	expect(t, "publish", bob.Publish(Offer{Stream: feed("bob-camera")}), nil)
	ann.heard, bob.heard = nil, nil
	expect(t, "role", ann.SetRole("bob", auth.Viewer), nil)
	bob.hears("no stream bob-camera", "= bob viewer")
	ann.hears("no stream bob-camera", "= bob viewer")
	expect(t, "publish", bob.Publish(Offer{Stream: feed("bob-camera")}), ErrForbidden)
}

func TestMutes(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	ann.heard, bob.heard = nil, nil
	expect(t, "host", ann.Mute("bob", media.Audio, true), nil)
	bob.hears("muted audio true", "= bob publisher muted [audio]")
	ann.hears("= bob publisher muted [audio]")
	expect(t, "self", bob.Mute("bob", media.Audio, true), nil)
	expect(t, "self", bob.Mute("bob", media.Audio, false), nil) // the host's stays
	bob.hears()
	expect(t, "self", bob.Mute("bob", media.Video, true), nil)
	expect(t, "host", ann.Mute("bob", media.Video, false), nil) // nobody opens another's camera
	bob.hears("muted video true", "= bob publisher muted [video audio]")
	expect(t, "host", ann.Mute("bob", media.Audio, false), nil)
	bob.hears("muted audio false", "= bob publisher muted [video]")
	expect(t, "another", bob.Mute("ann", media.Audio, true), ErrForbidden)
}

// Who leaves and comes back by the same token, or another of the same subject, is as
// silent as before, until the room was empty.
func TestAHostsMuteOutlivesWhoeverLeaves(t *testing.T) {
	r, _ := newRooms(t)
	token := granted(auth.Publisher)
	token.Subject = "bob"
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob1", token)
	expect(t, "host", ann.Mute("bob1", media.Audio, true), nil)
	expect(t, "self", bob.Mute("bob1", media.Video, true), nil)
	bob.Leave()
	bob = enter(t, r, "lobby", "bob2", token)
	bob.hears("entered lobby [yard door] [ann bob2] as bob2 publisher muted [audio]", "muted audio true")
	expect(t, "self", bob.Mute("bob2", media.Audio, false), nil)
	bob.hears()
	expect(t, "host", ann.Mute("bob2", media.Audio, false), nil)
	bob.Leave()
	bob = enter(t, r, "lobby", "bob3", token)
	bob.hears("entered lobby [yard door] [ann bob3] as bob3 publisher")

	expect(t, "host", ann.Mute("bob3", media.Audio, true), nil)
	expect(t, "move", ann.Move("bob3", "hall"), nil) // it goes along
	bob.heard = nil
	bob.Leave()
	bob = enter(t, r, "hall", "bob4", token) // where nobody had muted it
	bob.hears("entered hall [] [bob4] as bob4 publisher")
	bob.Leave()
	ann.Leave()
	bob = enter(t, r, "lobby", "bob5", token)
	bob.hears("entered lobby [yard door] [bob5] as bob5 publisher")

	// those of whom no token says who they are aren't taken for each other
	ann = enter(t, r, "hall", "ann", granted(auth.Host))
	cid := enter(t, r, "hall", "cid", granted(auth.Publisher))
	expect(t, "host", ann.Mute("cid", media.Audio, true), nil)
	cid.Leave()
	dan := enter(t, r, "hall", "dan", granted(auth.Publisher))
	dan.hears("entered hall [] [ann dan] as dan publisher")
}

func TestRemoved(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	expect(t, "publish", bob.Publish(Offer{Stream: feed("bob-camera")}), nil)
	ann.heard, bob.heard = nil, nil
	expect(t, "remove", ann.Remove("bob"), nil)
	ann.hears("no stream bob-camera", "- bob publisher [bob-camera]")
	bob.hears("left: removed")
	if bob.Room() != "" || bob.Grant() != nil || !reflect.DeepEqual(bob.Snapshot(), Snapshot{}) {
		t.Error("who was removed is there")
	}
	enter(t, r, "lobby", "bob", granted(auth.Admin))
	expect(t, "a host, from outside", r.RemoveFrom("lobby", "bob", granted(auth.Host)), ErrForbidden)
	expect(t, "an admin, from outside", r.RemoveFrom("lobby", "bob", granted(auth.Admin)), nil)
	expect(t, "again", r.RemoveFrom("lobby", "bob", granted(auth.Admin)), ErrUnknownTarget)
	expect(t, "a viewer, from outside", r.RemoveFrom("lobby", "ann", granted(auth.Viewer)), ErrForbidden)
}

func TestMoved(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	eve := enter(t, r, "lobby", "eve", granted(auth.Host, "lobby"))
	cid := enter(t, r, "yard", "cid", granted(auth.Publisher))
	expect(t, "publish", bob.Publish(Offer{Stream: feed("bob-camera")}), nil)
	for _, g := range []*guest{ann, bob, cid, eve} {
		g.heard = nil
	}
	expect(t, "move", ann.Move("bob", "yard"), nil)
	ann.hears("no stream bob-camera", "- bob publisher [bob-camera]")
	cid.hears("+ bob publisher", "stream bob-camera by bob", "= bob publisher [bob-camera]")
	if n := len(bob.heard) - 1; n < 0 || words(bob.heard[n]) != "moved yard [yard bob-camera] [bob cid] as bob publisher [bob-camera]" {
		t.Errorf("bob heard %v", bob.heard)
	}
	if bob.Room() != "yard" {
		t.Errorf("bob is in %q", bob.Room())
	}
	expect(t, "to where he is", ann.Move("eve", "lobby"), ErrForbidden)
	expect(t, "to where the mover has nothing to say", eve.Move("ann", "yard"), ErrForbidden)
	expect(t, "to a room that isn't", ann.Move("eve", "nowhere"), ErrNotFound)
	expect(t, "who isn't there", ann.Move("bob", "yard"), ErrUnknownTarget)
	// eve's own grant ends at the lobby: she is a guest elsewhere
	expect(t, "move", ann.Move("eve", "door"), nil)
	if g := eve.Grant(); g.Role != auth.Publisher || !reflect.DeepEqual(g.In("door"), auth.Publisher.Actions()) || len(g.In("lobby")) > 0 {
		t.Errorf("eve is %+v", g)
	}
	expect(t, "close", r.CloseRoom("hall", auth.Open()), nil)
	dan := enter(t, r, "lobby", "dan", granted(auth.Viewer))
	expect(t, "to a closed room", ann.Move("dan", "hall"), ErrClosed)
	if dan.Room() != "lobby" {
		t.Error("a move that was refused has moved him")
	}
	admin := enter(t, r, "lobby", "admin", granted(auth.Admin))
	expect(t, "to a new room", admin.Move("dan", "new"), nil)
	if got := state(t, r, "new"); got != Active {
		t.Errorf("the new room is %s", got)
	}
}

// An absent participant who is moved doesn't keep his place for ever.
func TestMovedWhileAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRooms(t)
		ann, bob := enter(t, r, "lobby", "ann", granted(auth.Host)), enter(t, r, "lobby", "bob", granted(auth.Viewer))
		bob.Away()
		expect(t, "move", ann.Move("bob", "yard"), nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if bob.Room() != "" {
			t.Errorf("he is still in %s", bob.Room())
		}
	})
}

// A page that only watches, with a host's token, stays one that only watches.
func TestMovedIsWhatHeAskedToBe(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", auth.Open())
	wall, err := r.Join("lobby", Joining{ID: "wall", Grant: &auth.Grant{Role: auth.Host, Rooms: []string{"*"}}, Role: auth.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "move", ann.Move("wall", "yard"), nil)
	if g := wall.Grant(); g.Role != auth.Viewer || g.May(auth.Publish, "yard", "") || !g.May(auth.Watch, "yard", "yard") {
		t.Errorf("moved, he is %+v", g)
	}
	expect(t, "renewed", wall.Regrant(&auth.Grant{Role: auth.Host, Rooms: []string{"yard"}}), nil)
	if g := wall.Grant(); g.Role != auth.Viewer || g.May(auth.Moderate, "yard", "") || !slices.Equal(g.Rooms, []string{"yard"}) {
		t.Errorf("renewed, he is %+v", g)
	}
}

// Who moderates by a grant of some streams would otherwise give what he hasn't on the others.
func TestRolesReachNoFurtherThanTheirGiver(t *testing.T) {
	r, _ := newRooms(t)
	host := enter(t, r, "lobby", "host", granted(auth.Host))
	some := enter(t, r, "lobby", "some", &auth.Grant{Role: auth.Host, Rooms: []string{"lobby"}, Streams: []string{"door"}})
	door := enter(t, r, "lobby", "door", &auth.Grant{Role: auth.Viewer, Rooms: []string{"lobby"}, Streams: []string{"door"}})
	for what, err := range map[string]error{
		"a role": some.SetRole("door", auth.Viewer), "muting": some.Mute("host", media.Audio, true), "removing": some.Remove("door"),
		"locking": some.Lock(true), "closing": some.CloseRoom(), "moving": some.Move("door", "hall"),
	} {
		expect(t, what+" by who hosts some streams", err, ErrForbidden)
	}
	expect(t, "muting himself", some.Mute("some", media.Audio, true), nil)
	expect(t, "a host of some streams", host.SetRole("door", auth.Host), ErrForbidden)
	expect(t, "a publisher of some streams", host.SetRole("door", auth.Publisher), nil)
	if g := door.Grant(); !g.May(auth.Publish, "lobby", "door") || g.May(auth.Watch, "lobby", "yard") {
		t.Errorf("he got %+v", g)
	}
	expect(t, "the last who moderates the room gives that up", host.SetRole("host", auth.Viewer), ErrForbidden)
}
