package stream

import (
	"bytes"
	"sync/atomic"
	"time"

	"gateway/internal/media"
)

// Feed takes what comes of one track of a published stream.
type Feed struct {
	stream        *Published
	ring          *ring
	codec         media.Codec
	muted         atomic.Bool
	heard         atomic.Int64 // on the clock of media.Now; 0: never
	bytes, frames atomic.Uint64

	// below: guarded by the stream's mu
	ask     func() // for a keyframe; nil: of a sound
	silent  bool   // isn't offered
	counted struct {
		bytes, frames uint64
		at            time.Duration
	}

	// below: touched only by who calls Receive, one at a time
	timestamp uint32
	begun     bool
	gap       bool // something is lost before what comes next
	sps       []byte
}

// Receive takes packets in their order and puts them into the track's ring, frame by
// frame as far as they are there. It doesn't block. Callers take turns.
func (f *Feed) Receive(packets []media.Received) {
	now := media.Now()
	f.heard.Store(int64(now))
	if f.muted.Load() {
		f.gap = true
		return
	}
	var b *media.Buffer
	flush := func() {
		if b != nil {
			f.ring.push(b)
			b = nil
		}
	}
	for i := range packets {
		r := &packets[i]
		f.bytes.Add(uint64(len(r.Payload)))
		f.gap = f.gap || r.Gap
		f.describe(r.Payload)
		key := media.Keyframe(f.codec, r.Payload)
		start := !f.begun || r.Timestamp != f.timestamp
		if start {
			f.frames.Add(1)
		}
		begins := start && (!f.gap && f.begun || media.Begins(f.codec, r.Payload))
		payload, _ := media.Plain(f.codec, r.Payload)
		if payload == nil {
			f.gap = true
			continue
		}
		f.begun, f.timestamp = true, r.Timestamp
		if b != nil && (start || f.gap) {
			flush()
		}
		if b == nil {
			b = media.NewBuffer(len(payload))
			b.Capture, b.Arrived, b.Start = r.Capture, r.Arrived, begins
			// Who listens needn't wait for anything after a loss.
			b.Gap = f.gap && f.codec.Kind() == media.Video
			f.gap = false
		}
		b.Append(payload)
		b.Keyframe = b.Keyframe || key
		if b.End = r.Marker || f.codec.Kind() == media.Audio; b.End {
			flush()
		}
	}
	flush()
}

// describe notes what a keyframe's payload tells of the track.
func (f *Feed) describe(payload []byte) {
	switch f.codec {
	case media.H264:
		nal := media.H264SPS(payload)
		if nal == nil || bytes.Equal(nal, f.sps) {
			return
		}
		sps, err := media.ParseSPS(nal)
		if err != nil {
			return
		}
		f.sps = bytes.Clone(nal)
		f.become(func(t *media.Track) {
			t.Width, t.Height, t.Fmtp = sps.Width, sps.Height, media.RaiseFmtp(t.Fmtp, sps)
		})
	case media.VP8, media.VP9, media.AV1:
		if width, height, ok := media.PictureSize(f.codec, payload); ok {
			f.become(func(t *media.Track) { t.Width, t.Height = width, height })
		}
	}
}

// become changes what the track is said to be, if that is a change.
func (f *Feed) become(change func(*media.Track)) {
	t := f.ring.described()
	was := t
	if change(&t); t == was {
		return
	}
	f.stream.update(func() {
		f.ring.redescribe(change)
		f.ring.adapt.limit(asIs(f.ring.described()))
		f.stream.sort()
	})
}

// redescribe changes what the ring's track is said to be.
func (r *ring) redescribe(change func(*media.Track)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.track)
}

// wipe gives back the memory of a ring that nobody fills any more. Who reads it finds
// nothing.
func (r *ring) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.empty()
}

// rate measures a track over two seconds and tells if it has changed by much. The
// caller holds the stream's mu.
func (f *Feed) rate(t media.Track, now time.Duration) (media.Track, bool) {
	c := &f.counted
	took := now - c.at
	if c.at == 0 || took > 10*publishedTick {
		c.at, c.bytes, c.frames = now, f.bytes.Load(), f.frames.Load()
		return t, false
	}
	if took < 4*publishedTick {
		return t, false
	}
	bytes, frames := f.bytes.Load(), f.frames.Load()
	bps := int(float64(bytes-c.bytes) * 8 / took.Seconds())
	fps := float64(int(float64(frames-c.frames)/took.Seconds() + .5))
	c.at, c.bytes, c.frames = now, bytes, frames
	if bps == 0 {
		return t, false
	}
	off := func(a, b int) bool { return max(a, b)-min(a, b) > max(a, b)/ratedAgain }
	much := off(bps, t.Bps)
	t.Bps = bps
	if t.Kind == media.Video {
		much = much || off(int(fps), int(t.FPS))
		t.FPS = fps
	}
	return t, much
}
