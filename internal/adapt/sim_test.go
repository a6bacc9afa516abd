package adapt

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gateway/internal/media"
)

// A link, a sender and a receiver, simulated in ticks of a millisecond: the same seed
// gives the same run. The sender is an encoder that follows the estimate from the next
// frame on, with noisy frames and keyframes, a pacer like rtc's, and retransmission.

const (
	ms         = time.Millisecond
	sec        = time.Second
	tick       = ms
	header     = 28 // bytes of UDP and IP that the link carries too
	frameTime  = sec / 30
	noiseShare = 0.25 // of a frame's size, standard deviation
)

// scene is what a simulation is made of.
type scene struct {
	name     string
	rate     func(time.Duration) float64 // bit/s of the link
	queue    time.Duration               // of the link, at its rate: what comes in beyond is lost
	delay    time.Duration               // each way
	jitter   func(*sim) time.Duration    // more delay, drawn anew every jitterEvery; packets stay in order
	every    time.Duration
	airtime  func(*sim) time.Duration // a link that sends in bursts: time to the next one
	loss     float64                  // random
	burst    float64                  // mean length of losses; 0 or 1: independent
	outage   func(time.Duration) bool // all is lost
	tcp      int                      // competing flows
	tcpFrom  time.Duration
	feedback time.Duration // between feedbacks; 0: 100 ms
	deaf     float64       // share of feedbacks that are lost
	most     float64       // bit/s that the encoder makes at most; 0: 2.5 Mbit/s
	fixed    float64       // it makes so much, whatever the estimate
	drift    float64       // of the receiver's clock
	jump     time.Duration // of the receiver's clock, at 20 s
	want     float64       // 0: most
	length   time.Duration
	seed     uint64
	plain    bool // plain GCC instead of the estimator
	reports  bool // receiver reports once a second instead of feedback
}

type estimator interface {
	Feedback(time.Duration, []media.PacketReport, time.Duration)
	Sent(time.Duration, int)
	Step(time.Duration)
	Want(int)
	Probe(time.Duration) (Probe, bool)
	Estimate() Estimate
}

type simPacket struct {
	number  int // transport-wide; -1: of a competing flow
	flow    int
	size    int // RTP
	frame   int
	i       int // in the frame
	again   int // retransmissions
	probe   uint8
	sent    time.Duration
	padding bool
}

type simFrame struct {
	packets, missing int
	key              bool
	got              []bool
	due              time.Duration // when it was sent first
}

type event struct {
	at time.Duration
	do func()
}

type fatePacket struct {
	p       simPacket
	arrived bool
	arrival time.Duration
	told    bool
}

// sample is 100 ms of a run.
type sample struct {
	at              time.Duration
	estimate, link  float64
	sent, good, tcp float64       // bit/s
	queue           time.Duration // the longest that a packet of ours waited in the link
	seen            time.Duration // Estimate.Queue
	target          float64
	reason          string
}

type sim struct {
	scene
	e   estimator
	rng *rand.Rand
	now time.Duration

	events []event

	// the link
	fifo    []simPacket
	queued  int // bytes
	credit  float64
	nextAir time.Duration
	extra   time.Duration
	extraAt time.Duration
	lastOut time.Duration
	bad     bool
	flows   []*flow

	// sender
	frames    []simFrame
	nextAt    time.Duration
	vbv       float64 // bytes that were spent too much
	wantKey   bool
	keyAt     time.Duration
	outbox    []simPacket
	outBytes  int
	debt      float64
	debtAt    time.Duration
	paceRate  float64
	number    int
	probe     Probe
	probeLeft int
	probeDebt float64
	target    float64

	// receiver
	fates    []fatePacket
	highest  int
	lastFed  int
	fedAt    time.Duration
	late     []int
	shown    int // frames up to it were shown or skipped
	shownAt  time.Duration
	freeze   time.Duration
	freezes  []time.Duration // lengths > 200 ms
	freezeAt time.Duration
	pli      time.Duration
	keys     int

	delays  []time.Duration // queueing of each packet
	samples []sample
	cur     sample
}

func (s *sim) after(d time.Duration, do func()) {
	at := s.now + d
	i, _ := slices.BinarySearchFunc(s.events, at, func(e event, t time.Duration) int {
		if e.at <= t {
			return -1
		}
		return 1
	})
	s.events = slices.Insert(s.events, i, event{at, do})
}

func run(c scene) *sim {
	s := newSim(c)
	for s.now = 0; s.now < s.length; s.now += tick {
		s.tick()
	}
	return s
}

