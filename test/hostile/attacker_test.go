package hostile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gateway/test/rig"
)

// attack is one way to do harm. run goes on until ctx ends; what goes wrong in it is the
// attacker's trouble. An error means that it couldn't begin.
type attack struct {
	surface, name string
	run           func(ctx context.Context, e *enemy) error
}

// attacks are all of them, in the order of the table.
var attacks = slices.Concat(httpAttacks, webSocketAttacks, sdpAttacks, udpAttacks, dtlsAttacks, rtcpAttacks, dataAttacks)

// enemy is the gateway to an attack.
type enemy struct {
	host  string      // and port, of TCP and UDP
	heard []overheard // at least one, within hear
	lasts time.Duration
	from  time.Time // when the attack began
	done  atomic.Int64

	mu   sync.Mutex // guards note
	note string
}

// url is the address of a path.
func (e *enemy) url(path string) string { return "http://" + e.host + path }

// did counts what was done.
func (e *enemy) did() { e.done.Add(1) }

// say notes something for the table, the first time.
func (e *enemy) say(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.note == "" {
		e.note = fmt.Sprintf(format, args...)
	}
}

// dial opens a TCP connection, which ends with the attack at the latest.
func (e *enemy) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.host)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return conn, nil
}

// many runs f in n goroutines, again and again.
func (e *enemy) many(ctx context.Context, n int, f func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				before := e.done.Load()
				f()
				if e.done.Load() == before { // it was turned away: no use in burning the machine that both share
					wait(ctx, time.Millisecond)
				}
			}
		})
	}
	all.Wait()
}

// hold runs f once in each of n goroutines and keeps what it has opened until ctx ends.
func (e *enemy) hold(ctx context.Context, n int, f func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(f)
	}
	all.Wait()
	<-ctx.Done()
}

// wait lets time pass, and tells whether the attack goes on.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// noise is n random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// damage is a copy of b with some bytes changed, taken out or put in.
func damage(b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + rand.IntN(8) {
		if len(b) == 0 {
			break
		}
		at := rand.IntN(len(b))
		switch rand.IntN(4) {
		case 0:
			b[at] = byte(rand.Uint32())
		case 1:
			b = b[:at]
		case 2:
			b = slices.Delete(b, at, min(len(b), at+1+rand.IntN(16)))
		default:
			b = slices.Insert(b, at, noise(1+rand.IntN(16))...)
		}
	}
	return b
}

// Attacker attacks in a process of its own. It is called by net/rpc.
type Attacker struct{}

// Order says what to do.
type Order struct {
	Name string // of the attack
	Host string // and port of the gateway
	For  time.Duration
}

// Told is what came of it.
type Told struct {
	From    int64  // when it began, Unix nanoseconds
	Done    int    // what was sent, asked or opened
	Note    string // what is worth telling, empty otherwise
	Missing string // what the attack needs and this machine hasn't; empty: nothing
}

// Run makes one attack.
func (*Attacker) Run(o Order, told *Told) error {
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == o.Name })
	if i < 0 {
		return fmt.Errorf("there is no attack %q", o.Name)
	}
	e := &enemy{host: o.Host, lasts: o.For}
	ctx, cancel := e.begin()
	defer cancel()
	err := attacks[i].run(ctx, e)
	wait(context.Background(), time.Until(e.from.Add(o.For))) // or the table would measure another time
	told.From, told.Done, told.Note = e.from.UnixNano(), int(e.done.Load()), e.note
	if missing := new(rig.Missing); errors.As(err, &missing) {
		told.Missing = missing.Error()
		return nil
	}
	return err
}

const (
	patience  = 30 * time.Second // of an attack that gets nothing done
	preparing = time.Minute      // what comes before an attack, at most: 1000 sessions of the last one end after 30 s
)

// begin begins the attack's time. One that has got nothing done by its end goes on until it has:
// attackers get what others leave of the machine.
func (e *enemy) begin() (context.Context, context.CancelFunc) {
	e.from = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), max(e.lasts, patience))
	go func() {
		for wait(ctx, e.lasts) && e.done.Load() == 0 {
		}
		cancel()
	}()
	return ctx, cancel
}

// prepare tries until ctx ends what an attack begins with: the gateway may have enough of this
// address for now, and rightly so.
func prepare[T any](ctx context.Context, try func(context.Context) (T, error)) (T, error) {
	for {
		v, err := try(ctx)
		if err == nil || !wait(ctx, 100*time.Millisecond) {
			return v, err
		}
	}
}

// hear is an attack that begins when enough of what the good viewers send was overheard.
func hear(wanted func(overheard) bool, run func(context.Context, *enemy) error) func(context.Context, *enemy) error {
	return func(_ context.Context, e *enemy) (err error) {
		if e.heard, err = listen(e.host, wanted); err != nil {
			return err
		}
		ctx, cancel := e.begin()
		defer cancel()
		return run(ctx, e)
	}
}

// yieldCPU has this process take only what nobody else wants: attackers come with
// machines of their own, and here they share the gateway's.
func yieldCPU() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, tid, 19)
		}
	}
}
