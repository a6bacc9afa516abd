package rtc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"gateway/internal/media"
)

// Header extensions that tell to which m-line and layer a publisher's packets belong
// (RFC 8843 §15, RFC 8852 §3).
const (
	midURI         = "urn:ietf:params:rtp-hdrext:sdes:mid"
	layerURI       = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	repairLayerURI = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
)

const maxLayers = 4 // of one m-line; browsers send up to 3

// Incoming is what a publisher sends on one m-line, as it was agreed.
type Incoming struct {
	Mid    string
	Kind   media.Kind
	Codec  media.Codec
	Fmtp   string
	Layers []string // RIDs of its simulcast layers in the order of the offer; one "" without simulcast
}

// sending is a section of an offer that sends, and what is taken of it.
type sending struct {
	*section
	format  format
	layers  []string
	ssrcs   []uint32          // that the section names
	repairs map[uint32]uint32 // SSRCs of RTX by that of the media
	fromPT  bool              // the payload types tell that a packet is of this section
	midID   uint8             // of header extensions that fit a one-byte header; 0: none
	layerID uint8
	rlayer  uint8
}

// incoming is the section for those who subscribe to it.
func (s *sending) incoming() Incoming {
	return Incoming{Mid: s.mid, Kind: s.kind(), Codec: s.format.codec, Fmtp: s.format.fmtp, Layers: slices.Clone(s.layers)}
}

