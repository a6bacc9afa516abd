package gateway

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/auth"
)

// browser keeps cookies.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestBrowserComesInByTheFirstAddress(t *testing.T) {
	h := newHouse(t, "")
	token, ok := strings.CutPrefix(h.Invitation(), "/#token=")
	if !ok {
		t.Fatalf("invitation %q", h.Invitation())
	}
	kept, err := os.ReadFile(h.AdminTokenFile())
	if err != nil || strings.TrimSpace(string(kept)) != token {
		t.Errorf("the file of the token holds %q, %v", kept, err)
	}
	b := browser(t)
	if answer, _ := do(t, b, "GET", h.url+"/", ""); answer.StatusCode != http.StatusOK {
		t.Errorf("the page: %s", answer.Status)
	}
	if answer, _ := do(t, b, "GET", h.url+"/api/session", ""); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("before: %s", answer.Status)
	}
	answer, body := do(t, b, "POST", h.url+"/api/session", `{"token": "`+token+`"}`)
	if answer.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s", answer.Status, body)
	}
	set := answer.Header.Get("Set-Cookie")
	for _, want := range []string{auth.Cookie + "=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="} {
		if !strings.Contains(set, want) {
			t.Errorf("Set-Cookie %q lacks %s", set, want)
		}
	}
	if strings.Contains(set, "Secure") {
		t.Errorf("over HTTP the cookie would never come back: %q", set)
	}
	var who struct {
		Subject, Role string
		Can           []auth.Action
		Rooms         []string
		Expires       int64
	}
	_, body = do(t, b, "GET", h.url+"/api/session", "")
	if err := json.Unmarshal([]byte(body), &who); err != nil || who.Role != "admin" || len(who.Can) != len(auth.Actions) || who.Expires != 0 {
		t.Errorf("%s, %v", body, err)
	}
	if answer, _ := do(t, b, "GET", h.url+"/metrics", ""); answer.StatusCode != http.StatusOK {
		t.Errorf("metrics by cookie: %s", answer.Status)
	}
	if answer, _ := do(t, b, "DELETE", h.url+"/api/session", ""); answer.StatusCode != http.StatusNoContent {
		t.Error(answer.Status)
	}
	if answer, _ := do(t, b, "GET", h.url+"/api/session", ""); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("after logging out: %s", answer.Status)
	}
	if answer, _ := do(t, browser(t), "POST", h.url+"/api/session", `{"token": "`+token+`"}`, "X-Forwarded-Proto", "https"); !strings.Contains(answer.Header.Get("Set-Cookie"), "Secure") {
		t.Errorf("behind a proxy with HTTPS: %q", answer.Header.Get("Set-Cookie"))
	}
}

func TestUserLogsIn(t *testing.T) {
	h := newHouse(t, "")
	b := browser(t)
	for _, wrong := range []string{`{"user": "anna", "password": "wrong"}`, `{"user": "eve", "password": "x"}`} {
		if answer, body := do(t, b, "POST", h.url+"/api/session", wrong); answer.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "the user or the password is wrong") {
			t.Errorf("%s: %s %s", wrong, answer.Status, body)
		}
	}
	if answer, body := do(t, b, "POST", h.url+"/api/session", `{"user": "anna", "password": "`+annasPassword+`"}`); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s", answer.Status, body)
	}
	if answer, _ := do(t, b, "GET", h.url+"/api/streams/red", ""); answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
	if answer, _ := do(t, b, "GET", h.url+"/api/streams/blue", ""); answer.StatusCode != http.StatusForbidden {
		t.Error(answer.Status)
	}
	for range 20 { // past the burst, whatever the clock does meanwhile
		answer, _ := do(t, b, "POST", h.url+"/api/session", `{"user": "anna", "password": "x"}`)
		if answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get("Retry-After") != "" {
			return
		}
	}
	t.Error("logins aren't throttled")
}

