package e2e

import (
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// Two clients that were made from docs/protocol.md alone meet in a room.
func TestStrangersMeet(t *testing.T) {
	ctx := bounded(t, time.Minute)
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Config: "rooms: {lobby: {}}\n"})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	url := "ws" + strings.TrimPrefix(g.URL("/ws"), "http")
	start := func(name string) *rig.Process {
		p, err := rig.Start(rig.Command{Path: "/usr/bin/python3", Args: []string{"ws_stranger.py", url, "lobby", name}})
		rig.Check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	says := func(p *rig.Process, text string) {
		t.Helper()
		rig.Check(t, rig.Until(ctx, text, func() (bool, error) { return strings.Contains(p.Log(), text), nil }))
	}
	ann := start("Ann")
	says(ann, "joined")
	ben := start("Ben")
	says(ben, "Ann")
	says(ben, `told {"hello": "Ben"}`)
	says(ann, `told "bye"`)
	says(ann, "left leave")
	<-ann.Done()
}
