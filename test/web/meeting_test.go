package web_test

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// meeting is a real gateway with a room of two pipelines.
func meeting(t *testing.T, config, access string) *rig.Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{
		Auth:   access,
		Config: "rooms:\n  hall:\n    title: The hall\n    streams: [door, yard]\n" + config,
		Pipelines: map[string]string{
			"door": "title: Front door\nsource: videotestsrc is-live=true\nvideo:\n  codec: vp8\n  width: 320\n  height: 180\n  framerate: 15\n",
			"yard": "title: Yard\nsource: videotestsrc is-live=true pattern=ball\nvideo:\n  codec: vp8\n  width: 320\n  height: 180\n  framerate: 15\n",
		},
	})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	return g
}

// visit opens a page of a real gateway.
func visit(t *testing.T, g *rig.Gateway, browser opener, path string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	page, err := browser.Open(ctx, g.URL(path))
	if err != nil {
		t.Fatal(err)
	}
	return &world{ctx: ctx, page: page, log: func() string { return "" }}
}

func TestMeetingOverTheGateway(t *testing.T) {
	g := meeting(t, "", "none")
	browser := chromium(t, false)
	ann := visit(t, g, browser, "/room/hall?name=Ann")
	ben := visit(t, g, browser, "/room/hall?name=Ben")
	for _, w := range []*world{ann, ben} {
		w.until(t, connected)
		w.moving(t, 2)
	}
	ann.until(t, "document.querySelector('#title').textContent === 'The hall'")
	ann.click(t, ".people-button")
	ann.until(t, "document.querySelectorAll('#participants > li').length === 2")
	ann.click(t, "#lock")
	ben.until(t, "document.querySelector('#state').textContent.includes('locked')")
	ann.click(t, "#lock")
	ben.until(t, connected)
	ann.click(t, "#participants .round:not([hidden])")
	ann.eval(t, "([...document.querySelectorAll('#participants .acts button')].find((b) => b.checkVisibility() && b.textContent.startsWith('Remove')).click(), 0)", nil)
	ann.click(t, "dialog[open] .grave")
	ben.until(t, "document.querySelector('#notice').innerText.includes('You were removed')")
	ann.until(t, "document.querySelectorAll('#participants > li').length === 1")
	ben.eval(t, "([...document.querySelectorAll('#notice button')].at(-1).click(), 0)", nil)
	ben.until(t, connected)
	ben.moving(t, 2)
	home := visit(t, g, browser, "/")
	home.until(t, fmt.Sprintf("document.querySelector('#rooms').innerText.includes(%q) && document.querySelector('#rooms').innerText.includes('2 people, 2 streams')", "The hall"))
	var toasts string
	ann.eval(t, "document.querySelector('#toasts').innerText", &toasts)
	if toasts != "" {
		t.Errorf("Ann was told %q", toasts)
	}
}

var linkOfFirstStart = regexp.MustCompile(`http://\S+/#token=\S+`)

// A fresh gateway is closed: its printed link opens it, and a link made from it
// opens one room to one person.
func TestLinksOpenAClosedGateway(t *testing.T) {
	g := meeting(t, "", "token")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	link, err := g.WaitLog(ctx, linkOfFirstStart)
	rig.Check(t, err)
	u, err := url.Parse(strings.Trim(link[0], `"`))
	rig.Check(t, err)
	browser := chromium(t, false)
	stranger := visit(t, g, browser, "/watch/door")
	stranger.until(t, "document.querySelector('.sign-in[open]')")
	home := visit(t, g, browser, "/")
	home.until(t, "document.querySelector('.sign-in[open]') && document.querySelectorAll('.card').length === 0")
	home = visit(t, g, browser, "/#"+u.EscapedFragment())
	home.until(t, "document.querySelectorAll('#streams .card').length === 2 && !location.href.includes('token') && document.querySelector('#account').checkVisibility()")
	rig.Check(t, home.page.Navigate(ctx, g.URL("/watch/door")))
	home.until(t, player+".state === 'playing'")
	rig.Check(t, home.page.Navigate(ctx, g.URL("/room/hall?name=Ann")))
	home.until(t, connected)
	home.click(t, ".share")
	home.until(t, "document.querySelector('.share .fields').checkVisibility()")
	home.eval(t, "([...document.querySelectorAll('.share button')].find((b) => b.textContent.startsWith('Make a link')).click(), 0)", nil)
	home.until(t, "document.querySelector('#share-address').value.includes('#token=')")
	var shared string
	home.eval(t, "document.querySelector('#share-address').value", &shared)
	u, err = url.Parse(shared)
	rig.Check(t, err)
	guest := visit(t, g, browser, "/room/hall?name=Ben#"+u.EscapedFragment())
	guest.until(t, connected)
	guest.moving(t, 2)
	guest.until(t, "gatewayRoom.room.self.can.has('publish') && !gatewayRoom.room.self.can.has('moderate')")
	rig.Check(t, guest.page.Navigate(ctx, g.URL("/room/elsewhere?name=Ben")))
	guest.until(t, "document.querySelector('#notice').innerText !== ''")
	late := visit(t, g, browser, "/room/hall?name=Cleo#"+u.EscapedFragment())
	late.until(t, "document.querySelector('.sign-in[open]') && document.querySelector('#toasts').innerText.includes('The link wasn’t taken')")
	rig.Check(t, home.page.Navigate(ctx, g.URL("/")))
	home.until(t, "document.querySelectorAll('#streams .card').length === 2")
	home.click(t, "#account button")
	home.until(t, "document.querySelector('.sign-in[open]')")
}
