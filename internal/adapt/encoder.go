package adapt

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// encoderShare is the part of what a network carries that an encoder is told.
	// The rest is for headers (RTP with its extensions and the SRTP tag: 4 to 5 % of
	// packets of 1200 bytes) and for frames larger than the mean.
	encoderShare = 0.94

	slowViewers = 20 // percentile of the viewers that a shared encoder follows
	mostViewers = 50 // and that of those whose lack makes the picture smaller

	// A bitrate goes down at once, by steps that matter. It goes up by steps of at
	// most riseMost, so that a rate control whose buffer is full needn't catch up, and
	// not more often than is seen.
	fallLeast = 0.97
	riseLeast = 1.05
	riseMost  = 1.5
	riseEvery = 200 * time.Millisecond
	riseAfter = 2 * time.Second // for what is less than riseLeast

	// A smaller picture is made when there is too little for the present one for
	// lackTime, a larger one when there was plentyMargin times as much as it needs for
	// plentyTime. That doubles each time that it goes wrong within relapseTime.
	lackTime     = 500 * time.Millisecond
	plentyMargin = 1.3
	plentyTime   = 5 * time.Second
	plentyMost   = 80 * time.Second
	relapseTime  = time.Minute

	// The CPU is looked at every loadTime, from settleTime after an encoder began: it
	// is too slow when more than lateMost of the captured frames were dropped twice in a
	// row, or lateMuch once, and has recovered when less than lateLeast were for
	// quietTime, which doubles as above.
	loadTime   = 3 * time.Second
	settleTime = 2 * time.Second
	loadFrames = 10 // that must have been captured meanwhile
	lateMost   = 0.10
	lateMuch   = 0.40
	lateLeast  = 0.02
	quietTime  = 30 * time.Second
	quietMost  = 10 * time.Minute

	// A change that couldn't be made is tried again after retryTime, which doubles.
	retryTime = 30 * time.Second
	retryMost = 10 * time.Minute

	// A change of the bitrate is a decision worth telling when it adds up to a
	// quarter; one to more once a second at most.
	tellRatio = 1.25
	tellEvery = time.Second

	// leastBps is what no encoder is set below, in bit/s.
	leastBps = 30_000

	// areaPower is how the bitrate that a picture needs grows with its pixels a
	// second: by less than they do. The same power makes the default bitrates.
	areaPower = 0.75
)

// Encoder is the policy of one encoder that all viewers of a rendition share.
//
// The bitrate: the encoder runs at the 20th percentile (nearest rank) of what its
// viewers' networks carry, less 6 %, within min and max; with one viewer it is that
// viewer's share, of up to five it is the slowest one's. Those slower are left to skip
// frames. Where there is a lower rendition, those don't count that are about to move
// to it: that carry less than Viewer would stay for, were they not there. It goes down
// at once and up by steps.
//
// The picture: where the viewers have no lower rendition to go to, and half of them
// carry less than the picture needs (min, for the one that is configured), its frame
// rate and then its size go down, and back up with hysteresis. The same steps answer
// an encoder that is slower than the capture.
//
// An Encoder is arithmetic: it has no clock and no lock. Times are of any clock that
// doesn't go back. The zero value is of no use: see NewEncoder.
type Encoder struct {
	limits EncoderLimits
	bps    int           // that the encoder is told
	set    time.Duration // when that changed last
	why    string        // what decided it last

	network, cpu stairs
	load         load
	blocked      time.Duration // the level stays until then
	retry        time.Duration // of the next block

	told   int // bitrate that was told last
	toldAt time.Duration
}

// EncoderLimits are what an encoder may be told.
type EncoderLimits struct {
	Min, Start, Max int     // bit/s; Min = Max: the bitrate stays, whatever networks carry
	Shapes          []Shape // as configured, then ever less to encode; one at least
	Last            bool    // there is no lower rendition: see Encoder
}

// Shape is a way to encode a picture. Its place in EncoderLimits.Shapes is its level.
type Shape struct {
	Width, Height int     // pixels; 0: unknown, the same for all
	FPS           float64 // frames a second; 0: likewise
}

// EncoderReport is what an encoder's policy is told.
type EncoderReport struct {
	Carries []int  // what each viewer's network carries for the track, bit/s; 0: unknown. It is sorted
	Frames  uint64 // that were encoded, so far
	Dropped uint64 // captured frames that the encoder was too slow for, so far
}

// Decision is a change that is worth telling people.
type Decision struct {
	What     string // "bitrate", "framerate" or "size"
	From, To string
	Reason   string
}

