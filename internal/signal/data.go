package signal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"gateway/internal/auth"
	"gateway/internal/contain"
	"gateway/internal/room"
	"gateway/internal/rtc"
)

const (
	dataRate   = 200 // messages a second of one user, over all data channels of his sessions
	dataBurst  = 400
	dataBytes  = 1 << 20 // bytes a second, likewise
	dataWaits  = 256     // messages that wait for their turn on a client's channels
	maxUserID  = 128     // bytes
	dataStrike = 50      // refused messages until the channels are closed to what a client sends
)

// dataChannels is a client's data channels: messages of applications, to and from others of the room
// and local programs. Its methods may be called from any goroutine.
type dataChannels struct {
	session *session
	out     chan room.Relayed // to the client
	viewer  atomic.Pointer[rtc.Viewer]
	strikes atomic.Int32
}

// openData acts on a client's wish for data channels: they are in the next offer.
func (x *session) openData(ctx context.Context, requestID string) error {
	switch {
	case x.data.Load() != nil:
		return refuse(badState, "the data channels were asked for already")
	case !x.place.Grant().May(auth.Relay, x.room, ""):
		return mildly(refuse(forbidden, "data channels take relay in %q", x.room))
	}
	d := &dataChannels{session: x, out: make(chan room.Relayed, dataWaits)}
	x.data.Store(d)
	x.single = nil // the session is for more than a stream
	go d.write()
	if x.viewer == nil {
		if err := x.newViewer(); err != nil {
			return err
		}
	} else if err := d.attach(x.viewer); errors.Is(err, rtc.ErrNeedsFullICE) {
		x.viewer.Close()
		return x.reopen(ctx)
	} else if err != nil {
		return err
	}
	return x.offer(ctx, nextOffer{requestID: requestID})
}

// attach has a viewer carry the channels.
func (d *dataChannels) attach(v *rtc.Viewer) error {
	if err := v.OpenData(d.take); err != nil {
		return err
	}
	d.viewer.Store(v)
	return nil
}

// take relays a message of the client. It is called on the goroutine of one of its
// channels.
func (d *dataChannels) take(m rtc.Data) {
	if err := d.pass(m); err != nil {
		d.refuse(err)
	}
}

func (d *dataChannels) pass(m rtc.Data) error {
	if d.strikes.Load() >= dataStrike {
		return nil
	}
	if !d.session.shares.data.Allow() {
		return refuse(rateLimited, "more than %d data messages a second of one user", dataRate)
	}
	if !d.session.shares.dataBytes.AllowN(time.Now(), len(m.Payload)) {
		return refuse(rateLimited, "more than %d bytes of data a second of one user", dataBytes)
	}
	target, payload, err := unpackData(m)
	if err != nil {
		return err
	}
	d.session.server.metrics.data.WithLabelValues("in").Inc()
	return d.session.place.Relay(target, &room.Data{JSON: m.Text, Lossy: m.Lossy, Payload: payload})
}

// refuse tells the client of a message that wasn't relayed. It doesn't wait for the session,
// which may be waiting for the end of the channels.
func (d *dataChannels) refuse(err error) {
	r := *refusalOf(err)
	if d.strikes.Add(1) == dataStrike {
		r = *refuse(rateLimited, "%d data messages were refused: no more are taken (the last: %s)", dataStrike, r.message)
	}
	r.fatal = false
	d.session.server.metrics.refusals.WithLabelValues(string(r.code)).Inc()
	d.session.out.send(errorMessage(&r, d.session.trace, ""))
}

// hand has a message sent to the client. It doesn't block: what is too much for a slow
// client is dropped, and counted.
func (d *dataChannels) hand(m room.Relayed) {
	select {
	case d.out <- m:
	default:
		d.session.server.metrics.data.WithLabelValues("dropped").Inc()
	}
}

// write sends what was handed, until the session has ended.
func (d *dataChannels) write() {
	defer contain.Panic(d.session.log, "data", d.session.end)
	for {
		select {
		case m := <-d.out:
			what := "dropped"
			if v := d.viewer.Load(); v != nil && v.SendData(packData(m.From, m.Message.(*room.Data))) == nil {
				what = "out"
			}
			d.session.server.metrics.data.WithLabelValues(what).Inc()
		case <-d.session.done:
			return
		}
	}
}

// envelope is a text message of a data channel.
type envelope struct {
	Target string          `json:"target,omitempty"` // from a client: for one participant; none: all
	UserID string          `json:"userId,omitempty"` // to a client: the sender
	Data   json.RawMessage `json:"data"`
}

// unpackData reads a client's message. A text is an envelope; bytes begin with one that
// tells how long the target is, and the target.
func unpackData(m rtc.Data) (target string, payload []byte, err error) {
	if m.Text {
		var e envelope
		in := json.NewDecoder(bytes.NewReader(m.Payload))
		in.DisallowUnknownFields()
		if err := in.Decode(&e); err != nil || e.Data == nil || e.UserID != "" || len(e.Target) > maxUserID {
			return "", nil, refuse(badMessage, `a text on a data channel is {"target"?, "data"}`)
		}
		if _, err := in.Token(); err != io.EOF {
			return "", nil, refuse(badMessage, "a text on a data channel is one JSON object")
		}
		return e.Target, e.Data, nil
	}
	if len(m.Payload) == 0 || len(m.Payload)-1 < int(m.Payload[0]) || m.Payload[0] > maxUserID {
		return "", nil, refuse(badMessage, "bytes on a data channel begin with the length of the target's userId, and it")
	}
	n := 1 + int(m.Payload[0])
	return string(m.Payload[1:n]), m.Payload[n:], nil
}

// packData is a message for clients, the same way with the sender's userId. What is handed
// to several is written once.
func packData(from string, d *room.Data) rtc.Data {
	return rtc.Data{Text: d.JSON, Lossy: d.Lossy, Payload: d.Frame.By(func() []byte { return frameData(from, d) })}
}

// frameData is packData's writing. It is never longer than the payload and 256 bytes: those of
// a text are as they came, without the spaces.
func frameData(from string, d *room.Data) []byte {
	if !d.JSON {
		from = from[:min(len(from), maxUserID)]
		frame := make([]byte, 0, 1+len(from)+len(d.Payload))
		frame = append(frame, byte(len(from)))
		frame = append(frame, from...)
		return append(frame, d.Payload...)
	}
	var text bytes.Buffer
	text.Grow(len(d.Payload) + 256)
	to := json.NewEncoder(&text)
	// nobody puts it into a page as it is, and <, > and & would be six times as long
	to.SetEscapeHTML(false)
	if err := to.Encode(envelope{UserID: from, Data: d.Payload}); err != nil { // checked when it came
		return nil
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}
