package web_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gateway/test/rig"
)

// Three Chromium and a Firefox meet beside two pipelines; one loses the socket for ten
// seconds, one reloads, one leaves. To the fourth nothing happens to the pictures of
// the others, nor to the connection.
func TestFourBrowsersMeet(t *testing.T) {
	g := meeting(t, "none")
	way := openGate(t, fmt.Sprintf("127.0.0.1:%d", g.Port))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	open := func(browser opener, address, name string) *world {
		page, err := browser.Open(ctx, address+"/room/hall?name="+name)
		rig.Check(t, err)
		w := &world{ctx: ctx, page: page, log: func() string { return "" }}
		w.until(t, connected)
		w.click(t, ".camera")
		w.until(t, "gatewayRoom.publisher.sources[0]?.stream !== ''")
		return w
	}
	blink := func() opener {
		browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: small, Flags: fakes})
		rig.Check(t, err)
		rig.End(t, "chromium", browser.Close)
		return browser
	}
	here := g.URL("")
	fox := open(firefox(t), here, "Fox")
	ann := open(blink(), "http://"+way.listener.Addr().String(), "Ann")
	ben := open(blink(), here, "Ben")
	cleo := open(blink(), here, "Cleo")
	all := []*world{fox, ann, ben, cleo}
	for _, w := range all {
		w.until(t, "document.querySelectorAll('.tile').length === 6")
		w.moving(t, 6)
	}
	// frozen is the longest that each picture stood still, in ms
	fox.eval(t, `(() => {
		window.kept = gatewayRoom.room.peerConnection
		window.broken = 0
		kept.addEventListener('connectionstatechange', () => broken++)
		window.frozen = new Map()
		const last = new Map()
		setInterval(() => {
			const now = performance.now()
			for (const tile of gatewayRoom.tiles.all) {
				const [frames, at] = last.get(tile.key) ?? [-1, now]
				if (tile.frames !== frames) last.set(tile.key, [tile.frames, now])
				else frozen.set(tile.key, Math.round(Math.max(frozen.get(tile.key) ?? 0, now - at)))
			}
		}, 50)
		window.who = Object.fromEntries([...gatewayRoom.room.participants.values()].map((p) => [p.name, p.userId]))
	})()`, nil)
	way.set(true)
	time.Sleep(10 * time.Second) // the time is what is tested
	way.set(false)
	ann.until(t, connected)
	rig.Check(t, ben.page.Navigate(ctx, here+"/room/hall?name=Ben"))
	ben.until(t, connected)
	ben.click(t, ".camera")
	fox.until(t, "[...gatewayRoom.room.participants.values()].some((p) => p.name === 'Ben' && p.userId !== who.Ben && p.streams.length === 1)")
	fox.until(t, "document.querySelectorAll('.tile').length === 6")
	cleo.click(t, ".leave")
	fox.until(t, "document.querySelectorAll('.tile').length === 5")
	for _, w := range []*world{fox, ann, ben} {
		w.moving(t, 5)
	}
	var seen struct {
		Same   bool
		Broken int
		Frozen map[string]float64 // of those who stayed all the time
	}
	fox.eval(t, `({ same: gatewayRoom.room.peerConnection === kept, broken, frozen: Object.fromEntries(
		[...frozen].filter(([key]) => ['door', 'yard'].includes(key) || key.startsWith(who.Ann))) })`, &seen)
	t.Logf("stood still for at most, in ms: %v", seen.Frozen)
	if !seen.Same || seen.Broken > 0 {
		t.Errorf("Fox has noticed: %+v", seen)
	}
	for key, ms := range seen.Frozen {
		if ms > 3000 {
			t.Errorf("%s stood still for %.0f ms", key, ms)
		}
	}
}
