package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// pair is two ends of a socket, as the gateway and a child have them.
func pair(t *testing.T) (s *sender, other *net.UnixConn) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = newSender(ours); err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.close(0)
		if n := media.LiveBuffers(); n != 0 {
			t.Errorf("%d buffers weren't released", n)
		}
	})
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return s, c.(*net.UnixConn)
}

func packets(n, size int) *media.Buffer {
	b := media.NewBuffer(n * size)
	for i := range n {
		b.Append(bytes.Repeat([]byte{byte(i + 1)}, size-i))
	}
	return b
}

// TestWholeBufferCrossesTheWire fails when a buffer has something new that doesn't.
func TestWholeBufferCrossesTheWire(t *testing.T) {
	s, other := pair(t)
	b := packets(3, 100)
	fields := reflect.VisibleFields(reflect.TypeFor[media.Buffer]())
	for i, f := range fields {
		switch v := reflect.ValueOf(b).Elem().FieldByIndex(f.Index); {
		case !f.IsExported() || f.Name == "Placeholder": // the gateway's own
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.CanInt():
			v.SetInt(int64(1000 + i))
		default:
			t.Errorf("%s is a %v", f.Name, v.Type())
		}
	}
	b.Retain()
	defer b.Release()
	s.packets("7", b)
	_, got, _, err := newReceiver(other).next()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Release()
	for _, f := range fields {
		if f.IsExported() {
			want, is := reflect.ValueOf(b).Elem().FieldByIndex(f.Index), reflect.ValueOf(got).Elem().FieldByIndex(f.Index)
			if !is.Equal(want) {
				t.Errorf("%s: %v became %v", f.Name, want, is)
			}
		}
	}
}

func TestPacketsCrossTheWire(t *testing.T) {
	s, other := pair(t)
	b := packets(3, 100)
	b.Capture, b.Encoding, b.Encoded, b.Arrived = 1, 2, -3, 1<<60
	b.Start, b.Keyframe, b.Level = true, true, 100
	b.Retain()
	defer b.Release()
	s.packets("7", b)
	s.message(&message{Do: doDropped, ID: "7", Count: 3})
	last := media.NewBuffer(0)
	last.End, last.Gap = true, true
	s.packets("", last)

	r := newReceiver(other)
	id, got, _, err := r.next()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Release()
	if id != "7" || got.Len() != 3 || !bytes.Equal(got.Bytes(), b.Bytes()) || !bytes.Equal(got.Payload(1), b.Payload(1)) {
		t.Errorf("%q: %d packets of %d bytes", id, got.Len(), got.Size())
	}
	if got.Capture != 1 || got.Encoding != 2 || got.Encoded != -3 || got.Arrived != 1<<60 || !got.Start || got.End || !got.Keyframe || got.Gap || got.Level != 100 {
		t.Errorf("%+v", got)
	}
	if _, _, m, err := r.next(); err != nil || *m != (message{Do: doDropped, ID: "7", Count: 3}) {
		t.Error(m, err)
	}
	id, got, _, err = r.next()
	if err != nil || id != "" || got.Len() != 0 || got.Start || !got.End || !got.Gap {
		t.Fatal(id, got, err)
	}
	got.Release()
	s.close(time.Second)
	if _, _, _, err := r.next(); err != io.EOF {
		t.Error(err)
	}
}

