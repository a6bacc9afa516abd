package media

import "bytes"

// What a packet costs on the way beside its payload: IPv4 and UDP, RTP with one
// extension, AES-GCM's tag.
const packetOverhead = 28 + 20 + 16

// maxPadding is the most that one packet can be padded with (RFC 3550 §5.1: the last
// byte says how many there are).
const maxPadding = 255

// maxLevel is the part of a frame, one in so many, that may be spent on making its
// packets equal.
const maxLevel = 20

// Padding is how many bytes of RTP padding the packet gets so that it is as large as
// the buffer's Level. It depends on the buffer alone: a packet that is sent again is
// the same bytes.
func (p Packet) Padding() int {
	return padding(p.Buffer.Level, p.Buffer.size(p.I), p.I+1 == len(p.Buffer.ends))
}

func padding(level, size int, last bool) int {
	if n := level - size; n > 0 && n <= maxPadding && !last {
		return n
	}
	return 0
}

// H264Packets makes RTP payloads of H.264 access units (RFC 6184,
// packetization-mode 1). The zero value is ready; it keeps nothing of a unit but is
// for one goroutine.
type H264Packets struct {
	nals  [][]byte
	sizes []int
}

// maxLeveled is how many NAL units of an access unit are looked at together.
const maxLeveled = 16

// Larger frames are sent in parts anyway, and smaller fragments cost more than a message.
const (
	maxFragments  = 32
	leastFragment = 500
)

const (
	nalAUD    = 9
	nalFiller = 12

	stapHeader = 1 // and two bytes of size for each NAL unit (RFC 6184 §5.7.1)
	fuHeader   = 2 // in the place of the NAL unit's header (RFC 6184 §5.8)
)

// Append adds the packets of an access unit in byte stream format (ITU-T H.264 Annex
// B), whose payloads have most bytes at most, to a buffer, and tells whether there
// are any. NAL units that fit together become one packet, and what is too large is
// fragmented. The fragments are as large as it takes for the frame to go out in the
// fewest messages (Buffer.Level), if that costs at most a twentieth of it in headers
// and padding: an encoder that works in threads makes a slice in each, and the last
// fragment of a slice is smaller than the others. Where that isn't to be spent (level),
// they are as large as they can be.
// Delimiters and filler are left out.
func (h *H264Packets) Append(b *Buffer, unit []byte, most int, level bool) bool {
	h.split(unit)
	size := most
	if level {
		var padded bool
		if size, padded = h.level(most); padded {
			b.Level = size
		}
	}
	h.cut(size, func(nals [][]byte) {
		room := b.Room(stapHeader + 2*len(nals) + total(nals))
		room[0] = nalSTAPA // STAP-A: the highest importance of its units, and any F bit
		n := stapHeader
		for _, nal := range nals {
			room[0] |= nal[0] & 0x80
			room[0] = max(room[0]&0x60, nal[0]&0x60) | room[0]&0x9f
			room[n], room[n+1] = byte(len(nal)>>8), byte(len(nal))
			n += 2 + copy(room[n+2:], nal)
		}
		b.Commit(n)
	}, func(nal []byte, from, to int) {
		if from == 0 {
			b.Append(nal)
			return
		}
		room := b.Room(fuHeader + to - from)
		room[0], room[1] = nal[0]&0xe0|nalFUA, nal[0]&0x1f
		if from == 1 {
			room[1] |= 0x80
		}
		if to == len(nal) {
			room[1] |= 0x40
		}
		b.Commit(fuHeader + copy(room[fuHeader:], nal[from:to]))
	})
	clear(h.nals)
	return b.Len() > 0
}

// split finds the NAL units between start codes, without the zeros that may follow
// one (ITU-T H.264 §B.1.1).
func (h *H264Packets) split(unit []byte) {
	h.nals = h.nals[:0]
	code := []byte{0, 0, 1}
	at := bytes.Index(unit, code)
	for at >= 0 {
		nal := unit[at+len(code):]
		if at = bytes.Index(nal, code); at >= 0 {
			nal, unit = nal[:at], nal
		}
		nal = bytes.TrimRight(nal, "\x00")
		if len(nal) > 0 && nal[0]&0x1f != nalAUD && nal[0]&0x1f != nalFiller {
			h.nals = append(h.nals, nal)
		}
	}
}

// cut goes over the packets of a size: together for each several NAL units
// that make one, else part for a NAL unit's bytes from to to; from 0 is all of it.
func (h *H264Packets) cut(size int, together func(nals [][]byte), part func(nal []byte, from, to int)) {
	for i := 0; i < len(h.nals); {
		n, bytes := 0, stapHeader
		for ; i+n < len(h.nals) && bytes+2+len(h.nals[i+n]) <= size; n++ {
			bytes += 2 + len(h.nals[i+n])
		}
		if n > 1 {
			together(h.nals[i : i+n])
			i += n
			continue
		}
		nal := h.nals[i]
		i++
		if len(nal) <= size {
			part(nal, 0, len(nal))
			continue
		}
		for from := 1; from < len(nal); {
			to := min(from+size-fuHeader, len(nal))
			part(nal, from, to)
			from = to
		}
	}
}

// level is the size of packets, most at most, with which a frame goes out in the
// fewest messages, and whether smaller ones are padded for that; of those sizes the
// one that costs least.
func (h *H264Packets) level(most int) (size int, padded bool) {
	n := len(h.nals)
	if n < 2 || n > maxLeveled || total(h.nals) > maxFragments*most {
		return most, false
	}
	messages, cost := h.cost(most, false)
	allowed := cost + total(h.nals)/maxLevel
	size = most
	try := func(s int) {
		if s < leastFragment || s > most || messages == 1 {
			return
		}
		if m, c := h.cost(s, true); c <= allowed && (m < messages || m == messages && c < cost && padded) {
			size, padded, messages, cost = s, true, m, c
		}
	}
	try(most)
	for i, nal := range h.nals[:n-1] {
		try(len(nal))
		for _, filled := range []int{len(nal) - 1, len(nal) - 1 + maxPadding} { // the last fragment as large as the others, or padded
			for k := 1; filled/k+fuHeader >= leastFragment; k++ {
				try((filled+k-1)/k + fuHeader)
			}
		}
		for j, sum := i+1, stapHeader+2+len(nal); j < n && sum < most; j++ {
			sum += 2 + len(h.nals[j])
			try(sum)
			try(sum + maxPadding)
		}
	}
	return size, padded
}

// cost is the messages that packets of a size, padded or not, go out in, and the bytes
// of headers and padding.
func (h *H264Packets) cost(size int, padded bool) (messages, bytes int) {
	h.sizes = h.sizes[:0]
	h.cut(size, func(nals [][]byte) {
		h.sizes = append(h.sizes, stapHeader+2*len(nals)+total(nals))
	}, func(nal []byte, from, to int) {
		if from > 0 {
			to += fuHeader
		}
		h.sizes = append(h.sizes, to-from)
	})
	level := 0
	if padded {
		level = size
	}
	run := 0 // the size that the message goes on with; 0: it has ended
	for i, n := range h.sizes {
		pad := padding(level, n, i+1 == len(h.sizes))
		n += pad
		bytes += packetOverhead + pad
		if run == 0 || n > run {
			messages++
			run = n
		} else if n < run {
			run = 0
		}
	}
	return messages, bytes
}

func total(nals [][]byte) (n int) {
	for _, nal := range nals {
		n += len(nal)
	}
	return n
}
