package media

import (
	"errors"
	"fmt"
)

// H.264 profile_idc values of the profiles that browsers play (ITU-T H.264 §A.2).
const (
	H264Baseline byte = 66
	H264Main     byte = 77
	H264High     byte = 100
)

// SPS holds what the gateway needs of an H.264 sequence parameter set
// (ITU-T H.264 §7.3.2.1.1).
type SPS struct {
	Profile     byte // profile_idc
	Constraints byte // constraint_set0_flag (0x80) to constraint_set5_flag (0x04)
	Level       byte // level_idc: ten times the level
	Width       int  // pixels after cropping
	Height      int  // pixels after cropping
	Reorder     int  // how many frames may come before one that is shown earlier; -1: it isn't said
}

// Unplayable is why browsers don't play such a stream; "" if they do.
func (s SPS) Unplayable() string {
	name, known := h264Profiles[s.Profile]
	switch {
	case !known:
		return fmt.Sprintf("browsers don't play its H.264 profile, number %d", s.Profile)
	case s.Profile != H264Baseline && s.Profile != H264Main && s.Profile != H264High:
		return "browsers don't play H.264 of the profile " + name
	case s.Reorder > 0:
		return "it has B-frames, which browsers show out of order"
	}
	return ""
}

// h264Profiles are the names of profile_idc (ITU-T H.264 Annexes A, F and G).
var h264Profiles = map[byte]string{
	H264Baseline: "Baseline", H264Main: "Main", 88: "Extended", H264High: "High", 110: "High 10", 122: "High 4:2:2",
	244: "High 4:4:4 Predictive", 44: "CAVLC 4:4:4 Intra", 83: "Scalable Baseline", 86: "Scalable High", 118: "Multiview High",
	128: "Stereo High",
}

// ProfileLevelID is the profile-level-id of SDP for these parameters.
func (s SPS) ProfileLevelID() string {
	return H264ProfileLevelID(s.Profile, s.Constraints, s.Level)
}

// H264ProfileLevelID is the value of profile-level-id (RFC 6184 §8.1): profile_idc,
// the constraint flags and level_idc in hexadecimal, such as "42e01f".
func H264ProfileLevelID(profile, constraints, level byte) string {
	return fmt.Sprintf("%02x%02x%02x", profile, constraints, level)
}

// h264Levels is Table A-1 of ITU-T H.264. Level 1b is left out: nothing that
// the gateway encodes needs it, and its spelling differs between profiles.
var h264Levels = []struct {
	idc    byte
	maxMBs int // MaxMBPS: macroblocks a second
	maxFS  int // macroblocks a frame
	maxBR  int // units of 1000 bit/s (cpbBrVclFactor of baseline and main)
	maxCPB int // units of 1000 bits
}{
	{10, 1485, 99, 64, 175},
	{11, 3000, 396, 192, 500},
	{12, 6000, 396, 384, 1000},
	{13, 11880, 396, 768, 2000},
	{20, 11880, 396, 2000, 2000},
	{21, 19800, 792, 4000, 4000},
	{22, 20250, 1620, 4000, 4000},
	{30, 40500, 1620, 10000, 10000},
	{31, 108000, 3600, 14000, 14000},
	{32, 216000, 5120, 20000, 20000},
	{40, 245760, 8192, 20000, 25000},
	{41, 245760, 8192, 50000, 62500},
	{42, 522240, 8704, 50000, 62500},
	{50, 589824, 22080, 135000, 135000},
	{51, 983040, 36864, 240000, 240000},
	{52, 2073600, 36864, 240000, 240000},
	{60, 4177920, 139264, 240000, 240000},
	{61, 8355840, 139264, 480000, 480000},
	{62, 16711680, 139264, 800000, 800000},
}

