package hostile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"

	"gateway/test/viewer"
)

var sdpAttacks = []attack{
	{"SDP", "flood: good offers whose peer never comes", func(ctx context.Context, e *enemy) error {
		return e.post(ctx, 8, func(offer string) string { return offer })
	}},
	{"SDP", "malformed: offers damaged at random", func(ctx context.Context, e *enemy) error {
		return e.post(ctx, 8, func(offer string) string { return string(damage([]byte(offer))) })
	}},
	{"SDP", "malformed: offers whose lines are shuffled and doubled", func(ctx context.Context, e *enemy) error {
		return e.post(ctx, 8, func(offer string) string {
			lines := strings.SplitAfter(offer, "\r\n")
			for range 4 {
				i, j := rand.IntN(len(lines)), rand.IntN(len(lines))
				lines[i], lines[j] = lines[j], lines[i]+lines[j]
			}
			return strings.Join(lines, "")
		})
	}},
	{"SDP", "oversized: offers with 500 m-lines", func(ctx context.Context, e *enemy) error {
		return e.post(ctx, 8, func(offer string) string {
			return offer + strings.Repeat("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:x\r\n", 500)
		})
	}},
	{"SDP", "oversized: offers with 700 codecs and long lines", func(ctx context.Context, e *enemy) error {
		var more strings.Builder
		for i := range 700 {
			fmt.Fprintf(&more, "a=rtpmap:%d H264/90000\r\na=fmtp:%d %s\r\n", i%128, i%128, strings.Repeat("x", 40))
		}
		return e.post(ctx, 8, func(offer string) string { return offer + more.String() })
	}},
	{"SDP", "oversized: 60 KiB of candidates that are nowhere", func(ctx context.Context, e *enemy) error {
		return e.post(ctx, 8, func(offer string) string {
			var more strings.Builder
			for i := range 600 {
				fmt.Fprintf(&more, "a=candidate:%d 1 udp 2130706431 203.0.113.%d %d typ host\r\n", i, i%256, 1024+i)
			}
			return offer + more.String()
		})
	}},
	{"SDP", "flood: candidates of names and addresses of others", func(ctx context.Context, e *enemy) error {
		e.many(ctx, 8, func() {
			e.repeat(ctx, websocket.TextMessage, func() []byte {
				address := fmt.Sprintf("%x.local", noise(8))
				if rand.IntN(2) == 0 {
					address = fmt.Sprintf("127.0.0.%d", rand.IntN(256))
				}
				return fmt.Appendf(nil, `{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 2130706431 %s %d typ host","sdpMid":"0"}}`, address, rand.IntN(1<<16))
			})
		})
		return nil
	}},
	{"SDP", "malformed: answers damaged at random", func(ctx context.Context, e *enemy) error {
		offer, err := newOffer()
		if err != nil {
			return err
		}
		e.many(ctx, 8, func() {
			e.repeat(ctx, websocket.TextMessage, func() []byte {
				return fmt.Appendf(nil, `{"type":"answer","sdp":%q}`, strings.ToValidUTF8(string(damage([]byte(offer))), ""))
			})
		})
		return nil
	}},
	{"SDP", "flood: sessions published that never come", func(ctx context.Context, e *enemy) error {
		offer, err := newOffer()
		if err != nil {
			return err
		}
		offer = strings.ReplaceAll(offer, "a=recvonly", "a=sendonly")
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
		e.many(ctx, 8, func() {
			_, _, err := viewer.Post(ctx, client, e.url(fmt.Sprintf("/whip/hall/s%d", rand.IntN(1000))), offer)
			e.answered(err)
		})
		return nil
	}},
}

// newOffer is a good one that receives, of a peer that is closed again.
func newOffer(certificates ...webrtc.Certificate) (string, error) {
	peer, err := webrtc.NewPeerConnection(webrtc.Configuration{Certificates: certificates})
	if err != nil {
		return "", err
	}
	defer peer.Close()
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := peer.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			return "", err
		}
	}
	offer, err := peer.CreateOffer(nil)
	return offer.SDP, err
}

// post posts offers to WHEP, each changed.
func (e *enemy) post(ctx context.Context, n int, change func(string) string) error {
	offer, err := newOffer()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}, Timeout: 10 * time.Second}
	e.many(ctx, n, func() {
		_, _, err := viewer.Post(ctx, client, e.url("/whep/good"), change(offer))
		e.answered(err)
	})
	return nil
}

// answered counts what the gateway has answered, with whatever.
func (e *enemy) answered(err error) {
	if err == nil || e.turnedAway(err) {
		e.did()
	}
}

// turnedAway tells whether an error is the gateway's answer, and notes what is the gateway's
// own fault.
func (e *enemy) turnedAway(err error) bool {
	var status *viewer.StatusError
	if !errors.As(err, &status) {
		return false
	}
	if status.Status >= 500 && status.Status != http.StatusServiceUnavailable {
		e.say("%d %.100s", status.Status, status.Body)
	}
	return true
}
