package signal

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
)

// obs is a publisher that does what OBS 32 does (plugins/obs-webrtc/whip-output.cpp): its
// offer is OBS's own text, without candidates, and none is trickled; the transport
// behind it is pion's. Each packet of video has the RID of its layer, also where the
// offer has one layer and no RIDs.
type obs struct {
	*studio
	offer string
}

const ridExtension = 2 // in OBS's offer

func newOBS(t *testing.T, file string, layers int) *obs {
	t.Helper()
	m := &webrtc.MediaEngine{}
	sounds := webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}}
	pictures := webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1",
	}}
	// its header extensions are numbered in this order
	err := errors.Join(m.RegisterCodec(sounds, audio), m.RegisterCodec(pictures, video), webrtc.ConfigureSimulcastExtensionHeaders(m))
	if err != nil {
		t.Fatal(err)
	}
	s := newStudioOf(t, m)
	track := func(codec webrtc.RTPCodecCapability, options ...func(*webrtc.TrackLocalStaticRTP)) *webrtc.TrackLocalStaticRTP {
		made, err := webrtc.NewTrackLocalStaticRTP(codec, codec.MimeType, "obs", options...)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	sound := track(sounds.RTPCodecCapability)
	if _, err := s.pc.AddTransceiverFromTrack(sound, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		t.Fatal(err)
	}
	var sender *webrtc.RTPSender
	for i := range layers {
		var options []func(*webrtc.TrackLocalStaticRTP)
		if layers > 1 {
			options = append(options, webrtc.WithRTPStreamID(fmt.Sprint(i)))
		}
		picture := track(pictures.RTPCodecCapability, options...)
		if i > 0 {
			if err := sender.AddEncoding(picture); err != nil {
				t.Fatal(err)
			}
		} else {
			tr, err := s.pc.AddTransceiverFromTrack(picture, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
			if err != nil {
				t.Fatal(err)
			}
			sender = tr.Sender()
		}
		s.write(picture, 90000, func(n uint32) [][]byte {
			if n%25 == 0 { // High profile, whatever the offer says: SPS, PPS, IDR
				return [][]byte{{0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01}, {0x68, 0xeb, 0xe3, 0xcb}, {0x65, 0x88, byte(i), byte(n)}}
			}
			return [][]byte{{0x41, 0x9a, byte(i), byte(n)}}
		}, func(h *rtp.Header) error { return h.SetExtension(ridExtension, []byte(fmt.Sprint(i))) })
	}
	s.write(sound, 48000, func(n uint32) [][]byte { return [][]byte{{0xfc, byte(n)}} }, nil)

	text, err := os.ReadFile("../rtc/testdata/offers/" + file + ".sdp")
	if err != nil {
		t.Fatal(err)
	}
	own := s.offer(nil)
	offer := string(text)
	for _, line := range []string{`a=ice-ufrag:\S+`, `a=ice-pwd:\S+`, `a=fingerprint:sha-256 \S+`} {
		r := regexp.MustCompile(line)
		offer = r.ReplaceAllLiteralString(offer, r.FindString(own))
	}
	if layers == 1 {
		ssrc := regexp.MustCompile(`a=ssrc:(\d+)`).FindAllStringSubmatch(own, -1)
		offer = strings.NewReplacer("3388068600", ssrc[0][1], "3388068601", ssrc[len(ssrc)-1][1]).Replace(offer)
	}
	return &obs{s, offer}
}

// publish is WHIPOutput::Connect: what it does with the answer, and what it would
// refuse.
func (o *obs) publish(t *testing.T, g *gateway, layers int) (location string) {
	t.Helper()
	resp := g.do(t, "POST", "/whip/obs", map[string]string{
		"Content-Type": "application/sdp", "Accept": "*/*", "User-Agent": "Mozilla/5.0 (OBS-Studio/32.0.4; Linux x86_64; en-US)",
	}, o.offer)
	if resp.status != http.StatusCreated {
		t.Fatalf("POST: %d %s", resp.status, resp.body)
	}
	location = resp.header.Get("Location")
	if !strings.HasPrefix(location, "/") { // it takes a path, or an URL
		t.Errorf("Location %q", location)
	}
	for _, link := range resp.header.Values("Link") { // it splits them at , and ;
		if !regexp.MustCompile(`^<(stun|turn):[^,;]+>(; \w[-\w]*="[^",;]*")*$`).MatchString(link) {
			t.Errorf("Link %q", link)
		}
	}
	if n := strings.Count(regexp.MustCompile(`a=simulcast.*\r\n`).FindString(resp.body), ";") + 1; layers > 1 && n != layers {
		t.Errorf("%d layers are answered, want %d:\n%s", n, layers, resp.body)
	}
	o.accept(resp.body)
	return location
}

func TestOBSPublishes(t *testing.T) {
	for name, c := range map[string]struct {
		file   string
		layers int
	}{"one picture": {"obs", 1}, "simulcast": {"obs-simulcast", 3}} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, func(c *config.Gateway, _ *timing) {
				c.Limits.Rooms = 1
				c.ICE.Servers = []config.ICEServer{{URLs: []string{"stun:127.0.0.1:9"}}}
			})
			o := newOBS(t, c.file, c.layers)
			location := o.publish(t, g, c.layers)
			for i := range c.layers {
				p := newPeer(t)
				seen := make(chan struct{}, 1)
				p.reads = func(kind webrtc.RTPCodecType, packet *rtp.Packet) {
					if b := packet.Payload; kind == video && len(b) > 2 && b[0]&0x1f == 5 && int(b[2]) == i {
						poke(seen)
					}
				}
				path := "/whep/obs"
				if c.layers > 1 {
					path += fmt.Sprintf("?rendition=%d", i)
				}
				var resp response
				offer := p.offer(video, audio)
				until(t, "the layer can be watched", func() bool { // one that nothing came of isn't there yet
					resp = g.do(t, "POST", path, sdpBody(), offer)
					return resp.status == http.StatusCreated
				})
				p.accept(resp.body)
				p.await(seen, fmt.Sprintf("keyframe of layer %d", i))
				p.sees(audio)
			}
			// It closes its connection first and then says so: the session may have ended
			// by then, which it only logs.
			if err := o.pc.Close(); err != nil {
				t.Fatal(err)
			}
			if resp := g.do(t, "DELETE", location, nil, ""); resp.status != http.StatusOK && resp.status != http.StatusNotFound {
				t.Errorf("DELETE: %d %s", resp.status, resp.body)
			}
			until(t, "the sessions have ended", func() bool { return g.count(t, "gateway_sessions") == 0 })
		})
	}
}
