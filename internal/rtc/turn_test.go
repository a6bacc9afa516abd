package rtc

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
)

// counter is a way to the peer that counts what is sent.
type counter struct{ bytes atomic.Int64 }

func (c *counter) WriteRTP(_ *rtp.Header, payload []byte) (int, error) {
	c.bytes.Add(int64(len(payload)))
	return len(payload), nil
}
func (c *counter) Write(b []byte) (int, error) { return len(b), nil }

// Two pictures that begin with a keyframe at once are together sent at what the network
// carries, and neither waits for all of the other.
func TestPicturesShareThePaceOfTheirTransport(t *testing.T) {
	const bps, frame = 2_000_000, 50 // packets of 1000 bytes
	v := newWHEP(t, newEngine(t, Options{}))
	s := newIdleShard(t)
	var ways [2]counter
	var tracks []*track
	for i := range ways {
		src := newMarked(byte(i))
		tr := playing(v, videoTrack, src, format{pt: 102, rtx: 103}, &ways[i])
		tracks = append(tracks, tr)
		src.push(true, frame)
	}
	v.sendMu.Lock()
	v.tracks = tracks
	v.est.want = 10_000_000
	v.est.REMB(media.Now(), bps)
	v.sendMu.Unlock()
	v.open.Store(true)
	defer func() {
		v.open.Store(false)
		v.sendMu.Lock()
		v.tracks = nil
		v.sendMu.Unlock()
	}()
	var half [2]int64
	begun := media.Now()
	tick := time.NewTicker(paceTick)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); ; {
		v.turn(s)
		s.switched = s.switched[:0]
		sent := ways[0].bytes.Load() + ways[1].bytes.Load()
		most := int64(bps)/8*int64(media.Now()-begun)/int64(time.Second) + 2*bps/8/50 // 20 ms of it go at once
		if sent > most {
			t.Fatalf("%d bytes were sent after %v, %d may be", sent, media.Now()-begun, most)
		}
		if sent < frame*1000 {
			half = [2]int64{ways[0].bytes.Load(), ways[1].bytes.Load()}
		}
		if sent == 2*frame*1000 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d bytes were sent", sent)
		}
	}
	if least := min(half[0], half[1]); least < frame*1000/4 {
		t.Errorf("half way they were at %d bytes", half)
	}
}

// Of several pictures that are past repair in one turn, each goes on at a new keyframe.
func TestEachHopelessPictureGoesOnAtAKeyframe(t *testing.T) {
	v, s := newWHEP(t, newEngine(t, Options{})), newIdleShard(t)
	var sources []*fakeSource
	var tracks []*track
	for i := range 3 {
		src := newMarked(byte(i))
		tr := playing(v, videoTrack, src, format{pt: 102, rtx: 103}, &counter{})
		tr.history.next = 1000
		for seq := range uint16(20) {
			tr.wanted = append(tr.wanted, 900+seq)
		}
		sources, tracks = append(sources, src), append(tracks, tr)
	}
	v.sendMu.Lock()
	v.tracks = tracks
	v.est.want = 10_000_000
	v.est.REMB(media.Now(), 200_000)
	v.sendMu.Unlock()
	v.open.Store(true)
	v.send(s)
	v.open.Store(false)
	for i, src := range sources {
		if n := src.keyframes.Load(); n != 1 {
			t.Errorf("picture %d: %d keyframes are asked for", i, n)
		}
	}
}
