// Package rig starts real things for tests and benchmarks, and ends them: an X
// server, the gateway as its own process, Chromium, Firefox, network namespaces.
// It hides how each of them is told to be ready, fresh and quiet, and that none
// outlives its test: every one of them has a Close that is bounded in time and
// waits for what it started, and dies with the test process.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Missing is the error of a rig that needs what this machine doesn't have: a
// program, or rights.
type Missing struct {
	What   string // "firefox-esr", "root"
	Remedy string // "apt-get install firefox-esr"
}

// Error names what is missing, and its remedy.
func (m *Missing) Error() string { return m.What + " is missing: " + m.Remedy }

// Need finds a program, also in the sbin folders that users don't have in PATH.
// The error is a *[Missing] that names the Debian package.
func Need(program, debian string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", &Missing{What: program, Remedy: "apt-get install " + debian}
}

// NeedRoot returns a *[Missing] unless the test runs as root, which only makes
// network namespaces.
func NeedRoot() error {
	if os.Geteuid() != 0 {
		return &Missing{What: "root", Remedy: "network namespaces need it: run the test as root"}
	}
	return nil
}

// Check stops the test unless err is nil. What is missing on a developer's
// machine skips the test and says why; with CI=true it fails, because there the
// packages are installed.
func Check(t testing.TB, err error) {
	t.Helper()
	var missing *Missing
	switch {
	case err == nil:
	case errors.As(err, &missing) && os.Getenv("CI") != "true":
		t.Skip("skipped: ", err)
	default:
		t.Fatal(err)
	}
}

// End closes a rig when the test ends, and reports what that says.
func End(t testing.TB, what string, close func() error) {
	t.Cleanup(func() {
		if err := close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	})
}

// Port finds a number that is free for TCP and UDP on every address. It is free
// when it is found; nothing keeps it.
func Port() (int, error) {
	for range 100 {
		tcp, err := net.Listen("tcp", ":0")
		if err != nil {
			return 0, err
		}
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		return port, nil
	}
	return 0, errors.New("no port is free for both TCP and UDP")
}

// Until calls ok until it says true or fails, every 20 ms: for what other
// processes do and don't tell. When ctx ends first, the error says what it
// waited for.
func Until(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done && err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("wait for %s: %w (last: %w)", what, ctx.Err(), err)
			}
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

// Root is the module's folder, found from the working directory upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod in the working directory or above it")
		}
		dir = up
	}
}
