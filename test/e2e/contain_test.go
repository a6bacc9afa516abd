package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// pluginsOf lists GStreamer's plugins that a process has mapped.
func pluginsOf(pid int) (plugins []string, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	for line := range strings.Lines(string(maps)) {
		if path := strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]); strings.Contains(path, "/gstreamer-1.0/") {
			plugins = append(plugins, filepath.Base(path))
		}
	}
	return plugins, err
}

// childrenOf lists the processes that a process has started, by what they are called.
func childrenOf(pid int) (map[string]int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	children := map[string]int{}
	for _, task := range tasks {
		list, _ := os.ReadFile(task) // a thread may be gone
		for _, field := range strings.Fields(string(list)) {
			child, _ := strconv.Atoi(field)
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child))
			children[strings.TrimSpace(string(name))] = child
		}
	}
	return children, err
}

func TestGatewayItselfHasNoPluginWhileAStreamPlays(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}})
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/test"), Codecs: []media.Codec{media.H264}})
	rig.Check(t, err)
	rig.End(t, "viewer", v.Close)
	rig.Check(t, v.WaitKeyframe(ctx))
	if status, _, err := g.Get(ctx, "/api/streams/test/snapshot.jpg"); err != nil || status != 200 {
		t.Errorf("snapshot: status %d, %v", status, err)
	}
	plugins, err := pluginsOf(g.Pid())
	rig.Check(t, err)
	if len(plugins) > 0 {
		t.Errorf("the gateway has mapped %q", plugins)
	}
	children, err := childrenOf(g.Pid())
	rig.Check(t, err)
	for _, name := range []string{"gateway-worker", "gateway-ask"} {
		plugins, err := pluginsOf(children[name])
		if err != nil || len(plugins) == 0 { // or this test sees nothing
			t.Errorf("%s: plugins %q, %v; there are %v", name, plugins, err, children)
		}
	}
}

// crashPlugin builds the plugin that crashes, and returns the environment in which
// GStreamer finds it.
func crashPlugin(ctx context.Context, t *testing.T) []string {
	dir := t.TempDir()
	flags, err := exec.CommandContext(ctx, "pkg-config", "--cflags", "--libs", "gstreamer-1.0", "gstreamer-base-1.0").Output()
	rig.Check(t, err)
	args := append([]string{"-shared", "-fPIC", "-o", filepath.Join(dir, "libgstgatewaycrash.so"), "testdata/crash.c"}, strings.Fields(string(flags))...)
	if out, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{"GST_PLUGIN_PATH=" + dir, "GST_REGISTRY=" + filepath.Join(dir, "registry.bin")}
}

// Drivers crash where they are asked and tried, too: the gateway takes another
// encoder, says what happened to the source, and goes on.
func TestPluginThatCrashesWhenTriedCostsNobodyElse(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	encoders := filepath.Join(t.TempDir(), "encoders.yaml")
	rig.Check(t, os.WriteFile(encoders, []byte(`
- name: crashing
  factory: x264enc
  codec: h264
  rank: 900
  element: x264enc name={name} tune=zerolatency bitrate={bitrate} key-int-max={keyint}
  bitrate: {property: bitrate, unit: 1000, live: true}
  needs: [gatewaycrash]
  format: I420
  profiles: [constrained-baseline]
  caps: video/x-h264,profile={profile}
  parser: gatewaycrash ! h264parse config-interval=-1
  payloader: rtph264pay aggregate-mode=zero-latency mtu=1200
`), 0o600))
	vp8 := "source: videotestsrc is-live=true\nlinger: 0s\nvideo: {codec: vp8, width: 320, height: 180, framerate: 30, bitrate: 500k}\n"
	g := startGateway(ctx, t, rig.GatewayOptions{
		Env: crashPlugin(ctx, t), Config: "encoders: " + encoders + "\n", Pipelines: map[string]string{"good": vp8},
	})
	v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/good"), Codecs: []media.Codec{media.VP8}})
	rig.Check(t, err)
	rig.End(t, "viewer", v.Close)
	rig.Check(t, v.WaitKeyframe(ctx))

	rig.Check(t, g.WritePipeline("tried", testPipeline))
	rig.Check(t, rig.Until(ctx, "an encoder that works", func() (bool, error) {
		s, err := g.Stream(ctx, "tried")
		return err == nil && s.Track("video").Encoder == "x264enc", err
	}))
	rig.Check(t, g.WritePipeline("device", "source: libcamerasrc\nvideo: {codec: vp8}\n"))
	var reason string
	rig.Check(t, rig.Until(ctx, "the source to be asked", func() (bool, error) {
		s, err := g.Stream(ctx, "device")
		if err == nil {
			reason = s.Reason + s.LastError
		}
		return strings.Contains(reason, "crashed"), err
	}))
	if !strings.Contains(reason, "SIGSEGV") {
		t.Errorf("the stream says %q", reason)
	}
	before := v.Seen().Frames
	rig.Check(t, rig.Until(ctx, "frames of the good stream", func() (bool, error) { return v.Seen().Frames > before+30, nil }))
}
