package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gateway/test/rig"
)

// publishScript is what a page needs to publish its fake camera by WHIP, and to watch by
// WHEP, as a stranger would write it: without the gateway's own modules.
const publishScript = `
window.post = async (url, pc) => {
  await pc.setLocalDescription(await pc.createOffer());
  if (pc.iceGatheringState !== 'complete') {
    await new Promise(done => pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done());
  }
  const response = await fetch(url, {method: 'POST', headers: {'Content-Type': 'application/sdp'}, body: pc.localDescription.sdp});
  const body = await response.text();
  if (response.status !== 201) throw new Error(response.status + ' ' + body);
  await pc.setRemoteDescription({type: 'answer', sdp: body});
  return response.headers.get('Location');
};
window.publish = async (url, codec, encodings, size = {width: 640, height: 360}) => {
  const stream = await navigator.mediaDevices.getUserMedia({video: {...size, frameRate: 20}, audio: true});
  const pc = window.published = new RTCPeerConnection();
  for (const track of stream.getTracks()) {
    const video = track.kind === 'video';
    const sender = pc.addTransceiver(track, {direction: 'sendonly', streams: [stream], sendEncodings: video ? encodings : undefined});
    if (video) {
      const all = RTCRtpSender.getCapabilities('video').codecs;
      sender.setCodecPreferences([...all.filter(c => c.mimeType === 'video/' + codec), ...all.filter(c => c.mimeType === 'video/rtx')]);
    }
  }
  return window.location2 = await post(url, pc);
};
window.see = async url => {
  const pc = window.watched = new RTCPeerConnection();
  pc.addTransceiver('video', {direction: 'recvonly'});
  pc.addTransceiver('audio', {direction: 'recvonly'});
  const video = window.seen = document.createElement('video');
  video.muted = video.autoplay = true;
  video.srcObject = new MediaStream();
  pc.ontrack = e => video.srcObject.addTrack(e.track);
  document.body.replaceChildren(video);
  await post(url, pc);
  const canvas = new OffscreenCanvas(64, 36), context = canvas.getContext('2d', {willReadFrequently: true});
  window.pictures = [];
  const look = () => {
    context.drawImage(video, 0, 0, 64, 36);
    const data = context.getImageData(0, 0, 64, 36).data;
    let sum = 0, green = 0;
    for (let i = 0; i < data.length; i += 4) { sum = (sum * 31 + data[i] + data[i + 1] * 7 + data[i + 2] * 13) | 0; green += data[i + 1] > 60 && data[i + 1] > data[i] + 20; }
    pictures.push({at: performance.now(), sum, width: video.videoWidth, height: video.videoHeight, green});
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
};
window.inbound = async kind => { for (const s of (await watched.getStats()).values()) if (s.type === 'inbound-rtp' && s.kind === kind) return s; return {}; };
`

// picture is one that a viewer has shown.
type picture struct {
	At            float64
	Sum           int
	Width, Height int
}

func camera(ctx context.Context, t *testing.T) *rig.Chromium {
	return startChromium(ctx, t, rig.ChromiumOptions{Flags: map[string]string{
		"use-fake-device-for-media-stream": "fps=20", "use-fake-ui-for-media-stream": "1", "autoplay-policy": "no-user-gesture-required",
	}})
}

// openPage opens a document of the gateway's origin that forbids nothing: its pages, but for
// a room's, may not use the camera.
func openPage(ctx context.Context, t *testing.T, b *rig.Chromium, g *rig.Gateway) rig.Page {
	t.Helper()
	page, err := b.Open(ctx, g.URL("/healthz"))
	rig.Check(t, err)
	t.Cleanup(func() { page.Close() })
	call(ctx, t, page, "(() => {"+publishScript+"})()", nil)
	return page
}

func call(ctx context.Context, t *testing.T, p rig.Page, expression string, out any) {
	t.Helper()
	if err := p.Eval(ctx, expression, out); err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
}

// moves waits until a viewer has shown n different pictures of a width.
func moves(ctx context.Context, t *testing.T, p rig.Page, n, width int) []picture {
	t.Helper()
	var pictures []picture
	if err := rig.Until(ctx, fmt.Sprintf("%d different pictures %d wide", n, width), func() (bool, error) {
		if err := p.Eval(ctx, "pictures", &pictures); err != nil {
			return false, err
		}
		sums := map[int]bool{}
		for _, s := range pictures {
			if width == 0 || s.Width == width {
				sums[s.Sum] = true
			}
		}
		return len(sums) >= n, nil
	}); err != nil {
		last := picture{}
		if len(pictures) > 0 {
			last = pictures[len(pictures)-1]
		}
		t.Fatalf("%v; %d pictures, the last %+v", err, len(pictures), last)
	}
	return pictures
}

// TestChromiumPublishesToChromium has one browser publish its camera in each codec and
// another watch it: the picture moves, and sound comes.
func TestChromiumPublishesToChromium(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{})
	b := camera(ctx, t)
	for _, codec := range []string{"VP8", "H264", "VP9", "AV1"} {
		t.Run(codec, func(t *testing.T) {
			room := "cam-" + strings.ToLower(codec)
			publisher, viewer := openPage(ctx, t, b, g), openPage(ctx, t, b, g)
			call(ctx, t, publisher, fmt.Sprintf("publish('/whip/%s', '%s')", room, codec), nil)
			call(ctx, t, viewer, fmt.Sprintf("see('/whep/%s')", room), nil)
			moves(ctx, t, viewer, 40, 640)
			rig.Check(t, rig.WaitTrue(ctx, viewer, "inbound('audio').then(s => s.totalSamplesReceived > 24000)"))
			shot, err := viewer.Screenshot(ctx)
			rig.Check(t, err)
			keep(t, room+".png", shot)
			var status int
			call(ctx, t, publisher, "fetch(location2, {method: 'DELETE'}).then(r => r.status)", &status)
			if status != 200 {
				t.Errorf("DELETE says %d", status)
			}
		})
	}
}

