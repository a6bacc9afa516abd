// Package faults does to a gateway's sources, pipelines and processes what happens to
// them in the field, under a viewer's eyes, and tells what he saw: how long the picture stood still,
// how long it wasn't the live one, whether a placeholder filled the time, and that the
// connection stayed. The picture is the strip of package strip, so that a live
// frame is told from one that has frozen. It prints a table, and asserts that the
// connection was kept, that a source which stays away is stood in for, and that live, right
// pixels are back in time: the aim with -exact, else some times that, for machines that have other
// work.
package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/strip"
)

var (
	only  = flag.String("faults", "", "regular expression: those faults whose name matches")
	storm = flag.Duration("storm", 40*time.Second, "how long the storm lasts")
	exact = flag.Bool("exact", false, "what takes longer than the aim fails, not only what takes several times as long")
)

func TestMain(m *testing.M) {
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

// fault is something that goes wrong with a stream.
type fault struct {
	name, stream string
	// strike does it. nil: it happens by itself.
	strike func(b *bench, ctx context.Context) error
	// heal makes it possible again; nil: the gateway can help itself.
	heal func(b *bench, ctx context.Context) error
	// within is the aim: how long until live frames are back, since the last one or,
	// with heal, since that.
	within time.Duration
	// placeholder: the viewer must be shown one before it heals.
	placeholder bool
	// anew: the connection can't be kept.
	anew bool
	// run watches it otherwise than with one page; nil: (*bench).run.
	run func(b *bench, ctx context.Context, t *testing.T, browser *rig.Chromium, f fault) error
}

// The aims. What has crashed is started again at once; what doesn't crash has to be
// noticed first.
const (
	afterCrash  = time.Second
	afterReturn = 2 * time.Second
	afterStop   = 3*time.Second + afterCrash  // by the watchdog of frames
	afterHang   = 8*time.Second + afterReturn // an encoder is tried again so seldom
)

var faults = []fault{
	{name: "kill -9 of the pipeline's process", stream: "desk", strike: signalWorker(sigKill), within: afterCrash},
	{name: "kill -SEGV of the pipeline's process", stream: "desk", strike: signalWorker(sigSegv), within: afterCrash},
	{name: "SIGSTOP of the pipeline's process", stream: "desk", strike: signalWorker(sigStop), within: afterStop},
	{name: "an element that errors", stream: "errs", within: afterCrash},
	{name: "an encoder that errors", stream: "brittle", within: afterCrash},
	{name: "an encoder that hangs", stream: "pair", run: (*bench).runBeside, within: afterCrash},
	{name: "an element that leaks memory", stream: "leaks", within: afterCrash},
	{name: "one that hangs in a state change", stream: "hangs", strike: (*bench).hang, heal: (*bench).unhang, within: afterReturn, placeholder: true},
	{name: "a source that falls silent", stream: "mixer", strike: (*bench).stopMixer, heal: (*bench).continueMixer, within: afterReturn, placeholder: true},
	{name: "a picture that freezes", stream: "still", strike: (*bench).freezeScreen, heal: (*bench).paintScreen, within: afterReturn},
	{name: "a picture that goes black", stream: "still", strike: (*bench).blackenScreen, heal: (*bench).paintScreen, within: afterReturn},
	{name: "X server stopped", stream: "desk", strike: (*bench).stopScreen, heal: (*bench).continueScreen, within: afterReturn, placeholder: true},
	{name: "RTSP server killed and restarted", stream: "rtsp", strike: (*bench).killCamera, heal: (*bench).startCamera, within: afterReturn, placeholder: true},
	{name: "kill -9 of the gateway", stream: "desk", strike: (*bench).killGateway, heal: (*bench).restartGateway, within: afterReturn, anew: true},
	{name: "X server killed, back at another size", stream: "screen", strike: (*bench).killScreen, heal: (*bench).resizeScreen, within: afterReturn, placeholder: true}, // the last: it has another shape from then on
}

const (
	away    = 5 * time.Second  // how long what has to be healed is gone: longer than the watchdogs wait
	patient = 60 * time.Second // the deadline, far above the aims: a loaded machine passes
	fresh   = 2500             // ms: a frame that was painted so long ago is live still
	steady  = 15               // live frames in a row: it is back
	slack   = 10               // times the aim that is no failure yet, unless -exact says otherwise: five were seen at a load of 15
)

func TestViewerStaysThroughFaults(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute)
	defer cancel()
	chosen := regexp.MustCompile(*only)
	b := newBench(ctx, t)
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Preload: strip.Script + gap.Script})
	rig.Check(t, err)
	rig.End(t, "chromium", browser.Close)

	t.Log("still: longest time between two frames that the page rendered; not live: from the last live frame to the next; after: from when it could be had again;\n" +
		"aim: of not live or, where there is one, of after; placeholder: how many were rendered meanwhile")
	t.Logf("%-40s %9s %9s %9s %7s %7s %12s %11s %9s", "fault", "still", "not live", "after", "aim", "", "placeholder", "connection", "restarts")
	for _, f := range faults {
		if !chosen.MatchString(f.name) {
			continue
		}
		if f.run == nil {
			f.run = (*bench).run
		}
		if err := f.run(b, ctx, t, browser, f); err != nil {
			t.Errorf("%s: %v", f.name, err)
			if err := b.restore(ctx); err != nil {
				t.Fatalf("restore: %v", err)
			}
		}
	}
}

