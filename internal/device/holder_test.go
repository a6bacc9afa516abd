package device

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hold has another program open a file, until the test's end.
func hold(t *testing.T, path string) (pid int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec 9<"$0"; echo open; exec cat`, path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestHoldersAreNamed(t *testing.T) {
	node := filepath.Join(t.TempDir(), "video0")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if holders, _ := Holders(node); len(holders) != 0 {
		t.Errorf("nobody has it open: %v", holders)
	}
	f, err := os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pid := hold(t, node)
	holders, _ := Holders(node)
	if len(holders) != 2 {
		t.Fatalf("%v", holders)
	}
	for _, h := range holders {
		if h.PID != os.Getpid() && h.PID != pid || !h.Ours {
			t.Errorf("%+v", h)
		}
	}
	if said := HeldBy(node); !strings.Contains(said, "another stream") { // a child of its own is one
		t.Error(said)
	}
}

// What a process has open is told by the kernel's tree of processes alone, which
// may forbid to look.
func TestHoldersOfOthers(t *testing.T) {
	proc := t.TempDir()
	node := filepath.Join(proc, "video0")
	link := func(pid, fd, to string) {
		dir := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, fd)); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{"video0": "", "77/comm": "cheese\n", "77/stat": "77 (a) S b) S 1 77 77"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link("77", "3", "socket:[12]")
	link("77", "4", node)
	link("77", "5", node)
	link("78", "3", "/dev/null")
	link("self", "3", node)
	holders, hidden := holdersOf(proc, node)
	if len(holders) != 1 || holders[0] != (Holder{PID: 77, Name: "cheese"}) || hidden != 0 || holders[0].String() != "cheese (pid 77)" {
		t.Errorf("%+v, %d hidden", holders, hidden)
	}
	if os.Getuid() == 0 {
		t.Log("what isn't permitted isn't tried: this user may do all")
		return
	}
	if err := os.Chmod(filepath.Join(proc, "77/fd"), 0); err != nil {
		t.Fatal(err)
	}
	if holders, hidden := holdersOf(proc, node); len(holders) != 0 || hidden != 1 {
		t.Errorf("%+v, %d hidden", holders, hidden)
	}
}
