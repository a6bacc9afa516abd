package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/stream"
)

// feed is a Stream that is only there.
type feed string

func (f feed) Name() string                                   { return string(f) }
func (f feed) Info() stream.Info                              { return stream.Info{Name: string(f), Title: "the " + string(f)} }
func (f feed) Watch(func(stream.Info)) func()                 { return func() {} }
func (f feed) Tracks(context.Context) ([]media.Track, error)  { return nil, nil }
func (f feed) Subscribe(string) (*stream.Subscription, error) { return nil, nil }
func (f feed) Current(*stream.Subscription) bool              { return true }
func (f feed) Target(string, int) int                         { return 0 }

// feeds are the pipelines of a test.
type feeds struct {
	mu   sync.Mutex
	here map[string]bool
}

func (f *feeds) Stream(name string) (Stream, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return feed(name), f.here[name]
}

func (f *feeds) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.here))
}

func (f *feeds) set(name string, here bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delete(f.here, name); here {
		f.here[name] = true
	}
}

// newRooms has the pipelines door and yard, and the room lobby with both and a
// third that isn't there.
func newRooms(t *testing.T) (*Rooms, *feeds) {
	t.Helper()
	pipelines := &feeds{here: map[string]bool{"door": true, "yard": true}}
	r := New(Options{
		Rooms: []config.Room{
			{Name: "lobby", Title: "Lobby", Streams: []string{"yard", "door", "roof"}, MaxParticipants: 4, DepartureTimeout: time.Minute},
			{Name: "hall", EmptyTimeout: time.Hour, DepartureTimeout: time.Minute},
		},
		Default:   config.Room{EmptyTimeout: 5 * time.Minute, DepartureTimeout: 30 * time.Second},
		Made:      2,
		Pipelines: pipelines,
		Logger:    slog.New(slog.DiscardHandler),
	})
	t.Cleanup(r.Close)
	return r, pipelines
}

func granted(role auth.Role, rooms ...string) *auth.Grant {
	if len(rooms) == 0 {
		rooms = []string{"*"}
	}
	return &auth.Grant{Role: role, Rooms: rooms, Create: role == auth.Admin}
}

// guest is somebody in a room, and what he has heard.
type guest struct {
	*Participant
	t     *testing.T
	heard []Event
}

func enter(t *testing.T, r *Rooms, room, id string, grant *auth.Grant) *guest {
	t.Helper()
	g, err := try(t, r, room, id, grant)
	if err != nil {
		t.Fatalf("%s can't join %s: %v", id, room, err)
	}
	return g
}

func try(t *testing.T, r *Rooms, room, id string, grant *auth.Grant) (*guest, error) {
	g := &guest{t: t}
	var err error
	g.Participant, err = r.Join(room, Joining{ID: id, Name: strings.ToUpper(id), Grant: grant, Create: true, Sink: func(e Event) { g.heard = append(g.heard, e) }})
	return g, err
}

// hears checks what a guest has heard since it was last asked.
func (g *guest) hears(want ...string) {
	g.t.Helper()
	var got []string
	for _, e := range g.heard {
		got = append(got, words(e))
	}
	g.heard = nil
	if !slices.Equal(got, want) {
		g.t.Errorf("%s heard %q, want %q", g.id, got, want)
	}
}

// words is an event in short.
func words(e Event) string {
	profile := func(f Profile) string {
		s := fmt.Sprintf("%s %s", f.ID, f.Role)
		if len(f.Streams) > 0 {
			s += fmt.Sprint(" ", f.Streams)
		}
		if len(f.Muted) > 0 {
			s += fmt.Sprint(" muted ", f.Muted)
		}
		if f.Absent {
			s += " absent"
		}
		return s
	}
	snapshot := func(s Snapshot) string {
		var offers, people []string
		for _, o := range s.Offers {
			offers = append(offers, o.Name())
		}
		for _, f := range s.Participants {
			people = append(people, f.ID)
		}
		return fmt.Sprintf("%s %v %v as %s", s.Room.ID, offers, people, profile(s.Self))
	}
	switch e := e.(type) {
	case Entered:
		return "entered " + snapshot(e.Snapshot)
	case Moved:
		return "moved " + snapshot(e.Snapshot)
	case Left:
		return "left: " + string(e.Reason)
	case Muted:
		return fmt.Sprintf("muted %s %t", e.Kind, e.On)
	case Joined:
		return "+ " + profile(e.Profile)
	case Departed:
		return "- " + profile(e.Profile)
	case Changed:
		return "= " + profile(e.Profile)
	case *Presence:
		var here []string
		for _, f := range e.Here {
			here = append(here, profile(f))
		}
		return fmt.Sprintf("here %v gone %v", slices.Sorted(slices.Values(here)), slices.Sorted(slices.Values(e.Gone)))
	case StreamStarted:
		return "stream " + e.Name() + " by " + e.Publisher
	case StreamEnded:
		return "no stream " + e.Name
	case RoomChanged:
		return fmt.Sprintf("locked %t", e.Locked)
	case Relayed:
		return fmt.Sprintf("%s says %v", e.From, e.Message)
	}
	return "?"
}