func newSim(c scene) *sim {
	if c.feedback == 0 {
		c.feedback = 100 * ms
		if c.reports {
			c.feedback = sec
		}
	}
	if c.most == 0 {
		c.most = 2.5e6
	}
	if c.want == 0 {
		c.want = c.most
	}
	if c.queue == 0 {
		c.queue = 300 * ms
	}
	if c.length == 0 {
		c.length = 60 * sec
	}
	s := &sim{scene: c, rng: rand.New(rand.NewPCG(c.seed+1, 7)), highest: -1, lastFed: -1, shown: -1, target: c.most}
	s.e = NewEstimator()
	if c.plain {
		s.e = newPlainGCC()
	}
	s.e.Want(int(c.want))
	for i := range c.tcp {
		s.flows = append(s.flows, &flow{id: i, cwnd: 10, ssthresh: 1e9})
	}
	return s
}

func (s *sim) tick() {
	for len(s.events) > 0 && s.events[0].at <= s.now {
		e := s.events[0]
		s.events = s.events[1:]
		e.do()
	}
	if s.now%(100*ms) == 0 {
		s.sample()
		s.e.Step(s.now)
	}
	if s.now >= s.nextAt {
		s.nextAt += frameTime
		s.encode()
	}
	if s.now%(2*ms) == 0 {
		s.pace()
	}
	for _, f := range s.flows {
		if s.now >= s.tcpFrom {
			f.send(s)
		}
	}
	s.serve()
	if s.now-s.fedAt >= s.feedback {
		s.fedAt = s.now
		s.feed()
	}
	s.play()
}

func (s *sim) sample() {
	e := s.e.Estimate()
	s.cur.at, s.cur.estimate, s.cur.link = s.now, float64(e.Bps), s.rate(s.now)
	s.cur.seen, s.cur.reason, s.cur.target = e.Queue, e.Reason, s.target
	for _, v := range []*float64{&s.cur.sent, &s.cur.good, &s.cur.tcp} {
		*v *= 10
	}
	s.samples = append(s.samples, s.cur)
	s.cur = sample{}
}

// encode makes a frame.
func (s *sim) encode() {
	bps := s.most
	if est := float64(s.e.Estimate().Bps); est > 0 {
		bps = min(bps, max(est, 100_000))
	}
	if s.fixed > 0 {
		bps = s.fixed
	}
	s.target = bps
	usual := bps / 8 * frameTime.Seconds()
	key := len(s.frames) == 0 || s.wantKey || s.now-s.keyAt >= 10*sec
	size := usual * math.Exp(noiseShare*s.rng.NormFloat64()-noiseShare*noiseShare/2)
	if key {
		size *= 6
		s.wantKey, s.keyAt = false, s.now
		s.keys++
	}
	size = max(size-s.vbv/20, 0.15*usual, 100)
	s.vbv += size - usual
	s.vbv = min(max(s.vbv, -3*usual), 40*usual)
	n := int(size/1200) + 1
	f := simFrame{packets: n, missing: n, key: key, got: make([]bool, n), due: s.now}
	id := len(s.frames)
	s.frames = append(s.frames, f)
	if s.outBytes*8 > int(bps) { // a second behind: as stream's subscription, to the next keyframe
		s.outbox, s.outBytes = s.outbox[:0], 0
		s.wantKey = true
	}
	for i := range n {
		p := simPacket{size: int(size)/n + 12, frame: id, i: i}
		s.outbox = append(s.outbox, p)
		s.outBytes += p.size
	}
	s.paceRate = max(2.5*bps, size*8/frameTime.Seconds())
}

// pace sends as rtc's pacer does, capped by the estimate.
func (s *sim) pace() {
	rate, burst := s.paceRate, 16*1250.0
	if est := float64(s.e.Estimate().Bps); est > 0 {
		rate = min(rate, est*paceOver)
		burst = min(burst, max(3*1250, est/8*0.02))
	}
	s.debt = max(s.debt-rate/8*(s.now-s.debtAt).Seconds(), 0)
	s.probeDebt = max(s.probeDebt-float64(s.probe.Bps)/8*(s.now-s.debtAt).Seconds(), 0)
	s.debtAt = s.now
	bytes := 0
	if s.probeLeft == 0 && !s.reports { // who has no numbers can't be probed
		if p, ok := s.e.Probe(s.now); ok {
			s.probe, s.probeLeft, s.probeDebt = p, p.Bytes, 0
		}
	}
	for len(s.outbox) > 0 && s.debt < burst {
		p := s.outbox[0]
		s.outbox = s.outbox[1:]
		s.outBytes -= p.size
		s.debt += float64(p.size)
		bytes += p.size
		s.send(p)
	}
	for s.probeLeft > 0 && s.probeDebt <= 0 {
		p := simPacket{size: 1200, probe: s.probe.ID, padding: true, frame: -1}
		s.probeLeft = max(s.probeLeft-p.size, 0)
		s.probeDebt += float64(p.size)
		bytes += p.size
		s.send(p)
	}
	if bytes > 0 {
		s.e.Sent(s.now, bytes)
	}
}

