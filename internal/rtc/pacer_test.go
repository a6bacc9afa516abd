package rtc

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// queue is a link of a rate with a queue of some bytes before it.
type queue struct {
	bps, limit int
	backlog    float64 // bytes
	at         time.Duration
	peak, lost int
	packets    int
}

// offer tells whether a packet finds room, and after how long it is through.
func (q *queue) offer(now time.Duration, size int) (bool, time.Duration) {
	q.backlog = max(q.backlog-float64(now-q.at)*float64(q.bps)/8e9, 0)
	q.at = now
	q.packets++
	if int(q.backlog)+size > q.limit {
		q.lost++
		return false, 0
	}
	q.backlog += float64(size)
	q.peak = max(q.peak, int(q.backlog))
	return true, time.Duration(q.backlog * 8e9 / float64(q.bps))
}

// drive sends frames of these numbers of packets by a pacer, one each interval,
// with a turn at every tick, and tells how long each took.
func drive(q *queue, bitrate, estimate int, interval, tick time.Duration, frames ...int) (took []time.Duration, left int) {
	var p pacer
	var due []media.Packet
	start := media.Now()
	began := map[*media.Buffer]time.Duration{}
	for now := time.Duration(0); now < time.Duration(len(frames))*interval+2*time.Second; now += tick {
		if i := int(now / interval); now%interval < tick && i < len(frames) {
			b := media.NewBuffer(frames[i] * 1200)
			b.Capture = start + time.Duration(i)*interval
			b.Arrived = b.Capture
			for j := range frames[i] {
				b.Append(make([]byte, 1200))
				due = append(due, media.Packet{Buffer: b, I: j})
			}
			began[b] = now
		}
		for n := p.room(start + now); n > 0 && len(due) > 0; n = p.room(start + now) {
			for _, m := range due[:min(n, len(due))] {
				if m.I == 0 {
					p.plan(m.Buffer, bitrate, estimate)
				}
				p.spend(m, 1200)
				q.offer(now, 1240)
				if m.I == m.Buffer.Len()-1 {
					took = append(took, now-began[m.Buffer])
				}
			}
			due = due[min(n, len(due)):]
		}
	}
	return took, len(due)
}

func TestLargeFramesAreSpread(t *testing.T) {
	const frame = time.Second / 30
	for name, c := range map[string]struct {
		bitrate, estimate int
		frames            []int
		link              queue
		longest           time.Duration // that a frame takes
	}{
		"usual frames go whole":     {2_500_000, 0, []int{9, 16, 9, 9, 3, 16, 16, 9}, queue{bps: 100e6, limit: 64 << 10}, 0},
		"a keyframe":                {2_500_000, 0, []int{9, 9, 9, 100, 9, 9, 9}, queue{bps: 40e6, limit: 64 << 10}, 40 * time.Millisecond},
		"a keyframe on 20 Mbit/s":   {2_500_000, 0, []int{100, 9, 9, 9}, queue{bps: 20e6, limit: 64 << 10}, 40 * time.Millisecond},
		"a slow link is known":      {2_500_000, 4_000_000, []int{9, 9, 100, 9, 9}, queue{bps: 5e6, limit: 64 << 10}, time.Second},
		"60 Mbit/s":                 {60_000_000, 0, []int{208, 208, 208, 208, 208, 208}, queue{bps: 200e6, limit: 256 << 10}, 20 * time.Millisecond},
		"bitrate is not configured": {0, 0, []int{30, 30, 30, 30, 90, 30, 30}, queue{bps: 40e6, limit: 64 << 10}, 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			took, left := drive(&c.link, c.bitrate, c.estimate, frame, paceTick, c.frames...)
			if c.link.lost > 0 || left > 0 || len(took) != len(c.frames) {
				t.Errorf("%d of %d packets are lost, %d wait; the queue held %d bytes", c.link.lost, c.link.packets, left, c.link.peak)
			}
			for i, d := range took {
				if d > c.longest {
					t.Errorf("frame %d of %d packets takes %v", i, c.frames[i], d)
				}
			}
		})
	}
	// without, for comparison
	q := queue{bps: 20e6, limit: 64 << 10}
	for range 100 {
		q.offer(0, 1240)
	}
	if q.lost < 40 {
		t.Errorf("%d of 100 packets are lost at once", q.lost)
	}
}

