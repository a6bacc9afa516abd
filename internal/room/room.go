// Package room is who meets where: rooms, their participants, what each may do
// there, and the streams that are offered.
//
// It hides the rules: the life of a room (life.go), who may enter, see whom and
// talk to whom (participant.go), what a host may do to others (moderate.go), and
// that everybody hears of it in one order (event.go). It knows no sockets and
// moves no media.
//
// One mutex guards all rooms; it is held for a few map operations at a time,
// also while the sinks of those concerned take an event, which never blocks.
// There are no goroutines but those of timers, which end with [Rooms.Close].
package room

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/stream"
)

// What is refused, and why; errors wrap these with words for people.
var (
	ErrNotFound      = errors.New("there is no such room or stream")
	ErrForbidden     = errors.New("not allowed")
	ErrClosed        = errors.New("the room is closed")
	ErrLocked        = errors.New("the room is locked")
	ErrFull          = errors.New("the room is full")
	ErrTooMany       = errors.New("too many rooms")
	ErrUnknownTarget = errors.New("nobody of that userId is in the room")
	ErrNameTaken     = errors.New("the room has a stream of that name")
	ErrLeft          = errors.New("has left the room")
)

// Stream is what can be watched in a room, fed by a pipeline or by a publisher.
type Stream interface {
	Name() string
	Info() stream.Info
	// Watch has f called at every change until cancel; f must not block or call the stream.
	Watch(f func(stream.Info)) (cancel func())
	// Tracks waits until the tracks are known.
	Tracks(context.Context) ([]media.Track, error)
	Subscribe(track string) (*stream.Subscription, error)
	// Current tells whether a subscription reads a track as it is encoded now.
	Current(*stream.Subscription) bool
	// Target is the bit/s that the network must carry of a viewer who moves to a track.
	Target(track string, carries int) (bps int)
}

// Pipelines are the streams that the gateway's own pipelines feed. Each is in the
// rooms that the configuration lists it for, and in the room of its own name.
type Pipelines interface {
	Stream(name string) (Stream, bool)
	Names() []string
}

// Offer is a stream in a room.
type Offer struct {
	Stream
	Publisher string // the userId of who publishes it; "": a pipeline feeds it
	Label     string // what its publisher calls it, such as camera
	Title     string // for people; "": the stream's own
}

// Options are what rooms are made of.
type Options struct {
	Rooms     []config.Room // those of the configuration
	Default   config.Room   // how the others are
	Made      int           // rooms made on join that may exist at a time; 0: none
	Pipelines Pipelines
	Logger    *slog.Logger // nil: slog.Default
}

// Rooms are all rooms of a gateway. Methods may be called from any goroutine and
// don't block.
type Rooms struct {
	pipelines Pipelines
	common    config.Room
	most      int // made rooms
	log       *slog.Logger
	crowd     int // see the constant; tests have smaller ones

	mu     sync.Mutex // guards below, and all of every room and participant
	rooms  map[string]*room
	closed bool
}

// origin is why a room exists.
type origin uint8

const (
	configured origin = iota // by the configuration: it stays
	implied                  // by a pipeline of its name: kept while it holds more than that
	made                     // by who joined: it goes after its timeout
)

// room is one room that is kept. All is guarded by Rooms.mu.
type room struct {
	rooms     *Rooms
	id        string
	conf      config.Room
	origin    origin
	state     State
	locked    bool
	since     time.Time // of the state
	expiry    *time.Timer
	members   map[string]*Participant // by userId
	published map[string]Offer        // by the stream's name
	silenced  map[silence]struct{}    // what hosts have muted, also while who it is about is away
	audience  int                     // members who see who is there
	lot       lot
}

