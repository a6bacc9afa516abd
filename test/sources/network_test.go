package sources

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
)

// Another program sends RTP; it may go and come back.
func TestRTPFromAnotherProgram(t *testing.T) {
	ctx := bounded(t, time.Minute)
	needElement(t, "gstreamer1.0-plugins-ugly", "x264enc")
	port, err := rig.Port()
	rig.Check(t, err)
	at := " port=" + strconv.Itoa(port)
	sender := ball + h264("main") + "! h264parse config-interval=-1 ! rtph264pay pt=96 ! udpsink host=127.0.0.1" + at
	first := launch(t, sender)
	g := startGateway(ctx, t, map[string]string{
		"mixer": "source: udpsrc" + at + ` caps="application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000"` + "\nvideo: {encoder: copy}\n",
	})
	w := watch(ctx, t, g, "mixer", media.H264)
	w.moves(ctx, t, 10)
	straightThrough(ctx, t, g, "mixer")
	rig.Check(t, first.Close())
	launch(t, sender)
	w.moves(ctx, t, 20)
}

// Cheap cameras send one JPEG after the other over HTTP.
func TestMJPEGOverHTTP(t *testing.T) {
	ctx := bounded(t, time.Minute)
	needElement(t, "gstreamer1.0-plugins-good", "souphttpsrc", "multipartdemux", "jpegdec")
	camera := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		tick := time.NewTicker(time.Second / 15)
		defer tick.Stop()
		for i := 0; ; i++ {
			picture := image.NewRGBA(image.Rect(0, 0, 320, 180))
			draw.Draw(picture, image.Rect(i*8%320, 0, i*8%320+80, 180), image.NewUniform(color.White), image.Point{}, draw.Src)
			var b bytes.Buffer
			jpeg.Encode(&b, picture, nil)
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", b.Len(), b.Bytes())
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	}))
	t.Cleanup(camera.Close)
	g := startGateway(ctx, t, map[string]string{
		"printer": "source: souphttpsrc location=" + camera.URL + " is-live=true do-timestamp=true ! multipartdemux ! image/jpeg\n" +
			"video: {codec: vp8, width: 320, height: 180, framerate: 15}\n",
	})
	watch(ctx, t, g, "printer", media.VP8).moves(ctx, t, 20)
	s, err := g.Stream(ctx, "printer")
	rig.Check(t, err)
	if s.State != "live" || s.Restarts != 0 {
		t.Errorf("it is %s after %d restarts: %s", s.State, s.Restarts, s.LastError)
	}
}

// Two sources in one picture, by the launch form: the cookbook's, with test pictures.
func TestPictureInPicture(t *testing.T) {
	ctx := bounded(t, time.Minute)
	needElement(t, "gstreamer1.0-plugins-base", "compositor")
	g := startGateway(ctx, t, map[string]string{"lecture": `launch: >
  compositor name=mix background=black sink_0::zorder=1 sink_1::zorder=2 sink_1::xpos=240 sink_1::ypos=135
  ! video/x-raw,width=320,height=180,framerate=15/1,format=I420
  ! vp8enc name=encoder deadline=1 cpu-used=-8 target-bitrate=1000000 keyframe-max-dist=30 ! rtpvp8pay ! appsink name=video
  videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=180,framerate=15/1
  ! queue leaky=downstream max-size-buffers=2 ! mix.sink_0
  videotestsrc is-live=true pattern=blue ! video/x-raw,width=80,height=45,framerate=15/1
  ! queue leaky=downstream max-size-buffers=2 ! mix.sink_1
`})
	full := color.RGBA{255, 0, 0, 255}
	watch(ctx, t, g, "lecture", media.VP8).settles(ctx, t, "one picture in the other", shows(full, full, color.RGBA{0, 0, 255, 255}, full))
}
