package gateway

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/auth"
	"gateway/internal/room"
	"gateway/internal/signal"
)

// listRooms lists the rooms in which the request may do anything.
func (g *Gateway) listRooms(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Rooms []room.Summary `json:"rooms"`
	}{g.rooms.List(grantOf(r))})
}

// oneRoom tells of a room, and who is there to those who may see it.
func (g *Gateway) oneRoom(w http.ResponseWriter, r *http.Request) {
	summary, people, err := g.rooms.Room(r.PathValue("room"), grantOf(r))
	if err != nil {
		refuseRoom(w, r, err)
		return
	}
	var publishers []signal.Publisher
	if people != nil {
		publishers = g.signal.Publishers(r.Context(), summary.ID)
	}
	writeJSON(w, http.StatusOK, struct {
		room.Summary
		People     []room.Profile     `json:"people,omitempty"`
		Publishers []signal.Publisher `json:"publishers,omitempty"`
	}{summary, people, publishers})
}

func (g *Gateway) closeRoom(w http.ResponseWriter, r *http.Request) {
	answerRoom(w, r, g.rooms.CloseRoom(r.PathValue("room"), grantOf(r)))
}

func (g *Gateway) openRoom(w http.ResponseWriter, r *http.Request) {
	answerRoom(w, r, g.rooms.OpenRoom(r.PathValue("room"), grantOf(r)))
}

func (g *Gateway) removeFromRoom(w http.ResponseWriter, r *http.Request) {
	answerRoom(w, r, g.rooms.RemoveFrom(r.PathValue("room"), r.PathValue("user"), grantOf(r)))
}

// answerRoom answers a request that changed a room, or couldn't.
func answerRoom(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		refuseRoom(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func refuseRoom(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, room.ErrForbidden):
		deny(w, r, err.Error())
	case errors.Is(err, room.ErrClosed):
		writeProblem(w, r, http.StatusConflict, "room-closed", err.Error())
	case errors.Is(err, room.ErrLocked):
		writeProblem(w, r, http.StatusConflict, "room-locked", err.Error())
	case errors.Is(err, room.ErrUnknownTarget):
		writeProblem(w, r, http.StatusNotFound, "unknown-target", err.Error())
	default:
		writeProblem(w, r, http.StatusNotFound, "not-found", err.Error())
	}
}

var (
	descRooms        = prometheus.NewDesc("gateway_rooms", "Rooms by state, without those of a single pipeline in which nobody is.", []string{"state"}, nil)
	descParticipants = prometheus.NewDesc("gateway_participants", "Participants of all rooms, by role.", []string{"role"}, nil)
)

// roomCollector counts rooms and who is in them when it is asked.
type roomCollector struct{ rooms *room.Rooms }

// Describe implements prometheus.Collector.
func (c roomCollector) Describe(out chan<- *prometheus.Desc) {
	out <- descRooms
	out <- descParticipants
}

// Collect implements prometheus.Collector.
func (c roomCollector) Collect(out chan<- prometheus.Metric) {
	rooms, participants := c.rooms.Stats()
	for _, state := range []room.State{room.Idle, room.Active, room.Closed} {
		out <- prometheus.MustNewConstMetric(descRooms, prometheus.GaugeValue, float64(rooms[state]), string(state))
	}
	for _, role := range auth.Roles {
		out <- prometheus.MustNewConstMetric(descParticipants, prometheus.GaugeValue, float64(participants[role]), string(role))
	}
}
