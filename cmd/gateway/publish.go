package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/h264reader"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"

	"gateway/client"
)

// publishing is the command publish.
type publishing struct {
	peer
	label, title string
	fps          float64 // of H.264, which doesn't tell
	rtp          string  // UDP address to read RTP from; "": a file
	codec        string  // of it
}

// source yields what is published, in real time, until ctx is done or it ends
// (io.EOF).
type source struct {
	track webrtc.TrackLocal
	run   func(ctx context.Context) error
}

// run publishes a file, standard input or RTP into the room of an address, and goes on
// in a gateway that was restarted. What comes meanwhile is passed over.
func (p *publishing) run(address, file string, stderr io.Writer) error {
	ctx, stop := interrupted()
	defer stop()
	s, closeSource, err := p.open(ctx, file)
	if err != nil {
		return err
	}
	defer closeSource()
	c, _, err := p.join(ctx, address)
	if err != nil {
		return err
	}
	ended, begun := make(chan error, 1), false
	reading, read := context.WithCancel(ctx) // until the source ends
	defer read()
	for err == nil {
		var published *client.Publication
		if published, err = c.Publish(ctx, p.label, p.title, s.track); err == nil {
			fmt.Fprintf(stderr, "gateway: published as %s in room %s\n", published.Name, p.room)
			if !begun {
				begun = true
				go func() {
					defer read()
					ended <- s.run(ctx)
				}()
			}
			select {
			case err := <-ended:
				if errors.Is(err, io.EOF) || ctx.Err() != nil {
					err = nil
				}
				return errors.Join(err, c.Close())
			case <-published.Done():
				err = published.Err()
			}
		}
		lost := client.Lost(c.Err())
		if closed := c.Close(); !lost {
			if !errors.Is(closed, err) { // which ended the client
				err = errors.Join(err, closed)
			}
			break
		}
		c, _, err = p.rejoin(reading, address, stderr)
	}
	interrupted, over := ctx.Err() != nil, reading.Err() != nil
	stop()
	closeSource() // a read that waits
	if begun {
		if told := <-ended; over {
			err = told // rather than that the gateway is away
		}
	}
	if interrupted || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

var mimes = map[string]string{
	"h264": webrtc.MimeTypeH264, "vp8": webrtc.MimeTypeVP8, "vp9": webrtc.MimeTypeVP9, "av1": webrtc.MimeTypeAV1, "opus": webrtc.MimeTypeOpus,
}

// open finds out what is to be published: Annex B, IVF and Ogg are known by how they
// begin.
func (p *publishing) open(ctx context.Context, file string) (source, func() error, error) {
	if p.rtp != "" {
		return p.listen(ctx)
	}
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return source{}, nil, err
		}
	}
	s, err := p.read(in, file)
	if err != nil {
		in.Close()
	}
	return s, in.Close, err
}

func (p *publishing) read(in io.Reader, name string) (source, error) {
	r := bufio.NewReader(in)
	magic, err := r.Peek(4)
	if err != nil {
		return source{}, fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case string(magic) == "DKIF":
		return readIVF(r)
	case string(magic) == "OggS":
		return readOgg(r)
	case magic[0] == 0 && magic[1] == 0:
		return readH264(r, p.fps)
	}
	return source{}, fmt.Errorf("%s: neither H.264 (Annex B) nor IVF nor Ogg", name)
}

// capability is a codec as it is offered. Of H.264 the baseline stands for all that
// is in a file: what forwards it doesn't decode.
func capability(codec string) webrtc.RTPCodecCapability {
	c := webrtc.RTPCodecCapability{MimeType: mimes[codec]}
	if codec == "h264" {
		c.SDPFmtpLine = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	}
	return c
}

func sample(codec, id string) (*webrtc.TrackLocalStaticSample, error) {
	return webrtc.NewTrackLocalStaticSample(capability(codec), id, "gateway")
}

// pace waits until the time of what is written next.
func pace(ctx context.Context, begun time.Time, at time.Duration) error {
	timer := time.NewTimer(time.Until(begun.Add(at)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func readIVF(in io.Reader) (source, error) {
	r, header, err := ivfreader.NewWith(in)
	if err != nil {
		return source{}, err
	}
	codec, ok := map[string]string{"VP80": "vp8", "VP90": "vp9", "AV01": "av1"}[header.FourCC]
	if !ok {
		return source{}, fmt.Errorf("IVF of %q isn't known", header.FourCC)
	}
	track, err := sample(codec, "video")
	// the reader has multiplied what the file says with the rate
	rate := float64(header.TimebaseDenominator) / float64(header.TimebaseNumerator)
	at := func(timestamp uint64) time.Duration {
		return time.Duration(float64(timestamp) / rate / rate * float64(time.Second))
	}
	return source{track, func(ctx context.Context) error {
		begun, last := time.Now(), time.Duration(0)
		for {
			data, frame, err := r.ParseNextFrame()
			if err != nil {
				return err
			}
			now := at(frame.Timestamp)
			if err := pace(ctx, begun, now); err != nil {
				return err
			}
			if err := track.WriteSample(media.Sample{Data: data, Duration: now - last}); err != nil {
				return err
			}
			last = now
		}
	}}, err
}

func readOgg(in io.Reader) (source, error) {
	r, _, err := oggreader.NewWith(in)
	if err != nil {
		return source{}, err
	}
	track, err := sample("opus", "audio")
	return source{track, func(ctx context.Context) error {
		begun, last := time.Now(), uint64(0)
		for {
			data, page, err := r.ParseNextPage()
			if err != nil {
				return err
			}
			if page.GranulePosition == 0 { // headers
				continue
			}
			length := time.Duration(page.GranulePosition-last) * time.Second / 48000 // RFC 7845 §4
			if err := pace(ctx, begun, time.Duration(last)*time.Second/48000); err != nil {
				return err
			}
			if err := track.WriteSample(media.Sample{Data: data, Duration: length}); err != nil {
				return err
			}
			last = page.GranulePosition
		}
	}}, err
}

func readH264(in io.Reader, fps float64) (source, error) {
	r, err := h264reader.NewReader(in)
	if err != nil {
		return source{}, err
	}
	track, err := sample("h264", "video")
	frame := time.Duration(float64(time.Second) / fps)
	return source{track, func(ctx context.Context) error {
		begun, n := time.Now(), 0
		for {
			nal, err := r.NextNAL()
			if err != nil {
				return err
			}
			var length time.Duration // of what is no picture
			if t := nal.UnitType; t == h264reader.NalUnitTypeCodedSliceNonIdr || t == h264reader.NalUnitTypeCodedSliceIdr {
				length = frame
				n++
				if err := pace(ctx, begun, time.Duration(n)*frame); err != nil {
					return err
				}
			}
			if err := track.WriteSample(media.Sample{Data: nal.Data, Duration: length}); err != nil {
				return err
			}
		}
	}}, err
}

// listen takes RTP from a UDP port, as it comes.
func (p *publishing) listen(ctx context.Context) (source, func() error, error) {
	if mimes[p.codec] == "" {
		return source{}, nil, errors.New("-rtp needs -codec h264, vp8, vp9, av1 or opus")
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", p.rtp)
	if err != nil {
		return source{}, nil, err
	}
	track, err := webrtc.NewTrackLocalStaticRTP(capability(p.codec), "media", "gateway")
	return source{track, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		b := make([]byte, 1600)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return err
			}
			if _, err := track.Write(b[:n]); err != nil {
				continue // no RTP
			}
		}
	}}, conn.Close, err
}
