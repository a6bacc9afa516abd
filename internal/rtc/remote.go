package rtc

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/ice/v4"
	"github.com/pion/sdp/v3"

	"gateway/internal/media"
)

// remote is a peer's session description, as far as it matters to a sender.
type remote struct {
	ufrag, pwd  string
	fingerprint string // "sha-256 AB:CD…"
	setup       string // active, passive, actpass or ""
	lite        bool
	trickle     bool
	bundled     bool // it has a BUNDLE group
	candidates  []string
	complete    bool // end-of-candidates
	sections    []*section
}

type section struct {
	media      string // "video", "audio", "application"
	protos     []string
	formats    []string // the m-line's, as text
	mid        string
	usable     bool // audio or video, not rejected, on the one transport
	data       bool // data channels, likewise
	maxMessage int  // bytes that a message on them may have
	receives   bool
	own        bool // what it sends is received without pion (see Publisher)
	codecs     []peerFormat

	// of header extensions that fit a one-byte header (RFC 8285 §4.2), 0: none
	delayID     uint8 // playout delay
	transportID uint8 // transport-wide sequence number
	captureID   uint8 // capture time
}

// peerFormat is a format that the peer names.
type peerFormat struct {
	format
	name  string // of the rtpmap, lower case
	clock uint32
}

func (s *section) kind() media.Kind {
	switch s.media {
	case "video":
		return media.Video
	case "audio":
		return media.Audio
	}
	return 0
}

func badSDP(text string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadSDP, fmt.Sprintf(text, args...))
}

// parseRemote reads a peer's description. What a sender needs must be there and
// sound; all else is ignored.
func parseRemote(text string) (*remote, error) {
	if len(text) > MaxSDP {
		return nil, badSDP("it has %d bytes, the limit is %d", len(text), MaxSDP)
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return nil, badSDP("%v", err)
	}
	if len(d.MediaDescriptions) == 0 {
		return nil, badSDP("it has no m-line")
	}
	r := &remote{}
	var group []string
	for _, a := range d.Attributes {
		switch a.Key {
		case "group":
			if words := strings.Fields(a.Value); len(words) > 0 && words[0] == "BUNDLE" && !r.bundled {
				r.bundled, group = true, words[1:]
			}
		case "ice-lite":
			r.lite = true
		}
	}
	mids := map[string]bool{}
	for i, m := range d.MediaDescriptions {
		s, err := parseSection(m)
		if err != nil {
			return nil, badSDP("m-line %d: %v", i, err)
		}
		if mids[s.mid] {
			return nil, badSDP("mid %q is there twice", s.mid)
		}
		mids[s.mid] = true
		alone := r.bundled && !slices.Contains(group, s.mid) ||
			!r.bundled && slices.ContainsFunc(r.sections, func(o *section) bool { return o.usable || o.data })
		if alone { // it would need a transport of its own
			s.usable, s.data = false, false
		}
		r.sections = append(r.sections, s)
	}
	return r, r.parseTransport(&d, group)
}

