package gst

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"html"
	"strings"
	"unsafe"

	"github.com/go-gst/go-gst/gst"

	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	placeholderFrames = 2   // that are encoded; those that are keyframes are kept
	placeholderTitle  = 80  // characters
	placeholderText   = 160 // characters
	wordsName         = "gateway_words"
)

// Placeholder makes a picture for viewers whose source is away: the last one, dimmed,
// or a dark card, with words over it where textoverlay is installed. It returns
// keyframes of that one picture, at least one, as RTP payloads. Whoever sends them again and
// again takes them by turns: in H.264 two IDR pictures in a row must differ in their
// idr_pic_id (ITU-T H.264 §7.4.3).
//
// It blocks until that is done, some 0.2 s for 720p, or ctx is.
func Placeholder(ctx context.Context, p *config.Placeholder) ([][][]byte, error) {
	Init()
	if len(p.Launches) == 0 {
		return nil, fmt.Errorf("there is no encoder for %s on the CPU", p.Codec)
	}
	select {
	case snapshots <- struct{}{}:
		defer func() { <-snapshots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var pictures [][]byte // bitstreams
	if unit, err := depacketize(p.Codec, p.Last); err == nil {
		pictures = append(pictures, unit)
	}
	pictures = append(pictures, nil) // the card
	var errs []error
	for _, launch := range p.Launches {
		for _, unit := range pictures {
			keyframes, err := still(ctx, p, unit, launch)
			if err == nil {
				return keyframes, nil
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				return nil, errors.Join(errs...)
			}
		}
	}
	return nil, errors.Join(errs...)
}

// still makes keyframes of one picture: a bitstream's, or a card.
func still(ctx context.Context, p *config.Placeholder, unit []byte, launch string) ([][][]byte, error) {
	g := &graph{about: "placeholder in " + string(p.Codec)}
	var out *gst.Element
	err := bounded(ctx, g.about, func() (err error) {
		out, err = g.still(p, unit, launch)
		return err
	}, func() { g.close() })
	if errors.Is(err, ErrStuck) {
		return nil, fmt.Errorf("%s: %w", g.about, err)
	}
	defer g.close()
	if err != nil {
		return nil, err
	}
	t := &tap{track: media.Track{Kind: media.Video, Codec: p.Codec}, facts: make([]C.packet_fact, 64)}
	var keyframes [][][]byte
	var frame [][]byte
	key := false
	for ctx.Err() == nil {
		var sample C.pulled
		if C.pulled_take(element(out), C.GstClockTime(busTimeout), &sample) == 0 {
			if err := g.cause(nil); err != nil {
				return nil, err
			}
			if sample.eos == 0 {
				continue
			}
			if len(keyframes) == 0 {
				return nil, errors.New("no keyframe came out")
			}
			return keyframes, nil
		}
		b, err := t.take(&sample)
		if err != nil {
			return nil, err
		}
		key = key || b.Keyframe
		for i := range b.Len() {
			frame = append(frame, append([]byte(nil), b.Payload(i)...))
		}
		if b.End {
			if key {
				keyframes = append(keyframes, frame)
			}
			frame, key = nil, false
		}
		b.Release()
	}
	return nil, ctx.Err()
}

// still begins to make a placeholder, whose packets come out of the appsink that it
// returns.
func (g *graph) still(p *config.Placeholder, unit []byte, launch string) (*gst.Element, error) {
	picture := "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xff22262d"
	if unit != nil {
		picture = fmt.Sprintf(`appsrc name=in format=time caps="%s" ! decodebin`, bitstreamCaps[p.Codec])
	}
	dim, words := "", ""
	if unit != nil && new(Registry).Installed("videobalance") {
		dim = " ! videobalance contrast=0.45 saturation=0.5"
	}
	if new(Registry).Installed("textoverlay") {
		words = " ! textoverlay name=" + wordsName + ` valignment=center halignment=center line-alignment=center wrap-mode=wordchar font-desc="Sans 18"`
	}
	err := g.parse(picture + " ! videoconvertscale ! video/x-raw,format=I420," + p.Picture() + dim +
		fmt.Sprintf(" ! imagefreeze num-buffers=%d ! video/x-raw,framerate=30/1", placeholderFrames) + words +
		" ! " + launch + " ! " + config.SinkText(packetsName) + " async=false")
	if err != nil {
		return nil, err
	}
	if words != "" {
		overlay, err := g.named(wordsName)
		if err != nil {
			return nil, err
		}
		if err := setText(overlay, "text", markup(p.Title, p.Text)); err != nil {
			return nil, err
		}
	}
	if _, err := g.changeState(gst.StatePlaying); err != nil {
		return nil, err
	}
	if unit != nil {
		in, err := g.named("in")
		if err != nil {
			return nil, err
		}
		if C.push_only(element(in), (*C.guint8)(unsafe.Pointer(&unit[0])), C.gsize(len(unit))) == 0 {
			return nil, g.cause(errors.New("the decoder takes no data"))
		}
	}
	return g.named(packetsName)
}

// markup is plain words as Pango's markup, which is what textoverlay reads.
func markup(title, text string) string {
	plain := func(s string, most int) string {
		if r := []rune(strings.ToValidUTF8(s, "")); len(r) > most {
			s = string(r[:most-1]) + "…"
		}
		return html.EscapeString(strings.ToValidUTF8(s, ""))
	}
	return "<b>" + plain(title, placeholderTitle) + "</b>\n" + plain(text, placeholderText)
}
