package device

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const deadline = 20 * time.Second

// watch begins to watch, until the test's end.
func watch(t *testing.T) <-chan []Change {
	t.Helper()
	notices := make(chan []Change, 64)
	var said strings.Builder
	w := Watch(Options{Notify: func(c []Change) { notices <- c }, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	t.Cleanup(func() {
		w.Close()
		w.Close()
		if said.Len() > 0 && w.uevents != nil && w.folders != nil {
			t.Errorf("it said %s", said.String())
		}
	})
	return notices
}

func await(t *testing.T, notices <-chan []Change, what string, is func(Change) bool) {
	t.Helper()
	late := time.After(deadline)
	for {
		select {
		case all := <-notices:
			for _, c := range all {
				if is(c) {
					return
				}
			}
		case <-late:
			t.Fatal("no notice of ", what)
		}
	}
}

// A sound server that is restarted makes its socket anew, and its folder when it is
// the first.
func TestSoundServersComeAndGo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("PULSE_SERVER", "")
	notices := watch(t)
	if err := os.Mkdir(filepath.Join(dir, "pulse"), 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, notices, "the folder", func(c Change) bool { return c.Node == filepath.Join(dir, "pulse") })
	socket := filepath.Join(dir, "pulse/native")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	await(t, notices, "the server", func(c Change) bool { return c == Change{Subsystem: "sound server", Node: socket} })
	l.Close()
	await(t, notices, "its end", func(c Change) bool { return c == Change{"sound server", socket, true} })
	if err := os.WriteFile(filepath.Join(dir, "pipewire-0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, notices, "PipeWire", func(c Change) bool { return c.Node == filepath.Join(dir, "pipewire-0") })
}

// Once more is looked when all is quiet: what depends on a device comes after it.
func TestThereIsALateNotice(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PULSE_SERVER", "unix:"+filepath.Join(dir, "socket"))
	notices := watch(t)
	if err := os.WriteFile(filepath.Join(dir, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, notices, "the socket", func(c Change) bool { return c.Subsystem == "sound server" })
	select {
	case <-notices:
	case <-time.After(deadline):
		t.Error("there was one notice only")
	}
}

func TestFilesThatMatter(t *testing.T) {
	t.Setenv("PULSE_SERVER", "")
	for path, want := range map[string]string{
		"/dev/video3": "video4linux", "/dev/v4l": "link", "/dev/v4l/by-id/usb-x-video-index0": "link", "/dev/snd/pcmC0D0c": "sound",
		"/tmp/.X11-unix/X1": "x11", "/run/user/1000/pipewire-0": "sound server", "/run/user/1000/pulse/native": "sound server",
		"/dev/tty3": "", "/dev/null": "", "/run/user/1000/bus": "",
	} {
		if c, _ := fileChange(path, 0); c.Subsystem != want {
			t.Errorf("%s is %q, want %q", path, c.Subsystem, want)
		}
	}
}
