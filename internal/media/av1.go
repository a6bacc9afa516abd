package media

// av1PictureSize reads the largest size of a coded video sequence, which is that of its
// keyframes unless they say otherwise, from the sequence header that its first packet
// begins with (RTP payload format for AV1 §4.4; AV1 bitstream specification §5.5.1).
func av1PictureSize(p []byte) (width, height int, ok bool) {
	const newSequence, continues = 0x08, 0x80
	if len(p) < 2 || p[0]&newSequence == 0 || p[0]&continues != 0 {
		return 0, 0, false
	}
	elements := int(p[0] >> 4 & 0x03) // 0: any number, each with its length
	p = p[1:]
	for n := 1; len(p) > 0; n++ {
		obu := p
		if n != elements { // the last of those that are counted has no length
			size, used := leb128(p)
			if used == 0 || size > len(p)-used {
				return 0, 0, false
			}
			obu, p = p[used:used+size], p[used+size:]
		} else {
			p = nil
		}
		const sequenceHeader, delimiter, extension, sized = 1, 2, 0x04, 0x02
		if len(obu) == 0 {
			return 0, 0, false
		}
		switch header := obu[0]; header >> 3 & 0x0f {
		case delimiter: // which senders should leave out
		case sequenceHeader:
			obu = obu[1:]
			if header&extension != 0 && len(obu) > 0 {
				obu = obu[1:]
			}
			if header&sized != 0 {
				_, used := leb128(obu)
				obu = obu[used:]
			}
			return av1SequenceSize(obu)
		default:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// av1SequenceSize reads sequence_header_obu as far as the size.
func av1SequenceSize(obu []byte) (width, height int, ok bool) {
	r := plainBits{data: obu}
	flag := func() bool { return r.bits(1) == 1 }
	r.bits(3 + 1) // seq_profile, still_picture
	if reduced := flag(); reduced {
		r.bits(5) // seq_level_idx
	} else {
		var model bool
		var delayBits int
		if timing := flag(); timing {
			r.bits(32) // num_units_in_display_tick
			r.bits(32) // time_scale
			if equal := flag(); equal {
				zeros := 0 // uvlc
				for !flag() {
					if zeros++; zeros > 32 {
						return 0, 0, false
					}
				}
				r.bits(zeros)
			}
			if model = flag(); model {
				delayBits = int(r.bits(5)) + 1
				r.bits(32)    // num_units_in_decoding_tick
				r.bits(5 + 5) // the lengths of two times
			}
		}
		delays := flag()
		for range r.bits(5) + 1 { // operating points
			r.bits(12) // operating_point_idc
			if level := r.bits(5); level > 7 {
				r.bits(1) // seq_tier
			}
			if model && flag() {
				r.bits(delayBits)
				r.bits(delayBits)
				r.bits(1) // low_delay_mode_flag
			}
			if delays && flag() {
				r.bits(4) // initial_display_delay_minus_1
			}
		}
	}
	across, down := int(r.bits(4))+1, int(r.bits(4))+1
	width, height = int(r.bits(across))+1, int(r.bits(down))+1
	return width, height, r.pos <= 8*len(obu)
}

// leb128 reads a number of at most 8 bytes (AV1 §4.10.5); used is 0 if there is none.
func leb128(p []byte) (v, used int) {
	for i := 0; i < len(p) && i < 8; i++ {
		v |= int(p[i]&0x7f) << (7 * i)
		if p[i]&0x80 == 0 {
			return v, i + 1
		}
	}
	return 0, 0
}
