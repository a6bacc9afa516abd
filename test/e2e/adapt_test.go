package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/strip"
)

// adapted is what /api/streams/NAME/viewers tells of one.
type adapted struct {
	Rendition string
	Estimate  int
	Target    int
	Sent      int
	Decisions []struct{ What, From, To, Reason string }
}

func onlyViewer(ctx context.Context, t *testing.T, g *rig.Gateway, stream string) (v adapted) {
	t.Helper()
	status, body, err := g.Get(ctx, "/api/streams/"+stream+"/viewers")
	rig.Check(t, err)
	var list struct{ Viewers []adapted }
	rig.Check(t, json.Unmarshal(body, &list))
	if status != 200 || len(list.Viewers) != 1 {
		t.Fatalf("status %d: %s", status, body)
	}
	return list.Viewers[0]
}

// TestPageGetsWhatItHasUseFor makes a page small and large, hides it and shows it
// again: the rendition follows on one connection, and what nobody sees isn't encoded.
func TestPageGetsWhatItHasUseFor(t *testing.T) {
	for _, browser := range []string{"chromium", "firefox"} {
		t.Run(browser, func(t *testing.T) {
			ctx := bounded(t, 2*time.Minute)
			high, low := "high", "low"
			pipeline := ladderPipeline
			if browser == "firefox" { // which decodes no H.264
				pipeline = strings.ReplaceAll(ladderPipeline, "codec: h264", "codec: vp8")
			}
			g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"ladder": pipeline}})
			var page rig.Page
			if browser == "firefox" {
				fox, err := rig.StartFirefox(ctx, rig.FirefoxOptions{Preload: strip.Script})
				rig.Check(t, err)
				rig.End(t, "firefox", fox.Close)
				page, err = fox.Open(ctx, g.URL("/watch/ladder"))
				rig.Check(t, err)
				rig.Check(t, strip.WaitVideo(ctx, page))
			} else {
				page = watchPage(ctx, t, g, "/watch/ladder")
			}
			waitTrue(ctx, t, page, thePlayer+".video.videoWidth === 960")
			waitRunning(ctx, t, g, "ladder", high)

			size := func(css string) { rig.Check(t, page.Eval(ctx, "("+thePlayer+".style.cssText = '"+css+"', 0)", nil)) }
			size("position: fixed; width: 240px; height: 135px")
			waitTrue(ctx, t, page, thePlayer+".video.videoWidth === 320")
			waitRunning(ctx, t, g, "ladder", low)

			rig.Check(t, page.Eval(ctx, "(window.open('about:blank', 'cover'), 0)", nil))
			waitRunning(ctx, t, g, "ladder")
			if v := onlyViewer(ctx, t, g, "ladder"); v.Rendition != "" || !slices.ContainsFunc(v.Decisions, func(d struct{ What, From, To, Reason string }) bool { return d.What == "pause" }) {
				t.Errorf("behind another tab: %+v", v)
			}
			rig.Check(t, page.Eval(ctx, "(window.open('', 'cover').close(), 0)", nil))
			waitRunning(ctx, t, g, "ladder", low)
			size("")
			waitTrue(ctx, t, page, thePlayer+".video.videoWidth === 960")
			waitRunning(ctx, t, g, "ladder", high)

			v := onlyViewer(ctx, t, g, "ladder")
			var told []string
			for _, d := range v.Decisions {
				if d.What == "rendition" || d.What == "pause" || d.What == "resume" {
					told = append(told, strings.TrimSpace(fmt.Sprintf("%s %s>%s", d.What, d.From, d.To)))
				}
			}
			if got, want := strings.Join(told, ", "), "rendition high>low, pause low>, resume >low, rendition low>high"; got != want {
				t.Errorf("decisions %q, want %q", got, want)
			}
			if v.Estimate == 0 || v.Target == 0 || v.Sent == 0 {
				t.Errorf("%+v", v)
			}
			m, err := g.Metrics(ctx)
			rig.Check(t, err)
			if n := m["gateway_joins_total{kind=\"ws\"}"]; n != 1 {
				t.Errorf("%v joins", n)
			}
		})
	}
}