// stairs are a level that goes down quickly and up slowly.
type stairs struct {
	level        int
	lack, plenty spell
	hold         time.Duration // how long plenty must last
	raised       spell         // since the level last went up
}

// load is the time over which late frames are counted.
type load struct {
	begun           bool
	at              time.Duration // when it began; frames before don't count
	frames, dropped uint64        // by then
	late            bool          // too many were, the time before
}

// spell is how long something has been so.
type spell struct {
	is    bool
	since time.Duration
}

// lasts tells for how long something has been so; -1: it isn't.
func (s *spell) lasts(now time.Duration, is bool) time.Duration {
	if !is {
		*s = spell{}
		return -1
	}
	if !s.is {
		*s = spell{true, now}
	}
	return now - s.since
}

// NewEncoder is the policy of an encoder that hasn't begun.
func NewEncoder(l EncoderLimits) *Encoder {
	return &Encoder{limits: l, bps: l.Start, told: l.Start}
}

// Bps is the bitrate that the encoder should run at, in bit/s.
func (e *Encoder) Bps() int { return e.bps }

// Level is the shape that the encoder should make.
func (e *Encoder) Level() int { return max(e.network.level, e.cpu.level) }

// Reason says in words what decided bitrate and level last; "" while that is the configuration.
func (e *Encoder) Reason() string { return e.why }

// Limits are those in force.
func (e *Encoder) Limits() EncoderLimits { return e.limits }

// Limit puts other limits in force. The level stays, as far as there is such a one.
func (e *Encoder) Limit(l EncoderLimits) {
	fresh := l.Start != e.limits.Start || l.Min != e.limits.Min || l.Max != e.limits.Max
	e.limits = l
	e.network.level, e.cpu.level = min(e.network.level, e.lowest()), min(e.cpu.level, len(l.Shapes)-1)
	if fresh {
		e.bps = l.Start // until the next Step says what networks carry
		e.told = e.bps
		e.why = ""
	}
}

// Begin notes that an encoder starts that didn't run, and decides from what it starts
// with: nobody has seen anything yet, so that no hysteresis is needed.
func (e *Encoder) Begin(now time.Duration, carries []int) {
	e.network = stairs{level: e.fitting(e.want(carries, mostViewers))}
	if e.cpu.level > 0 && now-e.load.at > quietTime {
		e.cpu = stairs{}
	}
	e.bps, e.set = e.Target(carries), now
	e.told, e.toldAt = e.bps, now
	if e.why = ""; e.Level() > 0 || e.bps != e.limits.Start {
		e.why = e.words(carries, slowViewers)
	}
	e.Renewed(now)
}

// Renewed notes that another encoder takes over: what the one before dropped doesn't
// count against it.
func (e *Encoder) Renewed(now time.Duration) {
	e.load = load{at: now + settleTime}
	e.cpu.plenty = spell{}
}

// Refused notes that the level that was asked for can't be had, and that the encoder
// goes on at another one. It is left alone for a while.
func (e *Encoder) Refused(now time.Duration, level int) {
	if e.limits.Last {
		e.network.level, e.cpu.level = level, min(e.cpu.level, level)
	} else {
		e.cpu.level = level
	}
	e.network.lack, e.network.plenty = spell{}, spell{}
	e.retry = min(max(2*e.retry, retryTime), retryMost)
	e.blocked = now + e.retry
}

// Target is the bitrate for viewers whose networks carry so much, in bit/s: where
// the encoder is, or will be within a second or two. carries is sorted.
func (e *Encoder) Target(carries []int) int {
	if !e.adaptive() {
		return e.limits.Start
	}
	return min(max(e.want(carries, slowViewers), e.bottom(carries)), e.top())
}

// Step decides anew, from what is known now. It returns what is worth telling. It is
// due whenever what viewers carry has changed, and about each second.
func (e *Encoder) Step(now time.Duration, r EncoderReport) []Decision {
	before := e.Level()
	if now >= e.blocked {
		e.stepCPU(now, r)
		if len(r.Carries) > 0 {
			e.stepNetwork(now, r.Carries)
		}
	}
	decisions := Reshaped(e.limits.Shapes[before], e.limits.Shapes[e.Level()], e.why)
	if len(r.Carries) > 0 && e.adaptive() {
		e.stepBitrate(now, r.Carries)
	}
	if d, due := e.tell(now, r.Carries); due {
		decisions = append(decisions, d)
	}
	return decisions
}

