package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
	"gateway/test/viewer"
)

// pageText is an expression for all the text of a page, shadow roots included.
const pageText = `(function text(root) {
	let all = root === document ? document.body.innerText : root.textContent
	for (const e of root.querySelectorAll('*')) if (e.shadowRoot) all += ' ' + text(e.shadowRoot)
	return all
})(document)`

// quote makes a Go string a JavaScript one.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestPagesOnEveryScreen looks at the pages on a phone, a desk and a wall, light
// and dark: the stream's card is there, the video plays, nothing is wider than
// the screen, and axe-core finds nothing serious.
func TestPagesOnEveryScreen(t *testing.T) {
	axe := axeSource(t)
	ctx := bounded(t, 4*time.Minute)
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{
		"desktop": desktopPipeline(display, "h264"),
		"nowhere": "title: No camera\nsource: v4l2src device=/dev/video99\nvideo:\n  codec: h264\n",
	}})
	// someone watches, so that the card has a picture
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/desktop")})
	rig.Check(t, err)
	rig.End(t, "viewer", v.Close)
	screens := []struct {
		name          string
		width, height int
	}{{"phone", 390, 844}, {"desk", 1280, 800}, {"wall", 1920, 1080}}
	for _, dark := range []bool{false, true} {
		b := startChromium(ctx, t, rig.ChromiumOptions{Dark: dark})
		theme := map[bool]string{false: "light", true: "dark"}[dark]
		for _, screen := range screens {
			t.Run(theme+"/"+screen.name, func(t *testing.T) {
				for _, path := range []string{"/", "/watch/desktop", "/watch/nowhere", "/room/desktop"} {
					page, err := b.Open(ctx, "")
					rig.Check(t, err)
					rig.Check(t, page.Resize(ctx, screen.width, screen.height))
					rig.Check(t, page.Navigate(ctx, g.URL(path)))
					switch path {
					case "/":
						rig.Check(t, rig.WaitTrue(ctx, page, pageText+`.includes("Desktop") && `+pageText+`.includes("No camera")`))
						rig.Check(t, rig.WaitTrue(ctx, page, `document.querySelector('a[href*="watch/desktop"]')`))
						rig.Check(t, rig.WaitTrue(ctx, page, `[...document.images].some((i) => i.complete && i.naturalWidth >= 160)`))
					case "/watch/desktop":
						rig.Check(t, strip.WaitVideo(ctx, page))
					case "/room/desktop":
						rig.Check(t, rig.WaitTrue(ctx, page, `document.querySelector('#lobby').checkVisibility()`))
						rig.Check(t, page.Eval(ctx, `document.querySelector('#lobby form').requestSubmit()`, nil))
						rig.Check(t, strip.WaitVideo(ctx, page))
					case "/watch/nowhere":
						rig.Check(t, rig.WaitTrue(ctx, page, pageText+`.includes("/dev/video99")`))
					}
					var wide bool
					rig.Check(t, page.Eval(ctx, "document.documentElement.scrollWidth > innerWidth", &wide))
					if wide {
						t.Errorf("%s scrolls sideways", path)
					}
					shot, err := page.Screenshot(ctx)
					rig.Check(t, err)
					keep(t, strings.ReplaceAll("page"+strings.TrimSuffix(path, "/"), "/", "-")+"-"+theme+"-"+screen.name+".png", shot)
					accessible(t, page, axe, path)
					rig.Check(t, page.Close())
				}
			})
		}
	}
}

func axeSource(t *testing.T) string {
	root, err := rig.Root()
	rig.Check(t, err)
	source, err := os.ReadFile(filepath.Join(root, "test/node_modules/axe-core/axe.min.js"))
	if errors.Is(err, fs.ErrNotExist) {
		err = &rig.Missing{What: "axe-core", Remedy: "npm ci in test/, or make test/node_modules"}
	}
	rig.Check(t, err)
	return string(source)
}

// accessible runs axe-core in a page.
func accessible(t *testing.T, page rig.Page, axe, path string) {
	t.Helper()
	ctx := bounded(t, time.Minute)
	rig.Check(t, page.Eval(ctx, "(() => {"+axe+"})()", nil))
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
	rig.Check(t, page.Eval(ctx, `axe.run({resultTypes: ['violations']}).then((r) => r.violations.map((v) => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map((n) => ({html: n.html}))})))`, &violations))
	for _, v := range violations {
		say := t.Logf
		if v.Impact == "serious" || v.Impact == "critical" {
			say = t.Errorf
		}
		where := ""
		if len(v.Nodes) > 0 {
			where = v.Nodes[0].HTML
		}
		say("%s: %s: %s (%s) at %s", path, v.Impact, v.Help, v.ID, where)
	}
}

// TestStatisticsPanel opens the panel by its key.
func TestStatisticsPanel(t *testing.T) {
	ctx := bounded(t, time.Minute)
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"desktop": desktopPipeline(display, "h264")}})
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, strip.WaitVideo(ctx, page))
	rig.Check(t, page.Eval(ctx, `(document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent('keydown', {key: 's', code: 'KeyS', bubbles: true, composed: true}))`, nil))
	for _, want := range []string{"H264", fmt.Sprintf("%d", screenWidth), "30"} {
		rig.Check(t, rig.WaitTrue(ctx, page, pageText+`.replaceAll('.', '').toUpperCase().includes(`+quote(want)+`)`))
	}
	shot, err := page.Screenshot(ctx)
	rig.Check(t, err)
	keep(t, "statistics.png", shot)
}
