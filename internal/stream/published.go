package stream

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
)

const (
	publishedTick   = 500 * time.Millisecond
	publishedSilent = 2 * time.Second // after which a layer of several isn't offered any more
	publishedAbsent = 5 * time.Second // after which the stream is absent
	ratedAgain      = 3               // a track's bitrate is told anew when it has changed by a third
)

// Published is a stream that a publisher feeds: its packets, as they come, go into
// the same rings from which subscriptions read what pipelines make. Its simulcast
// layers are its renditions. Methods may be called from any goroutine.
//
// It has one goroutine, which asks for keyframes and looks who is silent. Packets
// don't pass through it.
type Published struct {
	name, title string
	log         *slog.Logger
	wish        chan struct{} // somebody waits for a keyframe
	stop        chan struct{}
	done        chan struct{}

	mu       sync.Mutex // guards below; held to read or set, never across a call outward
	feeds    []*Feed    // in the order of their renditions: best first, sound last
	away     string     // why nothing can come; ""
	state    State
	muted    map[media.Kind]bool
	closed   bool
	watchers map[int]func(Info)
	watcher  int
	changed  chan struct{} // closed and replaced at every change
}

// PublishedTrack is a track that is about to come.
type PublishedTrack struct {
	media.Track
	// RequestKeyframe asks the publisher for a keyframe; it must not block. It is
	// called twice a second at most. Nil for sound.
	RequestKeyframe func()
}

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

// NewPublished makes a stream of tracks that nothing has come of. Close ends it.
func NewPublished(name, title string, tracks []PublishedTrack, log *slog.Logger) *Published {
	p := &Published{
		name: name, title: title, log: log.With("stream", name),
		wish: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		state: Starting, muted: make(map[media.Kind]bool), watchers: make(map[int]func(Info)), changed: make(chan struct{}),
	}
	p.Rearrange(tracks)
	go p.run()
	return p
}

// Rearrange makes the stream's tracks others. One that stays, with its codec, goes on
// for who reads it; sessions go over to those that are new.
func (p *Published) Rearrange(tracks []PublishedTrack) {
	p.update(func() {
		var feeds []*Feed
		for _, t := range tracks {
			f := p.find(t.Name)
			if f == nil || f.codec != t.Codec || f.ring.described().Kind != t.Kind {
				f = p.newFeed(t)
			}
			f.ask = t.RequestKeyframe
			feeds = append(feeds, f)
		}
		for _, f := range p.feeds {
			if !slices.Contains(feeds, f) {
				f.ring.wipe()
			}
		}
		p.feeds = feeds
		p.sort()
	})
}

func (p *Published) newFeed(t PublishedTrack) *Feed {
	if t.Bps == 0 {
		t.Bps = 1_000_000 // until it has been measured
		if t.Kind == media.Audio {
			t.Bps = 40_000
		}
	}
	f := &Feed{stream: p, ring: newRing(t.Track), codec: t.Codec}
	f.ring.poke = func() { signal(p.wish) }
	f.ring.adapt.limit(asIs(t.Track))
	f.muted.Store(p.muted[t.Kind])
	return f
}

// asIs are the limits of an encoder that can't be told anything.
func asIs(t media.Track) adapt.EncoderLimits {
	return adapt.EncoderLimits{
		Min: t.Bps, Start: t.Bps, Max: t.Bps, Last: true,
		Shapes: []adapt.Shape{{Width: t.Width, Height: t.Height, FPS: t.FPS}},
	}
}

// Name is the stream's name.
func (p *Published) Name() string { return p.name }

// Feed is where what comes of a track goes; nil if there is none.
func (p *Published) Feed(track string) *Feed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.find(track)
}

// find is the feed of a track, or nil. The caller holds mu.
func (p *Published) find(track string) *Feed {
	for _, f := range p.feeds {
		if f.ring.described().Name == track {
			return f
		}
	}
	return nil
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
	case media.VP8, media.VP9:
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

// sort puts the best picture first, where the sizes are known. The caller holds mu.
func (p *Published) sort() {
	rank := func(f *Feed) int {
		t := f.ring.described()
		if t.Kind == media.Audio {
			return -1
		}
		return t.Width * t.Height
	}
	known := !slices.ContainsFunc(p.feeds, func(f *Feed) bool { return rank(f) == 0 })
	slices.SortStableFunc(p.feeds, func(a, b *Feed) int {
		if !known {
			return max(-1, min(rank(b), 0)) - max(-1, min(rank(a), 0)) // sound last
		}
		return rank(b) - rank(a)
	})
}

// run asks for keyframes and looks after the layers, until Close.
func (p *Published) run() {
	defer close(p.done)
	tick := time.NewTicker(publishedTick)
	defer tick.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-p.wish:
		case <-again.C:
		case <-tick.C:
			p.look(media.Now())
		}
		if wait := p.askKeyframes(); wait > 0 {
			again.Reset(wait)
		}
	}
}

// askKeyframes asks the publisher for the keyframes that somebody waits for, and
// tells when to look again; 0: nobody waits.
func (p *Published) askKeyframes() (again time.Duration) {
	type wish struct {
		ring *ring
		ask  func()
	}
	var wishes []wish
	p.mu.Lock()
	for _, f := range p.feeds {
		if f.ask != nil && f.heard.Load() != 0 && !f.muted.Load() {
			wishes = append(wishes, wish{f.ring, f.ask})
		}
	}
	p.mu.Unlock()
	for _, w := range wishes {
		ask, next := w.ring.ask(nil, media.Now())
		if ask {
			w.ask()
		}
		if next > 0 && (again == 0 || next < again) {
			again = next
		}
	}
	return again
}