func state(t *testing.T, r *Rooms, id string) State {
	t.Helper()
	s, _, err := r.Room(id, auth.Open())
	if errors.Is(err, ErrNotFound) {
		return "gone"
	}
	return s.State
}

func expect(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestEveryPipelineIsARoom(t *testing.T) {
	r, _ := newRooms(t)
	var got []string
	for _, s := range r.List(auth.Open()) {
		got = append(got, fmt.Sprintf("%s %q %s %v", s.ID, s.Title, s.State, s.Streams))
	}
	want := []string{`door "the door" idle [door]`, `hall "hall" idle []`, `lobby "Lobby" idle [yard door]`, `yard "the yard" idle [yard]`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ann := enter(t, r, "door", "ann", granted(auth.Viewer))
	ann.hears("entered door [door] [] as ann viewer")
	if got := state(t, r, "door"); got != Active {
		t.Errorf("the room is %s", got)
	}
	ann.Leave()
	ann.Leave()
	if got := state(t, r, "door"); got != Idle {
		t.Errorf("the room is %s", got)
	}
	if len(r.rooms) != 2 {
		t.Errorf("a pipeline's room is kept though nobody is there: %d", len(r.rooms))
	}
}

func TestOnlyThoseWhoTakePartSeeWhoIsThere(t *testing.T) {
	r, _ := newRooms(t)
	eve := enter(t, r, "lobby", "eve", granted(auth.Viewer))
	eve.hears("entered lobby [yard door] [] as eve viewer")
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	bob.hears("entered lobby [yard door] [bob eve] as bob publisher")
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	ann.hears("entered lobby [yard door] [ann bob eve] as ann host")
	bob.hears("+ ann host")
	eve.Leave()
	bob.hears("- eve viewer")
	ann.hears("- eve viewer")
	eve.hears()
	if f := ann.Snapshot().Self; f.Name != "ANN" {
		t.Errorf("her name is %q", f.Name)
	}
}

func TestGrantsDecideWhoEnters(t *testing.T) {
	r, _ := newRooms(t)
	maker := granted(auth.Publisher, "team-*")
	maker.Create = true
	for _, c := range []struct {
		room  string
		grant *auth.Grant
		want  error
	}{
		{"lobby", granted(auth.Viewer, "lobby"), nil},
		{"door", granted(auth.Viewer, "lobby"), ErrForbidden},
		{"nothing", granted(auth.Viewer, "lobby"), ErrForbidden}, // not even that it isn't there
		{"nothing", granted(auth.Host), ErrNotFound},
		{"lobby", &auth.Grant{}, ErrForbidden},
		{"lobby", nil, ErrForbidden},
		{"lobby", &auth.Grant{Role: auth.Admin, Can: []auth.Action{}, Rooms: []string{"*"}}, ErrForbidden},
		{"team-a", maker, nil},
		{"a-team", maker, ErrForbidden},
		{"team-a/b", maker, ErrNotFound},
		{"team- b", maker, ErrNotFound}, // no name of a room
		{"team-b", maker, nil},
		{"team-c", maker, ErrTooMany},
	} {
		p, err := r.Join(c.room, Joining{ID: "u-" + c.room, Grant: c.grant, Create: true})
		if !errors.Is(err, c.want) || (err == nil) != (p != nil) {
			t.Errorf("%s with %+v: %v, want %v", c.room, c.grant, err, c.want)
		}
	}
	for _, s := range r.List(granted(auth.Viewer, "team-*")) {
		if !s.Made || s.State != Active {
			t.Errorf("%+v", s)
		}
	}
	if _, people, err := r.Room("lobby", granted(auth.Viewer, "lobby")); err != nil || people != nil {
		t.Errorf("a viewer sees %v, %v", people, err)
	}
	if _, people, err := r.Room("lobby", granted(auth.Publisher, "lobby")); err != nil || len(people) != 1 {
		t.Errorf("a publisher sees %v, %v", people, err)
	}
	_, _, err := r.Room("lobby", granted(auth.Admin, "door"))
	expect(t, "a room of others", err, ErrForbidden)
}

func TestSomebodyMayJoinAsLessThanIsGranted(t *testing.T) {
	r, _ := newRooms(t)
	p, err := r.Join("lobby", Joining{ID: "ann", Grant: granted(auth.Admin), Role: auth.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Grant().In("lobby"); !reflect.DeepEqual(got, []auth.Action{auth.Watch}) || p.Grant().Role != auth.Viewer {
		t.Errorf("may %v as %s", got, p.Grant().Role)
	}
	p, err = r.Join("lobby", Joining{ID: "bob", Grant: granted(auth.Viewer), Role: auth.Admin})
	if err != nil || p.Grant().Role != auth.Viewer || p.Grant().May(auth.Publish, "lobby", "") {
		t.Errorf("asking for more gave %+v, %v", p.Grant(), err)
	}
	few := &auth.Grant{Role: auth.Host, Can: []auth.Action{auth.Relay, auth.Moderate}, Rooms: []string{"*"}}
	p, err = r.Join("lobby", Joining{ID: "cid", Grant: few, Role: auth.Publisher})
	if err != nil || !reflect.DeepEqual(p.Grant().In("lobby"), []auth.Action{auth.Relay}) {
		t.Errorf("less than few is %+v, %v", p.Grant(), err)
	}
}

func TestStreamsAreShownToThoseWhoMayWatchThem(t *testing.T) {
	r, pipelines := newRooms(t)
	only := granted(auth.Viewer)
	only.Streams = []string{"door"}
	eve := enter(t, r, "lobby", "eve", only)
	ann := enter(t, r, "lobby", "ann", granted(auth.Publisher))
	eve.hears("entered lobby [door] [] as eve viewer")
	ann.heard = nil
	_, err := eve.Offer("yard")
	expect(t, "a stream that isn't granted", err, ErrNotFound)
	if o, err := ann.Offer("yard"); err != nil || o.Name() != "yard" {
		t.Errorf("got %v, %v", o, err)
	}
	_, err = ann.Offer("roof")
	expect(t, "a pipeline that isn't there", err, ErrNotFound)
	pipelines.set("roof", true)
	r.Began("roof")
	ann.hears("stream roof by ")
	pipelines.set("door", false)
	r.Ended("door")
	ann.hears("no stream door")
	eve.hears("no stream door")
}

func TestPublishedStreamsComeAndGo(t *testing.T) {
	r, pipelines := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Publisher))
	eve := enter(t, r, "lobby", "eve", granted(auth.Viewer))
	ann.heard, eve.heard = nil, nil
	expect(t, "publishing as a viewer", eve.Publish(Offer{Stream: feed("eve-camera")}), ErrForbidden)
	expect(t, "under a pipeline's name", ann.Publish(Offer{Stream: feed("door")}), ErrNameTaken)
	if err := ann.Publish(Offer{Stream: feed("ann-camera"), Label: "camera"}); err != nil {
		t.Fatal(err)
	}
	expect(t, "twice", ann.Publish(Offer{Stream: feed("ann-camera")}), ErrNameTaken)
	eve.hears("stream ann-camera by ann")
	ann.hears("stream ann-camera by ann", "= ann publisher [ann-camera]")
	if o, err := eve.Offer("ann-camera"); err != nil || o.Publisher != "ann" || o.Label != "camera" {
		t.Errorf("got %+v, %v", o, err)
	}
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	bob.hears("entered lobby [yard door ann-camera] [ann bob eve] as bob publisher")
	expect(t, "another's", bob.Unpublish("ann-camera"), ErrNotFound)
	if err := ann.Unpublish("ann-camera"); err != nil {
		t.Fatal(err)
	}
	eve.hears("no stream ann-camera")
	bob.hears("no stream ann-camera", "= ann publisher")

	// a publisher stands in for a pipeline that is missing, and it comes back
	if err := bob.Publish(Offer{Stream: feed("roof")}); err != nil {
		t.Fatal(err)
	}
	pipelines.set("roof", true)
	r.Began("roof")
	eve.hears("stream roof by bob")
	bob.Leave()
	eve.hears("no stream roof", "stream roof by ")
	expect(t, "after the end", bob.Publish(Offer{Stream: feed("x")}), ErrLeft)
}

// Names that begin with a participant's userId are his: nobody can be there first, so that
// he can't show his screen.
func TestNamesOfAnotherCannotBeTaken(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Publisher))
	bob := enter(t, r, "lobby", "bob", granted(auth.Publisher))
	expect(t, "ann's", bob.Publish(Offer{Stream: feed("ann-screen")}), ErrNameTaken)
	expect(t, "like ann's", bob.Publish(Offer{Stream: feed("anna-screen")}), nil)
	expect(t, "ann's own", ann.Publish(Offer{Stream: feed("ann-screen")}), nil)
	ann.Leave()
	expect(t, "nobody's", bob.Publish(Offer{Stream: feed("ann-screen")}), nil)
}

