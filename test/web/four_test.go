package web_test

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

//go:embed witness.js
var witnessScript string

// witness is what a participant has noticed since a mark.
type witness struct {
	Offers      int      // of the gateway, on the connection by which it sends
	Touched     []string // m-lines of others than NAME that one of these offers changed, before and after
	Answers     int      // on the publishing connection
	Sockets     int      // that were opened
	Connections int      // that were made
	Joins       int
	User        bool               // the same userId
	Same        bool               // both connections are those of the mark, and connected
	Broken      []string           // states other than connected that they were in
	Gone        []string           // tiles that were taken away or made anew
	Paused      map[string]string  // why the gateway sent nothing of a stream
	Frozen      map[string]float64 // how long each tile stood still at most, in ms
}

// guest is a browser in the room.
type guest struct {
	*world
	name string
}

func (g guest) mark(t *testing.T) {
	t.Helper()
	g.eval(t, "(witness.mark(), 0)", nil)
}

func (g guest) seen(t *testing.T, of guest) (w witness) {
	t.Helper()
	g.eval(t, fmt.Sprintf("witness.seen(%q)", of.name), &w)
	return w
}

// Three Chromium and a Firefox meet beside two pipelines. One loses the socket for ten
// seconds, one changes the address, one reloads, one leaves. The three others notice
// nothing: no connection, socket or join is new, no picture of a stream that goes on stands
// still for a second, and nobody is offered anything but what comes and goes, once
// each: an m-line is closed, and one opened. Those of streams that go on stay as they are.
func TestFourBrowsersMeet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	const serverIP, before, after = "10.97.72.1", "10.97.72.2", "10.97.72.3"
	server, client := rig.Pair(ctx, t, serverIP+"/24", before+"/24")
	device, err := client.Device()
	rig.Check(t, err)
	inside, err := server.Device()
	rig.Check(t, err)
	rig.Check(t, server.IP(ctx, "route", "add", "default", "dev", inside)) // without one Firefox gathers nothing
	g := meetingIn(t, rig.GatewayOptions{Namespace: server, Host: serverIP, Config: "auth:\n  allow_open: true\n"})
	to := strings.TrimPrefix(g.URL(""), "http://")
	way, shut := openGate(t, server, to), openGate(t, server, to) // on loopback a page may use the camera

	blink := func(n *rig.Namespace) opener {
		secure := map[string]string{"unsafely-treat-insecure-origin-as-secure": g.URL("")}
		browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Namespace: n, Preload: small + witnessScript, Flags: with(fakes, secure)})
		rig.Check(t, err)
		rig.End(t, "chromium", browser.Close)
		return browser
	}
	fire, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Namespace: server, Preload: small + witnessScript, Prefs: foxFakes})
	rig.Check(t, err)
	rig.End(t, "firefox", fire.Close)
	enter := func(name string, browser opener, address string) guest {
		page, err := browser.Open(ctx, address+"/room/hall?name="+name)
		rig.Check(t, err)
		w := guest{&world{ctx: ctx, page: page, log: func() string { return "" }}, name}
		w.until(t, connected)
		w.click(t, ".camera")
		w.until(t, publishes)
		return w
	}
	fox := enter("Fox", fire, way.url())
	ann := enter("Ann", blink(server), shut.url())
	ben := enter("Ben", blink(server), way.url())
	cleo := enter("Cleo", blink(client), g.URL(""))
	all := []guest{fox, ann, ben, cleo}
	settle := func(tiles int) {
		t.Helper()
		for _, w := range all {
			w.until(t, fmt.Sprintf("document.querySelectorAll('.tile').length === %d", tiles))
			w.moving(t, tiles)
		}
	}

	for _, event := range []struct {
		what   string
		of     guest
		ends   bool // its session does
		still  bool // its picture may stand still
		offers int  // that the others may get
		tiles  int  // afterwards
		happen func()
	}{
		{"Ann loses the socket for ten seconds", ann, false, false, 0, 6, func() {
			shut.set(true)
			ann.until(t, "document.querySelector('#state').textContent.includes('Your place is kept')")
			time.Sleep(10 * time.Second) // the time is what is tested
			shut.set(false)
			ann.until(t, connected)
		}},
		{"Cleo changes the address", cleo, false, true, 0, 6, func() {
			rig.Check(t, client.IP(ctx, "addr", "add", after+"/24", "dev", device))
			rig.Check(t, client.IP(ctx, "addr", "flush", "to", before+"/32"))
			rig.Check(t, client.IP(ctx, "addr", "replace", after+"/24", "dev", device)) // a secondary address goes with the primary one
			cleo.wait(t, "await "+usesAddress(after))
			cleo.until(t, connected)
		}},
		{"Ben reloads", ben, true, true, 2, 6, func() {
			rig.Check(t, ben.page.Navigate(ctx, way.url()+"/room/hall?name=Ben"))
			for _, w := range []guest{fox, ann, cleo} {
				w.until(t, "document.querySelectorAll('.tile').length === 5")
			}
			ben.until(t, connected)
			ben.click(t, ".camera")
			ben.until(t, publishes)
		}},
		{"Fox leaves", fox, true, true, 1, 5, func() {
			fox.click(t, ".leave")
			all = []guest{ann, ben, cleo}
		}},
	} {
		settle(6)
		for _, w := range all {
			w.mark(t)
		}
		begun := time.Now()
		event.happen()
		settle(event.tiles)
		for _, w := range all {
			if w == event.of && event.ends {
				continue
			}
			of := guest{}
			if event.still {
				of = event.of
			}
			seen := w.seen(t, of)
			own := seen.Frozen["own:camera"]
			t.Logf("%s (%.0f s): %s got %d offers; the pictures stood still for %v ms at most", event.what, time.Since(begun).Seconds(), w.name, seen.Offers, seen.Frozen)
			if w == event.of {
				if !seen.Same || !seen.User || len(seen.Gone) > 0 {
					t.Errorf("%s: it isn't where it was: %+v", event.what, seen)
				}
				continue
			}
			if !seen.Same || !seen.User || len(seen.Broken)+len(seen.Gone)+seen.Sockets+seen.Connections+seen.Joins+seen.Answers > 0 {
				t.Errorf("%s: %s has noticed: %+v", event.what, w.name, seen)
			}
			if seen.Offers > event.offers || len(seen.Touched) > 0 {
				t.Errorf("%s: %s got %d offers, want %d at most; changed: %s", event.what, w.name, seen.Offers, event.offers, seen.Touched)
			}
			delete(seen.Frozen, "own:camera")
			maps.DeleteFunc(seen.Frozen, func(_ string, ms float64) bool { return ms < 1000 })
			switch load := loadPerCore(t); {
			case len(seen.Frozen) == 0:
			case own > 500, load > 8: // a camera of one's own goes over no network
				t.Logf("%s: the machine had no time for %s: its own camera stood still for %.0f ms, %.0f processes waited for a core", event.what, w.name, own, load)
			default:
				t.Errorf("%s: to %s these stood still for a second, in ms: %v; paused: %v", event.what, w.name, seen.Frozen, seen.Paused)
			}
		}
	}
}

// loadPerCore is how many processes wanted a core, as a mean of the last minute.
func loadPerCore(t *testing.T) (load float64) {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	rig.Check(t, err)
	_, err = fmt.Sscan(string(text), &load)
	rig.Check(t, err)
	return load / float64(runtime.NumCPU())
}
