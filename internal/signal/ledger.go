package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"gateway/internal/rtc"
)

const (
	ledgerFrames = 256              // that a session remembers at most
	ledgerWindow = 30 * time.Second // and for how long
	maxFrames    = 64               // of one report
	maxStage     = time.Minute      // that a client may report of one stage
)

// stage is a part of a frame's way from the source to the glass.
type stage int

// The stages, in the order of the way.
const (
	capturing    stage = iota // from the source's timestamp until the encoder has the picture: reading, conversion, waiting for the encoder
	encoding                  // until the encoder yields it
	packetizing               // until its last packet is there; from the capture on where nothing is encoded here
	queueing                  // until its last packet is sent to this viewer: batch and pace
	network                   // until it is all received
	jitterBuffer              // until decoding begins
	decoding                  // until it is decoded
	rendering                 // until the browser expects it on the screen
	total
	stages
)

var stageNames = [stages]string{"capture", "encode", "packetize", "queue", "network", "jitterBuffer", "decode", "render", "total"}

// frameReport is what a client tells of one frame that it showed. What it doesn't
// tell is unknown.
type frameReport struct {
	rtp                          uint32
	received                     time.Duration // on the client's clock
	jitterBuffer, decode, render time.Duration
}

const unknown time.Duration = -1

// ledger is where the time went of a viewer's latest frames: the stamps of the
// gateway joined with what the client reports. It belongs to its session's goroutine.
type ledger struct {
	ring []entry // grows to ledgerFrames
	n    int     // entries that were made
}

// entry is one frame.
type entry struct {
	at      time.Duration // when it was reported
	spent   [stages]time.Duration
	rtt     time.Duration // then; 0: unknown
	transit time.Duration // from being sent to being received, by clocks that have nothing in common
}

// add takes a frame and returns what was spent on it. now and the gateway's times
// are on the clock of media.Now.
//
// The network's part is half of the least round trip of the window, as no clock is
// shared with the client, and by how much longer than the fastest one of the window
// this frame was on its way: queues in the network and retransmissions.
func (l *ledger) add(now time.Duration, sent rtc.FrameTimes, told frameReport, rtt time.Duration) [stages]time.Duration {
	e := entry{at: now, rtt: rtt, transit: unknown}
	for s := range e.spent {
		e.spent[s] = unknown
	}
	packetized := sent.Capture
	if sent.Encoded != 0 {
		e.spent[capturing] = max(sent.Encoding-sent.Capture, 0)
		e.spent[encoding] = max(sent.Encoded-sent.Encoding, 0)
		packetized = sent.Encoded
	}
	e.spent[packetizing] = max(sent.Packetized-packetized, 0)
	e.spent[queueing] = max(sent.Sent-sent.Packetized, 0)
	e.spent[jitterBuffer], e.spent[decoding], e.spent[rendering] = told.jitterBuffer, told.decode, told.render
	if told.received != unknown {
		e.transit = told.received - sent.Sent + transitZero
	}
	fastest := e.transit
	for _, o := range l.recent(now) {
		if o.rtt > 0 && (rtt == 0 || o.rtt < rtt) {
			rtt = o.rtt
		}
		if o.transit != unknown && o.transit < fastest {
			fastest = o.transit
		}
	}
	if longer := e.transit - fastest; rtt > 0 && longer <= maxStage { // longer: the client's clock was set
		e.spent[network] = rtt/2 + longer
	}
	sum := time.Duration(0)
	for s := network; s < total && sum != unknown; s++ {
		sum += e.spent[s]
		if e.spent[s] == unknown {
			sum = unknown
		}
	}
	if sum != unknown {
		for s := range network {
			sum += max(e.spent[s], 0)
		}
	}
	e.spent[total] = sum
	if len(l.ring) < ledgerFrames {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.n%ledgerFrames] = e
	}
	l.n++
	return e.spent
}

// transitZero keeps transit times positive: the clocks of a page and of a machine
// begin at different times.
const transitZero = 100 * 365 * 24 * time.Hour

