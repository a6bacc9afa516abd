package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A port that is taken is an error that names who has it: here a program of Python's.
func TestTakenPortNamesWhoHasIt(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3: " + err.Error())
	}
	for network, kind := range map[string]string{"tcp": "STREAM", "udp": "DGRAM"} {
		t.Run(network, func(t *testing.T) {
			holder := exec.Command(python, "-c", fmt.Sprintf(`
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_%s)
s.bind(("127.0.0.1", 0))
if "%s" == "tcp": s.listen()
print(s.getsockname()[1], flush=True)
sys.stdin.read()
`, kind, network))
			in, err := holder.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := holder.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			defer holder.Wait()
			defer in.Close()
			var port int
			if _, err := fmt.Fscan(out, &port); err != nil {
				t.Fatal(err)
			}

			dir := t.TempDir()
			conf := filepath.Join(dir, "gateway.conf")
			listen := fmt.Sprintf("127.0.0.1:%d", port)
			write(t, conf, "auth: {mode: none}\n")
			if network == "udp" {
				listen = "127.0.0.1:0"
				write(t, conf, fmt.Sprintf("auth: {mode: none}\nice: {udp_port: %d}\n", port))
			}
			settings, err := Load(conf, dir, listen, nil)
			if err != nil {
				t.Fatal(err)
			}
			g, err := New(Options{Settings: settings, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err == nil {
				g.Close()
				t.Fatal("the port was taken twice")
			}
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", holder.Process.Pid))
			want := fmt.Sprintf("%q (process %d) has %s port %d", strings.TrimSpace(string(name)), holder.Process.Pid, strings.ToUpper(network), port)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
		})
	}
}

func TestListenAddressThatIsNotHereSaysSo(t *testing.T) {
	_, err := net.Listen("tcp", "192.0.2.1:80") // RFC 5737
	if text := refused("192.0.2.1:80", err).Error(); !strings.Contains(text, "doesn't have that address") {
		t.Error(text)
	}
}
