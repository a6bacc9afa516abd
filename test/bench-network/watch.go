package main

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"time"

	"gateway/test/impair"
	"gateway/test/receiver"
	"gateway/test/rig"
	"gateway/test/strip"
)

// shown is a frame as a viewer had it.
type shown struct {
	at        time.Time // when it was shown: in a browser rendered, else complete
	complete  time.Time // when it had come
	timestamp uint32
	keyframe  bool // as far as the viewer tells
	missed    int  // frames shown before it that the script didn't see
}

// viewed is what a viewer has seen.
type viewed struct {
	ssrc      uint32 // of the media
	frames    []shown
	keyframes int // since the mark
}

// watcher is one viewer. mark begins to count; view ends the viewer.
type watcher interface {
	mark(ctx context.Context) error
	view(ctx context.Context) (*viewed, error)
	close() error
}

// pionWatcher is a receiver.Receiver.
type pionWatcher struct {
	*receiver.Receiver
	marked receiver.Seen

	mu     sync.Mutex // guards frames
	frames []shown
}

func watchByPion(ctx context.Context, c *impair.Client, url string) (*pionWatcher, error) {
	w := new(pionWatcher)
	var err error
	w.Receiver, err = receiver.Watch(ctx, receiver.Options{URL: url, Namespace: c.Namespace, IP: c.IP, OnFrame: func(f receiver.Frame) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.frames = append(w.frames, shown{at: f.Complete, complete: f.Complete, timestamp: f.Timestamp, keyframe: f.Keyframe})
	}})
	return w, err
}

func (w *pionWatcher) mark(context.Context) error {
	w.marked = w.Seen()
	return nil
}

func (w *pionWatcher) view(context.Context) (*viewed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &viewed{w.SSRC(), w.frames, w.Seen().Keyframes - w.marked.Keyframes}, nil
}

func (w *pionWatcher) close() error { return w.Receiver.Close() }

// frames.js notes each frame that the page's first video renders.
//
//go:embed frames.js
var framesScript string

// browserWatcher is a tab of Chromium.
type browserWatcher struct {
	browser *rig.Chromium
	page    rig.Page
	marked  browserSeen
}

type browserSeen struct {
	SSRC      uint32
	Keyframes int
	Frames    []struct {
		At, Complete float64 // Unix ms
		Timestamp    uint32
		Missed       int
	}
}

func watchByChromium(ctx context.Context, c *impair.Client, url string) (*browserWatcher, error) {
	browser, err := rig.StartChromium(ctx, rig.ChromiumOptions{Namespace: c.Namespace, Preload: strip.Script + framesScript})
	if err != nil {
		return nil, err
	}
	w := &browserWatcher{browser: browser}
	w.page, err = browser.Open(ctx, url)
	if err == nil {
		err = strip.WaitVideo(ctx, w.page)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("chromium: %w", err)
	}
	return w, nil
}

func (w *browserWatcher) seen(ctx context.Context) (s browserSeen, err error) {
	err = w.page.Eval(ctx, "framesSeen()", &s)
	return s, err
}

func (w *browserWatcher) mark(ctx context.Context) (err error) {
	w.marked, err = w.seen(ctx)
	return err
}

func (w *browserWatcher) view(ctx context.Context) (*viewed, error) {
	s, err := w.seen(ctx)
	if err != nil {
		return nil, err
	}
	v := &viewed{ssrc: s.SSRC, keyframes: s.Keyframes - w.marked.Keyframes}
	unix := func(ms float64) time.Time { return time.UnixMicro(int64(ms * 1000)) }
	for _, f := range s.Frames {
		v.frames = append(v.frames, shown{at: unix(f.At), complete: unix(f.Complete), timestamp: f.Timestamp, missed: f.Missed})
	}
	return v, nil
}

func (w *browserWatcher) close() error { return w.browser.Close() }
