package web_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gateway/test/impair"
	"gateway/test/rig"
)

// Chromium publishes over a network that loses three packets of a hundred on the way to
// the gateway, 20 ms each way: nearly all of it is repaired before it is forwarded, so that
// a viewer whose own network is good sees a picture that moves on.
func TestPublisherOnALossyNetworkIsSeen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	network, err := impair.New(ctx, 1, 7)
	rig.Check(t, err)
	rig.End(t, "network", network.Close)
	far := network.Clients[0]
	g := meetingIn(t, rig.GatewayOptions{Namespace: network.Server, Host: impair.ServerIP, Config: "auth:\n  allow_open: true\n"})
	secure := map[string]string{"unsafely-treat-insecure-origin-as-secure": strings.TrimSuffix(g.URL("/"), "/")}
	open := func(n *rig.Namespace, name string) *world {
		browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Namespace: n, Flags: with(fakes, secure)})
		rig.Check(t, err)
		rig.End(t, "chromium", browser.Close)
		w := visit(t, g, browser, "/room/empty?name="+name)
		w.until(t, connected)
		return w
	}
	ann, ben := open(far.Namespace, "Ann"), open(network.Server, "Ben")
	ann.click(t, ".camera")
	ann.until(t, "gatewayRoom.publisher.peerConnection?.connectionState === 'connected'")
	ben.moving(t, 1)
	far.Up.Set(impair.Settings{Delay: 20 * time.Millisecond, Loss: 0.03})
	far.Down.Set(impair.Settings{Delay: 20 * time.Millisecond})

	ben.eval(t, `(async () => {
		window.seen = async () => [...(await gatewayRoom.room.peerConnection.getStats()).values()].find((s) => s.type === 'inbound-rtp' && s.kind === 'video');
		window.first = await seen();
		window.shown = [];
		const video = gatewayRoom.tiles.all[0].video;
		const frame = (now) => { shown.push(now); video.requestVideoFrameCallback(frame); };
		video.requestVideoFrameCallback(frame);
	})()`, nil)
	ben.wait(t, "shown.length > 100")
	var missing, repaired, lost float64
	rig.Check(t, rig.Until(ctx, "fifteen packets are missing", func() (bool, error) {
		_, body, err := g.Get(ctx, "/api/rooms/empty")
		if err != nil {
			return false, err
		}
		var told struct {
			Publishers []struct {
				Streams []struct {
					Tracks []struct{ Missing, Repaired, Lost float64 }
				}
			}
		}
		if err := json.Unmarshal(body, &told); err != nil {
			return false, err
		}
		missing, repaired, lost = 0, 0, 0
		for _, p := range told.Publishers {
			for _, s := range p.Streams {
				for _, track := range s.Tracks {
					missing, repaired, lost = missing+track.Missing, repaired+track.Repaired, lost+track.Lost
				}
			}
		}
		return missing >= 15, nil
	}))
	var seen struct{ Lost, Frozen, Seconds, Longest, PLIs float64 }
	ben.eval(t, `(async () => {
		const now = await seen();
		return {lost: now.packetsLost - first.packetsLost, frozen: now.totalFreezesDuration - first.totalFreezesDuration, plis: now.pliCount - first.pliCount,
			seconds: (shown.at(-1) - shown[0]) / 1000, longest: Math.max(...shown.slice(1).map((t, i) => t - shown[i])) / 1000};
	})()`, &seen)
	t.Logf("gateway: %v missing, %v repaired, %v lost; the viewer, in %.1f s: %v packets lost, %.2f s frozen, the longest gap %.2f s, %v PLIs; link %+v",
		missing, repaired, lost, seen.Seconds, seen.Lost, seen.Frozen, seen.Longest, seen.PLIs, far.Up.Stats())
	if repaired < 0.8*missing { // some may be on their way
		t.Errorf("of %v missing packets %v were repaired", missing, repaired)
	}
	if seen.Frozen > seen.Seconds/4 {
		t.Errorf("the picture stood still for %.1f of %.1f s", seen.Frozen, seen.Seconds)
	}
}
