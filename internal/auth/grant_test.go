package auth

import (
	"slices"
	"testing"
	"time"
)

func TestRolesHoldTheirActions(t *testing.T) {
	want := map[Role][]Action{
		Viewer:    {Watch},
		Publisher: {Watch, Publish, Relay},
		Host:      {Watch, Publish, Relay, Control, Moderate},
		Admin:     {Watch, Publish, Relay, Control, Moderate, Administer},
		"root":    nil,
	}
	for role, actions := range want {
		if got := role.Actions(); !slices.Equal(got, actions) {
			t.Errorf("%s may %v, want %v", role, got, actions)
		}
	}
	Admin.Actions()[0] = "spoilt"
	if Actions[0] != Watch {
		t.Error("a caller could change what all actions are")
	}
}

func TestGrantsReachOnlyWhatTheyName(t *testing.T) {
	var none *Grant
	for _, c := range []struct {
		name   string
		grant  *Grant
		action Action
		room   string
		stream string
		want   bool
	}{
		{"no grant", none, Watch, "lobby", "", false},
		{"zero grant", &Grant{}, Watch, "lobby", "", false},
		{"role without rooms", &Grant{Role: Admin}, Administer, "", "", false},
		{"its room", &Grant{Role: Viewer, Rooms: []string{"lobby"}}, Watch, "lobby", "cam", true},
		{"another room", &Grant{Role: Viewer, Rooms: []string{"lobby"}}, Watch, "lobby2", "cam", false},
		{"case counts", &Grant{Role: Viewer, Rooms: []string{"lobby"}}, Watch, "Lobby", "", false},
		{"more than the role", &Grant{Role: Viewer, Rooms: []string{"*"}}, Publish, "lobby", "", false},
		{"pattern", &Grant{Role: Viewer, Rooms: []string{"hall-*"}}, Watch, "hall-2", "", true},
		{"pattern of others", &Grant{Role: Viewer, Rooms: []string{"hall-*"}}, Watch, "shall-2", "", false},
		{"all but slashes", &Grant{Role: Viewer, Rooms: []string{"*"}}, Watch, "a/b", "", false},
		{"its stream", &Grant{Role: Viewer, Rooms: []string{"*"}, Streams: []string{"cam*"}}, Watch, "lobby", "cam1", true},
		{"another stream", &Grant{Role: Viewer, Rooms: []string{"*"}, Streams: []string{"cam*"}}, Watch, "lobby", "screen", false},
		{"the room of its stream", &Grant{Role: Viewer, Rooms: []string{"*"}, Streams: []string{"cam*"}}, Watch, "lobby", "", true},
		{"the gateway", &Grant{Role: Admin, Rooms: []string{"*"}}, Administer, "", "", true},
		{"the gateway by who has some streams", &Grant{Role: Admin, Rooms: []string{"*"}, Streams: []string{"door"}}, Administer, "", "", false},
		{"a room by who has some streams", &Grant{Role: Admin, Rooms: []string{"*"}, Streams: []string{"door"}}, Administer, "lobby", "", false},
		{"moderating a room by who has some streams", &Grant{Role: Host, Rooms: []string{"*"}, Streams: []string{"door"}}, Moderate, "lobby", "", false},
		{"moderating a stream", &Grant{Role: Host, Rooms: []string{"*"}, Streams: []string{"door"}}, Moderate, "lobby", "door", true},
		{"moderating another stream", &Grant{Role: Host, Rooms: []string{"*"}, Streams: []string{"door"}}, Moderate, "lobby", "yard", false},
		{"a room by who has all streams", &Grant{Role: Host, Rooms: []string{"*"}, Streams: []string{"door", "*"}}, Moderate, "lobby", "", true},
		{"the gateway from one room", &Grant{Role: Admin, Rooms: []string{"lobby"}}, Administer, "", "", false},
		{"fewer actions", &Grant{Role: Host, Can: []Action{Watch}, Rooms: []string{"*"}}, Moderate, "lobby", "", false},
		{"no actions", &Grant{Role: Host, Can: []Action{}, Rooms: []string{"*"}}, Watch, "lobby", "", false},
		{"more actions", &Grant{Role: Viewer, Can: []Action{Watch, Control}, Rooms: []string{"*"}}, Control, "lobby", "", true},
		{"broken pattern", &Grant{Role: Viewer, Rooms: []string{"["}}, Watch, "[", "", false},
		{"everybody", Open(), Administer, "", "", true},
	} {
		if got := c.grant.May(c.action, c.room, c.stream); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestGrantsEnd(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		expires time.Time
		want    bool
	}{{time.Time{}, false}, {now.Add(time.Second), false}, {now, true}, {now.Add(-time.Hour), true}} {
		if got := (&Grant{Expires: c.expires}).Expired(now); got != c.want {
			t.Errorf("expires %v: %v", c.expires, got)
		}
	}
}

func TestGrantAsAnotherRoleIsACopy(t *testing.T) {
	g := &Grant{Role: Viewer, Can: []Action{Watch}, Rooms: []string{"lobby"}}
	if h := g.As(Host); !h.May(Moderate, "lobby", "") || h.May(Moderate, "hall", "") || g.May(Moderate, "lobby", "") {
		t.Errorf("%+v from %+v", h, g)
	}
	if got := g.As(Publisher).In("lobby"); !slices.Equal(got, []Action{Watch, Publish, Relay}) {
		t.Errorf("may %v", got)
	}
}
