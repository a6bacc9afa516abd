package rtc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"gateway/internal/adapt"
	"gateway/internal/config"
	"gateway/internal/media"
)

// A page that is hidden costs nothing, and goes on without an offer.
func TestPausedTrackGoesOnWithoutAnOffer(t *testing.T) {
	src, next := newSource(), newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)
	src.push(true, 3)
	for range 3 {
		s.peer.next(t)
	}
	if err := s.Pause("video"); err != nil {
		t.Fatal(err)
	}
	if !src.isClosed() {
		t.Error("the source of a paused track is open")
	}
	src.push(false, 3)
	if s.OfferDue() {
		t.Error("a pause is to be offered")
	}
	s.negotiate(t, false) // about something else
	sent := s.Stats().Packets
	offer, err := s.Replace("video", videoTrack, next)
	if err != nil || offer {
		t.Fatalf("after a pause: offer %t, %v", offer, err)
	}
	next.push(true, 2)
	for range 2 {
		s.peer.next(t)
	}
	if got := s.Stats().Packets - sent; got != 2 {
		t.Errorf("%d packets were sent since the pause, want 2", got)
	}
}

// What is sent by itself tells nothing of what more the network carries: probes do.
func TestProbesFindWhatTheNetworkCarries(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	told := make(chan adapt.Estimate, 1000)
	probed := make(chan uint8, 10000)
	s.o.OnEstimate = func(e adapt.Estimate) { told <- e }
	s.heard = func(reports []media.PacketReport) {
		for _, r := range reports {
			if r.Probe != 0 {
				probed <- r.Probe
			}
		}
	}
	s.connect(t)
	s.Want(20_000_000)
	src.run(t, 30, 2) // half a megabit
	deadline := time.After(30 * time.Second)
	for best := 0; best < 4_000_000; {
		select {
		case e := <-told:
			best = max(best, e.Bps)
		case <-deadline:
			t.Fatalf("no more than %d bit/s are found, with %d packets of probes told of; %+v", best, len(probed), s.Stats())
		}
	}
	if len(probed) == 0 {
		t.Error("found without a probe")
	}
}

// A peer that takes no RTX was judged by its sound: fifty small packets a second began
// the estimate, and the picture was paced by that for good.
func TestPeerWithoutRTXIsNotJudgedByItsSound(t *testing.T) {
	for _, offers := range []bool{false, true} {
		t.Run(fmt.Sprintf("it offers %t", offers), func(t *testing.T) {
			p := peerOptions{media: func(m *webrtc.MediaEngine) error {
				return errors.Join(
					m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{
						MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: h264Fmtp,
						RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}},
					}}, webrtc.RTPCodecTypeVideo),
					m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
						MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
					}}, webrtc.RTPCodecTypeAudio))
			}}
			video, audio := newSource(), newSource()
			s := newSession(t, newEngine(t, Options{}), p, videoTrack, video, audioTrack, audio)
			if offers {
				receiveOnly(t, s.peer, webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio)
				answer, err := s.Answer(context.Background(), whepOffer(t, s.peer))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(answer, transportFeedback) || strings.Contains(answer, transportURI) {
					t.Errorf("the answer has transport-wide feedback:\n%s", answer)
				}
				s.peer.accept(t, answer)
			} else {
				s.connect(t)
			}
			s.Want(5_000_000)
			video.run(t, 30, 10)
			audio.run(t, 50, 1)
			deadline := time.After(30 * time.Second)
			for range 200 { // of sound: four seconds
				select {
				case <-s.peer.audio:
				case <-deadline:
					t.Fatalf("no sound; %+v", s.Stats())
				}
			}
			if st := s.Stats(); st.Feedbacks != 0 || st.Estimate.Bps != 0 {
				t.Errorf("on a good network %d feedbacks, and an estimate of %d bit/s", st.Feedbacks, st.Estimate.Bps)
			}
		})
	}
}

