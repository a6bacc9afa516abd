// Package traffic records what a real pipeline yields, launched by package gst as
// the product does it, and plays it again in its own rhythm: the same buffers for
// whatever is to be compared.
package traffic

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/media"
)

// Recording is a run of a track's buffers that begins with a keyframe, so that
// it can be played in a loop.
type Recording struct {
	Track   media.Track
	Length  time.Duration // from one turn of the loop to the next
	Buffers []Buffer
}

// Buffer is a media.Buffer with its payloads.
type Buffer struct {
	At                   time.Duration // when it left the pipeline, since the first
	Capture              time.Duration // when its frame was captured, since the first
	Start, End, Keyframe bool
	Level                int // media.Buffer's
	Payloads             [][]byte
	Padding              []int // media.Packet's, of each
}

// Record runs the video of a pipeline file's text and records that many seconds
// after the first two, in which the encoder finds its rate. Payloaded asks for the
// packets of rtph264pay as they are, which the gateway else makes anew.
func Record(ctx context.Context, text string, payloaded bool, seconds int) (*Recording, error) {
	conf, err := config.ParseStream("traffic", "traffic.yaml", []byte(text), nil)
	if err != nil {
		return nil, err
	}
	gst.Init()
	plan, err := config.Compile(conf, gst.NewRegistry())
	if err != nil {
		return nil, err
	}
	feed := plan.Feeds[0]
	branch := feed.Branches[0]
	branch.Copy = branch.Copy || payloaded // what is passed through keeps its packets
	sink := &sink{buffers: make(chan *media.Buffer, 1000), failed: make(chan error, 1), track: branch.Track}
	p, err := gst.Launch(ctx, conf.Name, &feed, sink, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	r, err := sink.record(ctx, p, &branch, time.Duration(seconds)*time.Second)
	return r, errors.Join(err, p.Close())
}

// sink is gst's.
type sink struct {
	buffers chan *media.Buffer
	failed  chan error
	track   media.Track
}

func (s *sink) Deliver(_ string, b *media.Buffer) { s.buffers <- b }
func (s *sink) Describe(_ string, _ media.Track)  {}
func (s *sink) Dropped(string, int)               {}
func (s *sink) Ended(_ string, err error)         { s.fail(err) }
func (s *sink) Fail(err error)                    { s.fail(err) }
func (s *sink) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

const settle = 2 * time.Second

func (s *sink) record(ctx context.Context, p *gst.Pipeline, branch *config.Branch, length time.Duration) (*Recording, error) {
	if err := p.Start(ctx, "video", branch); err != nil {
		return nil, err
	}
	r := &Recording{Track: s.track}
	var began, first media.Buffer // their times
	for {
		select {
		case b := <-s.buffers:
			if began.Capture == 0 {
				began.Capture = b.Capture
			}
			if len(r.Buffers) == 0 {
				if !b.Start || !b.Keyframe || b.Capture < began.Capture+settle {
					b.Release()
					continue
				}
				first.Capture, first.Arrived = b.Capture, b.Arrived
			} else if b.Start && b.Keyframe && b.Capture >= first.Capture+length {
				r.Length = b.Capture - first.Capture
				b.Release()
				return r, nil
			}
			r.add(b, first.Capture, first.Arrived)
			b.Release()
		case err := <-s.failed:
			return nil, fmt.Errorf("pipeline: %w", err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Recording) add(b *media.Buffer, capture, arrived time.Duration) {
	c := Buffer{At: b.Arrived - arrived, Capture: b.Capture - capture, Start: b.Start, End: b.End, Keyframe: b.Keyframe, Level: b.Level}
	for i := range b.Len() {
		c.Payloads = append(c.Payloads, append([]byte(nil), b.Payload(i)...))
		c.Padding = append(c.Padding, media.Packet{Buffer: b, I: i}.Padding())
	}
	r.Buffers = append(r.Buffers, c)
}

// Packets, Frames and Bytes (of payload) are those of one turn of the loop.
func (r *Recording) Packets() (packets, frames, bytes int) {
	for _, b := range r.Buffers {
		packets += len(b.Payloads)
		for _, p := range b.Payloads {
			bytes += len(p)
		}
		if b.End {
			frames++
		}
	}
	return packets, frames, bytes
}

// String tells the recording's shape.
func (r *Recording) String() string {
	packets, frames, bytes := r.Packets()
	most := 0
	for _, b := range r.Buffers {
		most = max(most, len(b.Payloads))
	}
	s := r.Length.Seconds()
	return fmt.Sprintf("%.0f frames/s, %.2f Mbit/s, %.0f packets/s of %d bytes in the mean; a frame is %.1f packets in %.1f buffers, the largest buffer %d packets",
		float64(frames)/s, float64(8*bytes)/s/1e6, float64(packets)/s, bytes/packets,
		float64(packets)/float64(frames), float64(len(r.Buffers))/float64(frames), most)
}

// Play calls f with each buffer when it is due, speed times as fast as it was
// recorded, in a loop until ctx is done. The capture times given go on over the
// turns, at the recorded pace.
func (r *Recording) Play(ctx context.Context, speed float64, f func(b *Buffer, capture time.Duration)) {
	begun := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for turn := time.Duration(0); ; turn += r.Length {
		for i := range r.Buffers {
			b := &r.Buffers[i]
			due := begun.Add(time.Duration(float64(turn+b.At) / speed))
			timer.Reset(time.Until(due))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			f(b, turn+b.Capture)
		}
	}
}

// Media is the buffer as a pipeline would deliver it.
func (b *Buffer) Media(capture time.Duration) *media.Buffer {
	size := 0
	for _, p := range b.Payloads {
		size += len(p)
	}
	m := media.NewBuffer(size)
	for _, p := range b.Payloads {
		m.Append(p)
	}
	m.Capture, m.Arrived = capture, media.Now()
	m.Start, m.End, m.Keyframe, m.Level = b.Start, b.End, b.Keyframe, b.Level
	return m
}

// Save writes the recording to a file, for Load in another process.
func (r *Recording) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(gob.NewEncoder(f).Encode(r), f.Close())
}

// Load reads what Save wrote.
func Load(path string) (*Recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := new(Recording)
	return r, gob.NewDecoder(f).Decode(r)
}
