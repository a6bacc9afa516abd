package adapt

import (
	"math"
	"testing"
	"time"

	"gateway/internal/media"
)

// feeder makes feedback of packets as a test wants them.
type feeder struct {
	e       *Estimator
	now     time.Duration // sending
	rtt     time.Duration
	next    time.Duration // feedback
	unsure  bool          // nobody knows when the packets that take longer than usual went out
	reports []media.PacketReport
}

func newFeeder() *feeder {
	return &feeder{e: NewEstimator(), now: time.Minute, rtt: 50 * ms}
}

const lost = time.Duration(math.MinInt64)

// send sends packets of a size for a while, evenly; delay says how long each takes, if it isn't
// lost. There is feedback each 100 ms.
func (f *feeder) send(d time.Duration, bps float64, size int, delay func(sent time.Duration) time.Duration) {
	gap := time.Duration(float64(size*8) / bps * float64(sec))
	from := f.now
	for ; f.now < from+d; f.now += gap {
		r := media.PacketReport{Sent: f.now, Size: size}
		if d := delay(f.now - from); d != lost {
			r.Received, r.Arrival, r.Unsure = true, 99*sec+f.now+d, f.unsure && d > empty(0)
		}
		f.reports = append(f.reports, r)
		f.e.Sent(f.now, size)
		if f.now >= f.next {
			f.next = f.now + 100*ms
			f.feed()
		}
	}
}

func (f *feeder) feed() {
	f.e.Step(f.now + f.rtt)
	f.e.Feedback(f.now+f.rtt, f.reports, f.rtt)
	f.reports = f.reports[:0]
}

func empty(time.Duration) time.Duration { return 20 * ms }

// congested is a link of some bit/s under a load of more: the queue grows.
func congested(link, load float64) func(time.Duration) time.Duration {
	return func(sent time.Duration) time.Duration {
		return 20*ms + time.Duration(float64(sent)*(load/link-1))
	}
}

func within(t *testing.T, what string, got, least, most float64) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s is %.0f, want %.0f to %.0f", what, got, least, most)
	}
}

func TestNothingIsKnownBeforeFeedback(t *testing.T) {
	e := NewEstimator()
	e.Want(2e6)
	e.Sent(sec, 1200)
	e.Step(sec)
	if got := e.Estimate(); got != (Estimate{}) {
		t.Errorf("got %+v", got)
	}
	if p, ok := e.Probe(sec); ok {
		t.Errorf("it wants to probe: %+v", p)
	}
}

func TestTheFirstKeyframeTellsTheCapacity(t *testing.T) {
	for _, c := range []struct {
		name              string
		link              float64 // bit/s
		want, least, most float64
	}{
		{"300 kbit/s", 300e3, 2.5e6, 240e3, 300e3},
		{"1 Mbit/s", 1e6, 2.5e6, 0.8e6, 1e6},
		{"LAN", 100e6, 2.5e6, 2.5e6, 1.3 * 2.5e6},
		{"LAN, nothing known of the viewer", 100e6, 0, 2.5e6, 6e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeeder()
			f.e.Want(int(c.want))
			f.next = f.now + time.Minute
			f.send(40*ms, 6e6, 1200, congested(c.link, max(6e6, c.link)))
			f.feed()
			within(t, "the estimate", float64(f.e.Estimate().Bps), c.least, c.most)
		})
	}
}

func TestSmallFirstPacketsAreNoProofOfASlowLink(t *testing.T) {
	f := newFeeder()
	f.e.Want(2e6)
	f.send(sec/2, 40e3, 100, empty) // sound
	if got := f.e.Estimate().Bps; got != 0 {
		t.Errorf("the estimate is %d", got)
	}
	// Nobody is held back to what little was sent: all that is wanted is probed for.
	p, ok := f.e.Probe(f.now)
	if !ok || p.Bps < 2e6 {
		t.Fatalf("probe %+v, %t", p, ok)
	}
	f.send(2*sec, 40e3, 100, empty) // it can't be sent
	if got := f.e.Estimate().Bps; got < startFloor {
		t.Errorf("the estimate is %d", got)
	}
}

func TestOveruseCutsBelowWhatArrives(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	f.send(600*ms, 2e6, 1200, congested(1e6, 2e6))
	e := f.e.Estimate()
	within(t, "the estimate", float64(e.Bps), 0.3e6, 0.95e6)
	if e.Queue < 50*ms || e.Reason != "delay grew" {
		t.Errorf("got %+v", e)
	}
}

