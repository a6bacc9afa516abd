package config

import (
	"fmt"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxRooms is how many rooms can be listed, and how many streams in each.
const maxRooms = 1000

// maxSocket is how long a socket's path may be: the kernel has room for 108 bytes, and a
// draft of the name is longer.
const maxSocket = 80

// Room is where people meet.
type Room struct {
	Name             string        // as streams are named; "" in Gateway.Room
	Title            string        // default: the name
	Streams          []string      // pipelines that are offered there; default none
	MaxParticipants  int           // at a time; 0: no limit
	EmptyTimeout     time.Duration // how long it stays idle until it closes; 0: forever
	DepartureTimeout time.Duration // how long a participant whose connection was lost keeps the place
	Socket           string        // path of the Unix socket for programs of this machine; "": none
}

// roomSchema is one entry of rooms.
var roomSchema = &schema{
	what: "room",
	keys: []key{
		{path: "title", kind: ofText, otherwise: "the name", unit: "at most 200 bytes", example: "Lobby", meaning: "what people see"},
		{path: "streams", kind: ofTexts, def: "[]", example: "[door, yard]", meaning: "pipelines that are offered there, by their names"},
		{path: "max_participants", kind: ofCount, otherwise: "room.max_participants", least: 0, most: 100_000, example: "50", meaning: "participants at a time, viewers included; 0: no limit but limits.viewers"},
		{path: "empty_timeout", kind: ofDuration, def: "0s", unit: "0s to 24h, 0s: never", least: 0, most: 24 * 3600, example: "1h", meaning: "how long after all have left it is closed, until it is opened again"},
		{path: "departure_timeout", kind: ofDuration, otherwise: "room.departure_timeout", unit: "0s to 10m", least: 0, most: 600, example: "1m", meaning: "how long a participant whose connection was lost keeps the place"},
		{path: "socket", kind: ofText, otherwise: "none", unit: "at most 80 bytes", example: "/run/gateway/lobby.sock", meaning: "a Unix socket on which programs of this machine exchange messages with those in the room"},
	},
}

// readRoom reads what a room and the defaults of all have in common.
func readRoom(m *mapping, def Room) Room {
	r := def
	r.MaxParticipants = m.integer("max_participants", def.MaxParticipants, "participants")
	r.EmptyTimeout = m.duration("empty_timeout", def.EmptyTimeout)
	r.DepartureTimeout = m.duration("departure_timeout", def.DepartureTimeout)
	return r
}

// readRooms reads rooms: each by its name.
func readRooms(m *mapping, def Room) []Room {
	n := m.value("rooms")
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.MappingNode:
		m.fault("rooms", "expected rooms by their names, found "+describe(n), "write it as {lobby: {title: Lobby, streams: [door, yard]}}")
		return nil
	case len(n.Content)/2 > maxRooms:
		m.fault("rooms", fmt.Sprintf("there are %d rooms", len(n.Content)/2), fmt.Sprintf("at most %d", maxRooms))
		return nil
	}
	def.EmptyTimeout = 0 // a listed room stays
	var rooms []Room
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		path := "rooms." + k.Value
		switch line, twice := lines[k.Value]; {
		case k.Kind != yaml.ScalarNode || !ValidStreamName(k.Value):
			m.d.fault(k, "rooms", quote(k.Value)+" can't be a room's name", "use letters, digits, - and _, at most 64, beginning with a letter or digit")
			continue
		case twice:
			m.d.fault(k, path, fmt.Sprintf("the room was already given in line %d", line), "remove one of them")
			continue
		}
		lines[k.Value] = k.Line
		sub := &document{file: m.d.file, schema: roomSchema, at: map[string]position{}, origins: m.d.origins}
		sm := sub.mapping(n.Content[i+1], "")
		r := readRoom(sm, def)
		r.Name, r.Title = k.Value, sm.text("title", "", 200)
		if hasControl(r.Title) {
			sm.fault("title", "it holds a control character", "write it on one line")
		}
		r.Streams = readRoomStreams(sm)
		r.Socket = sm.text("socket", "", maxSocket)
		for _, e := range sub.errs {
			e.Key = strings.TrimSuffix(path+"."+e.Key, ".")
			m.d.errs = append(m.d.errs, e)
		}
		rooms = append(rooms, r)
	}
	return rooms
}

// readRoomStreams reads the streams of a room. Whether there are such isn't
// known here: pipelines come and go.
func readRoomStreams(m *mapping) []string {
	var names []string
	seen := map[string]bool{}
	for _, n := range m.list("streams") {
		switch {
		case !ValidStreamName(n.Value):
			m.d.fault(n, "streams", quote(n.Value)+" can't be a stream's name", "write the name of a pipeline file without .yaml")
		case seen[n.Value]:
			m.d.fault(n, "streams", quote(n.Value)+" is listed twice", "remove one of them")
		case len(names) == maxRooms:
			m.d.fault(n, "streams", "there are too many streams", fmt.Sprintf("at most %d", maxRooms))
			return names
		default:
			names = append(names, n.Value)
		}
		seen[n.Value] = true
	}
	return names
}
