package signal

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	resumeRate   = 0.2 // refused resumes a second from one address
	resumeBurst  = 10
	joinBurst    = 2 // seconds' worth of joins that may come at once
	addressAfter = time.Minute
)

// addresses bounds what one address does, whatever sockets it has: of IPv6 a /64,
// which one machine has to itself.
type addresses struct {
	joins float64 // a second; 0: any

	mu    sync.Mutex // guards below; held for a moment
	known map[netip.Prefix]*address
	swept time.Time
}

type address struct {
	sockets int
	waiting int // connections that were begun over HTTP and haven't come about
	joins   *rate.Limiter
	resumes *rate.Limiter // refused ones
	seen    time.Time
}

func newAddresses(joins int) *addresses {
	return &addresses{joins: float64(joins), known: make(map[netip.Prefix]*address)}
}

// prefixOf is what counts as one address of a request's RemoteAddr. What isn't one
// counts as one and the same.
func prefixOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // in range
	return p
}

// elsewhere tells whether an address is another machine's.
func elsewhere(p netip.Prefix) bool { return p.IsValid() && !p.Addr().IsLoopback() }

// enter counts a socket, if there are fewer than most; 0: any number.
func (a *addresses) enter(p netip.Prefix, most int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep()
	x := a.of(p)
	if most > 0 && x.sockets >= most {
		return false
	}
	x.sockets++
	return true
}

func (a *addresses) leave(p netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of(p).sockets--
}

// mayBegin counts the begin of a session, in whichever way, and refuses what is too many.
func (s *Server) mayBegin(p netip.Prefix) error {
	if s.addresses.mayJoin(p) {
		return nil
	}
	return refuse(rateLimited, "more than %d joins a second from one address", s.conf.Limits.JoinsPerAddress)
}

// mayJoin counts a join.
func (a *addresses) mayJoin(p netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep()
	return a.joins == 0 || a.of(p).joins.Allow()
}

// await counts a session over HTTP until it is connected or at its end, and refuses what is too
// many: one that never connects takes a place and ICE's work for half a minute.
func (s *Server) await(x *session, p netip.Prefix) error {
	done, ok := s.addresses.await(p)
	if !ok {
		return refuse(rateLimited, "%d sessions of one address aren't connected yet", s.addresses.burst())
	}
	x.awaited = done
	return nil
}

func (a *addresses) await(p netip.Prefix) (done func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.of(p)
	if a.joins > 0 && x.waiting >= a.burst() {
		return nil, false
	}
	x.waiting++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		x.waiting--
	}), true
}

// burst is how many joins may come at once.
func (a *addresses) burst() int { return max(int(joinBurst*a.joins), 1) }

// mayResume tells whether an address may try to; refused counts that it failed.
func (a *addresses) mayResume(p netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(p).resumes.Tokens() >= 1
}

func (a *addresses) refused(p netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of(p).resumes.Allow()
}

// of is what is known of an address; mu is held.
func (a *addresses) of(p netip.Prefix) *address {
	x := a.known[p]
	if x == nil {
		x = &address{
			joins:   rate.NewLimiter(rate.Limit(a.joins), a.burst()),
			resumes: rate.NewLimiter(resumeRate, resumeBurst),
		}
		a.known[p] = x
	}
	x.seen = time.Now()
	return x
}

// sweep forgets addresses that have been quiet for so long that nothing counts
// against them any more; mu is held.
func (a *addresses) sweep() {
	now := time.Now()
	if now.Sub(a.swept) < addressAfter {
		return
	}
	a.swept = now
	for p, x := range a.known {
		if x.sockets == 0 && x.waiting == 0 && now.Sub(x.seen) > addressAfter {
			delete(a.known, p)
		}
	}
}
