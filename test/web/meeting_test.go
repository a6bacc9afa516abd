package web_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/test/rig"
)

// meeting is a real gateway with a room of two pipelines.
func meeting(t *testing.T, access string) *rig.Gateway {
	t.Helper()
	return meetingIn(t, rig.GatewayOptions{Auth: access})
}

func meetingIn(t *testing.T, o rig.GatewayOptions) *rig.Gateway {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o.Config += "rooms:\n  hall:\n    title: The hall\n    streams: [door, yard]\n"
	o.Pipelines = map[string]string{
		"door": "title: Front door\nsource: videotestsrc is-live=true\nvideo:\n  codec: vp8\n  width: 320\n  height: 180\n  framerate: 15\n",
		"yard": "title: Yard\nsource: videotestsrc is-live=true pattern=ball\nvideo:\n  codec: vp8\n  width: 320\n  height: 180\n  framerate: 15\n",
	}
	g, err := rig.StartGateway(ctx, o)
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	return g
}

// visit opens a page of a real gateway.
func visit(t *testing.T, g *rig.Gateway, browser opener, path string) *world {
	t.Helper()
	return open(t, browser, g.URL(path))
}

func TestMeetingOverTheGateway(t *testing.T) {
	g := meeting(t, "none")
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

// A browser that wants a click before it plays sound plays the picture all the same.
func TestRoomPlaysBeforeAClick(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Auth: "none", Pipelines: map[string]string{
		"door": "source: videotestsrc is-live=true\nvideo: {codec: vp8, width: 320, height: 180, framerate: 15}\naudio: {source: audiotestsrc is-live=true}\n",
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	// whether a browser wants that depends on more than a flag: this one does
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: `
		const play = HTMLMediaElement.prototype.play
		HTMLMediaElement.prototype.play = function () {
			if (this.muted || globalThis.clicked) return play.call(this)
			this.pause()
			return Promise.reject(new DOMException('a click is wanted', 'NotAllowedError'))
		}`})
	rig.Check(t, err)
	rig.End(t, "chromium", browser.Close)
	w := visit(t, g, browser, "/room/door?name=Ann")
	w.until(t, connected)
	w.moving(t, 1)
	w.until(t, "document.querySelector('video').muted && document.querySelector('.sound').checkVisibility()")
	w.eval(t, "(globalThis.clicked = true, document.querySelector('.sound').click(), 0)", nil)
	w.until(t, "!document.querySelector('video').muted && !document.querySelector('.sound').checkVisibility()")
	w.moving(t, 1)
}

// A fresh gateway is closed: its printed link opens it, and a link made from it
// opens one room to one person.
func TestLinksOpenAClosedGateway(t *testing.T) {
	g := meeting(t, "token")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	link, err := g.WaitLog(ctx, linkOfFirstStart)
	rig.Check(t, err)
	u, err := url.Parse(strings.Trim(link[0], `"`))
	rig.Check(t, err)
	first := u.EscapedFragment()
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
	// who made the link and opens it is asked before it takes what he has
	home.eval(t, "fetch('/api/shares', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({room: 'hall', role: 'publisher'})}).then((r) => r.json()).then((r) => r.path)", &shared)
	for _, stays := range []bool{true, false} {
		rig.Check(t, home.page.Navigate(ctx, g.URL("/")))
		home.until(t, "document.querySelectorAll('#streams .card').length === 2")
		rig.Check(t, home.page.Navigate(ctx, g.URL(strings.Replace(shared, "#", "?name=Ann#", 1))))
		home.until(t, "document.querySelector('dialog[open]')?.innerText.includes('You are signed in as an admin') && !location.href.includes('token')")
		home.eval(t, fmt.Sprintf("([...document.querySelectorAll('dialog[open] button')].find((b) => b.textContent === %q).click(), 0)",
			map[bool]string{true: "Stay signed in", false: "Use the link"}[stays]), nil)
		home.until(t, connected)
		home.until(t, fmt.Sprintf("gatewayRoom.room.self.can.has('moderate') === %t", stays))
	}
	rig.Check(t, home.page.Navigate(ctx, g.URL("/#"+first)))
	home.until(t, "document.querySelectorAll('#streams .card').length === 2")
	home.click(t, "#account button")
	home.until(t, "document.querySelector('.sign-in[open]')")
}

