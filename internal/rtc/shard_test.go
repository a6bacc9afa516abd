package rtc

import (
	"errors"
	"slices"
	"testing"

	"github.com/pion/rtp"

	"gateway/internal/contain"
	"gateway/internal/media"
)

// breaking is a way to the peer that has put packets into the shard's batch, and panics.
type breaking struct {
	w *wire
	s *shard
	n int // packets until then
}

func (b *breaking) WriteRTP(_ *rtp.Header, payload []byte) (int, error) {
	b.s.out.add(b.w.out, b.w.to, payload)
	if b.n--; b.n == 0 {
		panic("injected")
	}
	return len(payload), nil
}
func (b *breaking) Write(p []byte) (int, error) { return len(p), nil }

// What a viewer leaves behind whose turn ends in a panic is nobody else's, and not lost.
func TestPanicLeavesNothingToTheNextViewer(t *testing.T) {
	e, s, w := newEngine(t, Options{}), newIdleShard(t), newWire(t, "127.0.0.1")
	begin := func(tr *track) {
		v := tr.viewer
		v.sendMu.Lock()
		v.tracks = []*track{tr}
		v.sendMu.Unlock()
		v.open.Store(true)
	}
	bad, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	old, src := newMarked('o'), newMarked('n')
	tr := playing(bad, videoTrack, old, format{pt: 102}, &breaking{w, s, 3})
	tr.next = (&encoding{spec: lowTrack, src: src}).in(tr.cur.format, tr.ssrc, 0)
	src.push(true, 5)
	begin(tr)
	s.serveOne(bad)
	receive(t, bad.Done(), "the viewer's end")
	var broken *contain.Error
	if !errors.As(bad.Err(), &broken) || broken.Value != "injected" {
		t.Fatalf("it ended by %v", bad.Err())
	}
	if !old.isClosed() || !src.isClosed() {
		t.Errorf("sources closed: %v, %v", old.isClosed(), src.isClosed())
	}
	buffer := src.packets[0].Buffer
	if buffer.Release(); buffer.Len() != 0 {
		t.Error("its packets are held for good")
	}
	if n := len(s.out.ends); n != 0 {
		t.Errorf("%d packets wait for the next viewer to be sent", n)
	}

	var told []string
	good, err := e.NewViewer(ViewerOptions{OnSwitch: func(slot string, spec media.Track) { told = append(told, slot+" "+spec.Name) }})
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	next, sent := newSource(), &recorder{}
	tr = playing(good, videoTrack, newSource(), format{pt: 102}, sent)
	tr.next = (&encoding{spec: audioTrack, src: next}).in(tr.cur.format, tr.ssrc, 0)
	next.push(true, 2)
	begin(tr)
	s.serveOne(good)
	good.open.Store(false)
	if !slices.Equal(told, []string{"video audio"}) || len(sent.headers) != 2 {
		t.Errorf("the next viewer is told of %v, and sent %d packets", told, len(sent.headers))
	}
}