func TestShareIsGoodForOne(t *testing.T) {
	h := newHouse(t, "")
	host := h.token(t, callers()["host-of-red"])
	answer, body := ask(t, "POST", h.url+"/api/shares", `{"room": "red", "role": "publisher", "name": "Guest", "expiresIn": 60, "lasts": 600}`, "Authorization", "Bearer "+host)
	var made struct {
		Token, Path string
		Expires     int64
	}
	if err := json.Unmarshal([]byte(body), &made); err != nil || answer.StatusCode != http.StatusCreated || made.Path != "/room/red#token="+made.Token ||
		made.Expires < time.Now().UnixMilli() || made.Expires > time.Now().Add(time.Minute).UnixMilli() {
		t.Fatalf("%s %s %v", answer.Status, body, err)
	}
	first, second := browser(t), browser(t)
	if answer, body := do(t, first, "POST", h.url+"/api/session", `{"token": "`+made.Token+`"}`); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s", answer.Status, body)
	}
	if answer, body := do(t, second, "POST", h.url+"/api/session", `{"token": "`+made.Token+`"}`); answer.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "the link was used before") {
		t.Errorf("the second: %s %s", answer.Status, body)
	}
	var who struct {
		Name, Role string
		Rooms      []string
		Expires    int64
	}
	_, body = do(t, first, "GET", h.url+"/api/session", "")
	if err := json.Unmarshal([]byte(body), &who); err != nil || who.Name != "Guest" || who.Role != "publisher" || len(who.Rooms) != 1 || who.Rooms[0] != "red" || who.Expires == 0 {
		t.Errorf("%s %v", body, err)
	}
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"another room":  {`{"room": "blue"}`, http.StatusForbidden},
		"no room":       {`{}`, http.StatusForbidden},
		"all rooms":     {`{"room": "*"}`, http.StatusForbidden},
		"a higher role": {`{"room": "red", "role": "admin"}`, http.StatusForbidden},
		"no such role":  {`{"room": "red", "role": "boss"}`, http.StatusBadRequest},
		"for ever":      {`{"room": "red", "expiresIn": 99999999}`, http.StatusBadRequest},
		"for no time":   {`{"room": "red", "lasts": 0}`, http.StatusBadRequest},
		"more":          {`{"room": "red", "rooms": ["*"]}`, http.StatusBadRequest},
		"twice":         {`{"room": "red"} {"room": "red"}`, http.StatusBadRequest},
		"too much":      {`{"room": "red", "name": "` + strings.Repeat("x", maxLogin) + `"}`, http.StatusRequestEntityTooLarge},
	} {
		if answer, body := ask(t, "POST", h.url+"/api/shares", c.body, "Authorization", "Bearer "+host); answer.StatusCode != c.status {
			t.Errorf("%s: %s %s", name, answer.Status, body)
		}
	}
}

// Who moderates one stream invites to that one, and to nothing beside it.
func TestHostOfAStreamSharesThatOne(t *testing.T) {
	h := newHouse(t, "")
	host := h.token(t, callers()["host-of-stream-red"])
	for body, status := range map[string]int{
		`{"room": "red", "stream": "red"}`:                   http.StatusCreated,
		`{"room": "red"}`:                                    http.StatusForbidden,
		`{"room": "red", "stream": "blue"}`:                  http.StatusForbidden,
		`{"room": "red", "stream": "*"}`:                     http.StatusForbidden,
		`{"room": "red", "stream": "red", "name": "\u202e"}`: http.StatusBadRequest,
	} {
		if answer, text := ask(t, "POST", h.url+"/api/shares", body, "Authorization", "Bearer "+host); answer.StatusCode != status {
			t.Errorf("%s: %s %s", body, answer.Status, text)
		}
	}
}

// A room that was made by joining is gone minutes after the last one has left, and a link to it is
// good for days: it would have led to nothing.
func TestLinkOutlivesTheRoomThatWasMade(t *testing.T) {
	h := newHouse(t, "")
	for _, c := range []struct {
		create bool
		code   string // of a join
	}{{false, "not-found"}, {true, ""}} {
		host := h.token(t, &auth.Grant{Role: auth.Host, Rooms: []string{"*"}, Create: c.create})
		answer, body := ask(t, "POST", h.url+"/api/shares", `{"room": "picnic"}`, "Authorization", "Bearer "+host)
		var made struct{ Token string }
		if err := json.Unmarshal([]byte(body), &made); err != nil || answer.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s %v", answer.Status, body, err)
		}
		token, err := h.auth.Redeem(made.Token)
		if err != nil {
			t.Fatal(err)
		}
		for room, code := range map[string]string{"picnic": c.code, "party": "forbidden"} {
			conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.url, "http")+"/ws", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.WriteJSON(map[string]any{"type": "join", "roomId": room, "version": 1, "token": token, "create": true}); err != nil {
				t.Fatal(err)
			}
			var m struct{ Type, Code string }
			if err := conn.ReadJSON(&m); err != nil || m.Code != code {
				t.Errorf("%s by a link of who may make rooms (%v): %+v %v", room, c.create, m, err)
			}
			conn.Close()
		}
	}
}

