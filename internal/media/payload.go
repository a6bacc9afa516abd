package media

// H.264 NAL unit types that a payload is read for (ITU-T H.264 Table 7-1,
// RFC 6184 Table 1).
const (
	nalIDR   = 5
	nalSPS   = 7
	nalSTAPA = 24
	nalFUA   = 28
)

// Keyframe tells whether an RTP payload (without RTP header) belongs to the
// start of a frame at which a decoder can begin:
//
//   - H.264 (RFC 6184): it holds an SPS or an IDR slice, whole, in a STAP-A, or
//     as any fragment of an FU-A
//   - H.265 (RFC 7798 §4.4): it holds a VPS, an SPS or a slice of an IRAP picture,
//     whole, in an AP, or as any fragment of an FU
//   - VP8 (RFC 7741 §4.2, §4.3): the first packet of a frame whose P bit is 0
//   - VP9 (RFC 9628 §4.2): a packet that begins a frame, of the lowest spatial
//     layer, that is not predicted from another frame
//   - AV1 (RTP payload format for AV1 §4.4): the N bit, set on the first packet
//     of a coded video sequence
//
// Every payload of an audio codec is one. A payload that is malformed or of
// another codec is none. It doesn't allocate.
func Keyframe(c Codec, payload []byte) bool {
	switch c {
	case H264:
		return h264Has(payload, true) != nil
	case H265:
		return h265Keyframe(payload)
	case VP8:
		return vp8Keyframe(payload)
	case VP9:
		return vp9Keyframe(payload)
	case AV1:
		return len(payload) > 1 && payload[0]&0x08 != 0
	}
	return c.Kind() == Audio
}

// H264SPS finds a sequence parameter set in an H.264 RTP payload: whole, or in a
// STAP-A (RFC 6184 §5.7.1). It returns the NAL unit as a part of payload, or nil.
// It doesn't allocate.
func H264SPS(payload []byte) []byte { return h264Has(payload, false) }

// h264Has finds the first SPS, or IDR slice if idr is set, in an RTP payload.
func h264Has(payload []byte, idr bool) []byte {
	wanted := func(nal byte) bool {
		return nal&0x1f == nalSPS || idr && nal&0x1f == nalIDR
	}
	if len(payload) < 2 {
		return nil
	}
	switch payload[0] & 0x1f {
	case nalSTAPA:
		for rest := payload[1:]; len(rest) > 2; {
			n := int(rest[0])<<8 | int(rest[1])
			rest = rest[2:]
			if n == 0 || n > len(rest) {
				return nil
			}
			if wanted(rest[0]) {
				return rest[:n:n]
			}
			rest = rest[n:]
		}
	case nalFUA:
		if idr && len(payload) > 2 && wanted(payload[1]) {
			return payload
		}
	default:
		if wanted(payload[0]) {
			return payload
		}
	}
	return nil
}

// h265Keyframe looks at the type of each NAL unit (ITU-T H.265 Table 7-1).
func h265Keyframe(p []byte) bool {
	const irapFirst, irapLast, vps, sps, ap, fu = 16, 23, 32, 33, 48, 49
	wanted := func(t byte) bool { return t >= irapFirst && t <= irapLast || t == vps || t == sps }
	if len(p) < 3 {
		return false
	}
	switch t := p[0] >> 1 & 0x3f; t {
	case ap:
		for rest := p[2:]; len(rest) > 3; {
			n := int(rest[0])<<8 | int(rest[1])
			rest = rest[2:]
			if n == 0 || n > len(rest) {
				return false
			}
			if wanted(rest[0] >> 1 & 0x3f) {
				return true
			}
			rest = rest[n:]
		}
		return false
	case fu:
		return wanted(p[2] & 0x3f)
	default:
		return wanted(t)
	}
}

func vp8Keyframe(p []byte) bool {
	if len(p) < 2 || p[0]&0x10 == 0 || p[0]&0x07 != 0 { // S set, PID 0
		return false
	}
	i := 1
	if p[0]&0x80 != 0 { // X
		x := p[1]
		i++
		if x&0x80 != 0 { // I
			if i >= len(p) {
				return false
			}
			if p[i]&0x80 != 0 { // M: 15 bits
				i++
			}
			i++
		}
		if x&0x40 != 0 { // L
			i++
		}
		if x&0x30 != 0 { // T or K
			i++
		}
	}
	return i < len(p) && p[i]&0x01 == 0
}

func vp9Keyframe(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	const (
		bitI, bitP, bitL, bitF, bitB = 0x80, 0x40, 0x20, 0x10, 0x08
	)
	d := p[0]
	if d&bitP != 0 || d&bitB == 0 {
		return false
	}
	i := 1
	if d&bitI != 0 {
		if p[1]&0x80 != 0 {
			i++
		}
		i++
	}
	if d&bitL != 0 {
		if i >= len(p) || p[i]>>1&0x07 != 0 { // SID
			return false
		}
		i++
		if d&bitF == 0 { // TL0PICIDX
			i++
		}
	}
	return i < len(p)
}