const paceOver = 1.0

func (s *sim) send(p simPacket) {
	p.number, p.sent = s.number, s.now
	s.number++
	s.fates = append(s.fates, fatePacket{p: p})
	s.cur.sent += float64(p.size * 8)
	s.enqueue(p)
}

// enqueue lays a packet into the link's queue if there is room.
func (s *sim) enqueue(p simPacket) {
	if float64(s.queued*8) > s.rate(s.now)*s.queue.Seconds() && s.queued > 3000 {
		if p.number < 0 {
			s.flows[p.flow].dropped(s)
		}
		return
	}
	s.queued += p.size + header
	s.fifo = append(s.fifo, p)
}

// serve lets the link work for a tick.
func (s *sim) serve() {
	rate := s.rate(s.now)
	s.credit += rate / 8 * tick.Seconds()
	if s.airtime != nil {
		if s.now < s.nextAir {
			return
		}
		s.nextAir = s.now + s.airtime(s)
	}
	for len(s.fifo) > 0 {
		p := s.fifo[0]
		size := float64(p.size + header)
		if s.credit < size {
			break
		}
		s.credit -= size
		s.fifo = s.fifo[1:]
		s.queued -= p.size + header
		// within the tick, as far as the credit shows
		early := time.Duration(min(s.credit/(rate/8), tick.Seconds()) * float64(sec))
		if s.airtime != nil {
			early = 0
		}
		s.leave(p, s.now+tick-early)
	}
	if len(s.fifo) == 0 && s.airtime == nil {
		s.credit = min(s.credit, rate/8*tick.Seconds())
	}
	if s.airtime != nil {
		s.credit = min(s.credit, rate/8*0.02)
	}
}

// leave is a packet that has passed the narrow link at a moment.
func (s *sim) leave(p simPacket, at time.Duration) {
	if p.number < 0 {
		s.cur.tcp += float64(p.size * 8)
		s.after(at-s.now+2*s.delay, func() { s.flows[p.flow].acked(s, at+2*s.delay-p.sent) })
		return
	}
	wait := at - p.sent
	s.cur.queue = max(s.cur.queue, wait)
	s.delays = append(s.delays, wait)
	if s.outage != nil && s.outage(s.now) || s.lose() {
		return
	}
	if s.jitter != nil {
		if s.now >= s.extraAt {
			s.extra, s.extraAt = s.jitter(s), s.now+s.every
		}
		at += s.extra
	}
	at = max(at+s.delay, s.lastOut)
	s.lastOut = at
	s.after(at-s.now, func() { s.arrive(p, at) })
}

// lose is Gilbert's model: losses of a mean length.
func (s *sim) lose() bool {
	if s.loss == 0 {
		return false
	}
	length := max(s.burst, 1)
	if s.bad {
		s.bad = s.rng.Float64() >= 1/length
		if length == 1 {
			s.bad = s.rng.Float64() < s.loss
		}
	} else {
		s.bad = s.rng.Float64() < s.loss/(1-s.loss)/length
		if length == 1 {
			s.bad = s.rng.Float64() < s.loss
		}
	}
	return s.bad
}

func (s *sim) arrive(p simPacket, at time.Duration) {
	f := &s.fates[p.number]
	clock := time.Duration(float64(at)*(1+s.drift)) + 12345*sec
	if s.jump != 0 && at > 20*sec {
		clock += s.jump
	}
	f.arrived, f.arrival = true, clock.Truncate(250*time.Microsecond)
	if p.number > s.highest {
		for n := s.highest + 1; n < p.number; n++ {
			s.missing(n)
		}
		s.highest = p.number
	} else if f.told {
		s.late = append(s.late, p.number)
	}
	if p.padding {
		return
	}
	fr := &s.frames[p.frame]
	if !fr.got[p.i] {
		fr.got[p.i] = true
		fr.missing--
		s.cur.good += float64(p.size * 8)
	}
}