func TestPagesOfOthersCannotUseTheCookie(t *testing.T) {
	h := newHouse(t, "")
	cookie := auth.Cookie + "=" + h.auth.AdminToken()
	for name, header := range map[string][]string{
		"another site":      {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"another port":      {"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"},
		"an old browser":    {"Origin", "https://evil.example"},
		"a frame of no one": {"Origin", "null"},
		"another name":      {"Host", "evil.example"},
	} {
		for _, x := range [][3]string{{"POST", "/api/reload", ""}, {"POST", "/api/session", `{"token": "x"}`}, {"DELETE", "/api/session", ""}, {"POST", "/api/shares", `{"room": "red"}`}} {
			r, err := http.NewRequestWithContext(t.Context(), x[0], h.url+x[1], strings.NewReader(x[2]))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Cookie", cookie)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
				if header[i] == "Host" {
					r.Host = header[i+1]
				}
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusForbidden && answer.StatusCode != http.StatusMisdirectedRequest || answer.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: %s %s: %s", name, x[0], x[1], answer.Status)
			}
		}
	}
	// a form can't send JSON, and what it can send isn't taken
	for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""} {
		answer, _ := ask(t, "POST", h.url+"/api/session", `{"token": "`+h.auth.AdminToken()+`"}`, "Content-Type", kind)
		if answer.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %s", kind, answer.Status)
		}
	}
}

// Where every page is let in, a page of another port of this host, which is of the same
// site and so is sent along with the cookie, could have acted as who is logged in.
func TestOpenOriginsDoNotLendTheCookie(t *testing.T) {
	h := newHouse(t, "http: {allowed_origins: ['*']}\n")
	cookie := auth.Cookie + "=" + h.auth.AdminToken()
	elsewhere := []string{"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}
	if answer, body := ask(t, "POST", h.url+"/api/reload", "", append(elsewhere, "Cookie", cookie)...); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("by cookie: %s %s", answer.Status, body)
	}
	if answer, body := ask(t, "POST", h.url+"/api/reload", "", append(elsewhere, "Authorization", "Bearer "+h.auth.AdminToken())...); answer.StatusCode != http.StatusOK {
		t.Errorf("by token: %s %s", answer.Status, body)
	}
	if answer, body := ask(t, "POST", h.url+"/api/reload", "", "Origin", h.url, "Cookie", cookie); answer.StatusCode != http.StatusOK {
		t.Errorf("own page: %s %s", answer.Status, body)
	}
	if answer, body := ask(t, "POST", h.url+"/whip/new", recvonly, "Content-Type", "application/sdp", "Origin", "http://127.0.0.1:1", "Cookie", cookie); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("WHIP: %s %s", answer.Status, body)
	}
	for _, c := range []struct {
		origin, code string
	}{{"http://127.0.0.1:1", "unauthorized"}, {h.url, ""}} {
		conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(h.url, "http")+"/ws", http.Header{"Origin": {c.origin}, "Cookie": {cookie}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.WriteJSON(map[string]any{"type": "join", "roomId": "red", "version": 1}); err != nil {
			t.Fatal(err)
		}
		var m struct{ Type, Code string }
		if err := conn.ReadJSON(&m); err != nil || m.Code != c.code {
			t.Errorf("socket of %s: %+v %v", c.origin, m, err)
		}
	}
}

func TestTokenTooLongForACookieIsSaid(t *testing.T) {
	h := newHouse(t, "")
	var rooms []string
	for i := range 40 {
		rooms = append(rooms, strings.Repeat("r", 100)+string(rune('a'+i)))
	}
	token := h.token(t, &auth.Grant{Role: auth.Viewer, Rooms: rooms})
	if answer, body := ask(t, "POST", h.url+"/api/session", `{"token": "`+token+`"}`); answer.StatusCode != http.StatusBadRequest || !strings.Contains(body, "Bearer") {
		t.Errorf("%s %s", answer.Status, body)
	}
	if answer, _ := ask(t, "GET", h.url+"/api/session", "", "Authorization", "Bearer "+token); answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
}
