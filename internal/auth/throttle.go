package auth

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limit is how often something may be tried: burst times at once, and then once
// each interval.
type limit struct {
	every time.Duration
	burst int
}

var (
	addressRate = limit{6 * time.Second, 10}
	userRate    = limit{3 * time.Second, 20} // from all addresses: guessing from many is slowed too
)

const maxThrottled = 10_000 // that are told apart; the others share one

// throttle counts logins. Its memory is bounded.
type throttle struct {
	now func() time.Time

	mu sync.Mutex // guards below
	by map[string]*rate.Limiter
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, by: make(map[string]*rate.Limiter)}
}

// allow counts a try and tells whether it may go on.
func (t *throttle) allow(who string, l limit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if _, ok := t.by[who]; !ok && len(t.by) >= maxThrottled {
		for k, one := range t.by {
			if one.TokensAt(now) >= float64(one.Burst()) {
				delete(t.by, k)
			}
		}
		if len(t.by) >= maxThrottled {
			who = "the others"
		}
	}
	one, ok := t.by[who]
	if !ok {
		one = rate.NewLimiter(rate.Every(l.every), l.burst)
		t.by[who] = one
	}
	return one.AllowN(now, 1)
}

// AddressOf is what logins from an address of a peer ("host:port") are counted
// by: an IPv4 address, or the /64 of an IPv6 one, which one subscriber has.
func AddressOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}
