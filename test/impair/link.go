package impair

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Settings is what a link does to what goes over it. The zero value does nothing.
type Settings struct {
	Rate   int           // bit/s of IP packets; 0: no limit
	Queue  time.Duration // what would wait longer than this at the rate is dropped; 0: 200 ms
	Bytes  int           // the same as bytes that wait; 0: Queue decides alone
	Delay  time.Duration // of each packet, after the queue
	Jitter time.Duration // of each packet, 0 to this much more; it never reorders
	Loss   float64       // share of the packets that are lost before the queue, 0 to 1
	Burst  float64       // mean length of a run of losses in packets, by Gilbert's two states; at most 1: independent

	// A shared medium, as Wi-Fi is: the sender waits for its turn, which takes Access in
	// the mean (exponential), and then sends all that waits, at most 64 packets, which
	// arrive together (802.11's aggregation and block acknowledgement).
	Access time.Duration
	// Now and then, at intervals of StallEvery in the mean, the medium is gone for 0 to
	// twice Stall: interference, or a scan for other networks.
	Stall, StallEvery time.Duration
}

const (
	usualQueue = 200 * time.Millisecond
	aggregate  = 64 // packets sent in one turn of a shared medium
)

// Fate is what became of a packet.
type Fate int

// The fates.
const (
	Delivered Fate = iota
	Lost           // by chance
	Dropped        // the queue was full
)

// Passed tells what became of a packet.
type Passed struct {
	Came   time.Time     // when the link got it
	At     time.Time     // when it arrived or was dropped
	Waited time.Duration // in the queue, until it was sent
	Fate   Fate
	Packet []byte // whole IP packet, valid during the call only
}

// Stats is what a link has done until now.
type Stats struct {
	Packets, Bytes int // delivered
	Lost, Dropped  int // packets
	Waiting        int // bytes in the queue now
}

// Link is one direction between two namespaces: a drop-tail queue, a sender of a
// limited rate, and a way that takes its time. Its methods may be called from any
// goroutine.
type Link struct {
	kick int // eventfd: the settings changed

	mu      sync.Mutex // guards what follows
	set     Settings
	tap     func(Passed)
	rand    *rand.Rand
	bad     bool      // inside a run of losses
	free    time.Time // when the sender has sent what it is at
	begin   time.Time // when it begins to send what waits; zero: not known yet
	stall   time.Time // when the medium goes next
	turn    []packet  // what goes together
	waiting fifo
	flying  fifo      // at is when it arrives
	last    time.Time // arrival of the last of flying
	stats   Stats
}

type packet struct {
	came   time.Time
	at     time.Time
	waited time.Duration
	data   []byte
}

func newLink(seed, stream uint64) *Link {
	return &Link{kick: -1, rand: rand.New(rand.NewPCG(seed, stream))}
}

// Set changes the settings. What waits stays in the queue, and goes on at the new rate.
func (l *Link) Set(s Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.StallEvery != l.set.StallEvery {
		l.stall = time.Now().Add(l.exponential(s.StallEvery))
	}
	l.set = s
	if l.kick >= 0 {
		unix.Write(l.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Settings is what was set last.
func (l *Link) Settings() Settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set
}

// Tap has f called with the fate of each packet, on the link's thread, one call at
// a time. f must not block or call the link. Nil ends it.
func (l *Link) Tap(f func(Passed)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tap = f
}

// Stats is what the link has done until now.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Waiting = l.waiting.bytes
	return s
}

// enqueue takes a packet over.
func (l *Link) enqueue(now time.Time, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.lose():
		l.stats.Lost++
		l.tell(Passed{Came: now, At: now, Fate: Lost, Packet: data})
	case l.full(len(data)):
		l.stats.Dropped++
		l.tell(Passed{Came: now, At: now, Fate: Dropped, Packet: data})
	default:
		l.waiting.push(packet{came: now, data: data})
	}
}

func (l *Link) tell(p Passed) {
	if l.tap != nil {
		l.tap(p)
	}
}

// lose decides by chance. In Gilbert's model the mean loss is that of Settings, too.
func (l *Link) lose() bool {
	p := l.set.Loss
	if l.set.Burst <= 1 || p <= 0 || p >= 1 {
		return p > 0 && l.rand.Float64() < p
	}
	if l.bad {
		l.bad = l.rand.Float64() >= 1/l.set.Burst
	} else {
		l.bad = l.rand.Float64() < p/(l.set.Burst*(1-p))
	}
	return l.bad
}