// A frame of several slices is several buffers. A track whose bitrate nobody knows
// fell behind by it: each buffer had its frame's time (make bench-viewers, 2026-11).
func TestFramesOfSeveralBuffersKeepPace(t *testing.T) {
	var p pacer
	start := media.Now()
	var due []media.Packet
	worst := 0
	for now := time.Duration(0); now < 5*time.Second; now += paceTick {
		if now%(34*time.Millisecond) == 0 {
			for range 4 {
				b := media.NewBuffer(8 * 1200)
				b.Capture, b.Arrived = start+now, start+now
				for j := range 8 {
					b.Append(make([]byte, 1200))
					due = append(due, media.Packet{Buffer: b, I: j})
				}
			}
		}
		for n := p.room(start + now); n > 0 && len(due) > 0; n = p.room(start + now) {
			for _, m := range due[:min(n, len(due))] {
				if m.I == 0 {
					p.plan(m.Buffer, 0, 0)
				}
				p.spend(m, 1200)
			}
			due = due[min(n, len(due)):]
		}
		if now > time.Second {
			worst = max(worst, len(due))
		}
	}
	if worst > 32 {
		t.Errorf("%d packets waited at a time, a frame has 32", worst)
	}
}

// Turns come late on a busy machine: what may go then is bounded.
func TestLateTicksMakeNoBursts(t *testing.T) {
	q := queue{bps: 20e6, limit: 64 << 10}
	if _, left := drive(&q, 2_500_000, 0, time.Second/30, 9*time.Millisecond, 100, 9, 9, 9); q.lost > 0 || left > 0 {
		t.Errorf("%d lost, %d wait", q.lost, left)
	}
}

// After an outage little is known to be carried; as soon as more is, in the middle of a
// large frame, the rest of it goes at that.
func TestRateComesBackInTheMiddleOfAFrame(t *testing.T) {
	var p pacer
	b := media.NewBuffer(100 * 1200)
	b.Capture = media.Now()
	b.Arrived = b.Capture
	for range 100 {
		b.Append(make([]byte, 1200))
	}
	now, sent := b.Capture, 0
	turns := func(n, estimate int) (packets int) {
		for range n {
			now += paceTick
			p.within(estimate)
			for n := min(p.room(now), b.Len()-sent); n > 0; n, packets, sent = n-1, packets+1, sent+1 {
				if sent == 0 {
					p.plan(b, 2_500_000, estimate)
				}
				p.spend(media.Packet{Buffer: b, I: sent}, 1200)
			}
		}
		return packets
	}
	if n := turns(100, estimateMin); n == 0 || n > 5 {
		t.Fatalf("%d packets go in 200 ms at %d bit/s", n, estimateMin)
	}
	if n := turns(100, 2_000_000); n < 30 { // 41 are what it carries
		t.Errorf("%d packets go in 200 ms at 2 Mbit/s", n)
	}
	if turns(100, 0); sent != b.Len() {
		t.Errorf("%d of %d packets have gone, while nothing is known of a limit", sent, b.Len())
	}
}

func TestPacerTakesAnyClock(t *testing.T) {
	var p pacer
	b := media.NewBuffer(1000)
	b.Append(make([]byte, 1000))
	for _, now := range []time.Duration{1 << 60, 0, -5, 1 << 62, 100} {
		b.Capture = now
		p.plan(b, 1<<40, 1<<40)
		p.spend(media.Packet{Buffer: b}, 4000)
		if n := p.room(now); n < 0 {
			t.Errorf("room %d at %v", n, now)
		}
	}
	if p.plan(b, 0, 1); p.rate != estimateMin {
		t.Errorf("rate %d", p.rate)
	}
}

// strait is a way between the gateway and a peer, of a rate and with a queue
// towards the peer.
type strait struct {
	gateway, peer *net.UDPConn // each faces the one of its name
	mu            sync.Mutex   // guards what follows
	toGateway     *net.UDPAddr
	toPeer        *net.UDPAddr
	q             queue
	media         int // RTP packets that came
	lost          int // RTP packets that found no room
}

