package viewer_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"image"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// TestDecoderMakesPictures feeds it what GStreamer encodes: a red picture.
func TestDecoderMakesPictures(t *testing.T) {
	gst, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	rig.Check(t, err)
	for codec, encode := range map[media.Codec]string{
		media.H264: "x264enc tune=zerolatency ! rtph264pay config-interval=-1",
		media.VP8:  "vp8enc deadline=1 ! rtpvp8pay",
	} {
		t.Run(string(codec), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			pictures := make(chan *image.RGBA, 100)
			d, err := viewer.NewDecoder(codec, 160, 90, func(p *image.RGBA) { pictures <- p })
			rig.Check(t, err)
			rig.End(t, "decoder", d.Close)
			read, write := io.Pipe()
			source, err := rig.Start(rig.Command{Path: gst, Output: write, Args: append([]string{"-q"}, strings.Fields(
				"videotestsrc is-live=true num-buffers=60 pattern=red ! video/x-raw,width=320,height=180,framerate=30/1 ! "+encode+" ! rtpstreampay ! fdsink sync=false")...)})
			rig.Check(t, err)
			rig.End(t, "source", source.Close)
			go func() {
				<-source.Done()
				write.Close()
			}()
			for stream := bufio.NewReader(read); ; {
				var size [2]byte
				if _, err := io.ReadFull(stream, size[:]); err != nil {
					break
				}
				raw := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(stream, raw); err != nil {
					t.Fatal(err)
				}
				packet := new(rtp.Packet)
				rig.Check(t, packet.Unmarshal(raw))
				rig.Check(t, d.Write(packet))
			}
			for n := range 30 {
				select {
				case p := <-pictures:
					if c := p.RGBAAt(80, 45); c.R < 200 || c.G > 50 || c.B > 50 {
						t.Fatalf("picture %d is %v in its middle, want red", n, c)
					}
				case <-ctx.Done():
					t.Fatalf("%d pictures", n)
				}
			}
		})
	}
}
