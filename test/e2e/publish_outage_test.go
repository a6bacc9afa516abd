package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestPublishCommandGoesOn changes the address of a machine on which `gateway publish` sends
// and `gateway watch` receives, as from Wi-Fi to cable, and restarts the gateway: the first
// time the same session goes on. Before, the command wrote what it had into a dead connection
// for good.
func TestPublishCommandGoesOn(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, 4*time.Minute)
	const serverIP, before, after = "10.97.73.1", "10.97.73.2", "10.97.73.3"
	server, client := rig.Pair(ctx, t, serverIP+"/24", before+"/24")
	device, err := client.Device()
	rig.Check(t, err)
	g := startGateway(ctx, t, rig.GatewayOptions{Namespace: server, Host: serverIP, Config: "auth: {allow_open: true}\n"})
	port, err := rig.Port()
	rig.Check(t, err)
	gst, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	rig.Check(t, err)
	picture, err := rig.Start(rig.Command{Path: gst, Namespace: client, Args: strings.Fields(fmt.Sprintf(
		"-q videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! vp8enc deadline=1 keyframe-max-dist=15 ! rtpvp8pay ! udpsink host=127.0.0.1 port=%d", port))})
	rig.Check(t, err)
	rig.End(t, "gst-launch-1.0", picture.Close)
	binary, err := rig.Binary()
	rig.Check(t, err)
	command, err := rig.Start(rig.Command{Path: binary, Namespace: client, Args: []string{
		"publish", "-create", "-rtp", fmt.Sprintf("127.0.0.1:%d", port), "-codec", "vp8", g.URL("/room/hall")}})
	rig.Check(t, err)
	rig.End(t, "gateway publish", command.Close)
	defer func() {
		if t.Failed() {
			t.Logf("the command's log:\n%s", command.Log())
		}
	}()

	user, packets := publishes(ctx, t, g, 0)
	watch, err := rig.Start(rig.Command{Path: binary, Namespace: client, Args: []string{"watch", g.URL("/room/hall")}})
	rig.Check(t, err)
	rig.End(t, "gateway watch", watch.Close)
	seen := func(from int) {
		t.Helper()
		rig.Check(t, rig.Until(ctx, "what gateway watch sees", func() (bool, error) { return strings.Contains(watch.Log()[from:], "fps"), nil }))
	}
	seen(0)
	rig.Check(t, client.IP(ctx, "addr", "add", after+"/24", "dev", device))
	rig.Check(t, client.IP(ctx, "addr", "flush", "to", before+"/32"))
	rig.Check(t, client.IP(ctx, "addr", "replace", after+"/24", "dev", device)) // a secondary address goes with the primary one
	changed := time.Now()
	same, _ := publishes(ctx, t, g, packets+100) // what was on its way is less
	t.Logf("pictures came again %.1f s after the address had changed", time.Since(changed).Seconds())
	if same != user {
		t.Errorf("%s published, and now %s does", user, same)
	}
	seen(len(watch.Log()))

	rig.Check(t, g.Signal(os.Kill))
	<-g.Done()
	rig.Check(t, g.Restart(ctx))
	publishes(ctx, t, g, 0)
}

// publishes waits until more packets than some were published in the room hall.
func publishes(ctx context.Context, t *testing.T, g *rig.Gateway, than uint64) (user string, packets uint64) {
	t.Helper()
	rig.Check(t, rig.Until(ctx, "packets of who publishes", func() (bool, error) {
		status, body, err := g.Get(ctx, "/api/rooms/hall")
		if err != nil || status != 200 {
			return false, err
		}
		var room struct {
			Publishers []struct {
				User    string
				Streams []struct{ Tracks []struct{ Packets uint64 } }
			}
		}
		if err := json.Unmarshal(body, &room); err != nil || len(room.Publishers) == 0 || len(room.Publishers[0].Streams) == 0 {
			return false, err
		}
		user, packets = room.Publishers[0].User, room.Publishers[0].Streams[0].Tracks[0].Packets
		return packets > than, nil
	}))
	return user, packets
}
