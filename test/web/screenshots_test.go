package web_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// GATEWAY_SCREENSHOTS names a folder for pictures of every state, to look at.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("GATEWAY_SCREENSHOTS")
	if dir == "" {
		t.Skip("GATEWAY_SCREENSHOTS names no folder for the pictures")
	}
	s := start(t)
	s.refuse["hevc"] = [2]string{"codec-unsupported", "the stream is video/H265; the browser receives video/VP8"}
	for _, dark := range []bool{false, true} {
		w := browse(t, s, "/missing", dark)
		scheme := map[bool]string{false: "light", true: "dark"}[dark]
		for _, size := range []struct {
			name          string
			width, height int
		}{{"phone", 390, 844}, {"small", 360, 640}, {"desktop", 1440, 900}, {"wall", 3840, 2160}} {
			if err := w.page.Resize(w.ctx, size.width, size.height); err != nil {
				t.Fatal(err)
			}
			shot := func(name, path, ready string) {
				t.Helper()
				if err := w.page.Navigate(w.ctx, s.url(path)); err != nil {
					t.Fatal(err)
				}
				w.until(t, ready)
				w.eval(t, "new Promise((done) => setTimeout(done, 1200))", nil)
				png, err := w.page.Screenshot(w.ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%s-%s.png", name, size.name, scheme)), png, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.set()
			shot("empty", "/", "document.querySelector('#empty').checkVisibility()")
			s.set(every()...)
			shot("home", "/", "document.querySelectorAll('.card img').length >= 2")
			if size.name != "small" {
				shot("missing", "/missing", "document.querySelector('.code')")
			}
			shot("playing", "/watch/front-door?stats", player+"?.state === 'playing' && "+player+".stats?.fps > 20")
			s.set(append([]stream{wide}, every()[1:]...)...)
			s.quality = story(time.Now())
			shot("quality", "/watch/front-door?stats", graph+"?.childElementCount")
			shot("latency", "/watch/front-door?stats", graph+"?.childElementCount && ("+shadow+".querySelector('table').scrollIntoView(), true)")
			s.quality = nil
			edited := ladder
			edited.Reload = &reload{At: time.Now().UnixMilli(), Message: "x264enc: no keyframe within 5 s", Findings: []string{"pipelines/front-door.yaml:3:1: video.encoder: x264enc yields no keyframe"}}
			s.set(append([]stream{edited}, every()[1:]...)...)
			shot("edited", "/watch/front-door", player+"?.state === 'playing' && ("+player+".dispatchEvent(new PointerEvent('pointermove')), true)")
			shot("settings", "/watch/front-door?stats", player+"?.state === 'playing' && (document.querySelector('.settings').open = true) && document.querySelector('.settings pre')?.scrollIntoView() === undefined")
			shot("edited-home", "/", "document.querySelectorAll('.card img').length >= 2")
			s.set(every()...)
			if dark { // the player is always dark
				continue
			}
			s.problems = []string{"pipelines/desk.yaml:12:14: video.bitrate: 400k is below the minimum 800k of rendition \"high\"; raise it or lower min"}
			shot("problems", "/", "document.querySelectorAll('.card img').length >= 2 && (scrollTo(0, 1e5), true)")
			s.problems = nil
			shot("standing", "/watch/front-door", player+"?.state === 'playing' && ("+player+".dispatchEvent(new PointerEvent('pointermove')), true)")
			shot("keys", "/watch/front-door", player+"?.state === 'playing' && ("+player+".handleKey(new KeyboardEvent('keydown', {key: '?'})), true)")
			s.freeze(true)
			gone := door
			gone.State, gone.Reason = "restarting", "the camera was unplugged"
			s.set(append([]stream{gone}, every()[1:]...)...)
			w.eval(t, shadow+".querySelector('dialog').close()", nil)
			w.until(t, notice)
			if png, err := w.page.Screenshot(w.ctx); err == nil {
				os.WriteFile(filepath.Join(dir, "still-"+size.name+".png"), png, 0o600)
			}
			s.set(every()...)
			shot("absent", "/watch/desktop", notice)
			shot("unknown", "/watch/nothing", notice)
			shot("undecodable", "/watch/hevc", notice)
		}
	}
}

// GATEWAY_SCREENSHOTS names a folder for pictures of every state, to look at.
func TestRoomScreenshots(t *testing.T) {
	dir := os.Getenv("GATEWAY_SCREENSHOTS")
	if dir == "" {
		t.Skip("GATEWAY_SCREENSHOTS names no folder for the pictures")
	}
	h := startHall(t)
	for _, dark := range []bool{false, true} {
		browser := chromium(t, dark)
		scheme := map[bool]string{false: "light", true: "dark"}[dark]
		others := map[string]*world{}
		for _, size := range []struct {
			name          string
			width, height int
		}{{"phone", 390, 844}, {"desk", 1280, 800}, {"wall", 1920, 1080}} {
			w := enter(t, h, browser, "/room/hall")
			rig.Check(t, w.page.Resize(w.ctx, size.width, size.height))
			shot := func(name string) {
				t.Helper()
				w.eval(t, "new Promise((done) => setTimeout(done, 700))", nil)
				png, err := w.page.Screenshot(w.ctx)
				rig.Check(t, err)
				rig.Check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("room-%s-%s-%s.png", name, size.name, scheme)), png, 0o600))
			}
			w.until(t, "document.querySelector('#lobby').checkVisibility()")
			shot("lobby")
			rig.Check(t, w.page.Navigate(w.ctx, h.url("/room/hall?name=Host")))
			if len(others) == 0 {
				w.until(t, connected)
				shot("empty")
				if !dark {
					h.camera(t, "door", "Front door", standard)
					h.absent("desktop", "Desktop", "there is no display: DISPLAY is not set")
				}
				for _, name := range []string{"Ann Berger", "Ben"} {
					others[name] = enter(t, h, browser, "/room/hall?name="+strings.ReplaceAll(name, " ", "%20"))
					others[name].until(t, connected)
					others[name].click(t, ".camera")
				}
				others["Ben"].click(t, ".microphone")
			}
			w.until(t, connected)
			w.click(t, ".camera")
			w.moving(t, 4)
			shot("tiles")
			w.click(t, ".people-button")
			w.click(t, "#participants > li:not(:first-child) .round")
			shot("people")
			w.click(t, "#people-close")
			w.eval(t, "(gatewayRoom.tiles.get('door').size.click(), 0)", nil)
			shot("large")
			w.eval(t, "(gatewayRoom.tiles.get('door').size.click(), 0)", nil)
			w.click(t, ".share")
			shot("share")
			w.eval(t, "(document.querySelector('dialog[open]').close(), navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError')), document.querySelector('.microphone').click(), 0)", nil)
			w.until(t, "document.querySelector('.toast')")
			shot("toast")
			w.click(t, ".leave")
			shot("left")
			h.mu.Lock()
			h.token = "secret"
			h.mu.Unlock()
			rig.Check(t, w.page.Navigate(w.ctx, h.url("/room/hall?name=Host")))
			w.until(t, "document.querySelector('.sign-in')")
			shot("sign-in")
			h.mu.Lock()
			h.token = ""
			h.mu.Unlock()
			rig.Check(t, w.page.Close())
		}
		for _, w := range others {
			rig.Check(t, w.page.Close())
		}
	}
}
