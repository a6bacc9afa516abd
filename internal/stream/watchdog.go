package stream

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"gateway/internal/media"
)

// What a watchdog's times are where neither the file nor the source's row in
// config's table says otherwise.
const (
	startWithin   = 10 * time.Second // from launching to playing, and from that to the first frame
	pictureWithin = 3 * time.Second  // without a picture a running pipeline counts as stuck
	soundWithin   = 10 * time.Second // likewise without sound, which may be sent only while there is some
	fewFrames     = 10               // frame intervals that it has in any case

	lately = 2500 * time.Millisecond // who has yielded a frame so long ago does, unless its frames are rarer
)

var (
	errNoFrame = errors.New("no first frame")
	errStalled = errors.New("no frame")
)

// patience is how long a launch may take, and then the first frame.
func (s *Stream) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.conf.Watchdog.Start, startWithin)
}

// silence is how long a running encoding may yield nothing.
func (e *encoding) silence() time.Duration {
	s := e.capture.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	usual := pictureWithin
	if e.base.Track.Kind == media.Audio {
		usual = soundWithin
	}
	return cmp.Or(s.conf.Watchdog.Frames, e.capture.feed.Silence, usual)
}

// frames is how long an encoding takes for some frames, if that is known. The caller
// holds ring.mu.
func (e *encoding) frames(n float64) time.Duration {
	if e.track.FPS <= 0 {
		return 0
	}
	return time.Duration(n * float64(time.Second) / e.track.FPS)
}

// stale tells for how long nothing came of a running encoding, if that is too long: a
// pipeline that neither yields nor fails. The error is an errNoFrame or an errStalled.
func (e *encoding) stale(now time.Duration) error {
	patience, silence := e.capture.stream.patience(), e.silence()
	r := e.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.started == 0:
		return nil
	case e.last == 0:
		if now-e.started > patience {
			return fmt.Errorf("%w within %v of the start", errNoFrame, patience)
		}
		return nil
	}
	if limit := max(silence, e.frames(fewFrames)); now-e.last > limit {
		return fmt.Errorf("%w for %v", errStalled, limit)
	}
	return nil
}

// yields tells whether frames come of the encoding.
func (e *encoding) yields(now time.Duration) bool {
	r := e.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.started != 0 && e.last != 0 && now-e.last < max(lately, e.frames(2))
}
