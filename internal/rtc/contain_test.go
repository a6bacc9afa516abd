package rtc

import (
	"errors"
	"testing"

	"github.com/pion/webrtc/v4"

	"gateway/internal/contain"
	"gateway/internal/media"
)

// A panic in what serves one viewer ends that viewer, on whatever goroutine it comes.
func TestPanicEndsItsViewerAndNoOther(t *testing.T) {
	for _, test := range []struct {
		name   string
		lite   bool
		inject func(t *testing.T, s *session)
	}{
		{"sending", false, func(_ *testing.T, s *session) { s.o.OnSwitch = func(string, media.Track) { panic("injected") } }},
		{"sending over lite", true, func(_ *testing.T, s *session) { s.o.OnSwitch = func(string, media.Track) { panic("injected") } }},
		{"a change of state", false, func(_ *testing.T, s *session) {
			s.o.OnState = func(st State) {
				if s.states <- st; st == StateConnected {
					panic("injected")
				}
			}
		}},
		{"data", false, func(t *testing.T, s *session) {
			s.peer.pc.OnDataChannel(func(c *webrtc.DataChannel) {
				c.OnOpen(func() { c.SendText("boo") })
			})
			if err := s.OpenData(func(Data) { panic("injected") }); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			overLite = test.lite
			defer func() { overLite = false }()
			e := newEngine(t, Options{})
			src, other := newSource(), newSource()
			stays := newSession(t, e, peerOptions{}, videoTrack, other)
			stays.connect(t)
			other.run(t, 60, 4)
			stays.peer.next(t)

			e.mu.Lock()
			for _, s := range e.shards {
				s.load = boolInt(s != stays.shard) // one goroutine sends to both
			}
			e.mu.Unlock()
			ends := newSession(t, e, peerOptions{}, videoTrack, src)
			test.inject(t, ends)
			ends.connect(t)
			src.run(t, 60, 4)
			receive(t, ends.Done(), "the viewer's end")
			var broken *contain.Error
			if !errors.As(ends.Err(), &broken) || broken.Value != "injected" {
				t.Errorf("it ended by %v", ends.Err())
			}
			for range 100 {
				stays.peer.next(t)
			}
			if err := stays.Err(); err != nil {
				t.Errorf("the other viewer ended by %v", err)
			}
		})
	}
}