// H264Level is the lowest level_idc that allows frames of this size and rate,
// a bitrate of bps bit/s and a decoder buffer of cpb bits (Table A-1 and §A.3.1
// of ITU-T H.264, for baseline and main). A bound that is 0 is not looked at.
// What no level allows gets the highest one.
func H264Level(width, height int, fps float64, bps, cpb int) byte {
	w, h := (width+15)/16, (height+15)/16
	size := w * h
	rate := int(float64(size)*fps + 0.5)
	for _, l := range h264Levels {
		// §A.3.1 f, g: neither side exceeds Sqrt(MaxFS × 8) macroblocks
		if size <= l.maxFS && w*w <= l.maxFS*8 && h*h <= l.maxFS*8 && rate <= l.maxMBs &&
			bps <= l.maxBR*1000 && cpb <= l.maxCPB*1000 {
			return l.idc
		}
	}
	return h264Levels[len(h264Levels)-1].idc
}

var errShortSPS = errors.New("sps: too short")

// ParseSPS reads an H.264 sequence parameter set: a whole NAL unit with its
// header, without start code. It doesn't keep nal.
func ParseSPS(nal []byte) (SPS, error) {
	if len(nal) < 5 {
		return SPS{}, errShortSPS
	}
	if nal[0]&0x80 != 0 || nal[0]&0x1f != 7 {
		return SPS{}, fmt.Errorf("sps: NAL unit header %#02x is not that of an SPS", nal[0])
	}
	s := SPS{Profile: nal[1], Constraints: nal[2], Level: nal[3]}
	r := bitReader{data: nal[4:]}
	r.ue() // seq_parameter_set_id
	chroma := uint32(1)
	planes := false
	switch s.Profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		if chroma = r.ue(); chroma == 3 {
			planes = r.bit() == 1 // separate_colour_plane_flag
		}
		r.ue()  // bit_depth_luma_minus8
		r.ue()  // bit_depth_chroma_minus8
		r.bit() // qpprime_y_zero_transform_bypass_flag
		if r.bit() == 1 {
			lists := 8
			if chroma == 3 {
				lists = 12
			}
			for i := range lists {
				if r.bit() == 1 {
					r.scalingList(i)
				}
			}
		}
	}
	r.ue()          // log2_max_frame_num_minus4
	order := r.ue() // pic_order_cnt_type
	switch order {
	case 0:
		r.ue() // log2_max_pic_order_cnt_lsb_minus4
	case 1:
		r.bit() // delta_pic_order_always_zero_flag
		r.se()  // offset_for_non_ref_pic
		r.se()  // offset_for_top_to_bottom_field
		n := r.ue()
		if n > 255 {
			return SPS{}, errors.New("sps: num_ref_frames_in_pic_order_cnt_cycle exceeds 255")
		}
		for range n {
			r.se()
		}
	}
	r.ue()  // max_num_ref_frames
	r.bit() // gaps_in_frame_num_value_allowed_flag
	mbw, mbh := r.ue(), r.ue()
	frames := r.bit() // frame_mbs_only_flag
	if frames == 0 {
		r.bit() // mb_adaptive_frame_field_flag
	}
	r.bit() // direct_8x8_inference_flag
	var left, right, top, bottom uint32
	if r.bit() == 1 {
		left, right, top, bottom = r.ue(), r.ue(), r.ue(), r.ue()
	}
	if r.short {
		return SPS{}, errShortSPS
	}
	s.Reorder = -1
	if n := r.reorder(); !r.short { // some cameras cut it off
		s.Reorder = n
	}
	if s.Profile == H264Baseline || order == 2 { // output order is decoding order (§A.2.1, §8.2.1.3)
		s.Reorder = 0
	}
	const most = 1 << 12 // macroblocks a side: twice what the highest level allows
	if mbw >= most || mbh >= most || max(left, right, top, bottom) >= most*16 || chroma > 3 {
		return SPS{}, errors.New("sps: picture size is out of range")
	}
	cropX, cropY := 1, 1 // §7.4.2.1.1, equations 7-19 to 7-22
	if !planes {
		if chroma == 1 || chroma == 2 {
			cropX = 2
		}
		if chroma == 1 {
			cropY = 2
		}
	}
	fields := 2 - int(frames)
	s.Width = (int(mbw)+1)*16 - cropX*int(left+right)
	s.Height = fields*((int(mbh)+1)*16) - fields*cropY*int(top+bottom)
	if s.Width <= 0 || s.Height <= 0 {
		return SPS{}, errors.New("sps: cropping leaves no picture")
	}
	return s, nil
}

