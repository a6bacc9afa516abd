package web_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gateway/test/rig"
)

// documented is the code of docs/player.md that begins with a line.
func documented(t *testing.T, first string) string {
	t.Helper()
	root, err := rig.Root()
	rig.Check(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "player.md"))
	rig.Check(t, err)
	block := regexp.MustCompile(`(?m)^    ` + regexp.QuoteMeta(first) + `.*\n(?:    .*\n)*`).FindString(string(text))
	if block == "" {
		t.Fatalf("docs/player.md has no code that begins with %q", first)
	}
	return block
}

// Two browsers connect directly, by the code that the documentation has for it: the gateway
// passes their offer, answer and candidates on, and no more.
func TestBrowsersConnectDirectly(t *testing.T) {
	g := meeting(t, "none")
	code := documented(t, "const peer = new RTCPeerConnection(room.configuration)")
	chrome := chromium(t, false)
	for name, other := range map[string]func() opener{
		"Chromium and Chromium": func() opener { return chrome },
		"Chromium and Firefox":  func() opener { return firefox(t) },
	} {
		t.Run(name, func(t *testing.T) {
			place := strings.ReplaceAll(strings.ToLower(name), " ", "-")
			pages := []*world{visit(t, g, chrome, "/healthz"), visit(t, g, other(), "/healthz")}
			for _, w := range pages {
				w.eval(t, fmt.Sprintf(`(async () => {
					const { Room } = await import('/assets/room.js')
					window.heard = []
					const console = { log: (line) => heard.push(line) }
					const room = new Room({ url: 'ws://' + location.host + '/ws', room: %q, name: 'Peer' })
					window.room = room
					const both = new Promise((done) => room.addEventListener('participants', () => room.participants.size === 2 && done()))
					room.open()
					both.then(async () => {
						%s
						window.peer = peer
					})
				})()`, place, code), nil)
			}
			for _, w := range pages {
				w.until(t, "window.peer?.connectionState === 'connected'")
			}
			// the one that was offered the channel hears the other
			answerer := pages[0]
			var offers bool
			answerer.eval(t, "peer.localDescription.type === 'offer'", &offers)
			if offers {
				answerer = pages[1]
			}
			answerer.until(t, "heard.join() === 'hello'")
			// each talks to the other's DTLS, not to one of the gateway's
			const prints = `[peer.localDescription, peer.remoteDescription].map(({ sdp }) => /a=fingerprint:(.*)/.exec(sdp)[1].trim())`
			var one, two []string
			pages[0].eval(t, prints, &one)
			pages[1].eval(t, prints, &two)
			if len(one) != 2 || len(two) != 2 || one[0] != two[1] || one[1] != two[0] {
				t.Errorf("one and whom he talks to are %q, the other %q", one, two)
			}
			for _, w := range pages {
				w.eval(t, "(peer.close(), room.leave(), 0)", nil)
			}
		})
	}
}
