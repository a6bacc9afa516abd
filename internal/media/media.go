// Package media holds the nouns that every part of the gateway shares: kinds
// and codecs, the tracks of a stream, the buffers in which packets travel, and
// the clock by which they are stamped.
//
// It does no I/O and starts no goroutines. What crosses from a pipeline to its
// stream is made of this package's values only, so that a pipeline can live in
// another process.
package media

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a kind of media.
type Kind uint8

// The kinds of media that a stream may have.
const (
	Video Kind = iota + 1
	Audio
)

// String returns "video" or "audio", as SDP and the browser spell them.
func (k Kind) String() string {
	switch k {
	case Video:
		return "video"
	case Audio:
		return "audio"
	}
	return "unknown"
}

// MarshalText writes the kind as String does.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(text []byte) error {
	switch string(text) {
	case "video":
		*k = Video
	case "audio":
		*k = Audio
	default:
		return fmt.Errorf("kind %q is unknown", text)
	}
	return nil
}

// Codec is a codec by the lower-case name that the YAML uses.
type Codec string

// The codecs that the gateway carries.
const (
	H264 Codec = "h264"
	H265 Codec = "h265"
	VP8  Codec = "vp8"
	VP9  Codec = "vp9"
	AV1  Codec = "av1"
	Opus Codec = "opus"
	PCMU Codec = "pcmu"
	PCMA Codec = "pcma"
)

// Codecs lists every codec of a kind, in the order of the documentation.
func Codecs(k Kind) []Codec {
	if k == Audio {
		return []Codec{Opus, PCMU, PCMA}
	}
	return []Codec{H264, VP8, VP9, AV1, H265}
}

// ParseCodec finds a codec by its name or its MIME type, in any case.
func ParseCodec(name string) (Codec, error) {
	name = strings.ToLower(name)
	if _, sub, ok := strings.Cut(name, "/"); ok {
		name = sub
	}
	c := Codec(name)
	if slices.Contains(Codecs(Video), c) || slices.Contains(Codecs(Audio), c) {
		return c, nil
	}
	return "", fmt.Errorf("codec %q is unknown", name)
}

// Kind tells whether the codec is for video or audio.
func (c Codec) Kind() Kind {
	if slices.Contains(Codecs(Audio), c) {
		return Audio
	}
	return Video
}

// ClockRate is the RTP clock rate in Hz (RFC 6184 §8.2.1, RFC 7741 §6.1,
// RFC 9628 §6, RFC 7587 §4.1, RFC 3551 §4.5.14).
func (c Codec) ClockRate() uint32 {
	switch c {
	case Opus:
		return 48000
	case PCMU, PCMA:
		return 8000
	}
	return 90000
}

// MimeType is the type as SDP and RTCRtpCodec spell it, such as "video/H264".
func (c Codec) MimeType() string {
	if c == Opus {
		return "audio/opus"
	}
	return c.Kind().String() + "/" + strings.ToUpper(string(c))
}

// Track describes one encoding that a stream offers to viewers: one kind of
// media, one rendition. It is a value: a changed track is a new value.
type Track struct {
	Name   string // rendition name, unique in its stream: "video", "audio", "high"
	Kind   Kind
	Codec  Codec
	Fmtp   string  // format parameters for SDP, such as "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	Width  int     // pixels; 0 while unknown, and for audio
	Height int     // pixels; 0 while unknown, and for audio
	FPS    float64 // frames a second; 0 while unknown, and for audio
	Bps    int     // configured bitrate in bit/s, at the start; 0 where the launch text rules
	MinBps int     // the least that it may be lowered to, bit/s; 0: as Bps
	MaxBps int     // the most that it may be raised to, bit/s; 0: as Bps
}

// Now reads the clock by which captures are stamped: CLOCK_MONOTONIC, in
// nanoseconds since an arbitrary start. It is the clock that GStreamer's system
// clock reads, and the same in every process of one boot.
//
// Go's own monotonic clock is the same one, read without a system call, but its
// zero isn't told: it is found once.
func Now() time.Duration { return begun.at + time.Since(begun.time) }

var begun = func() (b struct {
	time time.Time
	at   time.Duration
}) {
	for best := time.Hour; best > 0; { // until nothing came between the two readings
		var ts unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic("clock_gettime(CLOCK_MONOTONIC): " + err.Error()) // cannot fail with a valid clock and pointer
		}
		took := time.Since(before)
		if took >= best {
			break
		}
		best = took
		b.time, b.at = before, time.Duration(ts.Nano())-took/2
	}
	return b
}()

// RTPTime is the RTP timestamp of a moment on the capture clock, before a
// viewer's random offset (RFC 3550 §5.1). It wraps as RTP does. Every track of
// every pipeline derives its timestamps this way, so that a restarted pipeline
// continues where the old one was and the tracks of a stream stay in step.
func RTPTime(at time.Duration, rate uint32) uint32 {
	// seconds and the rest apart: nanoseconds × rate would overflow within days
	s, ns := int64(at/time.Second), int64(at%time.Second)
	return uint32(s*int64(rate) + (ns*int64(rate)+int64(time.Second)/2)/int64(time.Second))
}

// ErrAbsent says that what a pipeline captures isn't there now: no such device,
// no display, nothing at the other end. It may come; errors that wrap it tell
// people what is missing.
var ErrAbsent = errors.New("source is absent")

// ErrEnded says that what a pipeline captures came to its end: a file, or a
// connection that the other side closed in good order.
var ErrEnded = errors.New("the source has ended")

// ErrStuck says that a driver, a plugin or a server didn't answer in time. The call to it
// holds a thread of its process until it returns, which may be never.
var ErrStuck = errors.New("the source or an element doesn't answer")

// ErrUnplayable says that browsers don't play what a source has encoded by itself.
var ErrUnplayable = errors.New("browsers don't play it")
