package web_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"gateway/test/rig"
)

var meets = flag.Duration("meets", 15*time.Second, "how long six browsers meet")

// small makes a page's camera one of 320x180 at 10 frames a second, in one size.
const small = `
	const capture = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices)
	if (capture) navigator.mediaDevices.getUserMedia = (c) =>
		capture({ ...c, video: c.video && { width: 320, height: 180, frameRate: 10 } })
	const add = RTCPeerConnection.prototype.addTransceiver
	RTCPeerConnection.prototype.addTransceiver = function (track, init) {
		if (init?.sendEncodings && track.kind !== 'audio') init = { ...init, sendEncodings: [{ maxFramerate: 10, maxBitrate: 150000 }] }
		return add.call(this, track, init)
	}`

// changes counts how often each tile's pixels were others than a moment before.
const changes = `(() => {
	const canvas = document.createElement('canvas')
	canvas.width = 64
	canvas.height = 36
	const pen = canvas.getContext('2d', { willReadFrequently: true })
	window.changed = new Map()
	const last = new Map()
	setInterval(() => {
		for (const { key, video } of gatewayRoom.tiles.all) {
			if (!video.videoWidth) continue
			pen.drawImage(video, 0, 0, 64, 36)
			const now = pen.getImageData(0, 0, 64, 36).data.join()
			if (last.has(key) && last.get(key) !== now) changed.set(key, (changed.get(key) ?? 0) + 1)
			last.set(key, now)
		}
	}, 60)
	return 0
})()`

// Six browsers send each other their cameras through the gateway: each sees all
// six move, at least five times a second.
func TestSixBrowsersMeet(t *testing.T) {
	g := meetingIn(t, rig.GatewayOptions{Auth: "none"})
	browser, err := rig.StartChromium(t.Context(), rig.ChromiumOptions{Preload: small, Flags: fakes})
	rig.Check(t, err)
	rig.End(t, "chromium", browser.Close)
	var all []*world
	for i := range 6 {
		w := visit(t, g, browser, fmt.Sprintf("/room/six?name=P%d", i))
		w.until(t, connected)
		w.click(t, ".camera")
		w.until(t, "gatewayRoom.publisher.sources[0]?.stream !== ''")
		all = append(all, w)
	}
	for _, w := range all {
		w.until(t, "document.querySelectorAll('.tile.pictured').length === 6")
		w.eval(t, changes, nil)
	}
	time.Sleep(*meets)
	least := 1e9
	for i, w := range all {
		var counts map[string]float64
		w.eval(t, "Object.fromEntries(changed)", &counts)
		if len(counts) != 6 {
			t.Errorf("P%d sees %d pictures move", i, len(counts))
		}
		for _, n := range counts {
			least = min(least, n/meets.Seconds())
		}
	}
	t.Logf("in %v each of 36 pictures changed at least %.1f times a second", *meets, least)
	if least < 5 {
		t.Error("that is less than five")
	}
}
