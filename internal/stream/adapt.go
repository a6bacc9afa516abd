package stream

import (
	"context"
	"slices"
	"sync"
	"time"

	"gateway/internal/adapt"
	"gateway/internal/config"
	"gateway/internal/media"
)

const (
	adaptEvery = 20 * time.Millisecond // an encoder's policy is asked no more often, however many viewers report
	fewReaders = 8                     // so many may be asked each time what their networks carry

	keptDecisions = 16
)

// Adaptation is how a track's encoder is adapted to its viewers' networks and to the
// machine's CPU.
type Adaptation struct {
	Target    int        `json:"target"`           // bit/s that the encoder is told, or would begin with
	Level     int        `json:"level"`            // 0: the picture is as configured; the higher, the less is made of it
	Reason    string     `json:"reason,omitempty"` // what decided that; none while it is the configuration
	Decisions []Decision `json:"decisions"`        // the last ones, at most 16, oldest first
	Made      int        `json:"-"`                // how many there were in all

	// Counts are how many decisions there were of each kind.
	Counts map[string]uint64 `json:"-"`
}

// Decision is a change of what an encoder makes. Small steps of the bitrate are told
// together.
type Decision struct {
	At     int64  `json:"at"`   // Unix milliseconds
	What   string `json:"what"` // "bitrate", "framerate" or "size"
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// adaptation is what is decided about a track's encoder. It outlives encodings, as
// its ring does.
type adaptation struct {
	mu        sync.Mutex // guards below; held for arithmetic only
	policy    *adapt.Encoder
	decisions []Decision
	counts    map[string]uint64
	asked     []int         // what viewers' networks carry, as it was asked last
	askedAt   time.Duration // when that was
}

// limits are what a branch's encoder may be told. last: of its codec there is no
// lower rendition.
func limits(b config.Branch, last bool) adapt.EncoderLimits {
	t := b.Track
	l := adapt.EncoderLimits{Min: t.MinBps, Start: t.Bps, Max: max(t.MaxBps, t.Bps), Last: last}
	if l.Min == 0 || !b.Adjustable() {
		l.Min, l.Max = l.Start, l.Start
	}
	for level := range b.Levels() {
		t := b.At(level).Track
		l.Shapes = append(l.Shapes, adapt.Shape{Width: t.Width, Height: t.Height, FPS: t.FPS})
	}
	return l
}

// limit puts limits in force, in the end of whose codecs' renditions viewers have
// nowhere lower to go. The caller holds mu.
func (s *Stream) limit() {
	for i, e := range s.tracks {
		t := e.base.Track
		e.lowest = t.Kind == media.Video && !slices.ContainsFunc(s.tracks[i+1:], func(o *encoding) bool { return o.base.Track.Codec == t.Codec })
		e.ring.adapt.limit(limits(e.base, e.lowest))
		signal(e.carried)
	}
}

func (a *adaptation) limit(l adapt.EncoderLimits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy == nil {
		a.policy = adapt.NewEncoder(l)
		return
	}
	a.policy.Limit(l)
}

// under is the bitrate that other limits would lead to.
func (a *adaptation) under(l adapt.EncoderLimits, carries []int) int {
	return adapt.NewEncoder(l).Target(carries)
}

// level is the picture that the encoder should make.
func (a *adaptation) level() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy.Level()
}

// renewed notes that another encoding fills the ring.
func (a *adaptation) renewed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.policy.Renewed(media.Now())
}

// target is the bitrate for viewers whose networks carry so much.
func (a *adaptation) target(carries []int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy.Target(carries)
}

// note remembers decisions. The caller holds mu.
func (a *adaptation) note(decisions []adapt.Decision) {
	if a.counts == nil {
		a.counts = make(map[string]uint64)
	}
	for _, d := range decisions {
		a.counts[d.What]++
		a.decisions = append(a.decisions, Decision{time.Now().UnixMilli(), d.What, d.From, d.To, d.Reason})
	}
	if n := len(a.decisions) - keptDecisions; n > 0 {
		a.decisions = slices.Clone(a.decisions[n:]) // what was handed out stays as it is
	}
}

// adaptation describes how the encoding is adapted; nil if nothing of it can be. The
// caller holds Stream.mu.
func (e *encoding) adaptation() *Adaptation {
	if e.base.Track.Kind != media.Video || e.base.Copy {
		return nil
	}
	a := &e.ring.adapt
	a.mu.Lock()
	defer a.mu.Unlock()
	info := &Adaptation{
		Target: a.policy.Bps(), Level: e.level, Reason: a.policy.Reason(),
		Decisions: append([]Decision{}, a.decisions...), Counts: make(map[string]uint64),
	}
	for what, n := range a.counts {
		info.Counts[what] = n
		info.Made += int(n)
	}
	return info
}

