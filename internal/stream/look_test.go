package stream

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// What nobody tells of is found soon, however long it was away: a camera on the network
// that was back was seen up to 8 s later.
func TestSourceWhoseReturnNobodyTellsOfIsTriedMoreOften(t *testing.T) {
	for announced, every := range map[bool]time.Duration{false: 3 * time.Second / 2, true: 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			plan := one("x", vp8("video"))
			plan.Feeds[0].Announced = announced
			b.set(plan, errors.New("connection refused"))
			s := New(&config.Stream{Name: "desk"}, b, slog.New(slog.DiscardHandler))
			defer s.Close()
			time.Sleep(time.Minute) // of the bubble: the backoff has grown to its largest
			before := b.launches()
			time.Sleep(10 * every)
			if n := b.launches() - before; n != 10 {
				t.Errorf("announced %v: tried %d times in %v", announced, n, 10*every)
			}
		})
	}
}

// With the word that a device has come nothing waits for a poll or a backoff to pass:
// in the bubble time stands still while there is something to do.
func TestALookTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		gone := absent(fmt.Errorf("no camera: %w", media.ErrAbsent))
		b.set(gone, nil)
		s := New(&config.Stream{Name: "desk"}, b, slog.New(slog.DiscardHandler))
		defer s.Close()
		at := time.Now()
		soon := func(what string) *line {
			t.Helper()
			at = time.Now()
			s.Look()
			s.Look()
			l := <-b.launched
			if took := time.Since(at); took > 0 {
				t.Errorf("%s: launched after %v", what, took)
			}
			return l
		}
		synctest.Wait()
		if state := s.Info().State; state != Absent {
			t.Fatalf("state %s", state)
		}
		b.set(one("x", vp8("video")), nil)
		l := soon("an absent source")

		b.set(one("x", vp8("video")), errors.New("busy"))
		l.sink.Fail(errors.New("unplugged"))
		time.Sleep(time.Minute) // of the bubble: the backoff has grown to its largest
		b.set(one("x", vp8("video")), nil)
		l = soon("a source that failed")

		// it was unplugged, and had been told of already
		s.Look()
		synctest.Wait()
		at = time.Now()
		b.set(gone, nil)
		l.sink.Fail(errors.New("unplugged"))
		synctest.Wait()
		if state, took := s.Info().State, time.Since(at); state != Absent || took > 0 {
			t.Errorf("unplugged: %s after %v", state, took)
		}
	})
}
