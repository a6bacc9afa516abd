package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pion/webrtc/v4"
)

const (
	// MaxData is the longest Data or Bytes of a Message, in bytes as they are sent.
	MaxData = 64<<10 - 256

	dataWaits   = 256     // messages that wait for Receive
	dataBacklog = 1 << 20 // bytes that may wait to be sent on a channel
	maxTarget   = 128     // bytes of a userId
)

// Message is what applications in a room send each other over data channels.
type Message struct {
	UserID string          // of the sender; of what comes only
	Target string          // userId of the participant or program that it is for; "": all. Of what is sent only
	Data   json.RawMessage // any JSON; nil: Bytes
	Bytes  []byte
	Lossy  bool // sent once, and in any order; else nothing is lost, and the order kept
}

// Data are the data channels of a client. Its methods may be called from several
// goroutines at a time.
type Data struct {
	client   *Client
	channels chan *webrtc.DataChannel // that have opened, for OpenData
	messages chan Message
	dropped  atomic.Int64

	reliable, lossy *webrtc.DataChannel // set before OpenData returns
}

// OpenData has the gateway open the data channels, which takes the action relay, and
// returns when messages can be sent. Once a client. What comes is kept from then on for
// [Data.Receive].
func (c *Client) OpenData(ctx context.Context) (*Data, error) {
	d := &Data{client: c, channels: make(chan *webrtc.DataChannel, 2), messages: make(chan Message, dataWaits)}
	c.mu.Lock()
	again := c.data != nil
	if !again {
		c.data = d
	}
	c.mu.Unlock()
	if again {
		return nil, errors.New("open data: the channels were asked for already")
	}
	if err := d.open(ctx); err != nil {
		c.mu.Lock()
		c.data = nil
		c.mu.Unlock()
		return nil, fmt.Errorf("open data: %w", err)
	}
	return d, nil
}

func (d *Data) open(ctx context.Context) error {
	if err := d.client.order(ctx, map[string]any{"type": "open-data"}); err != nil {
		return err
	}
	for d.reliable == nil || d.lossy == nil {
		select {
		case channel := <-d.channels:
			switch channel.Label() {
			case "reliable":
				d.reliable = channel
			case "lossy":
				d.lossy = channel
			}
		case <-d.client.ctx.Done():
			return context.Cause(d.client.ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// channel takes a data channel that the gateway has opened.
func (c *Client) channel(channel *webrtc.DataChannel) {
	c.mu.Lock()
	d := c.data
	c.mu.Unlock()
	if d == nil {
		return // OpenData was given up
	}
	lossy := channel.Label() == "lossy"
	channel.OnMessage(func(m webrtc.DataChannelMessage) { d.take(m, lossy) })
	channel.OnOpen(func() {
		select {
		case d.channels <- channel:
		default: // more than were asked for
		}
	})
}

// take keeps a message for Receive. It is called on the goroutine of its channel.
func (d *Data) take(frame webrtc.DataChannelMessage, lossy bool) {
	m, err := readFrame(frame)
	if err != nil {
		d.dropped.Add(1)
		return
	}
	m.Lossy = lossy
	select {
	case d.messages <- m:
		return
	default:
	}
	if lossy {
		d.dropped.Add(1)
		return
	}
	select {
	case d.messages <- m: // the gateway drops what comes meanwhile, once its own queue is full
	case <-d.client.ctx.Done():
	}
}

// Receive waits for the next message. The error is what has ended the client, or ctx's.
// Of lossy messages those are lost for which a caller is too slow; Dropped counts them.
// Others wait at the gateway, which drops what is over 1 MiB or 256 messages.
func (d *Data) Receive(ctx context.Context) (Message, error) {
	select {
	case m := <-d.messages:
		return m, nil
	default:
	}
	select {
	case m := <-d.messages:
		return m, nil
	case <-d.client.ctx.Done():
		return Message{}, context.Cause(d.client.ctx)
	case <-ctx.Done():
		return Message{}, ctx.Err()
	}
}

// Dropped is how many messages came that Receive didn't yield: lossy ones that waited
// too long, and what isn't of the protocol's form.
func (d *Data) Dropped() int64 { return d.dropped.Load() }

// ErrBacklog refuses a message because a megabyte waits to be sent before it.
var ErrBacklog = errors.New("too much waits to be sent")

// Send sends a message and doesn't wait until it has arrived, nor for the gateway: what
// that refuses ("unknown-target", "rate-limited": 200 messages or 1 MiB a second of one
// user) comes as an "error" among [Client.Events].
func (d *Data) Send(m Message) error {
	frame, err := writeFrame(m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	channel := d.reliable
	if m.Lossy {
		channel = d.lossy
	}
	if channel.BufferedAmount()+uint64(len(frame)) > dataBacklog {
		return fmt.Errorf("send: %w", ErrBacklog)
	}
	if m.Data != nil {
		err = channel.SendText(string(frame))
	} else {
		err = channel.Send(frame)
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// writeFrame is a message as docs/protocol.md has it on data channels.
func writeFrame(m Message) ([]byte, error) {
	switch {
	case m.Data != nil && m.Bytes != nil:
		return nil, errors.New("a message is either JSON or bytes")
	case len(m.Data) > MaxData || len(m.Bytes) > MaxData:
		return nil, fmt.Errorf("a message of %d bytes, the limit is %d", max(len(m.Data), len(m.Bytes)), MaxData)
	case len(m.Target) > maxTarget:
		return nil, fmt.Errorf("a target of %d bytes, the limit is %d", len(m.Target), maxTarget)
	case m.Data == nil:
		return append(append([]byte{byte(len(m.Target))}, m.Target...), m.Bytes...), nil
	}
	var text bytes.Buffer
	to := json.NewEncoder(&text)
	to.SetEscapeHTML(false) // it would be longer than its limit
	err := to.Encode(struct {
		Target string          `json:"target,omitempty"`
		Data   json.RawMessage `json:"data"`
	}{m.Target, m.Data})
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// readFrame reads what writeFrame writes, with the sender in the place of the target.
func readFrame(frame webrtc.DataChannelMessage) (Message, error) {
	if frame.IsString {
		var text struct {
			UserID string          `json:"userId"`
			Data   json.RawMessage `json:"data"`
		}
		err := json.Unmarshal(frame.Data, &text)
		if err == nil && text.Data == nil {
			err = errors.New("a text has no data")
		}
		return Message{UserID: text.UserID, Data: text.Data}, err
	}
	if len(frame.Data) == 0 || len(frame.Data)-1 < int(frame.Data[0]) {
		return Message{}, errors.New("bytes are shorter than their sender's name")
	}
	n := 1 + int(frame.Data[0])
	return Message{UserID: string(frame.Data[1:n]), Bytes: frame.Data[n:]}, nil
}