// A sender that is kept from its work for longer and longer, at the end for 100 ms, seems
// to have a network whose queue grows. It knows better.
func TestALateSenderIsNoOveruse(t *testing.T) {
	late := func(sent time.Duration) time.Duration { return 20*ms + max(sent%(sec/2)-sec/4, 0)/5*2 }
	for _, unsure := range []bool{true, false} {
		f := newFeeder()
		f.unsure = unsure
		f.send(3*sec, 2e6, 1200, empty)
		before := f.e.Estimate().Bps
		f.send(3*sec, 2e6, 1200, late)
		got := f.e.Estimate()
		if fell := got.Bps < before; fell == unsure {
			t.Errorf("it is noticed: %t; the estimate went from %d to %d: %s", unsure, before, got.Bps, got.Reason)
		}
		if unsure && got.Acked < 1.7e6 {
			t.Errorf("%d bit/s arrived, want 2e6: they arrived all the same", got.Acked)
		}
	}
}

func TestTheRateReturnsWhenTheQueueIsGone(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	f.send(400*ms, 2e6, 1200, congested(1e6, 2e6))
	f.send(sec, 0.5e6, 1200, func(sent time.Duration) time.Duration { return max(420*ms-sent/2, 20*ms) })
	f.send(sec, 0.9e6, 1200, empty)
	within(t, "the estimate", float64(f.e.Estimate().Bps), 0.85e6, 1.2e6)
}

func TestAStallIsNoOveruse(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	before := f.e.Estimate().Bps
	// nothing arrives for 150 ms, then all at once
	f.send(600*ms, 2e6, 1200, func(sent time.Duration) time.Duration {
		if sent > 200*ms && sent < 350*ms {
			return 370*ms - sent
		}
		return 20 * ms
	})
	if got := f.e.Estimate(); got.Bps < before {
		t.Errorf("the estimate fell from %d to %d: %s", before, got.Bps, got.Reason)
	}
}

func TestALongerWayIsNoLastingOveruse(t *testing.T) {
	f := newFeeder()
	f.send(5*sec, 2e6, 1200, empty)
	for range 60 { // the sender follows
		f.send(100*ms, min(2e6, float64(f.e.Estimate().Bps)), 1200, func(time.Duration) time.Duration { return 150 * ms })
	}
	within(t, "the estimate", float64(f.e.Estimate().Bps), 1.5e6, 4e6)
}

func TestAnIdleSenderKeepsItsEstimate(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	before := f.e.Estimate().Bps
	f.send(20*sec, 0.2e6, 1200, empty)
	e := f.e.Estimate()
	if !e.Limited {
		t.Error("it isn't known to be limited by the application")
	}
	within(t, "the estimate", float64(e.Bps), 0.95*float64(before), 1.1*float64(before))
}

func TestGrowthIsCappedByWhatArrives(t *testing.T) {
	f := newFeeder()
	f.send(60*sec, 2e6, 1200, empty) // more is never sent
	within(t, "the estimate", float64(f.e.Estimate().Bps), 2e6, 1.5*2e6+ackedOffset)
}

func TestGrowthStopsAtTheWish(t *testing.T) {
	f := newFeeder()
	f.e.Want(1e6)
	for range 300 {
		f.send(100*ms, max(float64(f.e.Estimate().Bps), 0.5e6), 1200, empty)
	}
	within(t, "the estimate", float64(f.e.Estimate().Bps), 1e6, 1.4e6)
}

// probe sends what is asked for over a link and tells whether it was asked.
func (f *feeder) probe(link float64) (Probe, bool) {
	p, ok := f.e.Probe(f.now)
	if !ok {
		return p, false
	}
	arrival := f.now
	for left := p.Bytes; left > 0; left -= 1200 {
		arrival = max(arrival, f.now) + time.Duration(1200*8/link*float64(sec))
		f.reports = append(f.reports, media.PacketReport{Sent: f.now, Arrival: 99*sec + 20*ms + arrival, Size: 1200, Received: true, Probe: p.ID})
		f.now += time.Duration(1200 * 8 / float64(p.Bps) * float64(sec))
	}
	f.now += 20 * ms
	f.feed()
	return p, true
}

