package viewer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gateway/client"
	"gateway/internal/media"
)

// Join watches a stream over the WebSocket, as the gateway's page does: it stays
// through a change of codec. o.URL is the gateway's. It returns when the gateway
// has agreed.
func Join(ctx context.Context, o Options, stream string) (*Viewer, error) {
	v := &Viewer{Begun: time.Now(), keyframes: make(chan struct{})}
	api, err := newAPI(&o)
	if err != nil {
		return nil, err
	}
	var codecsOf []string
	for _, c := range o.Codecs {
		codecsOf = append(codecsOf, codecs[c][0].MimeType)
	}
	if v.joined, err = client.Dial(ctx, o.URL, client.Options{Codecs: codecsOf, API: api, DialContext: o.Dial}); err != nil {
		return nil, err
	}
	v.Posted = time.Now()
	watch, err := v.joined.Join(ctx, stream)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	if watch.Stream == nil {
		return nil, errors.Join(fmt.Errorf("join %s: it has no stream of its name", stream), v.Close())
	}
	w, err := v.joined.Watch(ctx, stream, "")
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.Answered = time.Now()
	v.reading.Go(func() {
		for {
			track, err := w.Track(context.Background()) // ends with the client
			if err != nil {
				return
			}
			v.reading.Go(func() { v.carry(track, o) })
		}
	})
	return v, nil
}

// carry counts the packets of a track until it ends.
func (v *Viewer) carry(track *client.Track, o Options) {
	var order sequence
	for {
		packet, err := track.Read(context.Background())
		if err != nil {
			return
		}
		codec, err := media.ParseCodec(packet.Codec.MimeType)
		if err != nil {
			return
		}
		v.take(codec, packet.Packet, &order, o.OnRTP)
	}
}
