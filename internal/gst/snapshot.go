package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"github.com/go-gst/go-gst/gst"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"gateway/internal/media"
)

// snapshots admits one decoder at a time: a picture for a page must not take a
// core from the encoders.
var snapshots = make(chan struct{}, 1)

// Snapshot decodes one keyframe, given as the RTP payloads of its packets, and
// returns it as a JPEG at most width pixels wide. It blocks until that is done
// or ctx is.
func Snapshot(ctx context.Context, codec media.Codec, payloads [][]byte, width int) ([]byte, error) {
	Init()
	unit, err := depacketize(codec, payloads)
	if err != nil {
		return nil, err
	}
	select {
	case snapshots <- struct{}{}:
		defer func() { <-snapshots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g := &graph{about: "snapshot of " + string(codec)}
	var out *gst.Element
	err = bounded(ctx, g.about, func() (err error) {
		out, err = g.decode(codec, unit, width)
		return err
	}, func() { g.close() })
	if errors.Is(err, ErrStuck) {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	defer g.close()
	if err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		var sample C.pulled
		if C.pulled_take(element(out), C.GstClockTime(busTimeout), &sample) != 0 {
			jpeg := make([]byte, int(sample.bytes))
			n := C.pulled_copy_raw(&sample, (*C.guint8)(unsafe.Pointer(&jpeg[0])), C.gsize(len(jpeg)))
			return jpeg[:n], nil
		}
		if err := g.cause(nil); err != nil || sample.eos != 0 {
			return nil, errors.Join(errors.New("the keyframe can't be decoded"), err)
		}
	}
	return nil, ctx.Err()
}

// decode starts to decode one keyframe to a JPEG, which comes out of the appsink
// that it returns.
func (g *graph) decode(codec media.Codec, unit []byte, width int) (*gst.Element, error) {
	err := g.parse(fmt.Sprintf(
		// by RGB: jpegenc takes YUV of any matrix and range, and converts none to JFIF
		`appsrc name=in format=time caps="%s" ! decodebin ! videoscale ! videoconvert`+
			` ! video/x-raw,format=RGB,width=[1,%d],pixel-aspect-ratio=1/1`+
			` ! jpegenc quality=80 ! appsink name=out sync=false`,
		bitstreamCaps[codec], width))
	if err != nil {
		return nil, err
	}
	in, err := g.named("in")
	if err != nil {
		return nil, err
	}
	if _, err := g.changeState(gst.StatePlaying); err != nil {
		return nil, err
	}
	if C.push_only(element(in), (*C.guint8)(unsafe.Pointer(&unit[0])), C.gsize(len(unit))) == 0 {
		return nil, g.cause(errors.New("the decoder takes no data"))
	}
	return g.named("out")
}

// bitstreamCaps describes what depacketize returns.
var bitstreamCaps = map[media.Codec]string{
	media.H264: "video/x-h264,stream-format=byte-stream,alignment=au",
	media.VP8:  "video/x-vp8",
	media.VP9:  "video/x-vp9",
	media.AV1:  "video/x-av1,stream-format=obu-stream,alignment=tu",
}

// depacketize joins the payloads of one frame to the bitstream they were made of.
func depacketize(codec media.Codec, payloads [][]byte) ([]byte, error) {
	var d rtp.Depacketizer
	switch codec {
	case media.H264:
		d = &codecs.H264Packet{}
	case media.VP8:
		d = &codecs.VP8Packet{}
	case media.VP9:
		d = &codecs.VP9Packet{}
	case media.AV1:
		d = &codecs.AV1Depacketizer{}
	default:
		return nil, fmt.Errorf("no pictures of %s", codec)
	}
	var unit []byte
	sliced := false // a slice has been seen
	for _, p := range payloads {
		if codec == media.H264 && len(p) > 0 {
			if sliced && media.H264SPS(p) != nil {
				continue // repeated before a later slice, where it would begin another access unit (ITU-T H.264 §7.4.1.2.3)
			}
			switch p[0] & 0x1f {
			case 1, 5, 28: // slices, and what is fragmented (RFC 6184 §5.2)
				sliced = true
			}
		}
		part, err := d.Unmarshal(p)
		if err != nil {
			return nil, fmt.Errorf("%s payload: %w", codec, err)
		}
		unit = append(unit, part...)
	}
	if len(unit) == 0 {
		return nil, errors.New("empty keyframe")
	}
	return unit, nil
}