func TestProbesFindMoreThanIsSent(t *testing.T) {
	f := newFeeder()
	f.e.Want(2e6)
	for range 80 {
		f.send(100*ms, 0.3e6, 1200, empty)
		if p, ok := f.probe(3e6); ok && (p.ID == 0 || p.Bps > 2.5e6 || p.Bytes < probePackets*packet) {
			t.Fatalf("the probe is %+v", p)
		}
	}
	within(t, "the estimate", float64(f.e.Estimate().Bps), 2e6, 2.6e6)
	if _, ok := f.e.Probe(f.now + time.Minute); ok {
		t.Error("it probes beyond what the viewer has use for")
	}
}

func TestProbesDontOverrateTheLink(t *testing.T) {
	f := newFeeder()
	f.e.Want(4e6)
	probes := 0
	for range 300 {
		f.send(100*ms, 0.3e6, 1200, empty)
		if _, ok := f.probe(0.8e6); ok {
			probes++
		}
	}
	within(t, "the estimate", float64(f.e.Estimate().Bps), 0.7e6, 0.8e6)
	if probes < 4 || probes > 20 {
		t.Errorf("%d probes in 30 s", probes)
	}
}

func TestMediaAmongAProbeCountsWithIt(t *testing.T) {
	p := &prober{id: 1, asked: Probe{ID: 1, Bps: 2e6, Bytes: 7200}, pending: true}
	for i := range 12 { // every other packet is media; together 2 Mbit/s
		at := time.Duration(i) * 4800 * time.Microsecond
		p.note(&media.PacketReport{Sent: at, Arrival: at + sec, Size: 1200, Received: true, Probe: uint8(1 - i%2)})
	}
	got, ok := p.result(0)
	if !ok {
		t.Fatal("no result")
	}
	within(t, "the result", got, 1.9e6, 2.1e6)
}

func TestInherentLossCostsLittle(t *testing.T) {
	f := newFeeder()
	n := 0
	for range 300 {
		f.send(100*ms, min(max(float64(f.e.Estimate().Bps), 0.5e6), 2e6), 1200, func(time.Duration) time.Duration {
			if n++; n%12 == 0 {
				return lost
			}
			return 20 * ms
		})
	}
	e := f.e.Estimate()
	within(t, "the estimate", float64(e.Bps), 1.7e6, 4e6)
	within(t, "the loss in %", 100*e.Loss, 6, 11)
}

func TestLossOfAFullQueueCuts(t *testing.T) {
	f := newFeeder()
	f.send(5*sec, 2e6, 1200, empty)
	credit := 0.0
	for range 30 {
		bps := min(float64(f.e.Estimate().Bps), 2e6)
		f.send(100*ms, bps, 1200, func(time.Duration) time.Duration { // 1.2 Mbit/s pass
			if credit += min(1.2e6/bps, 1); credit < 1 {
				return lost
			}
			credit--
			return 20 * ms
		})
	}
	within(t, "the estimate", float64(f.e.Estimate().Bps), 0.8e6, 1.3e6)
}

func TestSilenceHalves(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	f.feed()
	before := float64(f.e.Estimate().Bps)
	now := f.now + f.rtt
	for end := now + 10*sec; now < end; now += 100 * ms { // nothing is sent: nothing is missed
		f.e.Step(now)
	}
	if got := float64(f.e.Estimate().Bps); got != before {
		t.Errorf("the estimate went from %.0f to %.0f though nothing was sent", before, got)
	}
	for end := now + sec; now < end; now += 100 * ms {
		f.e.Sent(now, 1200)
		f.e.Step(now)
	}
	within(t, "the estimate after a second", float64(f.e.Estimate().Bps), before/2, before/2)
	for end := now + 10*sec; now < end; now += 100 * ms {
		f.e.Sent(now, 1200)
		f.e.Step(now)
	}
	within(t, "the estimate after long", float64(f.e.Estimate().Bps), MinBps, MinBps)
}

func TestItComesBackAfterAnOutage(t *testing.T) {
	f := newFeeder()
	f.send(5*sec, 2e6, 1200, empty)
	before := float64(f.e.Estimate().Bps)
	for end := f.now + 1500*ms; f.now < end; f.now += 100 * ms {
		f.e.Sent(f.now, 1200)
		f.e.Step(f.now)
	}
	if got := float64(f.e.Estimate().Bps); got > before/2 {
		t.Fatalf("the estimate is %.0f without feedback, %.0f before", got, before)
	}
	for range 20 {
		f.send(100*ms, min(float64(f.e.Estimate().Bps), 2e6), 1200, empty)
	}
	within(t, "the estimate 2 s after it", float64(f.e.Estimate().Bps), 0.85*before, 1.2*before)
}

