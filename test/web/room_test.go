package web_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// fakes are flags that give Chromium a camera, a microphone and a screen, and
// leave to use them.
var fakes = map[string]string{
	"use-fake-device-for-media-stream": "", "use-fake-ui-for-media-stream": "", "auto-accept-this-tab-capture": "",
	"autoplay-policy": "no-user-gesture-required", "enable-logging": "stderr",
}

// enter opens the room's page in a tab of its own of a browser with a fake
// camera.
func enter(t *testing.T, h *hall, browser opener, path string) *world {
	t.Helper()
	return open(t, browser, h.url(path))
}

// open opens a page in a tab of its own.
func open(t *testing.T, browser opener, url string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	page, err := browser.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return &world{ctx: ctx, page: page, log: func() string { return "" }}
}

type opener interface {
	Open(ctx context.Context, url string) (rig.Page, error)
}

func chromium(t *testing.T, dark bool) *rig.Chromium {
	t.Helper()
	browser, err := rig.StartChromium(t.Context(), rig.ChromiumOptions{Dark: dark, Flags: fakes})
	rig.Check(t, err)
	rig.End(t, "chromium", browser.Close)
	t.Cleanup(func() {
		for line := range strings.SplitSeq(browser.Log(), "\n") {
			if strings.Contains(line, "CONSOLE") && (strings.Contains(line, "Content Security Policy") || strings.Contains(line, "Uncaught")) {
				t.Errorf("the browser says: %s", line)
			}
		}
	})
	return browser
}

// foxFakes are Firefox's preferences for the same.
const foxFakes = `
user_pref("media.navigator.streams.fake", true);
user_pref("media.navigator.permission.disabled", true);
`

func firefox(t *testing.T) *rig.Firefox {
	t.Helper()
	browser, err := rig.StartFirefox(t.Context(), rig.FirefoxOptions{Prefs: foxFakes})
	rig.Check(t, err)
	rig.End(t, "firefox", browser.Close)
	return browser
}

const (
	connected = "document.querySelector('#state').textContent === 'Connected'"
	publishes = "gatewayRoom.publisher.sources[0]?.stream !== '' && gatewayRoom.publisher.peerConnection?.connectionState === 'connected'"
	// moving counts tiles whose pictures are played now
	moving = "[...document.querySelectorAll('.tile.pictured video')].filter((v) => v.videoWidth > 0).length"
)

// click clicks what a selector finds.
func (w *world) click(t *testing.T, selector string) {
	t.Helper()
	w.eval(t, fmt.Sprintf("(document.querySelector(%q).click(), 0)", selector), nil)
}

// frames waits until n pictures move.
func (w *world) moving(t *testing.T, n int) {
	t.Helper()
	w.until(t, fmt.Sprintf("%s === %d", moving, n))
	w.eval(t, "(window.before = gatewayRoom.tiles.all.map((t) => t.frames), 0)", nil)
	w.until(t, "gatewayRoom.tiles.all.every((t, i) => !t.element.matches('.pictured') || t.frames > window.before[i] + 5)")
}

// sends switches the camera on, and waits until it is sent.
func (w *world) sends(t *testing.T) {
	t.Helper()
	w.until(t, connected)
	w.click(t, ".camera")
	w.until(t, "Boolean(gatewayRoom.publisher.sources[0]?.stream) && gatewayRoom.publisher.peerConnection?.connectionState === 'connected'")
}

// meet has all send their cameras, and waits until each sees that many moving
// pictures.
func meet(t *testing.T, pictures int, all ...*world) {
	t.Helper()
	for _, w := range all {
		w.sends(t)
	}
	for _, w := range all {
		w.until(t, fmt.Sprintf("document.querySelectorAll('.tile').length === %d", pictures))
		w.moving(t, pictures)
	}
}

