package impair

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// Record is what became of a packet, and what its headers say.
type Record struct {
	Came, At  time.Time
	Waited    time.Duration
	Fate      Fate
	Size      int // of the IP packet, bytes
	RTP       bool
	SSRC      uint32 // of RTP, as the rest
	Timestamp uint32
	Padding   bool // the P bit
}

// Meter writes down what goes over a link. SRTP leaves the headers of RTP in the clear.
type Meter struct {
	mu      sync.Mutex // guards records
	records []Record
}

// NewMeter begins to write down, in place of another tap.
func NewMeter(l *Link) *Meter {
	m := new(Meter)
	l.Tap(m.note)
	return m
}

func (m *Meter) note(p Passed) {
	r := Record{Came: p.Came, At: p.At, Waited: p.Waited, Fate: p.Fate, Size: len(p.Packet)}
	r.read(p.Packet)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = append(m.records, r)
}

// read reads RTP in UDP in IPv4, not fragmented.
func (r *Record) read(b []byte) {
	const udp = 17
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != udp || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return
	}
	header := int(b[0]&15) * 4
	if len(b) < header+8+12 {
		return
	}
	b = b[header+8:]
	if b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 { // STUN, DTLS, RTCP (RFC 7983 §7, RFC 5761 §4)
		return
	}
	r.RTP, r.Padding = true, b[0]&0x20 != 0
	r.Timestamp, r.SSRC = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
}

// Records is what was written down of packets that came from one time until another,
// in the order in which they came.
func (m *Meter) Records(from, to time.Time) []Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Record
	for _, r := range m.records {
		if !r.Came.Before(from) && r.Came.Before(to) {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b Record) int { return a.Came.Compare(b.Came) })
	return list
}

// Rate is how many bits a second packets of some kind are in a span.
func Rate(records []Record, span time.Duration, of func(*Record) bool) float64 {
	bytes := 0
	for i := range records {
		if of(&records[i]) {
			bytes += records[i].Size
		}
	}
	return float64(bytes) * 8 / span.Seconds()
}
