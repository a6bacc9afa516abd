package gst

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/media"
)

// A display is looked for every few seconds while a stream is idle.
func TestLookingForADisplayLeavesNoDescriptors(t *testing.T) {
	display, _ := startXvfb(t)
	descriptors := func() int {
		runtime.GC()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	var before int
	for i := range 20 {
		formats, err := NewRegistry().Formats("ximagesrc display-name=" + display)
		if err != nil || len(formats) == 0 || formats[0].MaxWidth != 640 || formats[0].MinHeight != 480 {
			t.Fatalf("%+v, %v", formats, err)
		}
		if i == 0 {
			before = descriptors()
		}
	}
	if now := descriptors(); now != before {
		t.Errorf("%d descriptors, %d after the first time", now, before)
	}
}

// Xlib would end the whole process.
func TestXServerThatDiesEndsItsPipelineOnly(t *testing.T) {
	display, kill := startXvfb(t)
	_, c := launch(t, "ximagesrc use-damage=false display-name="+display+
		" ! video/x-raw,framerate=30/1 ! videoconvert ! "+x264+sink, media.H264)
	next(t, c).Release()
	kill()
	select {
	case err := <-c.failure:
		if !strings.Contains(err.Error(), "X server") {
			t.Errorf("reported %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("nothing was reported")
	}
}

// One ximagesrc grabs the X server for a frame and wants a lock of Xlib's; another
// one that opens its display holds the lock, and waits for the server: xserver.c.
func TestDesktopsStartSideBySide(t *testing.T) {
	display, _ := startXvfb(t)
	source := "ximagesrc use-damage=false display-name=" + display
	text := source + " ! video/x-raw,framerate=30/1 ! videoconvert ! " + x264 + sink
	end := time.Now().Add(4 * time.Second)
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			for time.Now().Before(end) {
				if _, err := NewRegistry().Formats(source); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wait.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				p, err := Launch(ctx, "test", whole(text, media.H264), counting{(*media.Buffer).Release}, quiet)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Close(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// startXvfb runs an X server of 640x480 for the test and returns its display and
// what kills it.
func startXvfb(t *testing.T, args ...string) (display string, kill func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	args = append([]string{"-displayfd", "3", "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"}, args...)
	cmd := exec.Command("Xvfb", args...)
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal("Xvfb (package xvfb): ", err)
	}
	w.Close()
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(kill)
	var number int
	if _, err := fmt.Fscan(r, &number); err != nil {
		t.Fatal("Xvfb: ", err)
	}
	return fmt.Sprintf(":%d", number), kill
}
