package rig

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Sound is a sound server without a sound card: what is played to its sink
// [SoundSink] can be captured from the sink's monitor.
type Sound struct {
	*Process
	path, dir string
}

// SoundSink is where programs play to, and with ".monitor" behind it where they
// capture from.
const SoundSink = "rig"

// StartSound starts a PulseAudio with nothing of the user's, and returns when it
// takes connections. It runs as root too.
func StartSound(ctx context.Context) (*Sound, error) {
	path, err := Need("pulseaudio", "pulseaudio")
	if err != nil {
		return nil, err
	}
	s := &Sound{path: path}
	if s.dir, err = os.MkdirTemp("", "gateway-sound-"); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

// Restart ends the server and starts it anew, at the same socket.
func (s *Sound) Restart(ctx context.Context) error {
	if err := s.Process.Close(); err != nil {
		return err
	}
	return s.start(ctx)
}

func (s *Sound) start(ctx context.Context) (err error) {
	s.Process, err = Start(Command{
		Path: s.path,
		Args: []string{"-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit=no", "--use-pid-file=no", "--log-target=stderr",
			"-L", "module-null-sink sink_name=" + SoundSink + " rate=48000 channels=2",
			"-L", "module-native-protocol-unix socket=" + s.socket() + " auth-anonymous=1"},
		Env: []string{"HOME=" + s.dir, "XDG_RUNTIME_DIR=" + s.dir, "PULSE_RUNTIME_PATH=" + s.dir, "PULSE_STATE_PATH=" + s.dir,
			"DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent"},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = Until(ctx, "the sound server", func() (bool, error) {
		conn, err := net.Dial("unix", s.socket())
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
	if err != nil {
		s.Process.Close()
	}
	return err
}

func (s *Sound) socket() string { return filepath.Join(s.dir, "socket") }

// Env is the environment in which programs find the server.
func (s *Sound) Env() []string { return []string{"PULSE_SERVER=unix:" + s.socket()} }

// Close ends the server.
func (s *Sound) Close() error {
	defer os.RemoveAll(s.dir)
	return s.Process.Close()
}