// carries are what the networks of a ring's viewers carry, in bit/s; 0: unknown.
func (r *ring) carries() []int {
	subs := r.subs.Load()
	if subs == nil {
		return nil
	}
	carries := make([]int, len(*subs))
	for i, s := range *subs {
		carries[i] = int(s.carry.Load())
	}
	return carries
}

// nudge has the policy of the ring's encoder look at what viewers' networks carry.
func (r *ring) nudge() {
	r.mu.Lock()
	w := r.writer
	r.mu.Unlock()
	if w != nil {
		signal(w.carried)
	}
}

// Carry says what the viewer's network carries for the track, in bit/s with headers;
// 0: unknown. It returns the bitrate that the network must carry for the viewer to
// stay: the one at which the encoder runs, or is about to run, with it; or, where that
// is more, the one that the few others would have without it, so that who is slower
// than they moves down rather than dragging them. It doesn't block.
func (s *Subscription) Carry(bps int) (target int) {
	bps = max(bps, 0)
	if old := s.carry.Swap(int64(bps)); matters(int(old), bps) {
		s.ring.nudge()
	}
	a := &s.ring.adapt
	a.mu.Lock()
	defer a.mu.Unlock()
	// each of many viewers is one voice of many: asking all of them for each would cost their square
	now := media.Now()
	if s.ring.readers() <= fewReaders || a.askedAt == 0 || now-a.askedAt > adaptEvery {
		a.asked, a.askedAt = s.ring.carries(), now
	}
	target = a.policy.Target(a.asked)
	if others := s.ring.known(s); len(others) > 0 {
		target = max(target, a.policy.Target(others))
	}
	return target
}

// known are the carries of a ring's viewers that are known, but for one's; none of many
// viewers, among whom the slowest don't count.
func (r *ring) known(but *Subscription) (carries []int) {
	subs := r.subs.Load()
	if subs == nil || len(*subs) > fewReaders {
		return nil
	}
	for _, s := range *subs {
		if c := int(s.carry.Load()); c > 0 && s != but {
			carries = append(carries, c)
		}
	}
	return carries
}

// matters tells whether a change of what a network carries is worth a look.
func matters(old, now int) bool {
	return (old == 0) != (now == 0) || max(old, now)-min(old, now) > max(old, now)/50
}

// Target is the bitrate in bit/s that the network must carry of a viewer who joins the
// track now, as Carry has it; 0 if there is no such track. carries is what its network
// does carry (bit/s; 0: unknown).
func (s *Stream) Target(track string, carries int) (bps int) {
	s.mu.Lock()
	e := s.find(track)
	s.mu.Unlock()
	if e == nil {
		return 0
	}
	bps = e.ring.adapt.target(append(e.ring.carries(), max(carries, 0)))
	if others := e.ring.known(nil); len(others) > 0 {
		bps = max(bps, e.ring.adapt.target(others))
	}
	return bps
}

// shape gives an encoding that doesn't run the picture of a level. What SDP says
// stays as it is known. The caller holds Stream.mu.
func (e *encoding) shape(level int) {
	e.level = min(level, e.base.Levels()-1)
	e.branch = e.base.At(e.level)
	e.launch = config.Redact(e.capture.feed.Text(e.branch))
	r := e.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	fmtp := e.branch.Track.Fmtp
	if r.writer != nil && r.writer.base.Track == e.base.Track {
		fmtp = r.track.Fmtp
	}
	e.branch.Track.Fmtp = fmtp
	e.track = e.branch.Track
	if r.writer == e {
		r.track = e.track
	}
}

// opening is what an encoding starts with: what its viewers' networks carry decides,
// unless it takes over from another one.
func (e *encoding) opening() config.Branch {
	s, r := e.capture.stream, e.ring
	carries := r.carries()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &r.adapt
	a.mu.Lock()
	if !e.needed && slices.Contains(s.tracks, e) {
		a.policy.Begin(media.Now(), carries)
	}
	bps, level := a.policy.Bps(), a.policy.Level()
	a.mu.Unlock()
	if !e.needed && level != e.level {
		e.shape(level)
	}
	branch := e.branch
	if bps > 0 && e.branch.Adjustable() && !e.capture.feed.Whole {
		branch = branch.WithBitrate(bps)
		branch.Track.Bps = e.branch.Track.Bps // as configured
		branch.Scarce = bps < branch.Track.Bps
	} else {
		bps = branch.Track.Bps
	}
	e.bps.Store(int64(bps))
	return branch
}

