package web_test

import (
	"fmt"
	"testing"
	"time"

	"gateway/test/rig"
)

// On a phone the numbers fill the panel: what opens below them was out of sight, and
// so was the line that opens it.
func TestStreamDetailsAreInSightOnAPhone(t *testing.T) {
	s := start(t)
	edited := ladder
	edited.Reload = &reload{At: time.Now().UnixMilli(), Message: "x264enc: no keyframe within 5 s"}
	s.set(edited)
	w := browse(t, s, "/watch/front-door?stats", false)
	if err := w.page.Resize(w.ctx, 360, 740); err != nil {
		t.Fatal(err)
	}
	w.until(t, player+"?.state === 'playing'")
	const inSight = `((e, panel) => e && e.getBoundingClientRect().top >= panel.top - 1 && e.getBoundingClientRect().bottom <= panel.bottom + 1)`
	const panel = shadow + ".querySelector('.panel').getBoundingClientRect()"
	w.until(t, inSight+"(document.querySelector('.settings summary'), "+panel+")")
	w.eval(t, "document.querySelector('.settings summary').click(), 0", nil)
	w.until(t, inSight+"(document.querySelector('.settings > p'), "+panel+")")
	w.until(t, inSight+"(document.querySelector('.settings pre'), "+panel+")")
	w.until(t, "document.scrollingElement.scrollTop === 0") // only the panel has moved
}

// targets lists what may be touched and is smaller than a finger (44 px, WCAG 2.2,
// 2.5.5), in what is open.
const targets = `(() => {
	const open = document.querySelector('dialog[open]') ?? document
	const sensed = [...open.querySelectorAll('a, button, input, select, textarea')].filter((e) => e.checkVisibility())
	return sensed.map((e) => [e, e.getBoundingClientRect()]).filter(([, { width, height }]) => width < 43.5 || height < 43.5)
		.map(([e, { width, height }]) => e.outerHTML.slice(0, 80) + ' ' + Math.round(width) + 'x' + Math.round(height))
})()`

// The room's page on a phone: nothing scrolls sideways, everything that is there can be
// reached, and fits a finger.
func TestRoomOnAPhone(t *testing.T) {
	g := meeting(t, "none")
	browser := chromium(t, false)
	ben := visit(t, g, browser, "/room/hall?name=Ben")
	ben.until(t, connected)
	w := visit(t, g, browser, "/room/hall")
	rig.Check(t, w.page.Resize(w.ctx, 360, 740))
	fits := func(state string, reached ...string) {
		t.Helper()
		w.until(t, "innerWidth === 360 && document.documentElement.scrollWidth <= 360 && document.body.scrollWidth <= 360 && scrollX === 0")
		for _, selector := range reached {
			w.until(t, fmt.Sprintf(`((e) => {
				const { left, top, right, bottom } = e?.getBoundingClientRect() ?? {}
				return left >= -0.5 && top >= -0.5 && right <= 360.5 && bottom <= 740.5 && right > left && e.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2))
			})(document.querySelector(%q))`, selector))
		}
		var small []string
		w.eval(t, targets, &small)
		if len(small) > 0 {
			t.Errorf("%s: too small for a finger: %q", state, small)
		}
	}
	w.until(t, "document.querySelector('#lobby').checkVisibility()")
	fits("lobby", "#name", "#lobby .button")
	w.eval(t, "(document.querySelector('#name').value = 'Ann', document.querySelector('#lobby form').requestSubmit(), 0)", nil)
	w.until(t, connected)
	w.click(t, ".camera")
	w.moving(t, 3)
	w.until(t, "document.querySelector('.chat-button').checkVisibility()")
	fits("tiles", ".microphone", ".camera", ".share-screen", ".devices", ".people-button", ".chat-button", ".share", ".leave", ".tile:nth-child(1)", ".tile:nth-child(2)", ".tile:nth-child(3)")
	w.eval(t, "(gatewayRoom.tiles.get('door').size.click(), 0)", nil)
	w.until(t, "document.querySelector('.tile.large')")
	fits("an enlarged tile", ".tile.large", ".people-button")
	w.eval(t, "(gatewayRoom.tiles.get('door').size.click(), 0)", nil)
	w.click(t, ".people-button")
	w.click(t, "#participants .round:not([hidden])")
	fits("people", "#people-close", "#participants > li", "#participants .acts:not([hidden]) button:not([hidden])", "#lock", "#close-room")
	w.click(t, "#people-close")
	w.click(t, ".chat-button")
	fits("chat", "#chat-close", "#line", "#chat form .round")
	w.click(t, "#chat-close")
	w.click(t, ".share")
	w.until(t, "document.querySelector('.share[open]')")
	fits("share", "#share-address", ".share[open] .copy .button", ".share[open] > .quiet")
	w.eval(t, "(document.querySelector('.share[open]').close(), 0)", nil)
	w.click(t, ".leave")
	w.until(t, "document.querySelector('#notice').innerText.includes('You have left')")
	fits("left", "#notice .button")
}