// A feed and a branch arrive as they were.
func TestCommandsCrossTheWire(t *testing.T) {
	branch := config.Branch{
		Track:  media.Track{Name: "high", Kind: media.Video, Codec: media.H264, Fmtp: "a=b;c=d", Width: 1280, Height: 720, FPS: 30000. / 1001, Bps: 3, MinBps: 2, MaxBps: 4},
		Launch: `x264enc name=encoder caps="a, b=(string)c" ! <>&`, Encoder: "x264enc", Element: "encoder",
		Bitrate: config.BitrateProperty{Property: "bitrate", In: "x", Unit: 1000, Live: true}, Keyframe: config.KeyframeProperty{Property: "p", Value: "v"},
		Copy: true, Reduced: [config.Reductions]config.Reduced{{Launch: "l", Width: 2, Height: 4, FPS: 15}},
	}
	sent := &message{
		Do: doLaunch, N: 1 << 60, Within: time.Second, Level: -4, Branch: &branch, Track: &branch.Track, Error: &fault{Text: "t", Kind: "ended"},
		Feed: &config.Feed{Name: "video", Capture: "c", Sources: []string{"s"}, Devices: []string{"d"}, Whole: true, Loop: true, Once: true,
			Isolation: "process", Worker: &config.Worker{Memory: 1, Files: 2, Nice: -3, Scheduler: "rr", CPUs: "0"}, Branches: []config.Branch{branch}},
	}
	s, other := pair(t)
	if err := s.message(sent); err != nil {
		t.Fatal(err)
	}
	_, _, got, err := newReceiver(other).next()
	if err != nil || !reflect.DeepEqual(got, sent) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, sent)
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, err := range kinds {
		told := newFault(fmt.Errorf("track %q: %w", "high", err)).err()
		if !errors.Is(told, err) || told.Error() != fmt.Sprintf("track %q: %s", "high", err) {
			t.Errorf("%v is told as %v", err, told)
		}
	}
	if newFault(nil).err() != nil {
		t.Error("no error is told as one")
	}
	if err := newFault(io.ErrNoProgress).err(); errors.Unwrap(err) != nil {
		t.Error(err)
	}
}

// A gateway that doesn't read costs a child nothing but what is dropped, whose gap
// is told. What isn't packets arrives whole and in order.
func TestFullSocketDropsPackets(t *testing.T) {
	s, other := pair(t)
	const n = 2000
	for i := range n {
		s.packets("1", packets(10, 1000))
		if i%100 == 0 {
			if err := s.message(&message{Do: doDropped, Count: i}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.mu.Lock()
	if s.size > maxQueued+20_000 {
		t.Errorf("%d bytes are queued", s.size)
	}
	s.mu.Unlock()
	r := newReceiver(other)
	buffers := 0
	for told := 0; told < n; {
		_, b, m, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			if m.Count != told {
				t.Fatalf("message %d instead of %d", m.Count, told)
			}
			told += 100
			continue
		}
		if b.Gap || b.Len() != 10 || b.Payload(3)[996] != 4 {
			t.Fatalf("buffer %d: %d packets, gap: %t", buffers, b.Len(), b.Gap)
		}
		b.Release()
		buffers++
	}
	if buffers == n || buffers < maxQueued/10_000 {
		t.Errorf("%d of %d buffers came", buffers, n)
	}
	for _, gap := range []bool{true, false} {
		s.packets("1", packets(1, 10))
		_, b, _, err := r.next()
		if err != nil || b == nil || b.Len() != 1 || b.Gap != gap {
			t.Fatal(b, err, "want a gap:", gap)
		}
		b.Release()
	}
}

// Who sends is never kept waiting by an end that has gone.
func TestSenderBearsABrokenSocket(t *testing.T) {
	s, other := pair(t)
	other.Close()
	for range 3 {
		s.packets("1", packets(2, 1000))
	}
	if err := s.message(&message{Do: doClose}); err == nil {
		t.Error("nothing is wrong with a broken socket")
	}
}

// A worker may send anything: it must end in an error, and take no more memory than
// a message may have.
func FuzzReceiver(f *testing.F) {
	b := packets(2, 8)
	good := append(appendPackets(nil, "video", b), b.Bytes()...)
	text, err := (&message{Do: doFail, Error: &fault{Text: "x"}, Track: &media.Track{Kind: media.Video}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	b.Release()
	f.Add(good)
	f.Add(text)
	f.Add(append(text, good...))
	f.Add(good[:len(good)-1])
	f.Add([]byte{0, 255, 255, 255, 255})
	f.Add([]byte{1, 2, 0, 0, 0, '{', '}'})
	f.Add(append([]byte{0, 46, 0, 0, 0, 0, 0, 2, 0, 0, 0}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReceiver(bytes.NewReader(data))
		for {
			id, b, m, err := r.next()
			if err != nil {
				break
			}
			if (b == nil) == (m == nil) {
				t.Fatal("neither packets nor a message, or both")
			}
			if b == nil {
				continue
			}
			sum := 0
			for i := range b.Len() {
				sum += len(b.Payload(i))
			}
			if sum != b.Size() || len(id) > maxID {
				t.Fatalf("%d bytes, of %d", sum, b.Size())
			}
			b.Release()
		}
		if n := media.LiveBuffers(); n != 0 {
			t.Fatalf("%d buffers weren't released", n)
		}
	})
}