// follow has a running encoding follow what its viewers' networks carry and what the
// CPU can do, until it ends or ctx is done.
func (e *encoding) follow(ctx context.Context, pipeline Pipeline) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asked time.Duration
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.ended:
			return err
		case <-e.carried:
			if soon := asked + adaptEvery - media.Now(); asked != 0 && soon > 0 {
				timer.Reset(soon)
				continue
			}
		case <-timer.C:
		}
		asked = media.Now()
		timer.Reset(e.adapt(pipeline, asked))
	}
}

// adapt asks the policy, once, and does what it says. It returns when to ask again.
func (e *encoding) adapt(pipeline Pipeline, now time.Duration) (again time.Duration) {
	s, r := e.capture.stream, e.ring
	r.mu.Lock()
	fills := r.writer == e
	r.mu.Unlock()
	if !fills { // it is on trial, or retired
		return time.Second
	}
	carries, counts := r.carries(), r.counts()
	a := &r.adapt
	a.mu.Lock()
	decisions := a.policy.Step(now, adapt.EncoderReport{Carries: carries, Frames: counts.Frames, Dropped: counts.DroppedFrames})
	a.note(decisions)
	bps, level, again := a.policy.Bps(), a.policy.Level(), a.policy.Again(now)
	a.mu.Unlock()

	s.mu.Lock()
	branch, reshape := e.branch, e.level != level
	s.mu.Unlock()
	if reshape {
		signal(s.reshapes)
	}
	if bps > 0 && branch.Adjustable() && e.bps.Swap(int64(bps)) != int64(bps) {
		if err := pipeline.SetBitrate(e.id, bps, bps < branch.Track.Bps); err != nil { // one that hangs is found by its silence
			s.log.Warn("encoder's bitrate", "track", branch.Track.Name, "err", config.Redact(err.Error()))
		}
	}
	if len(decisions) > 0 {
		s.tell(branch.Track.Name, decisions)
	}
	return again
}

// tell logs decisions, and has those know who watch.
func (s *Stream) tell(track string, decisions []adapt.Decision) {
	for _, d := range decisions {
		s.log.Info("encoder adapts", "track", track, "what", d.What, "from", d.From, "to", d.To, "reason", d.Reason)
	}
	s.update(func() {})
}

// reshape exchanges encodings whose pictures are to be larger or smaller, as an edit
// does: the new one is tried beside the old one and takes over at its first keyframe.
// That is so for a CPU that is too slow as well: the new one costs half of the old
// one's work at most, for the one frame until it takes over. It runs on the keeper's
// goroutine.
func (s *Stream) reshape() {
	s.mu.Lock()
	tracks := s.tracks
	s.mu.Unlock()
	for _, e := range tracks {
		level := e.ring.adapt.level()
		s.mu.Lock()
		from := e.level
		if from == level || e.capture.feed.Whole || !slices.Contains(s.tracks, e) {
			s.mu.Unlock()
			continue
		}
		d := s.reshaped(e)
		s.mu.Unlock()
		if err := s.carryOut(s.ctx, d); err != nil {
			s.log.Warn("another picture can't be made", "track", e.base.Track.Name, "level", level, "err", config.Redact(err.Error()))
			e.ring.adapt.refused(from, err)
			s.update(func() {})
		}
	}
}

// reshaped is what there is, with a new encoding in place of one. The caller holds mu.
func (s *Stream) reshaped(e *encoding) *draft {
	d := &draft{conf: s.conf, plan: s.plan, absent: make(map[*capture]error)}
	for _, c := range s.captures {
		if !c.retired {
			d.captures = append(d.captures, c)
		}
	}
	next := s.newEncoding(e.capture, e.ring, e.base)
	d.tracks = slices.Clone(s.tracks)
	d.tracks[slices.Index(d.tracks, e)] = next
	d.added = []*encoding{next}
	return d
}

// refused notes that the picture that was decided on can't be made: the encoder goes
// on with that of a level.
func (a *adaptation) refused(level int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := a.policy.Level()
	a.policy.Refused(media.Now(), level)
	shapes := a.policy.Limits().Shapes
	a.note(adapt.Reshaped(shapes[wanted], shapes[level], config.Redact(err.Error())))
}