// parseTransport finds the ICE and DTLS parameters: those of the session, else of
// the section that the BUNDLE group begins with, else the first that has them.
func (r *remote) parseTransport(d *sdp.SessionDescription, group []string) error {
	order := slices.Clone(d.MediaDescriptions)
	if len(group) > 0 {
		slices.SortStableFunc(order, func(a, b *sdp.MediaDescription) int {
			am, _ := a.Attribute("mid")
			bm, _ := b.Attribute("mid")
			return boolInt(bm == group[0]) - boolInt(am == group[0])
		})
	}
	value := func(key string) string {
		if v, ok := d.Attribute(key); ok {
			return v
		}
		for _, m := range order {
			if v, ok := m.Attribute(key); ok {
				return v
			}
		}
		return ""
	}
	r.ufrag, r.pwd, r.setup = value("ice-ufrag"), value("ice-pwd"), value("setup")
	if !iceChars(r.ufrag, 4) || !iceChars(r.pwd, 22) { // RFC 8839 §5.4
		return badSDP("ice-ufrag and ice-pwd are missing or malformed")
	}
	var err error
	if r.fingerprint, err = checkFingerprint(value("fingerprint")); err != nil {
		return err
	}
	switch r.setup {
	case "", "active", "passive", "actpass":
	default:
		return badSDP("setup %q is unknown", r.setup)
	}
	r.trickle = slices.Contains(strings.Fields(value("ice-options")), "trickle")
	for _, m := range order {
		for _, a := range m.Attributes {
			switch a.Key {
			case "candidate":
				if len(r.candidates) < maxCandidates && usableCandidate(a.Value) == nil {
					r.candidates = append(r.candidates, a.Value)
				}
			case "end-of-candidates":
				r.complete = true
			}
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func parseSection(m *sdp.MediaDescription) (*section, error) {
	s := &section{
		media:    strings.ToLower(m.MediaName.Media),
		protos:   m.MediaName.Protos,
		formats:  m.MediaName.Formats,
		receives: true,

		maxMessage: MaxData, // RFC 8841 §6.1 assumes 64 KiB too
	}
	s.mid, _ = m.Attribute("mid") // the first, as parseTransport has it
	bundleOnly := false
	byPT := map[uint8]*peerFormat{}
	for _, f := range s.formats {
		if pt, err := strconv.ParseUint(f, 10, 7); err == nil {
			byPT[uint8(pt)] = staticFormat(uint8(pt))
		}
	}
	for _, a := range m.Attributes {
		switch a.Key {
		case "max-message-size":
			if n, err := strconv.Atoi(a.Value); err == nil && n > 0 { // 0: any
				s.maxMessage = min(n, MaxData)
			}
		case "bundle-only":
			bundleOnly = true
		case "inactive", "sendonly":
			s.receives = false
		case "extmap":
			id, uri, _ := strings.Cut(a.Value, " ")
			id, _, _ = strings.Cut(id, "/")
			if n, err := strconv.ParseUint(id, 10, 8); err == nil && n >= 1 && n <= 14 {
				s.extension(uint8(n), strings.TrimSpace(uri))
			}
		case "rtpmap", "fmtp", "rtcp-fb":
			pt, rest, _ := strings.Cut(a.Value, " ")
			describe(byPT, a.Key, pt, strings.TrimSpace(rest))
		}
	}
	if !token(s.mid) {
		return nil, fmt.Errorf("mid %q is missing or malformed", s.mid)
	}
	offered := m.MediaName.Port.Value != 0 || bundleOnly
	s.usable = s.kind() != 0 && offered
	s.data = s.media == "application" && slices.Contains(s.protos, "SCTP") && slices.Contains(s.formats, "webrtc-datachannel") && offered
	s.codecs = order(s.formats, byPT)
	return s, nil
}

// extension takes note of a header extension. Of two with one identifier, which
// no sound description has, the first counts.
func (s *section) extension(id uint8, uri string) {
	if id == s.delayID || id == s.transportID || id == s.captureID {
		return
	}
	switch uri {
	case delayURI:
		s.delayID = id
	case transportURI:
		s.transportID = id
	case captureURI:
		s.captureID = id
	}
}

// transport is the identifier under which packets of a format of the peer's may
// carry transport-wide sequence numbers, 0 if they must not. The peer has to take
// both the extension and the feedback. And a video packet that is sent again
// without RTX has to be the same bytes, or an AES-GCM nonce would serve twice (RFC
// 7714 §8.1), which excludes a number of its own; audio is never sent again.
func (s *section) transport(p *peerFormat, rtx uint8) uint8 {
	if !slices.Contains(p.feedback, transportFeedback) || s.kind() == media.Video && rtx == 0 {
		return 0
	}
	return s.transportID
}

// together leaves formats of all m-lines their feedback only if that of every picture
// among them has some: an estimate of the transport that rests on its sound alone,
// or on one picture of two, would be one of a stream of a few packets a second, and
// what receiver reports say of the rest would be passed over.
func together(mLines [][]format) {
	for _, formats := range mLines {
		for _, f := range formats {
			if f.codec.Kind() != media.Video || f.transportID != 0 || f.ccfb {
				continue
			}
			for _, all := range mLines {
				for i := range all {
					all[i].transportID, all[i].ccfb = 0, false
				}
			}
			return
		}
	}
}

// ccfb tells whether packets of a format of the peer's are reported by RFC 8888, and
// in no other way.
func (s *section) ccfb(p *peerFormat) bool {
	return slices.Contains(p.feedback, congestionFeedback) && !(s.transportID != 0 && slices.Contains(p.feedback, transportFeedback))
}

// staticFormat is what a payload type means without an rtpmap (RFC 3551 §6).
func staticFormat(pt uint8) *peerFormat {
	f := &peerFormat{format: format{pt: pt}}
	switch pt {
	case 0:
		f.name, f.clock = "pcmu", 8000
	case 8:
		f.name, f.clock = "pcma", 8000
	}
	return f
}

func describe(byPT map[uint8]*peerFormat, key, pt, value string) {
	if key == "rtcp-fb" && pt == "*" {
		for _, f := range byPT {
			f.feedback = append(f.feedback, value)
		}
		return
	}
	n, err := strconv.ParseUint(pt, 10, 7)
	if err != nil {
		return
	}
	f := byPT[uint8(n)]
	if f == nil {
		return
	}
	switch key {
	case "rtpmap":
		parts := strings.Split(value, "/")
		f.name = strings.ToLower(parts[0])
		if len(parts) > 1 {
			clock, _ := strconv.ParseUint(parts[1], 10, 32)
			f.clock = uint32(clock)
		}
	case "fmtp":
		f.fmtp = value
	case "rtcp-fb":
		f.feedback = append(f.feedback, value)
	}
}

// order lists the codecs as the m-line does, each with its RTX payload type.
func order(formats []string, byPT map[uint8]*peerFormat) []peerFormat {
	var out []peerFormat
	for _, text := range formats {
		n, err := strconv.ParseUint(text, 10, 7)
		if err != nil || byPT[uint8(n)].name == "" || byPT[uint8(n)].name == "rtx" {
			continue
		}
		f := *byPT[uint8(n)]
		for pt, r := range byPT {
			if apt, err := strconv.Atoi(parameter(r.fmtp, "apt")); r.name == "rtx" && err == nil && apt == int(f.pt) {
				if f.rtx == 0 || pt < f.rtx {
					f.rtx = pt
				}
			}
		}
		out = append(out, f)
	}
	return out
}

// parameter reads one parameter of an fmtp value.
func parameter(fmtp, key string) string {
	for _, p := range strings.Split(fmtp, ";") {
		if k, v, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

// token tells whether a mid is one (RFC 4566 §9) and not absurdly long.
func token(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]`, r)
	})
}

func iceChars(s string, least int) bool {
	return len(s) >= least && len(s) <= 256 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '+' || r == '/' || strings.ContainsRune("-_=", r))
	})
}

var digestBytes = map[string]int{"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}

func checkFingerprint(value string) (string, error) {
	hash, digest, _ := strings.Cut(value, " ")
	hash = strings.ToLower(hash)
	bytes, err := hex.DecodeString(strings.ReplaceAll(digest, ":", ""))
	if n := digestBytes[hash]; n == 0 || err != nil || len(bytes) != n {
		return "", badSDP("fingerprint %.80q is missing or malformed", value)
	}
	return hash + " " + digest, nil
}

// readCandidate is a peer's candidate as ICE takes it, "" if ICE has no use for it: the
// end of candidates, one that can't be reached. seen counts those of the last
// description.
func readCandidate(c *Candidate, seen *int) (string, error) {
	if c == nil || c.Candidate == "" {
		return "", nil
	}
	if *seen++; *seen > maxCandidates {
		return "", fmt.Errorf("%w: there are more than %d", ErrBadCandidate, maxCandidates)
	}
	line := strings.TrimPrefix(c.Candidate, "candidate:")
	if err := usableCandidate(line); errors.Is(err, errUseless) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return line, nil
}

// usableCandidate tells whether ICE can do something with a candidate line. mDNS
// names can't be resolved without a socket for each viewer, and needn't be: such
// a peer's checks reach the gateway's own candidates.
func usableCandidate(line string) error {
	if len(line) > 1024 {
		return fmt.Errorf("%w: it has %d bytes", ErrBadCandidate, len(line))
	}
	c, err := ice.UnmarshalCandidate(strings.TrimPrefix(line, "candidate:"))
	if err != nil {
		return fmt.Errorf("%w: %v", ErrBadCandidate, err)
	}
	if strings.HasSuffix(c.Address(), ".local") || c.NetworkType().IsTCP() || c.Component() != 1 {
		return errUseless
	}
	return nil
}
