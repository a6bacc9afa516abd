package media

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Buffer is a run of consecutive RTP packets of one frame, copied once out of a
// pipeline. A frame (access unit) is one or several buffers: the first has
// Start, the last has End. Packets go on to viewers buffer by buffer: a frame is
// never held back until it is complete.
//
// A buffer is filled by one goroutine, then shared and read only. It is pooled:
// whoever holds one calls Release, whoever passes it to another holder calls
// Retain first.
type Buffer struct {
	Capture  time.Duration // when the frame was captured, on the clock of Now
	Encoding time.Duration // when the encoder was given the frame, on the clock of Now; 0: unknown, or nothing is encoded here
	Encoded  time.Duration // when the encoder had yielded it, or as much of it as the buffer has; 0 with Encoding
	Arrived  time.Duration // when the buffer left its pipeline, on the clock of Now
	Start    bool          // the first packet begins a frame
	End      bool          // the last packet ends its frame (RTP marker)
	Keyframe bool          // a decoder can start at this buffer's frame; as a pipeline makes it, a later buffer may be the first to tell
	Gap      bool          // packets were lost between the previous buffer and this one

	// Placeholder says that the source is away, and this a picture in its place:
	// what is measured of pictures doesn't hold for it.
	Placeholder bool

	// Level is the payload size that packets are padded to (Packet.Padding), but for
	// the last one and those that are much smaller; 0: none is. A run of packets of
	// equal size, of which only the last is smaller, goes out as one message
	// (UDP_SEGMENT), which costs as much as a dozen packets in it.
	Level int

	slab *[]byte // what data was taken from the pool in; nil for a large one
	data []byte
	ends []int // ends[i] is where payload i ends in data
	refs atomic.Int32
}

const (
	minClass = 8  // 256 B: a publisher's packets come one by one
	maxClass = 22 // 4 MiB; larger ones are left to the garbage collector
)

var (
	buffers sync.Pool                          // *Buffer without data
	slabs   [maxClass - minClass + 1]sync.Pool // *[]byte of 1<<class bytes
	live    atomic.Int64
)

// NewBuffer returns an empty buffer with room for size bytes of payload and one
// reference. It takes from a pool and doesn't block.
func NewBuffer(size int) *Buffer {
	b, _ := buffers.Get().(*Buffer)
	if b == nil {
		b = new(Buffer)
	}
	class := max(bits.Len(uint(max(size, 1)-1)), minClass)
	if class > maxClass {
		b.data = make([]byte, 0, size)
	} else {
		if b.slab, _ = slabs[class-minClass].Get().(*[]byte); b.slab == nil {
			slab := make([]byte, 0, 1<<class)
			b.slab = &slab
		}
		b.data = *b.slab
	}
	b.refs.Store(1)
	live.Add(1)
	return b
}

// Append adds one packet's payload (without RTP header), copying it.
func (b *Buffer) Append(payload []byte) {
	b.data = append(b.data, payload...)
	b.ends = append(b.ends, len(b.data))
}

// Room returns n bytes to be filled with the payloads of the packets to come;
// Commit then adds them one by one. It saves a copy where the sizes are known
// only after reading.
func (b *Buffer) Room(n int) []byte {
	b.data = slices.Grow(b.data, n)
	return b.data[len(b.data) : len(b.data)+n]
}

// Commit adds the next n bytes of what Room returned as one packet.
func (b *Buffer) Commit(n int) {
	b.data = b.data[:len(b.data)+n]
	b.ends = append(b.ends, len(b.data))
}

// Len is the number of packets.
func (b *Buffer) Len() int { return len(b.ends) }

// Size is the number of payload bytes of all packets.
func (b *Buffer) Size() int { return len(b.data) }

// Bytes are the payloads of all packets, one after the other; as Payload's they are
// shared.
func (b *Buffer) Bytes() []byte { return b.data }

// Payload is the payload of packet i, 0 ≤ i < Len. It is shared: read only, and
// valid while the caller holds a reference.
func (b *Buffer) Payload(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.data[start:b.ends[i]:b.ends[i]]
}

// size is the number of payload bytes of packet i.
func (b *Buffer) size(i int) int {
	if i == 0 {
		return b.ends[0]
	}
	return b.ends[i] - b.ends[i-1]
}

// Marker tells whether packet i carries the RTP marker: it ends its frame.
func (b *Buffer) Marker(i int) bool { return b.End && i == len(b.ends)-1 }

// Retain adds a reference.
func (b *Buffer) Retain() { b.refs.Add(1) }

// Release drops a reference; the last one returns the memory to the pool.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("media: buffer released twice")
	}
	live.Add(-1)
	if b.slab != nil {
		slabs[bits.Len(uint(cap(*b.slab)))-1-minClass].Put(b.slab)
	}
	b.Capture, b.Encoding, b.Encoded, b.Arrived = 0, 0, 0, 0
	b.Start, b.End, b.Keyframe, b.Gap, b.Placeholder, b.Level = false, false, false, false, false, 0
	b.slab, b.data, b.ends = nil, nil, b.ends[:0]
	buffers.Put(b)
}

// LiveBuffers is the number of buffers not yet released, for tests and metrics.
func LiveBuffers() int { return int(live.Load()) }

// Packet is one RTP packet of a track as a ring holds it: the payload and what
// every viewer's header is made from. Whoever is given one holds a reference to
// its buffer and calls Release.
type Packet struct {
	Buffer *Buffer
	I      int    // index in Buffer
	Index  uint64 // number of the packet in its track: continuous, also over pipeline restarts
	Start  bool   // first packet of its frame
}

// Payload is the packet's payload; see [Buffer.Payload].
func (p Packet) Payload() []byte { return p.Buffer.Payload(p.I) }

// Marker tells whether the packet ends its frame.
func (p Packet) Marker() bool { return p.Buffer.Marker(p.I) }

// Release gives back the packet's reference.
func (p Packet) Release() { p.Buffer.Release() }
