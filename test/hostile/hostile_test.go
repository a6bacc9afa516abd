// Package hostile attacks a gateway in every way that reaches its port, while ten
// good viewers watch, and measures what those notice: the intervals between their
// frames, undisturbed and during each attack. It prints a table, and fails when
// the gateway crashes, a viewer stops playing or memory isn't bounded.
//
// What each attack is to be answered with is other tests' matter (test/e2e,
// internal/signal); here it goes on for a while, as fast as it can.
package hostile

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/viewer"
)

var (
	window = flag.Duration("for", 500*time.Millisecond, "how long each attack lasts; from 4 s on the p99 of the intervals means something")
	only   = flag.String("attacks", "", "regular expression: those attacks whose line matches")
	lite   = flag.Bool("lite", false, "the gateway connects viewers by ICE-lite")
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		yieldCPU()
	}
	rig.ServeChild(new(Attacker))
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

const (
	good   = 10 // viewers
	stream = "good"

	// telling is from how long on an attack's figures are worth to be held against those of
	// the moment before, not of the first.
	telling = 4 * time.Second

	// maxHeld is what the gateway may hold while an attack lasts, which may be a thousand
	// sessions (limits.viewers) of 200 KB; settled is what may be left of all attacks:
	// buffers that Go keeps, threads' stacks, pools.
	maxHeld = 512 << 20
	settled = 96 << 20

	pipeline = "source: videotestsrc is-live=true pattern=smpte horizontal-speed=2\nlinger: 0s\n" +
		"video:\n  codec: h264\n  width: 640\n  height: 360\n  framerate: 30\n  bitrate: 1M\n"
)

// watcher is a good viewer, and when its frames came.
type watcher struct {
	*viewer.Viewer

	mu sync.Mutex // guards at
	at []time.Time
}

func watch(ctx context.Context, g *rig.Gateway) (*watcher, error) {
	w := new(watcher)
	var err error
	w.Viewer, err = viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/" + stream), Codecs: []media.Codec{media.H264}, OnRTP: w.note, IPv4: true})
	if err != nil {
		return nil, err
	}
	return w, w.WaitKeyframe(ctx)
}

func (w *watcher) note(_ media.Codec, p *rtp.Packet) {
	if !p.Marker {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = append(w.at, time.Now())
}

// intervals are those that ended between two moments, in ms; what lasts at the second
// counts too.
func (w *watcher) intervals(from, to time.Time) (ms []float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := from
	for i, at := range w.at {
		if at.After(from) && !at.After(to) {
			if i > 0 {
				ms = append(ms, float64(at.Sub(w.at[i-1]).Microseconds())/1000)
			}
			last = at
		}
	}
	return append(ms, float64(to.Sub(last).Microseconds())/1000)
}

// p99 is the good viewers' 99th percentile of their intervals, in ms: of each.
func p99(watchers []*watcher, from, to time.Time) (each []float64) {
	for _, w := range watchers {
		each = append(each, stat.Quantile(w.intervals(from, to), 0.99))
	}
	return each
}

// memory is what a process holds and has held at most since the last call, in bytes.
func memory(pid int) (now, most int, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "VmRSS:" || f[0] == "VmHWM:") {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				return 0, 0, err
			}
			if f[0] == "VmRSS:" {
				now = kib << 10
			} else {
				most = kib << 10
			}
		}
	}
	return now, most, os.WriteFile(filepath.Join(dir, "clear_refs"), []byte("5"), 0) // forgets the most (proc(5))
}

// siege is a gateway with its good viewers.
type siege struct {
	gateway  *rig.Gateway
	watchers []*watcher
	quiet    []float64 // p99 of the intervals of each, undisturbed
}

