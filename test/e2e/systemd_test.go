package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// TestSystemdKeepsTheGateway runs the unit of configs/ under the real systemd: it is
// started when it serves, a gateway that hangs is killed and started again by the
// watchdog, so is one that was killed, and it ends cleanly. A viewer sees pictures of a
// pipeline, whose process is confined within what the unit allows.
func TestSystemdKeepsTheGateway(t *testing.T) {
	ctx := bounded(t, 4*time.Minute)
	s := startSystemd(ctx, t)
	s.ctl(ctx, t, "start", "gateway")
	if err := s.ready(ctx); err != nil {
		t.Errorf("systemd calls it started, and: %v", err)
	}
	if got := s.show(ctx, t, "ActiveState", "NRestarts", "WatchdogUSec", "User"); got != "active 0 "+watchdog+"s gateway" {
		t.Errorf("it is %s", got)
	}
	var v *viewer.Viewer
	rig.Check(t, rig.Until(ctx, "the stream", func() (ok bool, err error) {
		v, err = viewer.Watch(ctx, viewer.Options{URL: s.url + "/whep/test", Codecs: []media.Codec{media.H264}})
		return err == nil, err
	}))
	defer v.Close() // its gateway will be gone: whatever it says
	rig.Check(t, v.WaitKeyframe(ctx))

	pid := s.show(ctx, t, "MainPID")
	s.ctl(ctx, t, "reload", "gateway")
	if got := s.show(ctx, t, "MainPID", "ActiveState"); got != pid+" active" {
		t.Errorf("after a reload it is %s, and was %s", got, pid)
	}
	s.again(ctx, t, "a gateway that hangs", "STOP", "1")
	s.again(ctx, t, "a gateway that was killed", "KILL", "2")
	s.ctl(ctx, t, "stop", "gateway")
	if got := s.show(ctx, t, "ActiveState", "Result", "ExecMainStatus"); got != "inactive success 0" {
		t.Errorf("stopped it is %s", got)
	}
	if !strings.Contains(s.said(), `fault="SIGABRT: abort"`) {
		t.Error("it wasn't the watchdog that ended it, or the next run doesn't tell")
	}
}

const watchdog = "10" // s

// systemd is the real one, in namespaces of its own, with this machine's network.
type systemd struct {
	*rig.Process
	init string // its process 1, as this machine numbers it
	url  string // of the gateway
	log  string // file of what the gateway says
}

func startSystemd(ctx context.Context, t *testing.T) *systemd {
	t.Helper()
	rig.Check(t, rig.NeedRoot())
	_, err := rig.Need("systemctl", "systemd")
	rig.Check(t, err)
	binary, err := rig.Binary()
	rig.Check(t, err)
	root, err := rig.Root()
	rig.Check(t, err)
	port, err := rig.Port()
	rig.Check(t, err)
	unit, err := os.ReadFile(filepath.Join(root, "configs", "gateway.service"))
	rig.Check(t, err)

	dir := t.TempDir()
	s := &systemd{url: fmt.Sprintf("http://127.0.0.1:%d", port), log: filepath.Join(dir, "log")}
	for name, text := range map[string]string{
		"systemd/system/gateway.service": string(unit),
		// of the rest of a machine nothing is there
		"systemd/system/gateway.service.d/test.conf": "[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=" + watchdog + "\nStandardOutput=append:" + s.log + "\nStandardError=append:" + s.log + "\n",
		"gateway/gateway.yaml":                       fmt.Sprintf("listen: 127.0.0.1:%d\nstate: /var/lib/gateway\nauth: {mode: none}\n", port),
		"gateway/pipelines/test.yaml":                testPipeline,
	} {
		path := filepath.Join(dir, "etc", name)
		rig.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		rig.Check(t, os.WriteFile(path, []byte(text), 0o644))
	}
	s.Process, err = rig.Start(rig.Command{Path: "/bin/bash", Args: []string{"testdata/systemd.sh", dir, binary}})
	rig.Check(t, err)
	rig.End(t, "systemd", s.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("systemd said:\n%s\nthe gateway's log:\n%s", s.Log(), s.said())
		}
	})
	rig.Check(t, rig.Until(ctx, "systemd", func() (bool, error) {
		select {
		case <-s.Done():
			t.Fatalf("systemd can't be run here:\n%s", s.Log())
		default:
		}
		unshare := children(s.Pid())
		if unshare == "" {
			return false, nil
		}
		n, err := strconv.Atoi(unshare)
		s.init = children(n)
		return s.init != "" && s.try(ctx, "is-system-running") == "running", err
	}))
	t.Cleanup(func() { // all ends with its process 1
		if pid, err := strconv.Atoi(s.init); err == nil && pid > 1 {
			syscall.Kill(pid, syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			s.Wait(ctx) // its control groups are removed
		}
	})
	return s
}

// said is what the gateway has logged.
func (s *systemd) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text)
}

// children are the processes that a process has started.
func children(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return strings.TrimSpace(string(text))
}

// try runs systemctl and returns what it says, to standard output.
func (s *systemd) try(ctx context.Context, args ...string) string {
	out, _ := s.command(ctx, args...).Output()
	return strings.TrimSpace(string(out))
}

func (s *systemd) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", s.init, "-m", "-p", "-C", "systemctl", "--no-pager"}, args...)...)
}

// ctl runs systemctl, which has to succeed.
func (s *systemd) ctl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(ctx, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// show is what systemd knows of the gateway.
func (s *systemd) show(ctx context.Context, t *testing.T, properties ...string) string {
	t.Helper()
	var values []string
	for _, p := range properties {
		values = append(values, s.ctl(ctx, t, "show", "--value", "-p", p, "gateway"))
	}
	return strings.Join(values, " ")
}

// ready asks the gateway.
func (s *systemd) ready(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// again signals the gateway and waits until it was started again.
func (s *systemd) again(ctx context.Context, t *testing.T, what, signal, restarts string) {
	t.Helper()
	begun := time.Now()
	s.ctl(ctx, t, "kill", "--kill-whom=main", "--signal="+signal, "gateway")
	rig.Check(t, rig.Until(ctx, what+" to be started again", func() (bool, error) {
		return s.show(ctx, t, "NRestarts", "ActiveState") == restarts+" active", nil
	}))
	if err := s.ready(ctx); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	t.Logf("%s serves again after %s", what, time.Since(begun).Round(10*time.Millisecond))
}