func TestTwoPublishAndWatchEachOther(t *testing.T) {
	h := startHall(t)
	h.camera(t, "door", "Front door", standard)
	browser := chromium(t, false)
	ann := enter(t, h, browser, "/room/hall?name=Ann")
	ben := enter(t, h, browser, "/room/hall?name=Ben")
	meet(t, 3, ann, ben)
	ann.until(t, "[...document.querySelectorAll('.caption')].map((e) => e.textContent).sort().join() === 'Ann (you),Ben,Front door'")
	var layers int
	ann.eval(t, "gatewayRoom.publisher.peerConnection.getSenders()[0].getParameters().encodings.length", &layers)
	if layers != 3 {
		t.Errorf("the camera is sent in %d sizes, want 3", layers)
	}
	// one reloads: the other loses and gets one tile, on the connection that it has
	ben.eval(t, "(window.kept = gatewayRoom.room.peerConnection, window.door = gatewayRoom.tiles.get('door').video, 0)", nil)
	before := h.who("Ben").offers
	rig.Check(t, ann.page.Navigate(ann.ctx, h.url("/room/hall?name=Ann")))
	ben.until(t, "document.querySelectorAll('.tile').length === 2")
	ann.until(t, connected)
	ann.click(t, ".camera")
	ben.until(t, "document.querySelectorAll('.tile').length === 3")
	ben.moving(t, 3)
	ben.until(t, "gatewayRoom.room.peerConnection === kept && kept.connectionState === 'connected' && gatewayRoom.tiles.get('door').video === door")
	if after := h.who("Ben").offers; after-before > 2 {
		t.Errorf("%d offers for one who reloaded, want 2: a tile less, a tile more", after-before)
	}
	// and leaves
	ann.click(t, ".leave")
	ann.until(t, "document.querySelector('#notice').innerText.includes('You have left')")
	ben.until(t, "document.querySelectorAll('.tile').length === 2")
}

func TestMicrophoneAndCameraAreOneStream(t *testing.T) {
	h := startHall(t)
	browser := chromium(t, false)
	ann := enter(t, h, browser, "/room/hall?name=Ann")
	ben := enter(t, h, browser, "/room/hall?name=Ben")
	ann.until(t, connected)
	ben.until(t, connected)
	ann.click(t, ".microphone")
	ben.until(t, "gatewayRoom.tiles.all[0]?.video.srcObject?.getAudioTracks().length === 1 && document.querySelectorAll('.tile').length === 1")
	ann.until(t, "gatewayRoom.publisher.sources[0].stream !== ''")
	ann.click(t, ".camera")
	ben.until(t, "gatewayRoom.tiles.all[0].video.srcObject.getTracks().length === 2 && document.querySelectorAll('.tile').length === 1")
	ben.moving(t, 1)
	// a camera that is switched off is let go; who watches keeps the connection
	before := h.who("Ben").offers
	ann.click(t, ".camera")
	ann.until(t, "!document.querySelector('.camera').matches('.on') && gatewayRoom.publisher.sources[0].media.getVideoTracks()[0].readyState === 'ended'")
	ben.until(t, "!document.querySelector('.tile.pictured')")
	ann.click(t, ".camera")
	ben.moving(t, 1)
	if after := h.who("Ben").offers; after != before {
		t.Errorf("%d offers for a camera that was off and on, want none", after-before)
	}
}

