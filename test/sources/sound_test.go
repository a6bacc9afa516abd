package sources

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// hears waits until a viewer hears a tone of that frequency, and little else, for a second.
func hears(ctx context.Context, t *testing.T, g *rig.Gateway, name string, codec media.Codec, hz float64) {
	t.Helper()
	if err := viewer.Hear(ctx, g.URL("/whep/"+name), codec, hz, 10); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestSoundServer(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	s, err := rig.StartSound(ctx)
	rig.Check(t, err)
	rig.End(t, "sound server", s.Close)
	needElement(t, "gstreamer1.0-plugins-good", "pulsesink", "pulsesrc")
	launch(t, "audiotestsrc is-live=true freq=440 volume=0.5 ! pulsesink device="+rig.SoundSink, s.Env()...)
	source := "pulsesrc device=" + rig.SoundSink + ".monitor"
	g := startGateway(ctx, t, map[string]string{
		"opus": "audio: {source: " + source + "}\n",
		"dtx":  "audio: {source: " + source + ", bitrate: 16k, channels: 1, dtx: true}\n",
		"pcmu": "audio: {source: " + source + ", codec: pcmu}\n",
		"pcma": "audio: {source: " + source + ", codec: pcma}\n",
		"both": "source: videotestsrc\nvideo: {codec: vp8, width: 320, height: 180}\naudio: {source: " + source + "}\n",
	}, s.Env()...)
	for name, codec := range map[string]media.Codec{"opus": media.Opus, "dtx": media.Opus, "pcmu": media.PCMU, "pcma": media.PCMA, "both": media.Opus} {
		t.Run(name, func(t *testing.T) { hears(ctx, t, g, name, codec, 440) })
	}
}

// The sound server goes away under its listener and comes back: he hears again,
// what is played then.
func TestSoundServerThatIsRestarted(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	s, err := rig.StartSound(ctx)
	rig.Check(t, err)
	rig.End(t, "sound server", func() error { return s.Close() })
	needElement(t, "gstreamer1.0-plugins-good", "pulsesink", "pulsesrc")
	play := func(hz int) {
		launch(t, fmt.Sprintf("audiotestsrc is-live=true freq=%d volume=0.5 ! pulsesink device=%s", hz, rig.SoundSink), s.Env()...)
	}
	play(440)
	g := startGateway(ctx, t, map[string]string{"desk": "audio: {source: pulsesrc device=" + rig.SoundSink + ".monitor}\n"}, s.Env()...)
	heard := make(chan error, 1)
	go func() { heard <- viewer.Hear(ctx, g.URL("/whep/desk"), media.Opus, 1000, 10) }()
	rig.Check(t, g.WaitState(ctx, "desk", "live"))
	rig.Check(t, s.Process.Close())
	rig.Check(t, rig.Until(ctx, "the gateway to notice", func() (bool, error) {
		s, err := g.Stream(ctx, "desk")
		return err == nil && s.State != "live", err
	}))
	rig.Check(t, s.Restart(ctx))
	back := time.Now()
	play(1000)
	rig.Check(t, g.WaitState(ctx, "desk", "live"))
	t.Logf("live %s after the server came back", time.Since(back).Round(time.Millisecond))
	if err := <-heard; err != nil {
		t.Error(err)
	}
}

// A source of the sound server that isn't there yet, as a Bluetooth microphone, is
// noticed when it comes: the kernel says nothing of it.
func TestSoundSourceThatComes(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	pactl, err := rig.Need("pactl", "pulseaudio-utils")
	rig.Check(t, err)
	s, err := rig.StartSound(ctx)
	rig.Check(t, err)
	rig.End(t, "sound server", s.Close)
	needElement(t, "gstreamer1.0-plugins-good", "pulsesink", "pulsesrc")
	g := startGateway(ctx, t, map[string]string{"headset": "on_demand: false\naudio: {source: pulsesrc device=headset.monitor}\n"}, append(s.Env(), "GATEWAY_LOG_LEVEL=debug")...)
	rig.Check(t, g.WaitState(ctx, "headset", "restarting"))
	_, err = g.WaitLog(ctx, regexp.MustCompile("a stream waits for what sound servers"))
	rig.Check(t, err)
	cmd := exec.CommandContext(ctx, pactl, "load-module", "module-null-sink", "sink_name=headset")
	cmd.Env = append(os.Environ(), s.Env()...)
	out, err := cmd.CombinedOutput()
	rig.Check(t, err)
	came := time.Now()
	rig.Check(t, g.WaitState(ctx, "headset", "live"))
	t.Logf("live %s after it came (module %s)", time.Since(came).Round(time.Millisecond), strings.TrimSpace(string(out)))
	if !strings.Contains(g.Log(), "kind=provided") {
		t.Error("nobody told of it")
	}
}

// A sound card by ALSA: its plugin for PulseAudio stands for the card, because
// ALSA's null device doesn't keep time.
func TestALSA(t *testing.T) {
	ctx := bounded(t, time.Minute)
	needElement(t, "gstreamer1.0-alsa", "alsasrc")
	if found, _ := filepath.Glob("/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so"); len(found) == 0 {
		rig.Check(t, &rig.Missing{What: "ALSA's plugin for PulseAudio", Remedy: "apt-get install libasound2-plugins"})
	}
	s, err := rig.StartSound(ctx)
	rig.Check(t, err)
	rig.End(t, "sound server", s.Close)
	launch(t, "audiotestsrc is-live=true freq=1000 volume=0.5 ! pulsesink device="+rig.SoundSink, s.Env()...)
	conf := filepath.Join(t.TempDir(), "asound.conf")
	rig.Check(t, os.WriteFile(conf, fmt.Appendf(nil, "</usr/share/alsa/alsa.conf>\npcm.rig { type pulse device \"%s.monitor\" }\n", rig.SoundSink), 0o644))
	g := startGateway(ctx, t, map[string]string{"card": "audio: {source: alsasrc device=rig}\n"}, append(s.Env(), "ALSA_CONFIG_PATH="+conf)...)
	hears(ctx, t, g, "card", media.Opus, 1000)
}