func TestGoodViewersNoticeNoAttack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 14*time.Minute+time.Duration(len(attacks))*3**window)
	defer cancel()
	chosen := regexp.MustCompile(*only)
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{
		Pipelines: map[string]string{stream: pipeline},
		Config:    fmt.Sprintf("ice:\n  lite: %t\nrooms:\n  hall:\n    streams: [%s]\n", *lite, stream),
	})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			path := filepath.Join(t.ArtifactDir(), "gateway.log")
			t.Logf("the gateway's log is in %s (%v)", path, os.WriteFile(path, []byte(g.Log()), 0o644))
		}
	})
	s := &siege{gateway: g}
	for range good {
		s.watchers = append(s.watchers, newWatcher(ctx, t, g))
	}
	baseline, _, err := memory(g.Pid())
	rig.Check(t, err)

	t.Logf("%d good viewers at 30 frames a second, each attack lasts %v; p99 of the intervals between frames in ms: of the worst viewer, undisturbed and attacked;\n"+
		"ratio: the greatest of a viewer's own two; MB: what the gateway held at most, %d before all", good, *window, baseline>>20)
	t.Logf("%-10s %-56s %8s %8s %8s %6s %5s %5s", "surface", "attack", "done", "p99", "attacked", "ratio", "lost", "MB")
	tried, over := 0, 0
	for _, a := range attacks {
		if !chosen.MatchString(a.surface + " " + a.name) {
			continue
		}
		tried++
		if s.suffer(ctx, t, a) > 2 {
			over++
		}
		s.alive(ctx, t, a)
	}
	t.Logf("%d attacks; a good viewer's p99 over twice the undisturbed one in %d of them", tried, over)
	rig.Check(t, rig.Until(ctx, "the attackers' sessions to end", func() (bool, error) {
		s, err := g.Stream(ctx, stream)
		return err == nil && s.Viewers == good, err
	}))
	after, _, err := memory(g.Pid())
	rig.Check(t, err)
	t.Logf("memory before %d MB, after all %d MB", baseline>>20, after>>20)
	if after-baseline > settled {
		t.Errorf("%d MB are left of the attacks", (after-baseline)>>20)
	}
}

func newWatcher(ctx context.Context, t *testing.T, g *rig.Gateway) *watcher {
	t.Helper()
	w, err := watch(ctx, g)
	rig.Check(t, err)
	rig.End(t, "viewer", w.Close)
	return w
}

// suffer has one attack run, prints its line and returns the ratio.
func (s *siege) suffer(ctx context.Context, t *testing.T, a attack) (ratio float64) {
	t.Helper()
	if *window >= telling || s.quiet == nil {
		from := time.Now()
		rig.Check(t, pass(ctx, max(*window, time.Second)))
		s.quiet = p99(s.watchers, from, time.Now())
	}
	before := s.lost()
	_, _, err := memory(s.gateway.Pid())
	rig.Check(t, err)

	child, err := rig.StartChild("")
	rig.Check(t, err)
	var told Told
	err = child.Call(ctx, "Attacker.Run", Order{Name: a.name, Host: fmt.Sprintf("%s:%d", s.gateway.Host, s.gateway.Port), For: *window}, &told)
	from, to := time.Unix(0, told.From), time.Now()
	child.Close() // and what it has open
	if told.Missing != "" {
		t.Logf("%-10s %-56s skipped: %s", a.surface, a.name, told.Missing)
		return 0
	}
	if err == nil && told.Done == 0 {
		err = fmt.Errorf("nothing was done: it is no attack (%s)", told.Note)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", a.surface, a.name, err)
		return 0
	}
	_, most, err := memory(s.gateway.Pid())
	if err != nil {
		t.Fatalf("%s: %s: the gateway is gone: %v", a.surface, a.name, err)
	}
	attacked := p99(s.watchers, from, to)
	for i := range s.watchers {
		ratio = max(ratio, attacked[i]/s.quiet[i])
	}
	t.Logf("%-10s %-56s %8d %8.1f %8.1f %6.2f %5d %5d  %s", a.surface, a.name, told.Done,
		slices.Max(s.quiet), slices.Max(attacked), ratio, s.lost()-before, most>>20, told.Note)
	if most > maxHeld {
		t.Errorf("%s: %s: the gateway held %d MB", a.surface, a.name, most>>20)
	}
	return ratio
}

// lost is how many packets the good viewers have lost.
func (s *siege) lost() (n int) {
	for _, w := range s.watchers {
		n += w.Seen().Lost
	}
	return n
}

// alive checks that the gateway answers and all good viewers play on. Those that don't
// have others take their place.
func (s *siege) alive(ctx context.Context, t *testing.T, a attack) {
	t.Helper()
	rig.Check(t, rig.Until(ctx, "the gateway after "+a.name, func() (bool, error) {
		status, _, err := s.gateway.Get(ctx, "/healthz")
		return status == http.StatusOK, err
	}))
	var before []int
	for _, w := range s.watchers {
		before = append(before, w.Seen().Frames)
	}
	for i, w := range s.watchers {
		waiting, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := rig.Until(waiting, "a good viewer's frames", func() (bool, error) { return w.Seen().Frames > before[i]+5, nil })
		cancel()
		if err != nil {
			t.Errorf("%s: %s: viewer %d plays no more: %v", a.surface, a.name, i, err)
			w.Close() // an error says the same
			s.watchers[i] = newWatcher(ctx, t, s.gateway)
		}
	}
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
