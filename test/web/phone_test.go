package web_test

import (
	"testing"
	"time"
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
