package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/h264writer"
	"github.com/pion/webrtc/v4/pkg/media/ivfwriter"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	"gateway/client"
)

// watching is the command watch.
type watching struct {
	peer
	rendition, out string
	length         time.Duration // 0: until it is interrupted
}

// run watches the stream of an address, or all of a room's, and prints once a second
// what comes. Without a file, which would not go on where it was, it joins anew when the
// gateway was restarted.
func (w *watching) run(address string, stdout, stderr io.Writer) error {
	ctx, stop := interrupted()
	defer stop()
	if w.length > 0 {
		ctx, stop = context.WithTimeout(ctx, w.length)
		defer stop()
	}
	sink := &sink{path: w.out, stdout: stdout}
	report := stdout
	if w.out == "-" {
		report = stderr
	}
	c, joined, err := w.join(ctx, address)
	for err == nil {
		if err = w.watch(ctx, c, joined, sink, report); ctx.Err() != nil || w.out != "" || !client.Lost(err) {
			break
		}
		c, joined, err = w.rejoin(ctx, address, stderr)
	}
	return errors.Join(err, sink.close())
}

// watch is one session.
func (w *watching) watch(ctx context.Context, c *client.Client, joined *client.Joined, sink *sink, report io.Writer) error {
	names := []string{w.stream}
	if w.stream == "" {
		names = nil
		for _, s := range joined.Streams {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		return errors.Join(fmt.Errorf("room %s has no stream", w.room), c.Close())
	}
	var wait sync.WaitGroup
	for _, name := range names {
		one, err := c.Watch(ctx, name, w.rendition)
		if err != nil {
			return errors.Join(fmt.Errorf("watch %s: %w", name, err), c.Close())
		}
		wait.Go(func() {
			for {
				track, err := one.Track(ctx)
				if err != nil {
					return
				}
				wait.Go(func() { count(ctx, track, sink, report) })
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-c.Done():
	}
	err := c.Close()
	wait.Wait()
	return err
}

// count reads a track until it ends, and prints what came each second.
func count(ctx context.Context, track *client.Track, out *sink, report io.Writer) {
	var bytes, frames, lost, packets int
	var codec string
	var next uint16
	since := time.Now()
	for {
		p, err := track.Read(ctx)
		if err != nil {
			return
		}
		if packets > 0 || codec != "" {
			if gap := int16(p.SequenceNumber - next); gap > 0 {
				lost += int(gap)
			} else if gap < 0 {
				lost = max(lost-1, 0) // it came late
			}
		}
		if int16(p.SequenceNumber-next) >= 0 || codec == "" {
			next = p.SequenceNumber + 1
		}
		_, codec, _ = strings.Cut(p.Codec.MimeType, "/")
		packets++
		bytes += len(p.Payload)
		if p.Marker || track.Kind == webrtc.RTPCodecTypeAudio {
			frames++
		}
		if err := out.write(track.Kind, p); err != nil {
			fmt.Fprintln(report, "gateway:", err)
			return
		}
		if passed := time.Since(since).Seconds(); passed >= 1 {
			fmt.Fprintf(report, "%s\t%s\t%s\t%.0f kbit/s\t%.1f fps\t%.1f %% lost\n", track.Stream, track.Kind, codec,
				float64(bytes)*8/1000/passed, float64(frames)/passed, 100*float64(lost)/float64(lost+packets))
			since, bytes, frames, lost, packets = time.Now(), 0, 0, 0, 0
		}
	}
}

// sink writes the first track of the kind that its file is for: .ogg is sound, all
// else is video.
type sink struct {
	path   string // "": none; "-": standard output
	stdout io.Writer

	mu     sync.Mutex // guards below
	writer media.Writer
	mime   string
	order  order
}

func (s *sink) write(kind webrtc.RTPCodecType, p client.Packet) error {
	wanted := webrtc.RTPCodecTypeVideo
	if strings.HasSuffix(s.path, ".ogg") {
		wanted = webrtc.RTPCodecTypeAudio
	}
	if s.path == "" || kind != wanted || len(p.Payload) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer == nil {
		if err := s.open(p.Codec.MimeType); err != nil {
			return err
		}
	}
	if p.Codec.MimeType != s.mime {
		return fmt.Errorf("%s: it was begun with %s, and %s comes", s.path, s.mime, p.Codec.MimeType)
	}
	for _, p := range s.order.add(p.Packet) {
		if err := s.writer.WriteRTP(p); err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
	}
	return nil
}

func (s *sink) open(mime string) (err error) {
	out := s.stdout
	if s.path != "-" {
		if out, err = os.Create(s.path); err != nil {
			return err
		}
	}
	s.mime = mime
	switch {
	case strings.EqualFold(mime, webrtc.MimeTypeH264):
		s.writer = h264writer.NewWith(out)
	case strings.EqualFold(mime, webrtc.MimeTypeOpus):
		s.writer, err = oggwriter.NewWith(out, 48000, 2)
	default:
		s.writer, err = ivfwriter.NewWith(out, ivfwriter.WithCodec(mime), ivfwriter.WithDirectPTS(), ivfwriter.WithFrameRate(1, 90000))
	}
	return err
}

func (s *sink) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer == nil || s.path == "-" {
		return nil
	}
	return s.writer.Close()
}

// order puts packets that came late into their place, as long as few wait.
type order struct {
	next    uint16
	begun   bool
	waiting map[uint16]*rtp.Packet
}

const maxWaiting = 128 // packets for one that is missing

func (o *order) add(p *rtp.Packet) (ready []*rtp.Packet) {
	if !o.begun {
		o.begun, o.next, o.waiting = true, p.SequenceNumber, make(map[uint16]*rtp.Packet)
	}
	if int16(p.SequenceNumber-o.next) < 0 {
		return nil // too late, or twice
	}
	o.waiting[p.SequenceNumber] = p
	for len(o.waiting) > 0 {
		if p, ok := o.waiting[o.next]; ok {
			ready = append(ready, p)
			delete(o.waiting, o.next)
		} else if len(o.waiting) <= maxWaiting {
			return ready
		}
		o.next++
	}
	return ready
}
