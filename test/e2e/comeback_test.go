package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/test/rig"
)

// frameClock notes in window.frames when the player of a page showed frames, as Unix
// milliseconds: at most one each 20 ms.
const frameClock = `(() => {
	window.frames_ = [];
	let last = -1;
	setInterval(() => {
		const video = document.querySelector('gateway-player')?.shadowRoot?.querySelector('video');
		const n = video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
		if (n !== last) frames_.push(Date.now());
		last = n;
	}, 20);
	return 0;
})()`

// backAfter is when a page has shown five frames in a row after a moment: the first of
// them, counted from the moment.
func backAfter(ctx context.Context, t *testing.T, page rig.Page, since time.Time) (took time.Duration) {
	t.Helper()
	var at float64
	rig.Check(t, rig.Until(ctx, "frames on the page", func() (bool, error) {
		err := page.Eval(ctx, fmt.Sprintf("(() => { const f = frames_.filter((t) => t > %d); return f.length > 5 ? f[0] : 0; })()", since.UnixMilli()), &at)
		return err == nil && at > 0, err
	}))
	return time.UnixMilli(int64(at)).Sub(since)
}

// TestPageIsBackAfterTheGatewayWasKilled kills the gateway's process, as the kernel does
// when memory runs out, and starts it again soon and after a while: the page plays by
// itself.
func TestPageIsBackAfterTheGatewayWasKilled(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := bounded(t, 4*time.Minute)
	pipelines := map[string]string{"test": testPipeline}
	start := func(port int) *rig.Gateway {
		g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines, Port: port})
		rig.Check(t, err)
		return g
	}
	g := start(0)
	b := startChromium(ctx, t, rig.ChromiumOptions{})
	page, err := b.Open(ctx, g.URL("/watch/test"))
	rig.Check(t, err)
	defer page.Close()
	rig.Check(t, page.Eval(ctx, frameClock, nil))
	backAfter(ctx, t, page, time.Now().Add(3*time.Second)) // it has seen by then how it can ask for the gateway
	for _, down := range []time.Duration{0, 25 * time.Second} {
		rig.Check(t, g.Signal(syscall.SIGKILL))
		g.Wait(ctx)
		timer := time.NewTimer(down) // the page dials meanwhile
		<-timer.C
		g.Close() // its folder; how it ended is known
		g = start(g.Port)
		took := backAfter(ctx, t, page, time.Now())
		t.Logf("down for %v: the picture was back %v after the gateway's return", down, took.Round(10*time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("down for %v: it took %v", down, took)
		}
	}
	rig.Check(t, g.Close())
}

// TestFaultThatEndedTheGatewayIsTold has a fault of the process end it: the next start
// says so, and the bundle has the stack.
func TestFaultThatEndedTheGatewayIsTold(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	state := "GATEWAY_STATE=" + t.TempDir()
	o := rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}, Env: []string{state}}
	g, err := rig.StartGateway(ctx, o)
	rig.Check(t, err)
	rig.Check(t, g.Signal(syscall.SIGSEGV))
	g.Wait(ctx)
	g.Close()

	g = startGateway(ctx, t, o)
	if !strings.Contains(g.Log(), "the last run ended by a fault") {
		t.Error("the next start doesn't say it")
	}
	binary, err := rig.Binary()
	rig.Check(t, err)
	pack := exec.CommandContext(ctx, binary, "bundle", "-config", filepath.Join(g.Dir, "gateway.yaml"),
		"-pipelines", filepath.Join(g.Dir, "pipelines"), "-listen", fmt.Sprintf("127.0.0.1:%d", g.Port), "bundle.tar.gz")
	pack.Dir = t.TempDir()
	pack.Env = append(os.Environ(), state, "GATEWAY_AUTH_MODE=none")
	out, err := pack.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	crashes, err := exec.CommandContext(ctx, "tar", "-xzOf", filepath.Join(pack.Dir, "bundle.tar.gz"), "--wildcards", "*/crashes.txt").Output()
	rig.Check(t, err)
	if text := string(crashes); !strings.Contains(text, "SIGSEGV") || !strings.Contains(text, "goroutine ") {
		t.Errorf("the bundle has\n%s", text)
	}
}

// TestWatchIsBackAfterTheGatewayWasKilled is the same for the command line, by the Go
// client.
func TestWatchIsBackAfterTheGatewayWasKilled(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	o := rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}}
	g, err := rig.StartGateway(ctx, o)
	rig.Check(t, err)
	binary, err := rig.Binary()
	rig.Check(t, err)
	watch := exec.CommandContext(ctx, binary, "watch", g.URL("/watch/test"))
	out, err := watch.StdoutPipe()
	rig.Check(t, err)
	rig.Check(t, watch.Start())
	defer watch.Wait()
	defer watch.Process.Signal(os.Interrupt)
	lines := bufio.NewScanner(out)
	reports := func() {
		t.Helper()
		if !lines.Scan() || !strings.Contains(lines.Text(), "video\tH264") {
			t.Fatalf("watch says %q, %v", lines.Text(), lines.Err())
		}
	}
	reports()
	rig.Check(t, g.Signal(syscall.SIGKILL))
	g.Wait(ctx)
	g.Close()
	o.Port = g.Port
	startGateway(ctx, t, o)
	begun := time.Now()
	reports() // of a second
	t.Logf("the first report came %v after the gateway's return", time.Since(begun).Round(10*time.Millisecond))
}
