package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// blow is a fault of the storm. It heals what it has done.
type blow struct {
	name string
	fall func(ctx context.Context, b *bench) error
}

var blows = []blow{
	{name: "kill -9", fall: func(_ context.Context, b *bench) error { return b.signalOne(sigKill) }},
	{name: "kill -SEGV", fall: func(_ context.Context, b *bench) error { return b.signalOne(sigSegv) }},
	{name: "SIGSTOP", fall: func(_ context.Context, b *bench) error { return b.signalOne(sigStop) }},
	{name: "hang in a state change", fall: spell((*bench).hang, (*bench).unhang)},
	{name: "silent source", fall: spell((*bench).stopMixer, (*bench).continueMixer)},
	{name: "frozen picture", fall: spell((*bench).freezeScreen, (*bench).paintScreen)},
	{name: "black picture", fall: spell((*bench).blackenScreen, (*bench).paintScreen)},
	{name: "X server stopped", fall: spell((*bench).stopScreen, (*bench).continueScreen)},
	{name: "X server killed", fall: func(ctx context.Context, b *bench) error {
		if err := b.killScreen(ctx); err != nil {
			return err
		}
		return b.sameScreen(ctx)
	}},
	{name: "RTSP server killed", fall: func(ctx context.Context, b *bench) error {
		if err := b.killCamera(ctx); err != nil {
			return err
		}
		return b.startCamera(ctx)
	}},
}

// spell is a blow that lasts longer than the watchdogs wait.
func spell(strike, heal func(*bench, context.Context) error) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		if err := strike(b, ctx); err != nil {
			return err
		}
		return errors.Join(pass(ctx, 4*time.Second), heal(b, ctx))
	}
}

// signalOne sends a signal to the process of any pipeline that runs, if there is one just now.
func (b *bench) signalOne(sig syscall.Signal) error {
	pids := b.workers("")
	if len(pids) == 0 {
		return nil
	}
	if err := syscall.Kill(pids[rand.IntN(len(pids))], sig); err != nil && err != syscall.ESRCH {
		return err
	}
	return nil
}

// sameScreen starts the X server again as it was, and those that show it to others and
// may have ended with it.
func (b *bench) sameScreen(ctx context.Context) (err error) {
	if b.screen, err = startScreen(ctx, b.screen.Display, width, height); err != nil {
		return err
	}
	if err := b.killCamera(ctx); err != nil {
		return err
	}
	b.mixer.Close() // an error says how it ended
	return errors.Join(b.startCamera(ctx), b.startMixer())
}

// left is what a gateway without viewers has in use, by itself. The process that answers its questions may
// come and go; workers are those of pipelines.
type left struct{ goroutines, files, buffers, workers, megabytes int }

func (b *bench) left(ctx context.Context) (left, error) {
	m, err := b.gateway.Metrics(ctx)
	if err != nil {
		return left{}, err
	}
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(b.gateway.Pid()), "fd"))
	if err != nil {
		return left{}, err
	}
	return left{int(m["go_goroutines"]), len(files), int(m["gateway_buffers"]), len(b.workers("")), int(m["process_resident_memory_bytes"]) >> 20}, nil
}

// settle waits until nothing runs any more, and with a baseline until all is as it was.
func (b *bench) settle(ctx context.Context, t *testing.T, baseline *left) left {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*patient)
	defer cancel()
	for _, name := range stormy {
		rig.Check(t, b.gateway.WaitState(ctx, name, "idle"))
	}
	if baseline == nil {
		rig.Check(t, pass(ctx, 5*time.Second)) // what closes in the background
	}
	var now left
	samples := 0
	err := rig.Until(ctx, "the gateway to be quiet", func() (bool, error) {
		u, err := b.left(ctx)
		if err != nil {
			return false, err
		}
		if baseline != nil {
			now = u
			return u.goroutines <= baseline.goroutines && u.files <= baseline.files && u.buffers <= baseline.buffers && u.workers == 0, nil
		}
		now = left{max(now.goroutines, u.goroutines), max(now.files, u.files), max(now.buffers, u.buffers), u.workers, max(now.megabytes, u.megabytes)}
		samples++
		return samples >= 20 && u.workers == 0, nil // being asked takes a file and a goroutine at times
	})
	if err != nil && baseline == nil {
		t.Fatal(err)
	}
	return now
}

// stormy are the streams that are watched in the storm; those that go wrong by themselves come first.
var stormy = []string{"errs", "brittle", "leaks", "hangs", "mixer", "rtsp", "still"}

const (
	byThemselves = 3               // of stormy
	span         = 2 * time.Second // over which frames are counted
	few          = 10              // frames in that time: more than placeholders are
)

