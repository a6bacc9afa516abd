package worker

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// A message on the wire is its kind (one byte), the number of bytes that follow (four
// bytes; all numbers are little endian), and those bytes: packets of a branch as they
// are laid out below, or JSON.
//
//	flags          1   bit 0 Start, 1 End, 2 Keyframe, 3 Gap
//	id's length    1
//	packets        4   how many
//	Level          4   bytes
//	Capture, Encoding, Encoded, Arrived   8 each: ns on the clock of media.Now, which both ends read
//	id
//	sizes          4 each, in bytes
//	payloads
const (
	kindPackets = 0
	kindJSON    = 1

	headSize    = 5
	packetsHead = 42
	maxID       = 255
	maxPackets  = 16 << 10
	maxPacket   = 16 << 10 // bytes of a payload; payloaders make 1,200
	maxBytes    = 32 << 20 // of a message with packets; gst takes no sample above 16 MiB
	maxJSON     = 1 << 20
)

// The messages in JSON. The first ones are commands to the child, those that are
// marked are answered by an answer of the same number.
const (
	doLaunch   = "launch"   // answered; Name, Feed, Within, Level
	doStart    = "start"    // answered; ID, Branch, Within
	doStop     = "stop"     // answered; ID
	doKeyframe = "keyframe" // ID
	doBitrate  = "bitrate"  // answered; ID, Count in bit/s, Scarce
	doClose    = "close"    // answered, by the child's last message

	doAnswer   = "answer"   // N, Error
	doDescribe = "describe" // ID, Track
	doDropped  = "dropped"  // ID, Count
	doEnded    = "ended"    // ID, Error
	doFail     = "fail"     // Error
	doPulse    = "pulse"    // RSS, CPU
	doLog      = "log"      // Log
)

// message is what is said in JSON.
type message struct {
	Do     string         `json:"do"`
	N      uint64         `json:"n,omitempty"` // of a command that is answered, and its answer
	ID     string         `json:"id,omitempty"`
	Name   string         `json:"name,omitempty"` // of the stream
	Feed   *config.Feed   `json:"feed,omitempty"`
	Branch *config.Branch `json:"branch,omitempty"`
	Track  *media.Track   `json:"track,omitempty"`
	Count  int            `json:"count,omitempty"`
	Scarce bool           `json:"scarce,omitempty"`
	Within time.Duration  `json:"within,omitempty"` // how long it may take
	Level  int            `json:"level,omitempty"`  // of the gateway's log
	Error  *fault         `json:"error,omitempty"`
	RSS    uint64         `json:"rss,omitempty"` // resident set size, bytes
	CPU    time.Duration  `json:"cpu,omitempty"` // time used so far, user and system
	Log    *record        `json:"log,omitempty"`
}

// encode is the message as it is sent.
func (m *message) encode() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(text) > maxJSON {
		return nil, fmt.Errorf("a message of %d bytes", len(text))
	}
	b := make([]byte, headSize, headSize+len(text))
	b[0] = kindJSON
	binary.LittleEndian.PutUint32(b[1:], uint32(len(text)))
	return append(b, text...), nil
}

// appendPackets appends all of a message with packets but the payloads.
func appendPackets(to []byte, id string, b *media.Buffer) []byte {
	n := b.Len()
	to = append(to, kindPackets)
	to = binary.LittleEndian.AppendUint32(to, uint32(packetsHead+len(id)+4*n+b.Size()))
	var flags byte
	for i, set := range []bool{b.Start, b.End, b.Keyframe, b.Gap} {
		if set {
			flags |= 1 << i
		}
	}
	to = append(to, flags, byte(len(id)))
	to = binary.LittleEndian.AppendUint32(to, uint32(n))
	to = binary.LittleEndian.AppendUint32(to, uint32(b.Level))
	for _, t := range []time.Duration{b.Capture, b.Encoding, b.Encoded, b.Arrived} {
		to = binary.LittleEndian.AppendUint64(to, uint64(t))
	}
	to = append(to, id...)
	for i := range n {
		to = binary.LittleEndian.AppendUint32(to, uint32(len(b.Payload(i))))
	}
	return to
}

var errWire = errors.New("the worker's message is damaged")

// receiver reads messages. What it is given may be anything: a plugin may have been
// made to write it.
type receiver struct {
	r    *bufio.Reader
	head []byte
	ids  map[string]string // so that an id isn't made anew for each buffer
}

func newReceiver(r io.Reader) *receiver {
	return &receiver{r: bufio.NewReaderSize(r, 64<<10), ids: make(map[string]string)}
}

// next blocks for the next message: either b, with its reference and its id, or m.
// The error is io.EOF at the end.
func (r *receiver) next() (id string, b *media.Buffer, m *message, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return "", nil, nil, err
	}
	size := int(min(binary.LittleEndian.Uint32(head[1:]), maxBytes+1)) // an int of 32 bits holds it
	switch {
	case head[0] == kindPackets && size >= packetsHead && size <= maxBytes:
		id, b, err = r.packets(size)
	case head[0] == kindJSON && size <= maxJSON:
		m, err = r.json(size)
	default:
		err = errWire
	}
	return id, b, m, err
}

func (r *receiver) json(size int) (*message, error) {
	text := make([]byte, size)
	if _, err := io.ReadFull(r.r, text); err != nil {
		return nil, err
	}
	m := new(message)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errWire, err)
	}
	return m, nil
}

// packets reads the rest of a message with packets; the payloads straight into the
// buffer.
func (r *receiver) packets(size int) (string, *media.Buffer, error) {
	var head [packetsHead]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return "", nil, err
	}
	flags, n := head[0], int(min(binary.LittleEndian.Uint32(head[2:]), maxPackets+1))
	if n > maxPackets {
		return "", nil, errWire
	}
	rest := int(head[1]) + 4*n
	bytes := size - packetsHead - rest
	if bytes < 0 {
		return "", nil, errWire
	}
	r.head = slices.Grow(r.head[:0], rest)[:rest]
	if _, err := io.ReadFull(r.r, r.head); err != nil {
		return "", nil, err
	}
	sizes := r.head[head[1]:]
	sum := uint64(0)
	for i := range n {
		one := binary.LittleEndian.Uint32(sizes[4*i:])
		if one > maxPacket {
			return "", nil, errWire
		}
		sum += uint64(one)
	}
	if sum != uint64(bytes) {
		return "", nil, errWire
	}
	b := media.NewBuffer(bytes)
	if _, err := io.ReadFull(r.r, b.Room(bytes)); err != nil {
		b.Release()
		return "", nil, err
	}
	for i := range n {
		b.Commit(int(binary.LittleEndian.Uint32(sizes[4*i:])))
	}
	b.Level = int(binary.LittleEndian.Uint32(head[6:]))
	b.Start, b.End, b.Keyframe, b.Gap = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
	for i, t := range []*time.Duration{&b.Capture, &b.Encoding, &b.Encoded, &b.Arrived} {
		*t = time.Duration(binary.LittleEndian.Uint64(head[10+8*i:]))
	}
	return r.id(r.head[:head[1]]), b, nil
}

// id is the id of that text.
func (r *receiver) id(text []byte) string {
	id, known := r.ids[string(text)]
	if !known {
		if len(r.ids) == 1024 { // there have been that many branches, or it lies
			clear(r.ids)
		}
		id = string(text)
		r.ids[id] = id
	}
	return id
}
