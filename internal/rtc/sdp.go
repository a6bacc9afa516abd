package rtc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"gateway/internal/media"
)

// pion negotiates ICE and DTLS, and one nominal codec of each kind; what goes
// over the wire is written here. pion's own negotiation matches H.264 by two
// bytes of the profile, can't offer a codec that the first answer left out and
// ties the text to what it matches with. So: a local description is pion's text
// with the formats of our tracks put in (dress); of a remote one pion is shown
// the transport and the nominal codec, and nothing else that a peer may have
// written (forPion).
//
// The mid header extension is not offered: each m-line names its SSRCs, by which
// browsers tell bundled packets apart, and a mid would ride on every packet.

const (
	delayURI     = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
	transportURI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	captureURI   = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"

	transportFeedback = "transport-cc" // as an rtcp-fb
)

// The header extensions' identifiers in the gateway's offers.
const (
	offeredDelayID     = 1
	offeredTransportID = 2
	offeredCaptureID   = 3
)

// nominal formats, as pion's MediaEngine has them.
const (
	nominalVideo    = 96
	nominalVideoRTX = 97
	nominalAudio    = 111
)

// format is one codec on an m-line, as negotiated or to be offered.
type format struct {
	codec       media.Codec
	pt          uint8
	rtx         uint8 // payload type of its RTX stream; 0: none
	fmtp        string
	feedback    []string // "nack pli" …, without transportFeedback
	delayID     uint8    // of the playout-delay extension; 0: none
	inStep      bool     // what it says there: shown with the sound, or at once
	transportID uint8    // of the transport-wide sequence number, of which the receiver tells; 0: none
	ccfb        bool     // the receiver tells of packets by RFC 8888
	captureID   uint8    // of the capture time; 0: none
}

var videoFeedback = []string{"nack", "nack pli", "ccm fir"}

// payloadTypes are the usual ones, so that a trace is easy to read.
var payloadTypes = map[media.Codec]uint8{
	media.VP8: 96, media.VP9: 98, media.H264: 102, media.AV1: 45, media.H265: 116,
	media.Opus: 111, media.PCMU: 0, media.PCMA: 8,
}

// offerFormat is a track's format in an offer, with payload types that are free.
func offerFormat(t media.Track, taken func(uint8) bool) (format, error) {
	f := format{codec: t.Codec, fmtp: t.Fmtp}
	pt, ok := payloadTypes[t.Codec]
	if !ok {
		return format{}, fmt.Errorf("track %q: codec %q can't be sent: %w", t.Name, t.Codec, ErrNoCodec)
	}
	video := t.Kind == media.Video
	free := func(pt uint8) bool { return !taken(pt) && (!video || !taken(pt+1)) }
	for next := uint8(100); !free(pt); next += 2 {
		if next > 126 {
			next = 36 // RFC 5761 §4: 64 to 95 look like RTCP
		} else if next == 62 {
			return format{}, fmt.Errorf("track %q: no payload type is left: %w", t.Name, ErrNoCodec)
		}
		pt = next
	}
	f.pt = pt
	if video {
		f.rtx, f.feedback, f.delayID, f.captureID = pt+1, videoFeedback, offeredDelayID, offeredCaptureID
	}
	if video || t.Codec == media.Opus {
		f.transportID = offeredTransportID
	}
	return f, nil
}

// forPion is the peer's description as pion is shown it: transport, mids and
// directions of the sections that are listed, and the nominal codecs.
func (r *remote) forPion(sections []*section, setup string) string {
	var b strings.Builder
	line := func(text string, args ...any) { fmt.Fprintf(&b, text+"\r\n", args...) }
	var mids []string
	for _, s := range sections {
		if s.usable || s.data {
			mids = append(mids, s.mid)
		}
	}
	line("v=0")
	line("o=- 1 1 IN IP4 0.0.0.0")
	line("s=-")
	line("t=0 0")
	line("a=group:BUNDLE %s", strings.Join(mids, " "))
	line("a=ice-ufrag:%s", r.ufrag)
	line("a=ice-pwd:%s", r.pwd)
	line("a=fingerprint:%s", r.fingerprint)
	if r.lite {
		line("a=ice-lite")
	}
	if r.trickle {
		line("a=ice-options:trickle")
	}
	first := true
	for _, s := range sections {
		if s.media == "application" {
			port := 0
			if s.data {
				port = 9
			}
			line("m=application %d UDP/DTLS/SCTP webrtc-datachannel", port)
			line("c=IN IP4 0.0.0.0")
			line("a=mid:%s", s.mid)
			line("a=setup:%s", setup)
			line("a=sctp-port:5000")
			line("a=max-message-size:%d", s.maxMessage)
			r.candidatesFor(s.data, &first, line)
			continue
		}
		formats := strconv.Itoa(nominalAudio)
		if s.kind() == media.Video {
			formats = fmt.Sprintf("%d %d", nominalVideo, nominalVideoRTX)
		}
		line("m=%s 9 UDP/TLS/RTP/SAVPF %s", s.media, formats)
		line("c=IN IP4 0.0.0.0")
		line("a=mid:%s", s.mid)
		line("a=rtcp-mux")
		line("a=setup:%s", setup)
		if s.usable && s.receives {
			line("a=recvonly")
		} else {
			line("a=inactive")
		}
		if s.own {
			line("a=rid:0 send") // keeps pion from making a receiver of each SSRC that it doesn't know
		}
		if s.kind() == media.Video {
			line("a=rtpmap:%d VP8/90000", nominalVideo)
			line("a=rtpmap:%d rtx/90000", nominalVideoRTX)
			line("a=fmtp:%d apt=%d", nominalVideoRTX, nominalVideo)
		} else {
			line("a=rtpmap:%d opus/48000/2", nominalAudio)
		}
		r.candidatesFor(s.usable, &first, line)
	}
	return b.String()
}

