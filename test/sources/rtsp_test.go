package sources

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
)

// camera serves a moving picture in H.264 as network cameras do.
func camera(profile string) string {
	return ball + h264(profile) + "! rtph264pay name=pay0 pt=96 config-interval=1"
}

func startCamera(ctx context.Context, t *testing.T, o rig.RTSPOptions) *rig.RTSPServer {
	t.Helper()
	needElement(t, "gstreamer1.0-plugins-ugly", "x264enc")
	s, err := rig.StartRTSP(ctx, o)
	rig.Check(t, err)
	rig.End(t, "RTSP server", s.Close)
	return s
}

func copied(url string) string {
	return "source: rtspsrc location=" + url + "\nvideo: {encoder: copy}\n"
}

var profileInSDP = regexp.MustCompile(`profile-level-id=([0-9a-f]{6})`)

// A camera's own pictures come through untouched, and are announced as what they are.
func TestRTSPCameraStraightThrough(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	cam := startCamera(ctx, t, rig.RTSPOptions{Streams: map[string]string{
		"baseline": camera("constrained-baseline"), "main": camera("main"), "high": camera("high"),
	}})
	pipelines := map[string]string{"udp": "source: rtspsrc protocols=udp latency=50 location=" + cam.URL("main") + "\nvideo: {encoder: copy}\n"}
	for _, profile := range []string{"baseline", "main", "high"} {
		pipelines[profile] = copied(cam.URL(profile))
	}
	g := startGateway(ctx, t, pipelines)
	for profile, want := range map[string]string{"baseline": "42e0", "main": "4d00", "high": "6400", "udp": "4d00"} {
		t.Run(profile, func(t *testing.T) {
			w := watch(ctx, t, g, profile, media.H264)
			w.moves(ctx, t, 10)
			straightThrough(ctx, t, g, profile)
			s, err := g.Stream(ctx, profile)
			rig.Check(t, err)
			if tr := s.Tracks[0]; tr.Codec != "h264" || tr.Width != 320 || tr.Height != 180 {
				t.Errorf("it is told as %+v", tr)
			}
			// who comes once it is known what the camera makes
			again := watch(ctx, t, g, profile, media.H264)
			m := profileInSDP.FindStringSubmatch(again.Answer)
			if m == nil || !strings.HasPrefix(m[1], want) {
				t.Errorf("the answer says %v, want %s", m, want)
			}
			again.moves(ctx, t, 10)
		})
	}
}

// A camera with a microphone: its picture as it is, and encoded again where that is
// watched, and its sound.
func TestRTSPCameraEncodedAgain(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	cam := startCamera(ctx, t, rig.RTSPOptions{Streams: map[string]string{
		"cam": camera("main") + " audiotestsrc is-live=true freq=440 ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0",
	}})
	g := startGateway(ctx, t, map[string]string{"cam": fmt.Sprintf(
		"source: rtspsrc location=%[1]s\nvideo:\n  renditions:\n    - {name: full, encoder: copy}\n"+
			"    - {name: low, codec: vp8, width: 160, height: 90, framerate: 10}\naudio: {source: rtspsrc location=%[1]s}\n", cam.URL("cam"))})
	full := watch(ctx, t, g, "cam", media.H264)
	full.moves(ctx, t, 10)
	if made := codecElements(g); slices.Contains(made, "vp8enc") {
		t.Errorf("while nobody watches the small rendition there is %v", made)
	}
	low := watch(ctx, t, g, "cam", media.VP8)
	low.moves(ctx, t, 10)
	full.moves(ctx, t, 10)
	if made := codecElements(g); !slices.Contains(made, "vp8enc") {
		t.Errorf("there is %v, and no vp8enc", made)
	}
	hears(ctx, t, g, "cam", media.Opus, 440)
}

// The camera goes and comes back; the viewer stays, and sees it again.
func TestRTSPCameraThatComesBack(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	cam := startCamera(ctx, t, rig.RTSPOptions{Streams: map[string]string{"cam": camera("main")}})
	g := startGateway(ctx, t, map[string]string{
		"copy":  copied(cam.URL("cam")),
		"again": "source: rtspsrc location=" + cam.URL("cam") + "\nvideo: {codec: vp8, width: 320, height: 180}\n",
	})
	viewers := []*watched{watch(ctx, t, g, "copy", media.H264), watch(ctx, t, g, "again", media.VP8)}
	for _, w := range viewers {
		w.moves(ctx, t, 10)
	}
	rig.Check(t, cam.Close())
	gone := time.Now()
	for _, name := range []string{"copy", "again"} {
		rig.Check(t, rig.Until(ctx, "the gateway to notice", func() (bool, error) {
			s, err := g.Stream(ctx, name)
			return err == nil && s.State != "live" && s.Reason != "", err
		}))
		s, err := g.Stream(ctx, name)
		rig.Check(t, err)
		t.Logf("%s: %s after %s: %s", name, s.State, time.Since(gone).Round(time.Millisecond), s.Reason)
	}
	startCamera(ctx, t, rig.RTSPOptions{Port: cam.Port, Streams: map[string]string{"cam": camera("main")}})
	back := time.Now()
	for i, w := range viewers {
		rig.Check(t, g.WaitState(ctx, []string{"copy", "again"}[i], "live"))
		w.moves(ctx, t, 10)
	}
	t.Logf("moving again %s after the camera came back", time.Since(back).Round(time.Millisecond))
}

// A camera that hangs keeps its connection, and sends nothing.
func TestRTSPCameraThatHangs(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, time.Minute)
	cam := startCamera(ctx, t, rig.RTSPOptions{Streams: map[string]string{"cam": camera("main")}})
	g := startGateway(ctx, t, map[string]string{"cam": copied(cam.URL("cam"))})
	w := watch(ctx, t, g, "cam", media.H264)
	w.moves(ctx, t, 10)
	rig.Check(t, cam.Signal(syscall.SIGSTOP))
	defer cam.Signal(syscall.SIGCONT)
	rig.Check(t, g.WaitState(ctx, "cam", "restarting"))
	rig.Check(t, cam.Signal(syscall.SIGCONT))
	rig.Check(t, g.WaitState(ctx, "cam", "live"))
	w.moves(ctx, t, 10)
}

// What browsers don't play is refused with the reason, and played once the camera
// is set right.
func TestRTSPCameraThatBrowsersDoNotPlay(t *testing.T) {
	ctx := bounded(t, time.Minute)
	bframes := ball + " ! x264enc speed-preset=superfast bframes=2 b-adapt=false rc-lookahead=2 key-int-max=30 ! video/x-h264,profile=main ! rtph264pay name=pay0 config-interval=1"
	cam := startCamera(ctx, t, rig.RTSPOptions{Streams: map[string]string{
		"bframes": bframes,
		"444":     strings.Replace(camera("high-4:4:4"), "I420", "Y444", 1),
	}})
	g := startGateway(ctx, t, map[string]string{"bframes": copied(cam.URL("bframes")), "444": copied(cam.URL("444"))})
	for name, reason := range map[string]string{"bframes": "B-frames", "444": "profile High 4:4:4"} {
		watch(ctx, t, g, name, media.H264)
		rig.Check(t, rig.Until(ctx, "the reason", func() (bool, error) {
			s, err := g.Stream(ctx, name)
			if err != nil {
				return false, err
			}
			if s.State != "restarting" || !strings.Contains(s.Reason, reason) || !strings.Contains(s.Reason, "encoder: auto") {
				return false, fmt.Errorf("%s: %s", s.State, s.Reason)
			}
			return true, nil
		}))
	}
}
