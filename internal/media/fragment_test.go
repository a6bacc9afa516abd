package media

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/pion/rtp/codecs"
)

// nal is a NAL unit of a type and size without start codes in it.
func nal(r *rand.Rand, kind byte, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	b[0] = 0x60 | kind
	return b
}

func annexB(nals ...[]byte) (unit []byte) {
	for i, n := range nals {
		if i%2 == 0 {
			unit = append(unit, 0)
		}
		unit = append(append(unit, 0, 0, 1), n...)
	}
	return unit
}

// messages cuts a buffer's packets into runs of UDP_SEGMENT, padded.
func messages(b *Buffer) (runs, padding int) {
	run := 0
	for i := range b.Len() {
		pad := Packet{Buffer: b, I: i}.Padding()
		n := len(b.Payload(i)) + pad
		padding += pad
		if run == 0 || n > run {
			runs++
			run = n
		} else if n < run {
			run = 0
		}
	}
	return runs, padding
}

// TestH264PacketsAreWhatWentIn takes the packets apart as pion does.
func TestH264PacketsAreWhatWentIn(t *testing.T) {
	const most = 1188
	r := rand.New(rand.NewPCG(1, 2))
	var h H264Packets
	for range 500 {
		var nals [][]byte
		if r.IntN(10) == 0 {
			nals = append(nals, nal(r, 7, 20), nal(r, 8, 4))
		}
		for range 1 + r.IntN(6) {
			nals = append(nals, nal(r, 5, 2+r.IntN(1<<(2+r.IntN(13)))))
		}
		b := NewBuffer(0)
		if !h.Append(b, annexB(append([][]byte{{9, 0xf0}}, append(nals, nal(r, 12, 30))...)...), most, r.IntN(2) == 0) {
			t.Fatal("no packets")
		}
		var d codecs.H264Packet
		var got []byte
		for i := range b.Len() {
			if n := len(b.Payload(i)) + (Packet{Buffer: b, I: i}).Padding(); n > most {
				t.Fatalf("a packet of %d bytes", n)
			}
			p, err := d.Unmarshal(b.Payload(i))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p...)
		}
		var want []byte
		for _, n := range nals {
			want = append(append(want, 0, 0, 0, 1), n...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d NAL units came out as other bytes", len(nals))
		}
		b.Release()
	}
}

// TestSlicesGoOutInOneMessage has frames as x264 makes them in two and four threads.
func TestSlicesGoOutInOneMessage(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		sizes         []int
		packets, runs int // at most
	}{
		{[]int{5426, 11138}, 16, 1},              // even slices
		{[]int{957, 9946}, 12, 1},                // the first is one packet that is padded
		{[]int{1343, 8649}, 15, 1},               // two
		{[]int{1724, 8963}, 14, 1},               //
		{[]int{194, 900}, 1, 1},                  // they fit together
		{[]int{194, 9000}, 9, 2},                 // it isn't worth it
		{[]int{952, 991, 966, 11259}, 15, 1},     // four threads
		{[]int{1600, 1500, 1700, 1650}, 8, 2},    //
		{[]int{20, 8, 5426, 11138}, 17, 2},       // a keyframe's parameter sets are a packet, and a message
		{[]int{30000, 9000}, 34, 3},              // large ones are paced anyway
		{[]int{11138}, 10, 1},                    // one slice
		{[]int{1188, 1188, 1188, 500}, 4, 1},     // slices made for packets
		{make20(1150), 20, 20},                   // many are left alone
		{[]int{700, 690, 710, 650, 9000}, 17, 1}, //
	} {
		var nals [][]byte
		sum := 0
		for _, n := range c.sizes {
			nals = append(nals, nal(r, 1, n))
			sum += n
		}
		b := NewBuffer(sum)
		new(H264Packets).Append(b, annexB(nals...), 1188, true)
		runs, padding := messages(b)
		var sizes []int
		for i := range b.Len() {
			sizes = append(sizes, len(b.Payload(i)))
		}
		t.Logf("%v: %v, %d messages, %d bytes of padding", c.sizes, sizes, runs, padding)
		if runs > c.runs || b.Len() > c.packets {
			t.Errorf("%v: %d packets in %d messages, want %d in %d", c.sizes, b.Len(), runs, c.packets, c.runs)
		}
		least := (sum + 1187) / 1188
		if extra := (b.Len()-least)*packetOverhead + padding; extra > sum/maxLevel+len(c.sizes)*packetOverhead {
			t.Errorf("%v: %d bytes more than need be", c.sizes, extra)
		}
		b.Release()

		// where bytes are dearer, each slice takes as few packets as it can
		b, least = NewBuffer(sum), 0
		new(H264Packets).Append(b, annexB(nals...), 1188, false)
		for _, n := range c.sizes {
			least += (n + 1185) / 1186
		}
		if _, padding := messages(b); b.Len() > least || padding > 0 {
			t.Errorf("%v: %d packets, %d at most, and %d bytes of padding", c.sizes, b.Len(), least, padding)
		}
		b.Release()
	}
}

func make20(n int) (sizes []int) {
	for range 20 {
		sizes = append(sizes, n)
	}
	return sizes
}

func FuzzH264Packets(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x67abc\x00\x00\x01\x68d\x00\x00\x01\x65efghij"), 1188)
	f.Add([]byte{0, 0, 1}, 3)
	f.Add(bytes.Repeat([]byte{0, 0, 1, 0x65}, 30), 10)
	f.Fuzz(func(t *testing.T, unit []byte, most int) {
		most = min(max(most, 10), 1188)
		b := NewBuffer(len(unit))
		defer b.Release()
		var h H264Packets
		if h.Append(b, unit, most, true) != (b.Len() > 0) {
			t.Error("it isn't said whether there are packets")
		}
		for i := range b.Len() {
			if n := len(b.Payload(i)) + (Packet{Buffer: b, I: i}).Padding(); n > most {
				t.Errorf("a packet of %d bytes, %d at most", n, most)
			}
		}
	})
}

func BenchmarkH264Packets(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	unit := annexB(nal(r, 1, 1343), nal(r, 1, 8649))
	var h H264Packets
	b.ReportAllocs()
	for b.Loop() {
		buf := NewBuffer(len(unit))
		h.Append(buf, unit, 1188, true)
		buf.Release()
	}
}
