package web_test

import (
	"fmt"
	"slices"
	"testing"

	"gateway/test/rig"
)

// sees waits until the page has said last that so much of the picture is seen.
func (w *world) sees(t *testing.T, what string, fits func(sight) bool) {
	t.Helper()
	var said []sight
	err := rig.Until(w.ctx, what, func() (bool, error) {
		w.mu.Lock()
		said = slices.Clone(w.sights)
		w.mu.Unlock()
		return len(said) > 0 && fits(said[len(said)-1]), nil
	})
	if err != nil {
		t.Fatalf("%v; the page has said %+v", err, said)
	}
}

// pixels is the size of the video in device pixels.
func (w *world) pixels(t *testing.T) (width, height int) {
	t.Helper()
	var size [2]float64
	w.eval(t, "(({width, height}) => [width * devicePixelRatio, height * devicePixelRatio])("+player+".video.getBoundingClientRect())", &size)
	return int(size[0] + .5), int(size[1] + .5)
}

// hide puts another tab before the page; show takes it away.
func (w *world) hide(t *testing.T) {
	t.Helper()
	w.eval(t, "(window.open('about:blank', 'cover'), 0)", nil)
	w.until(t, "document.hidden")
}

func (w *world) show(t *testing.T) {
	t.Helper()
	w.eval(t, "(window.open('', 'cover').close(), 0)", nil)
	w.until(t, "!document.hidden")
}

func TestPageTellsHowMuchIsSeen(t *testing.T) {
	t.Run("chromium", func(t *testing.T) {
		s := start(t)
		s.set(door)
		followSight(t, browse(t, s, "/watch/front-door", false))
	})
	t.Run("firefox", func(t *testing.T) {
		s := start(t)
		s.set(door)
		followSight(t, browseFirefox(t, s, "/watch/front-door"))
	})
}

// listen notes what the player says, and counts its readings, which are one a second.
const listen = `(() => {
	const player = document.querySelector('gateway-player');
	window.states = [];
	window.readings = 0;
	player.addEventListener('state', (event) => states.push(event.detail.state + ' ' + event.detail.title));
	player.addEventListener('stats', () => readings++);
})()`

// silent fails if the player has said anything.
func (w *world) silent(t *testing.T) {
	t.Helper()
	var states []string
	w.eval(t, "states", &states)
	if len(states) > 0 {
		t.Errorf("the player said %q, want nothing", states)
	}
}

func followSight(t *testing.T, w *world) {
	w.until(t, player+".state === 'playing'")
	full := func(s sight) bool {
		width, height := w.pixels(t)
		return s == sight{Width: width, Height: height, Visible: true}
	}
	w.sees(t, "the size at first", full)
	rig.Check(t, w.page.Resize(w.ctx, 500, 400))
	w.until(t, "innerWidth === 500")
	w.sees(t, "another size", func(s sight) bool { return s.Height == 400 && full(s) })
	w.eval(t, "("+player+".muted = false, 0)", nil)
	w.sees(t, "that it is heard", func(s sight) bool { return s.Audible })
	w.eval(t, "("+player+".muted = true, 0)", nil)
	w.sees(t, "that it isn't heard any more", full)

	// nothing comes while nobody looks, and that is no fault, neither then nor afterwards
	w.eval(t, mark, nil)
	w.eval(t, listen, nil)
	w.hide(t)
	w.sees(t, "that the page is hidden", func(s sight) bool { return !s.Visible })
	w.eval(t, "(readings = 0)", nil)
	w.until(t, "readings >= 5")
	renamed := door
	renamed.Title = "Back door" // whatever is told meanwhile
	w.set(renamed)
	w.until(t, "document.title.startsWith('Back door') || "+player+".stream.title === 'Back door'")
	w.show(t)
	w.sees(t, "that the page is seen", full)
	w.eval(t, "(marked.frames = 0)", nil)
	w.until(t, "marked.frames > 10 && "+kept)
	w.silent(t)
	w.neverBlack(t)

	// a new session is told too
	w.mu.Lock()
	before := len(w.sights)
	w.mu.Unlock()
	w.drop()
	w.until(t, player+".peerConnection !== marked.pc && "+player+".state === 'playing'")
	w.mu.Lock()
	again := slices.Clone(w.sights[before:])
	w.mu.Unlock()
	if len(again) == 0 || !full(again[0]) {
		t.Errorf("the new session was told %+v", again)
	}
}

