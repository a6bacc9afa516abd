package stream

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/media"
)

const (
	publishedTick   = 500 * time.Millisecond
	publishedSilent = 2 * time.Second // after which a layer of several isn't offered any more
	publishedAbsent = 5 * time.Second // after which the stream is absent
	publishedCard   = 1280 * 720      // pixels of a placeholder, at most
	ratedAgain      = 3               // a track's bitrate is told anew when it has changed by a third
)

// Published is a stream that a publisher feeds: its packets, as they come, go into
// the same rings from which subscriptions read what pipelines make. Its simulcast
// layers are its renditions. Methods may be called from any goroutine.
//
// It has a goroutine that asks for keyframes and looks who is silent, and one that
// shows placeholders. Packets don't pass through them.
type Published struct {
	name, title string
	log         *slog.Logger
	wish        chan struct{} // somebody waits for a keyframe
	watched     chan struct{} // somebody watches
	stop        context.CancelFunc
	running     sync.WaitGroup

	notice // its mu guards below

	feeds  []*Feed // in the order of their renditions: best first, sound last
	away   string  // why nothing can come; ""
	state  State
	muted  map[media.Kind]bool
	closed bool
}

// PublishedTrack is a track that is about to come.
type PublishedTrack struct {
	media.Track
	// RequestKeyframe asks the publisher for a keyframe; it must not block. It is
	// called twice a second at most. Nil for sound.
	RequestKeyframe func()
}

// NewPublished makes a stream of tracks that nothing has come of. Close ends it. Those
// who watch are shown what paint makes while nothing comes; nil: nothing.
func NewPublished(name, title string, tracks []PublishedTrack, paint Painter, log *slog.Logger) *Published {
	ctx, stop := context.WithCancel(context.Background())
	p := &Published{
		name: name, title: title, log: log.With("stream", name),
		wish: make(chan struct{}, 1), watched: make(chan struct{}, 1), stop: stop,
		state: Starting, muted: make(map[media.Kind]bool), notice: newNotice(),
	}
	p.Rearrange(tracks)
	p.running.Go(func() { p.run(ctx) })
	if paint != nil {
		on := stage{paint: paint, gone: p.gone, changed: func() { p.update(func() {}) }, log: p.log}
		p.running.Go(func() { on.run(ctx, p.watched) })
	}
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
func (p *Published) run(ctx context.Context) {
	tick := time.NewTicker(publishedTick)
	defer tick.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
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

// gone lists the pictures with viewers of which nothing comes any more: for some
// seconds, or because nothing can. What never came isn't missed.
func (p *Published) gone(now time.Duration) (all []gone, watched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.feeds {
		t := f.ring.described()
		if t.Kind != media.Video || f.ring.readers() == 0 {
			continue
		}
		watched = true
		heard := time.Duration(f.heard.Load())
		if heard == 0 || p.away == "" && now-heard <= publishedAbsent || !f.ring.silent(now, heard) {
			continue
		}
		for t.Width*t.Height > publishedCard { // its publisher says how large it is
			t.Width, t.Height = t.Width/2, t.Height/2
		}
		all = append(all, gone{ring: f.ring, track: t, title: p.title, words: "Interrupted. Back soon", card: true})
	}
	return all, watched
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
		i.Placeholder = i.Placeholder || n > 0 && f.ring.stands()
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
	return p.awaitTracks(ctx, func() (tracks []media.Track, closed bool) {
		for _, f := range p.feeds {
			if !f.silent {
				tracks = append(tracks, f.ring.described())
			}
		}
		return tracks, p.closed
	})
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
	signal(p.watched)
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

// Close ends the stream. Subscriptions stay readable and silent. Receive must not be
// called afterwards. Idempotent.
func (p *Published) Close() error {
	already := false
	p.update(func() { already, p.closed, p.state = p.closed, true, Closed })
	p.stop()
	p.running.Wait()
	if already {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.feeds {
		f.muted.Store(true)
		f.ring.wipe()
	}
	return nil
}

// update changes what is guarded by mu, then tells the watchers.
func (p *Published) update(f func()) { p.announce(f, p.info) }
