package rtc

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/media"
)

// wire is a batch, a link to send by, and a socket that reads what comes out.
type wire struct {
	*batch
	out  *link
	to   netip.AddrPort
	conn *net.UDPConn
	m    *metrics
	sent [][]byte
}

func newWire(t testing.TB, host string) *wire {
	t.Helper()
	addr := netip.MustParseAddr(host)
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := listen(addr, 0, 1, testLog(t), m)
	if err != nil {
		t.Skipf("%s can't be used: %v", host, err)
	}
	t.Cleanup(func() { s.Close() })
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadBuffer(1 << 20)
	return &wire{
		batch: newBatch(), out: &link{sender: s.senders[0]}, conn: conn, m: m,
		to: netip.AddrPortFrom(addr, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()),
	}
}

// put adds packets of these sizes, each with bytes of its own.
func (w *wire) put(sizes ...int) {
	for _, size := range sizes {
		p := bytes.Repeat([]byte{byte(len(w.sent) + 1)}, size)
		w.sent = append(w.sent, p)
		w.add(w.out, w.to, p)
	}
}

// expect reads all that was put, in its order.
func (w *wire) expect(t *testing.T) {
	t.Helper()
	b := make([]byte, 4096)
	for i, want := range w.sent {
		_ = w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := w.conn.Read(b)
		if err != nil {
			t.Fatalf("datagram %d of %d: %v", i, len(w.sent), err)
		}
		if !bytes.Equal(b[:n], want) {
			t.Fatalf("datagram %d has %d bytes of %d, want %d of %d", i, n, b[0], len(want), want[0])
		}
	}
	w.sent = w.sent[:0]
}

func repeat(n, size int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func TestEqualPacketsMakeOneMessage(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, c := range []struct {
			sizes []int
			want  []int // packets of each message
		}{
			{[]int{700}, []int{1}},
			{[]int{1200, 1200, 1200, 300}, []int{4}},
			{[]int{60, 1200, 1200, 300}, []int{1, 3}},
			{[]int{1200, 300, 1200, 300}, []int{2, 2}}, // two slices
			{[]int{1, 2, 3, 3, 2, 1}, []int{1, 1, 3, 1}},
			{repeat(50, 1200), []int{50}},
			{repeat(40, 1300), []int{40}},
		} {
			t.Run(fmt.Sprint(host, c.sizes), func(t *testing.T) {
				w := newWire(t, host)
				w.put(c.sizes...)
				n := w.plan(0, true)
				if got := fmt.Sprint(w.count[:n]); got != fmt.Sprint(c.want) {
					t.Errorf("messages have %s packets, want %v", got, c.want)
				}
				w.flush()
				w.expect(t)
				if w.unsent != 0 || w.out.sender.socket.noGSO.Load() {
					t.Errorf("%d unsent, GSO given up: %v", w.unsent, w.out.sender.socket.noGSO.Load())
				}
			})
		}
	}
}

// A batch that is full, or begun for somebody else, is sent to whom it is for.
func TestBatchIsSentBeforeAnotherBegins(t *testing.T) {
	w, other := newWire(t, "127.0.0.1"), newWire(t, "127.0.0.1")
	other.batch = w.batch
	for range 3 {
		w.put(repeat(maxSegments+6, 1200)...)
		other.put(500, 500)
		other.flush()
		w.expect(t)
		other.expect(t)
	}
	w.put(repeat(60, 1400)...) // more bytes than a message takes
	w.flush()
	w.expect(t)
}