// Two publish camera and microphone, and watch each other and the pipelines.
func TestPublishedOverTheGateway(t *testing.T) {
	g := meeting(t, "none")
	browser := chromium(t, false)
	ann := visit(t, g, browser, "/room/hall?name=Ann")
	ben := visit(t, g, browser, "/room/hall?name=Ben")
	meet(t, 4, ann, ben)
	// sound beside the picture, in the same stream
	ben.click(t, ".microphone")
	ann.until(t, "gatewayRoom.tiles.all.some((tile) => !tile.own && tile.video.srcObject?.getAudioTracks().length === 1)")
	ann.moving(t, 4)
	ben.click(t, ".microphone")
	ann.until(t, "[...gatewayRoom.room.participants.values()].find((p) => p.name === 'Ben').muted.includes('audio') && document.querySelectorAll('.silent:not([hidden])').length === 2")
	// off and on again
	ben.click(t, ".camera")
	ann.until(t, "document.querySelectorAll('.tile.pictured').length === 3")
	ben.click(t, ".camera")
	ann.moving(t, 4)
	// a host stops his picture, and lets it be seen again: only she can
	ann.eval(t, "(window.ben = [...gatewayRoom.room.participants.values()].find((p) => p.name === 'Ben').userId, gatewayRoom.room.mute(ben, 'video', true), 0)", nil)
	ben.until(t, "document.querySelector('.camera').matches('.forced') && document.querySelector('#toasts').innerText.includes('A host has muted your picture')")
	ann.until(t, "document.querySelectorAll('.tile.pictured').length === 3")
	ben.click(t, ".camera")
	ben.until(t, "document.querySelector('#toasts').innerText.includes('Only a host can lift that')")
	ann.eval(t, "(gatewayRoom.room.mute(ben, 'video', false), 0)", nil)
	ben.until(t, "document.querySelector('.camera').matches('.on')")
	ann.moving(t, 4)
	// Ann reloads; Ben keeps his connection and what comes on it
	ben.eval(t, "(window.kept = gatewayRoom.room.peerConnection, window.door = gatewayRoom.tiles.get('door').video, 0)", nil)
	rig.Check(t, ann.page.Navigate(ann.ctx, g.URL("/room/hall?name=Ann")))
	ben.until(t, "document.querySelectorAll('.tile').length === 3")
	ann.until(t, connected)
	ann.click(t, ".camera")
	ben.until(t, "document.querySelectorAll('.tile').length === 4")
	ben.moving(t, 4)
	ben.until(t, "gatewayRoom.room.peerConnection === kept && kept.connectionState === 'connected' && gatewayRoom.tiles.get('door').video === door")
}

// Chromium and Firefox in one room. A small picture comes in a small size, an
// enlarged one in a larger.
func TestBrowsersMeetOverTheGateway(t *testing.T) {
	g := meeting(t, "none")
	ann := visit(t, g, chromium(t, false), "/room/hall?name=Ann")
	fox := visit(t, g, firefox(t), "/room/hall?name=Fox")
	rig.Check(t, fox.page.Resize(fox.ctx, 700, 500))
	meet(t, 4, ann, fox)
	const hers = "gatewayRoom.tiles.all.find((tile) => !tile.own && tile.label === 'Ann')"
	fox.until(t, hers+".video.videoWidth > 0 && "+hers+".video.videoWidth <= 640")
	rig.Check(t, fox.page.Resize(fox.ctx, 1900, 1060))
	fox.eval(t, "("+hers+".size.click(), 0)", nil)
	fox.until(t, hers+".video.videoWidth === 1280")
	fox.moving(t, 4)
}

// gate is a way to a gateway's TCP port that can be shut.
type gate struct {
	listener net.Listener
	n        *rig.Namespace
	to       string

	mu    sync.Mutex // guards below
	shut  bool
	conns map[net.Conn]bool
}

// openGate makes one on loopback in a network namespace; nil: the test's.
func openGate(t *testing.T, n *rig.Namespace, to string) *gate {
	t.Helper()
	l, err := n.Listen("tcp", "127.0.0.1:0")
	rig.Check(t, err)
	g := &gate{listener: l, n: n, to: to, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { g.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.set(true)
		all.Wait()
	})
	return g
}

func (g *gate) url() string { return "http://" + g.listener.Addr().String() }

// set shuts the gate, which cuts all that goes through, or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for c := range g.conns {
		if shut {
			c.Close()
		}
	}
}

func (g *gate) pass(c net.Conn) {
	defer c.Close()
	g.mu.Lock()
	shut := g.shut
	g.conns[c] = true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
	}()
	if shut {
		return
	}
	to, err := g.n.Dial(context.Background(), "tcp", g.to)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, c)
		to.Close()
	}()
	io.Copy(c, to)
}

// One loses the socket for ten seconds: he is where he was, and nobody else
// notices or renegotiates.
func TestTenSecondsWithoutASocket(t *testing.T) {
	g := meeting(t, "none")
	way := openGate(t, nil, fmt.Sprintf("127.0.0.1:%d", g.Port))
	browser := chromium(t, false)
	ann := open(t, browser, way.url()+"/room/hall?name=Ann")
	ben := visit(t, g, browser, "/room/hall?name=Ben")
	meet(t, 4, ann, ben)
	ben.eval(t, `(() => {
		window.noticed = [];
		for (const type of ['media', 'joined', 'rendition', 'refused']) gatewayRoom.room.addEventListener(type, () => noticed.push(type));
		gatewayRoom.room.peerConnection.addEventListener('signalingstatechange', () => noticed.push('offer'));
		gatewayRoom.room.addEventListener('participants', () => gatewayRoom.room.participants.size === 2 || noticed.push('left'));
	})()`, nil)
	ann.eval(t, "(window.kept = [gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection], window.user = gatewayRoom.room.self.userId, window.lost = 0, 0)", nil)
	way.set(true)
	ann.until(t, "document.querySelector('#state').textContent.includes('Your place is kept')")
	ann.moving(t, 4)             // media go their own way
	time.Sleep(10 * time.Second) // the time is what is tested
	ben.moving(t, 4)
	way.set(false)
	ann.until(t, connected)
	ann.until(t, "gatewayRoom.room.self.userId === user && gatewayRoom.room.peerConnection === kept[0] && gatewayRoom.publisher.peerConnection === kept[1] && kept.every((pc) => pc.connectionState === 'connected')")
	ann.moving(t, 4)
	ben.moving(t, 4)
	var noticed []string
	ben.eval(t, "noticed", &noticed)
	if len(noticed) > 0 {
		t.Errorf("Ben has noticed: %q", noticed)
	}
	// and all works as before
	ann.click(t, ".people-button")
	ann.click(t, "#lock")
	ben.until(t, "document.querySelector('#state').textContent.includes('locked')")
}
