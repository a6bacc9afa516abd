package signal

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gateway/internal/media"
	"gateway/internal/rtc"
)

// The little that signaling itself reads in session descriptions. What they mean
// as a whole is rtc's.

// receiving tells which kinds of media an offer receives, and in which codecs of
// ours, in the offer's order of sections. Text that isn't SDP yields nothing.
func receiving(offer string) map[media.Kind][]media.Codec {
	receives := make(map[media.Kind][]media.Codec)
	session := "sendrecv" // the default direction (RFC 8866 §6.7)
	var kind media.Kind
	var direction string
	var types []string
	end := func() { // of a media section
		if kind != 0 && (direction == "recvonly" || direction == "sendrecv") && receives[kind] == nil {
			receives[kind] = parseCodecs(kind, types)
		}
	}
	for line := range lines(offer) {
		switch key, value, _ := strings.Cut(line, ":"); {
		case strings.HasPrefix(line, "m="):
			end()
			kind, types, direction = 0, nil, session
			m := strings.Fields(line[2:])
			if len(m) < 4 || m[1] == "0" { // rejected
				continue
			}
			switch m[0] {
			case "video":
				kind = media.Video
			case "audio":
				kind = media.Audio
				for pt, name := range map[string]string{"0": "PCMU", "8": "PCMA"} { // static types need no rtpmap (RFC 3551 §6)
					if slices.Contains(m[3:], pt) {
						types = append(types, name)
					}
				}
			}
		case line == "a=sendrecv" || line == "a=recvonly" || line == "a=sendonly" || line == "a=inactive":
			if direction == "" {
				session = line[2:]
			} else {
				direction = line[2:]
			}
		case key == "a=rtpmap":
			if _, encoding, ok := strings.Cut(value, " "); ok {
				name, _, _ := strings.Cut(encoding, "/")
				types = append(types, name)
			}
		}
	}
	end()
	return receives
}

// fragment is what a client says in a PATCH (RFC 8840 §9).
type fragment struct {
	ufrag, pwd string
	candidates []*rtc.Candidate
	end        bool // no more candidates come
}

// parseFragment reads a trickle-ice-sdpfrag. Lines that it doesn't know are
// passed over (RFC 8840 §9.2).
func parseFragment(body string) (fragment, error) {
	var f fragment
	var mid *string
	sections := 0
	for line := range lines(body) {
		if line == "" {
			continue
		}
		if len(line) < 2 || line[1] != '=' {
			return f, fmt.Errorf("line %.40q is not SDP", line)
		}
		key, value, _ := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "m="):
			mid = nil
			sections++
		case key == "a=mid":
			if len(value) > 64 {
				return f, errors.New("mid is longer than 64 bytes")
			}
			mid = &value
		case key == "a=ice-ufrag":
			f.ufrag = value
		case key == "a=ice-pwd":
			f.pwd = value
		case line == "a=end-of-candidates":
			f.end = true
		case key == "a=candidate":
			if len(f.candidates) == maxCandidates {
				return f, fmt.Errorf("more than %d candidates", maxCandidates)
			}
			c := &rtc.Candidate{Candidate: line[2:], SDPMid: mid}
			if mid == nil {
				c.SDPMLineIndex = new(uint16(max(sections-1, 0)))
			}
			f.candidates = append(f.candidates, c)
		}
	}
	// RFC 8839 §5.4
	if f.ufrag != "" && !isICE(f.ufrag, 4) || f.pwd != "" && !isICE(f.pwd, 22) {
		return f, errors.New("ice-ufrag or ice-pwd is malformed")
	}
	for _, c := range f.candidates {
		if f.ufrag != "" {
			c.UsernameFragment = &f.ufrag
		}
	}
	return f, nil
}

// isICE tells ice-chars of the lengths that RFC 8839 allows.
func isICE(s string, least int) bool {
	return len(s) >= least && len(s) <= 256 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/") == ""
}

// remoteUfrag is the ICE user fragment of a description, "" if it has none.
func remoteUfrag(sdp string) string {
	for line := range lines(sdp) {
		if v, ok := strings.CutPrefix(line, "a=ice-ufrag:"); ok {
			return v
		}
	}
	return ""
}

// restartedOffer is an offer again, with new ICE credentials and without its old
// candidates: what a client that restarts ICE by PATCH would offer, since all
// else stays as it was negotiated (RFC 9725 §4.3.3).
func restartedOffer(offer string, f fragment) string {
	var b strings.Builder
	for line := range lines(offer) {
		key, _, _ := strings.Cut(line, ":")
		switch key {
		case "", "a=candidate", "a=end-of-candidates":
			continue
		case "a=ice-ufrag":
			line = "a=ice-ufrag:" + f.ufrag
		case "a=ice-pwd":
			line = "a=ice-pwd:" + f.pwd
		}
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// answerFragment is the ICE part of an answer: its session-level ICE lines, and
// the first section that is used, on which the others are bundled.
func answerFragment(answer string) string {
	var b strings.Builder
	section := 0 // 0: session level, 1: the section, 2: after it
	for line := range lines(answer) {
		key, _, _ := strings.Cut(line, ":")
		if strings.HasPrefix(line, "m=") {
			m := strings.Fields(line)
			rejected := len(m) > 1 && m[1] == "0"
			switch {
			case section == 1:
				section = 2
			case section == 0 && !rejected:
				section = 1
				b.WriteString(line + "\r\n")
			case section == 0: // lines of a rejected section carry no ICE
			}
			continue
		}
		switch key {
		case "a=ice-lite", "a=ice-options", "a=group":
			if section == 0 {
				b.WriteString(line + "\r\n")
			}
		case "a=mid", "a=ice-ufrag", "a=ice-pwd", "a=candidate", "a=end-of-candidates":
			if section == 1 {
				b.WriteString(line + "\r\n")
			}
		}
	}
	return b.String()
}

// lines yields the lines of SDP text, which ends them by CRLF or LF.
func lines(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(text, "\n") {
			if !yield(strings.TrimSuffix(line, "\r")) {
				return
			}
		}
	}
}