func TestCutSocketIsTakenUpAgain(t *testing.T) {
	h := startHall(t)
	h.camera(t, "door", "Front door", standard)
	browser := chromium(t, false)
	ann := enter(t, h, browser, "/room/hall?name=Ann")
	ben := enter(t, h, browser, "/room/hall?name=Ben")
	ann.until(t, connected)
	ben.until(t, connected)
	ann.click(t, ".camera")
	ann.until(t, "gatewayRoom.publisher.peerConnection?.connectionState === 'connected'")
	ben.moving(t, 2)
	ann.moving(t, 2)
	ann.eval(t, "(window.kept = [gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection], 0)", nil)
	me := h.who("Ann")
	h.cut("Ann")
	h.absent("later", "Later", "came while the socket was away") // told when it is back
	ann.until(t, connected)
	ann.until(t, "gatewayRoom.room.streams.has('later') && document.body.innerText.includes('Came while the socket was away.')")
	ann.until(t, "gatewayRoom.room.peerConnection === kept[0] && gatewayRoom.publisher.peerConnection === kept[1] && kept.every((pc) => pc.connectionState === 'connected')")
	ann.moving(t, 2)
	h.mu.Lock()
	sockets, again := me.sockets, slices.Contains(h.received, "Ann restart-ice")
	h.mu.Unlock()
	if sockets != 2 || again || h.who("Ann") != me {
		t.Errorf("%d sockets, want 2; ICE was restarted: %v", sockets, again)
	}
	// the network changes: the socket that is lost with it comes back, and media look for another way
	ann.eval(t, "(window.ufrags = () => kept.map((pc) => pc.localDescription.sdp.match(/ice-ufrag:(.*)/)[1]).join(), window.first = ufrags(), 0)", nil)
	ann.eval(t, "(WebSocket.prototype.sent = WebSocket.prototype.send, WebSocket.prototype.send = function (text) { if (!/ping/.test(text)) this.sent(text); }, dispatchEvent(new Event('online')), 0)", nil)
	ann.until(t, "document.querySelector('#state').textContent !== 'Connected'")
	ann.eval(t, "(WebSocket.prototype.send = WebSocket.prototype.sent, 0)", nil)
	ann.until(t, connected)
	ann.until(t, "ufrags().split(',').every((u) => !first.includes(u)) && kept.every((pc) => pc.connectionState === 'connected')")
	ann.moving(t, 2)
	ben.moving(t, 2)
	if got := h.who("Ann"); got != me {
		t.Error("Ann has joined anew")
	}
}

func TestHostsMayAndGuestsMayNot(t *testing.T) {
	h := startHall(t)
	browser := chromium(t, false)
	host := enter(t, h, browser, "/room/hall?name=Host")
	ann := enter(t, h, browser, "/room/hall?name=Ann")
	ann.until(t, connected)
	host.until(t, connected)
	ann.click(t, ".microphone")
	ann.until(t, "document.querySelector('.microphone').matches('.on')")
	ann.click(t, ".people-button")
	ann.until(t, "document.querySelectorAll('#participants > li').length === 2 && !document.querySelector('#room-tools').checkVisibility()")
	ann.until(t, "[...document.querySelectorAll('.person .round')].every((b) => b.hidden)")
	host.click(t, ".people-button")
	host.until(t, "document.querySelector('#participants').innerText.includes('Host (you)') && document.querySelector('#room-tools').checkVisibility()")
	act := func(text string) {
		t.Helper()
		host.click(t, "#participants > li:not(:first-child) .round")
		host.eval(t, fmt.Sprintf("([...document.querySelectorAll('#participants .acts button')].find((b) => b.checkVisibility() && b.textContent === %q).click(), 0)", text), nil)
	}
	act("Mute the microphone")
	ann.until(t, "document.querySelector('.microphone').matches('.forced') && document.querySelector('#toasts').innerText.includes('A host has muted your microphone')")
	host.until(t, "document.querySelector('.marks span')")
	act("Lift the mute of the microphone")
	ann.until(t, "document.querySelector('.microphone').matches('.on')")
	act("Make a host")
	host.until(t, "[...document.querySelectorAll('.role')].filter((e) => e.textContent.includes('Host')).length === 2")
	host.click(t, "#lock")
	ann.until(t, "document.querySelector('#state').textContent.includes('locked')")
	act("Remove from the room")
	host.until(t, "document.querySelector('dialog[open]')?.innerText.includes('Remove Ann?')")
	host.click(t, "dialog[open] .grave")
	ann.until(t, "document.querySelector('#notice').innerText.includes('You were removed')")
	ann.until(t, "!document.querySelector('#bar').checkVisibility()")
	host.until(t, "document.querySelectorAll('#participants > li').length === 1")
	host.click(t, "#close-room")
	host.click(t, "dialog[open] .grave")
	host.until(t, "document.querySelector('#notice').innerText.includes('The room was closed')")
}

