package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// An encoder that hung was refused to everybody for as long as its process lived, which
// was for as long as another one had viewers.
func TestEncoderThatHangsHasItsProcessReplaced(t *testing.T) {
	b := newBench()
	s := start(t, b, nil)
	viewer := subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	expect(t, read(viewer), 0, 1)
	l.hang(e, "stalled")
	receive(t, l.closed, "end of the process")
	_, e = begun(t, b)
	e.frame(true)
	if i := waitState(t, s, Live); !strings.Contains(i.LastError, media.ErrStuck.Error()) {
		t.Errorf("%+v", i)
	}
	expect(t, read(viewer), 1, 1)
}

// hang ends an encoder, which can't be started again.
func (l *line) hang(e *encoder, why string) {
	l.mu.Lock()
	l.refuse = fmt.Errorf("branch %q: %w", e.id, media.ErrStuck)
	l.mu.Unlock()
	l.sink.Ended(e.id, errors.New(why))
}

// sharing is a bench whose pipelines have no process of their own.
type sharing struct{ *bench }

func (b sharing) Launch(ctx context.Context, name string, feed *config.Feed, sink Sink) (Pipeline, error) {
	p, err := b.bench.Launch(ctx, name, feed, sink)
	return struct{ Pipeline }{p}, err
}

func TestEncoderThatHangsInTheGatewaysProcessEndsNothingElse(t *testing.T) {
	baseline(t)
	b := newBench()
	s := New(&config.Stream{Name: "desk"}, sharing{b}, slog.New(slog.DiscardHandler))
	defer s.Close()
	subscribe(t, s)
	l, e := begun(t, b)
	e.frame(true)
	waitState(t, s, Live)
	l.hang(e, "stalled")
	waitInfo(t, s, "three failures", func(i Info) bool { return i.Restarts >= 3 })
	never(t, l.closed, "the pipeline was given up")
}

func TestOthersAreSparedByAnEncoderThatHangs(t *testing.T) {
	now := media.Now()
	c := &capture{stream: &Stream{conf: &config.Stream{}}}
	hangs := &encoding{capture: c, ring: newRing(media.Track{})}
	other := &encoding{capture: c, ring: newRing(media.Track{}), started: now - time.Minute}
	c.encodings = []*encoding{hangs, other}
	for _, step := range []struct {
		at            time.Duration
		yields, trial bool
		want          bool
	}{
		{0, false, false, true},
		{time.Second, false, false, true},
		{2 * time.Second, true, true, false},
		{3 * time.Second, true, false, true},
		{30 * time.Second, true, false, false},
		{31 * time.Second, false, false, true},
		{33 * time.Second, true, false, true}, // 30 s after the last time
		{90 * time.Second, true, false, false},
		{93 * time.Second, true, false, true}, // 60 s
	} {
		other.last = 0
		if step.yields {
			other.last = now + step.at
		}
		hangs.needed = step.trial
		if got := c.givesUp(hangs, &line{}, now+step.at); got != step.want {
			t.Errorf("%+v: %t", step, got)
		}
	}
}

// Everybody who watches is told of a change: a process could have had the gateway do
// nothing else.
func TestTrackThatIsDescribedAgainIsNoChange(t *testing.T) {
	s := &Stream{conf: &config.Stream{}, notice: newNotice()}
	e := &encoding{ring: newRing(media.Track{}), track: media.Track{Name: "video", Bps: 7}}
	r := &run{capture: &capture{stream: s}, byID: map[string]*encoding{"1": e}}
	changes := 0
	s.Watch(func(Info) { changes++ })
	for width := range 2 {
		for range 5 {
			r.Describe("1", media.Track{Name: "x", Width: 320 + width})
		}
	}
	if changes != 2 || e.track.Width != 321 || e.track.Bps != 7 || e.track.Name != "video" {
		t.Errorf("%d changes, %+v", changes, e.track)
	}
}
