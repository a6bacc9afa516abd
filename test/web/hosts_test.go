package web_test

import (
	"fmt"
	"net/url"
	"testing"
)

// menu opens what may be done with somebody in the list of people, and does it.
func (w *world) menu(t *testing.T, name, act string) {
	t.Helper()
	row := fmt.Sprintf("[...document.querySelectorAll('#participants > li')].find((li) => li.querySelector('strong').textContent === %q)", name)
	w.until(t, row+"?.querySelector('.round').checkVisibility()")
	w.eval(t, "("+row+".querySelector('.round').click(), 0)", nil)
	button := fmt.Sprintf("[...%s.querySelectorAll('.acts button')].find((b) => b.checkVisibility() && b.textContent === %q)", row, act)
	w.until(t, button)
	w.eval(t, "("+button+".click(), 0)", nil)
}

// A host moves somebody to another room, hands the room over, and the last one can't step
// down: all by the page.
func TestHostMovesHandsOverAndStepsDown(t *testing.T) {
	g := closed(t)
	browser := chromium(t, false)
	enter := func(name, role string, args ...string) *world {
		token := command(t, g, append([]string{"-subject", name, "-role", role, "-ttl", "1h"}, args...)...)
		w := visit(t, g, browser, "/room/hall?name="+name+"#token="+url.QueryEscape(token))
		w.until(t, connected)
		w.click(t, ".people-button")
		return w
	}
	host := enter("Hanna", "host", "-room", "hall", "-room", "yard")
	ann, ben := enter("Ann", "publisher", "-room", "hall"), enter("Ben", "publisher", "-room", "hall")
	const isHost = "gatewayRoom.room.self.role === 'host' && document.querySelector('#room-tools').checkVisibility()"
	host.until(t, isHost)

	host.menu(t, "Ann", "Move to another room")
	host.until(t, "document.querySelector('.move[open]') && [...document.querySelectorAll('#move-rooms option')].some((o) => o.value === 'yard')")
	host.violates(t, "move")
	host.eval(t, "(document.querySelector('#move-to').value = 'yard', document.querySelector('.move form').requestSubmit(), 0)", nil)
	ann.until(t, "document.querySelector('#toasts').innerText.includes('A host has moved you') && location.pathname === '/room/yard'")
	ann.until(t, connected)
	host.until(t, "document.querySelectorAll('#participants > li').length === 2")

	host.menu(t, "Hanna (you)", "Step down") // the only one
	host.click(t, "dialog[open] .grave")
	host.until(t, "document.querySelector('#toasts').innerText.includes('You may not do that')")
	host.menu(t, "Ben", "Hand the room over")
	host.click(t, "dialog[open] .grave")
	ben.until(t, isHost)
	host.until(t, "gatewayRoom.room.self.role === 'publisher' && !gatewayRoom.room.self.can.has('moderate') && !document.querySelector('#room-tools').checkVisibility()")
	host.until(t, "[...document.querySelectorAll('#participants .round')].every((b) => !b.checkVisibility())")
	ben.menu(t, "Hanna", "Make a host")
	host.until(t, isHost)
	ben.menu(t, "Ben (you)", "Step down")
	ben.click(t, "dialog[open] .grave")
	ben.until(t, "gatewayRoom.room.self.role === 'publisher'")
	host.until(t, isHost)
}
