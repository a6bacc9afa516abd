package web_test

import (
	"fmt"
	"testing"

	"gateway/test/rig"
)

// says writes a line into the chat of the room's page.
func (w *world) says(t *testing.T, text string) {
	t.Helper()
	w.until(t, "!document.querySelector('#chat form button').disabled")
	w.eval(t, fmt.Sprintf("(document.querySelector('#line').value = %q, document.querySelector('#chat form').requestSubmit(), 0)", text), nil)
}

// hears waits for the last line of the chat.
func (w *world) hears(t *testing.T, name, text string) {
	t.Helper()
	w.until(t, fmt.Sprintf("document.querySelector('#said > :last-child p')?.textContent === %q && [...document.querySelectorAll('#said strong')].at(-1).textContent === %q", text, name))
}

// People of a room write to each other over the data channels that the gateway opens, in
// both browsers, also where nothing is sent, and again after a reload.
func TestPeopleWriteToEachOther(t *testing.T) {
	g := meeting(t, "none")
	ann := visit(t, g, chromium(t, false), "/room/empty?name=Ann")
	fox := visit(t, g, firefox(t), "/room/empty?name=Fox")
	for _, w := range []*world{ann, fox} {
		w.until(t, connected)
		w.until(t, "document.querySelector('.chat-button').checkVisibility()")
	}
	ann.click(t, ".chat-button")
	fox.until(t, "gatewayRoom.room.data.ready")
	ann.says(t, "<b>hello</b> there\nFox")
	ann.hears(t, "You", "<b>hello</b> there\nFox")
	fox.hears(t, "Ann", "<b>hello</b> there\nFox")
	fox.until(t, "document.querySelector('.chat-button').dataset.count === '1' && document.querySelector('#toasts').innerText.includes('Ann')")
	fox.click(t, ".chat-button")
	fox.until(t, "document.querySelector('.chat-button').dataset.count === '' && document.activeElement.id === 'line'")
	fox.says(t, "hello Ann")
	ann.hears(t, "Fox", "hello Ann")
	// what programs send to each other isn't chat; bytes go as well
	ann.eval(t, "(window.got = [], gatewayRoom.room.data.addEventListener('message', (e) => got.push(e.detail)), 0)", nil)
	fox.eval(t, `(gatewayRoom.room.data.send({speed: 3}), gatewayRoom.room.data.send(new Uint8Array([1, 2, 3]), {target: [...gatewayRoom.room.participants.values()].find((p) => p.name === 'Ann').userId}), 0)`, nil)
	ann.until(t, "got.length === 2 && got[0].data.speed === 3 && got[1].data.join() === '1,2,3' && got.every((m) => gatewayRoom.room.participants.get(m.userId).name === 'Fox')")
	ann.hears(t, "Fox", "hello Ann")
	// the next session has channels of its own
	rig.Check(t, ann.page.Navigate(ann.ctx, g.URL("/room/empty?name=Ann")))
	ann.until(t, connected)
	ann.until(t, "gatewayRoom.room.data.ready")
	fox.until(t, "gatewayRoom.room.participants.size === 2")
	ann.click(t, ".chat-button")
	ann.says(t, "here again")
	fox.hears(t, "Ann", "here again")
}

// One session goes from layer to layer of a simulcast that Chromium sends live, by the
// menu of the picture: the connection and its track stay, nothing is negotiated, and the
// picture moves on in the size that was asked for.
func TestLayersOfALiveSimulcastAreChosen(t *testing.T) {
	g := meeting(t, "none")
	browser := chromium(t, false)
	ann := visit(t, g, browser, "/room/empty?name=Ann")
	ann.until(t, connected)
	ann.click(t, ".camera")
	ann.until(t, "gatewayRoom.publisher.peerConnection?.connectionState === 'connected'")
	ben := visit(t, g, browser, "/room/empty?name=Ben")
	ben.until(t, connected)
	ben.moving(t, 1)
	const hers = "gatewayRoom.tiles.all[0]"
	ben.until(t, hers+".quality.checkVisibility({opacityProperty: false}) && "+hers+".menu.options.length === 4")
	ben.eval(t, "(window.kept = ["+hers+".video.srcObject.getVideoTracks()[0], gatewayRoom.room.peerConnection], window.offers = 0, gatewayRoom.room.peerConnection.addEventListener('signalingstatechange', () => window.offers++), 0)", nil)
	var layers []struct {
		Name  string
		Width int
	}
	ben.until(t, "[...gatewayRoom.room.streams.values()][0].tracks.filter((t) => t.kind === 'video' && t.width > 0).length === 3")
	ben.eval(t, "[...gatewayRoom.room.streams.values()][0].tracks.filter((t) => t.kind === 'video').map(({name, width}) => ({name, width}))", &layers)
	for n := range 6 {
		layer := layers[(len(layers)-1+n)%len(layers)]
		ben.eval(t, fmt.Sprintf("("+hers+".menu.value = %q, "+hers+".menu.dispatchEvent(new Event('change')), 0)", layer.Name), nil)
		ben.until(t, fmt.Sprintf(hers+".video.videoWidth === %d", layer.Width))
		ben.moving(t, 1)
	}
	ben.until(t, "offers === 0 && kept[0] === "+hers+".video.srcObject.getVideoTracks()[0] && kept[0].readyState === 'live' && kept[1] === gatewayRoom.room.peerConnection")
}
