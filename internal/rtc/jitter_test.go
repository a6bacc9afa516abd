package rtc

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// trace is a sender, a network and a receiver in simulated time: 30 frames a second
// of 1 to 8 packets, paced out over 5 ms, each of them delayed, lost or doubled by the
// network; a NACK goes back in half a round trip and is answered at once.
type trace struct {
	rtt    time.Duration
	jitter time.Duration // each packet is delayed by up to that, and may be overtaken within a frame
	lost   float64       // of packets, NACKs and repairs alike
	double float64
	swap   float64       // share of packets that come reorder later
	late   time.Duration // how much later
	deaf   bool          // the sender answers no NACK
	plain  bool          // it repairs without RTX
	sound  bool
	first  uint16
}

type event struct {
	at    time.Duration
	order int
	do    func(now time.Duration)
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { x := (*e)[len(*e)-1]; *e = (*e)[:len(*e)-1]; return x }

// outcome is what the receiver was handed.
type outcome struct {
	sent    int
	seqs    []uint16
	gaps    int
	worst   time.Duration // from the arrival that should have been to the hand-over
	depth   time.Duration // at the end
	deepest time.Duration
	count   ReceiveCounts
	buffer  *jitterBuffer
}

func (tr trace) run(t *testing.T, length time.Duration, seed uint64) outcome {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	j := &jitterBuffer{rate: 90000, repairs: !tr.sound}
	if tr.rtt > 0 {
		j.tookRTT(tr.rtt, false)
	}
	var q events
	var out outcome
	order := 0
	at := func(when time.Duration, do func(time.Duration)) {
		order++
		heap.Push(&q, event{when, order, do})
	}
	ideal := map[uint16]time.Duration{}
	packets := map[uint16]arrival{}
	poll := func(now time.Duration) {
		for {
			a, gap, ok := j.pop(now)
			if !ok {
				break
			}
			if got := binary.BigEndian.Uint16(a.payload); got != a.seq {
				t.Fatalf("packet %d has the payload of %d", a.seq, got)
			}
			out.seqs = append(out.seqs, a.seq)
			if gap {
				out.gaps++
			}
			out.worst = max(out.worst, now-ideal[a.seq])
			out.deepest = max(out.deepest, j.depth(now))
		}
		for _, seq := range j.nacks(nil, now) {
			if tr.deaf || r.Float64() < tr.lost || r.Float64() < tr.lost {
				continue
			}
			a := packets[seq]
			a.repaired = !tr.plain
			at(now+tr.rtt+time.Duration(r.Float64()*float64(tr.jitter)), func(now time.Duration) { j.push(a, now) })
		}
	}
	seq := tr.first
	for frame := time.Duration(0); frame < length; frame += time.Second / 30 {
		n := 1 + r.IntN(8)
		for i := range n {
			a := arrival{seq: seq, timestamp: uint32(frame * 90000 / time.Second), marker: i == n-1, payload: binary.BigEndian.AppendUint16(nil, seq)}
			packets[seq] = a
			seq++
			out.sent++
			sent := frame + time.Duration(i)*600*time.Microsecond
			ideal[a.seq] = sent + tr.rtt/2
			when := sent + tr.rtt/2 + time.Duration(r.Float64()*float64(tr.jitter))
			if r.Float64() < tr.swap {
				when += time.Duration(r.Float64() * float64(tr.late))
			}
			if a.seq != tr.first && r.Float64() < tr.lost {
				continue
			}
			at(when, func(now time.Duration) { j.push(a, now) })
			if r.Float64() < tr.double {
				at(when+time.Millisecond, func(now time.Duration) { j.push(a, now) })
			}
		}
	}
	now := time.Duration(0)
	for {
		due, ok := j.due(now)
		switch {
		case len(q) > 0 && (!ok || q[0].at <= due):
			e := heap.Pop(&q).(event)
			now = max(now, e.at)
			e.do(now)
		case ok:
			if due < now-time.Millisecond {
				t.Fatalf("due %v in the past of %v", due, now)
			}
			now = max(now, due)
		default:
			out.depth, out.count, out.buffer = j.depth(now), j.count, j
			return out
		}
		poll(now)
	}
}

// whole checks that all that was sent was handed over once, in order.
func (o outcome) whole(t *testing.T, first uint16) {
	t.Helper()
	if len(o.seqs) != o.sent || o.gaps > 0 || o.count.Lost > 0 {
		t.Errorf("handed over %d of %d packets with %d gaps: %+v", len(o.seqs), o.sent, o.gaps, o.count)
	}
	o.ordered(t)
	if len(o.seqs) > 0 && o.seqs[0] != first {
		t.Errorf("began with %d", o.seqs[0])
	}
}

func (o outcome) ordered(t *testing.T) {
	t.Helper()
	for i := 1; i < len(o.seqs); i++ {
		if int16(o.seqs[i]-o.seqs[i-1]) <= 0 {
			t.Fatalf("%d follows %d", o.seqs[i], o.seqs[i-1])
		}
	}
}

// What arrives in order is not held back, whatever its jitter.
func TestJitterBufferAddsNothingInOrder(t *testing.T) {
	o := trace{rtt: 40 * time.Millisecond, first: 65000}.run(t, 20*time.Second, 1)
	o.whole(t, 65000)
	if o.worst != 0 || o.count.Missing != 0 {
		t.Errorf("held for %v, %d missing", o.worst, o.count.Missing)
	}
}

// 5 % loss, of the NACKs and repairs too, is repaired wholly.
func TestJitterBufferRepairsLoss(t *testing.T) {
	for _, rtt := range []time.Duration{2, 20, 60, 120} {
		tr := trace{rtt: rtt * time.Millisecond, jitter: 3 * time.Millisecond, lost: .05, double: .01, first: 65500}
		o := tr.run(t, 120*time.Second, uint64(rtt))
		// Three tries of which one in seven is lost leave 0.3 % of the holes.
		if share := float64(o.count.Lost) / float64(o.sent); share > 0.0005 {
			t.Errorf("RTT %v: %.4f of the packets stay lost: %+v", tr.rtt, share, o.count)
		}
		o.ordered(t)
		// the loss of a frame's last packet is noticed at the next frame
		if o.worst > o.deepest+time.Second/30+tr.jitter+time.Millisecond {
			t.Errorf("RTT %v: held for %v, at a depth of at most %v", tr.rtt, o.worst, o.deepest)
		}
		t.Logf("RTT %v: %d sent, %d missing, %d asked, %d lost, worst delay %v, depth %v, measured RTT %v, jitter %v",
			tr.rtt, o.sent, o.count.Missing, o.count.Asked, o.count.Lost, o.worst, o.depth, o.buffer.rtt, o.buffer.jitter)
	}
}

// A sender that repairs without RTX sends the same packets again.
func TestJitterBufferTakesPlainRepairs(t *testing.T) {
	o := trace{rtt: 30 * time.Millisecond, lost: .03, plain: true}.run(t, 60*time.Second, 7)
	if o.count.Repaired == 0 || float64(o.count.Lost) > .0005*float64(o.sent) {
		t.Errorf("%+v", o.count)
	}
	o.ordered(t)
}

// Packets that overtake each other are put into order, and after a while nothing is
// asked for that is only late.
func TestJitterBufferLearnsReordering(t *testing.T) {
	o := trace{rtt: 50 * time.Millisecond, swap: .05, late: 12 * time.Millisecond}.run(t, 60*time.Second, 3)
	o.whole(t, 0)
	if o.count.Reordered == 0 {
		t.Error("nothing was reordered")
	}
	if share := float64(o.count.Asked) / float64(o.count.Reordered); share > .1 {
		t.Errorf("asked for %d of %d that were only late", o.count.Asked, o.count.Reordered)
	}
}

// The depth follows the jitter, up and down.
func TestJitterBufferDepthFollowsJitter(t *testing.T) {
	var depths []time.Duration
	for _, jitter := range []time.Duration{0, 10 * time.Millisecond, 40 * time.Millisecond} {
		tr := trace{rtt: 40 * time.Millisecond, jitter: jitter, lost: .01}
		depths = append(depths, tr.run(t, 30*time.Second, 4).depth)
	}
	if depths[0] >= depths[1] || depths[1] >= depths[2] {
		t.Errorf("depths are %v for a jitter of 0, 10 and 40 ms", depths)
	}
	t.Logf("depths for a jitter of 0, 10, 40 ms at a RTT of 40 ms: %v", depths)

	j := (&trace{rtt: 40 * time.Millisecond, jitter: 40 * time.Millisecond}).run(t, 10*time.Second, 5).buffer
	high := j.depth(20 * time.Second)
	seq, timestamp := uint16(j.top), uint32(20*90000)
	for now := 20 * time.Second; now < 40*time.Second; now += 33333 * time.Microsecond {
		j.push(arrival{seq: seq, timestamp: timestamp, payload: []byte{1}}, now)
		j.pop(now)
		seq++
		timestamp += 3000
	}
	if low := j.depth(40 * time.Second); low > high-40*time.Millisecond || low > 150*time.Millisecond {
		t.Errorf("the depth was %v and is %v 20 s after the jitter went", high, low)
	}
}

// What is not repaired is given up at the depth, and told as a gap.
func TestJitterBufferGivesUp(t *testing.T) {
	o := trace{rtt: 20 * time.Millisecond, lost: .02, deaf: true}.run(t, 30*time.Second, 6)
	if o.count.Lost == 0 || o.gaps == 0 || len(o.seqs)+int(o.count.Lost) < o.sent-8 { // lost at the very end: never noticed
		t.Errorf("%d of %d handed over, %d gaps: %+v", len(o.seqs), o.sent, o.gaps, o.count)
	}
	o.ordered(t)
	if o.worst > o.deepest+time.Second/30+time.Millisecond {
		t.Errorf("held for %v at a depth of at most %v", o.worst, o.deepest)
	}
	if most := 5 * o.count.Lost; o.count.Asked > most+20 { // 100 ms of tries that take 20 ms
		t.Errorf("asked %d times for %d lost packets", o.count.Asked, o.count.Lost)
	}
}

// Nothing is asked for that can't arrive in time.
func TestJitterBufferDoesNotAskInVain(t *testing.T) {
	o := trace{rtt: 700 * time.Millisecond, lost: .02}.run(t, 30*time.Second, 8)
	if o.count.Asked != 0 {
		t.Errorf("asked for %d packets whose repair takes 700 ms", o.count.Asked)
	}
	if o.worst > depthMax+time.Second/30+time.Millisecond {
		t.Errorf("held for %v", o.worst)
	}
	o.ordered(t)
}

// Sound isn't repaired and hardly waits.
func TestJitterBufferSound(t *testing.T) {
	o := trace{rtt: 80 * time.Millisecond, lost: .05, sound: true}.run(t, 30*time.Second, 9)
	if o.count.Asked != 0 || o.worst > depthSoundMax+time.Second/30+time.Millisecond {
		t.Errorf("asked %d times, held for %v", o.count.Asked, o.worst)
	}
	o.ordered(t)
}

// A sender that begins anew, with any numbers, is followed after two packets.
func TestJitterBufferFollowsNewNumbers(t *testing.T) {
	j := &jitterBuffer{rate: 90000, repairs: true}
	now := time.Second
	take := func(seq uint16) (handed int, gap bool) {
		now += 10 * time.Millisecond
		j.push(arrival{seq: seq, payload: []byte{1}}, now)
		for {
			_, g, ok := j.pop(now)
			if !ok {
				return handed, gap
			}
			handed, gap = handed+1, gap || g
		}
	}
	for _, first := range []uint16{100, 40000, 7, 50000, 20000} {
		take(first)
		if n, _ := take(first + 1); n != 1 {
			t.Fatalf("from %d on: %d packets", first, n)
		}
		for i := range uint16(20) {
			if n, gap := take(first + 2 + i); n != 1 || gap {
				t.Fatalf("packet %d: handed over %d, gap %v", first+2+i, n, gap)
			}
		}
	}
	if j.count.Restarts != 4 {
		t.Errorf("%d restarts", j.count.Restarts)
	}
	_, before, _, _ := j.report()
	take(20030)
	if _, lost, _, _ := j.report(); lost != before+8 {
		t.Errorf("after the last one 8 were lost, of which %d are told", lost-before)
	}
}

// A single stray packet, far off, changes nothing.
func TestJitterBufferIgnoresStrays(t *testing.T) {
	j := &jitterBuffer{rate: 90000, repairs: true}
	for i := range uint16(100) {
		now := time.Duration(i) * time.Millisecond
		j.push(arrival{seq: i, payload: []byte{1}}, now)
		if _, gap, ok := j.pop(now); !ok || gap {
			t.Fatalf("packet %d: ok %v, gap %v", i, ok, gap)
		}
		j.push(arrival{seq: 30000 + 7*i, payload: []byte{1}}, now)
		if _, _, ok := j.pop(now); ok {
			t.Fatal("a stray packet was handed over")
		}
	}
}

// Receiver reports tell what the network lost, repaired or not (RFC 3550 A.3).
func TestJitterBufferReports(t *testing.T) {
	o := trace{rtt: 20 * time.Millisecond, lost: .1}.run(t, 30*time.Second, 11)
	fraction, lost, highest, _ := o.buffer.report()
	if fraction < 20 || fraction > 31 {
		t.Errorf("fraction lost is %d/256, about 10 %% was", fraction)
	}
	if int(lost) < o.sent/12 || int(lost) > o.sent/8 || uint16(highest) != o.seqs[len(o.seqs)-1] {
		t.Errorf("lost %d of %d, highest %d", lost, o.sent, highest)
	}
	if fraction, _, _, _ := o.buffer.report(); fraction != 0 {
		t.Errorf("without new packets the fraction is %d", fraction)
	}
}

// Whatever comes, what is handed over is in order, bounded in time and memory.
func FuzzJitterBuffer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 1, 0, 5, 2, 9, 200, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		j := &jitterBuffer{rate: 90000, repairs: len(data)%2 == 0}
		now := time.Second
		var last uint64
		restarts := uint64(0)
		for len(data) >= 4 {
			seq := binary.BigEndian.Uint16(data)
			now += time.Duration(data[2]) * time.Millisecond
			j.push(arrival{seq: seq, timestamp: uint32(data[3]) << 24, repaired: data[3]&1 != 0, void: data[3]&2 != 0, payload: []byte{1}}, now)
			data = data[4:]
			for {
				_, _, ok := j.pop(now)
				if !ok {
					break
				}
				n := j.next - 1
				if j.count.Restarts == restarts && n <= last {
					t.Fatalf("packet %d follows %d", n, last)
				}
				last, restarts = n, j.count.Restarts
			}
			if j.top-j.next > jitterWindow {
				t.Fatalf("%d packets are waited for", j.top-j.next)
			}
			if got := len(j.nacks(nil, now)); got > nacksAtOnce {
				t.Fatalf("%d NACKs at once", got)
			}
			if at, ok := j.due(now); ok && at > now+depthMax+reorderMax {
				t.Fatalf("due in %v", at-now)
			} else if !ok && j.next != j.top {
				t.Fatal("something is held and nothing is due")
			}
			if d := j.depth(now); d < depthMin || d > depthMax {
				t.Fatalf("depth %v", d)
			}
		}
		for range 2 * jitterWindow { // all is handed over in the end
			now += depthMax
			j.pop(now)
		}
		if j.next != j.top {
			t.Fatal("packets are held for ever")
		}
		j.report()
	})
}
