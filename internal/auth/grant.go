package auth

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Action is one thing that somebody may be allowed to do.
type Action string

// All actions there are.
const (
	Watch      Action = "watch"      // be sent a stream
	Publish    Action = "publish"    // send a stream into a room
	Relay      Action = "relay"      // exchange messages with others of a room, and see who is there
	Control    Action = "control"    // use the keyboard and mouse of a desktop
	Moderate   Action = "moderate"   // mute, move and remove others, lock and close a room, invite
	Administer Action = "administer" // see and change the gateway itself
)

// Actions lists all actions, the harmless first.
var Actions = []Action{Watch, Publish, Relay, Control, Moderate, Administer}

// Role is a set of actions by name.
type Role string

// The roles, from the least to the most: each may all that those before it may.
const (
	Viewer    Role = "viewer"
	Publisher Role = "publisher"
	Host      Role = "host"
	Admin     Role = "admin"
)

// Roles lists all roles, from the least to the most.
var Roles = []Role{Viewer, Publisher, Host, Admin}

// TokenID names the token that the grant came of (jti, RFC 7519 §4.1.7), for a revocation
// and the log; "" if it has no name.
func (g *Grant) TokenID() string {
	if len(g.origins) == 0 {
		return ""
	}
	return g.origins[0].ID
}

// Actions is what the role may do; an unknown role may nothing.
func (r Role) Actions() []Action {
	switch r {
	case Viewer:
		return []Action{Watch}
	case Publisher:
		return []Action{Watch, Publish, Relay}
	case Host:
		return []Action{Watch, Publish, Relay, Control, Moderate}
	case Admin:
		return slices.Clone(Actions)
	}
	return nil
}

// Grant is what somebody may do, where, and until when. It is read only: who
// changes one changes a copy ([Grant.As]). The zero Grant may nothing.
type Grant struct {
	Subject string    // who: one name for limits and logs, from the token, the user's name or the share; "" in auth.mode none
	Name    string    // to be shown to others; "" if nobody said it
	Role    Role      // what is shown; decides the actions unless Can does
	Can     []Action  // the actions where they aren't the role's own: fewer or more; nil: the role's
	Rooms   []string  // patterns (path.Match) of rooms; none: nowhere; "*": everywhere, and the gateway itself
	Streams []string  // patterns (path.Match) of streams within these rooms; none: all
	Create  bool      // may make rooms by joining them
	Expires time.Time // zero: never

	origins []origin // the token that it came of, and those that this was made with
}

// Open is the grant that everybody has in auth.mode none.
func Open() *Grant {
	return &Grant{Role: Admin, Rooms: []string{"*"}, Create: true}
}

// May tells whether the grant allows an action on a stream of a room. Without a
// stream ("") it is about the room as a whole, without a room about the gateway
// itself, which only a grant for every room ("*") reaches. A grant for some streams
// neither moderates a room as a whole nor administers it: others are there for other
// streams. It does not look at the clock: see Expired. A nil grant may nothing.
func (g *Grant) May(action Action, room, stream string) bool {
	switch {
	case g == nil, !slices.Contains(g.actions(), action), !matchAny(g.Rooms, room):
		return false
	case g.allStreams():
		return true
	case stream == "":
		return action != Moderate && action != Administer
	}
	return matchAny(g.Streams, stream)
}

func (g *Grant) allStreams() bool { return len(g.Streams) == 0 || slices.Contains(g.Streams, "*") }

// In lists what the grant allows in a room, the harmless first; never nil.
func (g *Grant) In(room string) []Action {
	may := []Action{}
	for _, a := range Actions {
		if g.May(a, room, "") {
			may = append(may, a)
		}
	}
	return may
}

// Expired tells whether the grant has ended.
func (g *Grant) Expired(now time.Time) bool {
	return !g.Expires.IsZero() && !now.Before(g.Expires)
}

// As is the grant with another role's actions, such as one that a host has been
// handed in one room.
func (g *Grant) As(role Role) *Grant {
	c := *g
	c.Role, c.Can = role, nil
	return &c
}

// covers refuses a grant that somebody makes for others and that is more than
// their own, or that they may not make: they moderate its streams in all its rooms.
func (g *Grant) covers(made *Grant) error {
	if err := made.check(); err != nil {
		return err
	}
	for _, room := range made.Rooms {
		if !covered(g.Rooms, room) || !slices.Contains(g.actions(), Moderate) {
			return fmt.Errorf("%w: room %q", ErrForbidden, room)
		}
	}
	for _, stream := range made.Streams {
		if !g.allStreams() && !covered(g.Streams, stream) {
			return fmt.Errorf("%w: stream %q", ErrForbidden, stream)
		}
	}
	if !g.allStreams() && len(made.Streams) == 0 {
		return fmt.Errorf("%w: all streams", ErrForbidden)
	}
	for _, a := range made.actions() {
		if !slices.Contains(g.actions(), a) {
			return fmt.Errorf("%w: %s", ErrForbidden, a)
		}
	}
	if made.Create && !g.Create {
		return fmt.Errorf("%w: to make rooms", ErrForbidden)
	}
	return nil
}

// covered tells whether patterns match all that another pattern does, as far as
// that can be seen: it is one of them, or a plain name that they match.
func covered(patterns []string, p string) bool {
	return slices.Contains(patterns, p) || slices.Contains(patterns, "*") || !strings.ContainsAny(p, `*?[\`) && matchAny(patterns, p)
}

// Literal is the pattern that matches one name alone.
func Literal(name string) string {
	return literal.Replace(name)
}

var literal = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// Actions is what the grant allows where it reaches, the harmless first; never nil.
func (g *Grant) Actions() []Action {
	may := []Action{}
	for _, a := range Actions {
		if g != nil && slices.Contains(g.actions(), a) {
			may = append(may, a)
		}
	}
	return may
}

func (g *Grant) actions() []Action {
	if g.Can != nil {
		return g.Can
	}
	return g.Role.Actions()
}

// check tells what is wrong with a grant that comes from outside.
func (g *Grant) check() error {
	if !slices.Contains(Roles, g.Role) {
		return fmt.Errorf("role %.64q is none of %s", g.Role, join(Roles))
	}
	for _, a := range g.Can {
		if !slices.Contains(Actions, a) {
			return fmt.Errorf("action %.64q is none of %s", a, join(Actions))
		}
	}
	if len(g.Rooms) == 0 {
		return fmt.Errorf("it names no rooms; [\"*\"] stands for all")
	}
	if len(g.Rooms)+len(g.Streams) > maxPatterns {
		return fmt.Errorf("more than %d patterns", maxPatterns)
	}
	for _, p := range slices.Concat(g.Rooms, g.Streams) {
		if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > maxPattern {
			return fmt.Errorf("%.64q is no pattern of names", p)
		}
	}
	if len(g.Subject) > maxName {
		return fmt.Errorf("a subject has at most %d bytes", maxName)
	}
	if shown(g.Name) != g.Name {
		return fmt.Errorf("a name is one line of at most %d bytes without control characters", MaxShown)
	}
	return nil
}

const (
	maxPatterns = 64
	maxPattern  = 128 // bytes
	maxName     = 128 // bytes of a subject
)

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// join writes names for people.
func join[T ~string](names []T) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}
