package rtc

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtp"
	"github.com/pion/transport/v4/packetio"

	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	// maxReceived is the largest payload that is forwarded, in bytes: with a
	// viewer's header, extensions and SRTP it has to fit a datagram of 1500.
	maxReceived = 1400
	// maxPublished bounds what is taken of a publisher, in bit/s; a burst of a second
	// passes. More than that is dropped.
	maxPublished = 60_000_000

	maxStreams       = 64   // SSRCs of a publisher that are taken at a time
	maxSSRCs         = 2048 // that it may use in its life before it is ended: a screen that is shared anew takes some
	feedbackInterval = 100 * time.Millisecond
)

// receiving is what comes of a publisher.
type receiving struct {
	publisher *Publisher
	ssrc      uint32        // of the gateway's feedback
	stir      chan struct{} // feedback may be due earlier
	stop      chan struct{}
	stopped   chan struct{}

	rmu      sync.Mutex // guards what follows; held while sinks are called
	lines    []*line
	streams  map[uint32]*inbound // by SSRC; nil: of an m-line that the last offer has ended
	time     timeline
	packet   rtp.Packet // the one that is read
	recorder *twcc.Recorder
	tokens   float64 // bytes that may come now
	tokensAt time.Duration
	dropped  uint64 // packets over maxPublished, or of no layer
	buffers  int    // that pion was given
	batch    []media.Received
	rtt      time.Duration // of ICE
	reportAt time.Duration
	twccAt   time.Duration
	firs     uint8
	wrapped  bool // closed
}

// line is one m-line of a publisher.
type line struct {
	*sending
	layers []*layer
}

// layer is one encoding that comes on an m-line.
type layer struct {
	line   *line
	rid    string
	sink   Sink
	ssrc   uint32 // 0: nothing has come yet
	buffer jitterBuffer
	time   streamTime
	frame  uint32        // timestamp of the newest that was handed on
	taken  time.Duration // its capture
	begun  bool
	gap    bool   // something was lost that hasn't been told yet
	wanted bool   // a keyframe is to be asked for
	asked  uint64 // keyframes
	report struct {
		ntp     uint32 // the middle bits of the last sender report
		arrived time.Duration
	}
	counted ReceiveCounts // by the metrics
	before  ReceiveCounts // of SSRCs that were left
}

// inbound is an SSRC of a layer: of its media, or of its repairs.
type inbound struct {
	layer *layer
	rtx   bool
}

func (r *receiving) begin(p *Publisher, ssrc uint32) {
	r.publisher, r.ssrc = p, ssrc
	r.stir, r.stop, r.stopped = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	r.streams = map[uint32]*inbound{}
	r.recorder = twcc.NewRecorder(ssrc)
	r.tokens = maxPublished / 8
}

func (r *receiving) close() {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	r.wrapped, r.lines, r.streams = true, nil, nil
}

// expect makes the lines what an offer has.
func (r *receiving) expect(sends []*sending) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	var lines []*line
	for _, s := range sends {
		i := slices.IndexFunc(r.lines, func(l *line) bool {
			return l.mid == s.mid && l.format.codec == s.format.codec && slices.Equal(l.sending.layers, s.layers)
		})
		if i >= 0 {
			l := r.lines[i]
			l.sending = s
			for _, y := range l.layers {
				y.buffer.repairs = s.repairable()
			}
			lines = append(lines, l)
			continue
		}
		l := &line{sending: s}
		for _, rid := range s.layers {
			y := &layer{line: l, rid: rid}
			y.renew(&r.time, 0)
			l.layers = append(l.layers, y)
		}
		lines = append(lines, l)
	}
	for ssrc, in := range r.streams {
		switch {
		case in != nil && slices.Contains(lines, in.layer.line):
		case in != nil && !slices.ContainsFunc(lines, func(l *line) bool { return l.mid == in.layer.line.mid || slices.Contains(l.ssrcs, ssrc) }):
			r.streams[ssrc] = nil // what is on its way still mustn't be taken for another's
		default:
			delete(r.streams, ssrc) // to be looked at again
		}
	}
	r.lines = lines
}

