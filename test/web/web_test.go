// Package web_test opens the gateway's pages in a browser, in every state that
// they know words for.
package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

const patience = 30 * time.Second

var (
	video = track{Name: "video", Kind: "video", Codec: "vp8", Width: 640, Height: 360, FPS: 30, Bitrate: 800_000}
	audio = track{Name: "audio", Kind: "audio", Codec: "opus"}
	door  = stream{Name: "front-door", Title: "Front door", State: "live", Tracks: []track{video, audio}, Viewers: 3}
)

func every() []stream {
	return []stream{
		door,
		{Name: "desktop", Title: "Desktop", State: "absent", Reason: "there is no display: DISPLAY is not set", Tracks: []track{}},
		{Name: "test", Title: "Test picture", State: "idle", Tracks: []track{{Name: "video", Kind: "video", Codec: "h264", Width: 1280, Height: 720, FPS: 30, Bitrate: 2_500_000}, audio}},
		{Name: "webcam", Title: "Webcam", State: "restarting", Reason: "the camera was unplugged", Tracks: []track{{Name: "video", Kind: "video", Codec: "h264", Width: 1920, Height: 1080, FPS: 29.97, Bitrate: 4_000_000}}},
		{Name: "lab", Title: "Laboratory, third floor, camera over the door to the cold room", State: "starting", Tracks: []track{}},
	}
}

type world struct {
	*script
	ctx  context.Context
	page rig.Page
	log  func() string
}