func TestWhatTheKernelRefusesIsGivenUp(t *testing.T) {
	sizes := []int{60, 1200, 1200, 1200, 300, 1200, 1200, 100}
	hasGSO := func(m []message) int {
		for i := range m {
			if m[i].hdr.Controllen > 0 {
				return i
			}
		}
		return len(m)
	}
	segments := func(errno syscall.Errno) func([]message, bool) syscall.Errno {
		return func(m []message, _ bool) syscall.Errno {
			if hasGSO(m) == 0 {
				return errno
			}
			return 0
		}
	}
	single := func(_ []message, one bool) syscall.Errno {
		if !one {
			return syscall.ENOSYS
		}
		return 0
	}
	for name, c := range map[string]struct {
		refuse     func(m []message, one bool) syscall.Errno // of the first message
		sentBefore bool
		links      int  // that are tried, one after another
		viewers    int  // for which GSO is given up
		socket     bool // GSO is given up
		one        bool // sendmmsg is given up
	}{
		"card without checksums":        {refuse: segments(syscall.EIO), links: 6, viewers: refusedLinks, socket: true},
		"IPsec to the first viewers":    {refuse: segments(syscall.EIO), links: refusedLinks - 1, viewers: refusedLinks - 1},
		"IPsec to some":                 {refuse: segments(syscall.EIO), sentBefore: true, links: 6, viewers: 6},
		"small MTU on the way":          {refuse: segments(syscall.EINVAL), sentBefore: true, links: 1, viewers: 1},
		"small MTU to the first viewer": {refuse: segments(syscall.EINVAL), links: 1, viewers: 1},
		"small MTU to many":             {refuse: segments(syscall.EINVAL), links: 6, viewers: 6},
		"no sendmmsg":                   {refuse: single, links: 1, one: true},
		"neither": {refuse: func(m []message, one bool) syscall.Errno {
			if errno := single(m, one); errno != 0 {
				return errno
			}
			return segments(syscall.EIO)(m, one)
		}, links: 5, viewers: refusedLinks, socket: true, one: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, "127.0.0.1")
			w.put(400, 400)
			if c.sentBefore {
				w.flush()
			}
			w.system = func(fd uintptr, m []message, one bool) (int, syscall.Errno) {
				if errno := c.refuse(m, one); errno != 0 {
					return 0, errno
				}
				n := 1 // as the kernel does: up to the message that it refuses
				for !one && n < len(m) && c.refuse(m[n:], one) == 0 {
					n++
				}
				return system(fd, m[:n], one)
			}
			viewers := 0
			for range c.links {
				for range 3 {
					w.put(sizes...)
					w.flush()
					w.expect(t)
				}
				viewers += boolInt(w.out.noGSO)
				w.out = &link{sender: w.out.sender}
			}
			s := w.out.sender.socket
			if s.noGSO.Load() != c.socket || viewers != c.viewers || s.noMMsg.Load() != c.one || w.unsent != 0 {
				t.Errorf("given up for the socket: %v, %d viewers, sendmmsg: %v; %d unsent", s.noGSO.Load(), viewers, s.noMMsg.Load(), w.unsent)
			}
			n := value(t, w.m.fallbacks.WithLabelValues("socket", "mmsg")) + value(t, w.m.fallbacks.WithLabelValues("socket", "single")) +
				value(t, w.m.fallbacks.WithLabelValues("viewer", "mmsg"))
			if want := float64(boolInt(c.socket) + c.viewers + boolInt(c.one)); n != want {
				t.Errorf("%v fallbacks are counted, want %v", n, want)
			}
		})
	}
}

// A card that takes nothing costs the shard's other viewers a moment, once in a while.
func TestStuckCardIsLeftAlone(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	calls := 0
	w.system = func(uintptr, []message, bool) (int, syscall.Errno) { calls++; return 0, syscall.EAGAIN }
	w.put(repeat(20, 1000)...)
	w.flush()
	if w.unsent != 20 || w.out.sender.stuck == 0 || value(t, w.m.stuck) != 1 {
		t.Fatalf("%d unsent, stuck until %v", w.unsent, w.out.sender.stuck)
	}
	calls = 0
	w.put(10)
	w.flush()
	if calls != 0 || w.unsent != 21 {
		t.Errorf("%d calls, %d unsent", calls, w.unsent)
	}
	w.system, w.sent = system, nil
	w.out.sender.stuck = media.Now() // the time is over
	w.put(20, 20, 20)
	w.flush()
	w.expect(t)
}

