package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/auth"
)

// enter joins room red over a WebSocket.
func (h *house) enter(t *testing.T, token string) *websocket.Conn {
	t.Helper()
	conn, _ := h.enterAs(t, token)
	return conn
}

// enterAs is enter, with what the gateway says to it.
func (h *house) enterAs(t *testing.T, token string) (conn *websocket.Conn, joined map[string]any) {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.url, "http")+"/ws", http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.WriteJSON(map[string]any{"type": "join", "roomId": "red", "version": 1}); err != nil {
		t.Fatal(err)
	}
	if joined = said(t, conn, "joined"); joined == nil {
		t.Fatal("not joined")
	}
	return conn, joined
}

// said waits for a message of a type; nil: the socket has ended.
func said(t *testing.T, conn *websocket.Conn, kind string) map[string]any {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		var m map[string]any
		if err := conn.ReadJSON(&m); err != nil {
			return nil
		}
		if m["type"] == kind {
			return m
		}
	}
}

// A token is taken back on the command line, beside a running gateway, or by its API: who
// came by it is out, and doesn't come again.
func TestTokensAreTakenBack(t *testing.T) {
	h := newHouse(t, "")
	settings := Settings{conf: h.conf}
	admin := h.token(t, &auth.Grant{Role: auth.Admin, Rooms: []string{"*"}})
	token := func(subject string) string {
		return h.token(t, &auth.Grant{Subject: subject, Role: auth.Publisher, Rooms: []string{"red"}})
	}
	command := func(o TokenOptions, in string) string {
		t.Helper()
		var out, notes bytes.Buffer
		if err := settings.Token(o, strings.NewReader(in), &out, &notes); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	out := func(conn *websocket.Conn, token, how string) {
		t.Helper()
		if e := said(t, conn, "error"); e == nil || e["code"] != "unauthorized" {
			t.Errorf("%s: the client is told %v", how, e)
		}
		if answer, body := ask(t, "GET", h.url+"/api/session", "", "Authorization", "Bearer "+token); answer.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "revoked") {
			t.Errorf("%s: %s %s", how, answer.Status, body)
		}
	}
	stays := token("dora")
	dora := h.enter(t, stays)

	anna := token("anna")
	conn := h.enter(t, anna)
	id := command(TokenOptions{Revoke: "-"}, "http://localhost:8080/room/red#token="+anna+"\n")
	out(conn, anna, "by the command")

	bob := token("bob")
	conn = h.enter(t, bob)
	command(TokenOptions{RevokeSubject: "bob"}, "")
	out(conn, bob, "by subject")

	carl := token("carl")
	conn = h.enter(t, carl)
	answer, body := ask(t, "POST", h.url+"/api/revocations", `{"token": "`+carl+`"}`, "Authorization", "Bearer "+admin)
	var made auth.Revocation
	if err := json.Unmarshal([]byte(body), &made); err != nil || answer.StatusCode != http.StatusCreated || made.ID == "" || made.At.IsZero() {
		t.Fatal(answer.Status, body, err)
	}
	out(conn, carl, "over HTTP")

	answer, body = ask(t, "POST", h.url+"/api/shares", `{"room": "red"}`, "Authorization", "Bearer "+admin)
	var link struct{ Token, ID string }
	if err := json.Unmarshal([]byte(body), &link); err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatal(answer.Status, body, err)
	}
	ask(t, "POST", h.url+"/api/revocations", `{"id": "`+link.ID+`"}`, "Authorization", "Bearer "+admin)
	if answer, body := ask(t, "POST", h.url+"/api/session", `{"token": "`+link.Token+`"}`); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("a revoked link: %s %s", answer.Status, body)
	}
	for _, bad := range []string{`{}`, `{"id": "a", "subject": "b"}`, `{"token": "x"}`, `{"at": "2026-01-01T00:00:00Z"}`} {
		if answer, body := ask(t, "POST", h.url+"/api/revocations", bad, "Authorization", "Bearer "+admin); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s %s", bad, answer.Status, body)
		}
	}
	list := command(TokenOptions{Revoked: true}, "")
	for _, want := range []string{"token " + id, "subject bob", "token " + made.ID, "token " + link.ID} {
		if !strings.Contains(list, want) {
			t.Errorf("%q isn't listed in\n%s", want, list)
		}
	}
	if _, body := ask(t, "GET", h.url+"/api/revocations", "", "Authorization", "Bearer "+admin); strings.Count(body, `"at"`) != 4 {
		t.Errorf("listed are %s", body)
	}
	if err := dora.WriteJSON(map[string]any{"type": "ping"}); err != nil || said(t, dora, "pong") == nil {
		t.Error("another has gone, too")
	}
}