func TestTilesTellTheirSize(t *testing.T) {
	h := startHall(t)
	for i := range 6 {
		h.camera(t, fmt.Sprint("camera-", i), fmt.Sprint("Camera ", i), standard)
	}
	browser := chromium(t, false)
	w := enter(t, h, browser, "/room/hall?name=Ann")
	rig.Check(t, w.page.Resize(w.ctx, 1280, 800))
	w.moving(t, 6)
	seen := func() sight {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.views["Ann camera-2"]
	}
	rig.Check(t, rig.Until(w.ctx, "a third of the page", func() (bool, error) {
		v := seen()
		return v.Visible && v.Width > 350 && v.Width < 430, nil
	}))
	w.eval(t, "(gatewayRoom.tiles.get('camera-2').size.click(), 0)", nil)
	rig.Check(t, rig.Until(w.ctx, "most of the page", func() (bool, error) { return seen().Width > 800, nil }))
	w.until(t, "[...document.querySelectorAll('.tile')].every((a, i, all) => all.slice(i + 1).every((b) => { const [x, y] = [a.getBoundingClientRect(), b.getBoundingClientRect()]; return x.right <= y.left + 1 || y.right <= x.left + 1 || x.bottom <= y.top + 1 || y.bottom <= x.top + 1; }))")
	w.press(t, "Escape")
	rig.Check(t, rig.Until(w.ctx, "a third of the page again", func() (bool, error) { return seen().Width < 430, nil }))
}

func TestTokenOfTheAddressIsTakenOutOfIt(t *testing.T) {
	h := startHall(t)
	h.token = "s3cret"
	browser := chromium(t, false)
	w := enter(t, h, browser, "/room/hall?name=Ann#token=s3cret")
	w.until(t, connected)
	w.until(t, "!location.href.includes('s3cret') && location.search === '?name=Ann' && !document.cookie")
	// a link that is pasted into the open page
	w.eval(t, "(location.hash = 'token=s3cret', 0)", nil)
	w.until(t, "!location.href.includes('s3cret') && "+connected)
	// without one it is asked who looks
	w = enter(t, h, browser, "/room/hall?name=Ben")
	w.until(t, "document.querySelector('.sign-in[open]')?.innerText.includes('Sign in')")
	fill := func(fields map[string]string) {
		for id, value := range fields {
			w.eval(t, fmt.Sprintf("(document.getElementById(%q).value = %q, 0)", id, value), nil)
		}
		w.eval(t, "(document.querySelector('.sign-in form').requestSubmit(), 0)", nil)
	}
	fill(map[string]string{"sign-in-user": "ann", "sign-in-password": "wrong"})
	w.until(t, "document.querySelector('.sign-in .problem').textContent.includes('doesn’t know')")
	fill(map[string]string{"sign-in-user": "ann", "sign-in-password": "secret"})
	w.until(t, connected+" && !document.querySelector('.sign-in')")
	// a link that was used before
	w = enter(t, h, browser, "/room/hall?name=Cleo#token=used")
	w.until(t, "document.querySelector('#toasts').innerText.includes('The link wasn’t taken') && document.querySelector('.sign-in[open]')")
	w.click(t, ".sign-in .quiet")
	fill(map[string]string{"sign-in-token": h.url("/room/hall#token=s3cret")})
	w.until(t, connected)
}

func TestRefusalsOfARoomAreSaidInWords(t *testing.T) {
	h := startHall(t)
	browser := chromium(t, false)
	w := enter(t, h, browser, "/room/hall")
	w.until(t, "document.querySelector('#lobby').checkVisibility() && document.activeElement.id === 'name'")
	for _, c := range []struct{ code, title string }{
		{"room-locked", "The room is locked"}, {"room-full", "The room is full"}, {"room-closed", "The room is closed"},
		{"not-found", "No such room"}, {"forbidden", "You may not see this"},
	} {
		h.mu.Lock()
		h.refuse = [2]string{c.code, "no"}
		h.mu.Unlock()
		rig.Check(t, w.page.Navigate(w.ctx, h.url("/room/hall?name=Ann")))
		w.until(t, fmt.Sprintf("document.querySelector('#notice').innerText.includes(%q)", c.title))
	}
	h.mu.Lock()
	h.refuse = [2]string{}
	h.mu.Unlock()
	w.eval(t, "([...document.querySelectorAll('#notice button')].at(-1).click(), 0)", nil)
	w.until(t, connected)
}

