package faults

import (
	"context"
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
	{name: "X server killed", fall: func(ctx context.Context, b *bench) error {
		if err := b.killScreen(ctx); err != nil {
			return err
		}
		return b.sameScreen(ctx)
	}},
	{name: "X server stopped", fall: func(ctx context.Context, b *bench) error {
		defer b.continueScreen(ctx)
		if err := b.stopScreen(ctx); err != nil {
			return err
		}
		return pass(ctx, 4*time.Second)
	}},
	{name: "RTSP server killed", fall: func(ctx context.Context, b *bench) error {
		if err := b.killCamera(ctx); err != nil {
			return err
		}
		return b.startCamera(ctx)
	}},
}

// signalOne sends a signal to the process of any pipeline that runs, if there is one just now.
func (b *bench) signalOne(sig syscall.Signal) error {
	pids := b.workers()
	if len(pids) == 0 {
		return nil
	}
	if err := syscall.Kill(pids[rand.IntN(len(pids))], sig); err != nil && err != syscall.ESRCH {
		return err
	}
	return nil
}

// sameScreen starts the X server again as it was, and the RTSP server, which shows it and
// may have ended with it.
func (b *bench) sameScreen(ctx context.Context) (err error) {
	if b.screen, err = startScreen(ctx, b.screen.Display, width, height); err != nil {
		return err
	}
	if err := b.killCamera(ctx); err != nil {
		return err
	}
	return b.startCamera(ctx)
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
	return left{int(m["go_goroutines"]), len(files), int(m["gateway_buffers"]), len(b.workers()), int(m["process_resident_memory_bytes"]) >> 20}, nil
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

// stormy are the streams that are watched in the storm, one of which errs by itself.
var stormy = []string{"desk", "rtsp", "errs"}

// watchAll has ten viewers watch them.
func (b *bench) watchAll(ctx context.Context, t *testing.T) (all []*viewer.Viewer) {
	t.Helper()
	for i := range 10 {
		v, err := viewer.Watch(ctx, viewer.Options{URL: b.gateway.URL("/whep/" + stormy[i%len(stormy)]), Codecs: []media.Codec{media.H264}})
		rig.Check(t, err)
		rig.Check(t, v.WaitKeyframe(ctx))
		all = append(all, v)
	}
	return all
}

// TestStorm lets faults come in any order, five a minute, under ten viewers. Each stays on the
// connection that it has, and what the gateway has in use is afterwards what it was.
func TestStorm(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), *storm+10*time.Minute)
	defer cancel()
	b := newBench(ctx, t)
	for _, v := range b.watchAll(ctx, t) { // what is made once is made before the baseline
		rig.Check(t, v.Close())
	}
	baseline := b.settle(ctx, t, nil)
	t.Logf("before: %+v", baseline)

	viewers := b.watchAll(ctx, t)
	end := time.Now().Add(*storm)
	struck := make(map[string]int)
	n := 0
	for ; time.Now().Before(end); n++ {
		next := time.Now().Add(12 * time.Second)
		blow := blows[rand.IntN(len(blows))]
		struck[blow.name]++
		if err := blow.fall(ctx, b); err != nil {
			t.Fatalf("%s: %v", blow.name, err)
		}
		rig.Check(t, pass(ctx, max(0, time.Until(next))))
	}
	t.Logf("%d faults in %v: %v", n, *storm, struck)
	for i, v := range viewers {
		before := v.Seen()
		waiting, cancel := context.WithTimeout(ctx, patient)
		err := rig.Until(waiting, "frames after the storm", func() (bool, error) { return v.Seen().Keyframes > before.Keyframes, nil })
		cancel()
		if err != nil {
			t.Errorf("viewer %d of %s: %v", i, stormy[i%len(stormy)], err)
		}
	}
	restarts := ""
	for _, name := range stormy {
		s, err := b.gateway.Stream(ctx, name)
		rig.Check(t, err)
		restarts += fmt.Sprintf(" %s %d", name, s.Restarts)
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