// A gallery has players out of sight, and a tab may be opened behind another one.
func TestPictureOutOfSightIsNotAskedFor(t *testing.T) {
	t.Parallel() // it waits most of the time
	t.Run("chromium", func(t *testing.T) {
		s := start(t)
		s.set(door)
		leaveSight(t, browse(t, s, "/", false))
	})
	t.Run("firefox", func(t *testing.T) {
		s := start(t)
		s.set(door)
		leaveSight(t, browseFirefox(t, s, "/"))
	})
}

func leaveSight(t *testing.T, w *world) {
	shown := func(s sight) bool { return s.Visible }
	gone := func(s sight) bool { return !s.Visible }
	w.eval(t, `(async () => {
		await import('/assets/player.js');
		const far = document.createElement('div');
		far.style.height = '5000px';
		const player = document.createElement('gateway-player');
		player.setAttribute('src', 'front-door');
		player.setAttribute('muted', '');
		player.style.width = '320px';
		document.body.append(far, player);
	})()`, nil)
	w.sees(t, "that it is far below", gone)
	w.mu.Lock()
	first := w.sights[0]
	w.mu.Unlock()
	if first.Visible {
		t.Error("it was said to be seen at first")
	}
	w.until(t, player+".peerConnection?.connectionState === 'connected' && "+player+".state === 'waiting'")
	w.eval(t, "("+player+".scrollIntoView(), 0)", nil)
	w.sees(t, "that it was scrolled to", shown)
	w.until(t, player+".state === 'playing'")
	w.eval(t, listen, nil)
	for _, c := range []struct{ what, leave, back string }{
		{"scrolled away", "scrollTo(0, 0)", player + ".scrollIntoView()"},
		{"not displayed", player + ".hidden = true", player + ".hidden = false"},
	} {
		w.eval(t, "("+c.leave+", 0)", nil)
		w.sees(t, "that it is "+c.what, gone)
		w.eval(t, "(readings = 0)", nil)
		w.until(t, "readings >= 5") // longer than a picture may stand still in sight
		w.eval(t, "("+c.back+", "+player+".video.requestVideoFrameCallback(() => { window.moved = true; }), window.moved = false)", nil)
		w.sees(t, "that it is no longer "+c.what, func(s sight) bool { return s.Visible && s.Width > 0 })
		w.until(t, "moved")
	}
	w.silent(t)

	// behind another tab from the beginning
	w.hide(t)
	w.mu.Lock()
	w.sights = nil
	w.reports = nil
	w.mu.Unlock()
	rig.Check(t, w.page.Navigate(w.ctx, w.url("/watch/front-door")))
	w.sees(t, "that the new page is hidden", gone)
	w.until(t, player+".peerConnection?.connectionState === 'connected'")
	w.show(t)
	w.sees(t, "that the new page is seen", shown)
	w.until(t, player+".state === 'playing'")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) > 0 {
		t.Errorf("the wait for somebody to look was reported as %v ms to the first frame", w.reports)
	}
}

func TestPictureInPictureIsSeenBehindAnotherTab(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	floats := w.float(t)
	w.hide(t)
	w.eval(t, "("+player+".muted = false, 0)", nil) // whatever is said after the tab was hidden
	w.sees(t, "that it is still seen", func(s sight) bool { return s.Audible && floats(s) })
	w.eval(t, "document.exitPictureInPicture()", nil)
	w.sees(t, "that it isn't seen any more", func(s sight) bool { return !s.Visible })
	w.show(t)
	w.sees(t, "that it is seen again", func(s sight) bool { return s.Visible })
}

// Firefox doesn't call a tab hidden whose picture floats.
func TestPictureInPictureHasItsOwnSizeInFirefox(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browseFirefox(t, s, "/watch/front-door")
	w.float(t)
	w.eval(t, "document.exitPictureInPicture()", nil)
	width, height := w.pixels(t)
	w.sees(t, "the size in the page", func(s sight) bool { return s == sight{Width: width, Height: height, Visible: true} })
}

// float puts the picture into a window of its own, and tells a sight of that one.
func (w *world) float(t *testing.T) (floats func(sight) bool) {
	t.Helper()
	w.until(t, player+".state === 'playing'")
	w.sees(t, "that it is seen", func(s sight) bool { return s.Visible })
	w.eval(t, fmt.Sprintf("%s.togglePictureInPicture().then((pane) => { window.pane = pane; })", player), nil)
	floats = func(s sight) bool {
		var pane [2]float64 // it may change its size a moment later
		w.eval(t, "[pane.width * devicePixelRatio, pane.height * devicePixelRatio]", &pane)
		return s.Visible && s.Width == int(pane[0]+.5) && s.Height == int(pane[1]+.5)
	}
	w.sees(t, "the size of its window", floats)
	return floats
}
