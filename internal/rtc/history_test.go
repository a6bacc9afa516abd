package rtc

import (
	"testing"
	"time"

	"gateway/internal/media"
)

func TestHistoryFindsWhatWasSentLately(t *testing.T) {
	h := history{next: 65000} // the 16 bits wrap on the way
	want := map[uint16]uint64{}
	index := uint64(100)
	var order []uint16
	for i := range 6000 {
		if i%500 == 499 {
			index += 7 // fell behind
		}
		seq := uint16(h.add(nil, index, 0))
		want[seq] = index
		order = append(order, seq)
		index++
	}
	for i, seq := range order {
		_, got, ok := h.find(seq)
		if lately := len(order)-i <= historyPackets; ok != lately || ok && got != want[seq] {
			t.Fatalf("packet %d of %d: %d, %v; want %d, %v", i, len(order), got, ok, want[seq], lately)
		}
	}
	if _, _, ok := h.find(uint16(h.next)); ok {
		t.Error("a packet that was not sent is found")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range uint64(10000) {
		h.add(nil, i*2, 0)
	}
	if len(h.segments) > historySegments || cap(h.segments) > 2*historySegments {
		t.Errorf("%d segments are kept", len(h.segments))
	}
	if _, i, ok := h.find(uint16(h.next - 1)); !ok || i != 19998 {
		t.Errorf("last packet is %d, %v", i, ok)
	}
	if _, _, ok := h.find(uint16(h.next - historySegments - 1)); ok {
		t.Error("a packet whose segment is gone is found")
	}
}

func TestRetransmissionsAreLimited(t *testing.T) {
	e := newEngine(t, Options{})
	v, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	src := newSource()
	src.push(true, 100)
	w := &recorder{}
	tr := playing(v, videoTrack, src, format{pt: 102, rtx: 103, delayID: 1}, w)
	for _, p := range src.packets {
		if err := tr.write(p); err != nil {
			t.Fatal(err)
		}
	}
	var scratch []byte
	now := media.Now()
	first := w.headers[0].SequenceNumber
	if ok, err := tr.resend(first, now, &scratch); !ok || err != nil {
		t.Fatalf("first request: %v, %v", ok, err)
	}
	sent := w.headers[len(w.headers)-1]
	if sent.SSRC != 8 || sent.PayloadType != 103 || sent.Timestamp != w.headers[0].Timestamp {
		t.Errorf("RTX header %+v", sent)
	}
	if got := w.payloads[len(w.payloads)-1]; got[:2] != string([]byte{byte(first >> 8), byte(first)}) || got[2:] != w.payloads[0] {
		t.Error("RTX payload is not the original's number and payload")
	}
	if ok, _ := tr.resend(first, now+time.Millisecond, &scratch); ok {
		t.Error("a second request within the round trip was answered")
	}
	if ok, _ := tr.resend(first, now+defaultRTT, &scratch); !ok {
		t.Error("a request after the round trip was not answered")
	}
	again := 2
	for i := range uint16(100) {
		if ok, _ := tr.resend(first+i, now+time.Second, &scratch); ok {
			again++
		}
	}
	// 100 packets of 1000 bytes were sent: a fourth, and what there is to begin with
	if limit := (rtxStart + 100*1000/rtxShare) / 1000; again > limit || again < limit-1 {
		t.Errorf("%d packets were sent again, the limit is %d", again, limit)
	}
}

func TestSamePacketAgainIsTheSameBytes(t *testing.T) {
	e := newEngine(t, Options{})
	v, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	src := newSource()
	src.push(true, 3)
	w := &recorder{}
	tr := playing(v, videoTrack, src, format{pt: 102, delayID: 1}, w)
	for _, p := range src.packets {
		if err := tr.write(p); err != nil {
			t.Fatal(err)
		}
	}
	// Under whatever headers the track goes on: what was sent is repeated as it was.
	other := []format{{codec: media.H264, pt: 104, fmtp: h264Fmtp}}
	tr.agree(other, other)
	var scratch []byte
	for i := range 3 {
		if ok, err := tr.resend(w.headers[i].SequenceNumber, media.Now(), &scratch); !ok || err != nil {
			t.Fatal(ok, err)
		}
		a, errA := w.headers[i].Marshal()
		b, errB := w.headers[3+i].Marshal()
		if errA != nil || errB != nil || string(a) != string(b) || w.payloads[i] != w.payloads[3+i] {
			t.Errorf("packet %d again is %x, was %x", i, b, a)
		}
	}
	src.push(false, 1)
	if err := tr.write(src.packets[3]); err != nil {
		t.Fatal(err)
	}
	if h := w.headers[6]; h.PayloadType != 104 || h.SequenceNumber != w.headers[2].SequenceNumber+1 {
		t.Errorf("after the change: %+v", h)
	}
}

// After 65,536 packets, some minutes, sequence numbers come again.
func TestTriesOfAPacketAreNotThoseOfOneLongAgo(t *testing.T) {
	src, w := newSource(), &recorder{}
	src.push(true, 2)
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, src, format{pt: 102, rtx: 103}, w)
	var scratch []byte
	now := media.Now()
	ask := func(seq uint16) (answered int) {
		for range 2 * rtxTries {
			now += time.Second
			tr.tokens = rtxBurst
			ok, err := tr.resend(seq, now, &scratch)
			if err != nil {
				t.Fatal(err)
			}
			answered += boolInt(ok)
		}
		return answered
	}
	for i, p := range src.packets {
		seq := uint16(tr.history.next)
		if err := tr.write(p); err != nil {
			t.Fatal(err)
		}
		if n := ask(seq); n != rtxTries {
			t.Errorf("packet %d was sent again %d times, want %d", i, n, rtxTries)
		}
		tr.history.next += 1<<16 - 1
	}
}
