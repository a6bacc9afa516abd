// Package hostile attacks a gateway in every way that reaches its port, while ten
// good viewers watch, and measures what those notice: the intervals between their
// frames, undisturbed and during each attack. It prints a table, and fails when
// the gateway crashes, a viewer stops playing, memory isn't bounded or, with attacks that last long enough to
// tell (-for 4s), a viewer's intervals grow by too much.
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
	window = flag.Duration("for", 500*time.Millisecond, "how long each attack lasts; from 4 s on the p99 of the intervals means something, and is asserted")
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
	// the moment before, not of the first, and to be asserted.
	telling = 4 * time.Second

	most   = 2.0 // times its undisturbed p99 that a good viewer's may be
	tested = 25  // attacks that a run must have made

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

// paces are the good viewers' intervals, in ms: of each the median and the 99th percentile.
type paces struct{ p50, p99 []float64 }

func paceOf(watchers []*watcher, from, to time.Time) (p paces) {
	for _, w := range watchers {
		ms := w.intervals(from, to)
		p.p50, p.p99 = append(p.p50, stat.Quantile(ms, 0.5)), append(p.p99, stat.Quantile(ms, 0.99))
	}
	return p
}

// String is of the worst viewer.
func (p paces) String() string { return fmt.Sprintf("%.1f/%.1f", slices.Max(p.p50), slices.Max(p.p99)) }

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
	quiet    *paces // undisturbed; nil: not measured yet
}

func TestGoodViewersNoticeNoAttack(t *testing.T) {
	ctx := t.Context()
	if end, ok := t.Deadline(); ok { // there is time left to tell
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-30*time.Second))
		defer cancel()
	}
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
			t.Logf("the gateway's log is in %s (%v); its warnings end:\n%s", path, os.WriteFile(path, []byte(g.Log()), 0o644), warnings(g.Log()))
		}
	})
	s := &siege{gateway: g}
	for range good {
		s.watchers = append(s.watchers, newWatcher(ctx, t, g))
	}
	baseline, _, err := memory(g.Pid())
	rig.Check(t, err)

	t.Logf("%d good viewers at 30 frames a second, each attack lasts %v; intervals between frames in ms, p50/p99 of the worst viewer, undisturbed and attacked;\n"+
		"ratio: the greatest of a viewer's own two p99, aim %.0f; CPU: of a core, what the gateway took; MB: what the gateway held at most, %d before all", good, *window, most, baseline>>20)
	t.Logf("%-10s %-56s %8s %12s %12s %6s %5s %5s %5s", "surface", "attack", "done", "undisturbed", "attacked", "ratio", "CPU", "lost", "MB")
	tried, ran := 0, 0
	var over []string
	for _, a := range attacks {
		if !chosen.MatchString(a.surface + " " + a.name) {
			continue
		}
		tried++
		ratio, made := s.suffer(ctx, t, a)
		if made {
			ran++
		}
		if ratio > most {
			over = append(over, fmt.Sprintf("%s: %s: %.2f", a.surface, a.name, ratio))
		}
		s.alive(ctx, t, a)
	}
	t.Logf("%d attacks, of which %d ran; a good viewer's p99 over %.0f times the undisturbed one in %d of them", tried, ran, most, len(over))
	if *only == "" && ran < tested {
		t.Errorf("%d attacks ran, want %d at least", ran, tested)
	}
	if *window >= telling && len(over) > 0 {
		t.Errorf("a good viewer's p99 grew to more than %.0f times the undisturbed one:\n%s", most, strings.Join(over, "\n"))
	}
	rig.Check(t, rig.Until(ctx, "the attackers' sessions to end", func() (bool, error) {
		s, err := g.Stream(ctx, stream)
		return err == nil && s.Viewers == good, err
	}))
	var after int
	begun := time.Now()
	settling, end := context.WithTimeout(ctx, 3*time.Minute) // Go collects every 2 minutes, and gives back what it finds in some more
	defer end()
	err = rig.Until(settling, "the memory of the attacks to be given back", func() (bool, error) {
		var err error
		after, _, err = memory(g.Pid())
		return err == nil && after-baseline <= settled, err
	})
	t.Logf("memory before %d MB, after all %d MB, %v later", baseline>>20, after>>20, time.Since(begun).Round(time.Second))
	if err != nil {
		t.Error(err)
	}
}

// warnings are the latest of a log, and its errors.
func warnings(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-30):], "")
}

func newWatcher(ctx context.Context, t *testing.T, g *rig.Gateway) *watcher {
	t.Helper()
	w, err := watch(ctx, g)
	rig.Check(t, err)
	rig.End(t, "viewer", w.Close)
	return w
}

// suffer has one attack run, prints its line and returns the ratio and whether it could be made.
func (s *siege) suffer(ctx context.Context, t *testing.T, a attack) (ratio float64, made bool) {
	t.Helper()
	if *window >= telling || s.quiet == nil {
		from := time.Now()
		rig.Check(t, pass(ctx, max(*window, time.Second)))
		quiet := paceOf(s.watchers, from, time.Now())
		s.quiet = &quiet
	}
	before := s.lost()
	_, _, err := memory(s.gateway.Pid())
	rig.Check(t, err)

	began := time.Now()
	used, err := rig.UsageOf(s.gateway.Pid())
	rig.Check(t, err)
	child, err := rig.StartChild("")
	rig.Check(t, err)
	var told Told
	err = child.Call(ctx, "Attacker.Run", Order{Name: a.name, Host: fmt.Sprintf("%s:%d", s.gateway.Host, s.gateway.Port), For: *window}, &told)
	from, to := time.Unix(0, told.From), time.Now()
	child.Close() // and what it has open
	if told.Missing != "" {
		t.Logf("%-10s %-56s skipped: %s", a.surface, a.name, told.Missing)
		return 0, false
	}
	if err == nil && told.Done == 0 {
		err = fmt.Errorf("nothing was done: it is no attack (%s)", told.Note)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", a.surface, a.name, err)
		return 0, false
	}
	_, held, err := memory(s.gateway.Pid())
	if err != nil {
		t.Fatalf("%s: %s: the gateway is gone: %v", a.surface, a.name, err)
	}
	uses, err := rig.UsageOf(s.gateway.Pid())
	rig.Check(t, err)
	cpu := 100 * (uses.CPU - used.CPU).Seconds() / to.Sub(began).Seconds()
	attacked := paceOf(s.watchers, from, to)
	for i := range s.watchers {
		ratio = max(ratio, attacked.p99[i]/s.quiet.p99[i])
	}
	t.Logf("%-10s %-56s %8d %12v %12v %6.2f %4.0f%% %5d %5d  %s", a.surface, a.name, told.Done,
		s.quiet, attacked, ratio, cpu, s.lost()-before, held>>20, told.Note)
	if held > maxHeld {
		t.Errorf("%s: %s: the gateway held %d MB", a.surface, a.name, held>>20)
	}
	return ratio, true
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