// adaptive tells whether the bitrate follows networks.
func (e *Encoder) adaptive() bool { return e.limits.Min < e.limits.Max }

// want is what an encoder may yield for a percentile of its viewers, in bit/s, before
// limits; where nothing is known, the configured start.
func (e *Encoder) want(carries []int, percent int) (bps int) {
	carried := percentile(e.voices(carries), percent)
	if carried == 0 {
		return e.limits.Start
	}
	return int(float64(carried) * encoderShare)
}

// voices are the carries that count, sorted: those that are known and, where there is a
// lower rendition, not of who is about to move there. It sorts carries.
func (e *Encoder) voices(carries []int) []int {
	slices.Sort(carries)
	for len(carries) > 0 && carries[0] <= 0 {
		carries = carries[1:]
	}
	for !e.limits.Last && e.adaptive() && len(carries) > 1 {
		without := int(float64(percentile(carries[1:], slowViewers)) * encoderShare)
		if float64(carries[0]) >= fitsStill*float64(min(max(without, e.floor(e.cpu.level)), e.top())) {
			break
		}
		carries = carries[1:]
	}
	return carries
}

// percentile is one of voices, by nearest rank; 0: there are none.
func percentile(voices []int, percent int) int {
	if len(voices) == 0 {
		return 0
	}
	return voices[(len(voices)*percent+99)/100-1]
}

// work is what a level costs, compared with the configured picture.
func (e *Encoder) work(level int) float64 {
	whole, part := e.limits.Shapes[0], e.limits.Shapes[level]
	w := 1.0
	if whole.FPS > 0 && part.FPS > 0 {
		w *= part.FPS / whole.FPS
	}
	if whole.Width > 0 && part.Width > 0 {
		w *= float64(part.Width*part.Height) / float64(whole.Width*whole.Height)
	}
	return w
}

// floor is what the picture of a level needs, in bit/s.
func (e *Encoder) floor(level int) int {
	return max(int(float64(e.limits.Min)*math.Pow(e.work(level), areaPower)), min(leastBps, e.limits.Min))
}

// lowest is the last level that networks may lead to.
func (e *Encoder) lowest() int {
	if !e.limits.Last || !e.adaptive() {
		return 0
	}
	return len(e.limits.Shapes) - 1
}

// bottom is the least bitrate: the floor of what the picture is about to come to.
func (e *Encoder) bottom(carries []int) int {
	return e.floor(max(e.fitting(e.want(carries, mostViewers)), e.cpu.level))
}

// top is the most: a picture that is reduced for the CPU's sake needs less, and
// spending it would cost time. What is reduced for a network's sake may have all, or
// it would never be seen that the network carries more again.
func (e *Encoder) top() int {
	return max(int(float64(e.limits.Max)*math.Pow(e.work(e.cpu.level), areaPower)), e.floor(e.cpu.level))
}

// fitting is the first level that can be had for so much.
func (e *Encoder) fitting(bps int) int {
	for level := range e.lowest() {
		if float64(bps) >= fallLeast*float64(e.floor(level)) {
			return level
		}
	}
	return e.lowest()
}

func (e *Encoder) stepNetwork(now time.Duration, carries []int) {
	want := e.want(carries, mostViewers)
	n := &e.network
	if n.lack.lasts(now, e.fitting(want) > n.level) >= lackTime {
		need := e.floor(n.level)
		n.fall(now, e.fitting(want), plentyTime, plentyMost)
		e.why = fmt.Sprintf("%s; this picture needs %s", e.words(carries, mostViewers), rate(need))
		return
	}
	better := e.fitting(int(float64(want) / plentyMargin))
	hold := max(n.hold, plentyTime)
	if n.plenty.lasts(now, better < n.level) >= hold {
		n.rise(now, better)
		e.why = fmt.Sprintf("%s, for %v now", e.words(carries, mostViewers), hold)
	}
}

