package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestWatchAndPublishFromTheCommandLine records what a pipeline makes, publishes that
// file into a room, and records it there again.
func TestWatchAndPublishFromTheCommandLine(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	pipeline := func(codec string) string {
		return "source: videotestsrc is-live=true pattern=ball\nvideo: {codec: " + codec + ", width: 320, height: 240, framerate: 15, bitrate: 300k}\naudio: {source: audiotestsrc is-live=true, codec: opus}\n"
	}
	g := startGateway(ctx, t, rig.GatewayOptions{HTTPS: true, Pipelines: map[string]string{"vp8": pipeline("vp8"), "h264": pipeline("h264")}})
	dir := t.TempDir()
	binary, err := rig.Binary()
	rig.Check(t, err)
	command := func(args ...string) *rig.Process {
		t.Helper()
		p, err := rig.Start(rig.Command{Path: binary, Args: args, Dir: dir})
		rig.Check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	record := func(path, address string) {
		t.Helper()
		p := command("watch", "-insecure", "-for", "5s", "-o", path, g.URL(address))
		if err := p.Wait(ctx); err != nil {
			t.Fatalf("watch: %v\n%s", err, p.Log())
		}
		if !strings.Contains(p.Log(), "fps") {
			t.Errorf("watch told nothing:\n%s", p.Log())
		}
	}
	for _, c := range []struct{ file, stream, magic, decode string }{
		{"a.ivf", "vp8", "DKIF", "ivfparse ! vp8dec"},
		{"a.h264", "h264", "\x00\x00\x00\x01", "h264parse ! avdec_h264"},
		{"a.ogg", "vp8", "OggS", "oggdemux ! opusdec"},
	} {
		t.Run(c.file, func(t *testing.T) {
			path, again := filepath.Join(dir, c.file), filepath.Join(dir, "again-"+c.file)
			record(path, "/watch/"+c.stream)
			decodes(ctx, t, path, c.magic, c.decode)
			room := "/room/meeting-" + strings.TrimPrefix(filepath.Ext(c.file), ".")
			p := command("publish", "-insecure", "-create", "-fps", "15", g.URL(room), path)
			rig.Check(t, rig.Until(ctx, "the publication", func() (bool, error) { return strings.Contains(p.Log(), "published as"), nil }))
			record(again, room)
			decodes(ctx, t, again, c.magic, c.decode)
		})
	}
}

// decodes has GStreamer read a file to its end.
func decodes(ctx context.Context, t *testing.T, path, magic, decode string) {
	t.Helper()
	data, err := os.ReadFile(path)
	rig.Check(t, err)
	if len(data) < 10_000 || !bytes.HasPrefix(data, []byte(magic)) {
		t.Fatalf("%s has %d bytes, and begins with %q", path, len(data), data[:min(8, len(data))])
	}
	gst, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	rig.Check(t, err)
	p, err := rig.Start(rig.Command{Path: gst, Args: strings.Fields("-q filesrc location=" + path + " ! " + decode + " ! fakesink")})
	rig.Check(t, err)
	defer p.Close()
	if err := p.Wait(ctx); err != nil {
		t.Errorf("%s: %v\n%s", path, err, p.Log())
	}
}
