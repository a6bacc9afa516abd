package media

import (
	"strconv"
	"strings"
)

// RaiseFmtp returns H.264 format parameters whose profile-level-id covers what
// the SPS says: the level is raised where the SPS exceeds it, and the profile
// follows the SPS. Parameters that cover it already are returned as they are: a
// receiver may be promised more than it is sent (RFC 6184 §8.1).
func RaiseFmtp(fmtp string, sps SPS) string {
	profile, level := signalledProfile(sps), sps.Level
	params := strings.Split(fmtp, ";")
	for i, p := range params {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(key, "profile-level-id") {
			continue
		}
		if n, err := strconv.ParseUint(value, 16, 24); err == nil && len(value) == 6 {
			if strings.EqualFold(value[:4], profile) && byte(n) >= level {
				return fmtp
			}
			if strings.EqualFold(value[:4], profile) {
				level = max(level, byte(n))
			}
		}
		params[i] = "profile-level-id=" + profile + strconv.FormatUint(uint64(level)|0x100, 16)[1:]
		return strings.Join(params, ";")
	}
	if fmtp == "" {
		fmtp = "level-asymmetry-allowed=1;packetization-mode=1"
	}
	return fmtp + ";profile-level-id=" + profile + strconv.FormatUint(uint64(level)|0x100, 16)[1:]
}

// signalledProfile is the profile half of profile-level-id in the spelling that
// browsers compare: what a constrained baseline or main stream sets beyond the
// flags that define its profile (RFC 6184 Table 5) is left out.
func signalledProfile(s SPS) string {
	switch {
	case s.Profile == H264Baseline && s.Constraints&0x40 != 0, s.Profile == H264Main && s.Constraints&0x80 != 0:
		return "42e0" // constrained baseline
	case s.Profile == H264Baseline:
		return "4200"
	case s.Profile == H264Main:
		return "4d00"
	case s.Profile == H264High && s.Constraints&0x0c == 0x0c:
		return "640c" // constrained high
	case s.Profile == H264High:
		return "6400"
	}
	return H264ProfileLevelID(s.Profile, s.Constraints, 0)[:4]
}