// reorder reads vui_parameters (ITU-T H.264 §E.1.1) as far as max_num_reorder_frames;
// -1 if that isn't given.
func (r *bitReader) reorder() int {
	if r.bit() == 0 { // vui_parameters_present_flag
		return -1
	}
	if r.bit() == 1 && r.bits(8) == 255 { // aspect_ratio_idc: Extended_SAR
		r.bits(32)
	}
	if r.bit() == 1 { // overscan_info_present_flag
		r.bit()
	}
	if r.bit() == 1 { // video_signal_type_present_flag
		r.bits(4)
		if r.bit() == 1 { // colour_description_present_flag
			r.bits(24)
		}
	}
	if r.bit() == 1 { // chroma_loc_info_present_flag
		r.ue()
		r.ue()
	}
	if r.bit() == 1 { // timing_info_present_flag
		r.bits(32)
		r.bits(32)
		r.bit()
	}
	nal := r.hrd()
	if vcl := r.hrd(); nal || vcl {
		r.bit() // low_delay_hrd_flag
	}
	r.bit()           // pic_struct_present_flag
	if r.bit() == 0 { // bitstream_restriction_flag
		return -1
	}
	r.bit() // motion_vectors_over_pic_boundaries_flag
	for range 4 {
		r.ue()
	}
	return int(r.ue())
}

// hrd skips hrd_parameters (ITU-T H.264 §E.1.2), if there are any.
func (r *bitReader) hrd() bool {
	if r.bit() == 0 {
		return false
	}
	n := r.ue() // cpb_cnt_minus1
	r.bits(8)
	for i := uint32(0); i <= n && !r.short; i++ {
		r.ue()
		r.ue()
		r.bit()
	}
	r.bits(20)
	return true
}

// bitReader reads an RBSP out of a NAL unit, leaving out emulation prevention
// bytes (ITU-T H.264 §7.4.1). Past the end it yields zeros and sets short.
type bitReader struct {
	data  []byte
	pos   int  // next byte
	left  uint // bits of cur
	cur   byte
	zeros int // zero bytes just read
	short bool
}

func (r *bitReader) bit() uint32 {
	if r.left == 0 {
		if r.zeros >= 2 && r.pos < len(r.data) && r.data[r.pos] == 3 {
			r.pos++
			r.zeros = 0
		}
		if r.pos >= len(r.data) {
			r.short = true
			return 0
		}
		r.cur = r.data[r.pos]
		r.pos++
		r.left = 8
		if r.cur == 0 {
			r.zeros++
		} else {
			r.zeros = 0
		}
	}
	r.left--
	return uint32(r.cur>>r.left) & 1
}

// bits reads up to 32 bits.
func (r *bitReader) bits(n int) (v uint32) {
	for range n {
		v = v<<1 | r.bit()
	}
	return v
}

// ue reads an unsigned Exp-Golomb code (ITU-T H.264 §9.1).
func (r *bitReader) ue() uint32 {
	n := 0
	for r.bit() == 0 {
		if n++; n > 31 || r.short {
			r.short = true
			return 0
		}
	}
	return 1<<n - 1 + r.bits(n)
}

// se reads a signed Exp-Golomb code (ITU-T H.264 §9.1.1).
func (r *bitReader) se() int32 {
	v := r.ue()
	if v&1 == 1 {
		return int32(v/2 + 1)
	}
	return -int32(v / 2)
}

// scalingList skips scaling list i (ITU-T H.264 §7.3.2.1.1.1).
func (r *bitReader) scalingList(i int) {
	size := 16
	if i >= 6 {
		size = 64
	}
	last, next := int32(8), int32(8)
	for range size {
		if next != 0 {
			next = (last + r.se()%256 + 256) % 256
		}
		if next != 0 {
			last = next
		}
	}
}