// New makes the rooms of a configuration.
func New(o Options) *Rooms {
	r := &Rooms{
		pipelines: o.Pipelines, common: o.Default, most: o.Made,
		log: cmp.Or(o.Logger, slog.Default()), rooms: make(map[string]*room), crowd: crowd,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conf := range o.Rooms {
		r.rooms[conf.Name] = r.draft(conf, configured)
		r.rooms[conf.Name].settle()
	}
	return r
}

// Close ends all timers. Participants stay where they are: their sessions end
// them. Idempotent.
func (r *Rooms) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, one := range r.rooms {
		one.stop()
		one.lot.drop()
		for _, p := range one.members {
			p.stop()
		}
	}
}

// ValidName tells whether a text can name a room, or a stream in one.
func ValidName(name string) bool { return config.ValidStreamName(name) }

// draft is a room that isn't kept yet.
func (r *Rooms) draft(conf config.Room, why origin) *room {
	return &room{
		rooms: r, id: conf.Name, conf: conf, origin: why, state: Idle, since: time.Now(),
		members: make(map[string]*Participant), published: make(map[string]Offer), silenced: make(map[silence]struct{}),
	}
}

// find is a room that exists, or nil. One that only a pipeline implies isn't kept
// by that.
func (r *Rooms) find(id string) *room {
	if one := r.rooms[id]; one != nil {
		return one
	}
	if _, ok := r.pipelines.Stream(id); !ok {
		return nil
	}
	return r.draft(r.named(id), implied)
}

// named is how a room is that the configuration doesn't list.
func (r *Rooms) named(id string) config.Room {
	conf := r.common
	conf.Name, conf.Title, conf.Streams = id, "", nil
	return conf
}