func TestMessagesReachTheirTarget(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Publisher))
	bob := enter(t, r, "lobby", "bob", granted(auth.Host))
	eve := enter(t, r, "lobby", "eve", granted(auth.Viewer))
	out := enter(t, r, "yard", "out", granted(auth.Publisher))
	if _, err := r.Join("lobby", Joining{ID: "mute", Grant: granted(auth.Publisher), Deaf: true}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*guest{ann, bob, eve, out} {
		g.heard = nil
	}
	expect(t, "to another", ann.Relay("bob", "hello"), nil)
	expect(t, "to all", bob.Relay("", "all"), nil)
	expect(t, "to oneself", ann.Relay("ann", "me"), nil)
	expect(t, "to nobody", ann.Relay("nobody", "x"), ErrUnknownTarget)
	expect(t, "to another room", ann.Relay("out", "x"), ErrUnknownTarget)
	expect(t, "to a viewer", ann.Relay("eve", "x"), ErrForbidden)
	expect(t, "to one who can't be told", ann.Relay("mute", "x"), ErrForbidden)
	expect(t, "from a viewer", eve.Relay("ann", "x"), ErrForbidden)
	expect(t, "from a viewer to nobody", eve.Relay("nobody", "x"), ErrForbidden)
	bob.hears("ann says hello")
	ann.hears("bob says all", "ann says me")
	eve.hears()
	out.hears()
}