func (l *Link) full(size int) bool {
	if l.waiting.len() == 0 {
		return false
	}
	bytes := l.waiting.bytes + size
	if l.set.Bytes > 0 && bytes > l.set.Bytes {
		return true
	}
	queue := l.set.Queue
	if queue == 0 {
		if l.set.Bytes > 0 {
			return false
		}
		queue = usualQueue
	}
	return l.set.Rate > 0 && l.takes(bytes) > queue
}

// takes is how long the sender is at some bytes.
func (l *Link) takes(bytes int) time.Duration {
	if l.set.Rate <= 0 {
		return 0
	}
	return time.Duration(int64(bytes) * 8 * int64(time.Second) / int64(l.set.Rate))
}

func (l *Link) exponential(mean time.Duration) time.Duration {
	return time.Duration(l.rand.ExpFloat64() * float64(mean))
}

// step sends what can be sent by now, and returns what has arrived by now and when
// to come again; zero: when something comes.
func (l *Link) step(now time.Time, arrived []packet) ([]packet, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting.len() > 0 {
		if l.begin.IsZero() {
			l.begin = l.access()
		}
		if l.begin.After(now) {
			break
		}
		l.send()
	}
	for l.flying.len() > 0 && !l.flying.first().at.After(now) {
		p := l.flying.pop()
		l.stats.Packets++
		l.stats.Bytes += len(p.data)
		l.tell(Passed{Came: p.came, At: p.at, Waited: p.waited, Packet: p.data})
		arrived = append(arrived, p)
	}
	var next time.Time
	if l.waiting.len() > 0 {
		next = l.begin
	}
	if l.flying.len() > 0 && (next.IsZero() || l.flying.first().at.Before(next)) {
		next = l.flying.first().at
	}
	return arrived, next
}

// access is when the sender may begin with the first that waits. Times are those of
// the model, not of the goroutine, which may be late.
func (l *Link) access() time.Time {
	begin := l.free
	if came := l.waiting.first().came; came.After(begin) {
		begin = came
	}
	if l.set.StallEvery > 0 && !begin.Before(l.stall) {
		begin = begin.Add(time.Duration(2 * l.rand.Float64() * float64(l.set.Stall)))
		l.stall = begin.Add(l.exponential(l.set.StallEvery))
	}
	if l.set.Access > 0 {
		begin = begin.Add(l.exponential(l.set.Access))
	}
	return begin
}

// send sends the first that waits, or on a shared medium all that waits.
func (l *Link) send() {
	most := 1
	if l.set.Access > 0 {
		most = aggregate
	}
	begin := l.begin
	l.free, l.begin = begin, time.Time{}
	l.turn = l.turn[:0]
	for len(l.turn) < most && l.waiting.len() > 0 && !l.waiting.first().came.After(begin) {
		p := l.waiting.pop()
		p.waited = l.free.Sub(p.came)
		l.free = l.free.Add(l.takes(len(p.data)))
		l.turn = append(l.turn, p)
	}
	for _, p := range l.turn {
		p.at = l.free.Add(l.set.Delay)
		if l.set.Jitter > 0 {
			p.at = p.at.Add(time.Duration(l.rand.Float64() * float64(l.set.Jitter)))
		}
		if p.at.Before(l.last) {
			p.at = l.last
		}
		l.last = p.at
		l.flying.push(p)
	}
}

// fifo is packets in order.
type fifo struct {
	packets []packet // from head on
	head    int
	bytes   int
}

func (f *fifo) len() int       { return len(f.packets) - f.head }
func (f *fifo) first() *packet { return &f.packets[f.head] }

func (f *fifo) push(p packet) {
	f.packets = append(f.packets, p)
	f.bytes += len(p.data)
}

func (f *fifo) pop() packet {
	p := f.packets[f.head]
	f.packets[f.head] = packet{}
	f.bytes -= len(p.data)
	if f.head++; f.head > 256 && 2*f.head > len(f.packets) {
		f.packets = append(f.packets[:0], f.packets[f.head:]...)
		f.head = 0
	}
	return p
}
