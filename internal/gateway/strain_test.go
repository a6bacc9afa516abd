package gateway

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestMemoryLimitIsTheLeastOfTheGroupsAbove(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "system.slice", "gateway.service")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(root, "cgroup")
	write(t, table, "12:devices:/user.slice\n0::/system.slice/gateway.service\n")
	for name, text := range map[string]string{"memory.max": "max\n", "memory.current": "5000\n"} {
		write(t, filepath.Join(group, name), text)
	}
	if limit, _ := cgroupLimit(table, root); limit != 0 {
		t.Errorf("no limit is read as %d", limit)
	}
	for name, text := range map[string]string{"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 7\ninactive_file 300000\n"} {
		write(t, filepath.Join(root, "system.slice", name), text)
	}
	if limit, used := cgroupLimit(table, root); limit != 1000000 || used != 600000 {
		t.Errorf("limit %d, used %d", limit, used)
	}
	write(t, filepath.Join(group, "memory.max"), "10000\n")
	if limit, used := cgroupLimit(table, root); limit != 10000 || used != 5000 {
		t.Errorf("limit %d, used %d", limit, used)
	}
	if limit, _ := cgroupLimit(filepath.Join(root, "none"), root); limit != 0 {
		t.Errorf("without groups: %d", limit)
	}
}

func TestGOMEMLIMITOfTheEnvironmentHolds(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1TiB")
	before := debug.SetMemoryLimit(-1)
	LimitMemory(slog.New(slog.DiscardHandler))
	if now := debug.SetMemoryLimit(-1); now != before {
		t.Errorf("%d became %d", before, now)
	}
}

// Nobody more is let in while memory or descriptors are short, and then again; the log
// has a line for each.
func TestStrainedGatewayLetsNobodyIn(t *testing.T) {
	var r recent
	limit, used, free, files := uint64(0), uint64(0), uint64(math.MaxUint64), 1000
	s := &strain{
		log:    slog.New(slog.NewTextHandler(&r, nil)),
		memory: func() (uint64, uint64, uint64) { return limit, used, free },
		files:  func() (int, error) { return files, nil },
	}
	look := func() string { s.at = time.Time{}; return s.why() }
	for _, test := range []struct {
		change func()
		want   string
	}{
		{func() {}, ""},
		{func() { limit, used = 1<<30, 1<<30-1 }, "of memory that it is allowed"},
		{func() { limit = 0 }, ""},
		{func() { free = 1 << 20 }, "1024 KiB of memory left"},
		{func() { free, files = math.MaxUint64, 3 }, "hardly any file"},
		{func() { files = 1000 }, ""},
	} {
		test.change()
		if got := look(); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	if lines := r.all(); len(lines) != 4 {
		t.Errorf("logged %q", lines)
	}
	files = 0
	if got := s.why(); got != "" { // of a moment ago
		t.Errorf("it looks at the machine at each join: %q", got)
	}
}
