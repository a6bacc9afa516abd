package media

// Begins tells whether a payload after a loss is the first of its frame for certain,
// so that a decoder that begins there misses nothing of it: for VP8 and VP9 the
// payload descriptor says so (RFC 7741 §4.2, RFC 9628 §4.2), an AV1 payload begins a
// coded video sequence, an H.264 or H.265 payload is or has the access unit delimiter or
// the parameter set that the unit begins with (ITU-T H.264 §7.4.1.2.3, H.265 §7.4.2.4.4).
func Begins(c Codec, p []byte) bool {
	switch c {
	case VP8:
		return len(p) > 0 && p[0]&0x10 != 0 && p[0]&0x07 == 0
	case VP9:
		d, ok := readVP9(p)
		return ok && d.begins && d.spatial == 0
	case AV1:
		return len(p) > 1 && p[0]&0x08 != 0
	case H264:
		return len(p) > 0 && p[0]&0x1f == nalAUD || len(p) > 3 && p[0]&0x1f == nalSTAPA && p[3]&0x1f == nalAUD || H264SPS(p) != nil
	case H265:
		const vps, sps, aud, ap = 32, 33, 35, 48
		if len(p) > 4 && p[0]>>1&0x3f == ap { // RFC 7798 §4.4.2: behind its header the first one's size
			p = p[4:]
		}
		nal := byte(0)
		if len(p) > 2 {
			nal = p[0] >> 1 & 0x3f
		}
		return nal == vps || nal == sps || nal == aud
	}
	return c.Kind() == Audio
}

// Plain takes out of a VP8 or VP9 payload what numbers pictures, and so ties it to
// the one encoding that it comes from: a viewer who is moved to another would see the
// numbers jump. Without them a receiver orders frames by RTP sequence numbers alone
// (libwebrtc: RtpSeqNumOnlyRefFinder), as it does for encoders that write none. It
// works in place and returns a part of p; nil if p is malformed. VP9 with several
// spatial layers needs its descriptors and is returned as it is; layered tells.
// Payloads of other codecs are returned as they are.
func Plain(c Codec, p []byte) (plain []byte, layered bool) {
	switch c {
	case VP8:
		n := vp8Descriptor(p)
		if n == 0 {
			return nil, false
		}
		p[n-1] = p[0] &^ 0x80 // X
		return p[n-1:], false
	case VP9:
		d, ok := readVP9(p)
		switch {
		case !ok:
			return nil, false
		case d.layers > 1 || d.spatial > 0:
			return p, true
		}
		p[d.size-1] = p[0] & 0x4d // P, B, E, Z
		return p[d.size-1:], false
	}
	return p, false
}

// vp8Descriptor is the size of a payload descriptor (RFC 7741 §4.2), 0 if something
// is missing of it or nothing follows.
func vp8Descriptor(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	n := 1
	if p[0]&0x80 != 0 { // X
		x := p[1]
		n++
		if x&0x80 != 0 { // I
			if n < len(p) && p[n]&0x80 != 0 { // M: 15 bits
				n++
			}
			n++
		}
		if x&0x40 != 0 { // L
			n++
		}
		if x&0x30 != 0 { // T or K
			n++
		}
	}
	if n >= len(p) {
		return 0
	}
	return n
}

// vp9Descriptor is what is read of a payload descriptor (RFC 9628 §4.2).
type vp9Descriptor struct {
	size    int
	begins  bool // a frame of one spatial layer
	spatial int  // layer
	layers  int  // that the scalability structure tells of; 0: there is none
}

func readVP9(p []byte) (d vp9Descriptor, ok bool) {
	const bitI, bitP, bitL, bitF, bitB, bitV = 0x80, 0x40, 0x20, 0x10, 0x08, 0x02
	n := 1
	next := func() byte { // 0 past the end; the size is looked at last
		n++
		if n-1 < len(p) {
			return p[n-1]
		}
		return 0
	}
	if len(p) < 2 {
		return d, false
	}
	h := p[0]
	d.begins = h&bitB != 0
	if h&bitI != 0 && next()&0x80 != 0 {
		n++
	}
	if h&bitL != 0 {
		d.spatial = int(next() >> 1 & 0x07)
		if h&bitF == 0 { // TL0PICIDX
			n++
		}
	}
	if h&bitF != 0 && h&bitP != 0 {
		for i := 0; i < 3 && next()&0x01 != 0; i++ {
		}
	}
	if h&bitV != 0 {
		ss := next()
		d.layers = int(ss>>5) + 1
		if ss&0x10 != 0 { // Y: each layer's width and height
			n += 4 * d.layers
		}
		if ss&0x08 != 0 { // G: a picture group
			for range next() {
				n += int(next() >> 2 & 0x03)
			}
		}
	}
	d.size = n
	return d, n < len(p)
}

// PictureSize reads the size that the keyframe has which a payload of VP8, VP9 or AV1
// begins (RFC 6386 §9.1; VP9 bitstream specification §6.2; AV1 §5.5), in pixels.
func PictureSize(c Codec, p []byte) (width, height int, ok bool) {
	switch c {
	case VP8:
		n := vp8Descriptor(p)
		if n == 0 || !vp8Keyframe(p) || len(p) < n+10 || p[n+3] != 0x9d || p[n+4] != 0x01 || p[n+5] != 0x2a {
			return 0, 0, false
		}
		p = p[n+6:]
		return (int(p[1])<<8 | int(p[0])) & 0x3fff, (int(p[3])<<8 | int(p[2])) & 0x3fff, true
	case VP9:
		d, sound := readVP9(p)
		if !sound || !d.begins || d.spatial != 0 || len(p) < d.size+10 {
			return 0, 0, false
		}
		r := plainBits{data: p[d.size:]}
		// frame_marker 2, profile 0 2, show_existing_frame 1, frame_type 1 (0: a keyframe)
		if r.bits(6) != 0b100000 {
			return 0, 0, false
		}
		r.bits(2) // show_frame, error_resilient_mode
		if r.bits(24) != 0x498342 {
			return 0, 0, false
		}
		if r.bits(3) == 7 { // color_space sRGB isn't for profile 0
			return 0, 0, false
		}
		r.bits(1) // color_range
		return int(r.bits(16)) + 1, int(r.bits(16)) + 1, true
	case AV1:
		return av1PictureSize(p)
	}
	return 0, 0, false
}

// plainBits reads bits, without H.264's emulation prevention.
type plainBits struct {
	data []byte
	pos  int
}

func (r *plainBits) bits(n int) (v uint32) {
	for range n {
		b := byte(0)
		if i := r.pos / 8; i < len(r.data) {
			b = r.data[i] >> (7 - r.pos%8) & 1
		}
		v = v<<1 | uint32(b)
		r.pos++
	}
	return v
}
