package viewer

import (
	"encoding/binary"
	"fmt"
	"image"
	"io"
	"strings"
	"sync"

	"github.com/pion/rtp"

	"gateway/internal/media"
	"gateway/test/rig"
)

// Decoder makes pictures or sound of a track's RTP packets, by gst-launch-1.0 in
// a process of its own.
type Decoder struct {
	process *rig.Process
	in      *io.PipeWriter // to its standard input
	out     *io.PipeWriter // from its standard output
	reading sync.WaitGroup

	mu  sync.Mutex // guards err; held across a write
	err error
}

var depayloaders = map[media.Codec]string{
	media.H264: "H264 ! rtpstreamdepay ! rtph264depay ! h264parse ! avdec_h264",
	media.VP8:  "VP8 ! rtpstreamdepay ! rtpvp8depay ! vp8dec",
	media.VP9:  "VP9 ! rtpstreamdepay ! rtpvp9depay ! vp9dec",
	media.Opus: "OPUS ! rtpstreamdepay ! rtpopusdepay ! opusdec",
	media.PCMU: "PCMU ! rtpstreamdepay ! rtppcmudepay ! mulawdec",
	media.PCMA: "PCMA ! rtpstreamdepay ! rtppcmadepay ! alawdec",
}

// NewDecoder starts a decoder that calls onPicture for each picture, scaled to
// width by height, on a goroutine of its own.
func NewDecoder(codec media.Codec, width, height int, onPicture func(*image.RGBA)) (*Decoder, error) {
	out := fmt.Sprintf("videoconvert ! videoscale ! video/x-raw,format=RGBA,width=%d,height=%d,pixel-aspect-ratio=1/1", width, height)
	return newDecoder(codec, out, func() ([]byte, func()) {
		picture := image.NewRGBA(image.Rect(0, 0, width, height))
		return picture.Pix, func() { onPicture(picture) }
	})
}

// SoundRate is how many samples a second there are of decoded sound.
const SoundRate = 48000

// NewSoundDecoder starts a decoder that calls onSound for each tenth of a second
// of sound, mono, from -1 to 1, on a goroutine of its own.
func NewSoundDecoder(codec media.Codec, onSound func([]float64)) (*Decoder, error) {
	out := fmt.Sprintf("audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=%d,channels=1", SoundRate)
	return newDecoder(codec, out, func() ([]byte, func()) {
		raw := make([]byte, 2*SoundRate/10)
		return raw, func() {
			samples := make([]float64, len(raw)/2)
			for i := range samples {
				samples[i] = float64(int16(binary.LittleEndian.Uint16(raw[2*i:]))) / (1 << 15)
			}
			onSound(samples)
		}
	})
}

// newDecoder starts a decoder whose output, after the elements of out, is read
// piece by piece: piece returns what to read one into, and what to call then.
func newDecoder(codec media.Codec, out string, piece func() ([]byte, func())) (*Decoder, error) {
	path, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	if err != nil {
		return nil, err
	}
	depay, ok := depayloaders[codec]
	if !ok {
		return nil, fmt.Errorf("decoder: no way to decode %s", codec)
	}
	in, write := io.Pipe()
	read, from := io.Pipe()
	d := &Decoder{in: write, out: from}
	// RFC 4571 framing carries RTP over a pipe. The queue lets the decoder's
	// output wait without stopping its input.
	launch := fmt.Sprintf("fdsrc fd=0 ! application/x-rtp-stream,media=%s,payload=96,clock-rate=%d,encoding-name=%s ! %s ! queue ! fdsink fd=1 sync=false",
		codec.Kind(), codec.ClockRate(), depay, out)
	d.process, err = rig.Start(rig.Command{Path: path, Args: append([]string{"-q"}, strings.Fields(launch)...), Input: in, Output: from})
	if err != nil {
		return nil, err
	}
	go func() {
		// a decoder that ends must not leave its writer waiting
		<-d.process.Done()
		in.CloseWithError(fmt.Errorf("decoder: it ended:\n%s", d.process.Log()))
	}()
	d.reading.Add(1)
	go func() {
		defer d.reading.Done()
		for {
			room, done := piece()
			if _, err := io.ReadFull(read, room); err != nil {
				return
			}
			done()
		}
	}()
	return d, nil
}

// Write gives the decoder a packet. Packets must come in order; it may block
// while the decoder is busy.
func (d *Decoder) Write(packet *rtp.Packet) error {
	raw, err := packet.Marshal()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		_, d.err = d.in.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...))
	}
	return d.err
}

// Close ends the decoder; pictures that aren't out yet are lost.
func (d *Decoder) Close() error {
	d.in.Close()
	err := d.process.Close()
	d.out.Close()
	d.reading.Wait()
	return err
}
