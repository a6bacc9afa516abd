package web_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gateway/internal/auth"
	"gateway/test/rig"
)

const annasPassword = "correct horse"

// closed is a gateway that asks who everybody is, with the hall and the yard, where Anna
// may sign in as a host of the hall.
func closed(t *testing.T) *rig.Gateway {
	t.Helper()
	hash, err := auth.HashPassword(annasPassword)
	rig.Check(t, err)
	return meetingIn(t, rig.GatewayOptions{
		Auth: "token", Config: "auth:\n  users:\n    anna:\n      password: " + hash + "\n      role: host\n      rooms: [hall]\n",
	})
}

// command runs `gateway token` beside a closed gateway, and returns what it prints.
func command(t *testing.T, g *rig.Gateway, args ...string) string {
	t.Helper()
	path, err := rig.Binary()
	rig.Check(t, err)
	cmd := exec.CommandContext(t.Context(), path, append([]string{"token", "-config", filepath.Join(g.Dir, "gateway.yaml")}, args...)...)
	cmd.Env = append(os.Environ(), "GATEWAY_STATE="+filepath.Join(g.Dir, "state"), "GATEWAY_AUTH_MODE=token")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gateway token %q: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// signIn fills the card's fields, by their ids.
func (w *world) signIn(t *testing.T, fields map[string]string) {
	t.Helper()
	for id, value := range fields {
		w.eval(t, fmt.Sprintf("(document.getElementById(%q).value = %q, 0)", id, value), nil)
	}
	w.eval(t, "(document.querySelector('.sign-in form').requestSubmit(), 0)", nil)
}

const (
	cardToStay = "document.querySelector('.sign-in[open]')?.innerText.includes('Your access ends at')"
	noCard     = "!document.querySelector('.sign-in')"
	// counted keeps when the access ends, by the page's clock, and counts sockets from now on
	counted = `(async () => {
		window.ends = (await (await fetch('/api/session')).json()).expires
		window.dialed = 0
		window.WebSocket = class extends WebSocket { constructor(...all) { super(...all); dialed++ } }
	})()`
	over = "Date.now() > ends + 2000"
)

// A token ends while its bearer is in a call: who signs in again by the card stays there, on
// the same socket, in the same session and connections, and with the camera on. The watch
// page does the same.
func TestWhoSignsInAgainStaysInTheCall(t *testing.T) {
	t.Parallel() // it waits most of the time
	g := closed(t)
	browser := chromium(t, false)
	token := command(t, g, "-subject", "anna", "-role", "host", "-room", "hall", "-ttl", "66s")
	ann := visit(t, g, browser, "/room/hall?name=Anna#token="+url.QueryEscape(token))
	ann.until(t, connected)
	ann.eval(t, counted, nil)
	ann.click(t, ".camera")
	desk := command(t, g, "-subject", "desk", "-room", "door", "-ttl", "66s")
	watch := visit(t, g, browser, "/watch/door#token="+url.QueryEscape(desk))
	watch.until(t, player+".state === 'playing'")
	watch.eval(t, counted, nil)
	watch.eval(t, "(window.kept = "+player+".peerConnection, 0)", nil)

	ann.until(t, cardToStay)
	ann.until(t, "gatewayRoom.publisher.peerConnection?.connectionState === 'connected'")
	ann.eval(t, "(window.kept = [gatewayRoom.room.session, gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection], 0)", nil)
	ann.signIn(t, map[string]string{"sign-in-user": "anna", "sign-in-password": annasPassword})
	watch.until(t, cardToStay)
	watch.click(t, ".sign-in .quiet") // use a token
	watch.signIn(t, map[string]string{"sign-in-token": command(t, g, "-subject", "desk", "-room", "door", "-ttl", "1h")})
	for _, w := range []*world{ann, watch} {
		w.until(t, noCard)
		w.wait(t, over)
	}
	ann.until(t, connected)
	ann.until(t, "dialed === 0 && kept[0] === gatewayRoom.room.session && kept[1] === gatewayRoom.room.peerConnection && kept[2] === gatewayRoom.publisher.peerConnection")
	ann.until(t, "gatewayRoom.publisher.sources[0].media.getVideoTracks()[0].readyState === 'live' && "+noCard)
	ann.moving(t, 3)
	watch.until(t, "dialed === 0 && kept === "+player+".peerConnection && "+player+".state === 'playing' && "+noCard)
}

// A camera that nobody can switch off any more is let go: when the token was revoked, and
// when it ends and its bearer doesn't sign in again.
func TestCameraIsLetGoWhenAccessEnds(t *testing.T) {
	t.Parallel() // it waits most of the time
	g := closed(t)
	browser := chromium(t, false)
	enter := func(subject, ttl string) *world {
		w := visit(t, g, browser, "/room/hall?name="+subject+"#token="+url.QueryEscape(command(t, g, "-subject", subject, "-role", "publisher", "-room", "hall", "-ttl", ttl)))
		w.sends(t)
		w.click(t, ".microphone")
		w.until(t, "gatewayRoom.publisher.sources[0].media.getTracks().length === 2")
		w.eval(t, "(window.tracks = gatewayRoom.publisher.sources[0].media.getTracks(), 0)", nil)
		return w
	}
	revoked, late := enter("Eve", "1h"), enter("Late", "40s")
	late.until(t, cardToStay)
	late.until(t, "tracks.every((track) => track.readyState === 'live')") // behind the card all goes on
	late.click(t, ".sign-in .not-now")
	late.until(t, noCard)
	command(t, g, "-revoke-subject", "Eve")
	for _, w := range []*world{revoked, late} {
		w.wait(t, "document.querySelector('.sign-in[open]') && !document.querySelector('.sign-in .not-now').checkVisibility()")
		w.until(t, "tracks.every((track) => track.readyState === 'ended') && gatewayRoom.publisher.sources.length === 0")
	}
}

// A page of another's gives the player a new token by its attribute: the picture goes on in
// the same connection. One that isn't good leaves all as it was, one of somebody else joins
// anew.
func TestPlayerGoesOnByAnotherToken(t *testing.T) {
	t.Parallel() // it waits most of the time
	g := closed(t)
	browser := chromium(t, false)
	token := func(subject, ttl string) string {
		return command(t, g, "-subject", subject, "-room", "door", "-ttl", ttl)
	}
	w := visit(t, g, browser, "/healthz")
	w.eval(t, fmt.Sprintf(`(async () => {
		await import('/assets/player.js')
		window.told = []
		window.element = document.createElement('gateway-player')
		for (const type of ['expiring', 'error']) element.addEventListener(type, ({ detail }) => told.push([type, detail.code ?? detail.expires]))
		element.setAttribute('muted', '')
		element.setAttribute('src', 'door')
		document.body.append(element)
		element.setAttribute('token', %q) // while the socket opens that has none
	})()`, token("desk", "50s")), nil)
	w.until(t, "element.state === 'playing' && told.some(([type]) => type === 'expiring')")
	set := func(token string) {
		w.eval(t, fmt.Sprintf("(window.ends = told.find(([type]) => type === 'expiring')[1], window.kept = element.peerConnection, element.setAttribute('token', %q), 0)", token), nil)
	}
	set("nonsense")
	w.until(t, "told.some(([type, code]) => type === 'error' && code === 'unauthorized')")
	set(token("desk", "1h"))
	w.wait(t, over)
	w.until(t, "element.state === 'playing' && element.peerConnection === kept && kept.connectionState === 'connected'")
	set(token("another", "1h"))
	w.until(t, "element.state === 'playing' && element.peerConnection !== kept && element.peerConnection?.connectionState === 'connected'")
}

// Who is signed in is asked before a link takes the place of that and gives less: elsewhere,
// of fewer streams, or not so long.
func TestLinkThatGivesLessIsAskedFor(t *testing.T) {
	g := closed(t)
	w := visit(t, g, chromium(t, false), "/healthz")
	follow := func(room string, args ...string) {
		rig.Check(t, w.page.Navigate(w.ctx, g.URL("/healthz")))
		token := command(t, g, append([]string{"-role", "publisher", "-room", room}, args...)...)
		rig.Check(t, w.page.Navigate(w.ctx, g.URL("/room/"+room+"?name=Ann#token="+url.QueryEscape(token))))
	}
	follow("hall", "-ttl", "2h")
	w.until(t, connected)
	for name, less := range map[string][]string{
		"elsewhere": {"yard", "-ttl", "3h"}, "one stream": {"hall", "-stream", "door", "-ttl", "3h"}, "not so long": {"hall", "-ttl", "1h"},
	} {
		t.Log(name)
		follow(less[0], less[1:]...)
		w.until(t, "document.querySelector('dialog[open]')?.innerText.includes('You are signed in as a guest')")
		w.until(t, fmt.Sprintf("document.querySelector('#less-detail').innerText.includes('makes you a guest in “%s”')", less[0]))
		w.click(t, "dialog[open] .button") // stay signed in
	}
	follow("hall", "-ttl", "3h")
	w.until(t, connected)
	w.until(t, "document.querySelectorAll('.tile').length === 2") // as the first link has it
}
