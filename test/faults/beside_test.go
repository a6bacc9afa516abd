package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"gateway/test/rig"
)

// drain is a FIFO that is read, so that who writes into it goes on; or it isn't, and he hangs
// in write(2).
type drain struct {
	file *os.File
	turn sync.Mutex // held while nothing is read
	shut bool
	done chan struct{}
}

func newDrain(path string) (*drain, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	d := &drain{file: file, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for buf := make([]byte, 4096); ; {
			d.turn.Lock()
			_, err := file.Read(buf)
			d.turn.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return d, nil
}

// stop has who writes hang. It waits until he writes.
func (d *drain) stop() {
	d.turn.Lock()
	d.shut = true
}

// open lets him go on.
func (d *drain) open() {
	if d.shut {
		d.shut = false
		d.turn.Unlock()
	}
}

func (d *drain) close() {
	d.open()
	d.file.Close()
	<-d.done
}

// config allows pipelines to write into it, beside what they may anyway.
func (d *drain) config() string {
	return "elements: {allow: [filesrc, rtspsrc, udpsrc, filesink]}\nconfine: {paths: [" + filepath.Dir(d.file.Name()) + "]}\n"
}

// sticky is an encoder that hangs when the FIFO isn't read: it can't be stopped then, as
// one whose driver hangs.
func sticky(fifo string) string {
	return fmt.Sprintf(`- name: sticky
  factory: x264enc
  codec: h264
  element: >-
    x264enc name={name} tune=zerolatency speed-preset=ultrafast bitrate={bitrate} key-int-max={keyint} bframes=0 threads={threads}
    byte-stream=true aud=false
  bitrate: {property: bitrate, unit: 1000, live: true}
  format: I420
  profiles: [constrained-baseline]
  caps: video/x-h264,profile={profile}
  parser: h264parse config-interval=-1 ! tee name=both ! filesink location=%s buffer-mode=unbuffered sync=false async=false both.
  payloader: rtph264pay aggregate-mode=zero-latency mtu=1200
`, fifo)
}

// runBeside has one of two encoders of a source hang, under a viewer of each, and prints a
// line for both. The process is replaced, once, for the one that hangs: that the other viewer sees.
func (b *bench) runBeside(ctx context.Context, t *testing.T, browser *rig.Chromium, f fault) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patient)
	defer cancel()
	other, err := b.watch(ctx, browser, f.stream+"?rendition=good")
	if err != nil {
		return err
	}
	defer other.page.Close()
	own, err := b.watch(ctx, browser, f.stream+"?rendition=sticky")
	if err != nil {
		return err
	}
	defer own.page.Close()
	before, err := b.gateway.Stream(ctx, f.stream)
	if err != nil {
		return err
	}
	old := b.workers(f.stream)
	struck := time.Now()
	b.drain.stop()
	defer b.drain.open()
	if err := rig.Until(ctx, "another process", func() (bool, error) {
		now := b.workers(f.stream)
		return len(old) == 1 && len(now) == 1 && now[0] != old[0], other.look(ctx)
	}); err != nil {
		return err
	}
	if err := pass(ctx, away); err != nil { // it hangs in the new one, too
		return err
	}
	b.drain.open()
	healed := time.Now()
	if err := own.waitLive(ctx, healed); err != nil {
		return fmt.Errorf("the encoder that hung: %w", err)
	}
	if err := other.waitLive(ctx, healed); err != nil {
		return fmt.Errorf("the other one: %w", err)
	}
	after, err := b.gateway.Stream(ctx, f.stream)
	if err != nil {
		return err
	}
	for _, seen := range []struct {
		what string
		eye  *eye
	}{{": the other's viewer", other}, {": its own viewer", own}} {
		connection, err := seen.eye.connection(ctx)
		if err != nil {
			return err
		}
		line, o, since := f, seen.eye.outage(struck), "-"
		line.name += seen.what
		took := o.notLive
		if seen.eye == own {
			line.within, took = afterHang, o.back.Sub(healed)
			since = fmt.Sprintf("%.2f s", took.Seconds())
			if took < 0 {
				t.Errorf("%s: the picture never stopped: the fault was none", line.name)
			}
		}
		line.report(t, o, took, since, connection, after.Restarts-before.Restarts)
		if err := seen.eye.page.Close(); err != nil {
			return err
		}
	}
	return b.gateway.WaitState(ctx, f.stream, "idle")
}
