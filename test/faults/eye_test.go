package faults

import (
	"context"
	"fmt"
	"math"
	"time"

	"gateway/test/gap"
	"gateway/test/rig"
	"gateway/test/strip"
)

// eye is what a page has rendered so far.
type eye struct {
	page   rig.Page
	frames []strip.Frame
}

// watch opens a stream's page and waits until it is live. The caller closes the page.
func (b *bench) watch(ctx context.Context, browser *rig.Chromium, stream string) (*eye, error) {
	page, err := browser.Open(ctx, b.gateway.URL("/watch/"+stream))
	if err != nil {
		return nil, err
	}
	e := &eye{page: page}
	err = strip.WaitVideo(ctx, page)
	if err == nil {
		err = strip.Follow(ctx, page, width, otherWidth)
	}
	if err == nil {
		err = e.waitLive(ctx, time.Now())
	}
	if err == nil {
		err = gap.Mark(ctx, page)
	}
	if err != nil {
		page.Close()
		return nil, fmt.Errorf("before the fault: %w", err)
	}
	return e, nil
}

// lost is said of a connection that wasn't kept.
const lost = "LOST"

// connection tells whether the page has kept the connection that it had.
func (e *eye) connection(ctx context.Context) (string, error) {
	seen, err := gap.Since(ctx, e.page, 0)
	if err != nil || seen.Same && seen.Joins == 1 {
		return "kept", err
	}
	return lost, nil
}

// outage is what it saw of a fault.
type outage struct {
	still        time.Duration // longest interval between two frames
	notLive      time.Duration // longest interval between two live frames
	back         time.Time     // when the latter ended
	placeholders int           // that were rendered in that
}

// placeholder tells whether a frame shows neither the strip as it was painted, be it long ago, nor black.
func placeholder(f strip.Frame) bool {
	for _, p := range f.Patches {
		if max(p[0], p[1], p[2]) > black {
			return !f.Live(math.Inf(1))
		}
	}
	return false
}

// black is the most that a colour of a black picture has, of 255.
const black = 24

// placeholders counts those since a moment.
func (e *eye) placeholders(since time.Time) (n int) {
	for _, f := range e.frames {
		if at(f).After(since) && placeholder(f) {
			n++
		}
	}
	return n
}

func at(f strip.Frame) time.Time { return time.UnixMicro(int64(f.At * 1000)) }

// look reads what is new.
func (e *eye) look(ctx context.Context) error {
	more, err := strip.Followed(ctx, e.page)
	e.frames = append(e.frames, more...)
	return err
}

// waitLive waits for enough live frames in a row that were rendered after a moment. A page that is
// just being loaded anew is no error.
func (e *eye) waitLive(ctx context.Context, after time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	var last strip.Frame
	err := rig.Until(ctx, "live frames", func() (bool, error) {
		if err := e.look(ctx); err != nil {
			return false, err
		}
		live := 0
		for _, f := range e.frames {
			if last = f; !at(f).After(after) {
				continue
			}
			if live++; !f.Live(fresh) {
				live = 0
			}
		}
		return live >= steady, nil
	})
	if err != nil {
		return fmt.Errorf("%w (%d frames, the last one %+v)", err, len(e.frames), last)
	}
	return nil
}

// waitGap waits until, after a moment, something else than live frames was rendered or nothing for
// a while, and returns when that ended or began.
func (e *eye) waitGap(ctx context.Context, after time.Time) (time.Time, error) {
	const gap = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	var found time.Time
	err := rig.Until(ctx, "the picture to stop", func() (bool, error) {
		if err := e.look(ctx); err != nil {
			return false, err
		}
		last := after
		for _, f := range e.frames {
			if !at(f).After(after) {
				continue
			}
			if found = at(f); !f.Live(fresh) || found.Sub(last) > gap {
				return true, nil
			}
			last = found
		}
		return false, nil
	})
	return found, err
}

// outage looks at what was rendered since a moment and a second before it.
func (e *eye) outage(struck time.Time) (o outage) {
	var last, live time.Time
	others := 0 // placeholders since live
	for _, f := range e.frames {
		now := at(f)
		if now.Before(struck.Add(-time.Second)) {
			continue
		}
		if !last.IsZero() {
			o.still = max(o.still, now.Sub(last))
		}
		last = now
		if !f.Live(fresh) {
			if placeholder(f) {
				others++
			}
			continue
		}
		if !live.IsZero() && now.Sub(live) > o.notLive {
			o.notLive, o.back, o.placeholders = now.Sub(live), now, others
		}
		live, others = now, 0
	}
	return o
}