// TestViewersSeeACardWhileNothingIsPublished stops a browser's sending and lets it begin again: a
// browser that watches shows a card meanwhile, and then the moving picture, on the same connection.
func TestViewersSeeACardWhileNothingIsPublished(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{})
	b := camera(ctx, t)
	for _, codec := range []string{"VP8", "H264"} {
		t.Run(codec, func(t *testing.T) {
			room := "away-" + strings.ToLower(codec)
			publisher, viewer := openPage(ctx, t, b, g), openPage(ctx, t, b, g)
			call(ctx, t, publisher, fmt.Sprintf("publish('/whip/%s', '%s')", room, codec), nil)
			call(ctx, t, viewer, fmt.Sprintf("see('/whep/%s')", room), nil)
			moves(ctx, t, viewer, 20, 640)
			call(ctx, t, publisher, "Promise.all((window.senders = published.getSenders().map(s => [s, s.track])).map(([s]) => s.replaceTrack(null))).then(() => true)", nil)
			stopped := time.Now()
			rig.Check(t, rig.WaitTrue(ctx, viewer, `(() => {
				const context = new OffscreenCanvas(64, 36).getContext('2d');
				context.drawImage(seen, 0, 0, 64, 36);
				const corner = context.getImageData(1, 1, 1, 1).data;
				return [0x22, 0x26, 0x2d].every((c, i) => Math.abs(corner[i] - c) < 12);
			})()`))
			t.Logf("a card %.1f s after the last picture", time.Since(stopped).Seconds())
			shot, err := viewer.Screenshot(ctx)
			rig.Check(t, err)
			keep(t, room+".png", shot)
			call(ctx, t, viewer, "(pictures.length = 0, true)", nil)
			began := time.Now()
			call(ctx, t, publisher, "Promise.all(senders.map(([s, track]) => s.replaceTrack(track))).then(() => true)", nil)
			moves(ctx, t, viewer, 10, 640)
			t.Logf("moving pictures %.1f s after it had begun again", time.Since(began).Seconds())
		})
	}
}

// TestChromiumSimulcastBecomesRenditions has a viewer ask for each of the layers that a
// browser publishes.
func TestChromiumSimulcastBecomesRenditions(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{})
	b := camera(ctx, t)
	publisher := openPage(ctx, t, b, g)
	call(ctx, t, publisher, `publish('/whip/cast', 'VP8', [
		{rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150000}, {rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 400000}, {rid: 'f', maxBitrate: 900000}], {width: 960, height: 540})`, nil) // of less Chromium makes two layers
	for rid, width := range map[string]int{"q": 240, "h": 480, "f": 960} {
		viewer := openPage(ctx, t, b, g)
		var refused error
		if err := rig.Until(ctx, "layer "+rid, func() (bool, error) { // the best one comes when the browser has found the bandwidth
			refused = viewer.Eval(ctx, fmt.Sprintf("see('/whep/cast?rendition=%s')", rid), nil)
			return refused == nil, nil
		}); err != nil {
			var stats []map[string]any
			call(context.WithoutCancel(ctx), t, publisher, "published.getStats().then(r => [...r.values()].filter(s => s.rid || s.availableOutgoingBitrate))", &stats)
			t.Fatalf("%v: %v\n%v", err, refused, stats)
		}
		moves(ctx, t, viewer, 20, width)
	}
}

// TestIndependentClientPublishesByWHIP lets aiortc, which shares no code with pion or
// libwebrtc, publish by WHIP what a browser watches.
func TestIndependentClientPublishesByWHIP(t *testing.T) {
	if exec.Command(python, "-c", "import aiortc").Run() != nil {
		rig.Check(t, &rig.Missing{What: "aiortc", Remedy: "apt-get install python3-aiortc"})
	}
	publishesBy(t, python, "whip_aiortc.py")
}

// TestGStreamerPublishesByWHIP does it with webrtcbin, as Debian has no WHIP element.
func TestGStreamerPublishesByWHIP(t *testing.T) {
	if exec.Command(python, "-c", "import gi; gi.require_version('GstWebRTC', '1.0')").Run() != nil {
		rig.Check(t, &rig.Missing{What: "GStreamer's WebRTC for Python", Remedy: "apt-get install python3-gst-1.0 gir1.2-gst-plugins-bad-1.0"})
	}
	publishesBy(t, python, "whip_webrtcbin.py")
}

func publishesBy(t *testing.T, python, script string) {
	ctx := bounded(t, 3*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{})
	b := camera(ctx, t)
	for _, codec := range []string{"H264", "VP8"} {
		t.Run(codec, func(t *testing.T) {
			room := "tool-" + strings.ToLower(codec)
			p, err := rig.Start(rig.Command{Path: python, Args: []string{script, g.URL("/whip/" + room), codec}})
			rig.Check(t, err)
			defer p.Close()
			rig.Check(t, rig.Until(ctx, "the publisher's session", func() (bool, error) {
				if strings.Contains(p.Log(), `"location"`) {
					return true, nil
				}
				return false, nil
			}))
			viewer := openPage(ctx, t, b, g)
			call(ctx, t, viewer, fmt.Sprintf("see('/whep/%s')", room), nil)
			pictures := moves(ctx, t, viewer, 20, 320)
			last, _ := json.Marshal(pictures[len(pictures)-1])
			t.Logf("%d pictures, the last %s", len(pictures), last)
		})
	}
}
