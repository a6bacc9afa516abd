package gateway

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/auth"
	"gateway/internal/room"
)

// member is somebody in a room, by a real socket.
type member struct {
	t    *testing.T
	conn *websocket.Conn
	user string
}

// meet joins a room with a token, and returns what joined says.
func (h *house) meet(t *testing.T, room, token string) (*member, map[string]any) {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.url, "http")+"/ws", http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &member{t: t, conn: conn}
	if err := conn.WriteJSON(map[string]any{"type": "join", "roomId": room, "version": 1}); err != nil {
		t.Fatal(err)
	}
	joined := m.hears("joined")
	m.user = joined["userId"].(string)
	return m, joined
}

func (m *member) hears(kind string) map[string]any {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		var got map[string]any
		if err := m.conn.ReadJSON(&got); err != nil {
			m.t.Fatalf("no %s: %v", kind, err)
		}
		if got["type"] == kind {
			return got
		}
	}
}

// Who is kept out of a room isn't shown its picture by another way.
func TestRoomsThatAreShutShowNoPicture(t *testing.T) {
	h := newHouse(t, "")
	admin := []string{"Authorization", "Bearer " + h.auth.AdminToken()}
	host := h.token(t, &auth.Grant{Role: auth.Host, Rooms: []string{"red"}})
	viewer := h.token(t, &auth.Grant{Role: auth.Viewer, Rooms: []string{"red"}})
	both := h.token(t, &auth.Grant{Role: auth.Viewer, Rooms: []string{"red", "hall"}})
	picture := func(token string) (code string) {
		t.Helper()
		answer, body := ask(t, "GET", h.url+"/api/streams/red/snapshot.jpg", "", "Authorization", "Bearer "+token)
		if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusServiceUnavailable { // not there yet
			return ""
		}
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || answer.StatusCode != http.StatusConflict {
			t.Fatalf("%s %s", answer.Status, body)
		}
		return p.Code
	}
	if code := picture(viewer); code != "" {
		t.Errorf("an open room: %s", code)
	}
	anna, _ := h.meet(t, "red", host)
	if err := anna.conn.WriteJSON(map[string]any{"type": "lock", "on": true}); err != nil {
		t.Fatal(err)
	}
	anna.hears("room")
	if code := picture(viewer); code != "room-locked" {
		t.Errorf("a locked room: %q", code)
	}
	if code := picture(host); code != "" {
		t.Errorf("a locked room's host: %s", code)
	}
	if code := picture(both); code != "" {
		t.Errorf("who may be in the hall: %s", code)
	}
	if answer, body := ask(t, "POST", h.url+"/api/rooms/red/close", "", admin...); answer.StatusCode != http.StatusNoContent {
		t.Errorf("close: %s %s", answer.Status, body)
	}
	if code := picture(host); code != "room-closed" {
		t.Errorf("a closed room: %q", code)
	}
	if code := picture(both); code != "" {
		t.Errorf("who may be in the hall: %s", code)
	}
}

// Streams come to a room and go with their files; HTTP shows rooms, and closes them
// under those who are there.
func TestRoomsOverHTTP(t *testing.T) {
	pipelines, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(pipelines, "red.yaml"), small)
	write(t, filepath.Join(dir, "gateway.yaml"), "state: "+dir+"/state\nrooms: {lobby: {title: The lobby, streams: [red, blue]}}\n")
	h := startHouse(t, dir, pipelines)
	admin := []string{"Authorization", "Bearer " + h.auth.AdminToken()}
	host := h.token(t, &auth.Grant{Name: "Anna", Role: auth.Host, Rooms: []string{"lobby"}})

	anna, joined := h.meet(t, "lobby", host)
	if streams := joined["streams"].([]any); len(streams) != 1 || joined["name"] != "Anna" || joined["role"] != "host" {
		t.Errorf("joined is %v", joined)
	}
	blue := filepath.Join(pipelines, "blue.yaml")
	write(t, blue, strings.Replace(small, "red", "blue", 1))
	if m := anna.hears("stream-started"); m["stream"].(map[string]any)["name"] != "blue" {
		t.Errorf("got %v", m)
	}
	if err := os.Remove(blue); err != nil {
		t.Fatal(err)
	}
	if m := anna.hears("stream-ended"); m["stream"] != "blue" {
		t.Errorf("got %v", m)
	}

	bob, _ := h.meet(t, "lobby", h.token(t, &auth.Grant{Name: "Bob", Role: auth.Viewer, Rooms: []string{"*"}}))
	_, body := ask(t, "GET", h.url+"/api/rooms", "", admin...)
	var list struct{ Rooms []room.Summary }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.Rooms, func(s room.Summary) bool { return s.ID == "lobby" })
	if len(list.Rooms) != 2 || i < 0 || list.Rooms[i].State != room.Active || list.Rooms[i].Participants != 2 || list.Rooms[i].Title != "The lobby" {
		t.Errorf("rooms are %s", body)
	}
	var one struct{ People []room.Profile }
	if _, body := ask(t, "GET", h.url+"/api/rooms/lobby", "", admin...); json.Unmarshal([]byte(body), &one) != nil || len(one.People) != 2 {
		t.Errorf("the lobby is %s", body)
	}
	if answer, body := ask(t, "GET", h.url+"/api/rooms/nowhere", "", admin...); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a room that isn't: %s %s", answer.Status, body)
	}
	if _, body := ask(t, "GET", h.url+"/metrics", "", admin...); !strings.Contains(body, `gateway_participants{role="host"} 1`) || !strings.Contains(body, `gateway_rooms{state="active"} 1`) {
		t.Errorf("metrics lack the rooms")
	}

	if answer, body := ask(t, "DELETE", h.url+"/api/rooms/lobby/participants/"+bob.user, "", admin...); answer.StatusCode != http.StatusNoContent {
		t.Errorf("remove: %s %s", answer.Status, body)
	}
	if m := bob.hears("left"); m["reason"] != "removed" {
		t.Errorf("got %v", m)
	}
	if answer, body := ask(t, "POST", h.url+"/api/rooms/lobby/close", "", "Authorization", "Bearer "+host); answer.StatusCode != http.StatusNoContent {
		t.Errorf("close: %s %s", answer.Status, body)
	}
	if m := anna.hears("left"); m["reason"] != "room-closed" {
		t.Errorf("got %v", m)
	}
	if answer, body := ask(t, "POST", h.url+"/api/rooms/lobby/open", "", admin...); answer.StatusCode != http.StatusNoContent {
		t.Errorf("open: %s %s", answer.Status, body)
	}
	h.meet(t, "lobby", host)
}
