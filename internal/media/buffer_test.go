package media

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBufferHoldsItsPackets(t *testing.T) {
	before := LiveBuffers()
	for _, size := range []int{0, 1, 2048, 2049, 5 << 20} {
		b := NewBuffer(size)
		b.Append([]byte("one"))
		room := b.Room(5000) // more than a small one has
		copy(room, "two")
		b.Commit(3)
		b.Append(nil)
		if b.Len() != 3 || b.Size() != 6 || !bytes.Equal(b.Payload(0), []byte("one")) || !bytes.Equal(b.Payload(1), []byte("two")) || len(b.Payload(2)) != 0 {
			t.Errorf("size %d: %d packets of %d bytes: %q %q", size, b.Len(), b.Size(), b.Payload(0), b.Payload(1))
		}
		if b.Marker(2) {
			t.Error("a marker although the frame goes on")
		}
		b.End = true
		if b.Marker(1) || !b.Marker(2) {
			t.Error("the marker isn't on the last packet")
		}
		b.Retain()
		b.Release()
		if !bytes.Equal(b.Payload(0), []byte("one")) {
			t.Error("released while it is held")
		}
		b.Release()
	}
	if now := LiveBuffers(); now != before {
		t.Errorf("%d buffers in use, %d before", now, before)
	}
}

func TestReleasedBufferIsNewAgain(t *testing.T) {
	b := NewBuffer(10)
	b.Append([]byte("x"))
	b.Capture, b.Start, b.End, b.Keyframe, b.Gap = 1, true, true, true, true
	b.Release()
	for range 100 { // the pool may hand it out again, or not
		b := NewBuffer(10)
		if b.Len() != 0 || b.Size() != 0 || b.Capture != 0 || b.Start || b.End || b.Keyframe || b.Gap {
			t.Fatalf("a new buffer holds %+v", b)
		}
		defer b.Release()
	}
}

func TestBufferReleasedTwicePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("nothing was said")
		}
	}()
	b := NewBuffer(10)
	b.Release()
	b.Release()
}

func TestRTPTimeIsExactForYears(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration
		rate uint32
		want uint32
	}{
		{0, 90000, 0},
		{time.Second, 90000, 90000},
		{time.Second / 30, 90000, 3000},
		{20 * time.Millisecond, 48000, 960},
		{1<<32*time.Second/90000 + time.Second, 90000, 90000}, // it wraps after 13 hours
	} {
		if got := RTPTime(c.at, c.rate); got != c.want && got+1 != c.want && got != c.want+1 {
			t.Errorf("RTPTime(%v, %d) = %d, want %d", c.at, c.rate, got, c.want)
		}
	}
	year := 365 * 24 * time.Hour
	if d := RTPTime(10*year+time.Second, 90000) - RTPTime(10*year, 90000); d != 90000 {
		t.Errorf("a second after ten years is %d", d)
	}
}

func TestClockIsTheKernels(t *testing.T) {
	for range 100 {
		var ts unix.Timespec
		before := Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		after := Now()
		const exact = 20 * time.Microsecond
		if at := time.Duration(ts.Nano()); at < before-exact || at > after+exact || after < before {
			t.Fatalf("%v, the kernel's %v, %v", before, at, after)
		}
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
