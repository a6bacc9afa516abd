package signal

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gateway/internal/auth"
)

// A page whose visitor has signed in again has only the cookie, and it can't read that: the
// session goes on by what an HTTP request brings, if it is the same subject's.
func TestSessionIsRenewedOverHTTP(t *testing.T) {
	of := func(subject string, lasts time.Duration, rooms ...string) *auth.Grant {
		return &auth.Grant{Subject: subject, Role: auth.Publisher, Rooms: rooms, Expires: time.Now().Add(lasts)}
	}
	brief := of("ann", 2*time.Second, "hall")
	g := newRoomGateway(t, tokens{"brief": brief})
	ann, joined := g.as(t, "brief", "hall")
	bob, _ := g.as(t, "brief", "hall")
	renew := func(session string, grant *auth.Grant) (status int, answer struct {
		Expires int64
		Code    string
	}) {
		t.Helper()
		w := httptest.NewRecorder()
		g.Renew(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/renewals", nil), session, grant)
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Error(err)
		}
		return w.Code, answer
	}
	secret := joined["session"].(string)
	for name, c := range map[string]struct {
		session string
		grant   *auth.Grant
		status  int
		code    string
	}{
		"no session":    {"", of("ann", time.Hour, "hall"), http.StatusNotFound, "not-found"},
		"a guess":       {"ABCDEFGHIJKLMNOPQRSTUVWXYZ", of("ann", time.Hour, "hall"), http.StatusNotFound, "not-found"},
		"another":       {secret, of("eve", time.Hour, "*"), http.StatusForbidden, "forbidden"},
		"nothing there": {secret, of("ann", time.Hour, "house"), http.StatusForbidden, "forbidden"},
	} {
		if status, answer := renew(c.session, c.grant); status != c.status || answer.Code != c.code {
			t.Errorf("%s: %d %s", name, status, answer.Code)
		}
	}
	long := of("ann", time.Hour, "hall")
	if status, answer := renew(secret, long); status != http.StatusOK || answer.Expires != long.Expires.UnixMilli() {
		t.Errorf("%d %+v", status, answer)
	}
	if m := ann.hear("token"); m["expires"] != float64(long.Expires.UnixMilli()) {
		t.Errorf("the socket hears %v", m)
	}
	if e := bob.hear("error"); e["code"] != "token-expired" { // by the token that both came with
		t.Errorf("got %v", e)
	}
	ann.say(map[string]any{"type": "leave"})
	ann.hear("left")
	if status, answer := renew(secret, long); status != http.StatusNotFound {
		t.Errorf("after leaving: %d %s", status, answer.Code)
	}
}
