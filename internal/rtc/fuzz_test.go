package rtc

import (
	"context"
	"strings"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// checkForPion: what pion is shown of a hostile description must be sound.
func checkForPion(t *testing.T, r *remote, sections []*section) {
	t.Helper()
	var d sdp.SessionDescription
	text := r.forPion(sections, "active")
	if err := d.UnmarshalString(text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(d.MediaDescriptions) != len(sections) {
		t.Fatalf("%d sections became %d:\n%s", len(sections), len(d.MediaDescriptions), text)
	}
}

func FuzzSetAnswer(f *testing.F) {
	e := newEngine(f, Options{})
	p := newPeer(f, peerOptions{})
	v := newWHEP(f, e, videoTrack, newSource(), audioTrack, newSource())
	offer, err := v.Offer(context.Background(), false)
	if err != nil {
		f.Fatal(err)
	}
	good := p.answer(f, offer)
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "a=recvonly", "a=inactive"))
	f.Add(strings.ReplaceAll(good, "a=rtpmap", "a=ssrc:1 cname:x\r\na=rid:1 recv\r\na=rtpmap"))
	f.Add("v=0\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRemote(text)
		if err != nil {
			return
		}
		accepted, _, err := v.checkAnswer(r)
		if err != nil {
			return
		}
		if len(accepted) != 2 {
			t.Fatalf("%d sections accepted", len(accepted))
		}
		checkForPion(t, r, r.sections)
	})
}

func FuzzAnswer(f *testing.F) {
	e := newEngine(f, Options{})
	p := newPeer(f, peerOptions{})
	receiveOnly(f, p, webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio)
	if _, err := p.pc.CreateDataChannel("x", nil); err != nil {
		f.Fatal(err)
	}
	good := whepOffer(f, p)
	f.Add(good)
	for _, offer := range offers(f) {
		f.Add(offer)
	}
	f.Add(strings.ReplaceAll(good, "a=mid:", "a=mid:x"))
	f.Add(strings.ReplaceAll(good, "a=group:BUNDLE", "a=group:LS"))
	f.Add("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 255 -1 x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseRemote(text); err != nil {
			return
		}
		v := newWHEP(t, e, videoTrack, newSource(), audioTrack, newSource())
		defer v.Close()
		answer, err := v.Answer(context.Background(), text)
		if err != nil {
			return
		}
		var d sdp.SessionDescription
		if err := d.UnmarshalString(answer); err != nil {
			t.Fatalf("answer: %v in\n%s", err, answer)
		}
	})
}

func FuzzRTCP(f *testing.F) {
	e := newEngine(f, Options{})
	v := newWHEP(f, e)
	for _, p := range []rtcp.Packet{
		&rtcp.PictureLossIndication{MediaSSRC: 7},
		&rtcp.FullIntraRequest{MediaSSRC: 7, FIR: []rtcp.FIREntry{{SSRC: 7, SequenceNumber: 1}}},
		&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: 1, LostPackets: 0xffff}}},
		&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: 7, LastSenderReport: 1, Delay: 2, Jitter: 3}}},
		&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1e6, SSRCs: []uint32{7}},
	} {
		b, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := newSource()
		tr := playing(v, videoTrack, src, format{pt: 102}, &recorder{})
		tr.receive(b)
		tr.receive(b)
		if len(tr.wanted) > maxNacked {
			t.Errorf("%d sequence numbers wait", len(tr.wanted))
		}
		if rtt := v.rtt(media.Now()); rtt < 0 || rtt > maxRTT {
			t.Errorf("round trip of %v", rtt)
		}
	})
}