// watcher is a viewer of one of them.
type watcher struct {
	*viewer.Viewer
	stream string
}

// watchAll has ten viewers watch them.
func (b *bench) watchAll(ctx context.Context, t *testing.T) (all []watcher) {
	t.Helper()
	for i := range 10 {
		name := stormy[i%len(stormy)]
		v, err := viewer.Watch(ctx, viewer.Options{URL: b.gateway.URL("/whep/" + name), Codecs: []media.Codec{media.H264}})
		rig.Check(t, err)
		rig.Check(t, v.WaitKeyframe(ctx))
		all = append(all, watcher{v, name})
	}
	return all
}

// plays waits until the viewer has got so many frames within span, all of a source that is live, and
// returns how many these were.
func (b *bench) plays(ctx context.Context, w watcher, least int) (frames int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	type count struct {
		at     time.Time
		frames int
	}
	var counts []count
	err = rig.Until(ctx, fmt.Sprintf("%d live frames in %v", least, span), func() (bool, error) {
		s, err := b.gateway.Stream(ctx, w.stream)
		if err != nil || s.State != "live" || s.Placeholder {
			counts = nil
			return false, err
		}
		now := count{time.Now(), w.Seen().Frames}
		counts = append(counts, now)
		for len(counts) > 1 && now.at.Sub(counts[1].at) >= span {
			counts = counts[1:]
		}
		frames = now.frames - counts[0].frames
		return now.at.Sub(counts[0].at) >= span && frames >= least, nil
	})
	if err != nil {
		err = fmt.Errorf("%w (last %d)", err, frames)
	}
	return frames, err
}

// TestStorm lets faults come in any order, five a minute, under ten viewers. Each stays on the
// connection that it has and is sent live frames again, half as many as before the storm at least. What the
// gateway has in use is afterwards what it was.
func TestStorm(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), *storm+12*time.Minute)
	defer cancel()
	b := newBench(ctx, t)
	for _, v := range b.watchAll(ctx, t) { // what is made once is made before the baseline
		rig.Check(t, v.Close())
	}
	baseline := b.settle(ctx, t, nil)
	t.Logf("before: %+v", baseline)

	viewers := b.watchAll(ctx, t)
	before, connected := make([]int, len(viewers)), make([]time.Time, len(viewers))
	for i, w := range viewers {
		var err error
		before[i], err = b.plays(ctx, w, few)
		rig.Check(t, err)
		connected[i] = w.Seen().Connected
	}
	end := time.Now().Add(*storm)
	struck := make(map[string]int)
	n := 0
	for order := rand.Perm(len(blows)); time.Now().Before(end); n++ {
		next := time.Now().Add(12 * time.Second)
		if n%len(blows) == 0 {
			order = rand.Perm(len(blows))
		}
		blow := blows[order[n%len(blows)]]
		struck[blow.name]++
		if err := blow.fall(ctx, b); err != nil {
			t.Fatalf("%s: %v", blow.name, err)
		}
		rig.Check(t, pass(ctx, max(0, time.Until(next))))
	}
	t.Logf("%d faults in %v: %v", n, *storm, struck)
	for i, w := range viewers {
		after, err := b.plays(ctx, w, max(few, before[i]/2))
		if err != nil {
			t.Errorf("viewer %d of %s, %d frames in %v before the storm: %v", i, w.stream, before[i], span, err)
		}
		t.Logf("viewer %d of %s: %d frames in %v, before the storm %d", i, w.stream, after, span, before[i])
		if !w.Seen().Connected.Equal(connected[i]) { // a Viewer has one connection and makes no other
			t.Errorf("viewer %d of %s: the connection was interrupted", i, w.stream)
		}
	}
	restarts := ""
	for i, name := range stormy {
		s, err := b.gateway.Stream(ctx, name)
		rig.Check(t, err)
		restarts += fmt.Sprintf(" %s %d", name, s.Restarts)
		if i < byThemselves && s.Restarts == 0 {
			t.Errorf("%s was never started again: nothing went wrong there", name)
		}
	}
	t.Logf("restarts:%s", restarts)
	for _, v := range viewers {
		rig.Check(t, v.Close())
	}
	after := b.settle(ctx, t, &baseline)
	t.Logf("after:  %+v", after)
	if after.goroutines > baseline.goroutines || after.files > baseline.files || after.buffers > baseline.buffers || after.workers > 0 {
		t.Errorf("left of the storm: %+v, before it %+v", after, baseline)
	}
	if after.megabytes > baseline.megabytes+64 { // of Go's heap, which it gives back in its own time
		t.Errorf("%d MB in use, %d before", after.megabytes, baseline.megabytes)
	}
}