// recent lists what the window has, in no order, until the next add.
func (l *ledger) recent(now time.Duration) []entry {
	if n := len(l.ring); n > 0 && now-l.ring[l.n%n].at <= ledgerWindow { // the oldest
		return l.ring
	}
	return slices.DeleteFunc(slices.Clone(l.ring), func(e entry) bool { return now-e.at > ledgerWindow })
}

// Latency is what the stages of the way to one viewer take, of the frames of the
// last 30 s that it has reported; nil where nothing is known.
type Latency struct {
	Capture      *Quantiles `json:"capture,omitempty"`
	Encode       *Quantiles `json:"encode,omitempty"`
	Packetize    *Quantiles `json:"packetize,omitempty"`
	Queue        *Quantiles `json:"queue,omitempty"`
	Network      *Quantiles `json:"network,omitempty"`
	JitterBuffer *Quantiles `json:"jitterBuffer,omitempty"`
	Decode       *Quantiles `json:"decode,omitempty"`
	Render       *Quantiles `json:"render,omitempty"`
	Total        *Quantiles `json:"total,omitempty"`
}

// Quantiles are of milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

// latency sums the window up. nil: there is nothing in it.
func (l *ledger) latency(now time.Duration) *Latency {
	frames := l.recent(now)
	if len(frames) == 0 {
		return nil
	}
	var q [stages]*Quantiles
	spent := make([]time.Duration, 0, len(frames))
	for s := range stages {
		spent = spent[:0]
		for _, e := range frames {
			if e.spent[s] != unknown {
				spent = append(spent, e.spent[s])
			}
		}
		if n := len(spent); n > 0 {
			slices.Sort(spent)
			q[s] = &Quantiles{milliseconds(spent[(n-1)/2]), milliseconds(spent[(n-1)*95/100]), milliseconds(spent[n-1])}
		}
	}
	return &Latency{q[capturing], q[encoding], q[packetizing], q[queueing], q[network], q[jitterBuffer], q[decoding], q[rendering], q[total]}
}

// milliseconds is a time as messages have it, to a hundredth.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(10*time.Microsecond)) / 100
}

// readFrames reads the frames of a report.
func readFrames(v json.RawMessage) ([]frameReport, error) {
	var list []json.RawMessage
	if isNull(v) || json.Unmarshal(v, &list) != nil {
		return nil, errors.New("not a list")
	}
	if len(list) > maxFrames {
		return nil, fmt.Errorf("more than %d", maxFrames)
	}
	frames := make([]frameReport, len(list))
	for i, v := range list {
		var err error
		if frames[i], err = readFrame(v); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

func readFrame(v json.RawMessage) (frameReport, error) {
	f := frameReport{received: unknown, jitterBuffer: unknown, decode: unknown, render: unknown}
	object, err := readObject(v)
	if err != nil {
		return f, err
	}
	rtp, err := strconv.ParseUint(string(object["rtp"]), 10, 32)
	if err != nil {
		return f, errors.New("rtp: not an integer from 0 to 4294967295")
	}
	f.rtp = uint32(rtp)
	delete(object, "rtp")
	for name, v := range object {
		var ms float64
		var err error
		switch name {
		case "received":
			err = number(&ms, v, float64(transitZero/time.Millisecond))
			f.received = time.Duration(ms * float64(time.Millisecond))
		case "jitterBuffer":
			err = spell(&f.jitterBuffer, v)
		case "decode":
			err = spell(&f.decode, v)
		case "render":
			err = spell(&f.render, v)
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return f, fmt.Errorf("%.64s: %w", name, err)
		}
	}
	return f, nil
}

// spell reads the milliseconds that a stage took.
func spell(dst *time.Duration, v json.RawMessage) error {
	var ms float64
	if err := number(&ms, v, float64(maxStage/time.Millisecond)); err != nil {
		return err
	}
	*dst = time.Duration(ms * float64(time.Millisecond))
	return nil
}
