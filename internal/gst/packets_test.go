package gst

import (
	"testing"

	"gateway/internal/media"
)

// TestSlicesOfAFrameAreOneRun has x264 work in two threads, as the encoder table has it.
func TestSlicesOfAFrameAreOneRun(t *testing.T) {
	p, c := capture(t, feed("videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=1 ! video/x-raw,format=I420,width=640,height=480,framerate=30/1"))
	start(t, p, "high", branchOf("x264enc tune=zerolatency speed-preset=ultrafast threads=2 bitrate=2500 key-int-max=20 ! h264parse config-interval=-1"+
		" ! rtph264pay aggregate-mode=zero-latency mtu=1200", media.H264))
	frames, runs, packets, keyframes := 0, 0, 0, 0
	for b := range c.of("high") {
		if !b.Start || !b.End {
			t.Fatal("a buffer isn't a frame")
		}
		if b.Keyframe {
			keyframes++
			if media.H264SPS(b.Payload(0)) == nil {
				t.Error("a keyframe doesn't begin with its parameter sets")
			}
		}
		run := 0
		for i := range b.Len() {
			n := len(b.Payload(i)) + media.Packet{Buffer: b, I: i}.Padding()
			if run == 0 || n > run {
				runs++
				run = n
			} else if n < run {
				run = 0
			}
			packets++
		}
		b.Release()
		if frames++; frames == 60 {
			break
		}
	}
	t.Logf("%d frames, %d packets in %d runs", frames, packets, runs)
	if keyframes < 2 || packets < 3*frames {
		t.Errorf("%d keyframes, %d packets", keyframes, packets)
	}
	if runs > frames*3/2 {
		t.Errorf("%d runs of equal packets for %d frames", runs, frames)
	}
}