// browse opens a page of a gateway in Chromium.
func browse(t *testing.T, s *script, path string, dark bool) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Dark: dark, Flags: map[string]string{"enable-logging": "stderr"}})
	rig.Check(t, err)
	rig.End(t, "chromium", browser.Close)
	page, err := browser.Open(ctx, s.url(path))
	if err != nil {
		t.Fatal(err)
	}
	console := func() string { // what the page said, without the browser's own trouble
		var lines []string
		for line := range strings.SplitSeq(browser.Log(), "\n") {
			if strings.Contains(line, "CONSOLE") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	w := &world{script: s, ctx: ctx, page: page, log: console}
	t.Cleanup(func() {
		for line := range strings.SplitSeq(console(), "\n") {
			if strings.Contains(line, "Content Security Policy") || strings.Contains(line, "Uncaught") {
				t.Errorf("the browser says: %s", line)
			}
		}
	})
	return w
}

// until waits until an expression is true in the page.
func (w *world) until(t *testing.T, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	if err := rig.WaitTrue(ctx, w.page, expression); err != nil {
		var seen string
		w.page.Eval(w.ctx, "document.body.innerText + ' | ' + (document.querySelector('gateway-player')?.shadowRoot.querySelector('.notice').innerText ?? '')", &seen)
		t.Fatalf("%v\nthe page shows: %s\n%s", err, seen, w.log())
	}
}

func (w *world) eval(t *testing.T, expression string, out any) {
	t.Helper()
	if err := w.page.Eval(w.ctx, expression, out); err != nil {
		t.Fatal(err)
	}
}

// press sends a key to the page as the player hears it.
func (w *world) press(t *testing.T, key string) {
	t.Helper()
	w.eval(t, fmt.Sprintf("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: %q, bubbles: true, cancelable: true}))", key), nil)
}

const (
	player = "document.querySelector('gateway-player')"
	shadow = player + ".shadowRoot"
	notice = shadow + ".querySelector('.notice:not(.quiet)')"
)

func TestPlayerStartsMutedAtOnceAndReports(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing' && "+player+".stats?.fps > 20")
	var seen struct {
		Muted            bool
		Title            string
		Width            int
		Codec, Transport string
		FirstFrame       float64
		JitterBuffer     *float64
		RoundTrip        *float64
	}
	w.eval(t, fmt.Sprintf(`(({muted, stats, video}) => ({muted, title: document.title, width: video.videoWidth, codec: stats.codec,
		transport: stats.transport, firstFrame: stats.firstFrame, jitterBuffer: stats.jitterBuffer, roundTrip: stats.roundTrip}))(%s)`, player), &seen)
	if !seen.Muted || seen.Title != "Front door · gateway" || seen.Width != 640 || seen.Codec != "VP8" || seen.Transport != "udp" {
		t.Errorf("the player says %+v", seen)
	}
	if seen.FirstFrame <= 0 || seen.JitterBuffer == nil || seen.RoundTrip == nil {
		t.Errorf("numbers are missing: %+v", seen)
	}
	s.mu.Lock()
	reports := s.reports
	s.mu.Unlock()
	if len(reports) != 1 || reports[0] != float64(int(seen.FirstFrame*10+.5))/10 {
		t.Errorf("reported %v ms, measured %v", reports, seen.FirstFrame)
	}
	t.Logf("first frame after %.0f ms", seen.FirstFrame)
}

func TestKeysDoWhatTheListSays(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.press(t, "m")
	w.until(t, "!"+player+".muted")
	w.press(t, "M")
	w.until(t, player+".muted")
	w.press(t, "s")
	w.until(t, shadow+".querySelector('.panel').checkVisibility() && "+shadow+".querySelector('.panel').innerText.includes('VP8')")
	w.press(t, "s")
	w.until(t, "!"+shadow+".querySelector('.panel').checkVisibility()")
	w.press(t, "?")
	w.until(t, shadow+".querySelector('dialog').open")
	w.eval(t, shadow+".querySelector('dialog').close()", nil)
	w.press(t, "f")
	w.until(t, player+".matches(':fullscreen')")
	w.press(t, "f")
	w.until(t, "!document.fullscreenElement")
}

func TestPlayerSaysWhyThereIsNoPicture(t *testing.T) {
	s := start(t)
	s.set(every()...)
	s.refuse["hevc"] = [2]string{"codec-unsupported", "the stream is video/H265; the browser receives video/VP8"}
	s.refuse["full"] = [2]string{"too-many-viewers", "500 viewers are watching, which is the limit"}
	s.refuse["broken"] = [2]string{"internal", "the pipeline's tracks are unknown"}
	w := browse(t, s, "/watch/desktop", false)
	for _, c := range []struct{ room, title, detail string }{
		{"desktop", "No source", "There is no display: DISPLAY is not set."},
		{"webcam", "Restarting", "The camera was unplugged."},
		{"lab", "Starting", "The capture is being started."},
		{"nothing", "No such stream", "“nothing”"},
		{"hevc", "This browser can’t decode the stream", "set codec: vp8"},
		{"full", "All places are taken", "which is the limit."},
		{"broken", "The connection couldn’t be made", "The pipeline's tracks are unknown."},
	} {
		if err := w.page.Navigate(w.ctx, s.url("/watch/"+c.room)); err != nil {
			t.Fatal(err)
		}
		w.until(t, fmt.Sprintf("%s?.innerText.includes(%q) && %[1]s.innerText.includes(%[3]q)", notice, c.title, c.detail))
		w.until(t, fmt.Sprintf("%s.querySelector('[aria-live]').textContent.includes(%q)", shadow, c.title))
	}
}

func TestStreamPlaysWhenItsSourceComes(t *testing.T) {
	s := start(t)
	away := door
	away.State, away.Reason, away.Tracks = "absent", "no camera at /dev/video0", nil
	s.set(away)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'waiting' && "+notice+".innerText.includes('No camera at /dev/video0.')")
	s.set(door)
	w.until(t, player+".state === 'playing' && !"+notice)
	if s.joins != 1 {
		t.Errorf("%d joins, want the first one to last", s.joins)
	}
}

func TestStandingPictureGetsItsReason(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	s.freeze(true)
	w.until(t, player+".state === 'frozen' && "+notice+".matches('.small')")
	gone := door
	gone.State, gone.Reason = "restarting", "the encoder stopped"
	s.set(gone)
	w.until(t, player+".state === 'waiting' && "+notice+".innerText.includes('The encoder stopped.')")
	w.until(t, shadow+".querySelector('.surface').matches('.picture')") // the last frame stays under it
	gone.State, gone.Reason = "ended", "the file has ended"
	s.set(gone)
	w.until(t, player+".state === 'waiting' && "+notice+".innerText.includes('The file has ended')")
	s.set(door)
	s.freeze(false)
	w.until(t, player+".state === 'playing' && !"+notice)
	if s.joins != 1 {
		t.Errorf("%d joins, want the first one to last", s.joins)
	}
}

func TestPlayerComesBackByItself(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.eval(t, "(window.states = [], "+player+".addEventListener('state', (e) => states.push(e.detail.title)), 0)", nil)
	s.drop()
	w.until(t, "states.includes('The connection is lost') && "+player+".state === 'playing'")
	s.leave(true)
	w.until(t, notice+"?.innerText.includes('The gateway doesn’t answer')")
	w.until(t, "/Next try in|Trying/.test("+notice+".innerText)")
	w.until(t, "!"+shadow+".querySelector('canvas').hidden || "+player+".video.videoWidth > 0") // the last frame stays
	back := time.Now()
	s.leave(false)
	w.until(t, player+".state === 'playing' && !"+notice)
	if took := time.Since(back); took > 4*time.Second {
		t.Errorf("it took %v to come back", took)
	}
	if s.joins != 3 {
		t.Errorf("%d joins, want 3", s.joins)
	}
}

func TestRestartsICEOnTheSameConnection(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.eval(t, "(window.before = "+player+".peerConnection, window.ufrag = before.remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1], 0)", nil)
	s.mu.Lock()
	for v := range s.sessions {
		go v.offer(true)
	}
	s.mu.Unlock()
	w.until(t, "before.remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1] !== ufrag")
	w.until(t, player+".peerConnection === before && before.connectionState === 'connected'")
	w.eval(t, "(window.frames0 = "+player+".stats?.framesDecoded ?? 0, 0)", nil)
	w.until(t, player+".stats.framesDecoded > frames0 + 30 && "+player+".state === 'playing'")
	if s.joins != 1 {
		t.Errorf("%d joins, want 1", s.joins)
	}
}

// Chromium takes seconds to call a connection disconnected: its word is put in its mouth.
func TestBrokenPathIsRestartedAndThenJoinedAnew(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	w.eval(t, `(() => {
		window.pc = `+player+`.peerConnection;
		window.ufrag = pc.remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1];
		window.say = (state) => {
			Object.defineProperty(pc, 'connectionState', { value: state, configurable: true });
			pc.onconnectionstatechange();
		};
		say('disconnected');
	})()`, nil)
	w.until(t, "pc.remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1] !== ufrag")
	s.mu.Lock()
	joins, asked := s.joins, slices.Contains(s.seen, "restart-ice")
	s.mu.Unlock()
	if joins != 1 || !asked {
		t.Errorf("%d joins, restart asked for: %v", joins, asked)
	}
	w.eval(t, "say('failed')", nil)
	w.until(t, player+".peerConnection !== pc && "+player+".state === 'playing'")
}

func TestDeadSocketIsNoticed(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	s.mu.Lock()
	s.deaf = true
	s.mu.Unlock()
	w.eval(t, "dispatchEvent(new Event('online'))", nil) // asks at once rather than at the next ping
	w.until(t, player+".state === 'reconnecting'")
	s.mu.Lock()
	s.deaf = false
	s.mu.Unlock()
	w.until(t, player+".state === 'playing'")
	if s.joins < 2 {
		t.Errorf("%d joins, want another one", s.joins)
	}
}

func TestRetriesSpreadOutAndStayShortWhileSeen(t *testing.T) {
	s := start(t)
	w := browse(t, s, "/", false)
	var longest, shortest, hidden float64
	const every = "[...Array(40).keys()].map((n) => "
	w.eval(t, "import('/assets/signaling.js').then((m) => { window.retryDelay = m.retryDelay; })", nil)
	w.eval(t, "Math.max(..."+every+"retryDelay(n, true, 1)))", &longest)
	w.eval(t, "Math.min(..."+every+"retryDelay(n, true, 0)))", &shortest)
	w.eval(t, "Math.max(..."+every+"retryDelay(n, false, 1)))", &hidden)
	if longest != 1000 || shortest < 50 || hidden != 15000 {
		t.Errorf("from %v to %v ms, hidden %v ms", shortest, longest, hidden)
	}
}

func TestRefusedAutoplayAsksForAClick(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/", false)
	w.eval(t, `(async () => {
		const play = HTMLMediaElement.prototype.play;
		HTMLMediaElement.prototype.play = () => Promise.reject(new DOMException('no', 'NotAllowedError'));
		window.allow = () => { HTMLMediaElement.prototype.play = play; };
		await import('/assets/player.js');
		const player = document.createElement('gateway-player');
		player.setAttribute('src', 'front-door');
		player.setAttribute('controls', '');
		document.body.prepend(player);
	})()`, nil)
	w.until(t, player+".state === 'blocked' && "+notice+".innerText.includes('waits for a click')")
	w.eval(t, "(allow(), "+shadow+".querySelector('.notice button').click(), 0)", nil)
	w.until(t, player+".state === 'playing'")
}

func TestPlayerWorksInAnotherPage(t *testing.T) {
	s := start(t)
	s.set(door)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/frame" {
			fmt.Fprintf(w, `<!doctype html><title>frame</title><iframe src="%s" width="640" height="360"></iframe>`, s.url("/watch/front-door"))
			return
		}
		// the page's own policy allows no inline style
		w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; script-src %[1]s; connect-src ws://%[2]s", s.server.URL, strings.TrimPrefix(s.server.URL, "http://")))
		fmt.Fprintf(w, `<!doctype html><title>other</title><script type="module" src="%s"></script><gateway-player src="front-door" muted controls></gateway-player>`, s.url("/assets/player.js"))
	}))
	defer other.Close()
	w := browse(t, s, "/", false)
	if err := w.page.Navigate(w.ctx, other.URL); err != nil {
		t.Fatal(err)
	}
	w.until(t, player+"?.state === 'playing' && "+player+".video.videoWidth === 640")
	joins := s.joins
	if err := w.page.Navigate(w.ctx, other.URL+"/frame"); err != nil {
		t.Fatal(err)
	}
	err := rig.Until(w.ctx, "the framed page to play", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.joins > joins && len(s.reports) == 2, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPageThatGoesFreesItsPlace(t *testing.T) {
	s := start(t)
	s.set(door)
	w := browse(t, s, "/watch/front-door", false)
	w.until(t, player+".state === 'playing'")
	if err := w.page.Navigate(w.ctx, "about:blank"); err != nil {
		t.Fatal(err)
	}
	err := rig.Until(w.ctx, "the session to end", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.sessions) == 0, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCardsFollowTheStreams(t *testing.T) {
	s := start(t)
	w := browse(t, s, "/", false)
	w.until(t, "document.querySelector('#empty').checkVisibility() && document.body.innerText.includes('pipelines/')")
	s.set(every()...)
	w.until(t, "document.querySelectorAll('.card').length === 5")
	w.until(t, "document.querySelector('.card.live img')?.naturalWidth === 640")
	for _, text := range []string{"Front door", "Live", "VP8 640 × 360 30 fps 800 kbit/s Opus 3 watching", "There is no display: DISPLAY is not set.", "The camera was unplugged.", "5 streams, 1 live"} {
		w.until(t, fmt.Sprintf("document.body.textContent.includes(%q)", text))
	}
	w.eval(t, "(document.querySelector('.card').kept = true, 0)", nil)
	all := every()
	all[0].State = "idle"
	s.set(all[0], all[2])
	w.until(t, "document.querySelectorAll('.card').length === 2 && document.querySelector('.card').kept && document.querySelector('.card').matches('.rest')")
	s.leave(true)
	w.until(t, "document.querySelector('#outage').innerText.includes('The gateway doesn’t answer')")
	s.leave(false)
	w.until(t, "!document.querySelector('#outage').checkVisibility()")
	s.mu.Lock()
	s.problems = []string{"pipelines/desk.yaml:12:14: video.bitrate: 400k is below the minimum"}
	s.mu.Unlock()
	w.until(t, "document.querySelector('#problems').innerText.includes('pipelines/desk.yaml:12:14')")
	s.set(stream{Name: "<b>x", Title: "<img src=x onerror=alert(1)>", State: "absent", Reason: "<script>alert(1)</script>"})
	w.until(t, "document.querySelector('.card a')?.textContent === '<img src=x onerror=alert(1)>' && !document.querySelector('.card img')")
	w.until(t, "document.querySelector('.card a').href.endsWith('/watch/%3Cb%3Ex')")
}

// axe finds what keyboards and screen readers stumble over.
func TestNothingSeriousIsFoundByAxe(t *testing.T) {
	s := start(t)
	edited := ladder
	edited.Name, edited.Reload = "edited", &reload{At: 1, Message: "no such encoder", Findings: []string{"pipelines/edited.yaml:3:1: video.encoder: unknown"}}
	observed := wide
	observed.Name = "observed"
	s.set(append(every(), edited, observed)...)
	s.quality = story(time.Now())
	s.problems = []string{"pipelines/desk.yaml:12:14: video.bitrate: 400k is below the minimum"}
	for _, dark := range []bool{false, true} {
		w := browse(t, s, "/", dark)
		for _, c := range []struct{ path, ready string }{
			{"/", "document.querySelectorAll('.card img').length >= 2"},
			{"/watch/front-door?stats", player + "?.state === 'playing'"},
			{"/watch/edited?stats", player + "?.state === 'playing' && " + remark + ".checkVisibility() && (document.querySelector('.settings').open = true) && document.querySelector('.settings pre')"},
			{"/watch/observed?stats", player + "?.state === 'playing' && " + graph + ".querySelector('.mark-of')"},
			{"/watch/desktop", notice},
			{"/watch/nothing", notice},
			{"/missing", "document.querySelector('.code')"},
		} {
			if err := w.page.Navigate(w.ctx, s.url(c.path)); err != nil {
				t.Fatal(err)
			}
			w.until(t, c.ready)
			w.violates(t, fmt.Sprintf("%s (dark: %v)", c.path, dark))
		}
	}
}

func TestPagesWorkInFirefox(t *testing.T) {
	s := start(t)
	s.set(every()...)
	w := browseFirefox(t, s, "/")
	w.until(t, "document.querySelectorAll('.card').length === 5")
	if err := w.page.Navigate(w.ctx, s.url("/watch/front-door?stats")); err != nil {
		t.Fatal(err)
	}
	w.until(t, player+".state === 'playing' && "+player+".stats?.fps > 20 && "+player+".stats.local !== ''")
	s.drop()
	w.until(t, "!"+notice+" === false")
	w.until(t, player+".state === 'playing' && !"+notice)
}
