package web_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"gateway/test/rig"
)

var (
	meets = flag.Duration("meets", 15*time.Second, "how long six browsers meet")
	apart = flag.Bool("apart", false, "six browsers are six processes, not six storages of one")
)

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

// changes counts how often each tile's pixels were others than a moment before, for
// each second of the page's clock.
const changes = `(() => {
	const canvas = document.createElement('canvas')
	canvas.width = 64
	canvas.height = 36
	const pen = canvas.getContext('2d', { willReadFrequently: true })
	window.changed = new Map()
	const last = new Map()
	const begun = performance.now()
	setInterval(() => {
		const second = Math.floor((performance.now() - begun) / 1000)
		for (const { key, video } of gatewayRoom.tiles.all) {
			if (!video.videoWidth) continue
			pen.drawImage(video, 0, 0, 64, 36)
			const now = pen.getImageData(0, 0, 64, 36).data.join()
			if (!changed.has(key)) changed.set(key, [])
			const counts = changed.get(key)
			while (counts.length <= second) counts.push(0)
			if (last.has(key) && last.get(key) !== now) counts[second]++
			last.set(key, now)
		}
	}, 60)
	return 0
})()`

// Six browsers send each other their cameras through the gateway: each sees all six
// move, at least five times in every second. Two of fifteen may be bad; a tile that
// freezes has more of them. One's own camera goes over no network: a second in which it
// doesn't move so often either is one in which the machine had no time for the page, and
// isn't counted. Where that is more than a third the test says nothing.
func TestSixBrowsersMeet(t *testing.T) {
	g := meetingIn(t, rig.GatewayOptions{Auth: "none"})
	var browser *rig.Chromium
	var all []*world
	for i := range 6 {
		if i == 0 || *apart {
			var err error
			browser, err = rig.StartChromium(t.Context(), rig.ChromiumOptions{Preload: small, Flags: fakes})
			rig.Check(t, err)
			rig.End(t, "chromium", browser.Close)
		}
		w := visit(t, g, browser, fmt.Sprintf("/room/six?name=P%d", i))
		w.sends(t)
		all = append(all, w)
	}
	for _, w := range all {
		w.until(t, "document.querySelectorAll('.tile.pictured').length === 6")
		w.moving(t, 6)
	}
	for _, w := range all {
		w.eval(t, changes, nil)
	}
	time.Sleep(*meets)
	seconds := int(*meets / time.Second)
	mean, bad, idle := 1e9, 0, 0
	for i, w := range all {
		var tiles map[string][]int
		w.eval(t, "Object.fromEntries(changed)", &tiles)
		if len(tiles) != 6 {
			t.Errorf("P%d sees %d pictures move", i, len(tiles))
		}
		own := tiles["own:camera"]
		for key, counts := range tiles {
			sum, slow, of := 0, 0, 0
			for second := 1; second < min(len(counts), len(own), seconds); second++ { // the last may not be over
				n := counts[second]
				switch {
				case own[second] >= 5:
					of++
					sum += n
					if n < 5 {
						slow++
					}
				case key == "own:camera":
					idle++
				}
			}
			mean = min(mean, float64(sum)/float64(max(of, 1)))
			if slow > max(1, 2*seconds/15) {
				bad++
				t.Logf("P%d sees %s change less than five times in %d seconds of %d: %v; its own: %v", i, key, slow, of, counts, own)
			}
		}
	}
	if idle > 6*seconds/3 {
		t.Skipf("the machine had no time for the pages in %d of %d seconds: nothing can be said of the gateway", idle, 6*seconds)
	}
	if bad > 0 {
		t.Errorf("%d of 36 pictures freeze", bad)
	}
	t.Logf("in %v each of 36 pictures changed at least %.1f times a second", *meets, mean)
}
