package gateway

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/stream"
)

// audience is a viewer of a stream of real pipelines who reads all that comes.
type audience struct {
	sub    *stream.Subscription
	bytes  atomic.Int64 // of payload
	frames atomic.Int64
	jumps  atomic.Int64 // places where what came doesn't follow what came before, and is no keyframe
	stop   chan struct{}
	done   chan struct{}
}

func watch(t *testing.T, text string) (*stream.Stream, *audience) {
	t.Helper()
	conf, err := config.ParseStream("noise", "noise.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := stream.New(conf, newLauncher(&config.Gateway{Isolation: config.IsolationNone}, testMachine(t), log), log)
	t.Cleanup(func() { s.Close() })
	if _, err := s.Tracks(t.Context()); err != nil {
		t.Fatal(err)
	}
	sub, err := s.Subscribe(config.VideoTrack)
	if err != nil {
		t.Fatal(err)
	}
	a := &audience{sub: sub, stop: make(chan struct{}), done: make(chan struct{})}
	due := make(chan struct{}, 1)
	sub.Notify(func() {
		select {
		case due <- struct{}{}:
		default:
		}
	})
	go a.read(due)
	t.Cleanup(func() { close(a.stop); <-a.done; sub.Close() })
	return s, a
}

func (a *audience) read(due <-chan struct{}) {
	defer close(a.done)
	next := uint64(0)
	batch := make([]media.Packet, 0, 64)
	for {
		select {
		case <-a.stop:
			return
		case <-due:
		}
		for batch = a.sub.Next(batch[:0]); len(batch) > 0; batch = a.sub.Next(batch[:0]) {
			for _, p := range batch {
				if next != 0 && p.Index != next && !p.Buffer.Keyframe {
					a.jumps.Add(1)
				}
				next = p.Index + 1
				a.bytes.Add(int64(len(p.Payload())))
				if p.Start {
					a.frames.Add(1)
				}
				p.Release()
			}
		}
	}
}

// awaitTrack asks until a stream's first track is as a test wants it.
func awaitTrack(t *testing.T, s *stream.Stream, what string, within time.Duration, good func(stream.TrackInfo) bool) stream.TrackInfo {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		track := s.Info().Tracks[0]
		if good(track) {
			return track
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s; %+v %+v", what, track, track.Adaptation)
		}
	}
}

// awaitRate reads until a second's bytes came to no more than a bitrate.
func (a *audience) awaitRate(t *testing.T, bps int64) {
	t.Helper()
	var last int64
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		before, frames := a.bytes.Load(), a.frames.Load()
		time.Sleep(time.Second)
		if last = 8 * (a.bytes.Load() - before); last <= bps && a.frames.Load() > frames {
			return
		}
	}
	t.Fatalf("%d bit/s come, want %d at most", last, bps)
}

const noise = `source: videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=1 ! video/x-raw,width=640,height=360,framerate=30/1
linger: 0s
`

// A real encoder follows its viewer's network down, gives way to one of a smaller
// picture, and comes back, and the viewer loses no packet of it.
func TestEncoderAdaptsToItsViewersNetwork(t *testing.T) {
	for _, codec := range []string{"h264", "vp8"} {
		t.Run(codec, func(t *testing.T) {
			s, a := watch(t, noise+"video: {codec: "+codec+", width: 640, height: 360, framerate: 30, bitrate: {min: 400k, start: 900k, max: 1.2M}}\n")
			a.sub.Carry(1_000_000)
			awaitTrack(t, s, "a running encoder", 20*time.Second, func(x stream.TrackInfo) bool { return x.Running && x.Adaptation.Target == 940_000 })
			fmtp := a.sub.Track().Fmtp
			a.sub.Carry(450_000)
			a.awaitRate(t, 423_000*5/4)

			a.sub.Carry(120_000)
			small := awaitTrack(t, s, "a smaller picture", 20*time.Second, func(x stream.TrackInfo) bool { return x.Width == 320 && x.Height == 180 && x.FPS == 15 })
			if small.Adaptation.Level != 2 || small.Adaptation.Target != 112_800 || small.Adaptation.Reason == "" {
				t.Errorf("adapted: %+v", small.Adaptation)
			}
			a.awaitRate(t, 112_800*5/4)
			a.sub.Carry(2_000_000)
			awaitTrack(t, s, "the whole picture again", 90*time.Second, func(x stream.TrackInfo) bool { return x.Width == 640 && x.FPS == 30 && x.Running })
			before := a.frames.Load()
			for deadline := time.Now().Add(20 * time.Second); a.frames.Load() < before+10; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("no frames of it come")
				}
			}
			if n := a.jumps.Load(); n > 0 {
				t.Errorf("%d times what came didn't follow what came before", n)
			}
			if now := a.sub.Track().Fmtp; now != fmtp {
				t.Errorf("SDP would say %q, and said %q", now, fmtp)
			}
			if i := s.Info(); i.Restarts > 0 {
				t.Errorf("%d restarts: %s", i.Restarts, i.LastError)
			}
		})
	}
}

// Fifty viewers who lose packets all the time cost an encoder two keyframes a second.
func TestFiftyLossyViewersCauseTwoKeyframesASecond(t *testing.T) {
	s, a := watch(t, noise+"video: {codec: h264, width: 320, height: 180, framerate: 30, bitrate: 300k, keyframe_interval: 60s}\n")
	awaitTrack(t, s, "frames", 20*time.Second, func(x stream.TrackInfo) bool { return x.Running && a.frames.Load() > 0 })
	var subs []*stream.Subscription
	for range 50 {
		sub, err := s.Subscribe(config.VideoTrack)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		subs = append(subs, sub)
	}
	before, began := s.Counts()[config.VideoTrack].Keyframes, time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; time.Since(began) < 3*time.Second; i++ {
		<-tick.C
		subs[i%len(subs)].RequestKeyframe()
	}
	keyframes, most := s.Counts()[config.VideoTrack].Keyframes-before, uint64(2*time.Since(began).Seconds())+1
	if keyframes == 0 || keyframes > most {
		t.Errorf("%d keyframes, want 1 to %d", keyframes, most)
	}
}

// An encoder that is slower than the capture is given less until it keeps up.
func TestEncoderThatIsSlowerThanTheCaptureIsGivenLess(t *testing.T) {
	s, a := watch(t, `source: videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=1 ! video/x-raw,width=640,height=360,framerate=30/1
video: {encoder: x264enc, width: 640, height: 360, framerate: 30, bitrate: {min: 900k, start: 900k, max: 900k}, options: {speed-preset: placebo, threads: 1}}
`)
	track := awaitTrack(t, s, "less to encode", 60*time.Second, func(x stream.TrackInfo) bool { return x.Adaptation.Level > 0 && x.Running })
	if !strings.Contains(track.Adaptation.Reason, "too slow") || track.Dropped == 0 {
		t.Errorf("%+v %+v", track, track.Adaptation)
	}
	before := a.frames.Load()
	for deadline := time.Now().Add(20 * time.Second); a.frames.Load() < before+30; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("few frames come")
		}
	}
	t.Logf("%dx%d at %v after %d dropped frames: %+v", track.Width, track.Height, track.FPS, track.Dropped, track.Adaptation.Decisions)
}