// repairable tells whether the sender answers NACKs.
func (s *sending) repairable() bool { return slices.Contains(s.format.feedback, "nack") }

// renew begins a layer, or goes on with it under another SSRC.
func (y *layer) renew(t *timeline, ssrc uint32) {
	rate := y.line.format.codec.ClockRate()
	y.before = y.counts()
	y.ssrc, y.gap = ssrc, y.begun
	y.buffer = jitterBuffer{rate: rate, repairs: y.line.repairable()}
	y.time = streamTime{timeline: t, rate: rate}
	y.report.ntp = 0
}

// Deliver sets where a layer's packets go; nil: nowhere. layer is one of
// Incoming.Layers. An unknown one is ErrBadState.
func (p *Publisher) Deliver(mid, layer string, to Sink) error {
	p.rmu.Lock()
	defer p.rmu.Unlock()
	y := p.layer(mid, layer)
	if y == nil {
		return fmt.Errorf("m-line %q, layer %q: %w: there is none", mid, layer, ErrBadState)
	}
	y.sink = to
	return nil
}

// RequestKeyframe asks the peer for a keyframe of a layer, by a PLI (RFC 4585 §6.3.1)
// or, if it takes only that, a FIR (RFC 5104 §4.3.1). The caller throttles. It doesn't block.
func (p *Publisher) RequestKeyframe(mid, layer string) {
	p.rmu.Lock()
	defer p.rmu.Unlock()
	if y := p.layer(mid, layer); y != nil && y.line.kind() == media.Video {
		y.wanted = true
		poke(p.stir)
	}
}

// layer finds a layer; rmu is held.
func (r *receiving) layer(mid, rid string) *layer {
	for _, l := range r.lines {
		for _, y := range l.layers {
			if l.mid == mid && y.rid == rid {
				return y
			}
		}
	}
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// buffer is pion's hook for where incoming SRTP and SRTCP packets go (see
// SettingEngine.BufferFactory). pion keeps something for each SSRC: a peer that
// uses many is ended.
func (r *receiving) buffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.buffers++; r.buffers > 2*maxSSRCs {
		r.publisher.end(errForeign)
		return discard{}
	}
	if kind == packetio.RTCPBufferPacket {
		return &reportInlet{r, ssrc}
	}
	return &mediaInlet{r, ssrc}
}

// mediaInlet takes the RTP packets of one SSRC, decrypted.
type mediaInlet struct {
	receiving *receiving
	ssrc      uint32
}

// Write is pion's: a packet has come.
func (i *mediaInlet) Write(b []byte) (int, error) {
	defer contain.Panic(i.receiving.publisher.log, "publisher", i.receiving.publisher.broke)
	i.receiving.receive(i.ssrc, b, media.Now())
	return len(b), nil
}
func (*mediaInlet) Read([]byte) (int, error) { return 0, io.EOF }
func (*mediaInlet) Close() error             { return nil }

// receive takes an RTP packet. Nothing in it is trusted: memory and work are bounded.
func (r *receiving) receive(ssrc uint32, b []byte, now time.Duration) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.wrapped || r.packet.Unmarshal(b) != nil || !r.admit(len(b), now) {
		r.dropped++
		return
	}
	h := &r.packet.Header
	r.record(h, now)
	in, known := r.streams[ssrc]
	if !known {
		in = r.resolve(ssrc, h)
	}
	if in == nil {
		r.dropped++
		return
	}
	y := in.layer
	f := &y.line.format
	a := arrival{seq: h.SequenceNumber, timestamp: h.Timestamp, marker: h.Marker, payload: r.packet.Payload}
	switch {
	case in.rtx && (f.rtx == 0 || h.PayloadType != f.rtx || len(a.payload) < 2):
		return // padding that probes for bandwidth has nothing in it
	case in.rtx: // RFC 4588 §4
		a.seq, a.payload, a.repaired = binary.BigEndian.Uint16(a.payload), a.payload[2:], true
		if !y.buffer.begun {
			return
		}
	case h.PayloadType != f.pt || y.ssrc != ssrc:
		r.dropped++
		return
	default:
		y.time.arrived(a.timestamp, now)
	}
	a.void = len(a.payload) > maxReceived
	missing := y.buffer.count.Missing
	y.buffer.push(a, now)
	r.hand(y, now)
	if y.buffer.count.Missing != missing {
		poke(r.stir)
	}
}