// look finds out which layers come, and how much of them, and tells of changes.
func (p *Published) look(now time.Duration) {
	changes := false
	p.mu.Lock()
	live := p.stateAt(now)
	changes = live != p.state
	heard := func(f *Feed) bool { at := f.heard.Load(); return at != 0 && now-time.Duration(at) < publishedSilent }
	any := slices.ContainsFunc(p.feeds, func(f *Feed) bool { return f.ring.described().Kind == media.Video && heard(f) })
	silent := make(map[*Feed]bool)
	rates := make(map[*Feed]media.Track)
	for _, f := range p.feeds {
		t := f.ring.described()
		silent[f] = any && t.Kind == media.Video && !heard(f)
		changes = changes || silent[f] != f.silent
		if rated, ok := f.rate(t, now); ok {
			rates[f], changes = rated, true
		}
	}
	p.mu.Unlock()
	if !changes {
		return
	}
	p.update(func() {
		p.state = live
		for _, f := range p.feeds {
			f.silent = silent[f]
			if t, ok := rates[f]; ok {
				f.ring.redescribe(func(of *media.Track) { of.Bps, of.FPS = t.Bps, t.FPS })
				f.ring.adapt.limit(asIs(f.ring.described()))
			}
		}
	})
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

// stateAt is the stream's state. The caller holds mu.
func (p *Published) stateAt(now time.Duration) State {
	newest := time.Duration(0)
	for _, f := range p.feeds {
		newest = max(newest, time.Duration(f.heard.Load()))
	}
	switch {
	case p.closed:
		return Closed
	case p.away != "":
		return Absent
	case newest == 0:
		return Starting
	case now-newest > publishedAbsent:
		return Absent
	}
	return Live
}

// Away says why nothing can come of the publisher for the moment; "": it can.
func (p *Published) Away(reason string) {
	p.update(func() {
		p.away = reason
		p.state = p.stateAt(media.Now())
	})
}

// Mute has what comes of a kind dropped, or not.
func (p *Published) Mute(kind media.Kind, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted[kind] = on
	for _, f := range p.feeds {
		if f.codec.Kind() == kind {
			f.muted.Store(on)
		}
	}
}

// Info describes the stream now.
func (p *Published) Info() Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info()
}

// info is Info for a caller that holds mu.
func (p *Published) info() Info {
	i := Info{Name: p.name, Title: p.title, State: p.state, Tracks: []TrackInfo{}}
	if p.closed {
		i.State = Closed
	}
	if i.State == Absent {
		if i.Reason = p.away; i.Reason == "" {
			i.Reason = fmt.Sprintf("the publisher has sent nothing for %v", publishedAbsent)
		}
	}
	video, audio := 0, 0
	for _, f := range p.feeds {
		t := f.ring.described()
		n := f.ring.readers()
		if t.Kind == media.Video {
			video += n
		} else {
			audio += n
		}
		refused := ""
		if f.silent {
			refused = "the publisher doesn't send it now"
		}
		i.Tracks = append(i.Tracks, TrackInfo{
			Name: t.Name, Kind: t.Kind, Codec: t.Codec, Width: t.Width, Height: t.Height, FPS: t.FPS, Bitrate: t.Bps,
			Viewers: n, Running: f.heard.Load() != 0 && !f.silent, Refused: refused,
		})
	}
	i.Viewers = max(video, audio)
	return i
}

// Tracks lists those that come, at least one of each kind. It returns ErrClosed at
// the stream's end. It waits only while there are none.
func (p *Published) Tracks(ctx context.Context) ([]media.Track, error) {
	for {
		p.mu.Lock()
		var tracks []media.Track
		for _, f := range p.feeds {
			if !f.silent {
				tracks = append(tracks, f.ring.described())
			}
		}
		closed, changed := p.closed, p.changed
		p.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case len(tracks) > 0:
			return tracks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Subscribe reads a track. The caller closes the subscription.
func (p *Published) Subscribe(track string) (*Subscription, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	f := p.find(track)
	if f == nil || f.silent {
		return nil, fmt.Errorf("stream %q has no track %q now", p.name, track)
	}
	sub := &Subscription{ring: f.ring, leave: func() {}}
	f.ring.attach(sub)
	return sub, nil
}

// Current tells whether a subscription reads a track that comes.
func (p *Published) Current(sub *Subscription) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.feeds, func(f *Feed) bool { return f.ring == sub.ring && !f.silent })
}

// Target is the bit/s that the network must carry of a viewer of a track; 0 if there
// is no such track. What the network carries changes nothing here.
func (p *Published) Target(track string, carries int) (bps int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.find(track); f != nil {
		return f.ring.described().Bps
	}
	return 0
}

// Counts are the totals of each track by its name.
func (p *Published) Counts() map[string]Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]Counts)
	for _, f := range p.feeds {
		all[f.ring.described().Name] = f.ring.counts()
	}
	return all
}

// Watch has f called at every change of the stream's state or tracks, until cancel.
// It must not block or call the stream.
func (p *Published) Watch(f func(Info)) (cancel func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watcher++
	id := p.watcher
	p.watchers[id] = f
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, id)
	}
}

// Close ends the stream. Subscriptions stay readable and silent. Receive must not be
// called afterwards. Idempotent.
func (p *Published) Close() error {
	already := false
	p.update(func() { already, p.closed, p.state = p.closed, true, Closed })
	if already {
		<-p.done
		return nil
	}
	close(p.stop)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.feeds {
		f.muted.Store(true)
		f.ring.wipe()
	}
	return nil
}

// update changes what is guarded by mu, then tells the watchers.
func (p *Published) update(f func()) {
	p.mu.Lock()
	f()
	info := p.info()
	watchers := make([]func(Info), 0, len(p.watchers))
	for _, w := range p.watchers {
		watchers = append(watchers, w)
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	for _, w := range watchers {
		w(info)
	}
}