func TestInsecurePageSaysWhyThereIsNoCamera(t *testing.T) {
	h := startHall(t)
	browser := chromium(t, false)
	w := enter(t, h, browser, "/room/hall?name=Ann")
	w.until(t, connected)
	for _, c := range []struct{ name, say string }{
		{"NotAllowedError", "blocked"}, {"NotFoundError", "There is no camera"}, {"NotReadableError", "can’t be used"},
	} {
		w.eval(t, fmt.Sprintf("(navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', %q)), document.querySelector('.camera').click(), 0)", c.name), nil)
		w.until(t, fmt.Sprintf("document.querySelector('#toasts').innerText.includes(%q)", c.say))
	}
	w.eval(t, "(Object.defineProperty(globalThis, 'isSecureContext', {value: false}), document.querySelector('.camera').click(), 0)", nil)
	w.until(t, "document.querySelector('#toasts').innerText.includes('This page is not secure')")
}

// violates fails the test for each thing that axe finds in the page as it is.
func (w *world) violates(t *testing.T, state string) {
	t.Helper()
	root, err := rig.Root()
	rig.Check(t, err)
	axe, err := os.ReadFile(filepath.Join(root, "test", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		rig.Check(t, &rig.Missing{What: "axe-core", Remedy: "run npm ci in test/"})
	}
	w.eval(t, "(() => {"+string(axe)+"})()", nil)
	var found []struct {
		ID, Impact, Help string
		Nodes            []string
	}
	w.eval(t, `axe.run().then(({violations}) => violations.map(({id, impact, help, nodes}) => ({id, impact, help, nodes: nodes.map((n) => n.html)})))`, &found)
	for _, f := range found {
		t.Errorf("%s: %s: %s: %s: %q", state, f.Impact, f.ID, f.Help, f.Nodes)
	}
}

func TestAxeFindsNothingInTheRoom(t *testing.T) {
	h := startHall(t)
	h.camera(t, "door", "Front door", standard)
	h.absent("desktop", "Desktop", "there is no display")
	for _, dark := range []bool{false, true} {
		browser := chromium(t, dark)
		w := enter(t, h, browser, "/room/hall?name=Host")
		w.moving(t, 1)
		w.click(t, ".camera")
		w.click(t, ".people-button")
		w.moving(t, 2)
		check := func(state string) {
			t.Helper()
			w.violates(t, fmt.Sprintf("%s (dark: %v)", state, dark))
		}
		check("room")
		w.click(t, ".chat-button")
		w.eval(t, "(gatewayRoom.room.data.dispatchEvent(new CustomEvent('message', {detail: {userId: 'x', data: {chat: {text: 'hello'}}}})), 0)", nil)
		w.until(t, "document.querySelector('#said p')")
		check("chat")
		w.click(t, ".share")
		w.until(t, "document.querySelector('.share[open]')")
		check("share")
		w.eval(t, "(document.querySelector('.share[open]').close(), document.querySelector('.devices').click(), 0)", nil)
		w.until(t, "document.querySelector('dialog[open] select')")
		check("devices")
		w.eval(t, "(document.querySelector('dialog[open]').close(), 0)", nil)
		w.click(t, ".leave")
		w.until(t, "document.querySelector('#notice h2')")
		check("left")
		lobby := enter(t, h, browser, "/room/hall")
		lobby.until(t, "document.querySelector('#lobby').checkVisibility()")
		w = lobby
		check("lobby")
	}
}

func TestRoomInFirefox(t *testing.T) {
	h := startHall(t)
	h.camera(t, "door", "Front door", standard)
	ann := enter(t, h, firefox(t), "/room/hall?name=Ann")
	ben := enter(t, h, chromium(t, false), "/room/hall?name=Ben")
	meet(t, 3, ann, ben)
	h.cut("Ann")
	ann.until(t, "gatewayRoom.room.status.state !== 'connected'")
	ann.until(t, connected)
	ann.moving(t, 3)
}