// parseOffer reads a publisher's offer: the description, and those of its sections
// that send something that viewers can be given.
func parseOffer(text string) (*remote, []*sending, error) {
	r, err := parseRemote(text)
	if err != nil {
		return nil, nil, err
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil { // parseRemote has read it: it doesn't fail
		return nil, nil, badSDP("%v", err)
	}
	var sends []*sending
	var unknown []string
	for i, m := range d.MediaDescriptions {
		s := &sending{section: r.sections[i], repairs: map[uint32]uint32{}}
		if !s.usable || !s.sends(m) {
			continue
		}
		if !s.choose() {
			for _, p := range s.codecs {
				unknown = append(unknown, p.name)
			}
			continue
		}
		if err := s.readLayers(m); err != nil {
			return nil, nil, badSDP("m-line %d: %v", i, err)
		}
		s.readStreams(m)
		s.extensions(m)
		sends = append(sends, s)
	}
	switch {
	case len(sends) == 0 && len(unknown) > 0:
		return nil, nil, fmt.Errorf("%w: it sends %s; H.264, H.265, VP8, VP9 (profile 0), AV1 (profile 0), Opus, PCMU and PCMA are forwarded",
			ErrNoCodec, strings.Join(unknown, ", "))
	case len(sends) > maxTracksViewer:
		return nil, nil, badSDP("it sends on %d m-lines, the limit is %d", len(sends), maxTracksViewer)
	}
	for _, s := range sends {
		s.fromPT = !slices.ContainsFunc(sends, func(o *sending) bool { return o != s && o.format.pt == s.format.pt })
	}
	return r, sends, nil
}

// sends tells whether a section's direction is towards the gateway.
func (s *sending) sends(m *sdp.MediaDescription) bool {
	for _, a := range m.Attributes {
		if a.Key == "recvonly" || a.Key == "inactive" {
			return false
		}
	}
	return true
}

// choose takes the first of the formats that viewers can be given: the publisher's
// order is its preference. One is answered, so that what comes is known before.
func (s *sending) choose() bool {
	i := slices.IndexFunc(s.codecs, func(p peerFormat) bool { return forwardable(&p) && parameter(p.fmtp, "packetization-mode") == "1" })
	first := slices.IndexFunc(s.codecs, func(p peerFormat) bool { return forwardable(&p) && p.name != string(media.H265) })
	if first < 0 { // hardly a browser plays it: only where there is nothing else
		first = slices.IndexFunc(s.codecs, func(p peerFormat) bool { return forwardable(&p) })
	}
	if first < 0 {
		return false
	}
	if s.codecs[first].name != string(media.H264) || i < 0 {
		i = first
	}
	p := s.codecs[i]
	f := format{codec: media.Codec(p.name), pt: p.pt, fmtp: withoutSets(p.fmtp)}
	if s.kind() == media.Video {
		f.rtx = p.rtx
	}
	for _, fb := range videoFeedback {
		if slices.Contains(p.feedback, fb) {
			f.feedback = append(f.feedback, fb)
		}
	}
	if slices.Contains(p.feedback, transportFeedback) {
		f.transportID = s.transportID
	}
	s.format = f
	return true
}

// forwardable tells whether viewers can be given a format as it comes.
func forwardable(p *peerFormat) bool {
	c, err := media.ParseCodec(p.name)
	if err != nil || p.clock != c.ClockRate() {
		return false
	}
	switch c {
	case media.VP9:
		return orZero(parameter(p.fmtp, "profile-id")) == "0"
	case media.AV1:
		return orZero(parameter(p.fmtp, "profile")) == "0"
	case media.H264:
		return parameter(p.fmtp, "packetization-mode") != "2"
	}
	return true
}

// withoutSets leaves out what describes the sender's stream only (RFC 6184 §8.2.2).
func withoutSets(fmtp string) string {
	params := slices.DeleteFunc(strings.Split(fmtp, ";"), func(p string) bool {
		return strings.HasPrefix(strings.TrimSpace(p), "sprop-")
	})
	return strings.Join(params, ";")
}

// readLayers reads the simulcast layers (RFC 8853 §5.1, RFC 8851 §4): of
// alternatives the first, whether paused at the start or not.
func (s *sending) readLayers(m *sdp.MediaDescription) error {
	s.layers = []string{""}
	value, ok := m.Attribute("simulcast")
	if !ok || s.kind() != media.Video {
		return nil
	}
	words := strings.Fields(value)
	at := slices.Index(words, "send")
	if at < 0 || at+1 == len(words) {
		return nil
	}
	s.layers = nil
	for _, alternatives := range strings.Split(words[at+1], ";") {
		rid, _, _ := strings.Cut(alternatives, ",")
		rid = strings.TrimPrefix(rid, "~")
		if !token(rid) || slices.Contains(s.layers, rid) {
			return fmt.Errorf("simulcast layer %.70q is malformed or there twice", rid)
		}
		s.layers = append(s.layers, rid)
	}
	if len(s.layers) > maxLayers {
		return fmt.Errorf("it has %d simulcast layers, the limit is %d", len(s.layers), maxLayers)
	}
	return nil
}

// readStreams reads the SSRCs (RFC 5576 §4.1, RFC 4588 §8.1).
func (s *sending) readStreams(m *sdp.MediaDescription) {
	number := func(text string) uint32 {
		n, _ := strconv.ParseUint(text, 10, 32)
		return uint32(n)
	}
	for _, a := range m.Attributes {
		switch a.Key {
		case "ssrc-group":
			if words := strings.Fields(a.Value); len(words) == 3 && words[0] == "FID" && len(s.repairs) < maxLayers {
				s.repairs[number(words[1])] = number(words[2])
			}
		case "ssrc":
			text, _, _ := strings.Cut(a.Value, " ")
			if n := number(text); n != 0 && len(s.ssrcs) < 2*maxLayers && !slices.Contains(s.ssrcs, n) {
				s.ssrcs = append(s.ssrcs, n)
			}
		}
	}
	for _, rtx := range s.repairs {
		s.ssrcs = slices.DeleteFunc(s.ssrcs, func(n uint32) bool { return n == rtx })
	}
}

func (s *sending) extensions(m *sdp.MediaDescription) {
	for _, a := range m.Attributes {
		if a.Key != "extmap" {
			continue
		}
		id, uri, _ := strings.Cut(a.Value, " ")
		id, _, _ = strings.Cut(id, "/")
		n, err := strconv.ParseUint(id, 10, 8)
		if err != nil || n < 1 || n > 14 {
			continue
		}
		switch strings.TrimSpace(uri) {
		case midURI:
			s.midID = uint8(n)
		case layerURI:
			s.layerID = uint8(n)
		case repairLayerURI:
			s.rlayer = uint8(n)
		}
	}
}

// dressAnswer makes the answer to a publisher's offer out of pion's: the sections
// that are taken receive their format, the others are refused.
func dressAnswer(text string, offer *remote, taken []*sending) (string, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return "", fmt.Errorf("pion's description: %w", err)
	}
	byMid := map[string]*sdp.MediaDescription{}
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		byMid[mid] = m
	}
	d.MediaDescriptions = d.MediaDescriptions[:0]
	for _, s := range offer.sections {
		i := slices.IndexFunc(taken, func(t *sending) bool { return t.section == s })
		m := byMid[s.mid]
		switch {
		case m == nil:
			m = refuse(s)
		case i < 0: // nothing is sent on it now
			putFormats(m, proposal{})
			m.MediaName.Formats = []string{"0"}
		default:
			taken[i].put(m)
		}
		if byMid[s.mid] != nil {
			m.MediaName.Protos = s.protos
			if offer.setup == "passive" {
				setAttribute(m, "setup", "active")
			}
		}
		d.MediaDescriptions = append(d.MediaDescriptions, m)
	}
	if !offer.bundled {
		d.Attributes = slices.DeleteFunc(d.Attributes, func(a sdp.Attribute) bool { return a.Key == "group" })
	}
	return marshal(&d)
}

// put writes what is taken of a section into pion's answer to it.
func (s *sending) put(m *sdp.MediaDescription) {
	f := s.format
	putFormats(m, proposal{formats: []format{f}})
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a sdp.Attribute) bool {
		switch a.Key {
		case "inactive", "rid", "simulcast", "ssrc", "ssrc-group", "msid":
			return true
		}
		return false
	})
	m.WithPropertyAttribute("recvonly")
	for _, x := range []struct {
		id  uint8
		uri string
	}{{s.midID, midURI}, {s.layerID, layerURI}, {s.rlayer, repairLayerURI}} {
		if x.id != 0 {
			m.WithValueAttribute("extmap", fmt.Sprintf("%d %s", x.id, x.uri))
		}
	}
	if s.layers[0] == "" {
		return
	}
	for _, rid := range s.layers {
		m.WithValueAttribute("rid", rid+" recv")
	}
	m.WithValueAttribute("simulcast", "recv "+strings.Join(s.layers, ";"))
}
