package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
)

const (
	trialTimeout = 3 * time.Second
	trialForget  = 10 * time.Minute // when what failed may be tried again: a device was busy, a driver was reloaded
	trialFrames  = 20               // fewer of large pictures, to bound memory
	trialBytes   = 64 << 20
)

// Trials remember what was tried of the encoders, and how it went. The methods may be
// called from any goroutine.
type Trials struct {
	encode func(text string) (fps float64, err error) // Encode, or another process's

	one sync.Mutex // held by a run: runs side by side would measure each other

	mu     sync.Mutex // guards below
	runs   map[string]*trial
	blamed map[string]blame // by the encoder row's name
}

// trial is a run of an encoder.
type trial struct {
	done chan struct{} // closed when the run has ended; what follows is set by then
	fps  float64
	err  error
	at   time.Time
}

type blame struct {
	err error
	at  time.Time
}

// NewTrials remembers what encode finds out, which is [Encode], or has it run in
// another process.
func NewTrials(encode func(text string) (fps float64, err error)) *Trials {
	return &Trials{encode: encode}
}

// Try tells whether an encoder really works here: see Trial.
func (r *Trials) Try(row config.Encoder, launch string, width, height int, fps float64) error {
	_, err := r.Trial(row, launch, width, height, fps)
	return err
}

// Trial encodes some frames of a moving picture, or some sound where width is 0, by
// a branch's launch text, and tells how many frames a second of wall time that
// came to; what fps says of the picture is its nominal rate. An error says why
// nothing usable came out, or why the row was blamed a while ago.
//
// It blocks for 3 s, those before it, and what a slow encoder takes to stop. One
// run serves all that ask for the same but for the bitrate: success counts for as
// long as the process lives, failure for ten minutes; an error that is Temporary
// isn't remembered.
func (r *Trials) Trial(row config.Encoder, launch string, width, height int, fps float64) (float64, error) {
	if err := r.Blamed(row.Name); err != nil {
		return 0, err
	}
	t, mine := r.find(trialKey(launch, width, height))
	if mine {
		r.one.Lock()
		t.fps, t.err = r.encode(trialText(row, launch, width, height, fps))
		t.at = time.Now()
		r.one.Unlock()
		close(t.done)
	}
	<-t.done
	return t.fps, t.err
}

// Blame remembers that an encoder failed in use: for ten minutes a Trial of its row
// gives err.
func (r *Trials) Blame(row string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blamed == nil {
		r.blamed = make(map[string]blame)
	}
	r.blamed[row] = blame{err, time.Now()}
}

// Blamed is why a row's encoder failed in use in the last ten minutes, or nil.
func (r *Trials) Blamed(row string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, is := r.blamed[row]
	if !is || time.Since(b.at) > trialForget {
		return nil
	}
	return fmt.Errorf("failed in use at %s: %w", b.at.Format(time.TimeOnly), b.err)
}

// find returns the run of that key. mine: the caller is the one to make it.
func (r *Trials) find(key string) (t *trial, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.runs[key]; t != nil {
		select {
		case <-t.done:
			if t.err == nil || time.Since(t.at) < trialForget && !passing(t.err) {
				return t, false
			}
		default:
			return t, false
		}
	}
	if r.runs == nil {
		r.runs = make(map[string]*trial)
	}
	t = &trial{done: make(chan struct{})}
	r.runs[key] = t
	return t, true
}

// passing tells whether an error says nothing of the encoder: it couldn't be tried.
func passing(err error) bool {
	var e interface{ Temporary() bool }
	return errors.As(err, &e) && e.Temporary()
}

// bitrates finds what a trial's outcome doesn't depend on.
var bitrates = regexp.MustCompile(`(bitrate|bps)=\d+`)

func trialKey(launch string, width, height int) string {
	return fmt.Sprintf("%dx%d %s", width, height, bitrates.ReplaceAllString(launch, "$1"))
}

// trialText is a pipeline that paints all pictures first and then encodes them as
// fast as it goes, so that the painting isn't measured. Its picture moves and has a
// corner of noise, as cameras have.
func trialText(row config.Encoder, launch string, width, height int, fps float64) string {
	source := fmt.Sprintf("audiotestsrc num-buffers=%d samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2", trialFrames)
	frames := trialFrames
	if width > 0 {
		format := "{I420,NV12}"
		if row.Format != "" {
			format = row.Format
		}
		frames = max(min(trialFrames, trialBytes/(width*height*3/2)), 4)
		source = fmt.Sprintf("videotestsrc pattern=smpte horizontal-speed=4 num-buffers=%d"+
			` ! video/x-raw,format=%s,width=%d,height=%d,framerate=%d/1000`, frames, format, width, height, int(fps*1000+0.5))
	}
	return fmt.Sprintf("%s ! queue max-size-bytes=0 max-size-time=0 max-size-buffers=%d min-threshold-buffers=%d ! %s ! %s async=false",
		source, frames+1, frames, launch, config.SinkText(packetsName))
}

// Encode runs a trial's pipeline to its end and returns the frames a second that it
// made. It blocks for 3 s, and what a slow encoder takes to stop.
func Encode(text string) (float64, error) {
	Init()
	ctx, cancel := context.WithTimeout(context.Background(), trialTimeout)
	defer cancel()
	g := &graph{about: text}
	var out *gst.Element
	err := bounded(ctx, g.about, func() (err error) {
		if err = g.parse(text); err != nil {
			return err
		}
		if out, err = g.named(packetsName); err != nil {
			return err
		}
		_, err = g.changeState(gst.StatePlaying)
		return err
	}, func() { g.close() })
	if errors.Is(err, ErrStuck) {
		return 0, err
	}
	defer g.close()
	if err != nil {
		return 0, err
	}
	frames, took, err := count(ctx, g, out)
	switch {
	case err != nil:
		return 0, err
	case frames == 0:
		return 0, fmt.Errorf("it yields no frame within %v", trialTimeout)
	case frames == 1:
		return 1 / trialTimeout.Seconds(), nil
	}
	return float64(frames-1) / max(took, time.Microsecond).Seconds(), nil
}

// count counts the frames that come out until the end or ctx is done, and the time
// from the first to the last.
func count(ctx context.Context, g *graph, out *gst.Element) (frames int, took time.Duration, err error) {
	var first, last time.Time
	stamp := C.GstClockTime(C.GST_CLOCK_TIME_NONE)
	for ctx.Err() == nil {
		var sample C.pulled
		if C.pulled_take(element(out), C.GstClockTime(busTimeout), &sample) != 0 {
			if running := sample.running; running != stamp { // a frame may come as several samples
				if stamp, last = running, time.Now(); frames == 0 {
					first = last
				}
				frames++
			}
			C.pulled_drop(&sample)
			continue
		}
		if err := g.cause(nil); err != nil {
			return frames, 0, err
		}
		if sample.eos != 0 {
			break
		}
	}
	return frames, last.Sub(first), g.cause(nil)
}