func TestClocksMayJump(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -5 * sec, 5 * sec, time.Hour} {
		f := newFeeder()
		f.send(3*sec, 2e6, 1200, empty)
		before := float64(f.e.Estimate().Bps)
		f.send(3*sec, 2e6, 1200, func(time.Duration) time.Duration { return time.Minute + jump + time.Minute })
		within(t, "the estimate", float64(f.e.Estimate().Bps), before, 2*before)
		if q := f.e.Estimate().Queue; q != 0 {
			t.Errorf("after a jump of %v the queue is %v", jump, q)
		}
	}
}

func TestALostPacketThatArrivesAfterAll(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	for range 20 {
		from := f.now
		f.send(100*ms, 2e6, 1200, func(sent time.Duration) time.Duration {
			if sent < 50*ms {
				return lost
			}
			return 20 * ms
		})
		for at := from; at < from+50*ms; at += 5 * ms { // as a later feedback tells
			f.reports = append(f.reports, media.PacketReport{Sent: at, Arrival: 99*sec + at + 80*ms, Size: 1200, Received: true})
		}
	}
	if q := f.e.Estimate().Queue; q != 0 {
		t.Errorf("late packets look like a queue of %v", q)
	}
}

func TestReceiverReportsAlone(t *testing.T) {
	e := NewEstimator()
	e.Want(5e6)
	now := time.Minute
	second := func(bps int, loss float64, rtt time.Duration) float64 {
		for range 10 {
			e.Sent(now, bps/8/10)
			now += 100 * ms
			e.Step(now)
		}
		e.ReceiverReport(now, loss, rtt)
		return float64(e.Estimate().Bps)
	}
	for range 3 {
		second(1e6, 0, 50*ms)
	}
	within(t, "before the network has shown a limit", second(1e6, 0, 50*ms), 0, 0)
	before := second(1e6, 0.12, 50*ms)
	within(t, "with 12 % loss", before, 0.8e6, 0.9e6)
	grown := second(1e6, 0, 50*ms)
	within(t, "without loss", grown, 1.07*before, 1.1*before)
	held := second(1e6, 0.05, 50*ms)
	within(t, "with 5 % loss", held, grown, grown)
	cut := second(1e6, 0.2, 50*ms)
	within(t, "with 20 % loss", cut, 0.89*held, 0.91*held)
	within(t, "with a round trip that has grown", second(1e6, 0, 600*ms), 0.5e6, 0.9e6)
	if q := e.Estimate().Queue; q < 400*ms {
		t.Errorf("the queue is %v", q)
	}
}

func TestREMBIsAnUpperBound(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	f.e.REMB(f.now, 700_000)
	f.send(sec, 2e6, 1200, empty)
	within(t, "the estimate", float64(f.e.Estimate().Bps), 700_000, 700_000)
	f.e.REMB(f.now, 80_000_000)
	within(t, "the estimate", float64(f.e.Estimate().Bps), 2e6, 5e6)

	alone := NewEstimator()
	alone.REMB(sec, 900_000)
	within(t, "REMB alone", float64(alone.Estimate().Bps), 900_000, 900_000)
}

func TestTransportFeedbackOutranksReceiverReports(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	before := f.e.Estimate().Bps
	f.e.ReceiverReport(f.now, 0.5, sec)
	if got := f.e.Estimate().Bps; got != before {
		t.Errorf("a receiver report changed %d to %d", before, got)
	}
}

func TestTheTrendlineSeesGrowthAndNoNoise(t *testing.T) {
	grow, noise := newTrendline(), newTrendline()
	seen := false
	for i := range 200 {
		at := time.Duration(i) * 10 * ms
		noise.update(time.Duration(i%2*2-1)*5*ms, at)
		if noise.usage == overuse {
			t.Fatal("alternating delay is taken for overuse")
		}
		if i > 100 {
			grow.update(2*ms, at)
		} else {
			grow.update(0, at)
		}
		seen = seen || grow.usage == overuse
	}
	if !seen {
		t.Error("delay that grows by a fifth isn't seen")
	}
	if grow.threshold <= thresholdLeast || math.IsNaN(grow.slope) {
		t.Errorf("the threshold is %v, the slope %v", grow.threshold, grow.slope)
	}
}