// record notes a packet for transport-wide feedback, whatever layer it is of: what isn't
// told of counts as lost, also what only probes for bandwidth.
func (r *receiving) record(h *rtp.Header, now time.Duration) {
	for _, l := range r.lines {
		if id := l.format.transportID; id != 0 { // the same on all m-lines (RFC 8843 §14.1)
			if x := h.GetExtension(id); len(x) >= 2 {
				r.recorder.Record(h.SSRC, binary.BigEndian.Uint16(x), int64(now/time.Microsecond))
			}
			return
		}
	}
}

// admit bounds the rate of what comes.
func (r *receiving) admit(size int, now time.Duration) bool {
	r.tokens = min(r.tokens+(now-r.tokensAt).Seconds()*maxPublished/8, maxPublished/8)
	r.tokensAt = now
	if r.tokens < float64(size) {
		return false
	}
	r.tokens -= float64(size)
	return true
}

// resolve finds the layer of an SSRC that wasn't seen before: by the SSRCs of the
// description, else by the header extensions, else by the payload type if only one
// m-line has it.
func (r *receiving) resolve(ssrc uint32, h *rtp.Header) *inbound {
	var in *inbound
	for _, l := range r.lines {
		if len(l.layers) > 1 {
			continue
		}
		if slices.Contains(l.ssrcs, ssrc) {
			in = &inbound{layer: l.layers[0]}
		}
		for _, rtx := range l.repairs {
			if rtx == ssrc {
				in = &inbound{layer: l.layers[0], rtx: true}
			}
		}
	}
	for _, l := range r.lines {
		if in != nil {
			break
		}
		var mid []byte
		if l.midID != 0 {
			mid = h.GetExtension(l.midID)
		}
		byMid := string(mid) == l.mid
		if !byMid && !(len(mid) == 0 && l.fromPT && (h.PayloadType == l.format.pt || l.format.rtx != 0 && h.PayloadType == l.format.rtx)) {
			continue
		}
		rtx := l.format.rtx != 0 && h.PayloadType == l.format.rtx
		for _, y := range l.layers {
			named := len(l.layers) == 1 && y.rid == ""
			if l.layerID != 0 && y.rid != "" {
				named = string(h.GetExtension(l.layerID)) == y.rid
			}
			if rtx && l.rlayer != 0 && y.rid != "" {
				named = string(h.GetExtension(l.rlayer)) == y.rid
			}
			if named {
				in = &inbound{layer: y, rtx: rtx}
			}
		}
	}
	if in == nil || len(r.streams) >= maxStreams {
		return nil
	}
	r.streams[ssrc] = in
	if !in.rtx {
		in.layer.renew(&r.time, ssrc)
		in.layer.buffer.tookRTT(max(r.rtt, time.Millisecond), false)
		if r.rtt == 0 {
			in.layer.buffer.rtt = 0
		}
	}
	return in
}

// hand passes on what a layer's buffer has.
func (r *receiving) hand(y *layer, now time.Duration) {
	r.batch = r.batch[:0]
	for {
		a, gap, ok := y.buffer.pop(now)
		if !ok {
			break
		}
		y.gap = y.gap || gap
		if len(a.payload) == 0 { // padding
			continue
		}
		if !y.begun || a.timestamp != y.frame {
			y.begun, y.frame, y.taken = true, a.timestamp, y.time.capture(a.timestamp, now)
		}
		r.batch = append(r.batch, media.Received{
			Payload: a.payload, Timestamp: a.timestamp, Marker: a.marker, Gap: y.gap, Capture: y.taken, Arrived: now,
		})
		y.gap = false
	}
	switch {
	case len(r.batch) == 0:
	case y.sink != nil:
		y.sink.Receive(r.batch)
	default:
		y.gap = true // for who comes next
	}
	clear(r.batch)
}