func (e *Encoder) stepCPU(now time.Duration, r EncoderReport) {
	l := &e.load
	if now < l.at {
		return
	}
	if !l.begun || r.Frames < l.frames || r.Dropped < l.dropped {
		*l = load{begun: true, at: now, frames: r.Frames, dropped: r.Dropped}
		return
	}
	took := now - l.at
	if took < loadTime {
		return
	}
	dropped := float64(r.Dropped - l.dropped)
	captured := float64(r.Frames-l.frames) + dropped
	before := l.late
	*l = load{begun: true, at: now, frames: r.Frames, dropped: r.Dropped}
	if captured < loadFrames || took > 2*loadTime { // longer: nobody looked
		e.cpu.plenty = spell{}
		return
	}
	late := dropped / captured
	l.late = late > lateMost
	c := &e.cpu
	if (l.late && before || late > lateMuch) && e.Level() < len(e.limits.Shapes)-1 {
		l.late = false
		level := e.Level() + 1 // and further, to what can be done in the time that there was
		for level < len(e.limits.Shapes)-1 && e.work(level) > (1-late)*e.work(e.Level()) {
			level++
		}
		c.fall(now, level, quietTime, quietMost)
		e.why = fmt.Sprintf("the encoder was too slow for %.0f %% of the captured frames", 100*late)
		return
	}
	hold := max(c.hold, quietTime)
	if c.plenty.lasts(now, c.level > 0 && late < lateLeast) >= hold {
		c.rise(now, c.level-1)
		e.why = fmt.Sprintf("the encoder has kept up for %v", hold)
	}
}

// fall goes to a lower picture. Where that undoes what was raised lately, the next
// raise waits twice as long.
func (s *stairs) fall(now time.Duration, level int, hold, most time.Duration) {
	relapsed := s.raised.is && now-s.raised.since < relapseTime+s.hold
	if !relapsed {
		s.hold = hold
	} else {
		s.hold = min(2*max(s.hold, hold), most)
	}
	s.level, s.lack, s.plenty, s.raised = level, spell{}, spell{}, spell{}
}

// rise goes to a better picture.
func (s *stairs) rise(now time.Duration, level int) {
	s.level, s.lack, s.plenty, s.raised = level, spell{}, spell{}, spell{true, now}
}

func (e *Encoder) stepBitrate(now time.Duration, carries []int) {
	target := e.Target(carries)
	next := e.bps
	switch since := now - e.set; {
	case float64(target) < fallLeast*float64(e.bps):
		next = target
	case float64(target) > riseLeast*float64(e.bps) && since >= riseEvery:
		next = min(target, int(riseMost*float64(e.bps)))
	case target != e.bps && since >= riseAfter:
		next = target
	}
	if next == e.bps {
		return
	}
	if e.bps, e.set = next, now; e.Level() == 0 {
		e.why = e.words(carries, slowViewers)
	}
}

// Again is how long after a Step another one is due, even if nothing changes.
func (e *Encoder) Again(now time.Duration) time.Duration {
	if since := now - e.set; since < riseEvery {
		return riseEvery - since
	}
	if e.network.lack.is {
		return lackTime / 2
	}
	return time.Second
}

// Reshaped tells of a change from one shape to another; nothing if they are the same.
func Reshaped(from, to Shape, reason string) (decisions []Decision) {
	if from.FPS != to.FPS {
		decisions = append(decisions, Decision{"framerate", frameRate(from.FPS), frameRate(to.FPS), reason})
	}
	if from.Width != to.Width {
		decisions = append(decisions, Decision{"size", size(from), size(to), reason})
	}
	return decisions
}

// tell notes a change of the bitrate when it has come to something, and a rise to its
// end.
func (e *Encoder) tell(now time.Duration, carries []int) (Decision, bool) {
	high, low := max(e.bps, e.told), min(e.bps, e.told)
	rises := e.bps > e.told && (now-e.toldAt < tellEvery || float64(e.Target(carries)) > riseLeast*float64(e.bps))
	if high == low || float64(high) < tellRatio*float64(low) || rises {
		return Decision{}, false
	}
	d := Decision{"bitrate", rate(e.told), rate(e.bps), e.words(carries, slowViewers)}
	e.told, e.toldAt = e.bps, now
	return d, true
}

// words says what a percentile of carries comes to. It sorts them.
func (e *Encoder) words(carries []int, percent int) string {
	voices := e.voices(carries)
	carried := rate(percentile(voices, percent))
	switch n := len(voices); {
	case n == 0:
		return "what its viewers' networks carry isn't known"
	case n == 1:
		return "its viewer's network carries " + carried
	case n*percent <= 100:
		return fmt.Sprintf("the slowest of %d viewers' networks carries %s", n, carried)
	case percent == mostViewers:
		return fmt.Sprintf("the middle one of %d viewers' networks carries %s", n, carried)
	default:
		return fmt.Sprintf("four fifths of %d viewers' networks carry %s or more", n, carried)
	}
}

func frameRate(fps float64) string { return fmt.Sprintf("%.3g", fps) }

func size(s Shape) string { return fmt.Sprintf("%dx%d", s.Width, s.Height) }