func TestGroupsAreWhatWasSentTogether(t *testing.T) {
	var a arrivals
	a.add(0, 20*ms, 1200)
	if _, kind := a.add(2*ms, 30*ms, 1200); kind != inGroup {
		t.Error("packets sent within 5 ms are two groups")
	}
	d, kind := a.add(33*ms, 60*ms, 1200)
	if kind != grouped || d != 7*ms {
		t.Errorf("the variation is %v (%v), want 7 ms between the first packets", d, kind)
	}
	if _, kind := a.add(66*ms, 61*ms, 1200); kind != inGroup {
		t.Error("a packet that has caught up is a group of its own")
	}
	if _, kind := a.add(70*ms, 10*sec, 1200); kind != jumped {
		t.Error("a jump of 10 s isn't seen")
	}
}

func BenchmarkFeedback(b *testing.B) {
	f := newFeeder()
	f.send(5*sec, 2.5e6, 1200, empty)
	reports := make([]media.PacketReport, 26) // 100 ms of 2.5 Mbit/s
	b.ReportAllocs()
	for b.Loop() {
		for i := range reports {
			f.now += 3840 * time.Microsecond
			reports[i] = media.PacketReport{Sent: f.now, Arrival: 99*sec + f.now + 20*ms + time.Duration(i%7)*ms, Size: 1200, Received: i%20 != 19}
		}
		f.e.Feedback(f.now+50*ms, reports, 50*ms)
		f.e.Step(f.now + 50*ms)
		_, _ = f.e.Probe(f.now + 50*ms)
		_ = f.e.Estimate()
	}
}

// reported is a peer without transport-wide feedback, told of each second.
type reported struct {
	e   *Estimator
	now time.Duration
}

// second lets one pass in which so much is sent, and tells of its loss and the round trip.
func (r *reported) second(bps int, loss float64, rtt time.Duration) int {
	for range 10 {
		r.e.Sent(r.now, bps/8/10)
		r.now += 100 * ms
		r.e.Step(r.now)
	}
	r.e.ReceiverReport(r.now, loss, rtt)
	return r.e.Estimate().Bps
}

// On the low rendition of a ladder little is sent, and nothing probes: without growth
// all the same a viewer would stay there for good after its first bad moment.
func TestReceiverReportsAloneLeadBackUp(t *testing.T) {
	r := &reported{e: NewEstimator(), now: time.Minute}
	r.e.Want(3_000_000)
	for range 3 {
		r.second(2_500_000, 0, 50*ms)
	}
	bad := 0
	for range 8 {
		bad = r.second(300_000, 0.3, 50*ms)
	}
	// calm is how many seconds pass without growth, until it is back at a megabit.
	calm := func() (seconds int) {
		for range 120 {
			before := r.e.Estimate().Bps
			switch now := r.second(300_000, 0, 50*ms); {
			case now == before:
				seconds++
			case now > 1_000_000:
				return seconds
			}
		}
		t.Fatalf("after two minutes without loss the estimate is %d bit/s, after the bad ones it was %d", r.e.Estimate().Bps, bad)
		return 0
	}
	if got := calm(); got < 3 || got > 6 {
		t.Errorf("it grows again %d s after the last loss", got)
	}
	for r.e.Estimate().Bps > 400_000 { // it was too much
		r.second(1_000_000, 0.3, 50*ms)
	}
	if got := calm(); got < 8 {
		t.Errorf("after a climb that failed the next one begins after %d s", got)
	}
	for range 60 {
		r.second(300_000, 0, 50*ms)
	}
	within(t, "in the end", float64(r.e.Estimate().Bps), 3_000_000, 4_200_000)
}

// A picture that can't be numbered was added: there is no feedback any more, which is
// no silence of the network.
func TestFeedbackThatEndsLeavesReceiverReports(t *testing.T) {
	f := newFeeder()
	f.send(3*sec, 2e6, 1200, empty)
	r := &reported{e: f.e, now: f.now + f.rtt}
	before := r.e.Estimate().Bps
	for range 8 {
		r.second(2_000_000, 0, 50*ms)
	}
	if got := r.e.Estimate().Bps; got < before {
		t.Errorf("receiver reports without loss led from %d to %d bit/s", before, got)
	}
	before = r.e.Estimate().Bps
	if got := r.second(2_000_000, 0.5, 50*ms); got > before*4/5 {
		t.Errorf("half of all is lost, and it carries %d bit/s, %d before", got, before)
	}
}