// missing asks for a packet again.
func (s *sim) missing(n int) {
	p := s.fates[n].p
	if p.padding || p.again >= 4 {
		return
	}
	s.after(s.delay+10*ms, func() {
		if fr := &s.frames[p.frame]; !fr.got[p.i] && p.frame > s.shown {
			p.again++
			s.outbox = slices.Insert(s.outbox, 0, p)
			s.outBytes += p.size
		}
	})
}

// feed sends a transport-wide feedback.
func (s *sim) feed() {
	if s.highest <= s.lastFed && len(s.late) == 0 {
		return
	}
	var told []int
	slices.Sort(s.late)
	told = append(told, s.late...)
	s.late = s.late[:0]
	for n := s.lastFed + 1; n <= s.highest; n++ {
		told = append(told, n)
	}
	s.lastFed = s.highest
	reports := make([]media.PacketReport, 0, len(told))
	for _, n := range told {
		f := &s.fates[n]
		f.told = true
		r := media.PacketReport{Sent: f.p.sent, Size: f.p.size, Received: f.arrived, Probe: f.p.probe}
		if f.arrived {
			r.Arrival = f.arrival
		}
		reports = append(reports, r)
	}
	if s.reports {
		s.report(reports)
		return
	}
	if s.rng.Float64() < s.deaf || s.outage != nil && s.outage(s.now) {
		return
	}
	rtt := 2*s.delay + time.Duration(float64(s.queued*8)/s.rate(s.now)*float64(sec))
	s.after(s.delay, func() { s.e.Feedback(s.now, reports, rtt) })
}

// report sends a receiver report of what a feedback would tell.
func (s *sim) report(reports []media.PacketReport) {
	lost := 0
	for _, r := range reports {
		if !r.Received {
			lost++
		}
	}
	loss := float64(lost) / float64(max(len(reports), 1))
	rtt := 2*s.delay + time.Duration(float64(s.queued*8)/s.rate(s.now)*float64(sec))
	s.after(s.delay, func() { s.e.(*Estimator).ReceiverReport(s.now, loss, rtt) })
}

// play shows complete frames in order; one that stays incomplete costs a keyframe.
func (s *sim) play() {
	for s.shown+1 < len(s.frames) {
		next := s.shown + 1
		if s.frames[next].missing == 0 {
			s.show(next)
			continue
		}
		key := -1
		for i := next + 1; i < len(s.frames); i++ {
			if s.frames[i].key && s.frames[i].missing == 0 {
				key = i
			}
		}
		if key >= 0 {
			s.show(key)
			continue
		}
		if s.now-s.frames[next].due > 300*ms+4*s.delay && s.now-s.pli > 500*ms && s.highest >= 0 && s.now-s.shownAt > 300*ms+2*s.delay {
			s.pli = s.now
			s.after(s.delay, func() { s.wantKey = true })
		}
		return
	}
}

func (s *sim) show(i int) {
	if s.shown >= 0 {
		gap := s.now - s.shownAt
		if gap > 200*ms {
			s.freezes = append(s.freezes, gap)
		}
		if gap > s.freeze {
			s.freeze, s.freezeAt = gap, s.now
		}
	}
	s.shown, s.shownAt = i, s.now
}

// flow is TCP with CUBIC's decrease and Reno's increase, ack by ack.
type flow struct {
	id             int
	cwnd, ssthresh float64
	flying         int
	recoverAt      time.Duration
	srtt           time.Duration
	lost           int
}

func (f *flow) send(s *sim) {
	for i := 0; float64(f.flying) < f.cwnd && i < 20; i++ {
		f.flying++
		s.enqueue(simPacket{number: -1, flow: f.id, size: 1460, sent: s.now})
	}
}

func (f *flow) acked(s *sim, rtt time.Duration) {
	f.flying--
	f.srtt = rtt
	if f.cwnd < f.ssthresh {
		f.cwnd++
		return
	}
	f.cwnd += 1 / f.cwnd
}

func (f *flow) dropped(s *sim) {
	s.after(max(f.srtt, 50*ms), func() {
		f.flying--
		f.lost++
		if s.now >= f.recoverAt {
			f.cwnd = max(f.cwnd*0.7, 2)
			f.ssthresh = f.cwnd
			f.recoverAt = s.now + max(f.srtt, 50*ms)
		}
	})
}