// candidatesFor writes the candidates into the first section that is used.
func (r *remote) candidatesFor(used bool, first *bool, line func(string, ...any)) {
	if !used || !*first {
		return
	}
	*first = false
	for _, c := range r.candidates {
		line("a=candidate:%s", strings.TrimPrefix(c, "candidate:"))
	}
	if r.complete {
		line("a=end-of-candidates")
	}
}

// dress makes a local description out of pion's: each section gets its track's
// formats. For an answer (offer is not nil) the sections come in the offer's
// order, with those that are refused in between. It returns the sections of an offer
// in their order; that of the data channels stays as pion has it.
func dress(text string, proposals map[string]proposal, offer *remote) (string, []proposal, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return "", nil, fmt.Errorf("pion's description: %w", err)
	}
	byMid := map[string]*sdp.MediaDescription{}
	var order []proposal
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		p, ok := proposals[mid]
		switch {
		case m.MediaName.Media == "application" && offer == nil:
			p.mid = mid
			m.Attributes = slices.DeleteFunc(m.Attributes, secondComponent)
		case !ok || len(p.formats) == 0:
			return "", nil, fmt.Errorf("pion's description: mid %q is unknown", mid)
		default:
			putFormats(m, p)
		}
		byMid[mid], order = m, append(order, p)
	}
	if offer == nil {
		text, err := marshal(&d)
		return text, order, err
	}
	d.MediaDescriptions = d.MediaDescriptions[:0]
	for _, s := range offer.sections {
		m := byMid[s.mid]
		if m == nil {
			m = refuse(s)
		} else {
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
	text, err := marshal(&d)
	return text, order, err
}

// secondComponent tells whether an attribute is a candidate for RTCP: pion lists each
// twice, and there is one component (rtcp-mux).
func secondComponent(a sdp.Attribute) bool {
	words := strings.Fields(a.Value)
	return a.Key == "candidate" && len(words) > 1 && words[1] == "2"
}

func marshal(d *sdp.SessionDescription) (string, error) {
	b, err := d.Marshal()
	return string(b), err
}

func setAttribute(m *sdp.MediaDescription, key, value string) {
	for i := range m.Attributes {
		if m.Attributes[i].Key == key {
			m.Attributes[i].Value = value
		}
	}
}

// refuse is the answer to a section that is not wanted (RFC 8829 §5.3.1). Payload
// type 0 needs no rtpmap, which some peers miss otherwise.
func refuse(s *section) *sdp.MediaDescription {
	formats := s.formats
	if s.kind() != 0 {
		formats = []string{"0"}
	}
	return (&sdp.MediaDescription{
		MediaName: sdp.MediaName{Media: s.media, Protos: s.protos, Formats: formats},
		ConnectionInformation: &sdp.ConnectionInformation{
			NetworkType: "IN", AddressType: "IP4", Address: &sdp.Address{Address: "0.0.0.0"},
		},
	}).WithValueAttribute("mid", s.mid).WithPropertyAttribute("inactive")
}

// putFormats replaces the nominal codec of one of pion's sections.
func putFormats(m *sdp.MediaDescription, p proposal) {
	rtx := slices.ContainsFunc(p.formats, func(f format) bool { return f.rtx != 0 })
	rtxSSRC := ""
	if g, ok := m.Attribute("ssrc-group"); ok && !rtx {
		if words := strings.Fields(g); len(words) == 3 && words[0] == "FID" {
			rtxSSRC = words[2]
		}
	}
	m.Attributes = slices.DeleteFunc(m.Attributes, func(a sdp.Attribute) bool {
		switch a.Key {
		case "rtpmap", "fmtp", "rtcp-fb", "extmap":
			return true
		case "ssrc-group":
			return !rtx
		case "ssrc":
			return rtxSSRC != "" && strings.HasPrefix(a.Value, rtxSSRC+" ")
		case "sendonly":
			return p.inactive
		}
		return secondComponent(a)
	})
	if p.inactive {
		m.WithPropertyAttribute("inactive")
	}
	m.MediaName.Formats = nil
	var delayID, transportID, captureID uint8
	for _, f := range p.formats {
		putFormat(m, f)
		delayID, transportID, captureID = max(delayID, f.delayID), max(transportID, f.transportID), max(captureID, f.captureID)
	}
	for _, x := range []struct {
		id  uint8
		uri string
	}{{delayID, delayURI}, {transportID, transportURI}, {captureID, captureURI}} {
		if x.id != 0 {
			m.WithValueAttribute("extmap", fmt.Sprintf("%d %s", x.id, x.uri))
		}
	}
}

func putFormat(m *sdp.MediaDescription, f format) {
	name := strings.ToUpper(string(f.codec))
	channels := uint16(0)
	if f.codec == media.Opus {
		name, channels = "opus", 2
	}
	m.WithCodec(f.pt, name, f.codec.ClockRate(), channels, f.fmtp)
	for _, fb := range f.feedback {
		m.WithValueAttribute("rtcp-fb", fmt.Sprintf("%d %s", f.pt, fb))
	}
	if f.transportID != 0 {
		m.WithValueAttribute("rtcp-fb", fmt.Sprintf("%d %s", f.pt, transportFeedback))
	}
	if f.ccfb {
		m.WithValueAttribute("rtcp-fb", fmt.Sprintf("%d %s", f.pt, congestionFeedback))
	}
	if f.rtx != 0 {
		m.WithCodec(f.rtx, "rtx", f.codec.ClockRate(), 0, fmt.Sprintf("apt=%d", f.pt))
	}
}