// Peers that tell by RFC 8888 what arrived are estimated all the same.
func TestCongestionControlFeedbackOfAPeer(t *testing.T) {
	for _, lite := range []bool{false, true} {
		t.Run(fmt.Sprintf("lite %t", lite), func(t *testing.T) {
			var engine *webrtc.MediaEngine
			p := newPeer(t, peerOptions{silent: true, media: func(m *webrtc.MediaEngine) error {
				engine = m
				return m.RegisterDefaultCodecs()
			}, registry: func(r *interceptor.Registry) {
				if err := errors.Join(webrtc.ConfigureNack(engine, r), webrtc.ConfigureCongestionControlFeedback(engine, r)); err != nil {
					t.Fatal(err)
				}
			}})
			receiveOnly(t, p, webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio)
			video, audio := newSource(), newSource()
			v := newWHEP(t, newEngine(t, Options{ICE: config.ICE{Lite: lite}}), videoTrack, video, audioTrack, audio)
			told, sent := make(chan adapt.Estimate, 1000), make(chan time.Duration, 10000)
			v.o.OnEstimate = func(e adapt.Estimate) { told <- e }
			v.heard = func(reports []media.PacketReport) {
				for _, r := range reports {
					if r.Received {
						sent <- r.Arrival - r.Sent
					}
				}
			}
			answer, err := v.Answer(context.Background(), whepOffer(t, p))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(answer, "a=rtcp-fb:106 ack ccfb\r\n") {
				t.Errorf("not agreed upon:\n%s", answer)
			}
			if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
				t.Fatal(err)
			}
			v.Want(20_000_000)
			video.run(t, 30, 2)
			audio.run(t, 50, 1)
			deadline := time.After(30 * time.Second)
			for best := 0; best < 2_000_000; {
				select {
				case e := <-told:
					best = max(best, e.Bps)
				case <-deadline:
					t.Fatalf("no more than %d bit/s are found, %d packets told of; %+v", best, len(sent), v.Stats())
				}
			}
			first := <-sent
			for range len(sent) { // both clocks run alike
				if d := <-sent - first; d < -time.Second || d > time.Second {
					t.Fatalf("ways differ by %v", d)
				}
			}
		})
	}
}

// Whatever a peer writes, nothing is believed of packets that were never sent.
func FuzzCongestionFeedback(f *testing.F) {
	f.Add([]byte{0x8b, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 7, 0, 10, 0, 2, 0x80, 0x10, 0x80, 0x20, 0, 1, 0, 0})
	f.Add([]byte{0x8b, 205, 0, 2, 0, 0, 0, 1, 0, 1, 0, 0})
	f.Add([]byte{0x8b, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0xff, 0xff, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		v := &Viewer{}
		tr := &track{viewer: v}
		e := &encoding{format: format{ccfb: true}}
		v.bySSRC.Store(uint32(7), tr)
		for seq := range uint16(300) {
			v.numbering.stamp(nil, 100)
			tr.count(e, 7, seq)
		}
		if !v.readCongestionFeedback(b) {
			return
		}
		v.numbering.hearVerdicts(v.verdicts, time.Second)
		if len(v.numbering.reports) > 300 {
			t.Errorf("%d reports of 300 packets", len(v.numbering.reports))
		}
	})
}

// When a link becomes four times slower, the receiver asks for a packet every 20 ms
// that another one comes through: what can't come is known before.
func TestWhatCannotArriveCountsAsLost(t *testing.T) {
	const size = 1200
	track := func(wait time.Duration, outstanding, wanted int) *track {
		v := &Viewer{est: estimation{Estimator: adapt.NewEstimator()}}
		var reports []media.PacketReport
		for i := range 200 {
			at := time.Hour + time.Duration(i)*10*time.Millisecond
			r := media.PacketReport{Sent: at, Arrival: at + 20*time.Millisecond, Size: size, Received: true}
			if i >= 100 {
				r.Arrival += wait
			}
			reports = append(reports, r)
		}
		v.est.Feedback(time.Hour+3*time.Second, reports, 40*time.Millisecond)
		v.numbering.now = time.Hour + 3*time.Second
		v.numbering.stamp(nil, 5*size)
		v.numbering.sent[0].fate = arrived
		for range outstanding {
			v.numbering.stamp(nil, size)
		}
		tr := &track{viewer: v, kind: media.Video}
		v.trip.heard(40*time.Millisecond, v.numbering.now)
		tr.pace.most = 500_000
		tr.history.next = 1000
		for i := range wanted {
			tr.wanted = append(tr.wanted, uint16(900+i))
		}
		return tr
	}
	for _, c := range []struct {
		about               string
		wait                time.Duration
		outstanding, wanted int
		want                bool
	}{
		{"nothing is asked for", 200 * time.Millisecond, 100, 0, false},
		{"few are lost on a link with an empty queue", 0, 100, 2, false},
		{"what is on its way fits into the queue", 200 * time.Millisecond, 12, 2, false},
		{"three times as much as the queue holds is on its way", 200 * time.Millisecond, 36, 2, true},
		{"much was asked for already", 0, 0, 30, true},
	} {
		tr := track(c.wait, c.outstanding, c.wanted)
		if got := tr.viewer.numbering.outstanding(); got != c.outstanding*size {
			t.Errorf("%s: %d bytes are on their way, want %d", c.about, got, c.outstanding*size)
		}
		if got := tr.hopeless(); got != c.want {
			t.Errorf("%s: hopeless is %t; queue %v", c.about, got, tr.viewer.est.Estimate().Queue)
		}
	}
}