// findOrMake is a room for somebody to enter, who keeps it.
func (r *Rooms) findOrMake(id string, create bool) (*room, error) {
	if one := r.find(id); one != nil {
		return one, nil
	}
	if !create || !ValidName(id) {
		return nil, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	n := 0
	for _, other := range r.rooms {
		if other.origin == made {
			n++
		}
	}
	if n >= r.most {
		return nil, fmt.Errorf("%w: %d were made on join, which is the limit", ErrTooMany, n)
	}
	r.log.Info("room made", "room", id)
	return r.draft(r.named(id), made), nil
}

// offers lists the streams of a room that somebody may watch: the pipelines in
// the configuration's order, then what is published, by name.
func (one *room) offers(may func(stream string) bool) []Offer {
	list := []Offer{} // [], not null
	for _, name := range one.pipelines() {
		if o, ok := one.offer(name); ok && o.Publisher == "" && may(name) {
			list = append(list, o)
		}
	}
	n := len(list)
	for name, o := range one.published {
		if may(name) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list[n:], func(a, b Offer) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

// pipelines names the pipelines that are offered in a room, if they are there.
func (one *room) pipelines() []string {
	if one.origin == configured {
		return one.conf.Streams
	}
	return []string{one.id}
}

// offer finds a stream of a room.
func (one *room) offer(name string) (Offer, bool) {
	if o, ok := one.published[name]; ok {
		return o, true
	}
	if !slices.Contains(one.pipelines(), name) {
		return Offer{}, false
	}
	s, ok := one.rooms.pipelines.Stream(name)
	return Offer{Stream: s}, ok
}

// title is what people see.
func (one *room) title() string {
	if one.conf.Title == "" && one.origin != configured {
		if s, ok := one.rooms.pipelines.Stream(one.id); ok {
			return s.Info().Title
		}
	}
	return cmp.Or(one.conf.Title, one.id)
}

// Info is a room as those in it see it.
type Info struct {
	ID     string `json:"roomId"`
	Title  string `json:"title"`
	State  State  `json:"state"`
	Locked bool   `json:"locked"`
}

func (one *room) info() Info { return Info{one.id, one.title(), one.state, one.locked} }

// Summary is a room as it is seen from outside.
type Summary struct {
	Info
	Since           int64    `json:"since"` // of the state, Unix milliseconds
	Made            bool     `json:"made"`  // by who joined: it goes when it was empty for long
	Streams         []string `json:"streams"`
	Participants    int      `json:"participants"`
	MaxParticipants int      `json:"maxParticipants,omitempty"` // 0: no limit
}

// summary tells of a room to somebody with a grant.
func (one *room) summary(grant *auth.Grant) Summary {
	s := Summary{
		Info: one.info(), Since: one.since.UnixMilli(), Made: one.origin == made,
		Streams: []string{}, Participants: len(one.members), MaxParticipants: one.conf.MaxParticipants,
	}
	for _, o := range one.offers(func(name string) bool { return grant.May(auth.Watch, one.id, name) }) {
		s.Streams = append(s.Streams, o.Name())
	}
	return s
}

// List tells of all rooms in which a grant allows anything, in the order of their
// names.
func (r *Rooms) List(grant *auth.Grant) []Summary {
	names := r.pipelines.Names()
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.rooms {
		names = append(names, id)
	}
	slices.Sort(names)
	list := []Summary{} // [], not null
	for _, id := range slices.Compact(names) {
		if one := r.find(id); one != nil && anything(grant, id) {
			list = append(list, one.summary(grant))
		}
	}
	return list
}

// Room tells of one room, and who is there if the grant lets that be seen. Errors:
// ErrForbidden, also where there is no such room, and ErrNotFound.
func (r *Rooms) Room(id string, grant *auth.Grant) (Summary, []Profile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !anything(grant, id) {
		return Summary{}, nil, fmt.Errorf("%w: nothing is granted in %.64q", ErrForbidden, id)
	}
	one := r.find(id)
	if one == nil {
		return Summary{}, nil, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	var people []Profile
	if seesPeople(grant, id) {
		people = one.profiles()
	}
	return one.summary(grant), people, nil
}

// Offer finds a stream of a room that a grant lets watch, for who isn't there.
// Errors: ErrForbidden, ErrNotFound, ErrClosed, ErrLocked.
func (r *Rooms) Offer(id, name string, grant *auth.Grant) (Offer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !grant.May(auth.Watch, id, name) {
		return Offer{}, fmt.Errorf("%w: it takes watch of %.64q in %.64q", ErrForbidden, name, id)
	}
	one := r.find(id)
	if one == nil {
		return Offer{}, fmt.Errorf("%w: %.64q", ErrNotFound, id)
	}
	switch {
	case one.state == Closed:
		return Offer{}, fmt.Errorf("%w: %q", ErrClosed, id)
	case one.locked && !grant.May(auth.Moderate, id, ""):
		return Offer{}, fmt.Errorf("%w: %q", ErrLocked, id)
	}
	if o, ok := one.offer(name); ok {
		return o, nil
	}
	return Offer{}, fmt.Errorf("%w: no stream %.64q in room %q", ErrNotFound, name, id)
}

// anything tells whether a grant allows anything in a room.
func anything(grant *auth.Grant, id string) bool {
	return len(grant.In(id)) > 0
}

// seesPeople is the rule of who sees who is there: those who take part. To tell
// each of many viewers of all others would be many messages that nobody wants.
func seesPeople(grant *auth.Grant, id string) bool {
	return grant.May(auth.Publish, id, "") || grant.May(auth.Relay, id, "") || grant.May(auth.Moderate, id, "")
}

// Stats counts rooms by state, without those that only a pipeline implies, and
// participants by role.
func (r *Rooms) Stats() (rooms map[State]int, participants map[auth.Role]int) {
	rooms, participants = make(map[State]int), make(map[auth.Role]int)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.rooms {
		rooms[one.state]++
		for _, p := range one.members {
			participants[p.grant.Role]++
		}
	}
	return rooms, participants
}

// Began tells those in its rooms that a pipeline is there now.
func (r *Rooms) Began(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.rooms {
		if o, ok := one.offer(name); ok && o.Publisher == "" {
			one.tell(StreamStarted{o}, watchers(name))
		}
	}
}

// Ended tells those in its rooms that a pipeline is gone.
func (r *Rooms) Ended(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.rooms {
		if _, published := one.published[name]; !published && slices.Contains(one.pipelines(), name) {
			one.tell(StreamEnded{name}, watchers(name))
		}
	}
}
