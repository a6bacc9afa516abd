package rtc

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

func TestFramesTellWhenTheyWereSent(t *testing.T) {
	src, w := newSource(), &recorder{}
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, src, format{pt: 102, rtx: 103}, w)
	v := tr.viewer
	v.tracks = []*track{tr}
	v.Observe(true)
	src.pushAt(time.Second, true, 2)
	src.pushPart(2*time.Second, false, true, false, 2)
	src.pushPart(2*time.Second, false, false, true, 1)
	src.pushAt(3*time.Second, false, 1)
	src.packets[4].Buffer.Encoding, src.packets[4].Buffer.Encoded = 20*time.Second, 21*time.Second
	send := func(now time.Duration, packets ...media.Packet) {
		for _, p := range packets {
			if err := tr.write(p); err != nil {
				t.Fatal(err)
			}
		}
		tr.frames.flush(now)
	}
	send(30*time.Second, src.packets[:3]...)
	second := w.headers[2].Timestamp
	if _, ok := v.Frame(tr.slot, second); ok {
		t.Error("a frame is told of that isn't sent yet")
	}
	send(31*time.Second, src.packets[3])
	send(32*time.Second, src.packets[4:]...)

	first, ok := v.Frame(tr.slot, w.headers[0].Timestamp)
	want := FrameTimes{Capture: time.Second, Packetized: src.packets[0].Buffer.Arrived, First: 30 * time.Second, Sent: 30 * time.Second}
	if !ok || first != want {
		t.Errorf("the first frame: %v %+v, want %+v", ok, first, want)
	}
	got, ok := v.Frame(tr.slot, second)
	want = FrameTimes{
		Capture: 2 * time.Second, Encoding: 20 * time.Second, Encoded: 21 * time.Second, Packetized: src.packets[4].Buffer.Arrived,
		First: 30 * time.Second, Sent: 32 * time.Second,
	}
	if !ok || got != want {
		t.Errorf("the second frame: %v %+v, want %+v", ok, got, want)
	}
	if _, ok := v.Frame(tr.slot, second); ok {
		t.Error("a frame is told of twice")
	}
	if _, ok := v.Frame(tr.slot, second+1); ok {
		t.Error("a frame is told of that was never sent")
	}
	src.pushAt(4*time.Second, true, 1)
	stands := src.packets[len(src.packets)-1]
	stands.Buffer.Placeholder = true
	send(33*time.Second, stands)
	if _, ok := v.Frame(tr.slot, w.headers[6].Timestamp); ok {
		t.Error("a placeholder is taken for a frame of the source")
	}
	v.Observe(false)
	if _, ok := v.Frame(tr.slot, w.headers[5].Timestamp); ok || tr.frames != nil {
		t.Error("frames are remembered although nobody observes")
	}
}

func TestFramesAreForgottenInTurn(t *testing.T) {
	f := new(frames)
	b := media.NewBuffer(1)
	defer b.Release()
	b.Append([]byte{1})
	b.Capture, b.Start = 1, true
	for i := range uint32(3 * framesNoted) {
		b.End = i%7 != 0 // some are never ended
		f.note(media.Packet{Buffer: b, Start: true}, i)
		if i%5 == 0 {
			f.flush(time.Duration(i + 1))
		}
	}
	f.flush(time.Hour)
	for i := range uint32(3 * framesNoted) {
		if _, ok := f.take(i); ok != (i >= 2*framesNoted && i%7 != 0) {
			t.Errorf("frame %d: %v", i, ok)
		}
	}
}

// A pion peer takes the extension only if it is told to.
func TestKeyframesTellTheirCaptureTime(t *testing.T) {
	for _, takes := range []bool{true, false} {
		src := newSource()
		o := peerOptions{}
		if takes {
			o.media = func(m *webrtc.MediaEngine) error {
				if err := m.RegisterDefaultCodecs(); err != nil {
					return err
				}
				return m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: captureURI}, webrtc.RTPCodecTypeVideo)
			}
		}
		s := newSession(t, newEngine(t, Options{}), o, videoTrack, src)
		if offer := s.connect(t); !strings.Contains(offer, "a=extmap:3 "+captureURI+"\r\n") {
			t.Errorf("it isn't offered:\n%s", offer)
		}
		at := media.Now() - 100*time.Millisecond
		src.pushAt(at, true, 2)
		src.pushAt(at+40*time.Millisecond, false, 1)
		for i := range 3 {
			ext := s.peer.next(t).GetExtension(offeredCaptureID)
			if (ext != nil) != (takes && i == 1) {
				t.Errorf("taken: %v; packet %d has a capture time: %x", takes, i, ext)
			}
			if ext == nil {
				continue
			}
			captured := time.Now().Add(at - media.Now())
			if d := ntpWall(binary.BigEndian.Uint64(ext)).Sub(captured).Abs(); d > time.Second {
				t.Errorf("packet %d tells a capture time that is %v off", i, d)
			}
		}
	}
}

// No packet becomes larger than a full one for its capture time; a placeholder was
// captured by nobody.
func TestFullPacketAndPlaceholderTellNoCaptureTime(t *testing.T) {
	w := &recorder{}
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, newSource(), format{pt: 102, rtx: 103, delayID: 1, transportID: 2, captureID: 3}, w)
	for i, size := range []int{momentPayload, momentPayload + 1, momentPayload} {
		b := media.NewBuffer(size)
		b.Append(make([]byte, size))
		b.Start, b.End, b.Keyframe, b.Capture = true, true, true, media.Now()
		b.Placeholder = i == 2
		if err := tr.write(media.Packet{Buffer: b, Index: uint64(i), Start: true}); err != nil {
			t.Fatal(err)
		}
		if told := w.headers[i].GetExtension(3) != nil; told != (i == 0) {
			t.Errorf("payload of %d bytes: told %v", size, told)
		}
		b.Release()
	}
}