func newStrait(t *testing.T, q queue) *strait {
	t.Helper()
	w := &strait{q: q}
	for _, c := range []**net.UDPConn{&w.gateway, &w.peer} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadBuffer(4 << 20)
		*c = conn
	}
	var running sync.WaitGroup
	pass := func(in *net.UDPConn, do func([]byte)) {
		running.Add(1)
		go func() {
			defer running.Done()
			b := make([]byte, 2048)
			for {
				n, err := in.Read(b)
				if err != nil {
					return
				}
				w.mu.Lock()
				do(append([]byte(nil), b[:n]...))
				w.mu.Unlock()
			}
		}()
	}
	var closed atomic.Bool
	pass(w.gateway, func(b []byte) {
		ok, after := w.q.offer(media.Now(), len(b))
		if isRTP(b) {
			w.media++
			w.lost += boolInt(!ok)
		}
		if to := w.toPeer; ok && to != nil {
			time.AfterFunc(after, func() {
				if !closed.Load() {
					_, _ = w.peer.WriteToUDP(b, to)
				}
			})
		}
	})
	pass(w.peer, func(b []byte) {
		if w.toGateway != nil {
			_, _ = w.gateway.WriteToUDP(b, w.toGateway)
		}
	})
	t.Cleanup(func() { closed.Store(true); w.gateway.Close(); w.peer.Close(); running.Wait() })
	return w
}

var candidateLine = regexp.MustCompile(`a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host.*\r\n`)

// reroute leaves one candidate in a description, and makes it at's.
func reroute(t *testing.T, sdp string, at *net.UDPConn) (string, *net.UDPAddr) {
	t.Helper()
	m := candidateLine.FindStringSubmatch(sdp)
	if m == nil {
		t.Skip("no candidate on 127.0.0.1")
	}
	to, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+m[1])
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Replace(m[0], " "+m[1]+" ", fmt.Sprintf(" %d ", at.LocalAddr().(*net.UDPAddr).Port), 1)
	var out []string
	for _, l := range strings.SplitAfter(sdp, "\r\n") {
		switch {
		case l == m[0]:
			out = append(out, line)
		case !strings.HasPrefix(l, "a=candidate:"):
			out = append(out, l)
		}
	}
	return strings.Join(out, ""), to
}

// A keyframe of 100 packets on a link of 20 Mbit/s with a queue of 64 KB, as it
// comes and spread over time. The figures are for docs/benchmarks.md.
func TestKeyframeFitsThroughASlowLink(t *testing.T) {
	lost := map[bool]int{}
	for _, paced := range []bool{false, true} {
		e := newEngine(t, Options{})
		e.unpaced = !paced
		src := newSource()
		v := newWHEP(t, e, videoTrack, src)
		p := newPeer(t, peerOptions{settings: func(s *webrtc.SettingEngine) {
			s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
		}})
		receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
		w := newStrait(t, queue{bps: 20e6, limit: 64 << 10})
		offer, peerAt := reroute(t, whepOffer(t, p), w.gateway)
		answer, err := v.Answer(context.Background(), offer)
		if err != nil {
			t.Fatal(err)
		}
		answer, gatewayAt := reroute(t, answer, w.peer)
		w.mu.Lock()
		w.toPeer, w.toGateway = peerAt, gatewayAt
		w.mu.Unlock()
		p.accept(t, answer)
		src.push(true, 1)
		p.next(t)
		const packets = 100
		src.push(true, packets)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			w.mu.Lock()
			all := w.media >= 1+packets
			lost[paced] = w.lost
			w.mu.Unlock()
			if all {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%d packets came", w.media)
			}
		}
		t.Logf("paced: %v: %d of %d packets of a keyframe lost on 20 Mbit/s with a queue of 64 KB", paced, lost[paced], packets)
	}
	if lost[false] == 0 || lost[true] >= lost[false] {
		t.Errorf("%d packets are lost at once, %d when they are spread", lost[false], lost[true])
	}
}