func TestARenewedGrantTakesTheOldOnesPlace(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Publisher))
	bob := enter(t, r, "lobby", "bob", granted(auth.Host))
	expect(t, "publish", ann.Publish(Offer{Stream: feed("ann-camera")}), nil)
	ann.heard, bob.heard = nil, nil
	expect(t, "regrant", ann.Regrant(granted(auth.Viewer)), nil)
	bob.hears("no stream ann-camera", "= ann viewer")
	ann.hears("no stream ann-camera", "= ann viewer")
	expect(t, "regrant", ann.Regrant(granted(auth.Publisher)), nil)
	ann.hears("= ann publisher", "+ bob host")
	expect(t, "elsewhere", ann.Regrant(granted(auth.Publisher, "yard")), ErrForbidden)
	expect(t, "role", bob.SetRole("ann", auth.Viewer), nil)
	expect(t, "regrant", ann.Regrant(granted(auth.Publisher)), nil)
	if g := ann.Grant(); g.Role != auth.Viewer {
		t.Errorf("a renewed token undid what a host had done: %s", g.Role)
	}
}

// What a viewer's coming and going costs in a room of a thousand, where ten see it.
func BenchmarkJoinAndLeaveAmongAThousand(b *testing.B) {
	r := New(Options{Rooms: []config.Room{{Name: "lobby"}}, Pipelines: &feeds{}, Logger: slog.New(slog.DiscardHandler)})
	heard := 0
	for i := range 1000 {
		role := auth.Viewer
		if i%100 == 0 {
			role = auth.Host
		}
		if _, err := r.Join("lobby", Joining{ID: fmt.Sprint(i), Grant: granted(role), Sink: func(Event) { heard++ }}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		p, err := r.Join("lobby", Joining{ID: "one more", Grant: granted(auth.Viewer)})
		if err != nil {
			b.Fatal(err)
		}
		p.Leave()
	}
}
