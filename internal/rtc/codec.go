package rtc

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gateway/internal/media"
)

// answerFormat picks, among what a peer offers on an m-line, the format in which
// a track can be sent to it.
func answerFormat(t media.Track, s *section) (format, bool) {
	var best *peerFormat
	bestRank := 0
	for i := range s.codecs {
		p := &s.codecs[i]
		if rank := fits(t, p); rank > bestRank {
			best, bestRank = p, rank
		}
	}
	if best == nil {
		return format{}, false
	}
	f := format{codec: t.Codec, pt: best.pt, fmtp: t.Fmtp}
	if t.Codec == media.H264 {
		f.fmtp = answerProfile(t.Fmtp, best.fmtp)
	}
	if t.Kind == media.Video {
		f.rtx, f.delayID, f.captureID = best.rtx, s.delayID, s.captureID
		for _, fb := range videoFeedback {
			if slices.Contains(best.feedback, fb) {
				f.feedback = append(f.feedback, fb)
			}
		}
	}
	f.transportID, f.ccfb = s.transport(best, f.rtx), s.ccfb(best)
	return f, true
}

// fits ranks how well a peer's format takes a track: 0 not at all, more is better.
func fits(t media.Track, p *peerFormat) int {
	if p.name != string(t.Codec) || p.clock != t.Codec.ClockRate() {
		return 0
	}
	switch t.Codec {
	case media.H264:
		return fitsH264(t.Fmtp, p.fmtp)
	case media.VP9: // RFC 9628 §6: profile 0 unless told otherwise
		return boolInt(orZero(parameter(t.Fmtp, "profile-id")) == orZero(parameter(p.fmtp, "profile-id")))
	case media.AV1:
		return boolInt(orZero(parameter(t.Fmtp, "profile")) == orZero(parameter(p.fmtp, "profile")))
	}
	return 1
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// profile is an H.264 profile as SDP tells it apart (RFC 6184 §8.1, table 5).
type profile string

const (
	constrainedBaseline profile = "constrained baseline"
	baseline            profile = "baseline"
	mainProfile         profile = "main"
	constrainedHigh     profile = "constrained high"
	high                profile = "high"
)

// decoders lists, for each profile of a stream, the profiles whose decoders can
// play it, best first: constrained baseline is a subset of all the others.
var decoders = map[profile][]profile{
	constrainedBaseline: {constrainedBaseline, baseline, mainProfile, constrainedHigh, high},
	baseline:            {baseline},
	mainProfile:         {mainProfile, high},
	constrainedHigh:     {constrainedHigh, high},
	high:                {high},
}

func parseProfile(levelID string) profile {
	b, err := hex.DecodeString(levelID)
	if err != nil || len(b) != 3 {
		return ""
	}
	idc, iop := b[0], b[1]
	switch {
	case idc == 0x42 && iop&0x4f == 0x40, idc == 0x4d && iop&0x8f == 0x80, idc == 0x58 && iop&0xcf == 0xc0:
		return constrainedBaseline
	case idc == 0x42 && iop&0x4f == 0, idc == 0x58 && iop&0xcf == 0x80:
		return baseline
	case idc == 0x4d && iop&0xaf == 0:
		return mainProfile
	case idc == 0x64 && iop == 0:
		return high
	case idc == 0x64 && iop == 0x0c:
		return constrainedHigh
	}
	return profile(fmt.Sprintf("%02x%02x", idc, iop))
}

// fitsH264 compares a stream's parameters with an offered format's. A format
// without parameters takes anything: simple clients write none. Without
// packetization-mode it would be 0, which forbids the fragments that are sent;
// so one that says 0 is refused, and one that says nothing comes last.
func fitsH264(stream, offered string) int {
	if mode := parameter(offered, "packetization-mode"); mode == "0" || mode == "2" {
		return 0
	}
	rank := 1
	if parameter(offered, "packetization-mode") == "1" {
		rank += 10
	}
	want, have := parameter(stream, "profile-level-id"), parameter(offered, "profile-level-id")
	if want == "" || have == "" {
		return rank
	}
	ours, theirs := parseProfile(want), parseProfile(have)
	if ours == "" || theirs == "" {
		return 0
	}
	list, ok := decoders[ours]
	if !ok {
		list = []profile{ours}
	}
	i := slices.Index(list, theirs)
	if i < 0 {
		return 0
	}
	return rank + len(list) - i
}

// answerProfile is the stream's fmtp for an answer: the profile must be the
// offered one (RFC 6184 §8.2.2), the level stays the stream's.
func answerProfile(stream, offered string) string {
	ours, theirs := parameter(stream, "profile-level-id"), parameter(offered, "profile-level-id")
	if len(ours) != 6 || len(theirs) != 6 || parseProfile(ours) == parseProfile(theirs) {
		return stream
	}
	return strings.Replace(stream, ours, theirs[:4]+ours[4:], 1)
}

// best picks, among formats, the one that takes a track best.
func best(formats []format, t media.Track) (format, bool) {
	var found format
	rank := 0
	for _, f := range formats {
		if r := fits(t, &peerFormat{format: f, name: string(f.codec), clock: f.codec.ClockRate()}); r > rank {
			found, rank = f, r
		}
	}
	return found, rank > 0
}

// answerFmtp is a track's parameters in a format that takes it.
func answerFmtp(t media.Track, f format) string {
	if t.Codec == media.H264 {
		return answerProfile(t.Fmtp, f.fmtp)
	}
	return t.Fmtp
}

// sameProfile tells whether a format of the track's codec may stand for it under
// the same payload type: what identifies a format must not change (RFC 6184 §8.2.2,
// RFC 9628 §6.1.1).
func sameProfile(t media.Track, f format) bool {
	same := func(key string) bool { return orZero(parameter(t.Fmtp, key)) == orZero(parameter(f.fmtp, key)) }
	switch t.Codec {
	case media.H264:
		return parseProfile(parameter(t.Fmtp, "profile-level-id")) == parseProfile(parameter(f.fmtp, "profile-level-id")) && same("packetization-mode")
	case media.VP9, media.H265:
		return same("profile-id")
	case media.AV1:
		return same("profile")
	}
	return true
}

// names lists formats' codecs for people.
func names(formats []format) string {
	var all []string
	for _, f := range formats {
		if name := f.codec.MimeType(); !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return strings.Join(all, ", ")
}

// asksMore tells whether format parameters ask more of a decoder than others of the
// same profile.
func asksMore(a, b string) bool {
	if x, y := level(a), level(b); x != y {
		return x > y
	}
	if len(a) != len(b) {
		return len(a) > len(b) // stereo=1
	}
	return a > b
}

// level is the level in format parameters, in the codec's own unit; 0 if there is none.
func level(fmtp string) int {
	if id := parameter(fmtp, "profile-level-id"); len(id) == 6 { // RFC 6184 §8.1
		n, _ := strconv.ParseUint(id[4:], 16, 8)
		return int(n)
	}
	for _, key := range []string{"level-idx", "level-id"} { // AV1, H.265
		if n, err := strconv.Atoi(parameter(fmtp, key)); err == nil {
			return n
		}
	}
	return 0
}
