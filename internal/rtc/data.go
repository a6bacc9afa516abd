package rtc

import (
	"errors"
	"fmt"
	"sync"

	"github.com/pion/webrtc/v4"

	"gateway/internal/contain"
)

// The data channels that the gateway opens for a viewer who asks for them (RFC 8832):
// their labels at the peer.
const (
	reliableLabel = "reliable" // ordered, and sent again until it has arrived
	lossyLabel    = "lossy"    // in any order, and sent once
)

const (
	// MaxData is the largest message of a data channel, in bytes: what all browsers take.
	MaxData = 64 << 10

	dataBacklog  = 1 << 20 // bytes that may wait for a peer on a channel
	foreignData  = 16      // channels that a peer may try to open
	sctpReceives = 256 << 10
)

// Data is a message of a data channel.
type Data struct {
	Lossy   bool // of the channel that doesn't repeat what is lost
	Text    bool // UTF-8, else bytes
	Payload []byte
}

// ErrSlow is a message that was dropped because the peer takes them too slowly.
var ErrSlow = errors.New("peer doesn't keep up")

// dataChannels are a viewer's.
type dataChannels struct {
	on func(Data)

	mu              sync.Mutex // guards what follows
	reliable, lossy *webrtc.DataChannel
	foreign         int
}

// OpenData has the next Offer carry data channels, and calls on with each message of the
// peer: on a goroutine of each channel, whose messages wait meanwhile. It is called once
// (ErrBadState), before or after there are tracks; ErrNeedsFullICE is a viewer that was
// made without ViewerOptions.FullICE where that is needed.
func (v *Viewer) OpenData(on func(Data)) error {
	v.neg.Lock()
	defer v.neg.Unlock()
	switch {
	case v.data.Load() != nil:
		return fmt.Errorf("data: %w: the channels are open already", ErrBadState)
	case v.answers.Load():
		return fmt.Errorf("data: %w: this peer makes the offers", ErrBadState)
	}
	pc, ok := v.conn.(*peerConnection)
	if !ok {
		return fmt.Errorf("data: %w", ErrNeedsFullICE)
	}
	d := &dataChannels{on: on}
	var err error
	if d.reliable, err = d.open(pc, reliableLabel, nil); err != nil {
		return err
	}
	ordered, never := false, uint16(0)
	if d.lossy, err = d.open(pc, lossyLabel, &webrtc.DataChannelInit{Ordered: &ordered, MaxRetransmits: &never}); err != nil {
		return err
	}
	pc.OnDataChannel(func(c *webrtc.DataChannel) {
		defer contain.Panic(v.log, "data", v.broke)
		c.Close() // the gateway opens what there is
		d.mu.Lock()
		d.foreign++
		many := d.foreign > foreignData
		d.mu.Unlock()
		if many {
			v.end(errForeign)
		}
	})
	v.data.Store(d)
	return nil
}

func (d *dataChannels) open(pc *peerConnection, label string, o *webrtc.DataChannelInit) (*webrtc.DataChannel, error) {
	c, err := pc.CreateDataChannel(label, o)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	lossy := label == lossyLabel
	c.OnMessage(func(m webrtc.DataChannelMessage) {
		defer contain.Panic(pc.viewer.log, "data", pc.viewer.broke)
		d.on(Data{Lossy: lossy, Text: m.IsString, Payload: m.Data})
	})
	return c, nil
}

// SendData sends a message to the peer, without waiting. ErrSlow is one that was dropped:
// too much waits for the peer on its channel. ErrBadState: the channel isn't open yet, or
// no more.
func (v *Viewer) SendData(m Data) error {
	d := v.data.Load()
	if d == nil {
		return fmt.Errorf("data: %w: no channel was asked for", ErrBadState)
	}
	c := d.reliable
	if m.Lossy {
		c = d.lossy
	}
	if c.ReadyState() != webrtc.DataChannelStateOpen {
		return fmt.Errorf("data: %w: the channel is %v", ErrBadState, c.ReadyState())
	}
	if len(m.Payload) > MaxData {
		return fmt.Errorf("data: a message of %d bytes, the limit is %d", len(m.Payload), MaxData)
	}
	d.mu.Lock() // so that what two send at once counts for both
	defer d.mu.Unlock()
	if c.BufferedAmount()+uint64(len(m.Payload)) > dataBacklog {
		return fmt.Errorf("data: %w", ErrSlow)
	}
	var err error
	if m.Text {
		err = c.SendText(string(m.Payload))
	} else {
		err = c.Send(m.Payload)
	}
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}
