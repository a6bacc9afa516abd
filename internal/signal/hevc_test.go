package signal

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// H.265 is forwarded where a publisher offers nothing else: to viewers who take it. Others
// are told in words what they would need.
func TestH265IsForwardedToWhoTakesIt(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.Limits.Rooms = 2 })
	s := newStudio(t)
	capability := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH265, ClockRate: 90000}
	sender := s.send(capability, "video", nil, func(n uint32) [][]byte {
		if n%25 == 0 { // SPS, then an IDR slice; Table 7-1
			return [][]byte{{33 << 1, 1, 1, 2, 3}, {19 << 1, 1, 0x80, byte(n)}}
		}
		return [][]byte{{1 << 1, 1, 0x80, byte(n)}}
	})
	for _, tr := range s.pc.GetTransceivers() {
		if tr.Sender() != sender {
			continue
		}
		var only []webrtc.RTPCodecParameters
		for _, c := range sender.GetParameters().Codecs {
			if strings.EqualFold(c.MimeType, webrtc.MimeTypeH265) {
				only = append(only, c)
			}
		}
		if err := tr.SetCodecPreferences(only); err != nil {
			t.Fatal(err)
		}
	}
	answer, _ := g.whip(t, "obs", s)
	if !strings.Contains(answer.body, "H265/90000") {
		t.Fatalf("answered by\n%s", answer.body)
	}
	p := newPeer(t)
	g.whep(t, "obs", p, video)
	for range 20 {
		p.sees(video)
	}
	without := strings.ReplaceAll(newPeer(t).offer(video), "H265/", "X265/")
	resp := g.do(t, "POST", "/whep/obs", sdpBody(), without)
	if resp.status != http.StatusNotAcceptable || resp.problem(t).Code != codecUnsupported || !strings.Contains(resp.problem(t).Detail, "video/H265") {
		t.Errorf("one who doesn't take it: %d %s", resp.status, resp.body)
	}

	// a browser that offers it among others is answered with one that all play
	both := newStudio(t)
	both.video("video")
	offer := both.offer(nil)
	if !strings.Contains(offer, "H265/") {
		t.Fatalf("the offer has no H.265:\n%s", offer)
	}
	if resp := g.do(t, "POST", "/whip/other", sdpBody(), offer); resp.status != http.StatusCreated || strings.Contains(resp.body, "H265/") {
		t.Errorf("%d\n%s", resp.status, resp.body)
	}
}
