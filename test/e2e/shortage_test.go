package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
)

// TestWithoutFileDescriptorsViewersGoOn takes the descriptors away from a gateway: who
// watches goes on, who comes is told, the process doesn't spin, and all is well again
// afterwards.
func TestWithoutFileDescriptorsViewersGoOn(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}})
	undisturbed(ctx, t, g, "test")
	var before unix.Rlimit
	rig.Check(t, unix.Prlimit(g.Pid(), unix.RLIMIT_NOFILE, nil, &before))
	leave := func(free int) {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.Pid()))
		rig.Check(t, err)
		rig.Check(t, unix.Prlimit(g.Pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open) + free), Max: before.Max}, nil))
	}

	leave(10)
	rig.Check(t, rig.Until(ctx, "who comes late to be told", func() (bool, error) {
		late := dial(ctx, t, g)
		defer late.conn.Close()
		late.send(`{"type":"join","roomId":"test","version":1}`)
		return late.until("joined", "error").Code == "too-many-viewers", nil
	}))
	var held []net.Conn
	for range 40 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", g.Port))
		rig.Check(t, err)
		held = append(held, c)
	}
	rig.Check(t, rig.Until(ctx, "a word in the log", func() (bool, error) {
		return strings.Contains(g.Log(), "connections can't be taken"), nil
	}))
	was, err := rig.UsageOf(g.Pid())
	rig.Check(t, err)
	begun := time.Now()
	timer := time.NewTimer(3 * time.Second)
	<-timer.C
	is, err := rig.UsageOf(g.Pid())
	rig.Check(t, err)
	cores := (is.CPU - was.CPU).Seconds() / time.Since(begun).Seconds()
	t.Logf("without descriptors the gateway takes %.2f cores", cores)
	if cores > 0.9 {
		t.Error("it spins")
	}

	for _, c := range held {
		c.Close()
	}
	rig.Check(t, unix.Prlimit(g.Pid(), unix.RLIMIT_NOFILE, &before, nil))
	rig.Check(t, rig.Until(ctx, "the gateway to let viewers in", func() (bool, error) {
		c := dial(ctx, t, g)
		defer c.conn.Close()
		c.send(`{"type":"join","roomId":"test","version":1}`)
		return c.until("joined", "error").Type == "joined", nil
	}))
}

// tmpfs is a small file system of its own.
func tmpfs(t *testing.T, size string) (dir string) {
	t.Helper()
	if err := rig.NeedRoot(); err != nil {
		t.Skip(err)
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("no tmpfs can be mounted: " + err.Error())
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves nothing of a file system.
func fill(t *testing.T, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "filler")
	f, err := os.Create(file)
	rig.Check(t, err)
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			return file // ENOSPC
		}
	}
}

// TestFullDiskStopsNobody fills the disk that a gateway keeps its state and its log on:
// who watches goes on, others join, an edit is taken, and a start with the keys that are
// there works, too. A first start can't be, and says why.
func TestFullDiskStopsNobody(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	disk := tmpfs(t, "256k")
	state := filepath.Join(disk, "state")
	log, err := os.Create(filepath.Join(disk, "log"))
	rig.Check(t, err)
	defer log.Close()
	o := rig.GatewayOptions{Pipelines: map[string]string{"test": testPipeline}, Env: []string{"GATEWAY_STATE=" + state, "GATEWAY_LOG_LEVEL=debug"}, Log: log}
	for _, name := range []string{"fills", "is full at start"} {
		t.Run(name, func(t *testing.T) {
			g := startGateway(ctx, t, o)
			undisturbed(ctx, t, g, "test")
			fill(t, disk)
			c := dial(ctx, t, g)
			c.send(`{"type":"join","roomId":"test","version":1}`)
			c.until("offer")
			r, err := g.Edit(ctx, "test", func() error {
				return g.WritePipeline("test", strings.Replace(testPipeline, "500k", "400k", 1))
			})
			rig.Check(t, err)
			if !r.OK {
				t.Errorf("the edit was refused: %+v", r)
			}
		})
	}

	binary, err := rig.Binary()
	rig.Check(t, err)
	first := exec.CommandContext(ctx, binary, "run", "-listen", "127.0.0.1:0", "-pipelines", t.TempDir())
	first.Env = append(os.Environ(), "GATEWAY_STATE="+filepath.Join(disk, "other"))
	out, err := first.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "state folder") || !strings.Contains(string(out), "no space left on device") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLogThatNobodyReadsEndsNothing closes the pipe that a gateway logs to.
func TestLogThatNobodyReadsEndsNothing(t *testing.T) {
	ctx := bounded(t, time.Minute)
	binary, err := rig.Binary()
	rig.Check(t, err)
	port, err := rig.Port()
	rig.Check(t, err)
	read, write, err := os.Pipe()
	rig.Check(t, err)
	p := exec.CommandContext(ctx, binary, "run", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-pipelines", t.TempDir())
	p.Env = append(os.Environ(), "GATEWAY_STATE="+t.TempDir(), "GATEWAY_LOG_LEVEL=debug")
	p.Stderr = write
	rig.Check(t, p.Start())
	defer p.Wait()
	defer p.Process.Kill()
	write.Close()
	said := make([]byte, 1)
	_, err = read.Read(said)
	rig.Check(t, err)
	read.Close()
	answers := func(want string) {
		t.Helper()
		rig.Check(t, rig.Until(ctx, "an answer", func() (bool, error) {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return false, err
			}
			defer c.Close()
			fmt.Fprintf(c, "GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
			answer := make([]byte, 1024)
			n, err := c.Read(answer)
			return bytes.Contains(answer[:n], []byte(want)), err
		}))
	}
	answers("200") // a request is a line in the log
	answers("200")
	rig.Check(t, p.Process.Signal(syscall.SIGHUP))
	answers("200")
}
