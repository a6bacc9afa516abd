package rtc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/webrtc/v4"
)

// A handshake that fails, or doesn't end, is a reason to try it with full ICE, in an
// offer by whose certificate the peer knows that it is another one.
func TestLiteHandshakeThatFailsNeedsFullICE(t *testing.T) {
	for name, c := range map[string]struct {
		settings func(*webrtc.SettingEngine)
		within   time.Duration
		drop     func(b []byte, toPeer bool) bool
	}{
		"no profile in common": {
			settings: func(s *webrtc.SettingEngine) {
				quick(s)
				s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_256_GCM)
			},
			within: shakenWithin,
		},
		"the gateway's flights are lost": {
			settings: quick,
			within:   300 * time.Millisecond,
			drop:     func(b []byte, toPeer bool) bool { return toPeer && b[0] >= recordChangeCipher && b[0] < 64 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := liteEngine(t)
			e.sockets.peers.shaking = c.within
			s, n := newSession(t, e, peerOptions{settings: c.settings}, videoTrack, newSource()), newNAT(t, e)
			n.filter(c.drop)
			s.exchange(t, n, false)
			receive(t, s.Done(), "the end")
			if !errors.Is(s.Err(), ErrNeedsFullICE) {
				t.Errorf("ended by %v", s.Err())
			}
			full, err := e.NewViewer(ViewerOptions{FullICE: true, Succeeds: s.Viewer})
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			if err := full.AddTrack("video", videoTrack, "desk", newSource()); err != nil {
				t.Fatal(err)
			}
			offer, err := full.Offer(context.Background(), false)
			if err != nil {
				t.Fatal(err)
			}
			if attribute(t, offer, "a=fingerprint:") == e.certificate.fingerprint {
				t.Error("the next offer has the same certificate")
			}
		})
	}
}
