package rtc

import (
	"testing"
	"time"

	"gateway/internal/adapt"
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
