package web_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// One changes the address, as from Wi-Fi to cable: the same participant goes on
// on the same connections, and nobody else renegotiates.
func TestChangedAddressIsFollowed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const serverIP, before, after = "10.97.71.1", "10.97.71.2", "10.97.71.3"
	server, client := rig.Pair(ctx, t, serverIP+"/24", before+"/24")
	device, err := client.Device()
	rig.Check(t, err)
	g := meetingIn(t, rig.GatewayOptions{Namespace: server, Host: serverIP, Config: "auth:\n  allow_open: true\n"})
	secure := map[string]string{"unsafely-treat-insecure-origin-as-secure": strings.TrimSuffix(g.URL("/"), "/")}
	open := func(n *rig.Namespace) *rig.Chromium {
		browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Namespace: n, Flags: with(fakes, secure)})
		rig.Check(t, err)
		rig.End(t, "chromium", browser.Close)
		return browser
	}
	ann := visit(t, g, open(client), "/room/hall?name=Ann")
	ben := visit(t, g, open(server), "/room/hall?name=Ben")
	meet(t, 4, ann, ben)
	ann.eval(t, "(window.kept = [gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection], window.user = gatewayRoom.room.self.userId, 0)", nil)
	ben.eval(t, "(window.offers = 0, gatewayRoom.room.peerConnection.addEventListener('signalingstatechange', () => offers++), 0)", nil)
	rig.Check(t, client.IP(ctx, "addr", "add", after+"/24", "dev", device))
	rig.Check(t, client.IP(ctx, "addr", "flush", "to", before+"/32"))
	rig.Check(t, client.IP(ctx, "addr", "replace", after+"/24", "dev", device)) // a secondary address goes with the primary one
	changed := time.Now()
	ann.wait(t, "await "+usesAddress(after))
	ann.until(t, connected)
	ann.moving(t, 4)
	ben.moving(t, 4)
	t.Logf("the pictures move %.1f s after the address has changed", time.Since(changed).Seconds())
	ann.until(t, "gatewayRoom.room.self.userId === user && gatewayRoom.room.peerConnection === kept[0] && gatewayRoom.publisher.peerConnection === kept[1]")
	var offers int
	ben.eval(t, "offers", &offers)
	if offers > 0 {
		t.Errorf("Ben's connection was renegotiated %d times", offers)
	}
}

// usesAddress says whether both of a page's connections go by an address.
func usesAddress(address string) string {
	return fmt.Sprintf(`(async () => {
		for (const pc of [gatewayRoom.room.peerConnection, gatewayRoom.publisher.peerConnection]) {
			const stats = [...(await pc.getStats()).values()];
			const pair = stats.find((s) => s.type === 'candidate-pair' && s.id === stats.find((t) => t.type === 'transport')?.selectedCandidatePairId);
			if (stats.find((s) => s.id === pair?.localCandidateId)?.address !== %q) return false;
		}
		return true;
	})()`, address)
}

// wait is until for what may take as long as ICE needs to give a path up, or a token to end.
func (w *world) wait(t *testing.T, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 90*time.Second)
	defer cancel()
	rig.Check(t, rig.Until(ctx, expression, func() (ok bool, err error) {
		err = w.page.Eval(ctx, "(async () => "+expression+")()", &ok)
		return ok, err
	}))
}

func with(a, b map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for key, value := range m {
			all[key] = value
		}
	}
	return all
}
