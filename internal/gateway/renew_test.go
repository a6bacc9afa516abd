package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/auth"
)

// Who signs in again in the browser stays: the cookie renews the session that came by
// another token of the same subject, and nobody else's.
func TestCookieRenewsARunningSession(t *testing.T) {
	h := newHouse(t, "")
	brief := func(subject string) (*websocket.Conn, string) {
		token, err := h.auth.Issue(&auth.Grant{Subject: subject, Role: auth.Host, Rooms: []string{"red"}}, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		conn, joined := h.enterAs(t, token)
		return conn, fmt.Sprintf(`{"session": %q}`, joined["session"])
	}
	conn, annas := brief("anna")
	_, bobs := brief("bob")
	b := browser(t)
	if answer, _ := do(t, b, "POST", h.url+"/api/renewals", annas); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a cookie: %s", answer.Status)
	}
	if answer, body := do(t, b, "POST", h.url+"/api/session", `{"user": "anna", "password": "`+annasPassword+`"}`); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s", answer.Status, body)
	}
	if answer, body := do(t, b, "POST", h.url+"/api/renewals", bobs); answer.StatusCode != http.StatusForbidden {
		t.Errorf("another's session: %s %s", answer.Status, body)
	}
	if answer, body := do(t, b, "POST", h.url+"/api/renewals", annas, "Origin", "http://elsewhere.example"); answer.StatusCode != http.StatusForbidden {
		t.Errorf("from another site's page: %s %s", answer.Status, body)
	}
	answer, body := do(t, b, "POST", h.url+"/api/renewals", annas)
	var renewed struct{ Expires int64 }
	if err := json.Unmarshal([]byte(body), &renewed); err != nil || answer.StatusCode != http.StatusOK || renewed.Expires < time.Now().Add(time.Hour).UnixMilli() {
		t.Errorf("%s %s %v", answer.Status, body, err)
	}
	if m := said(t, conn, "token"); m == nil || m["expires"] != float64(renewed.Expires) {
		t.Errorf("the socket hears %v", m)
	}
}