// run watches one fault and prints its line.
func (b *bench) run(ctx context.Context, t *testing.T, browser *rig.Chromium, f fault) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patient)
	defer cancel()
	eye, err := b.watch(ctx, browser, f.stream)
	if err != nil {
		return err
	}
	defer eye.page.Close()
	before, err := b.gateway.Stream(ctx, f.stream)
	if err != nil {
		return err
	}
	struck := time.Now()
	var healed time.Time
	switch {
	case f.strike == nil: // it will come
		err = rig.Until(ctx, "the fault", func() (bool, error) {
			s, err := b.gateway.Stream(ctx, f.stream)
			return err == nil && s.Restarts > before.Restarts, err
		})
		healed = time.Now()
	case f.heal == nil:
		err = f.strike(b, ctx)
		healed = struck
	default:
		if err = f.strike(b, ctx); err != nil {
			break
		}
		if err = b.passAway(ctx, f, eye, struck, before.Restarts); err != nil {
			break
		}
		err = f.heal(b, ctx)
		healed = time.Now()
	}
	if err != nil {
		return err
	}
	back := healed
	if f.heal == nil && f.strike != nil { // the old life's frames are on their way still
		if back, err = eye.waitGap(ctx, struck); err != nil {
			return err
		}
	}
	if err := eye.waitLive(ctx, back); err != nil {
		return err
	}
	connection := "anew"
	if !f.anew {
		if connection, err = eye.connection(ctx); err != nil {
			return err
		}
	}
	after, err := b.gateway.Stream(ctx, f.stream)
	if err != nil {
		return err
	}
	if !f.anew && after.Restarts == before.Restarts {
		t.Errorf("%s: nothing was started again: the fault was none", f.name)
	}
	o := eye.outage(struck)
	since, took := "-", o.notLive
	if f.heal != nil {
		took = o.back.Sub(healed)
		since = fmt.Sprintf("%.2f s", took.Seconds())
		if took < 0 {
			t.Errorf("%s: the picture never stopped: the fault was none", f.name)
		}
	}
	f.report(t, o, took, since, connection, after.Restarts-before.Restarts)
	if err := eye.page.Close(); err != nil {
		return err
	}
	return b.gateway.WaitState(ctx, f.stream, "idle")
}

// report prints a fault's line and judges it.
func (f fault) report(t *testing.T, o outage, took time.Duration, since, connection string, restarts int) {
	verdict := "within"
	if took > f.within {
		verdict = "OVER"
	}
	t.Logf("%-40s %7.2f s %7.2f s %9s %5.0f s %7s %12d %11s %9d", f.name, o.still.Seconds(), o.notLive.Seconds(), since, f.within.Seconds(), verdict,
		o.placeholders, connection, max(0, restarts))
	most := slack * f.within
	if *exact {
		most = f.within
	}
	if took > most {
		t.Errorf("%s: live frames were back after %v, want %v", f.name, took, most)
	}
	if connection == lost {
		t.Errorf("%s: the connection was not kept", f.name)
	}
}

// passAway lets the time pass that the source is away, until the gateway has noticed and
// the viewer been shown that.
func (b *bench) passAway(ctx context.Context, f fault, e *eye, struck time.Time, restarts int) error {
	if err := pass(ctx, away); err != nil || f.anew {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	if err := rig.Until(ctx, "a restart", func() (bool, error) {
		s, err := b.gateway.Stream(ctx, f.stream)
		return err == nil && s.Restarts > restarts, err
	}); err != nil || !f.placeholder {
		return err
	}
	return rig.Until(ctx, "a placeholder on the page", func() (bool, error) {
		err := e.look(ctx)
		return err == nil && e.placeholders(struck) > 0, err
	})
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keepLog writes the gateway's log into the folder of `go test -artifacts` when the test has failed.
func keepLog(t *testing.T, g *rig.Gateway) {
	if t.Failed() {
		path := filepath.Join(t.ArtifactDir(), "gateway.log")
		t.Logf("the gateway's log is in %s (%v)", path, os.WriteFile(path, []byte(g.Log()), 0o644))
	}
}
