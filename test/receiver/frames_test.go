package receiver

import (
	"testing"
	"time"

	"github.com/pion/rtp"
)

// packets of frames of three packets each, the first of which is a keyframe if its
// number is a multiple of ten.
func packets(from uint16, frames int) (list []*rtp.Packet) {
	for f := range frames {
		for i := range 3 {
			payload := []byte{0x61, 0}
			if f%10 == 0 && i == 0 {
				payload[0] = 0x67
			}
			list = append(list, &rtp.Packet{Header: rtp.Header{SequenceNumber: from, Timestamp: uint32(3000 * f), Marker: i == 2}, Payload: payload})
			from++
		}
	}
	return list
}

func TestFramesAcrossARolloverInAnyOrder(t *testing.T) {
	var a assembler
	list := packets(65530, 9)
	list[10], list[13] = list[13], list[10]
	var got []Frame
	for _, p := range list {
		a.add(p, time.Time{}, false)
		got = append(got, a.complete(time.Time{})...)
	}
	if len(got) != 9 {
		t.Fatalf("%d frames of 9", len(got))
	}
	for i, f := range got {
		if f.Timestamp != uint32(3000*i) || f.Keyframe != (i == 0) || f.Bytes != 6 {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
}

func TestFramesAfterAGapWaitForItOrAKeyframe(t *testing.T) {
	var a assembler
	var ask requester
	list := packets(100, 12)
	var got []uint32
	for i, p := range list {
		if i == 7 { // lost: of frame 2
			continue
		}
		seq, _ := a.add(p, time.Time{}, false)
		ask.arrived(seq, time.Time{})
		for _, f := range a.complete(time.Time{}) {
			got = append(got, f.Timestamp/3000)
		}
		if i == 20 && len(got) != 2 {
			t.Fatalf("frames %v while a packet is missing", got)
		}
	}
	if len(got) != 4 || got[2] != 10 {
		t.Errorf("frames %v, want 0 1 10 11", got)
	}
	a = assembler{}
	for i, p := range list[:15] {
		if i != 7 {
			a.add(p, time.Time{}, false)
			a.complete(time.Time{})
		}
	}
	a.add(list[7], time.Time{}, true)
	if n := len(a.complete(time.Time{})); n != 3 {
		t.Errorf("%d frames once the gap is filled, want 3", n)
	}
}

func TestRequesterAsksAgainAndGivesUp(t *testing.T) {
	var r requester
	now := time.Unix(0, 0)
	r.arrived(10, now)
	if ask := r.arrived(13, now); len(ask) != 2 {
		t.Fatalf("asked for %v", ask)
	}
	r.arrived(11, now)
	asked, lost := 0, false
	for range 100 {
		now = now.Add(retryTick)
		ask, gone := r.due(now)
		asked += len(ask)
		lost = lost || gone
	}
	if asked != maxRetries-1 || !lost {
		t.Errorf("asked %d times more, given up: %t", asked, lost)
	}
}
