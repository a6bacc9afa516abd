package config

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"gateway/internal/media"
)

// Placeholder is a picture to be made for the viewers of a track whose source is away.
type Placeholder struct {
	Codec         media.Codec
	Width, Height int      // pixels
	Launches      []string // from raw pictures of that size to packets, each picture a keyframe: the first that works
	Last          [][]byte // RTP payloads of the track's last keyframe; nil: there is none
	Title, Text   string   // what it says; plain text
}

// What a placeholder is made like.
const (
	placeholderWidth, placeholderHeight = 1280, 720 // where the track's size isn't known
	placeholderBps                      = 2_000_000 // of that size, at 30 frames a second: some 8 kB a picture
	placeholderLeast                    = 400_000
)

// Placeholder is one for a track, of any encoder of its codec that runs on the CPU:
// hardware may be what has failed. Its pictures are constrained baseline in H.264,
// which decoders of the other profiles take too (ITU-T H.264 §A.2). Launches is empty
// where no row of the table makes the codec.
func (t *Encoders) Placeholder(track media.Track) Placeholder {
	p := Placeholder{Codec: track.Codec, Width: track.Width &^ 1, Height: track.Height &^ 1}
	if p.Width <= 0 || p.Height <= 0 {
		p.Width, p.Height = placeholderWidth, placeholderHeight
	}
	bps := placeholderBps * (p.Width * p.Height) / (placeholderWidth * placeholderHeight)
	level := float64(media.H264Level(p.Width, p.Height, 1, bps, 0)) / 10
	for _, row := range t.For(track.Codec) {
		if row.Hardware || row.Convert != "" {
			continue
		}
		made := settings{bps: max(bps, placeholderLeast), keyint: 1, threads: 1, level: strconv.FormatFloat(level, 'f', -1, 64)}
		if len(row.Profiles) > 0 {
			made.profile = row.Profiles[0]
		}
		caps := "video/x-raw,format=" + row.Format
		if row.Colorimetry != "" {
			caps += ",colorimetry=" + row.Colorimetry
		}
		p.Launches = append(p.Launches, strings.Join(append([]string{"videoconvert", caps}, row.chain(made, nil)...), " ! "))
	}
	return p
}

// LogValue is what a log says of it.
func (p Placeholder) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprintf("%s %dx%d, a keyframe of %d packets", p.Codec, p.Width, p.Height, len(p.Last)))
}

// Picture is the size as caps have it.
func (p *Placeholder) Picture() string {
	return fmt.Sprintf("width=%d,height=%d,pixel-aspect-ratio=1/1", p.Width, p.Height)
}
