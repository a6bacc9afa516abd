package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestPageIsBackAfterTheNetworkWasGone takes the gateway's network down, shorter and
// longer than a connection is kept: the page plays again by itself, the first time on
// the same connection.
func TestPageIsBackAfterTheNetworkWasGone(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, 4*time.Minute)
	const serverIP, clientIP = "10.97.3.1", "10.97.3.2"
	server, client := rig.Pair(ctx, t, serverIP+"/24", clientIP+"/24")
	rig.Check(t, client.IP(ctx, "route", "add", "default", "via", serverIP))
	g := startGateway(ctx, t, rig.GatewayOptions{
		Namespace: server, Host: serverIP, Config: "auth: {allow_open: true}\n", Pipelines: map[string]string{"test": testPipeline},
	})
	b := startChromium(ctx, t, rig.ChromiumOptions{Namespace: client})
	page, err := b.Open(ctx, g.URL("/watch/test"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, page.Eval(ctx, frameClock, nil))
	backAfter(ctx, t, page, time.Now())

	// viewers are the names of the sessions that watch.
	viewers := func() (names []string) {
		t.Helper()
		_, body, err := g.Get(ctx, "/api/streams/test/viewers")
		rig.Check(t, err)
		var list struct{ Viewers []struct{ User string } }
		rig.Check(t, json.Unmarshal(body, &list))
		for _, v := range list.Viewers {
			names = append(names, v.User)
		}
		return names
	}
	before := fmt.Sprint(viewers())
	for _, outage := range []struct {
		gone time.Duration
		kept bool
	}{{6 * time.Second, true}, {42 * time.Second, false}} {
		rig.Check(t, server.IP(ctx, "link", "set", "group", "default", "down"))
		timer := time.NewTimer(outage.gone)
		<-timer.C
		rig.Check(t, server.IP(ctx, "link", "set", "group", "default", "up"))
		took := backAfter(ctx, t, page, time.Now())
		t.Logf("gone for %v: the picture was back %v after the network", outage.gone, took.Round(10*time.Millisecond))
		if took > 30*time.Second {
			t.Errorf("gone for %v: it took %v", outage.gone, took)
		}
		if now := fmt.Sprint(viewers()); outage.kept && now != before {
			t.Errorf("gone for %v: the viewers %s became %s", outage.gone, before, now)
		}
	}
}
