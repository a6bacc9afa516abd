package signal

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pion/webrtc/v4"

	"gateway/internal/auth"
)

// fickle is an authority that takes tokens back.
type fickle struct {
	tokens
	gone sync.Map // *auth.Grant
}

func (f *fickle) Revoked(g *auth.Grant) bool { _, is := f.gone.Load(g); return is }

// Who came by a token that is revoked is out at once, whichever way he came; the others stay.
func TestRevokedTokensEndTheirSessions(t *testing.T) {
	g := newRoomGateway(t)
	authority := &fickle{tokens: g.auth.(tokens)}
	g.auth = authority
	viewer, _ := g.as(t, "viewer", "house")
	host, _ := g.as(t, "host", "house")
	parked, joined := g.as(t, "viewer", "house")
	parked.cut()
	g.parked(t, joined["session"].(string))
	idle := g.dial(t) // hasn't joined
	over := func(token string) string {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, g.http.URL+"/whep/house/test", strings.NewReader(newPeer(t).offer(webrtc.RTPCodecTypeVideo)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", sdpType)
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusCreated {
			t.Fatal(answer.Status, string(body), err)
		}
		return answer.Header.Get("Location")
	}
	whep := over("viewer")

	authority.gone.Store(authority.tokens["viewer"], true)
	g.Recheck()
	if e := viewer.hear("error"); e["code"] != "unauthorized" || e["fatal"] != true || !strings.Contains(e["message"].(string), "revoked") {
		t.Errorf("the viewer is told %v", e)
	}
	if code, text := viewer.closed(); code != 1008 || text != "unauthorized" {
		t.Errorf("closed by %d %s", code, text)
	}
	eventually(t, "all of the token's sessions have ended", func() bool {
		return g.session(joined["session"].(string)) == nil && g.session(whep[strings.LastIndex(whep, "/")+1:]) == nil
	})
	idle.say(map[string]any{"type": "join", "roomId": "house", "version": 1, "token": "viewer"}) // was known a moment ago
	if e := idle.hear("error"); e["code"] != "unauthorized" {
		t.Errorf("a socket that was open: %v", e)
	}
	host.say(map[string]any{"type": "ping"})
	host.hear("pong")
}
