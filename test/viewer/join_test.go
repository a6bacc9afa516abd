package viewer_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

const pattern = "source: videotestsrc is-live=true\nvideo: {codec: %, width: 320, height: 240, framerate: 15, bitrate: 300k}\n"

// TestWhoHasJoinedStays through a change of the codec, by the client package.
func TestWhoHasJoinedStays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() { rig.RemoveBinary() })
	of := func(codec string) string { return strings.Replace(pattern, "%", codec, 1) }
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{"pattern": of("vp8")}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	v, err := viewer.Join(ctx, viewer.Options{URL: g.URL("/"), Codecs: []media.Codec{media.H264, media.VP8}}, "pattern")
	rig.Check(t, err)
	rig.End(t, "viewer", v.Close)
	rig.Check(t, v.WaitKeyframe(ctx))
	if seen := v.Seen(); seen.Codec != media.VP8 {
		t.Errorf("it plays %s", seen.Codec)
	}
	for _, codec := range []media.Codec{media.H264, media.VP8} {
		_, err = g.Edit(ctx, "pattern", func() error { return g.WritePipeline("pattern", of(string(codec))) })
		rig.Check(t, err)
		rig.Check(t, rig.Until(ctx, string(codec), func() (bool, error) { return v.Seen().Codec == codec, nil }))
	}
	if _, err := viewer.Join(ctx, viewer.Options{URL: g.URL("/")}, "nothing"); err == nil {
		t.Error("joined what isn't there")
	}
}