func TestRefusedPacketsAreCountedAndTheRestGoesOut(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	w.system = func(fd uintptr, m []message, one bool) (int, syscall.Errno) {
		if m[0].hdr.Controllen == 0 {
			return 0, syscall.ENETUNREACH
		}
		return system(fd, m[:1], one)
	}
	w.put(60)
	w.sent = nil
	w.put(1200, 1200, 100)
	w.flush()
	w.expect(t)
	if w.unsent != 1 || w.out.sender.socket.noGSO.Load() {
		t.Errorf("%d unsent", w.unsent)
	}
	w.out.sender.socket.Close()
	w.put(60, 1200, 1200, 100)
	w.flush()
	if w.unsent != 5 {
		t.Errorf("%d unsent on a closed socket", w.unsent-1)
	}
}

// The kernel's own refusals: a socket that may not make checksums, and an
// interface whose MTU is smaller than a segment.
func TestSegmentsThatTheRouteRefusesGoAlone(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	err := w.out.sender.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.put(repeat(20, 1200)...)
		w.flush()
		w.expect(t)
	}
	if !w.out.noGSO || w.unsent != 0 {
		t.Errorf("GSO given up: %v; %d unsent", w.out.noGSO, w.unsent)
	}
}

func TestSmallMTUCostsItsViewerOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread() // for good: the thread is in another namespace, and ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("no network namespaces: " + err.Error())
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "mtu", "1280", "up").CombinedOutput(); err != nil {
		t.Skipf("ip link: %v %s", err, out)
	}
	w := newWire(t, "127.0.0.1")
	w.put(repeat(20, 1200)...)
	w.flush()
	w.expect(t)
	for range 2 {
		w.put(repeat(20, 1400)...)
		w.flush()
		w.expect(t)
	}
	if !w.out.noGSO || w.out.sender.socket.noGSO.Load() || w.unsent != 0 {
		t.Errorf("GSO given up for the viewer: %v, the socket: %v; %d unsent", w.out.noGSO, w.out.sender.socket.noGSO.Load(), w.unsent)
	}
}

func TestFlushAllocatesNothing(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	packet := make([]byte, 1200)
	if n := testing.AllocsPerRun(100, func() {
		for range 10 {
			w.add(w.out, w.to, packet)
		}
		w.flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkFlush is what a packet costs in the system call, by the number that go
// out together.
func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{1, 4, 10, 48} {
		for _, gso := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/gso=%v", n, gso), func(b *testing.B) {
				w := newWire(b, "127.0.0.1")
				w.out.noGSO = !gso
				packet := make([]byte, 1200)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					w.add(w.out, w.to, packet)
					if i%n == n-1 {
						w.flush()
					}
				}
			})
		}
	}
}

// Media reaches a peer in segments, IPv4 and IPv6, beside what pion writes on the
// same socket, and without what packets are padded with to be of one size.
func TestMediaIsSentInBatches(t *testing.T) {
	for _, o := range []struct {
		name string
		addr string
	}{{"IPv4", "127.0.0.1"}, {"IPv6", "::1"}} {
		t.Run(o.name, func(t *testing.T) {
			e := newEngine(t, Options{})
			if err := e.sockets.addresses(t, netip.MustParseAddr(o.addr)); err != nil {
				t.Skip(err)
			}
			src := newSource()
			src.ragged = true
			s := newSession(t, e, peerOptions{}, videoTrack, src)
			s.connect(t)
			src.push(true, 30)
			for i := range 30 {
				want := 1000
				if i%3 == 1 {
					want -= i
				}
				if p := s.peer.next(t); len(p.Payload) != want {
					t.Errorf("packet %d has %d bytes, want %d", i, len(p.Payload), want)
				}
			}
			m := e.metrics
			for deadline := time.Now().Add(10 * time.Second); value(t, m.gsoPackets)+value(t, m.otherPackets) < 30 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // they are counted after they were sent
			}
			if gso, alone := value(t, m.gsoPackets), value(t, m.otherPackets); gso < 25 || gso+alone != 30 {
				t.Errorf("%v packets went out in segments, %v alone", gso, alone)
			}
			if n := value(t, m.gsoMessages); n == 0 || n > 6 {
				t.Errorf("%v messages", n)
			}
		})
	}
}
