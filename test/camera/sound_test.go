package camera

import (
	"strings"
	"testing"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// TestGuestSoundCard hears what a sound card records, by ALSA alone, with the file
// that `gateway devices` writes for it. The card is the kernel's snd-aloop, whose
// first device's output is the second one's input.
func TestGuestSoundCard(t *testing.T) {
	ctx := guest(t)
	player, err := rig.Start(rig.Command{Path: "gst-launch-1.0", Args: append([]string{"-q"}, strings.Fields(
		"audiotestsrc is-live=true freq=440 volume=0.5 ! audio/x-raw,rate=48000,channels=2 ! alsasink device=hw:Loopback,0,0")...)})
	rig.Check(t, err)
	rig.End(t, "player", player.Close)
	file := run(ctx, t, nil, nil, "devices", "-yaml", "audio:hw:CARD=Loopback,DEV=1")
	g := startFile(ctx, t, "card", string(file))
	if err := viewer.Hear(ctx, g.URL("/whep/card"), media.Opus, 440, 3); err != nil {
		t.Fatal(err)
	}

	// the card is still open, and can be had once
	edited := strings.Replace(string(file), "DEV=1", "DEV=1 ! volume volume=0.5", 1)
	r, err := g.Edit(ctx, "card", func() error { return g.WritePipeline("card", edited) })
	rig.Check(t, err)
	if !r.OK {
		t.Errorf("the edit is refused: %s %q", r.Message, r.Findings)
	}
	if err := viewer.Hear(ctx, g.URL("/whep/card"), media.Opus, 440, 3); err != nil {
		t.Errorf("after the edit: %v", err)
	}
	s, err := g.Stream(ctx, "card")
	rig.Check(t, err)
	if s.State != "live" || s.Restarts > 0 || !strings.Contains(s.Track("audio").Launch, "volume=0.5") {
		t.Errorf("the stream is %+v", s)
	}
}
